"""Designs, and what measured records say about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..datasets.records import (
    AccuracyRecord,
    CostRecord,
    OutcomeMatrix,
    Statistic,
    clustered_standard_error,
)
from ..errors import RecordError
from ..measurement.accuracy.policies import (
    DEFAULT_CONTROLLER,
    CrossFitter,
    ExitCosts,
    PolicyOutcome,
    ThresholdFitter,
    ToleranceThresholds,
    apply_controller,
    expected_cost_statistic,
    ideal_mapping,
    reaching,
)
from ..spaces import Backbone, Exits, Setting
from .tables import FloatArray

Split = Literal["calibration", "test"]


@dataclass(frozen=True, slots=True)
class Design:
    """What is searched for: a backbone, its exits and a clock setting."""

    backbone: Backbone
    exits: Exits
    setting: Setting

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(p,) exits in use."""
        return np.array(self.exits.types) > 0

    def __str__(self) -> str:
        return f"{self.backbone.arch_id} exits {self.exits} at {self.setting}"


@dataclass(frozen=True)
class PolicyCost:
    """Accuracy and expected cost of one policy on one design.

    Attributes:
        accuracy, accuracy_se: fraction correct, standard error clustered by image.
        latency_ms, latency_se: expected per inference.
        energy_mj, energy_se: likewise; ``None`` without an energy counter.
        shares: fraction of samples leaving at each exit in use, then at the final classifier.
    """

    accuracy: float
    accuracy_se: float
    latency_ms: float
    latency_se: float
    energy_mj: float | None
    energy_se: float | None
    shares: tuple[float, ...]


