"""What a world is made of where the simulator's own costs are taken: exact, without noise, and modelled.

Accuracies come from elsewhere: predictors, published numbers, or an oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hadas.measurement.hardware.simulation.simulator import SimulatedDevice
from hadas.spaces import Backbone, MBConvSpace, Setting, Stage

FloatArray = NDArray[np.float64]


class Accuracies(Protocol):
    """One opinion about accuracies."""

    def final_accuracy(self, backbones: Sequence[Backbone]) -> FloatArray:
        """(k,) fraction right at the end."""
        ...

    def exit_fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        """k arrays (p,), fraction right per exit position."""
        ...


class SimulatedView:
    """Accuracies as somebody says, costs as the simulator knows them; a ``View`` of :mod:`hadas.search.world`."""

    def __init__(self, accuracies: Accuracies, device: SimulatedDevice, space: MBConvSpace) -> None:
        self._accuracies, self._device, self._space = accuracies, device, space
        self._rows: dict[tuple[Setting, ...], dict[tuple[object, ...], tuple[FloatArray, FloatArray]]] = {}

    def final_accuracy(self, backbones: Sequence[Backbone]) -> FloatArray:
        """(k,) fraction right at the end."""
        return self._accuracies.final_accuracy(backbones)

    def exit_fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        """k arrays (p,), fraction right per exit position."""
        return self._accuracies.exit_fractions(backbones)

    def stage_costs(
        self, stages: Sequence[Stage], settings: Sequence[Setting]
    ) -> tuple[FloatArray, FloatArray]:
        """(r, F) latency in ms and energy in mJ; a stage that runs the same layers is simulated once."""
        rows = self._rows.setdefault(tuple(settings), {})
        # The first segment carries the network's fixed offset.
        keys = [(stage.kind, stage.layers, stage.units[0].stage == 0) for stage in stages]
        fresh = {key: stage for key, stage in zip(keys, stages, strict=True) if key not in rows}
        if fresh:
            latency_ms, energy_mj = self._device.true_costs(list(fresh.values()), settings)
            rows |= dict(zip(fresh, zip(latency_ms, energy_mj, strict=True), strict=True))
        return np.stack([rows[key][0] for key in keys]), np.stack([rows[key][1] for key in keys])

    def network_cost(self, backbones: Sequence[Backbone], setting: Setting) -> tuple[FloatArray, FloatArray]:
        """(k,) latency in ms and energy in mJ of the backbones alone."""
        sums = []
        for backbone in backbones:
            workload = self._space.workload(backbone, n_classes=self._device.n_classes)
            segments = [stage for stage in workload.unit_stages() if stage.kind == "segment"]
            sums.append([costs.sum() for costs in self.stage_costs(segments, [setting])])
        latency_ms, energy_mj = np.array(sums).T
        return latency_ms, energy_mj
