"""Pieces of HTML that every part of the page is made of."""

from __future__ import annotations

import html
from collections.abc import Sequence

from .charts import MARK
from .content import ReportContent


def escaped(value: object) -> str:
    """A value as text that cannot become markup."""
    return html.escape(str(value))


def badge(content: ReportContent) -> str:
    """The mark of a simulated study; nothing otherwise."""
    return f'<span class="badge">{MARK}</span>' if content.simulated else ""


def section(content: ReportContent, title: str, body: str, *, key: str = "", kind: str = "") -> str:
    """A section of the page under a heading; ``body`` is ready-made HTML."""
    attributes = (f' id="{key}"' if key else "") + (f' class="{kind}"' if kind else "")
    return f"<section{attributes}><h2>{badge(content)}{escaped(title)}</h2>\n{body}</section>"


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
