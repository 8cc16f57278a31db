"""The report's files: the page, and beside it every figure as PNG and every table as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...measurement.accuracy.policies import interval_95
from .calibration import verdict
from .charts import Axis, Chart, Interval, LegendEntry, Panel, Series
from .content import CalibrationRow, PolicyNetwork, PolicyRow, ReportContent
from .figures import all_charts
from .page import render_page
from .predicted import predicted_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Cell = str | int | float | bool | None

_SOMETIMES = {"chosen", "predicted", "policies"}
"""Tables that a later report of the same study may be without, as after other constraints are adopted."""


def write_report(content: ReportContent, directory: Path) -> Path:
    """Write ``report.html``, one PNG per figure and one CSV per table.

    Replaces those of an earlier report; what it had and this one has not is taken away.

    Args:
        directory: created if it does not exist.

    Returns:
        The path of the page.
    """
    directory.mkdir(parents=True, exist_ok=True)
    charts = all_charts(content)
    for chart in charts:
        write_png(chart, directory / f"{chart.key}.png", mark=content.mark)
    tables = csv_tables(content)
    for name, rows in tables.items():
        write_csv(directory / f"{name}.csv", rows)
    for name in _SOMETIMES - set(tables):
        (directory / f"{name}.csv").unlink(missing_ok=True)
    page = directory / "report.html"
    page.write_text(render_page(content, charts), encoding="utf-8")
    return page


# -- CSV -------------------------------------------------------------------------------------


def csv_tables(content: ReportContent) -> dict[str, list[dict[str, Cell]]]:
    """Every table by file name, values unrounded; the last column says which rows hold simulated or replayed costs."""
    tables: dict[str, list[dict[str, Cell]]] = {
        "designs": _designs(content),
        "rounds": _rounds(content),
        "hypervolume": [
            {"strategy": trace.strategy, "n_measurements": n, "hypervolume": value}
            for trace in content.traces
            for n, value in zip(trace.n_measurements, trace.hypervolume, strict=True)
        ],
        "predictions": [
            {
                "quantity": c.quantity, "unit": c.unit, "arch_id": c.arch_id, "round": c.round,
                "predicted": c.predicted, "low_90": c.low_90, "high_90": c.high_90, "measured": c.measured,
                "truth": content.truth(holds_costs=c.quantity != "accuracy"),
            }
            for c in content.checks
        ],
        "calibration": [_calibration(row, content) for row in content.calibration],
        "ledger": [
            {
                "what": row.what, "count": row.count, "seconds": row.seconds,
                "unit_cost_s": row.unit_cost_s, "kind": row.kind,
                "truth": content.truth(holds_costs=row.kind == "device"),
            }
            for row in content.ledger
        ],
        "chosen": _chosen(content),
        "predicted": [predicted_cells(row, content.mark) for row in content.predicted],
        "policies": [
            {"place": place, **policy_cells(network, row)}
            for place, network in content.policies.items()
            for row in network.rows
        ],
    }  # fmt: skip
    # Rows that do not say otherwise hold costs.
    return {
        name: [{**row, "truth": row.get("truth", content.truth())} for row in rows]
        for name, rows in tables.items()
        if rows
    }


def _designs(content: ReportContent) -> list[dict[str, Cell]]:
    return [
        {
            "strategy": row.strategy, "name": row.name, "round": row.round, "on_front": row.on_front,
            "meets_constraints": row.meets_constraints,
            "accuracy": row.accuracy, "accuracy_se": row.accuracy_se, "energy_mj": row.energy_mj,
            "energy_se_mj": row.energy_se, "latency_ms": row.latency_ms, "exits": _joined(row.exits),
            **{f"{domain}_hz": hz for domain, hz in row.setting.clocks_hz},
            "arch_id": row.arch_id, "backbone": row.backbone,
        }
        for row in content.designs
    ]  # fmt: skip


def _rounds(content: ReportContent) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    quantities = dict.fromkeys(q for row in content.rounds for q in row.n_checked)
    for row in content.rounds:
        cells: dict[str, Cell] = {
            "round": row.round, "n_measured": row.n_measured, "hypervolume": row.hypervolume,
            "hypervolume_standard_error": row.hypervolume_standard_error,
        }  # fmt: skip
        for q in quantities:
            cells[f"coverage_90_{q}"] = row.coverage_90.get(q)
            cells[f"bias_{q}_sd"] = row.bias.get(q)
            cells[f"n_checked_{q}"] = row.n_checked.get(q)
        rows.append(cells | {"device_seconds": row.device_seconds, "training_seconds": row.training_seconds})
    return rows


def _calibration(row: CalibrationRow, content: ReportContent) -> dict[str, Cell]:
    found, used = row.summary, row.correction
    return {
        "quantity": row.quantity, "predictions": row.where, "n": found.n, "n_backbones": found.n_groups,
        **{f"coverage_{100 * level:g}": share for level, share in found.coverage.items()},
        "bias_sd": found.bias_sd, "spread_sd": found.spread_sd, "mean_sd": found.mean_sd,
        "mean_width_90": found.mean_width_90, "crps": found.crps, "pit_distance": found.pit_distance,
        "pit_p": found.pit_p, "pit": _joined(found.pit), "verdict": verdict(row),
        "next_factor": None if used is None else used.factor, "next_shift_sd": None if used is None else used.shift,
        "truth": content.truth(holds_costs=row.quantity != "accuracy"),
    }  # fmt: skip


def _chosen(content: ReportContent) -> list[dict[str, Cell]]:
    return [
        {
            "name": row.name, "exits": _joined(row.exits),
            **{f"{domain}_hz": hz for domain, hz in row.setting.clocks_hz},
            "accuracy_test": row.accuracy_test, "accuracy_test_se": row.accuracy_test_se,
            "energy_mj": row.energy_mj, "latency_ms": row.latency_ms, "exit_shares": _joined(row.exit_shares),
            "thresholds": _joined(row.thresholds), "no_exit_accuracy": row.no_exit_accuracy,
            "no_exit_energy_mj": row.no_exit_energy_mj, "no_exit_latency_ms": row.no_exit_latency_ms,
            "oracle_upper_bound_accuracy": row.oracle_accuracy,
            "oracle_lower_bound_energy_mj": row.oracle_energy_mj,
            "oracle_lower_bound_latency_ms": row.oracle_latency_ms,
            "oracle_exit_shares": _joined(row.oracle_exit_shares),
            "arch_id": row.arch_id, "backbone": row.backbone,
        }
        for row in content.chosen
    ]  # fmt: skip


def policy_cells(network: PolicyNetwork, row: PolicyRow) -> dict[str, Cell]:
    """One policy on one network as a row of CSV, values unrounded."""
    low, high = interval_95(row.accuracy)
    cells: dict[str, Cell] = {
        "backbone": network.backbone, "arch_id": network.arch_id, "exits": _joined(network.exits.positions),
        "setting": None if network.setting is None else str(network.setting), "policy": row.policy,
        "causal": row.causal, "accuracy": row.accuracy.value, "accuracy_se": row.accuracy.standard_error,
        "accuracy_low_95": low, "accuracy_high_95": high,
    }  # fmt: skip
    for name in ("energy_mj", "latency_ms", "macs"):
        cost = row.costs.get(name)
        cells[name] = None if cost is None else cost.value
        cells[f"{name}_se"] = None if cost is None else cost.standard_error
    return cells | {"shares": _joined(row.shares)}


def _joined(values: Sequence[float]) -> str:
    return " ".join(repr(value) for value in values)


def write_csv(path: Path, rows: Sequence[Mapping[str, Cell]]) -> None:
    """Write rows as CSV; columns are the names of all rows, in the order of their first mention."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


