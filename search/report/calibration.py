"""The section on whether predictions hold what they promise, on random points and on those that the search proposed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ...surrogates.calibration import MIN_JUDGED, N_PIT_BINS
from .charts import Axis, Chart, LegendEntry, Panel, Series, Symbol
from .content import CalibrationRow, ReportContent
from .intervals import wilson_interval
from .markup import escaped, figure, section, table
from .wording import quantity_label, significant

_STYLES: dict[str, tuple[str, Symbol, bool]] = {
    "seeds, held out": ("#8b949e", "square", False),
    "proposed, held out": ("#e8871e", "diamond", True),
    "proposed, beforehand": ("#2b7de9", "circle", True),
}
_OTHER: tuple[str, Symbol, bool] = ("#a0703c", "cross", True)
_REFERENCE_LINE = "#8b949e"
_FEW = 60
"""Histograms of fewer points have bins twice as wide."""

_NOTE = (
    "“Seeds, held out”: networks that were measured before anything was searched, predicted by predictors "
    "that have seen nothing of their backbones. “Proposed, held out”: the same of networks that the search "
    "proposed. “Proposed, beforehand”: predictions made when they were proposed, with the correction of that "
    "time. Costs are judged on the log scale, so their widths are percent of the cost; those of accuracy are points. "
    "Bias is the mean of (measured − predicted) in predicted standard deviations and should be 0; the spread of "
    "the same should be 1. CRPS joins calibration and sharpness (smaller is better). Designs of one backbone err alike, "
    "so that verdicts and bars count backbones, not points."
)


def calibration_charts(rows: Sequence[CalibrationRow]) -> tuple[Chart, ...]:
    """Reliability diagrams and PIT histograms, one panel per quantity; only of enough points."""
    judged = [row for row in rows if row.summary.n_groups >= MIN_JUDGED]
    if not judged:
        return ()
    quantities = list(dict.fromkeys(row.quantity for row in judged))
    legend = tuple(LegendEntry(where, *_style(where)) for where in dict.fromkeys(row.where for row in judged))
    own = [[row for row in judged if row.quantity == quantity] for quantity in quantities]
    return (
        Chart(
            "reliability",
            "Promised and kept: coverage of predicted intervals",
            "On the dashed line intervals hold what they promise; below it they are too narrow, above it wider than "
            "need be. Bars are 90 % intervals for the number of backbones.",
            tuple(_reliability_panel(some) for some in own),
            legend,
            height_px=340,
        ),
        Chart(
            "pit",
            "Where in their predicted distribution measurements fall",
            "A flat line is right; high ends mean intervals too narrow, a hump too wide ones, a slope a bias: to "
            "the right, measurements are higher than predicted.",
            tuple(_pit_panel(some) for some in own),
            legend,
            height_px=280,
        ),
    )


def _not_drawn(rows: Sequence[CalibrationRow]) -> str:
    """Which predictions the figures leave out, and why; nothing where they show all."""
    few = [row for row in rows if row.summary.n_groups < MIN_JUDGED]
    if not few:
        return ""
    named = "; ".join(
        f"{quantity_label(row.quantity)[0]}, {row.where} ({row.summary.n_groups})" for row in few
    )
    return (
        f'<p class="note">Not drawn, because fewer than {MIN_JUDGED} backbones say too little: {escaped(named)}. '
        "The table has their numbers.</p>"
    )


def _style(where: str) -> tuple[str, Symbol, bool]:
    return _STYLES.get(where, _OTHER)


def _reliability_panel(rows: Sequence[CalibrationRow]) -> Panel:
    label = quantity_label(rows[0].quantity)[0]
    levels = list(rows[0].summary.coverage)
    series = [Series("", _REFERENCE_LINE, (45.0, 100.0), (45.0, 100.0), kind="line", dashed=True)]
    for i, row in enumerate(rows):
        colour, symbol, filled = _style(row.where)
        shares, n = list(row.summary.coverage.values()), row.summary.n
        bars = [wilson_interval(share, row.summary.n_groups) for share in shares]
        # Side by side, so that bars of one level do not hide each other.
        shift = 0.9 * (i - (len(rows) - 1) / 2)
        series.append(
            Series(
                row.where, colour, tuple(100 * level + shift for level in levels),
                tuple(100 * share for share in shares), "joined", symbol, filled, size=7,
                y_error=tuple(
                    (100 * max(share - low, 0.0), 100 * max(high - share, 0.0))
                    for share, (low, high) in zip(shares, bars, strict=True)
                ),
                hover=tuple(
                    f"{label}, {row.where}\n{100 * share:.0f} % of {n} inside the {100 * level:g} % interval"
                    for level, share in zip(levels, shares, strict=True)
                ),
            )
        )  # fmt: skip
    ticks = tuple((100 * level, f"{100 * level:g}") for level in levels)
    return Panel(
        label,
        Axis("nominal level [%]", ticks=ticks, limits=(44.0, 101.0)),
        Axis("measured inside [%]", limits=(0.0, 104.0)),
        tuple(series),
    )


def _pit_panel(rows: Sequence[CalibrationRow]) -> Panel:
    even = 100.0 / N_PIT_BINS
    series, top = [Series("", _REFERENCE_LINE, (0.0, 1.0), (even, even), kind="line", dashed=True)], 2 * even
    for row in rows:
        # Of few points every tenth holds next to none.
        n_bins = N_PIT_BINS if row.summary.n >= _FEW else N_PIT_BINS // 2
        merged = N_PIT_BINS // n_bins
        shares = [sum(row.summary.pit[i : i + merged]) / merged for i in range(0, N_PIT_BINS, merged)]
        edges = [i / n_bins for i in range(n_bins + 1)]
        x = [edge for pair in pairwise(edges) for edge in pair]
        y = [100 * share for share in shares for _ in range(2)]
        series.append(Series(row.where, _style(row.where)[0], tuple(x), tuple(y), kind="line"))
        top = max(top, *y)
    return Panel(
        quantity_label(rows[0].quantity)[0],
        Axis("place in the predicted distribution", limits=(0.0, 1.0)),
        Axis("measurements per tenth [%]", limits=(0.0, 1.05 * top)),
        tuple(series),
    )


# -- in words ----------------------------------------------------------------------------------


def verdict(row: CalibrationRow) -> str:
    """What the points say of the predictions, in plain words; nothing where they are too few.

    A coverage or bias that right predictions show in 95 % of cases is not called wrong.
    """
    found = row.summary
    if found.n_groups < MIN_JUDGED:
        return f"too few backbones to tell ({found.n_groups} with {found.n} points; {MIN_JUDGED} at least)"
    low, high = found.coverage_band(0.9)
    share, said = found.coverage[0.9], []
    if share < low:
        said.append(f"intervals too narrow: {100 * share:.0f} % inside, {100 * low:.0f} % at least if right")
    elif share > high:
        said.append("intervals wider than need be")
    if abs(found.bias_sd) > 1.96 * max(found.spread_sd, 1.0) / math.sqrt(found.n_groups):
        way = "more" if found.bias_sd > 0 else "less"
        said.append(f"measured {way} than predicted by {abs(found.bias_sd):.2f} sd on average")
    return "; ".join(said) or "holds"


def calibration_section(content: ReportContent, charts: dict[str, Chart]) -> str:
    """Verdicts, figures and the table behind them; empty where nothing could be judged."""
    if not content.calibration:
        return ""
    levels = [f"{100 * level:g} %" for level in content.calibration[0].summary.coverage]
    numbers = (
        "points",
        "backbones",
        *levels,
        "bias",
        "spread",
        "mean sd",
        "90 % width",
        "CRPS",
        "PIT distance",
    )
    columns = [("quantity", False), ("predictions", False), *((name, True) for name in numbers)]
    groups = (
        ("", 2),
        ("measured", 2),
        ("inside intervals of", len(levels)),
        ("errors [sd]", 2),
        ("predictions", 4),
    )
    rows = [_cells(row) for row in content.calibration]
    quantities = list(dict.fromkeys(row.quantity for row in content.calibration))
    own = [[row for row in content.calibration if row.quantity == quantity] for quantity in quantities]
    words = "".join(f"<li>{_in_words(some)}</li>" for some in own)
    body = (
        f"<ul>{words}</ul>"
        + "".join(figure(charts[key]) for key in ("reliability", "pit") if key in charts)
        + _not_drawn(content.calibration)
        + f'<p class="note">{_NOTE}</p>{table(columns, rows, groups=groups)}'
    )
    return section(content, "Do predictions hold?", body, key="calibration-page")


def _in_words(rows: Sequence[CalibrationRow]) -> str:
    """What the points say of the predictions of one quantity, and what was concluded for the next ones."""
    label, used = quantity_label(rows[0].quantity)[0], rows[0].correction
    said = "; ".join(f"{row.where}: {verdict(row)}" for row in rows)
    if used is None:
        then = "Intervals are not corrected yet: too few backbones are measured to hold any out."
    else:
        shifted = f" and their middle is moved by {used.shift:+.2f} sd" if abs(used.shift) >= 0.005 else ""
        then = (
            f"Intervals predicted next are {used.factor:.2f} times as wide as the model says{shifted} (learned from "
            f"{used.n_random} seeds and {used.n_proposed} proposed backbones held out, {used.n_checked} predicted beforehand)."
        )
    return f"<b>{escaped(label)}</b>: {escaped(said)}. {escaped(then)}"


def _cells(row: CalibrationRow) -> list[str]:
    found, (label, _, _) = row.summary, quantity_label(row.quantity)
    unit = "points" if row.quantity == "accuracy" else "%"

    def hundred(value: float) -> str:
        return f"{significant(100 * value)}&nbsp;{unit}"

    return [
        escaped(label), escaped(row.where), str(found.n), str(found.n_groups),
        *(f"{100 * share:.0f} %" for share in found.coverage.values()),
        f"{found.bias_sd:+.2f}", significant(found.spread_sd, 2), hundred(found.mean_sd),
        hundred(found.mean_width_90), hundred(found.crps), f"{found.pit_distance:.2f}",
    ]  # fmt: skip
