"""From findings to the tables that the command line prints: rows of text, no layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..datasets.records import Truth
from .baselines import BASELINES
from .budget import Budget, standing
from .calibration_view import correction_rows
from .findings import ASKED_FOR
from .journal import RoundSummary, design_from_json
from .ledger import duration
from .loop import Study
from .stopping import stop_reason

if TYPE_CHECKING:
    from ..search.designs import Design
    from .arrivals import Change
    from .ledger import Ledger, Split


def design_columns(study: Study) -> list[str]:
    """Headings of the columns that name a design."""
    clocks = ", ".join(domain.name for domain in study.parts.table.domains)
    return ["backbone", "exits after block", f"{clocks}, MHz" if clocks else "clocks"]


def design_cells(study: Study, design: Design) -> list[str]:
    """A design in as few characters as will do: ``m3``, ``4, 6-9``, ``1032.75, 1600``."""
    clocks = ", ".join(f"{hz / 1e6:g}" for _, hz in design.setting.clocks_hz)
    return [
        study.findings.name(design.backbone),
        ranges(design.exits.positions) or "none",
        clocks or "not controlled",
    ]


def ranges(numbers: Sequence[int]) -> str:
    """Ascending integers with runs drawn together: 4, 6-9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def cost_columns(study: Study) -> list[str]:
    """Headings of the cost columns."""
    return ["energy, mJ", "latency, ms"] if study.parts.counts_energy else ["latency, ms"]


def front_rows(study: Study, n_rounds: int | None = None) -> list[list[str]]:
    """The measured front of the loop (or of its first ``n_rounds``), one row of text per design."""
    rows = []
    for point in study.findings.front(study.findings.loop_points(n_rounds)):
        cost = point.outcome.controller
        energy = [] if cost.energy_mj is None else [f"{cost.energy_mj:.2f} ± {cost.energy_se:.2f}"]
        rows.append(
            [
                *design_cells(study, point.design),
                f"{100 * cost.accuracy:.1f} ± {100 * cost.accuracy_se:.1f}",
                *energy,
                f"{cost.latency_ms:.2f} ± {cost.latency_se:.2f}",
            ]
        )
    return rows


def marked(mark: str) -> str:
    """What a title says after it if its costs are not measured: the mark of :class:`.Truth`."""
    return f" ({mark} {'costs' if mark == Truth.REPLAY.mark else 'device'})" if mark else ""


def _device_time(seconds: float, truth: Truth) -> str:
    if truth is Truth.REPLAY:
        return f"no device time ({truth.mark}; {seconds:.0f} s when it was recorded)"
    return f"{seconds:.0f} s of {truth.mark + ' ' if truth.mark else ''}device"


def round_line(summary: RoundSummary, *, truth: Truth) -> str:
    """One sentence on a round."""
    parts = [
        f"round {summary.round}: {summary.n_measured} points measured, "
        f"hypervolume {summary.hypervolume:.3f} ± {summary.hypervolume_se:.3f}"
    ]
    if summary.coverage_90:
        shares = ", ".join(
            f"{quantity} {share:.0%} of {summary.n_checked[quantity]} (bias {summary.bias[quantity]:+.1f} sd)"
            for quantity, share in summary.coverage_90.items()
        )
        parts.append(f"measured inside the predicted 90 % interval: {shares}")
    parts.append(
        f"{_device_time(summary.device_seconds, truth)}, {summary.training_seconds:.0f} s of training"
    )
    return "; ".join(parts)


def constraints_line(study: Study, n_rounds: int | None = None) -> str:
    """Which constraints there are and how many points of the loop keep to them; empty without any.

    If none does: the constraint that nothing meets, and the best that was measured.
    """
    findings = study.findings
    points = findings.loop_points(n_rounds)
    if not findings.constraints.any or not points:
        return ""
    n_kept = int((findings.violations(points) == 0.0).sum())
    if verdict := findings.infeasibility(points):
        return f"none of {len(points)} measured points counts: {verdict}"
    return f"{n_kept} of {len(points)} measured points meet the constraints ({findings.constraints})"


