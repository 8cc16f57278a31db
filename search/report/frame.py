"""What every report page stands in: one HTML file that loads nothing and opens offline."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .assets import SCRIPT, STYLE
from .charts import Chart, plotly_panel
from .markup import Marked, badge, escaped, figure, section

# The browser itself is told to load nothing, so the page cannot come to depend on a network.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def html_page(content: Marked, name: str, parts: Sequence[str], charts: Sequence[Chart]) -> str:
    """The whole page as text.

    Args:
        name: of the study.
        parts: ready-made HTML of the body, in order.
        charts: what the script draws into the places that ``parts`` have for them.
    """
    figures = {
        f"{chart.key}-{i}": plotly_panel(panel, mark=content.mark if chart.holds_costs else "")
        for chart in charts
        for i, panel in enumerate(chart.panels)
    }
    # "<" never appears inside the JSON, so no text in it can end the script element.
    data = json.dumps(figures, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return "\n".join([
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{f'{content.mark} · ' if content.mark else ''}hadas: {escaped(name)}</title>",
        f"<style>{STYLE}</style></head><body>",
        *parts,
        f'<script type="application/json" id="figures">{data}</script>',
        f"<script>{_plotly()}</script>",
        f"<script>{SCRIPT}</script>",
        "</body></html>",
        "",
    ])  # fmt: skip


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def banner(content: Marked, said: str) -> str:
    """The line that stays above a page whose costs are not measured; ``said`` follows its mark."""
    if not content.mark:
        return ""
    return f'<div class="banner" role="note"><strong>{escaped(content.mark)}</strong>: {escaped(said)}</div>'


def header(content: Marked, name: str, lead: str, facts: Sequence[tuple[str, str]]) -> str:
    """The page's heading, one line on what it is about, and figures as (value, label)."""
    shown = "".join(
        f'<div class="fact"><b>{escaped(value)}</b><span>{escaped(label)}</span></div>'
        for value, label in facts
    )
    return (
        f"<header><h1>{badge(content)}{escaped(name)}</h1>"
        f'<p class="lead">{escaped(lead)}</p><div class="facts">{shown}</div>'
        "<noscript><p>The figures need JavaScript; the PNG files beside this page show the same.</p></noscript></header>"
    )


def findings(content: Marked, statements: Sequence[str]) -> str:
    """What was found, in sentences; nothing if there are none."""
    if not statements:
        return ""
    items = "".join(f"<li>{escaped(statement)}</li>" for statement in statements)
    return section(content, "Findings", f"<ul>{items}</ul>", kind="findings")


def chart_section(content: Marked, chart: Chart) -> str:
    """A section with a chart alone."""
    return section(content, chart.title, figure(chart), key=chart.key, holds_costs=chart.holds_costs)


def provenance(content: Marked, facts: Sequence[tuple[str, str]], config_yaml: str) -> str:
    """How the page was made: (name, value) pairs, and the configuration."""
    rows = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in facts)
    body = (
        f"<dl>{rows}</dl><details><summary>Configuration</summary><pre>{escaped(config_yaml)}</pre></details>"
        '<p class="note">Every figure lies beside this page as a PNG, every table as a CSV.</p>'
    )
    return section(content, "How this was made", body, key="provenance")
