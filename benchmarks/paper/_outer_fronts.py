"""Figure 5, top: backbones alone at default clocks, those that the joint search explored against the presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from _paper_world import Accuracies, FloatArray


@dataclass(frozen=True)
class AgainstPreset:
    """One preset against everything explored in a search.

    Attributes:
        dominated: whether an explored backbone is nowhere worse (accuracy, energy) and somewhere better.
        saved: share of its energy saved by the cheapest explored one that is at least as accurate; NaN if none is.
        gained: accuracy, as a fraction, gained by the most accurate explored one that costs no more; NaN if none.
    """

    dominated: bool
    saved: float
    gained: float


def against_preset(preset: FloatArray, explored: FloatArray) -> AgainstPreset:
    """Compare one preset (2,) with (b, 2) explored backbones: accuracy, energy in mJ."""
    accuracy, energy_mj = explored.T
    as_accurate, as_cheap = accuracy >= preset[0], energy_mj <= preset[1]
    better = (accuracy > preset[0]) | (energy_mj < preset[1])
    return AgainstPreset(
        dominated=bool((as_accurate & as_cheap & better).any()),
        saved=float(1.0 - energy_mj[as_accurate].min() / preset[1]) if as_accurate.any() else float("nan"),
        gained=float(accuracy[as_cheap].max() - preset[0]) if as_cheap.any() else float("nan"),
    )


@dataclass(frozen=True)
class OuterFronts:
    """Presets on one setting: their static (accuracy, energy in mJ), and the medians over seeds of the comparison."""

    setting: str
    presets: Mapping[str, tuple[float, float]]
    against: Mapping[str, AgainstPreset]

    @property
    def n_dominated(self) -> int:
        """Presets that are dominated in more than half of the seeds."""
        return sum(one.dominated for one in self.against.values())


def outer_fronts(accuracies: Accuracies, setting: str, explored: Sequence[FloatArray]) -> OuterFronts:
    """Compare presets with what was explored, seed by seed.

    Args:
        explored: per seed, (b, 3) accuracy, energy in mJ and latency in ms.
    """
    presets = accuracies.space.presets
    static = accuracies.world(setting).static(list(presets.values()))
    points = np.stack([static.accuracy, static.energy_mj], axis=1)
    against = {}
    for name, point in zip(presets, points, strict=True):
        found = [against_preset(point, one[:, :2]) for one in explored]
        against[name] = AgainstPreset(
            dominated=float(np.mean([one.dominated for one in found])) > 0.5,
            saved=_median([one.saved for one in found]),
            gained=_median([one.gained for one in found]),
        )
    return OuterFronts(
        setting, {n: (float(a), float(e)) for n, (a, e) in zip(presets, points, strict=True)}, against
    )


def _median(values: Sequence[float]) -> float:
    """Over those that are known; NaN if none is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.median(known)) if known else float("nan")