# -- PNG -------------------------------------------------------------------------------------

_MARKERS = {
    "circle": "o", "diamond": "D", "square": "s", "triangle": "^", "star": "*", "cross": "X", "plus": "P",
}  # fmt: skip
_INK, _MUTED, _GRID = "#1d2430", "#5d6878", "#e6e8eb"
_LEGEND_ENTRY_INCHES = 1.3


def write_png(chart: Chart, path: Path, *, mark: str) -> None:
    """Draw a chart with matplotlib (which needs no browser) and write it at 160 dots per inch, ``mark`` across it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(chart.panels)
    width = max(8.0, 4.3 * n)
    legend_columns = min(len(chart.legend), int(width / _LEGEND_ENTRY_INCHES))
    further_lines = 0.22 * (math.ceil(len(chart.legend) / legend_columns) - 1)
    height = 1.5 + further_lines + chart.height_px / 105
    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    top = 1 - (0.82 + further_lines) / height
    grid = figure.subplots(1, n, squeeze=False)
    for axes, panel in zip(grid[0], chart.panels, strict=True):
        _draw_panel(axes, panel)
        if mark:
            axes.text(
                0.5, 0.5, mark, transform=axes.transAxes, rotation=18, ha="center", va="center",
                fontsize=30 if n > 1 else 48, fontweight="bold", color=_INK, alpha=0.08, zorder=0,
            )  # fmt: skip
    title = f"{mark} · {chart.title}" if mark else chart.title
    # Plain text and not a suptitle, for which tight_layout would keep room a second time.
    figure.text(
        0.02, 1 - 0.1 / height, title, ha="left", va="top", fontsize=13, fontweight="bold", color=_INK
    )
    figure.legend(
        handles=[_handle(entry) for entry in chart.legend],
        loc="upper left", bbox_to_anchor=(0.01, 1 - 0.36 / height), ncols=legend_columns, frameon=False,
        fontsize=9.5, handletextpad=0.3, columnspacing=1.4, labelcolor=_INK,
    )  # fmt: skip
    figure.tight_layout(rect=(0.01, 0.01, 0.99, top), w_pad=2.0)
    figure.savefig(path, metadata={"Software": None})


def _handle(entry: LegendEntry) -> Line2D:
    from matplotlib.lines import Line2D

    marker = {"bar": "s", "line": "_"}.get(entry.symbol) or _MARKERS[entry.symbol]
    return Line2D(
        [], [], linestyle="none", marker=marker, color=entry.colour, markersize=8, label=entry.name,
        markerfacecolor=entry.colour if entry.filled else "none",
    )  # fmt: skip


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for series in panel.series:
        _draw_series(axes, series)
    axes.set_title(panel.title, fontsize=10.5, color=_INK)
    _style_axis(axes, "x", panel.x)
    _style_axis(axes, "y", panel.y)
    bars = any(series.kind == "bars" for series in panel.series)
    axes.grid(axis="x" if bars else "both", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c5cad1")
    axes.tick_params(colors=_MUTED, labelsize=9)


def _draw_series(axes: Axes, series: Series) -> None:
    if series.kind == "bars":
        axes.barh(series.y, series.x, height=0.62, color=series.colour)
        for x, y, label in zip(series.x, series.y, series.labels, strict=True):
            axes.annotate(
                label, (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9, color=_INK
            )
        return
    if series.x_error or series.y_error:
        axes.errorbar(
            series.x, series.y, xerr=_down_and_up(series.x_error), yerr=_down_and_up(series.y_error), fmt="none",
            ecolor=series.colour, elinewidth=1, alpha=0.75, zorder=2,
        )  # fmt: skip
    marker = _MARKERS[series.symbol] if series.kind != "line" else "none"
    line = ("--" if series.dashed else "-") if series.kind != "points" else "none"
    axes.plot(
        series.x, series.y, linestyle=line, marker=marker, markersize=0.72 * series.size, color=series.colour,
        markerfacecolor=series.colour if series.filled else "white", alpha=series.opacity, linewidth=1.5, zorder=3,
    )  # fmt: skip


def _down_and_up(intervals: Sequence[Interval]) -> list[list[float]] | None:
    return [[down for down, _ in intervals], [up for _, up in intervals]] if intervals else None


def _style_axis(axes: Axes, which: str, axis: Axis) -> None:
    handle = axes.xaxis if which == "x" else axes.yaxis
    handle.set_label_text(axis.title, color=_MUTED, fontsize=10)
    if axis.log:
        axes.set_xscale("log") if which == "x" else axes.set_yscale("log")
        handle.set_ticks([], minor=True)
    if axis.ticks:
        handle.set_ticks([value for value, _ in axis.ticks], [text for _, text in axis.ticks])
    if axis.limits is not None:
        axes.set_xlim(*axis.limits) if which == "x" else axes.set_ylim(*axis.limits)
