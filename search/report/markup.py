"""Pieces of HTML that every part of the page is made of."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Protocol

from .charts import Chart, LegendEntry


class Marked(Protocol):
    """Something whose costs may not be measured."""

    @property
    def mark(self) -> str:
        """What is written over everything that shows its costs; nothing over measured ones."""


def escaped(value: object) -> str:
    """A value as text that cannot become markup."""
    return html.escape(str(value))


def badge(content: Marked) -> str:
    """The mark of a study whose costs are not measured; nothing otherwise."""
    return f'<span class="badge">{escaped(content.mark)}</span>' if content.mark else ""


def section(
    content: Marked, title: str, body: str, *, key: str = "", kind: str = "", holds_costs: bool = True
) -> str:
    """A section of the page under a heading, marked if it holds costs; ``body`` is ready-made HTML."""
    attributes = (f' id="{key}"' if key else "") + (f' class="{kind}"' if kind else "")
    return f"<section{attributes}><h2>{badge(content) if holds_costs else ''}{escaped(title)}</h2>\n{body}</section>"


Columns = Sequence[tuple[str, bool]]
"""(title, whether its cells are numbers) of each column."""


def table(
    columns: Columns,
    rows: Sequence[Sequence[str]],
    *,
    groups: Sequence[tuple[str, int]] = (),
    tall: bool = False,
) -> str:
    """A table of ready-made HTML cells.

    Args:
        groups: (title, number of columns) of a second header line above the first.
        tall: scroll within the page instead of lengthening it.
    """
    above = "".join(f'<th class="group" colspan="{span}">{escaped(title)}</th>' for title, span in groups)
    head = "".join(f"<th{_numeric(numeric)}>{escaped(title)}</th>" for title, numeric in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_numeric(numeric)}>{cell}</td>" for (_, numeric), cell in zip(columns, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll{" tall" if tall else ""}"><table><thead>'
        + (f"<tr>{above}</tr>" if above else "")
        + f"<tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _numeric(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


def figure(chart: Chart) -> str:
    """How to read a chart, its legend, and the places where the page's script draws its panels."""
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-figure="{chart.key}" data-name="{escaped(entry.name)}">'
        f"{_swatch(entry)}{escaped(entry.name)}</button>"
        for entry in chart.legend
    )
    panels = "".join(
        f'<div class="panel" id="{chart.key}-{i}" style="height:{chart.height_px}px"></div>'
        for i in range(len(chart.panels))
    )
    return (
        f'<p class="reading">{escaped(chart.reading)}</p><div class="legend">{buttons}</div>'
        f'<div class="panels">{panels}</div>'
    )


_SHAPES = {
    "circle": '<circle cx="7" cy="7" r="4.6"/>',
    "diamond": '<path d="M7 1.2 12.8 7 7 12.8 1.2 7Z"/>',
    "square": '<rect x="2.5" y="2.5" width="9" height="9"/>',
    "triangle": '<path d="M7 1.8 12.6 11.8 1.4 11.8Z"/>',
    "star": '<path d="M7 .8 8.7 5.1 13.4 5.4 9.8 8.4 10.9 13 7 10.4 3.1 13 4.2 8.4.6 5.4 5.3 5.1Z"/>',
    "cross": '<path d="M3 1.5 7 5.5 11 1.5 12.5 3 8.5 7 12.5 11 11 12.5 7 8.5 3 12.5 1.5 11 5.5 7 1.5 3Z"/>',
    "plus": '<path d="M5.5 1h3v4.5H13v3H8.5V13h-3V8.5H1v-3h4.5Z"/>',
    "line": '<rect x="0" y="6" width="14" height="2"/>',
    "bar": '<rect x="1" y="2" width="12" height="10" rx="2"/>',
}


def _swatch(entry: LegendEntry) -> str:
    paint = (
        f'fill="{entry.colour}"' if entry.filled else f'fill="none" stroke="{entry.colour}" stroke-width="2"'
    )
    return f'<svg viewBox="0 0 14 14" aria-hidden="true" {paint}>{_SHAPES[entry.symbol]}</svg>'
