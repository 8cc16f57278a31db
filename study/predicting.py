"""What the predictors of a study say of designs, how sure they are, and how far from their rows that is.

Every figure comes from joint draws: the spread of the drawn functions is what more measurements would
shrink, and what a new measurement's noise adds to it is what they would not.  All intervals are widened by what
the study has learned of intervals like them; none is shifted, as nobody picked these designs for their predictions.
What follows from measured outcomes alone is no prediction, and shown as measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.records import AccuracyRecord, CostRecord, Statistic
from ..spaces import Stage
from .assembly import ProgressCallback
from .distance import distance_sentences
from .journal import design_to_json
from .measured_costs import MeasuredStages, full_pass, measured_stages, total

if TYPE_CHECKING:
    from ..measurement.accuracy.policies import PolicyOutcome
    from ..search.designs import Design
    from ..search.outcomes import Outcomes
    from ..search.world import DesignDraws
    from ..surrogates.predictor_set import PredictorDraws
    from .findings import FloatArray
    from .loop import Study
    from .worlds import Worlds

N_DRAWS = 256
LEVELS = (0.5, 0.9)


@dataclass(frozen=True)
class Estimate:
    """One quantity: predicted, measured, or both.

    Attributes:
        quantity: what, such as ``latency, full pass``.
        unit: ``""`` for fractions, ``ms`` or ``mJ``.
        median, mean: of the predictive distribution; ``None`` where nothing is left to be predicted.
        intervals: central intervals (low, high) of one new measurement, by level.
        sd_epistemic: standard deviation that more measurements would shrink.
        sd_noise: standard deviation of one measurement.
        measured, measured_se: what was measured of the same and its standard error, ``None`` if nothing was
            (the error also where a single image or run does not tell one).
        measured_sum: whether that is a sum over parts that were measured one by one.
    """

    quantity: str
    unit: str
    median: float | None = None
    mean: float | None = None
    intervals: Mapping[float, tuple[float, float]] | None = None
    sd_epistemic: float | None = None
    sd_noise: float | None = None
    measured: float | None = None
    measured_se: float | None = None
    measured_sum: bool = False

    @classmethod
    def of(
        cls, quantity: str, unit: str, draws: Sequence[FloatArray], measured: Statistic | None = None,
        *, measured_sum: bool = False,
    ) -> Estimate:  # fmt: skip
        """From draws (s,) of the same functions without and with the noise of a measurement."""
        clean, noisy = draws
        intervals = {}
        for level in LEVELS:
            low, high = np.quantile(noisy, (0.5 - level / 2, 0.5 + level / 2))
            intervals[level] = (float(low), float(high))
        return cls(
            quantity, unit, float(np.median(noisy)), float(noisy.mean()), intervals, float(clean.std()),
            float((noisy - clean).std()), *_value_and_error(measured), measured is not None and measured_sum,
        )  # fmt: skip

    @classmethod
    def looked_up(cls, quantity: str, measured: Statistic) -> Estimate:
        """A fraction that follows from what was measured alone."""
        value, error = _value_and_error(measured)
        return cls(quantity, "", measured=value, measured_se=error)


def _value_and_error(measured: Statistic | None) -> tuple[float | None, float | None]:
    if measured is None:
        return None, None
    # A single image, or a single run, has no error that could be estimated.
    return measured.value, None if np.isnan(measured.standard_error) else measured.standard_error


@dataclass(frozen=True)
class DesignPrediction:
    """All that is predicted of one design.

    Attributes:
        design: what.
        accuracy: final and exit fractions, then accuracy of the controller and of the oracle.
        shares: of samples that leave at each exit in use, and of those that reach the end; none without exits.
        costs: latency and energy expected under the controller, of the full pass, and of every stage.
        distance: sentences on how far the design is from what was measured.
        outcomes_measured: whether who leaves where is measured of this backbone, and not predicted.
    """

    design: Design
    accuracy: tuple[Estimate, ...]
    shares: tuple[Estimate, ...]
    costs: tuple[Estimate, ...]
    distance: tuple[str, ...]
    outcomes_measured: bool

    @property
    def summary(self) -> tuple[Estimate, ...]:
        """What the whole network does: its accuracy and costs under the controller, the oracle, the full pass."""
        wanted = ("controller", "oracle", "expected", "full pass")
        found = (*self.accuracy, *self.costs)
        return tuple(one for one in found if one.quantity.endswith(wanted))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        design = self.design

        def estimates(found: Sequence[Estimate]) -> list[dict[str, Any]]:
            return [
                {
                    **asdict(one),
                    "intervals": {f"{level:g}": list(ends) for level, ends in (one.intervals or {}).items()},
                }
                for one in found
            ]

        return {
            "design": design_to_json(design.backbone, design.exits, design.setting),
            "arch_id": design.backbone.arch_id,
            "accuracy": estimates(self.accuracy), "shares": estimates(self.shares),
            "costs": estimates(self.costs), "distance": list(self.distance),
            "outcomes_measured": self.outcomes_measured,
        }  # fmt: skip


def predict_designs(
    study: Study, designs: Sequence[Design], progress: ProgressCallback
) -> list[DesignPrediction]:
    """Predictions of designs by what the study has measured so far.

    Raises:
        StudyError: nothing is measured yet.
        ModelError: predictors that cannot be read.
    """
    worlds = study.worlds(progress).unshifted()
    seed, n_rounds = study.seed_for(10), study.latest_round() + 1
    draws = [worlds.predictors.draws(N_DRAWS, seed, include_noise=noise) for noise in (False, True)]
    rows = [row for row in study.findings.cost_records(n_rounds) if row.valid]
    known = {row.backbone.arch_id: row for row in study.findings.training_accuracy(n_rounds)}
    found = []
    for i, design in enumerate(designs):
        progress("predicting", i, len(designs))
        found.append(_Predicted(worlds, draws, design, rows, known.get(design.backbone.arch_id)).all())
    progress("predicting", len(designs), len(designs))
    return found


@dataclass(frozen=True)
class _Predicted:
    """One design before the predictors: draws without and with the noise of a measurement, and what was measured."""

    worlds: Worlds
    draws: Sequence[PredictorDraws]
    design: Design
    rows: Sequence[CostRecord]
    record: AccuracyRecord | None

    def all(self) -> DesignPrediction:
        """Everything."""
        expected = [self.worlds.design_draws([self.design], draws) for draws in self.draws]
        shares = self._shares() if self.design.mask.any() else ()
        accuracy = (*self._fractions(), *self._together(expected))
        costs = (*self._expected_costs(expected), *self._stage_costs())
        sentences = distance_sentences(
            self.worlds.parts, self.design, self.rows, backbone_measured=self.record is not None
        )
        return DesignPrediction(self.design, accuracy, shares, costs, sentences, self._own is not None)

    @cached_property
    def _own(self) -> Outcomes | None:
        """Measured outcomes at all exits."""
        return self.worlds.library.measured(self.design.backbone.arch_id)

    @cached_property
    def _drawn_fractions(self) -> list[FloatArray]:
        """(s, P + 1) fractions right at the exits and at the end, as predicted."""
        backbones = [self.design.backbone]
        return [
            np.concatenate([draws.exit_fractions(backbones)[0], draws.final_accuracy(backbones)], axis=1)
            for draws in self.draws
        ]

    @cached_property
    def _outcomes(self) -> list[list[Outcomes]]:
        """Outcomes by draw: one where they are measured, else borrowed for what is known or drawn of the fractions."""
        from ..search.outcomes import N_DONORS
        from ..search.world import known_kept

        if self._own is not None:
            return [[self._own]] * len(self.draws)
        library, found = self.worlds.library, []
        for drawn in self._drawn_fractions:
            fractions = known_kept(drawn.copy(), library.fractions(self.design.backbone.arch_id))
            donors = library.nearest_donors(fractions.mean(axis=0), N_DONORS)
            found.append(
                [library.borrowed_from(donors[i % len(donors)], own) for i, own in enumerate(fractions)]
            )
        return found

    @cached_property
    def _controlled(self) -> PolicyOutcome | None:
        """What the controller does, if that is measured."""
        return None if self._own is None else _controlled(self._own, self.design)

    def _widened(self, draws: Sequence[FloatArray]) -> list[FloatArray]:
        return [self.worlds.corrected_draws("accuracy", one) for one in draws]

    def _fractions(self) -> list[Estimate]:
        """Fractions right at the exits in use and at the end."""
        design, matrix = self.design, None if self.record is None else self.record.calibration
        # Of a backbone whose first exits were not measured, the fractions of the others are known.
        n_unknown = 0 if matrix is None else len(design.mask) + 1 - matrix.n_exits
        columns = [int(column) for column in np.flatnonzero(design.mask)] + [len(design.mask)]
        found = []
        for column in columns:
            last = column == columns[-1]
            name = "final classifier" if last else f"exit after block {design.exits.first_exit + column}"
            measured = None
            if matrix is not None and column >= n_unknown:
                measured = _mean(matrix.correct[:, column - n_unknown], matrix.group)
            drawn = self._widened([own[:, column] for own in self._drawn_fractions])
            found.append(Estimate.of(name, "", drawn, measured))
        return found

    def _together(self, expected: Sequence[DesignDraws]) -> list[Estimate]:
        """Accuracy of the exits together, by the controller and by the oracle."""
        matrix = None if self.record is None else self.record.calibration
        used = np.append(self.design.mask, True)
        if matrix is not None and not self.design.mask.any():
            final = _mean(matrix.correct[:, -1], matrix.group)
            return [Estimate.looked_up(name, final) for name in ("controller", "oracle")]
        if matrix is not None and self._own is not None and self._controlled is not None:
            oracle = _mean(self._own.correct[used].any(axis=0), matrix.group)
            controller = self._controlled.accuracy_statistic(matrix.group)
            return [Estimate.looked_up("controller", controller), Estimate.looked_up("oracle", oracle)]
        oracles = [
            np.array([float(one.correct[used].any(axis=0).mean()) for one in found])
            for found in self._outcomes
        ]
        return [
            Estimate.of("controller", "", [1.0 - drawn.error[:, 0] for drawn in expected]),
            Estimate.of("oracle", "", self._widened(oracles)),
        ]

    def _shares(self) -> tuple[Estimate, ...]:
        """Shares of samples by where they leave."""
        design = self.design
        used = np.append(design.mask, True)
        names = [f"leave after block {position}" for position in design.exits.positions] + [
            "leave at the end"
        ]
        if self._controlled is not None and self.record is not None and self.record.calibration is not None:
            group, leaves_at = self.record.calibration.group, self._controlled.leaves_at
            return tuple(
                Estimate.looked_up(name, _mean(leaves_at == column, group))
                for name, column in zip(names, np.flatnonzero(used), strict=True)
            )
        shares = [
            np.array([_controlled(one, design).shares[used] for one in found]) for found in self._outcomes
        ]
        widened = self._widened(shares)
        return tuple(Estimate.of(name, "", [own[:, i] for own in widened]) for i, name in enumerate(names))

    @cached_property
    def _measured(self) -> MeasuredStages | None:
        return measured_stages(self.design, self.rows)

    def _expected_costs(self, expected: Sequence[DesignDraws]) -> list[Estimate]:
        """Latency and energy expected under the controller."""
        from ..search.designs import policy_cost

        cost, known = None, self._measured
        if self._controlled is not None and known is not None and self.record is not None:
            assert self.record.calibration is not None
            mask, group = self.design.mask, self.record.calibration.group
            cost = policy_cost(self._controlled, mask, mask, group, known.latency_ms, known.energy_mj)
        found = []
        for quantity, unit in (("latency", "ms"), ("energy", "mJ")):
            draws = [getattr(drawn, f"{quantity}_{unit.lower()}")[:, 0] for drawn in expected]
            if np.isnan(draws[0]).any():
                continue
            measured = None
            if cost is not None and getattr(cost, f"{quantity}_{unit.lower()}") is not None:
                value, error = getattr(cost, f"{quantity}_{unit.lower()}"), getattr(cost, f"{quantity}_se")
                measured = Statistic(value, error, 1)
            summed = known is not None and any(known.summed)
            found.append(Estimate.of(f"{quantity}, expected", unit, draws, measured, measured_sum=summed))
        return found

    def _stage_costs(self) -> list[Estimate]:
        """Latency and energy of the full pass, then of every stage."""
        stages = self.worlds.predictors.workload(self.design.backbone).stages(self.design.exits.positions)
        pairs = [draws.stage_costs(stages, [self.design.setting] * len(stages)) for draws in self.draws]
        known, row = self._measured, full_pass(self.design, self.rows)
        totals, parts = [], []
        for i, (quantity, unit) in enumerate((("latency", "ms"), ("energy", "mJ"))):
            drawn = [pair[i] for pair in pairs]
            if np.isnan(drawn[0]).any():
                continue
            name = f"{quantity}_{unit.lower()}"
            own: Sequence[Statistic] | None = None if known is None else getattr(known, name)
            whole = None if row is None else getattr(row, name)
            summed = whole is None
            if whole is None and own is not None:
                whole = total(own)
            draws = [self.worlds.corrected_draws(name, one.sum(axis=1)) for one in drawn]
            totals.append(Estimate.of(f"{quantity}, full pass", unit, draws, whole, measured_sum=summed))
            for k, stage in enumerate(stages):
                draws = [self.worlds.corrected_draws(name, one[:, k]) for one in drawn]
                merged = known is not None and known.summed[k]
                measured = None if own is None else own[k]
                label = f"{quantity}, {_stage_name(stage, last=k == len(stages) - 1)}"
                parts.append(Estimate.of(label, unit, draws, measured, measured_sum=merged))
        return totals + parts


def _controlled(outcomes: Outcomes, design: Design) -> PolicyOutcome:
    from ..measurement.accuracy.policies import apply_controller

    return apply_controller(outcomes.correct.T, outcomes.leaves.T, design.mask)


def _mean(values: Any, group: Any) -> Statistic:
    from ..measurement.accuracy.policies.outcome import mean_statistic

    return mean_statistic(values, group)


def _stage_name(stage: Stage, *, last: bool) -> str:
    if last:
        return "last segment"
    return (
        f"head after block {stage.position}" if stage.kind == "head" else f"segment to block {stage.position}"
    )