@dataclass(frozen=True)
class DesignOutcome:
    """What was measured of a design, on one split.

    Attributes:
        design: the design.
        split: ``calibration`` (thresholds cross-fitted) or ``test`` (thresholds from calibration).
        controller: under the calibrated controller.
        oracle: under ideal mapping, which no controller can reach.
        no_exit: every sample runs to the end and no head is computed, at the same clocks.
        thresholds: of the exits in use, fitted on the whole calibration split.
        n_samples, n_groups: samples, and underlying images.
    """

    design: Design
    split: Split
    controller: PolicyCost
    oracle: PolicyCost
    no_exit: PolicyCost
    thresholds: tuple[float, ...]
    n_samples: int
    n_groups: int

    def objectives(self, columns: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        """Values and standard errors under the controller, for the columns of ``Expected``.

        Args:
            columns: among ``error``, ``energy_mj``, ``latency_ms``.

        Returns:
            (m,) values to be minimised, (m,) standard errors.

        Raises:
            RecordError: energy asked of a design whose device counts none, or an unknown column.
        """
        known = {
            "error": (1.0 - self.controller.accuracy, self.controller.accuracy_se),
            "latency_ms": (self.controller.latency_ms, self.controller.latency_se),
            "energy_mj": (self.controller.energy_mj, self.controller.energy_se),
        }
        values, errors = [], []
        for column in columns:
            value, error = known.get(column, (None, None))
            if value is None or error is None:
                raise RecordError("not measured", source=str(self.design), row=None, field=column)
            values.append(value)
            errors.append(error)
        return np.array(values), np.array(errors)


def evaluate_measured(
    design: Design,
    accuracy: AccuracyRecord,
    cost: CostRecord,
    *,
    split: Split = "calibration",
    controller: ToleranceThresholds = DEFAULT_CONTROLLER,
) -> DesignOutcome:
    """Accuracy, shares and expected cost of a design, from measured outcomes and measured stages.

    Expected cost = sum over stages of P(a sample reaches the stage) x the stage's cost; a head
    in use is paid by every sample that reaches it.  Its standard error joins the sampling error
    of the shares (clustered by image) and the errors of the stages, taken as independent.

    Args:
        controller: decides who leaves; its thresholds are cross-fitted where they are judged on
            the split that they are fitted on.

    Raises:
        RecordError: an invalid row, a row of another backbone, exits or clocks, or of no stages.
    """
    calibration, judged = _matrices(design, accuracy, split)
    latency, energy = stage_statistics(design, cost)
    mask = design.mask
    scores, least = controller.score.values(calibration), controller.min_samples
    thresholds = ThresholdFitter(scores, min_samples=least).fit(calibration.correct, controller.tolerance)
    if split == "calibration":
        fitter = CrossFitter(scores, calibration.group, min_samples=least)
        leaves = fitter.leaves(calibration.correct, controller.tolerance)
    else:
        leaves = reaching(controller.score.values(judged), thresholds)

    def costs(outcome: PolicyOutcome, evaluated: NDArray[np.bool_] = mask) -> PolicyCost:
        return policy_cost(outcome, mask, evaluated, judged.group, latency, energy)

    nothing = np.zeros_like(mask)
    return DesignOutcome(
        design=design,
        split=split,
        controller=costs(apply_controller(judged.correct, leaves, mask)),
        oracle=costs(ideal_mapping(judged.correct, mask)),
        no_exit=costs(apply_controller(judged.correct, leaves, nothing), nothing),
        thresholds=tuple(float(t) for t in thresholds[:-1][mask]),
        n_samples=judged.n_samples,
        n_groups=len(np.unique(judged.group)),
    )


def _matrices(design: Design, record: AccuracyRecord, split: Split) -> tuple[OutcomeMatrix, OutcomeMatrix]:
    source = f"accuracy record {record.session}"
    calibration, judged = record.calibration, record.calibration if split == "calibration" else record.test
    if not record.valid or calibration is None or judged is None:
        raise RecordError(
            f"row has no outcomes: {record.reason}", source=source, row=record.row_no, field=split
        )
    if record.backbone != design.backbone:
        raise RecordError(
            f"row belongs to another backbone than the design's {design.backbone.arch_id}",
            source=source, row=record.row_no, field="backbone", value=record.backbone.arch_id,
        )  # fmt: skip
    if len(design.exits.types) != calibration.n_exits - 1 or design.exits.first_exit != record.first_exit:
        raise RecordError(
            f"row has {calibration.n_exits - 1} exit positions from block {record.first_exit}, the design "
            f"{len(design.exits.types)} from block {design.exits.first_exit}",
            source=source, row=record.row_no, field="first_exit", value=record.first_exit,
        )  # fmt: skip
    return calibration, judged


def stage_statistics(design: Design, record: CostRecord) -> tuple[list[Statistic], list[Statistic] | None]:
    """Latency in ms and energy in mJ of every stage in execution order; energy ``None`` without a counter.

    Raises:
        RecordError: an invalid row, a row of another backbone, exits or clocks, or of no stages.
    """
    source = f"cost record {record.session}"
    for field, found, wanted in (
        ("backbone", record.backbone.arch_id, design.backbone.arch_id),
        ("heads", record.heads, design.exits.heads),
        ("requested", record.requested, design.setting),
    ):
        if found != wanted:
            raise RecordError(
                f"the design has {wanted}", source=source, row=record.row_no, field=field, value=found
            )
    if not record.valid:
        raise RecordError(
            f"row is invalid: {record.reason}", source=source, row=record.row_no, field="valid", value=False
        )
    if not record.stages and not record.heads and record.latency_ms is not None:
        return [record.latency_ms], None if record.energy_mj is None else [record.energy_mj]
    if len(record.stages) != 2 * len(record.heads) + 1:
        raise RecordError(
            f"{len(record.heads)} exits need {2 * len(record.heads) + 1} stages; measure stage by stage",
            source=source, row=record.row_no, field="stages", value=len(record.stages),
        )  # fmt: skip
    energies = [stage.energy_mj for stage in record.stages if stage.energy_mj is not None]
    complete = len(energies) == len(record.stages)
    return [stage.latency_ms for stage in record.stages], energies if complete else None


def policy_cost(
    outcome: PolicyOutcome,
    mask: NDArray[np.bool_],
    evaluated: NDArray[np.bool_],
    group: NDArray[np.int32],
    latency: Sequence[Statistic],
    energy: Sequence[Statistic] | None,
) -> PolicyCost:
    """Accuracy and expected cost of what a policy did with samples.

    Args:
        outcome: who left where; only at exits in use.
        mask: (P,) exits in use, which the stages belong to.
        evaluated: (P,) those whose heads a sample runs when it gets there.
        group: (n,) index of the underlying image.
        latency, energy: of every stage, in execution order.
    """
    latency_ms, latency_se = expected_stage_cost(outcome, mask, evaluated, group, latency)
    energy_mj, energy_se = (
        (None, None) if energy is None else expected_stage_cost(outcome, mask, evaluated, group, energy)
    )
    return PolicyCost(
        accuracy=outcome.accuracy,
        accuracy_se=clustered_standard_error(outcome.correct, group),
        latency_ms=latency_ms,
        latency_se=latency_se,
        energy_mj=energy_mj,
        energy_se=energy_se,
        shares=tuple(float(s) for s in outcome.shares[np.append(mask, True)]),
    )


def expected_stage_cost(
    outcome: PolicyOutcome,
    mask: NDArray[np.bool_],
    evaluated: NDArray[np.bool_],
    group: NDArray[np.int32],
    stages: Sequence[Statistic],
) -> tuple[float, float]:
    """Mean over samples of the cost of the stages they run, and its standard error; see :func:`policy_cost`."""
    values = ExitCosts.of_stages([stage.value for stage in stages], mask)
    expected = expected_cost_statistic(outcome, values.cumulative(evaluated), group)
    errors = ExitCosts.of_stages([stage.standard_error for stage in stages], mask)
    reach = np.cumsum(outcome.shares[::-1])[::-1]
    variance = float(((reach * errors.segment) ** 2).sum())
    variance += float(((reach[:-1] * errors.head)[evaluated] ** 2).sum())
    if not math.isnan(expected.standard_error):
        variance += expected.standard_error**2
    return expected.value, math.sqrt(variance)
