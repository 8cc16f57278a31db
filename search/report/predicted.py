"""The section of the page that shows what the latest search predicts, and how sure that is."""

from __future__ import annotations

from .content import PredictedRow, ReportContent
from .markup import escaped, section, table
from .wording import percent, significant

_NOTE = (
    "Not measured: the front of the latest nested search, as the predictors see it. “On the front” is the "
    "probability that a design is truly non-dominated: the share of the predictors’ joint draws in which nothing on "
    "this front or near it dominates it. Those of low probability are where measuring pays."
)


def predicted_section(content: ReportContent) -> str:
    """One line per member, the surest first."""
    if not content.predicted:
        return ""
    columns = [("network", False), ("exits after", False), ("clocks", False), ("accuracy", True)]
    has_energy = all(row.energy_mj is not None for row in content.predicted)
    has_latency = all(row.latency_ms is not None for row in content.predicted)
    columns += [("energy, mJ", True)] if has_energy else []
    columns += [("latency, ms", True)] if has_latency else []
    columns.append(("on the front", True))
    rows = []
    for row in sorted(content.predicted, key=lambda row: -row.probability_non_dominated):
        cells = [
            escaped(row.name), escaped(", ".join(map(str, row.exits)) or "no exits"),
            f'<span class="nowrap">{escaped(row.setting)}</span>', percent(row.accuracy),
        ]  # fmt: skip
        cells += [significant(row.energy_mj)] if has_energy else []
        cells += [significant(row.latency_ms)] if has_latency else []
        rows.append([*cells, percent(row.probability_non_dominated, decimals=0)])
    sure = sum(row.probability_non_dominated >= 0.5 for row in content.predicted)
    summary = f"Show all {len(rows)} designs, {sure} of which are more likely on the front than not"
    body = f'<p class="note">{_NOTE}</p><details><summary>{summary}</summary>{table(columns, rows, tall=True)}</details>'
    return section(content, "Predicted front", body, key="predicted")


def predicted_cells(row: PredictedRow, mark: str) -> dict[str, str | float | int | bool | None]:
    """A member as a row of CSV, values unrounded."""
    return {
        "name": row.name,
        "exits": " ".join(map(str, row.exits)),
        **{f"{domain}_hz": hz for domain, hz in row.setting.clocks_hz},
        "predicted_accuracy": row.accuracy,
        "predicted_energy_mj": row.energy_mj,
        "predicted_latency_ms": row.latency_ms,
        "probability_non_dominated": row.probability_non_dominated,
        "arch_id": row.arch_id,
        "truth": f"predicted, {mark}" if mark else "predicted",
    }
