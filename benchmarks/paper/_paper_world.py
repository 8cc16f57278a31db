"""The world of the experiments: accuracies measured on the mini space and borrowed from, costs of the simulator.

Costs are the simulator's own, noise-free: hardware in the loop, modelled.  Outcomes of every backbone are predicted
from the measured ones, those of the measured ones too: a measurement has its luck (heads of neighbouring exits differ
by points), of which a prediction has none, and presets that were measured would be compared with rivals that were not.
What a search proposes is then measured, and only that is called measured (see :mod:`_networks_table`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from _simulated_view import FloatArray, SimulatedView

from hadas.datasets.records import AccuracyRecord
from hadas.measurement.hardware.simulation.simulator import simulated_device
from hadas.search.designs import Design
from hadas.search.objectives import Objective, evaluate
from hadas.search.outcomes import OutcomeLibrary
from hadas.search.tables import StaticFitness, SupportsTables, Tables
from hadas.search.world import MeanView, PredictedWorld
from hadas.spaces import CLOCK_TABLES, Backbone, ClockTable, MBConvSpace
from hadas.surrogates.predictor_set import PredictorSet

SETTINGS = {
    "agx-volta-gpu": "AGX Volta GPU",
    "agx-carmel-cpu": "Carmel ARM v8.2 CPU",
    "tx2-pascal-gpu": "TX2 Pascal GPU",
    "tx2-denver-cpu": "NVIDIA Denver CPU",
}
"""The paper's four hardware settings, in its order."""


class ModelledOutcomes(OutcomeLibrary):
    """Measured backbones lend their outcomes, and none is known itself."""

    def fractions(self, arch_id: str) -> None:
        """Nobody's."""
        return None

    def measured(self, arch_id: str) -> None:
        """Nobody's."""
        return None


class IdealMapping:
    """A world in which every sample leaves at the first exit that is right: the paper's assumption."""

    def __init__(self, world: SupportsTables) -> None:
        self._world = world

    @property
    def clock_table(self) -> ClockTable:
        """The world's own."""
        return self._world.clock_table

    def static(self, backbones: Sequence[Backbone]) -> StaticFitness:
        """The world's own."""
        return self._world.static(backbones)

    def tables(self, backbones: Sequence[Backbone]) -> Tables:
        """The world's, with an oracle in place of the controller."""
        tables = self._world.tables(backbones)
        leaves = tables.correct.copy()
        leaves[:, -1] = True
        return replace(tables, leaves=leaves)


class Remembering:
    """A world that remembers what static fitness it was asked for: what an outer engine explored."""

    def __init__(self, world: SupportsTables) -> None:
        self._world = world
        self.explored: dict[Backbone, tuple[float, float, float]] = {}

    @property
    def clock_table(self) -> ClockTable:
        """The world's own."""
        return self._world.clock_table

    def static(self, backbones: Sequence[Backbone]) -> StaticFitness:
        """The world's own."""
        found = self._world.static(backbones)
        rows = zip(found.accuracy, found.energy_mj, found.latency_ms, strict=True)
        for backbone, (accuracy, energy_mj, latency_ms) in zip(backbones, rows, strict=True):
            self.explored[backbone] = (float(accuracy), float(energy_mj), float(latency_ms))
        return found

    def tables(self, backbones: Sequence[Backbone]) -> Tables:
        """The world's own."""
        return self._world.tables(backbones)


@dataclass(frozen=True)
class Accuracies:
    """Measured accuracies, and what they say of backbones that were not measured.

    Attributes:
        records: one valid row per measured backbone.
    """

    space: MBConvSpace
    n_classes: int
    records: tuple[AccuracyRecord, ...]
    predictors: PredictorSet
    library: ModelledOutcomes

    @classmethod
    def fit(
        cls, space: MBConvSpace, n_classes: int, records: Sequence[AccuracyRecord],
        candidates: tuple[str, ...] = ("gp",),
    ) -> Accuracies:  # fmt: skip
        """Fit the accuracy predictors of a study; they know no costs, and are asked for none.

        Args:
            candidates: kinds of models among which cross-validation chooses.
        """
        any_table = next(iter(CLOCK_TABLES.values()))
        predictors = PredictorSet.fit(
            space, any_table, records, (), n_classes=n_classes, seed=0, candidates=candidates
        )
        return cls(space, n_classes, tuple(records), predictors, ModelledOutcomes(records))

    def world(self, setting: str) -> PredictedWorld:
        """The mini space on one simulated device."""
        device = simulated_device(setting, space=self.space, n_classes=self.n_classes, noise=False)
        view = SimulatedView(MeanView(self.space, self.predictors), device, self.space)
        return PredictedWorld(self.space, device.clock_table(), view, self.library, n_classes=self.n_classes)


def objectives_of(world: SupportsTables, designs: Sequence[Design], objective: Objective) -> FloatArray:
    """(q, m) objectives of designs in a world, minimised."""
    backbones = list(dict.fromkeys(design.backbone for design in designs))
    tables = world.tables(backbones)
    masks = np.zeros((len(designs), tables.max_positions), dtype=bool)
    for row, design in zip(masks, designs, strict=True):
        row[: len(design.mask)] = design.mask
    owner = np.array([backbones.index(design.backbone) for design in designs])
    settings = np.array([world.clock_table.index(design.setting) for design in designs])
    return evaluate(objective, tables, owner, masks, settings)
