"""The section of the page that presents the networks to deploy."""

from __future__ import annotations

from collections.abc import Sequence

from .content import ChosenRow, ReportContent
from .markup import escaped, section, table
from .wording import percent, significant

_NOTE = (
    "The networks to deploy, judged on the test split, which the search never saw (± is one standard error). "
    "“Controller” is what the calibrated thresholds attain. “Ideal mapping” is an oracle that knows "
    "which exit is right: an upper bound that no controller reaches; the gap to it is the most that a better "
    "controller could gain."
)


def chosen_section(content: ReportContent) -> str:
    """One line per network to compare them, and a card per network with what deploying it takes."""
    if not content.chosen:
        return ""
    measures = ["accuracy", *(["energy, mJ"] if content.has_energy else []), "latency, ms"]
    columns = [("network", False), ("exits after", False), ("clocks", False)]
    columns += 3 * [(measure, True) for measure in measures]
    groups = [
        ("", 3), ("controller", len(measures)), ("same backbone without exits", len(measures)),
        ("ideal mapping (oracle): upper bound", len(measures)),
    ]  # fmt: skip
    rows = [_line(row, content.has_energy) for row in content.chosen]
    cards = "".join(_card(row) for row in content.chosen)
    body = (
        f'<p class="note">{_NOTE}</p>{table(columns, rows, groups=groups)}'
        f"<details><summary>Where images leave, thresholds and backbones</summary>"
        f'<div class="cards">{cards}</div></details>'
    )
    return section(content, "Chosen networks", body, key="chosen")


def _line(row: ChosenRow, has_energy: bool) -> list[str]:
    cells = [
        f"<b>{escaped(row.name)}</b>",
        escaped(", ".join(map(str, row.exits)) or "no exits"),
        "<br>".join(f"{escaped(domain)}&nbsp;{hz / 1e6:g}&nbsp;MHz" for domain, hz in row.setting.clocks_hz)
        or escaped(row.setting),
    ]
    for style, accuracy, energy_mj, latency_ms in (
        ("own", percent(row.accuracy_test, row.accuracy_test_se), row.energy_mj, row.latency_ms),
        ("plain", percent(row.no_exit_accuracy), row.no_exit_energy_mj, row.no_exit_latency_ms),
        ("bound", percent(row.oracle_accuracy), row.oracle_energy_mj, row.oracle_latency_ms),
    ):
        values = [accuracy, *([significant(energy_mj)] if has_energy else []), significant(latency_ms)]
        cells += [f'<span class="{style}">{value}</span>' for value in values]
    return cells


def _card(row: ChosenRow) -> str:
    thresholds = ", ".join(
        f"{value:.3f} at {position}" for position, value in zip(row.exits, row.thresholds, strict=True)
    )
    places = [f"block {position}" for position in row.exits] + ["end"]
    return (
        f'<article class="card"><h3>{escaped(row.name)}</h3>'
        + share_bar("controller", places, row.exit_shares)
        + share_bar("ideal mapping (oracle)", places, row.oracle_exit_shares)
        + (f"<p>leave at confidence ≥ {escaped(thresholds)}</p>" if thresholds else "")
        + f'<p class="mono">{escaped(row.arch_id)}<br>{escaped(row.backbone)}</p></article>'
    )


def share_bar(label: str, places: Sequence[str], shares: Sequence[float]) -> str:
    """Where images leave, as a bar and in words."""
    n = max(len(shares) - 1, 1)
    bar = "".join(
        f'<i style="width:{100 * share:.2f}%;background:hsl(212 {60 - 30 * i / n:.0f}% {72 - 34 * i / n:.0f}%)"></i>'
        for i, share in enumerate(shares)
    )
    words = " · ".join(
        f"{escaped(place)} {percent(share, decimals=0)}" for place, share in zip(places, shares, strict=True)
    )
    return (
        f'<div class="shares"><span class="of">Images leave, {escaped(label)}:</span>'
        f'<div class="bar">{bar}</div>{words}</div>'
    )
