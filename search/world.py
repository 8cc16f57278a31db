"""The world as the predictors see it, behind the door that the search looks through.

Measured backbones keep their measured outcomes; the others borrow (see :mod:`outcomes`).
Costs are always predicted, per stage and setting.  The same world can be built on predictive
means, on one joint draw of all predictors (a plausible world, to search in), and, for chosen
designs, on all draws at once (what a measurement may turn out to be).

Shapes: k backbones, F settings, s draws, n designs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import StudyError
from ..spaces import Backbone, BackboneSpace, ClockTable, Setting, Stage, Workload
from ..surrogates.prediction import Prediction
from ..surrogates.widened import Draws
from .designs import Design
from .objectives import controller_terms
from .outcomes import N_DONORS, OutcomeLibrary, Outcomes
from .tables import FloatArray, StaticFitness, Tables, pack_samples


class StageCostTable(Protocol):
    """Predictive means of r stages at F settings, each (r, F)."""

    @property
    def latency_ms(self) -> FloatArray: ...
    @property
    def energy_mj(self) -> FloatArray: ...


class Predictors(Protocol):
    """What a world needs of a :class:`hadas.surrogates.predictor_set.PredictorSet`."""

    def final_accuracy(self, backbones: Sequence[Backbone]) -> Prediction: ...
    def exit_fractions(self, backbones: Sequence[Backbone]) -> Prediction: ...
    def stage_costs(self, stages: Sequence[Stage], settings: Sequence[Setting]) -> StageCostTable: ...
    def network_cost(
        self, backbones: Sequence[Backbone], setting: Setting
    ) -> tuple[FloatArray, FloatArray]: ...


class View(Protocol):
    """One opinion about everything: a predictive mean, or one draw."""

    def final_accuracy(self, backbones: Sequence[Backbone]) -> FloatArray:
        """(k,) fraction right at the end."""
        ...

    def exit_fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        """k arrays (p,), fraction right per exit position."""
        ...

    def stage_costs(
        self, stages: Sequence[Stage], settings: Sequence[Setting]
    ) -> tuple[FloatArray, FloatArray]:
        """(r, F) latency in ms and energy in mJ."""
        ...

    def network_cost(self, backbones: Sequence[Backbone], setting: Setting) -> tuple[FloatArray, FloatArray]:
        """(k,) latency in ms and energy in mJ of the backbones alone."""
        ...


class _Workloads:
    """Workloads of backbones, counted once each: searches ask for the same ones again and again."""

    def __init__(self, space: BackboneSpace, n_classes: int) -> None:
        self._space, self._n_classes = space, n_classes
        self._known: dict[Backbone, Workload] = {}

    def __call__(self, backbone: Backbone) -> Workload:
        if backbone not in self._known:
            self._known[backbone] = self._space.workload(backbone, n_classes=self._n_classes)
        return self._known[backbone]


class MeanView:
    """The predictive means."""

    def __init__(self, space: BackboneSpace, predictors: Predictors) -> None:
        self._space, self._predictors = space, predictors

    def final_accuracy(self, backbones: Sequence[Backbone]) -> FloatArray:
        """Logistic of the mean logit."""
        return _logistic(self._predictors.final_accuracy(backbones).mean[:, 0])

    def exit_fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        """Logistic of the mean logits."""
        flat = _logistic(self._predictors.exit_fractions(backbones).mean[:, 0])
        n_positions = [backbone.n_blocks - self._space.first_exit for backbone in backbones]
        return np.split(flat, np.cumsum(n_positions)[:-1])

    def stage_costs(
        self, stages: Sequence[Stage], settings: Sequence[Setting]
    ) -> tuple[FloatArray, FloatArray]:
        """See :class:`View`."""
        costs = self._predictors.stage_costs(stages, settings)
        return costs.latency_ms, costs.energy_mj

    def network_cost(self, backbones: Sequence[Backbone], setting: Setting) -> tuple[FloatArray, FloatArray]:
        """See :class:`View`."""
        return self._predictors.network_cost(backbones, setting)


class DrawView:
    """One joint draw of all predictors."""

    def __init__(self, space: BackboneSpace, draws: Draws, index: int, *, n_classes: int) -> None:
        self._draws, self._index = draws, index
        self._workload = _Workloads(space, n_classes)
        self._rows: dict[tuple[object, ...], tuple[FloatArray, FloatArray]] = {}

    def final_accuracy(self, backbones: Sequence[Backbone]) -> FloatArray:
        """See :class:`View`."""
        return np.asarray(self._draws.final_accuracy(backbones)[self._index])

    def exit_fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        """See :class:`View`."""
        return [drawn[self._index] for drawn in self._draws.exit_fractions(backbones)]

    def stage_costs(
        self, stages: Sequence[Stage], settings: Sequence[Setting]
    ) -> tuple[FloatArray, FloatArray]:
        """See :class:`View`; a stage of the same layers is asked of the draws only once."""
        asked = tuple(settings)
        keys = [(stage.kind, stage.layers, asked) for stage in stages]
        fresh = {key: stage for key, stage in zip(keys, stages, strict=True) if key not in self._rows}
        for key, stage in fresh.items():
            # Stage by stage: the last bit of a product depends on what else is in it, and a draw must not
            # depend on what was asked before.
            latency, energy = self._draws.stage_costs([stage] * len(asked), asked)
            self._rows[key] = (latency[self._index], energy[self._index])
        return np.stack([self._rows[k][0] for k in keys]), np.stack([self._rows[k][1] for k in keys])

    def network_cost(self, backbones: Sequence[Backbone], setting: Setting) -> tuple[FloatArray, FloatArray]:
        """The sum over the finest segments, as tables have it."""
        segments = [
            [stage for stage in self._workload(b).unit_stages() if stage.kind == "segment"] for b in backbones
        ]
        costs = np.stack(self.stage_costs([stage for own in segments for stage in own], [setting]))[:, :, 0]
        owner = np.repeat(np.arange(len(backbones)), [len(own) for own in segments])
        latency, energy = (
            np.asarray(np.bincount(owner, weights=cost, minlength=len(backbones)), dtype=np.float64)
            for cost in costs
        )
        return latency, energy


class PredictedWorld:
    """Tables and static fitness from a view and the measured outcomes; ``SupportsTables``."""

    def __init__(
        self,
        space: BackboneSpace,
        clock_table: ClockTable,
        view: View,
        library: OutcomeLibrary,
        *,
        n_classes: int,
    ) -> None:
        self.space, self.clock_table = space, clock_table
        self._view, self._library = view, library
        self._workload = _Workloads(space, n_classes)

    @property
    def digest(self) -> str:
        """Of the measured outcomes; what is predicted has to be asked for."""
        return self._library.digest

    def static(self, backbones: Sequence[Backbone]) -> StaticFitness:
        """Measured final accuracy where there is one, else predicted; cost at maximum clocks."""
        accuracy = self._view.final_accuracy(backbones)
        latency_ms, energy_mj = self._view.network_cost(backbones, self.clock_table.default)
        known = [self._library.fractions(backbone.arch_id) for backbone in backbones]
        measured = [float(a) if f is None else float(f[-1]) for a, f in zip(accuracy, known, strict=True)]
        return StaticFitness(np.array(measured), latency_ms, energy_mj)

    def tables(self, backbones: Sequence[Backbone]) -> Tables:
        """Full tables; see :class:`Tables`."""
        outcomes = self._outcomes(backbones)
        n_positions = np.array([backbone.n_blocks - self.space.first_exit for backbone in backbones])
        k, P, F = len(backbones), int(n_positions.max()), len(self.clock_table)
        segment, head = np.zeros((2, k, P + 1, F)), np.zeros((2, k, P, F))
        correct = np.zeros((k, P + 1, self._library.n_samples), dtype=bool)
        leaves = np.zeros_like(correct)
        stages = [self._workload(b).unit_stages() for b in backbones]
        costs = np.stack(
            self._view.stage_costs([stage for rows in stages for stage in rows], self.clock_table.settings)
        )
        start = 0
        for i, p in enumerate(n_positions):
            columns = [*range(p), P]
            own = costs[:, start : start + 2 * p + 1]
            segment[:, i, columns], head[:, i, :p] = own[:, 0::2], own[:, 1::2]
            correct[i, columns], leaves[i, columns] = outcomes[i].correct, outcomes[i].leaves
            start += 2 * int(p) + 1
        return Tables(
            backbones=tuple(backbones),
            n_positions=n_positions,
            segment_latency_ms=segment[0],
            segment_energy_mj=segment[1],
            head_latency_ms=head[0],
            head_energy_mj=head[1],
            correct=correct,
            leaves=leaves,
            default_setting=self.clock_table.index(self.clock_table.default),
            measured=np.array([outcome.measured for outcome in outcomes]),
        )

    def _outcomes(self, backbones: Sequence[Backbone]) -> list[Outcomes]:
        found = [self._library.measured(backbone.arch_id) for backbone in backbones]
        missing = [backbone for backbone, own in zip(backbones, found, strict=True) if own is None]
        if missing:
            final = self._view.final_accuracy(missing)
            exits = self._view.exit_fractions(missing)
            borrowed = iter(
                [
                    self._library.borrowed(known_kept(np.append(f, a), self._library.fractions(b.arch_id)))
                    for b, f, a in zip(missing, exits, final, strict=True)
                ]
            )
        return [next(borrowed) if own is None else own for own in found]


@dataclass(frozen=True)
class DesignDraws:
    """What each joint draw says about n designs under the controller, each (s, n)."""

    error: FloatArray
    energy_mj: FloatArray
    latency_ms: FloatArray

    def objectives(self, columns: Sequence[str]) -> FloatArray:
        """(s, n, m), minimised, for columns among ``error``, ``energy_mj``, ``latency_ms``.

        Raises:
            StudyError: an unknown column, or energy on a device that counts none.
        """
        known = {"error": self.error, "energy_mj": self.energy_mj, "latency_ms": self.latency_ms}
        for column in columns:
            if column not in known or np.isnan(known[column]).any():
                raise StudyError(
                    f"draws know no '{column}'; search for 'expected' objectives that the device has"
                )
        return np.stack([known[column] for column in columns], axis=2)


def design_draws(
    designs: Sequence[Design],
    draws: Draws,
    space: BackboneSpace,
    library: OutcomeLibrary,
    *,
    n_classes: int,
    n_donors: int = N_DONORS,
) -> DesignDraws:
    """Push every joint draw through the exact aggregation for every design.

    The outcomes of a measured backbone are the same in all draws; those of an unmeasured one
    depend on each other as its nearest donors' do, draw by draw in turn.  Expected cost = sum over the design's own stages
    of the share of samples that reach it x the drawn cost of the stage.
    """
    s, n = draws.n_draws, len(designs)
    if not n:
        return DesignDraws(np.zeros((s, 0)), np.zeros((s, 0)), np.zeros((s, 0)))
    error, weights = np.zeros((s, n)), []
    stages: list[Stage] = []
    settings: list[Setting] = []
    terms = _terms_by_design(designs, draws, library, n_donors)
    for i, design in enumerate(designs):
        own = space.workload(design.backbone, n_classes=n_classes).stages(design.exits.positions)
        stages += own
        settings += [design.setting] * len(own)
        columns = np.repeat(np.append(np.flatnonzero(design.mask), len(design.mask)), 2)[:-1]
        error[:, i] = terms[i][0]
        weights.append(terms[i][1][:, columns])
    ends = np.cumsum([weight.shape[1] for weight in weights])[:-1]
    latency, energy = (
        np.stack(
            [(w * c).sum(axis=1) for w, c in zip(weights, np.split(cost, ends, axis=1), strict=True)], axis=1
        )
        for cost in draws.stage_costs(stages, settings)
    )
    return DesignDraws(error, energy, latency)


def _terms_by_design(
    designs: Sequence[Design], draws: Draws, library: OutcomeLibrary, n_donors: int
) -> dict[int, tuple[FloatArray, FloatArray]]:
    """Per design: (s,) error and (s, p + 1) share of samples that reach each position."""
    owned: dict[Backbone, list[int]] = {}
    for i, design in enumerate(designs):
        owned.setdefault(design.backbone, []).append(i)
    unmeasured = [b for b in owned if library.measured(b.arch_id) is None]
    drawn: dict[Backbone, FloatArray] = {}
    if unmeasured:
        final, exits = draws.final_accuracy(unmeasured), draws.exit_fractions(unmeasured)
        for i, backbone in enumerate(unmeasured):
            drawn[backbone] = known_kept(
                np.concatenate([exits[i], final[:, i : i + 1]], axis=1), library.fractions(backbone.arch_id)
            )
    samples = pack_samples(np.ones(library.n_samples, dtype=bool))
    terms: dict[int, tuple[FloatArray, FloatArray]] = {}
    for backbone, members in owned.items():
        if backbone in drawn:
            donors = library.nearest_donors(drawn[backbone].mean(axis=0), n_donors)
            outcomes = [
                library.borrowed_from(donors[draw % len(donors)], fractions)
                for draw, fractions in enumerate(drawn[backbone])
            ]
        else:
            own = library.measured(backbone.arch_id)
            assert own is not None
            outcomes = [own]
        correct = pack_samples(np.stack([outcome.correct for outcome in outcomes]))
        leaves = pack_samples(np.stack([outcome.leaves for outcome in outcomes]))
        for i in members:
            masks = np.broadcast_to(designs[i].mask, (len(outcomes), len(designs[i].mask)))
            found = controller_terms(correct, leaves, samples, np.arange(len(outcomes)), masks)
            repeat = draws.n_draws // len(outcomes)
            terms[i] = (np.tile(found.loss, repeat), np.tile(found.weight, (repeat, 1)))
    return terms


def known_kept(predicted: FloatArray, measured: FloatArray | None) -> FloatArray:
    """Predicted fractions (..., e), the last of them replaced by those that were measured."""
    if measured is not None:
        predicted[..., predicted.shape[-1] - len(measured) :] = measured
    return predicted


def _logistic(logit: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))