def failed_line(study: Study, r: int) -> str:
    """How many of a round's cost rows are no points, and where the reasons are; empty if all are."""
    rows = study.findings.cost_rows(r)
    n = sum(not row.valid for row in rows)
    if n == 0:
        return ""
    why = (
        f"are not in the log {study.config.device.log}"
        if study.config.device.kind == "replay"
        else "are invalid"
    )
    return f"{n} of {len(rows)} cost rows {why}; the reasons: hadas status {study.path}"


def model_rows(study: Study) -> list[list[str]]:
    """The predictor chosen per quantity, with all cross-validated scores."""
    rows = []
    for model in study.fit().summary:
        scores = "; ".join(
            f"{s.model}: RMSE {s.rmse:.3f}, tau {s.kendall_tau:.2f}, 90 % interval holds {s.coverage_90:.0%}"
            for s in model.scores
        )
        rows.append(
            [
                f"{model.quantity}, {model.unit}",
                model.chosen,
                f"{model.n_rows} ({model.n_groups} backbones)",
                scores,
            ]
        )
    return rows


CHANGE_COLUMNS = ("quantity", "rows judged", "predicted by", "mean error", "bias", "in 90 % interval")
"""What :func:`change_rows` shows."""


def change_rows(change: Change) -> list[list[str]]:
    """How adopted rows are predicted without them and with them, one row of text per quantity and predictor."""
    rows = []
    for item in change.assessments:
        shown_errors = (
            ("before", item.old),
            ("before, their networks held out", item.old_unseen),
            ("now, their networks held out", item.new),
        )
        for name, errors in shown_errors:
            if errors is not None:
                shown = f"{errors.mape:.1f} %", f"{errors.bias:+.1f} %", f"{errors.coverage_90:.0%}"
                rows.append([item.quantity, f"{errors.n_rows} of {change.n_rows}", name, *shown])
    return rows


def change_verdicts(change: Change, study_file: Path) -> list[str]:
    """Whether the device has drifted, and what to do then."""
    lines = [
        f"adoption {change.number}: {change.n_rows} rows of {change.n_networks} networks, which the predictors are "
        f"trained on from now on (taken back by: hadas fit {study_file} --forget {change.number})"
    ]
    if any(item.old_unseen is not None for item in change.assessments):
        lines.append(
            "some of the networks were known from older rows; held out, a network is predicted by predictors that have "
            "seen no row of it, old or new"
        )
    lines += [item.drift.verdict(item.quantity) for item in change.assessments]
    changed = ", ".join(
        f"{quantity} x {factor:.3f}" for quantity, factor in change.factors.items() if factor != 1.0
    )
    if changed:
        lines.append(
            f"to train on, rows from before are brought to the new level ({changed}), so that the predictors follow "
            "the device as it is now; the study's points and fronts still show what was measured. If the change is "
            "there to stay, measure anew, as a study with a new name"
        )
    return lines


def suggestion_rows(study: Study) -> list[list[str]]:
    """The latest plan, one row of text per suggested design."""
    plan = study.findings.event(f"plan:{study.findings.n_planned_rounds - 1}") or {}
    rows = []
    for document, why in zip(plan.get("designs", []), plan.get("suggestions", []), strict=False):
        gain = "" if why["expected_gain"] is None else f"{why['expected_gain']:.4f}"
        cost = "" if why["cost_s"] is None else f"{why['cost_s']:.0f}"
        rows.append([*design_cells(study, design_from_json(document)), gain, cost, why["why"]])
    return rows


def explanation_lines(study: Study) -> list[str]:
    """For each design of the latest plan, why it was chosen and what it is expected to bring."""
    from ..search.explaining import Explanation

    plan = study.findings.event(f"plan:{study.findings.n_planned_rounds - 1}") or {}
    lines = []
    for i, (document, why) in enumerate(
        zip(plan.get("designs", []), plan.get("suggestions", []), strict=False), start=1
    ):
        name = " | ".join(design_cells(study, design_from_json(document)))
        if "explanation" in why:
            told: Sequence[str] = Explanation.from_json(why["explanation"]).sentences
        else:
            told = ["You named it." if why["why"] == ASKED_FOR else f"Chosen for {why['why']}."]
        lines += [f"{i}. {name}", *(f"   {sentence}" for sentence in told)]
    return lines


