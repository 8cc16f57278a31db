"""The figures of a report, made from its content as charts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from .calibration import calibration_charts
from .charts import Axis, Chart, Interval, LegendEntry, Panel, Series, Symbol, cost_axis
from .content import DesignRow, LedgerRow, PredictionCheck, ReportContent, RoundRow
from .intervals import Z_90, wilson_interval
from .policies import policy_chart
from .wording import duration, percent, quantity_label, significant, with_error

LOOP = "hadas"
SEED = "seed"
ASKED_FOR = "asked for"
"""Strategy of the designs that the user asked to be measured."""
MISSES = "misses constraints"
"""Name, in the figure of the fronts, of all points that do not count."""

_STRATEGIES: dict[str, tuple[str, Symbol, bool]] = {
    SEED: ("#85b0ea", "circle", False),
    "random": ("#8b949e", "triangle", True),
    "backbone only": ("#8e6bd8", "square", True),
    "presets optimized": ("#e8871e", "diamond", True),
    ASKED_FOR: ("#2f9e6e", "star", True),
    LOOP: ("#2b7de9", "circle", True),
}
"""Colour, symbol and filling of each strategy, in drawing order (the loop on top)."""

_OTHER_STRATEGIES = ("#a0703c", "#5f8a7d", "#9a5b8c", "#5b7083")
_QUANTITIES = {"accuracy": "#12908e", "energy_mj": "#c2557a", "latency_ms": "#84923a"}
_OTHER_QUANTITY = "#5b7083"
_INSIDE = "#5b7f9e"
_OUTSIDE = "#d64545"
_REFERENCE_LINE = "#8b949e"
_KINDS = {"device": "#4f79a8", "training": "#93b3d1"}


def strategy_style(strategy: str) -> tuple[str, Symbol, bool]:
    """Colour, symbol and filling of a strategy, the same in every figure and every report."""
    if strategy in _STRATEGIES:
        return _STRATEGIES[strategy]
    return _OTHER_STRATEGIES[sum(strategy.encode()) % len(_OTHER_STRATEGIES)], "cross", True


def all_charts(content: ReportContent) -> tuple[Chart, ...]:
    """Every figure that the content has values for, in the order of the page."""
    charts: list[Chart] = []
    if content.designs:
        charts.append(front_chart(content))
    if content.policies:
        charts.append(policy_chart(content.policies))
    if content.traces:
        charts.append(hypervolume_chart(content))
    if content.checks:
        charts.append(prediction_chart(content.checks))
    if any(count for row in content.rounds for count in row.n_checked.values()):
        charts.append(calibration_chart(content.rounds))
    charts += calibration_charts(content.calibration)
    if content.ledger:
        charts.append(ledger_chart(content.ledger))
    return tuple(charts)


def _ordered(strategies: Iterable[str]) -> list[str]:
    present = set(strategies)
    return sorted(present - set(_STRATEGIES)) + [name for name in _STRATEGIES if name in present]


def _strategy_legend(strategies: Sequence[str]) -> tuple[LegendEntry, ...]:
    return tuple(LegendEntry(name, *strategy_style(name)) for name in reversed(strategies))


# -- the front -------------------------------------------------------------------------------


def front_chart(content: ReportContent) -> Chart:
    """Accuracy against energy (latency on a device without an energy counter) of all measured points."""
    has_energy = content.has_energy
    strategies = _ordered(row.strategy for row in content.designs)
    costs = tuple(_cost(row, has_energy) for row in content.designs)
    right = max(costs) * 1.03
    series: list[Series] = []
    for name in strategies:
        rows = [row for row in content.designs if row.strategy == name]
        missing = [r for r in rows if not r.meets_constraints]
        series.append(_points([r for r in rows if r.meets_constraints and not r.on_front], has_energy))
        series.append(replace(_points(missing, has_energy), name=MISSES, symbol="plus"))
        # Every strategy begins with the seeds, so every line runs through the best of both; the
        # seeds' own line is drawn only while there is no other.
        if name != SEED or strategies == [SEED]:
            reached = [r for r in content.designs if r.strategy in (name, SEED) and r.meets_constraints]
            x, y = staircase([(_cost(r, has_energy), 100 * r.accuracy) for r in reached], right)
            series.append(Series(name, strategy_style(name)[0], x, y, kind="line", opacity=0.8))
        series.append(_points([r for r in rows if r.on_front], has_energy, on_front=True))
    cost = "energy per image [mJ]" if has_energy else "latency per image [ms]"
    panel = Panel(
        "",
        cost_axis(f"expected {cost}", costs),
        Axis("expected accuracy [%]"),
        tuple(s for s in series if s.x),
    )
    legend = _strategy_legend(strategies)
    if any(one.name == MISSES for one in panel.series):
        legend += (LegendEntry(MISSES, _REFERENCE_LINE, "plus"),)
    return Chart(
        "front",
        "Pareto fronts of the measured points",
        "Up and to the left is better: each line is the best accuracy that the seeds, from which all begin, and "
        "a strategy's own points reached at or below a cost; bars are 90 % intervals, so where bars overlap the "
        f"order is open.{_constraints_note(content, 'and lie on no line')}",
        (panel,),
        legend,
        height_px=470,
    )


def _constraints_note(content: ReportContent, therefore: str) -> str:
    """Says that points which miss the constraints count for nothing, and what follows; empty without constraints."""
    if not content.constraints:
        return ""
    n = sum(not row.meets_constraints for row in content.designs)
    return (
        f" Points must meet the constraints ({content.constraints}): {n} of {len(content.designs)} miss them "
        f"{therefore}."
    )


def _cost(row: DesignRow, has_energy: bool) -> float:
    return row.energy_mj if has_energy and row.energy_mj is not None else row.latency_ms


def staircase(
    points: Sequence[tuple[float, float]], right: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Corners of a front drawn as steps: the best accuracy reached at or below each cost.

    Args:
        points: (cost, accuracy) pairs in any order; dominated ones leave no corner.
        right: cost up to which the last step is drawn.

    Returns:
        x and y of the corners.
    """
    x: list[float] = []
    y: list[float] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not y:
            x, y = [cost], [accuracy]
        elif accuracy > y[-1]:
            x += [cost, cost]
            y += [y[-1], accuracy]
    if x and right > x[-1]:
        x.append(right)
        y.append(y[-1])
    return tuple(x), tuple(y)


