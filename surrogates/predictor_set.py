"""The four predictors of a study, fitted together: final accuracy, exit fractions, latency, power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from ..datasets.records import AccuracyRecord, CostRecord
from ..errors import ModelError
from ..spaces import Backbone, BackboneSpace, ClockTable, Setting, Stage, Workload
from .accuracy import AccuracyScale, accuracy_rows, fit_final_accuracy, fractions, usable_accuracy
from .cost import cost_rows
from .cost_model import CostDraws, CostModel, finest, noise_of
from .exit_curves import curve_rows, drawn_curves, predicted_curves
from .features import backbone_features
from .fitting import Earlier, FittedQuantity, Fitter, nothing_earlier
from .models import IntArray, Model
from .prediction import FloatArray, Paths, Prediction
from .selection import ModelSummary
from .sums import sums_of

RowIds = tuple[tuple[str, int], ...]
MAX_CACHED_WORKLOADS = 4096


@dataclass(frozen=True)
class StageCosts:
    """Predicted costs of r stages at F settings.

    Attributes:
        latency_ms: (r, F).
        energy_mj: (r, F); NaN throughout if the device has no energy counter.
    """

    latency_ms: FloatArray
    energy_mj: FloatArray


@dataclass(frozen=True)
class ExitRows:
    """What n exit positions of k backbones are predicted from.

    Attributes:
        x: (n, d) features, at the means of the final logits.
        final_sd: (n,) standard deviation of the final logit of each row's backbone.
        final_mean: (k,) mean of the final logits.
        owner: (n,) index of each row's backbone.
    """

    x: FloatArray
    final_sd: FloatArray
    final_mean: FloatArray
    owner: IntArray


@dataclass(frozen=True)
class Provenance:
    """What a predictor set was made from.

    Attributes:
        n_classes, seed: as given to :meth:`PredictorSet.fit`.
        target_id: whose costs; empty without cost rows.
        accuracy_rows, cost_rows: (session, row) of the records used.
        skipped: how many records were not used, by reason.
        rows_digest: over what the records say, as whoever saves the set knows them; empty if nobody said.
    """

    n_classes: int
    seed: int
    target_id: str
    accuracy_rows: RowIds
    cost_rows: RowIds
    skipped: Mapping[str, int]
    rows_digest: str = ""


class PredictorSet:
    """Everything a search asks of surrogates.  Made by :meth:`fit` or :meth:`load`.

    A set may lack accuracies or costs, if none were measured; what it lacks it refuses to predict.

    Attributes:
        quantities: the fitted models by name: ``final_accuracy``, ``exit_fractions``, ``log_latency``,
            ``log_power``, as far as they were measured.
    """

    def __init__(
        self, space: BackboneSpace, table: ClockTable, quantities: Mapping[str, FittedQuantity],
        cost: CostModel | None, provenance: Provenance,
    ) -> None:  # fmt: skip
        self.space, self.table, self.quantities = space, table, dict(quantities)
        self.provenance = provenance
        self._cost = cost
        self._workloads: dict[Backbone, Workload] = {}

    @classmethod
    def fit(
        cls, space: BackboneSpace, table: ClockTable, accuracy: Sequence[AccuracyRecord],
        costs: Sequence[CostRecord], *, n_classes: int, seed: int, candidates: tuple[str, ...] = ("gp", "xgb"),
        earlier: Earlier = nothing_earlier, chosen: Mapping[str, str] | None = None,
    ) -> Self:  # fmt: skip
        """Fit all predictors that there are rows for, each with the candidate that cross-validation prefers.

        Args:
            accuracy, costs: records; invalid ones are never used, and either may be missing.
            n_classes: of the data set.
            seed: fixes everything random; the same records and seed give the same predictors.
            candidates: model kinds, the preferred one first.
            earlier: where models of unchanged rows are found (see :func:`.persistence.fitted_below`).
            chosen: kinds by quantity, for which nothing is compared any more.

        Raises:
            ModelError: no usable record of either kind, or records that do not belong together.
        """
        fitter = Fitter(candidates, chosen or {}, earlier)
        quantities: dict[str, FittedQuantity] = {}
        skipped: dict[str, int] = {}
        usable = usable_accuracy(space, accuracy)
        if len(usable) < len(accuracy):
            skipped["accuracy: invalid"] = len(accuracy) - len(usable)
        if usable:
            final, exits = accuracy_rows(space, usable, n_classes=n_classes)
            quantities["final_accuracy"], _ = fit_final_accuracy(fitter, final, seed=seed)
            if len(exits.y):  # only final accuracies are a beginning, too
                quantities["exit_fractions"] = fitter.fit("exit_fractions", "logit", exits, seed=seed + 1)
        cost: CostModel | None = None
        used: RowIds = ()
        target_id = ""
        if not usable and not any(record.valid for record in costs):
            raise ModelError(
                f"nothing to fit: none of {len(accuracy)} accuracy rows and {len(costs)} cost rows is valid; measure some"
            )
        if any(record.valid for record in costs):
            rows = cost_rows(space, table, costs)
            skipped |= {f"cost: {reason}": n for reason, n in sorted(rows.skipped.items())}
            cost, found = CostModel.fit(table, rows, fitter=fitter, seed=seed + 2)
            quantities |= {quantity.summary.quantity: quantity for quantity in found}
            used, target_id = rows.used, rows.target_id
        ids = tuple((record.session, record.row_no) for record in usable)
        provenance = Provenance(n_classes, seed, target_id, ids, used, skipped)
        return cls(space, table, quantities, cost, provenance)

    @property
    def summary(self) -> tuple[ModelSummary, ...]:
        """Per quantity: the model in use and how all candidates scored."""
        return tuple(quantity.summary for quantity in self.quantities.values())

    @property
    def has_accuracy(self) -> bool:
        """Whether final accuracies are predicted."""
        return "final_accuracy" in self.quantities

    @property
    def has_exits(self) -> bool:
        """Whether exit fractions are predicted."""
        return "exit_fractions" in self.quantities

    @property
    def has_costs(self) -> bool:
        """Whether latencies are predicted."""
        return self._cost is not None

    @property
    def has_energy(self) -> bool:
        """Whether energy is predicted; without, every energy is NaN."""
        return self._cost is not None and self._cost.power is not None

    @property
    def cost_model(self) -> CostModel:
        """Latency and power of stages.

        Raises:
            ModelError: no cost was measured.
        """
        if self._cost is None:
            raise ModelError(
                "these predictors know no costs: they were fitted without a valid cost row; measure one (hadas measure)"
            )
        return self._cost

    @property
    def final_model(self) -> Model:
        """Model of final accuracy.

        Raises:
            ModelError: no accuracy was measured.
        """
        return self._accuracy_model("final_accuracy")

    @property
    def exit_model(self) -> Model:
        """Model of exit fractions.

        Raises:
            ModelError: no accuracy was measured.
        """
        return self._accuracy_model("exit_fractions")

    @property
    def final_scale(self) -> AccuracyScale:
        """Scale on which :attr:`final_model` predicts."""
        return AccuracyScale(odds=self.quantities["final_accuracy"].summary.unit == AccuracyScale(True).unit)

    def _accuracy_model(self, quantity: str) -> Model:
        if quantity not in self.quantities:
            raise ModelError(
                f"these predictors know no {quantity.replace('_', ' ')}: they were fitted without a valid accuracy row "
                "that has it; measure one (hadas measure --accuracy)"
            )
        return self.quantities[quantity].model

    def workload(self, backbone: Backbone) -> Workload:
        """The workload of a backbone, cached."""
        if backbone not in self._workloads:
            if len(self._workloads) >= MAX_CACHED_WORKLOADS:
                self._workloads.clear()
            self._workloads[backbone] = self.space.workload(backbone, n_classes=self.provenance.n_classes)
        return self._workloads[backbone]

    def final_rows(self, backbones: Sequence[Backbone]) -> FloatArray:
        """Features (k, d) of the final accuracy of backbones."""
        return np.stack([backbone_features(self.space, b, self.workload(b)) for b in backbones])

    def exit_rows(self, backbones: Sequence[Backbone]) -> ExitRows:
        """What the exit positions of backbones are predicted from, backbone by backbone."""
        final = self.final_accuracy(backbones)
        rows = [
            curve_rows(self.space, backbone, self.workload(backbone), float(logit))
            for backbone, logit in zip(backbones, final.mean[:, 0], strict=True)
        ]
        owner = np.repeat(np.arange(len(backbones)), [len(own) for own in rows])
        return ExitRows(np.vstack(rows), np.sqrt(final.var_epistemic[owner, 0]), final.mean[:, 0], owner)

    def final_accuracy(self, backbones: Sequence[Backbone]) -> Prediction:
        """Final accuracy (k, 1) on the calibration split, logit of the fraction correct."""
        prediction = self.final_model.predict(self.final_rows(backbones))
        return self.final_scale.in_logits(prediction)

    def exit_fractions(self, backbones: Sequence[Backbone]) -> Prediction:
        """Exit fractions, logit; rows = the exit positions of each backbone in turn, one column."""
        rows = self.exit_rows(backbones)
        return predicted_curves(self.exit_model, rows.x, rows.final_sd)

    def stage_costs(self, stages: Sequence[Stage], settings: Sequence[Setting]) -> StageCosts:
        """Costs of all pairs of r stages and F settings of the table; cached by what the stages run.

        Of a segment with blocks between: the sums over its finest segments.

        Raises:
            OffTableFrequencyError: a setting that the table does not list.
        """
        columns = np.array([self.table.index(setting) for setting in settings], dtype=np.int64)
        parts, starts, _ = finest(stages)
        tables = self.cost_model.tabulated(self.cost_model.register(parts), columns)
        return StageCosts(*(sums_of(table, starts) for table in tables))

    def network_cost(self, backbones: Sequence[Backbone], setting: Setting) -> tuple[FloatArray, FloatArray]:
        """Latency (k,) in ms and energy (k,) in mJ of backbones without exits at one setting.

        The sum over the finest segments, so that it agrees with tables made of the same.
        """
        segments = [
            [stage for stage in self.workload(b).unit_stages() if stage.kind == "segment"] for b in backbones
        ]
        owner = np.repeat(np.arange(len(backbones)), [len(s) for s in segments])
        costs = self.stage_costs([stage for s in segments for stage in s], [setting])
        return (
            _sums(costs.latency_ms[:, 0], owner, len(backbones)),
            _sums(costs.energy_mj[:, 0], owner, len(backbones)),
        )

    def draws(self, n_draws: int, seed: int, *, include_noise: bool = False) -> PredictorDraws:
        """Joint draws of all unknown functions.

        Args:
            include_noise: add the noise of one new measurement, fixed per row and seed: what
                predictive intervals need.
        """
        return PredictorDraws(self, n_draws, seed, include_noise=include_noise)

    def save(self, directory: Path) -> None:
        """Write to a directory, made if need be; no pickle."""
        from .persistence import save_predictors

        save_predictors(self, directory)

    @classmethod
    def load(
        cls, directory: Path, space: BackboneSpace, table: ClockTable, *, target_id: str | None = None
    ) -> Self:
        """Read what :meth:`save` wrote; predictions come out bit for bit.

        Args:
            target_id: whose costs they must be of; ``None`` = whoever's.

        Raises:
            ModelError: files missing or altered, or made for another space, clock table, device or
                feature version; says which.
        """
        from .persistence import check_answers, load_parts

        loaded = cls(*load_parts(directory, space, table, target_id))
        check_answers(loaded, directory)
        return loaded


def _sums(values: FloatArray, owner: IntArray, n: int) -> FloatArray:
    return np.asarray(np.bincount(owner, weights=values, minlength=n), dtype=np.float64)


class PredictorDraws:
    """s joint draws of the unknown functions; the same row has the same value in every batch."""

    def __init__(self, predictors: PredictorSet, n_draws: int, seed: int, *, include_noise: bool) -> None:
        self.n_draws = n_draws
        self._predictors, self._noise = predictors, include_noise
        # One stream per quantity: cost draws take two consecutive seeds.
        self._seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(3)]

    @cached_property
    def _final(self) -> Paths:
        return self._predictors.final_model.paths(self.n_draws, self._seeds[0])

    @cached_property
    def _exits(self) -> Paths:
        return self._predictors.exit_model.paths(self.n_draws, self._seeds[1])

    @cached_property
    def _cost(self) -> CostDraws:
        return CostDraws(self._predictors.cost_model, self.n_draws, self._seeds[2], noise=self._noise)

    def final_accuracy(self, backbones: Sequence[Backbone]) -> FloatArray:
        """Fractions correct (s, k) of the final classifiers."""
        x = self._predictors.final_rows(backbones)
        values = self._final(x)[:, :, 0]
        if self._noise:
            values = values + noise_of(self._predictors.final_model, x, self.n_draws, self._seeds[0])
        return self._predictors.final_scale.fractions(values)

    def exit_fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        """Fractions correct at the exit positions: k arrays (s, P_b), joint over positions and backbones, and
        with their final accuracies."""
        rows, model = self._predictors.exit_rows(backbones), self._predictors.exit_model
        final = self._final(self._predictors.final_rows(backbones))[:, :, 0]
        final_off = self._predictors.final_scale.logits(final) - rows.final_mean
        logits = drawn_curves(self._exits, model, rows.x, rows.final_sd, final_off[:, rows.owner])
        if self._noise:
            logits = logits + noise_of(model, rows.x, self.n_draws, self._seeds[1])
        ends = np.cumsum([self._predictors.workload(b).n_positions for b in backbones])
        return [fractions(part) for part in np.split(logits, ends[:-1], axis=1)]

    def stage_costs(
        self, stages: Sequence[Stage], settings: Sequence[Setting]
    ) -> tuple[FloatArray, FloatArray]:
        """Latency (s, n) in ms and energy (s, n) in mJ of n (stage, setting) pairs.

        Energy = power times the same latency draw; NaN without an energy counter.
        """
        return self._cost(stages, settings)
