"""The figures of an edge study's report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...search.report import PredictionCheck
from ...search.report.charts import Axis, Chart, LegendEntry, Panel, Series, cost_axis
from ...search.report.figures import prediction_chart, staircase, strategy_style
from ...search.report.intervals import Z_90
from ...search.report.wording import percent, significant, with_error
from ...spaces.quantized import LETTERS
from .findings import EdgeCheck, EdgePoint
from .savings import shown_exits

STATIC = "backbone only"
"""The static networks are drawn as the baseline of that name is in every report."""
_LINE_COLOURS = ("#2b7de9", "#e8871e", "#2f9e6e", "#8e6bd8", "#c2557a", "#84923a", "#12908e", "#a0703c")
_MAX_LINES = len(_LINE_COLOURS)
_UNITS = {"accuracy": "", "et_average": "J x cycles", "head_share": ""}


def front_chart(points: Sequence[EdgePoint], front: Sequence[EdgePoint]) -> Chart:
    """Accuracy against ET_avg of all trained networks, on the split that the search may use."""
    costs = tuple(p.search.et_average for p in points)
    shown = {"static": STATIC}
    series: list[Series] = []
    corners = [(p.search.et_average, 100 * p.search.accuracy) for p in points if p.feasible]
    x, y = staircase(corners, max(costs) * 1.03)
    series.append(Series("hadas", strategy_style("hadas")[0], x, y, kind="line", opacity=0.8))
    present = [name for name in ("seed", "hadas", "static") if any(p.strategy == name for p in points)]
    for name in present:
        rows = [p for p in points if p.strategy == name]
        series.append(_points(shown.get(name, name), [p for p in rows if p not in front], on_front=False))
        series.append(_points(shown.get(name, name), [p for p in rows if p in front], on_front=True))
    panel = Panel(
        "", cost_axis("ET_avg [J x cycles]", costs), Axis("accuracy [%]"), tuple(s for s in series if s.x)
    )
    legend = tuple(
        LegendEntry(shown.get(name, name), *strategy_style(shown.get(name, name))) for name in present
    )
    return Chart(
        "front",
        "Accuracy against the energy-latency product",
        "Up and to the left is better. Each point is a trained network under its exit policy, cross-fitted on the "
        "calibration split; those with bars (90 % intervals) are on the front of error, ET_avg and head share, which "
        "is why some lie below the line of the best accuracy reached at or below a cost. 'Backbone only' are the "
        "static networks, one per pair of bits.",
        (panel,),
        legend,
        height_px=470,
    )


def _points(name: str, rows: Sequence[EdgePoint], *, on_front: bool) -> Series:
    colour, symbol, filled = strategy_style(name)
    x_error = tuple((Z_90 * p.search.et_average_se,) * 2 for p in rows) if on_front else ()
    y_error = tuple((100 * Z_90 * p.search.accuracy_se,) * 2 for p in rows) if on_front else ()
    return Series(
        name, colour, tuple(p.search.et_average for p in rows), tuple(100 * p.search.accuracy for p in rows),
        symbol=symbol, filled=filled, size=10 if on_front else 7, opacity=1.0 if on_front else 0.5,
        x_error=x_error, y_error=y_error, hover=tuple(_hover(p) for p in rows),
    )  # fmt: skip


def _hover(point: EdgePoint) -> str:
    found = point.search
    lines = [
        f"{point.name}: exits {shown_exits(point)}, bits {point.bits}",
        f"accuracy {percent(found.accuracy, found.accuracy_se)}",
        f"ET_avg {with_error(found.et_average, found.et_average_se)} J x cycles",
        f"energy {significant(found.energy_mj)} mJ, latency {significant(found.latency_ms)} ms",
        f"heads {percent(found.head_share)} of the energy",
        *([] if point.feasible else ["misses the study's constraints"]),
    ]
    return "\n".join(lines)


def shares_chart(front: Sequence[EdgePoint]) -> Chart | None:
    """How many samples have left by each mounting point, one line per network of the front; ``None`` without exits."""
    rows = [p for p in front if len(p.network.exits) > 1]
    if not rows:
        return None
    if len(rows) > _MAX_LINES:
        rows = [rows[round(i * (len(rows) - 1) / (_MAX_LINES - 1))] for i in range(_MAX_LINES)]
    series, legend = [], []
    for colour, point in zip(_LINE_COLOURS, rows, strict=False):
        left = 0.0
        x, y, hover = [], [], []
        for position, share in zip(point.network.exits, point.test.shares, strict=True):
            left += share
            x.append(float(position))
            y.append(100 * left)
            hover.append(
                f"{point.name}: {percent(share)} leave at {LETTERS[position]}\n{percent(left)} have left"
            )
        name = f"{point.name}, bits {point.bits}"
        series.append(Series(name, colour, tuple(x), tuple(y), "joined", size=8, hover=tuple(hover)))
        legend.append(LegendEntry(name, colour, "circle"))
    ticks = tuple((float(i), letter) for i, letter in enumerate(LETTERS))
    panel = Panel(
        "",
        Axis("exit", ticks=ticks, limits=(-0.3, len(LETTERS) - 0.7)),
        Axis("samples that have left [%]", limits=(0.0, 103.0)),
        tuple(series),
    )
    return Chart(
        "shares",
        "Where samples leave",
        "Each line is a network of the front on the test split: the higher it lies to the left, the more samples are "
        "spared the rest of the backbone.",
        (panel,),
        tuple(legend),
        holds_costs=False,
    )


def hypervolume_chart(n_trained: Sequence[int], hypervolume: Sequence[float]) -> Chart:
    """Hypervolume after the seeds and after each round."""
    colour, symbol, filled = strategy_style("hadas")
    hover = tuple(
        f"{'seeds' if i == 0 else f'round {i}'}\n{n} networks\nhypervolume {significant(value, 4)}"
        for i, (n, value) in enumerate(zip(n_trained, hypervolume, strict=True))
    )
    series = Series(
        "hadas", colour, tuple(map(float, n_trained)), tuple(hypervolume), "joined", symbol, filled, size=9,
        hover=hover,
    )  # fmt: skip
    return Chart(
        "hypervolume",
        "Hypervolume by number of trained networks",
        "How much of the space between the reference point, frozen after the seeds, and the ideal the trained networks "
        "dominate, in error, ET_avg (on a log scale) and head share; it never falls.",
        (Panel("", Axis("networks trained"), Axis("hypervolume"), (series,)),),
        (LegendEntry("hadas", colour, symbol),),
        height_px=330,
    )


def checks_chart(checks: Sequence[EdgeCheck]) -> Chart:
    """Predicted before against found, one panel per objective."""
    rows = [
        PredictionCheck(
            c.quantity,
            _UNITS[c.quantity],
            c.trained_id,
            c.round,
            c.predicted,
            c.low_90,
            c.high_90,
            c.found,
        )
        for c in checks
        if math.isfinite(c.found)
    ]
    return prediction_chart(rows, outcome="found")