def _points(rows: Sequence[DesignRow], has_energy: bool, *, on_front: bool = False) -> Series:
    name = rows[0].strategy if rows else ""
    colour, symbol, filled = strategy_style(name)
    costs = tuple(_cost(row, has_energy) for row in rows)
    x_error: tuple[Interval, ...] = ()
    y_error: tuple[Interval, ...] = ()
    if on_front:
        y_error = tuple((100 * Z_90 * row.accuracy_se,) * 2 for row in rows)
        if has_energy:
            x_error = tuple((Z_90 * (row.energy_se or 0.0),) * 2 for row in rows)
    return Series(
        name, colour, costs, tuple(100 * row.accuracy for row in rows), symbol=symbol, filled=filled,
        size=9 if on_front else 6, opacity=1.0 if on_front else 0.45, x_error=x_error, y_error=y_error,
        hover=tuple(_design_hover(row) for row in rows),
    )  # fmt: skip


def _design_hover(row: DesignRow) -> str:
    lines = [
        f"{row.name} ({row.strategy})",
        *([] if row.meets_constraints else ["misses the study's constraints"]),
        f"accuracy {percent(row.accuracy, row.accuracy_se)}",
        f"latency {significant(row.latency_ms)} ms",
        "exits after blocks " + ", ".join(map(str, row.exits)) if row.exits else "no exits",
        str(row.setting),
        *_wrapped(row.backbone, 44),
    ]
    if row.energy_mj is not None:
        lines.insert(2, f"energy {with_error(row.energy_mj, row.energy_se)} mJ")
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


# -- hypervolume -----------------------------------------------------------------------------


def hypervolume_chart(content: ReportContent) -> Chart:
    """Hypervolume against the number of measurements, one line per strategy."""
    traces = {trace.strategy: trace for trace in content.traces}
    strategies = _ordered(traces)
    series: list[Series] = []
    for name in strategies:
        trace = traces[name]
        colour, symbol, filled = strategy_style(name)
        hover = tuple(
            f"{name}\n{n} measurements\nhypervolume {significant(value, 4)}"
            for n, value in zip(trace.n_measurements, trace.hypervolume, strict=True)
        )
        x = tuple(float(n) for n in trace.n_measurements)
        series.append(
            Series(name, colour, x, trace.hypervolume, "joined", symbol, filled, size=5, hover=hover)
        )
    rated = [row for row in content.rounds if row.hypervolume_standard_error is not None]
    if rated and LOOP in traces:
        series.append(_round_intervals(rated))
    panel = Panel("", Axis("points measured"), Axis("hypervolume of measured points"), tuple(series))
    return Chart(
        "hypervolume",
        "Hypervolume by number of measurements",
        "Higher and earlier is better: the line shows how much of the space between the reference point and "
        "the ideal a strategy's measured points dominate; bars on the loop are 90 % intervals after each round."
        f"{_constraints_note(content, 'and add nothing')}",
        (panel,),
        _strategy_legend(strategies),
    )


