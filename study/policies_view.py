"""Runtime policies side by side, on the networks that a study has measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..datasets.believable import is_anchor
from ..datasets.records import AccuracyRecord, CostRecord, Statistic
from ..errors import StudyError
from ..search.report import PolicyNetwork, PolicyRow
from ..spaces import Backbone, Exits
from .baselines import BASELINES
from .journal import MeasuredPoint
from .loop import Study
from .tables import marked, ranges

if TYPE_CHECKING:
    from ..measurement.accuracy.policies import Policy
    from ..search.report.export import Cell

COST_HEADINGS = {"energy_mj": "energy, mJ", "latency_ms": "latency, ms", "macs": "MACs, M"}
"""Costs that a comparison may show, by the name that carries their unit."""

LEAST_SHARE = 0.01
"""Smaller shares are left out of tables; CSV files have them all."""


@dataclass(frozen=True, slots=True)
class PolicyLimits:
    """What policies may lose.

    Attributes:
        tolerance: accuracy, as a fraction, that per-exit thresholds and shares may lose; ``None`` =
            the study's own.
        epsilon, delta: of risk-controlled thresholds: largest share of images that leaving early
            turns wrong, and the chance that it is larger nevertheless.
    """

    tolerance: float | None = None
    epsilon: float = 0.02
    delta: float = 0.1


@dataclass(frozen=True)
class PolicyComparison(PolicyNetwork):
    """All policies on one network, with the words that a terminal shows."""

    @property
    def title(self) -> str:
        """The network in one line, with the mark of simulated or replayed costs."""
        places = f"exits after block {ranges(self.exits.positions)}" if self.exits.positions else "no exits"
        clocks = f" at {self.setting}" if self.setting is not None and self.setting.clocks_hz else ""
        return f"{self.backbone}, {places}{clocks}{marked(self.mark)}"

    @property
    def columns(self) -> list[str]:
        """Headings of :meth:`cells`."""
        return [
            "policy",
            "accuracy, %",
            *(COST_HEADINGS[n] for n in self.rows[0].costs),
            "leave after block, %",
        ]

    def cells(self) -> list[list[str]]:
        """One row of text per policy."""
        places = [*map(str, self.exits.positions), "end"]
        table = []
        for row in self.rows:
            costs = [_with_error(cost, 1e-6 if name == "macs" else 1.0) for name, cost in row.costs.items()]
            left = ", ".join(
                f"{place}: {100 * share:.0f}"
                for place, share in zip(places, row.shares, strict=True)
                if share >= LEAST_SHARE
            )
            name = row.policy if row.causal else f"{row.policy} (upper bound)"
            accuracy = f"{100 * row.accuracy.value:.1f} ± {100 * row.accuracy.standard_error:.1f}"
            table.append([name, accuracy, *costs, left])
        return table


def front_comparisons(study: Study, limits: PolicyLimits = PolicyLimits()) -> list[PolicyComparison]:
    """One comparison per network of the measured front, with its exits, at its clocks.

    Raises:
        StudyError: nothing is measured yet.
    """
    _check_measured(study)
    findings = study.findings
    return point_comparisons(study, findings.front(findings.loop_points()), limits)


def point_comparisons(
    study: Study, points: Sequence[MeasuredPoint], limits: PolicyLimits = PolicyLimits()
) -> list[PolicyComparison]:
    """One comparison per measured point, with its exits, at its clocks."""
    return [_compare(study, p.accuracy, p.design.exits, p.cost, limits) for p in points]


def backbone_comparison(study: Study, name: str, limits: PolicyLimits = PolicyLimits()) -> PolicyComparison:
    """One measured backbone with an exit at every position.

    Costs are those of a measured row of just this network, at maximum clocks if there is one;
    without such a row, MACs are counted instead.

    Args:
        name: a preset's, or ``smallest`` or ``largest``, or an arch_id, or the name that tables show.

    Raises:
        StudyError: nothing is measured yet, or not this backbone.
    """
    _check_measured(study)
    record = _measured_backbone(study, name)
    first = study.parts.space.first_exit
    exits = Exits.everywhere(first_exit=first, n_blocks=record.backbone.n_blocks)
    rows = [row for row in _cost_rows(study) if row.backbone == record.backbone and row.heads == exits.heads]
    default = study.parts.table.default
    cost = min(rows, key=lambda row: row.requested != default, default=None)
    return _compare(study, record, exits, cost, limits)


def notes(study: Study, comparisons: Sequence[PolicyComparison], limits: PolicyLimits) -> list[str]:
    """What a reader of the tables must know."""
    found = [
        "Judged on the test split, thresholds from the calibration split; costs are expected per inference, without "
        f"heads that a policy never uses; ± is one standard error, copies of an image counted as one; shares below "
        f"{100 * LEAST_SHARE:g} % are left out.",
        *policy_notes(study, limits),
    ]
    if any("macs" in row.costs for comparison in comparisons for row in comparison.rows):
        found.append("No cost of this network was measured, so multiply-accumulates are counted instead.")
    return found


def policy_notes(study: Study, limits: PolicyLimits = PolicyLimits()) -> list[str]:
    """What each policy is, and what it may lose."""
    tolerance = f"{100 * _tolerance(study, limits):g}"
    fitted = study.parts.recipes[1].temperature == "fitted"
    beside = "; nor does it cover temperatures fitted on that split, as this study's are" if fitted else ""
    return [
        "oracle: knows which exit is right; an upper bound that no policy attains.",
        "final only: the same network without its exits, everybody runs to the end. best single exit: everybody leaves "
        "at the exit that is most often right on the calibration split, as if the network ended there.",
        f"max-softmax, margin, entropy: thresholds fitted exit by exit; each exit may lose {tolerance} % on the "
        "calibration samples that reach its threshold, and together they may lose more.",
        f"MSDNet shares: the cheapest target shares that lose at most {tolerance} % in all on the calibration split. "
        "patience N: N exits in a row agree.",
        f"risk-controlled: with {100 * (1 - limits.delta):g} % confidence, at most {100 * limits.epsilon:g} % of images "
        "are right at the end but wrong where they leave; all run to the end if the images are too few to promise that. "
        "The promise is for one network given beforehand, not for those that a search chose by the same calibration "
        f"split{beside}.",
    ]


def write_policies_csv(comparisons: Sequence[PolicyComparison], path: Path) -> None:
    """Write every row of every comparison, values unrounded.

    Raises:
        StudyError: the file cannot be written.
    """
    from ..search.report.export import write_csv

    try:
        write_csv(path, [_csv_row(comparison, row) for comparison in comparisons for row in comparison.rows])
    except OSError as error:
        raise StudyError(
            f"{path}: cannot be written ({error.strerror}); name a file in an existing folder"
        ) from error


def _tolerance(study: Study, limits: PolicyLimits) -> float:
    return study.config.policy.tolerance if limits.tolerance is None else limits.tolerance


def _check_measured(study: Study) -> None:
    if study.findings.n_measured_rounds == 0:
        raise StudyError(f"study '{study.config.study}': nothing is measured yet; run: hadas measure")


def _cost_rows(study: Study) -> list[CostRecord]:
    """Valid cost rows of the loop, then of the baselines."""
    findings = study.findings
    labels: list[int | str] = [*range(findings.n_measured_rounds), *BASELINES]
    return [row for label in labels for row in findings.cost_rows(label) if row.valid and not is_anchor(row)]


def _measured_backbone(study: Study, name: str) -> AccuracyRecord:
    findings, space = study.findings, study.parts.space
    measured = dict.fromkeys(row.backbone for row in _cost_rows(study))
    named: dict[str, Backbone] = {**space.presets, "smallest": space.smallest, "largest": space.largest}
    named |= {findings.name(backbone): backbone for backbone in measured}
    arch_id = named[name].arch_id if name in named else name
    # Asked of the store, so that a backbone counts which another study of the same store has measured.
    record = findings.accuracy_rows([arch_id]).get(arch_id)
    if record is None or not record.valid:
        known = ", ".join(sorted(findings.name(backbone) for backbone in measured))
        reason = "no accuracy row" if record is None else f"its accuracy row is invalid: {record.reason}"
        raise StudyError(
            f"study '{study.config.study}': backbone '{name}' is not measured ({reason}). Measured: {known}. "
            "To measure another: hadas suggest --design, then hadas measure"
        )
    return record


def _compare(
    study: Study, record: AccuracyRecord, exits: Exits, cost: CostRecord | None, limits: PolicyLimits
) -> PolicyComparison:
    stages = _stage_costs(study, record.backbone, exits, cost)
    mask = np.array(exits.types) > 0
    policies = _policies(study, next(iter(stages.values())), mask, limits)
    return PolicyComparison(
        backbone=study.findings.name(record.backbone),
        arch_id=record.backbone.arch_id,
        exits=exits,
        setting=None if cost is None else cost.requested,
        mark="" if cost is None else study.truth.mark,
        rows=tuple(_row(policy, record, exits, stages) for policy in policies),
    )


def _stage_costs(
    study: Study, backbone: Backbone, exits: Exits, cost: CostRecord | None
) -> dict[str, Sequence[Statistic]]:
    """Cost of every stage in execution order, by name, the one that decides what is cheap first."""
    from ..search.designs import Design, stage_statistics

    if cost is None:
        workload = study.parts.space.workload(backbone, n_classes=study.parts.data.n_classes)
        stages = workload.stages(exits.positions)
        return {"macs": [Statistic(float(sum(u.macs for u in stage.units)), 0.0, 1) for stage in stages]}
    latency, energy = stage_statistics(Design(backbone, exits, cost.requested), cost)
    return {**({} if energy is None else {"energy_mj": energy}), "latency_ms": latency}


def _policies(
    study: Study, stages: Sequence[Statistic], mask: np.ndarray, limits: PolicyLimits
) -> Sequence[Policy]:
    from ..measurement.accuracy.policies import ExitCosts, FinalOnly, standard_policies

    if not mask.any():
        return (FinalOnly(),)
    return standard_policies(
        n_classes=study.parts.data.n_classes,
        costs=ExitCosts.of_stages([stage.value for stage in stages], mask),
        tolerance=_tolerance(study, limits),
        epsilon=limits.epsilon,
        delta=limits.delta,
    )


def _row(
    policy: Policy, record: AccuracyRecord, exits: Exits, stages: dict[str, Sequence[Statistic]]
) -> PolicyRow:
    from ..measurement.accuracy.policies import outcome_at
    from ..search.designs import expected_stage_cost

    calibration, test = record.calibration, record.test
    assert calibration is not None  # of every valid row
    assert test is not None
    mask = np.array(exits.types) > 0
    rule = policy.fit(calibration, mask)
    outcome = outcome_at(test.correct, rule.leaves_at(test))
    costs = {
        name: Statistic(
            *expected_stage_cost(outcome, mask, rule.evaluated, test.group, values), test.n_samples
        )
        for name, values in stages.items()
    }
    shares = tuple(float(share) for share in outcome.shares[np.append(mask, True)])
    return PolicyRow(policy.name, policy.causal, outcome.accuracy_statistic(test.group), costs, shares)


def _csv_row(comparison: PolicyComparison, row: PolicyRow) -> dict[str, Cell]:
    from ..search.report.export import policy_cells

    truth = "counted" if "macs" in row.costs else comparison.mark or "measured"
    return {**policy_cells(comparison, row), "cost_truth": truth}


def _with_error(cost: Statistic, unit: float) -> str:
    return f"{cost.value * unit:.2f} ± {cost.standard_error * unit:.2f}"