def unit_cost_rows(ledger: Ledger) -> list[list[str]]:
    """What one of everything took: its name, hardware, count, median and range, and whose it was."""
    costs = [ledger.training_cost(), *ledger.backbone_costs(), ledger.point_cost()]
    return [
        [
            cost.what,
            cost.hardware,
            str(cost.n),
            duration(cost.median_s),
            f"{duration(cost.low_s)} .. {duration(cost.high_s)}" if cost.n > 1 else "",
            cost.source or "this study",
        ]
        for cost in costs
        if cost is not None
    ]


def split_rows(splits: Sequence[Split]) -> list[list[str]]:
    """What a budget buys, one row of text per way to split it."""
    return [[s.name, str(s.n_backbones), str(s.n_points), duration(s.seconds)] for s in splits]


def status_rows(study: Study) -> list[tuple[str, str]]:
    """What is measured, what failed, what it cost, what comes next."""
    findings = study.findings
    measured, planned = findings.n_measured_rounds, findings.n_planned_rounds
    rows = [("store", study.store.url), ("rounds measured", f"{measured} (seeds included)")]
    trained = findings.event("supernet")
    if trained is not None:
        rows.append(("supernet", f"trained in {trained['seconds']:.0f} s"))
    sessions: list[int | str] = [*range(max(1, planned)), *BASELINES]
    costs = [row for label in sessions for row in findings.cost_rows(label)]
    failed = [row for row in costs if not row.valid]
    rows.append(("cost rows", f"{len(costs)} with the baselines', {len(failed)} of them invalid"))
    rows += [(f"  row {row.row_no} of {row.session}", row.reason) for row in failed]
    adopted = findings.adoptions(measured)
    if adopted:
        n = sum(adoption.n_rows for adoption in adopted)
        rows.append(("cost rows from elsewhere", f"{n}, adopted by `hadas fit --new-only`"))
    rows += [
        (f"  adoption {adoption.number}", f"{adoption.n_rows} of {', '.join(adoption.rows)}")
        for adoption in adopted
    ]
    if trained is not None:
        # Accuracies may be measured long before a cost is, those of the seeds before anything is planned.
        accuracy = findings.accuracy_records(study.planned_backbones(sessions)).values()
        bad = [record for record in accuracy if not record.valid]
        rows.append(("accuracy rows", f"{len(accuracy)}, {len(bad)} of them invalid"))
        rows += [(f"  {record.backbone.arch_id}", record.reason) for record in bad]
    rows += [("", round_line(summary, truth=study.truth)) for summary in findings.summaries()]
    if measured and (kept := constraints_line(study)):
        rows.append(("constraints", kept))
    rows += correction_rows(study)
    if measured and (reason := stop_reason(study)):
        rows.append(("stopped", reason))
    budget_s = Budget.journalled(study)
    if budget_s is not None:
        rows.append(("budget", standing(study, budget_s)))
    rows.append(("next", _next_step(study)))
    return rows


def _next_step(study: Study) -> str:
    findings = study.findings
    r = findings.n_measured_rounds - 1
    if findings.n_planned_rounds == 0 or findings.n_planned_rounds > findings.n_measured_rounds:
        return "hadas measure"
    label = findings.fit_label(r)
    if findings.event(f"fit:{label}") is None:
        return "hadas fit"
    label = findings.search_label(r)
    if findings.event(f"infeasible:{label}") is not None:
        return (
            "relax 'search.constraints' in the study file, or search longer, and go on with: hadas search --adopt "
            "(the search on these rows found nothing that meets the constraints)"
        )
    if findings.event(f"search:{label}") is None:
        return "hadas search"
    if findings.n_suggested_rounds() < study.config.learning.rounds and not stop_reason(study):
        return "hadas suggest"
    if study.config.baselines and any(findings.event(f"measured:{name}") is None for name in BASELINES):
        return "hadas run (measures the baselines and reports)"
    return "hadas report"