def _round_intervals(rows: Sequence[RoundRow]) -> Series:
    colour, symbol, _ = strategy_style(LOOP)
    spread = tuple((Z_90 * (row.hypervolume_standard_error or 0.0),) * 2 for row in rows)
    return Series(
        LOOP, colour, tuple(float(row.n_measured) for row in rows), tuple(row.hypervolume for row in rows),
        symbol=symbol, size=9, y_error=spread,
        hover=tuple(
            f"round {row.round} of {LOOP}\n{row.n_measured} measurements\nhypervolume "
            f"{significant(row.hypervolume, 4)} ± {significant(half[0], 2)} (90 %)"
            for row, half in zip(rows, spread, strict=True)
        ),
    )  # fmt: skip


# -- predictions -----------------------------------------------------------------------------


def prediction_chart(checks: Sequence[PredictionCheck], outcome: str = "measured") -> Chart:
    """Predicted against measured, with the predicted 90 % interval, one panel per quantity.

    Args:
        outcome: the word for what came out, where not all of it was measured.
    """
    quantities = list(dict.fromkeys(check.quantity for check in checks))
    panels = tuple(_prediction_panel([c for c in checks if c.quantity == q], outcome) for q in quantities)
    return Chart(
        "predictions",
        f"Predicted, then {outcome}",
        f"Each point was predicted before it was {outcome}: its bar is the predicted 90 % interval, and about "
        "nine bars in ten should cross the diagonal.",
        panels,
        (
            LegendEntry("inside its interval", _INSIDE, "circle"),
            LegendEntry("outside its interval", _OUTSIDE, "cross"),
        ),
        height_px=350,
    )


def _prediction_panel(checks: Sequence[PredictionCheck], outcome: str) -> Panel:
    label, unit, scale = quantity_label(checks[0].quantity, checks[0].unit)
    values = tuple(scale * v for c in checks for v in (c.predicted, c.measured))
    low, high = min(values), max(values)
    series = [Series("", _REFERENCE_LINE, (low, high), (low, high), kind="line", dashed=True)]
    inside = [c for c in checks if c.low_90 <= c.measured <= c.high_90]
    outside = [c for c in checks if not c.low_90 <= c.measured <= c.high_90]
    if inside:
        series.append(_check_points(inside, "inside its interval", _INSIDE, "circle", scale, unit, outcome))
    if outside:
        series.append(_check_points(outside, "outside its interval", _OUTSIDE, "cross", scale, unit, outcome))
    share = f"{len(inside)} of {len(checks)} inside"
    bracket = f" [{unit}]" if unit else ""
    x, y = (
        cost_axis(f"{what} {label}{bracket}", values if unit != "%" else ())
        for what in (outcome, "predicted")
    )
    return Panel(f"{label}: {share}", x, y, tuple(series))


def _check_points(
    checks: Sequence[PredictionCheck],
    name: str,
    colour: str,
    symbol: Symbol,
    scale: float,
    unit: str,
    outcome: str,
) -> Series:
    return Series(
        name, colour, tuple(scale * c.measured for c in checks), tuple(scale * c.predicted for c in checks),
        symbol=symbol, size=7, opacity=0.85,
        y_error=tuple(
            (scale * max(c.predicted - c.low_90, 0.0), scale * max(c.high_90 - c.predicted, 0.0)) for c in checks
        ),
        hover=tuple(
            f"{c.arch_id}, round {c.round}\npredicted {significant(scale * c.predicted)} "
            f"({significant(scale * c.low_90)} to {significant(scale * c.high_90)}) {unit}\n"
            f"{outcome} {significant(scale * c.measured)} {unit}"
            for c in checks
        ),
    )  # fmt: skip


# -- coverage and bias -----------------------------------------------------------------------


def calibration_chart(rounds: Sequence[RoundRow]) -> Chart:
    """Coverage of the 90 % intervals and standardised bias, per round and quantity."""
    quantities = list(dict.fromkeys(q for row in rounds for q, n in row.n_checked.items() if n))
    coverage, bias = [], []
    for i, quantity in enumerate(quantities):
        # Side by side, so that bars of one round do not hide each other.
        shift = 0.08 * (i - (len(quantities) - 1) / 2)
        coverage.append(_coverage_series(rounds, quantity, shift))
        bias.append(_bias_series(rounds, quantity, shift))
    checked = [row.round for row in rounds if any(row.n_checked.values())]
    ticks = tuple((float(r), str(r)) for r in checked)
    span = (min(checked) - 0.5, max(checked) + 0.5)
    x = Axis("round", ticks=ticks, limits=span)
    names = [quantity_label(q)[0] for q in quantities]
    return Chart(
        "calibration",
        "Coverage and bias by round",
        "Good predictions have coverage near 90 % and bias near 0 (dashed lines); bars are 90 % intervals for "
        "the number of points checked, so a dashed line within a bar is no sign of error.",
        (
            Panel("coverage of 90 % intervals", x, Axis("measured inside [%]", limits=(0.0, 104.0)),
                  (_level(90.0, span), *coverage)),
            Panel("mean of measured − predicted", x, Axis("bias [predicted sd]"), (_level(0.0, span), *bias)),
        ),
        tuple(
            LegendEntry(name, _QUANTITIES.get(q, _OTHER_QUANTITY), "circle")
            for name, q in zip(names, quantities, strict=True)
        ),
        height_px=320,
    )  # fmt: skip


