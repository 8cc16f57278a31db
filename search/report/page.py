"""The page of a study of backbone, exits and clocks."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from ...datasets.records import Truth
from .calibration import calibration_section
from .charts import Chart
from .chosen import chosen_section
from .content import DesignRow, ReportContent
from .frame import banner, chart_section, findings, header, html_page, provenance
from .gain import HypervolumeGain, hypervolume_gain
from .markup import escaped, section, table
from .policies import policies_section
from .predicted import predicted_section
from .wording import duration, percent, quantity_label, significant, with_error

_ORIGINS = {
    Truth.SIMULATOR.mark: "come from a device model, not from a device",
    Truth.REPLAY.mark: "were looked up in a log of rows that a device gave before; nothing was run on it for this study",
}
_DEVICE_TIMES = {
    Truth.SIMULATOR.mark: "simulated device time used by the loop",
    Truth.REPLAY.mark: "device time when the replayed rows were recorded; the loop used none",
}


def render_page(content: ReportContent, charts: Sequence[Chart]) -> str:
    """The whole page as text."""
    by_key = {chart.key: chart for chart in charts}
    parts = [
        banner(content, _origin(content)),
        "<main>",
        header(content, content.study_name, _lead(content), _facts(content)),
        findings(content, content.statements),
        *_figure(content, by_key, "front"),
        chosen_section(content),
        policies_section(content, by_key),
        *_figure(content, by_key, "hypervolume"),
        *_figure(content, by_key, "predictions"),
        *_figure(content, by_key, "calibration"),
        calibration_section(content, by_key),
        predicted_section(content),
        _rounds(content),
        *_figure(content, by_key, "ledger"),
        _ledger(content),
        _designs(content),
        _provenance(content),
        "</main>",
    ]
    return html_page(content, content.study_name, parts, charts)


# -- top of the page -------------------------------------------------------------------------


def _origin(content: ReportContent) -> str:
    origin = _ORIGINS.get(content.mark, "")
    return f"latency and energy on this page {origin}. Accuracy is measured on real images."


def _lead(content: ReportContent) -> str:
    target = content.target
    return (
        f"{target.board} {target.processor}, {target.dtype}, batch {target.batch} · {content.data_name} · "
        f"space {content.space_name} · seed {content.seed}"
    )


def _facts(content: ReportContent) -> list[tuple[str, str]]:
    facts = []
    if content.rounds:
        last = content.rounds[-1]
        facts.append((str(last.n_measured), f"points measured by the loop in {len(content.rounds)} rounds"))
    if content.chosen:
        facts.append((str(len(content.chosen)), "networks on the final front"))
    gain = hypervolume_gain(content.traces)
    if gain is not None:
        facts.append(_gain_fact(gain))
    if content.rounds:
        device = sum(row.device_seconds for row in content.rounds)
        facts.append((duration(device), _DEVICE_TIMES.get(content.mark, "device time used by the loop")))
    spread = content.accuracy_spread
    if spread is not None and spread.best_over_chance > 2 * spread.measurement_se > 0:
        ratio = spread.between_backbones_sd / spread.measurement_se
        facts.append(
            (
                f"{ratio:.1f} ×",
                f"spread of accuracy over {spread.n_backbones} backbones "
                f"({percent(spread.between_backbones_sd)}) to one measurement's error ({percent(spread.measurement_se)})",
            )
        )
    return facts


def _gain_fact(gain: HypervolumeGain) -> tuple[str, str]:
    low, high = (100 * (gain.relative + sign * gain.half_width_95) for sign in (-1, 1))
    interval = f"95\u00a0% interval {low:+.1f} to {high:+.1f}\u00a0%"
    against = (
        f"hypervolume against the best baseline ({gain.baseline}) at {gain.n_measurements} measurements each"
    )
    if abs(gain.relative) <= gain.half_width_95:
        return "inside its interval", f"{against}: {100 * gain.relative:+.1f}\u00a0%, {interval}"
    return f"{100 * gain.relative:+.1f} %", f"{against}, {interval}"


# -- figures ---------------------------------------------------------------------------------


def _figure(content: ReportContent, charts: dict[str, Chart], key: str) -> list[str]:
    if key not in charts:
        return []
    return [chart_section(content, charts[key])]


# -- tables ----------------------------------------------------------------------------------


def _rounds(content: ReportContent) -> str:
    if not content.rounds:
        return ""
    quantities = list(dict.fromkeys(q for row in content.rounds for q in row.n_checked))
    labels = [quantity_label(q)[0] for q in quantities]
    columns = [("round", True), ("points", True), ("hypervolume", True)]
    columns += [(f"coverage, {label}", True) for label in labels]
    columns += [(f"bias, {label} [sd]", True) for label in labels]
    columns += [("device", True), ("training", True)]
    rows = []
    for row in content.rounds:
        volume = with_error(row.hypervolume, row.hypervolume_standard_error, 4)
        cells = [str(row.round), str(row.n_measured), volume]
        for q in quantities:
            share = row.coverage_90.get(q)
            cells.append(
                "–" if share is None else f"{percent(share, decimals=0)} of {row.n_checked.get(q, 0)}"
            )
        for q in quantities:
            bias = row.bias.get(q)
            cells.append("–" if bias is None or isnan(bias) else f"{bias:+.2f}")
        rows.append([*cells, duration(row.device_seconds), duration(row.training_seconds)])
    note = (
        '<p class="note">Coverage and bias are those of predictions made before each round was measured.</p>'
    )
    return section(content, "Rounds", note + table(columns, rows), key="rounds")


def _ledger(content: ReportContent) -> str:
    if not content.ledger:
        return ""
    columns = [
        ("expense", False),
        ("times", True),
        ("in all", True),
        ("planned with, each", True),
        ("kind", False),
    ]
    rows = [
        [
            escaped(row.what), str(row.count), duration(row.seconds),
            "–" if row.unit_cost_s is None else duration(row.unit_cost_s), row.kind,
        ]
        for row in content.ledger
    ]  # fmt: skip
    return section(content, "Ledger of costs", table(columns, rows), key="ledger-table")


def _designs(content: ReportContent) -> str:
    if not content.designs:
        return ""
    columns = [("name", False), ("strategy", False), ("round", True), ("front", False), ("accuracy", True)]
    columns += [("energy, mJ", True)] if content.has_energy else []
    columns += [("latency, ms", True), ("exits", False), ("clocks", False), ("backbone", False)]
    rows = []
    for row in content.designs:
        cells = [
            escaped(row.name), escaped(row.strategy), str(row.round) if row.round >= 0 else "–",
            _front_cell(row), percent(row.accuracy, row.accuracy_se),
        ]  # fmt: skip
        if content.has_energy:
            cells.append(with_error(row.energy_mj, row.energy_se))
        cells += [
            significant(row.latency_ms), escaped(", ".join(map(str, row.exits)) or "none"),
            f'<span class="nowrap">{escaped(row.setting)}</span>',
            f'<span class="mono">{escaped(row.arch_id)}: {escaped(row.backbone)}</span>',
        ]  # fmt: skip
        rows.append(cells)
    note = (
        '<p class="note">Accuracy and cost of each point are those of its calibrated controller on the split that '
        "the search may use; ± is one standard error.</p>"
    )
    body = (
        f"<details><summary>Show all {len(rows)} points</summary>{table(columns, rows, tall=True)}</details>"
    )
    return section(content, "All measured points", note + body, key="points")


def _front_cell(row: DesignRow) -> str:
    if not row.meets_constraints:
        return "misses constraints"
    return "yes" if row.on_front else ""


def _provenance(content: ReportContent) -> str:
    target = content.target
    facts = [
        ("target", target.target_id),
        ("board", f"{target.board}, {target.processor}"),
        ("release", target.release),
        ("runtime", f"{target.runtime}, {target.dtype}, batch {target.batch}"),
        *target.pinned,
        ("data", content.data_name),
        ("space", content.space_name),
        ("seed", str(content.seed)),
        ("host", content.machine),
        ("versions", ", ".join(f"{name} {version}" for name, version in content.versions.items())),
    ]
    return provenance(content, facts, content.config_yaml)
