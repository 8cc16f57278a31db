"""Charts as plain values: what is drawn, said once for the page (plotly) and for the PNG (matplotlib).

A :class:`Chart` holds panels, a panel holds series, all in display units.  The two renderers
draw the same values, so page and PNG cannot disagree.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Symbol = Literal["circle", "diamond", "square", "triangle", "star", "cross", "plus"]
Interval = tuple[float, float]
"""(down, up): lengths of an error bar, both >= 0."""

LOG_AXIS_FROM_RATIO = 8.0
"""A cost axis becomes logarithmic when its largest value is this many times its smallest."""


@dataclass(frozen=True)
class Series:
    """Values drawn alike.

    Attributes:
        name: legend entry; series of one name are shown and hidden together.
        kind: ``points``; ``line`` (no markers); ``joined`` (points on a line); ``bars`` (horizontal,
            of length x at category number y).
        size: marker diameter, points.
        x_error, y_error: one interval per value, or empty.
        hover: one text of several lines per value, or empty.
        labels: one text per bar, written at its end.
    """

    name: str
    colour: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    kind: Literal["points", "line", "joined", "bars"] = "points"
    symbol: Symbol = "circle"
    filled: bool = True
    size: float = 8.0
    opacity: float = 1.0
    dashed: bool = False
    x_error: tuple[Interval, ...] = ()
    y_error: tuple[Interval, ...] = ()
    hover: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Axis:
    """One axis: its title with the unit, and, where the renderer should not choose, ticks and limits."""

    title: str
    log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes; the first series is drawn at the bottom."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]


@dataclass(frozen=True)
class LegendEntry:
    """How one name looks in all panels of a chart."""

    name: str
    colour: str
    symbol: Symbol | Literal["line", "bar"]
    filled: bool = True


@dataclass(frozen=True)
class Chart:
    """One figure of the report.

    Attributes:
        key: file name without suffix, and anchor on the page.
        reading: one sentence that says how to read it.
        height_px: of each panel on the page.
        holds_costs: whether it shows costs, so that a mark is written over it where these are not measured.
    """

    key: str
    title: str
    reading: str
    panels: tuple[Panel, ...]
    legend: tuple[LegendEntry, ...]
    height_px: int = 400
    holds_costs: bool = True


def cost_axis(title: str, values: tuple[float, ...]) -> Axis:
    """A cost axis: linear, or logarithmic with 1-2-5 ticks where the values spread widely."""
    positive = [value for value in values if value > 0]
    if len(positive) < 2 or max(positive) / min(positive) < LOG_AXIS_FROM_RATIO:
        return Axis(title)
    low, high = min(positive) / 1.15, max(positive) * 1.15
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1e3 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return Axis(title, True, tuple((t, f"{t:g}") for t in ticks if low <= t <= high), (low, high))


_PLOTLY_SYMBOLS: dict[Symbol, str] = {
    "circle": "circle", "diamond": "diamond", "square": "square", "triangle": "triangle-up", "star": "star",
    "cross": "x", "plus": "cross",
}  # fmt: skip


def plotly_panel(panel: Panel, *, mark: str) -> dict[str, Any]:
    """``data`` and ``layout`` of a plotly figure, as JSON-ready values.

    ``mark`` is written across it; colours of text, grid and background are left to the page, which knows whether it is dark.
    """
    layout: dict[str, Any] = {
        "xaxis": _plotly_axis(panel.x),
        "yaxis": _plotly_axis(panel.y),
        "showlegend": False,
        "hovermode": "closest",
        "margin": {"l": 8, "r": 12, "t": 34 if panel.title else 12, "b": 8},
        "bargap": 0.35,
    }
    if panel.title:
        layout["title"] = {"text": html.escape(panel.title), "x": 0.5, "xanchor": "center", "y": 0.98}
    if mark:
        layout["annotations"] = [
            {"text": mark, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False,
             "textangle": -18, "opacity": 0.13, "font": {"size": 46, "weight": 700}}
        ]  # fmt: skip
    return {"data": [_plotly_trace(series) for series in panel.series], "layout": layout}


def _plotly_axis(axis: Axis) -> dict[str, Any]:
    out: dict[str, Any] = {
        "title": {"text": html.escape(axis.title), "standoff": 8},
        "automargin": True,
        "zeroline": False,
        "type": "log" if axis.log else "linear",
    }
    if axis.ticks:
        out["tickvals"] = [value for value, _ in axis.ticks]
        out["ticktext"] = [html.escape(text).replace("\n", "<br>") for _, text in axis.ticks]
    if axis.limits is not None:
        out["range"] = [math.log10(v) for v in axis.limits] if axis.log else list(axis.limits)
    return out


def _finite(values: Sequence[float]) -> list[float | None]:
    # JSON has no NaN, and one in the data would keep a browser from reading any of it.
    return [value if math.isfinite(value) else None for value in values]


def _plotly_trace(series: Series) -> dict[str, Any]:
    trace: dict[str, Any] = {"name": series.name, "x": _finite(series.x), "y": _finite(series.y)}
    if series.hover:
        trace["customdata"] = [html.escape(text).replace("\n", "<br>") for text in series.hover]
        trace["hovertemplate"] = "%{customdata}<extra></extra>"
    else:
        trace["hoverinfo"] = "skip"
    if series.kind == "bars":
        return trace | {
            "type": "bar", "orientation": "h", "marker": {"color": series.colour},
            "text": [html.escape(label) for label in series.labels], "textposition": "outside",
            "cliponaxis": False,
        }  # fmt: skip
    trace |= {
        "type": "scatter",
        "mode": {"points": "markers", "line": "lines", "joined": "lines+markers"}[series.kind],
        "opacity": series.opacity,
        "line": {"color": series.colour, "width": 1.8, "dash": "dash" if series.dashed else "solid"},
        "marker": {
            "color": series.colour,
            "size": series.size,
            "symbol": _PLOTLY_SYMBOLS[series.symbol] + ("" if series.filled else "-open"),
        },
    }
    for name, intervals in (("error_x", series.x_error), ("error_y", series.y_error)):
        if intervals:
            trace[name] = {
                "type": "data", "symmetric": False, "array": _finite([up for _, up in intervals]),
                "arrayminus": _finite([down for down, _ in intervals]), "thickness": 1, "width": 0,
                "color": series.colour,
            }  # fmt: skip
    return trace