def _level(value: float, span: tuple[float, float]) -> Series:
    return Series("", _REFERENCE_LINE, span, (value, value), kind="line", dashed=True)


def _checked(
    rounds: Sequence[RoundRow], quantity: str, field: Literal["coverage_90", "bias"]
) -> list[tuple[RoundRow, float]]:
    """Rounds that checked a quantity, with its coverage or bias."""
    values = ((row, getattr(row, field).get(quantity)) for row in rounds if row.n_checked.get(quantity))
    return [(row, value) for row, value in values if value is not None and math.isfinite(value)]


def _coverage_series(rounds: Sequence[RoundRow], quantity: str, shift: float) -> Series:
    rows = _checked(rounds, quantity, "coverage_90")
    label = quantity_label(quantity)[0]
    errors = []
    for row, share in rows:
        low, high = wilson_interval(share, row.n_checked[quantity])
        errors.append((100 * max(share - low, 0.0), 100 * max(high - share, 0.0)))
    return Series(
        label, _QUANTITIES.get(quantity, _OTHER_QUANTITY), tuple(row.round + shift for row, _ in rows),
        tuple(100 * share for _, share in rows), kind="joined", size=7, y_error=tuple(errors),
        hover=tuple(
            f"{label}, round {row.round}\n{100 * share:.0f} % of {row.n_checked[quantity]} inside"
            for row, share in rows
        ),
    )  # fmt: skip


def _bias_series(rounds: Sequence[RoundRow], quantity: str, shift: float) -> Series:
    rows = _checked(rounds, quantity, "bias")
    label = quantity_label(quantity)[0]
    # A mean of n standardised residuals of a calibrated predictor has standard error 1 / sqrt(n).
    errors = tuple((Z_90 / math.sqrt(row.n_checked[quantity]),) * 2 for row, _ in rows)
    return Series(
        label, _QUANTITIES.get(quantity, _OTHER_QUANTITY), tuple(row.round + shift for row, _ in rows),
        tuple(bias for _, bias in rows), kind="joined", size=7, y_error=errors,
        hover=tuple(f"{label}, round {row.round}\nbias {bias:+.2f} predicted sd" for row, bias in rows),
    )  # fmt: skip


# -- the ledger ------------------------------------------------------------------------------


def ledger_chart(ledger: Sequence[LedgerRow]) -> Chart:
    """What everything cost in time, longest first."""
    rows = sorted(ledger, key=lambda row: -row.seconds)
    divisor, unit = _time_unit(rows[0].seconds)
    categories = tuple(
        (float(len(rows) - 1 - i), "\n".join(_wrapped(row.what, 20))) for i, row in enumerate(rows)
    )
    series = []
    for kind, colour in _KINDS.items():
        of_kind = [(i, row) for i, row in enumerate(rows) if row.kind == kind]
        if of_kind:
            series.append(
                Series(
                    _KIND_NAMES[kind], colour, tuple(row.seconds / divisor for _, row in of_kind),
                    tuple(float(len(rows) - 1 - i) for i, _ in of_kind), kind="bars",
                    labels=tuple(duration(row.seconds) for _, row in of_kind),
                    hover=tuple(_ledger_hover(row) for _, row in of_kind),
                )
            )  # fmt: skip
    longest = max(rows[0].seconds / divisor, 1e-9)
    panel = Panel(
        "",
        Axis(f"time [{unit}]", limits=(0.0, 1.22 * longest)),
        Axis("", ticks=categories, limits=(-0.6, len(rows) - 0.4)),
        tuple(series),
    )
    return Chart(
        "ledger",
        "Where the time went",
        "Longer bars cost more time; device time is what the target device was (or would have been) busy, "
        "the rest is time of this machine.",
        (panel,),
        tuple(LegendEntry(s.name, s.colour, "bar") for s in series),
        height_px=130 + 46 * len(rows),
    )


_KIND_NAMES = {"device": "device", "training": "training and evaluation"}


def _ledger_hover(row: LedgerRow) -> str:
    unit = f"\nplanned with {duration(row.unit_cost_s)} each" if row.unit_cost_s is not None else ""
    return f"{row.what}\n{row.count} times, {duration(row.seconds)} in all{unit}"


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds < 180:
        return 1.0, "s"
    return (60.0, "min") if seconds < 3 * 3600 else (3600.0, "h")
