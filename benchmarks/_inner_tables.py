"""Random tables to judge inner engines on: clocks that act as they do on a board, or numbers without any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hadas.search.tables import Tables
from hadas.spaces import Backbone, BackboneSpace, ClockTable

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def ordered_tables(
    space: BackboneSpace, clocks: ClockTable, n_positions: Sequence[int], n_samples: int, seed: int
) -> Tables:
    """Tables in which latency follows two clocks and power rises with them, as on a board.

    Every stage takes work / first clock + traffic / second clock, at a power that is a constant plus terms that
    grow with the clocks, the first's more than in proportion.  Deeper exits know more, and heads cost a part of
    a segment.

    Args:
        n_positions: exit positions, one number per backbone.
    """
    rng = np.random.default_rng([71, seed])
    P, k = max(n_positions), len(n_positions)
    share = np.array([[hz / domain.frequencies_hz[-1] for (_, hz), domain in zip(s.clocks_hz, clocks.domains, strict=True)]
                      for s in clocks.settings])  # fmt: skip
    compute, memory = share[:, 0], share[:, -1]

    def latency(n: int, size: float) -> FloatArray:
        work, traffic = rng.gamma(2.0, size, (2, k, n, 1))
        return np.asarray(0.05 * size + work / compute + 0.5 * traffic / memory)

    segment, head = latency(P + 1, 1.0), latency(P, 0.3)
    at_rest, moving, computing = (
        rng.uniform(0.5, 1.5, (3, k, 1, 1)) * np.array([1.0, 0.8, 3.0])[:, None, None, None]
    )
    power = at_rest + moving * memory + computing * compute * (0.6 + 0.4 * compute) ** 2
    correct, leaves = _outcomes(rng, k, P, n_samples)
    return _padded(_backbones(space, k, rng), n_positions, segment, head, power, correct, leaves)


def unordered_tables(
    space: BackboneSpace, n_settings: int, n_positions: Sequence[int], n_samples: int, seed: int
) -> Tables:
    """Tables whose stage costs and outcomes are independent random numbers: nothing to go by."""
    rng = np.random.default_rng([72, seed])
    P, k = max(n_positions), len(n_positions)
    segment, head = rng.uniform(1.0, 3.0, (k, P + 1, n_settings)), rng.uniform(0.1, 0.6, (k, P, n_settings))
    correct = rng.random((k, P + 1, n_samples)) < np.linspace(0.4, 0.9, P + 1)[None, :, None]
    leaves = rng.random((k, P + 1, n_samples)) < rng.uniform(0.1, 0.6, (k, P + 1, 1))
    power = rng.uniform(2.0, 6.0, (k, 1, n_settings))
    return _padded(_backbones(space, k, rng), n_positions, segment, head, power, correct, leaves)


def _backbones(space: BackboneSpace, k: int, rng: np.random.Generator) -> tuple[Backbone, ...]:
    """Names for the tables' rows; nothing else of them is used."""
    return tuple(space.decode(genome) for genome in space.sample(k, rng))


def _outcomes(
    rng: np.random.Generator, k: int, n_positions: int, n_samples: int
) -> tuple[BoolArray, BoolArray]:
    """Outcomes of samples that are hard or easy for all exits; a controller lets the confident ones leave."""
    skill = np.sort(rng.uniform(-1.0, 1.5, (k, n_positions + 1, 1)), axis=1)
    hardness = rng.normal(size=(k, 1, n_samples))
    margin = skill - hardness + 0.5 * rng.normal(size=(k, n_positions + 1, n_samples))
    confident = margin + 0.5 * rng.normal(size=margin.shape) > rng.uniform(0.3, 1.2, (k, n_positions + 1, 1))
    return margin > 0, confident


def _padded(
    backbones: tuple[Backbone, ...], n_positions: Sequence[int], segment: FloatArray, head: FloatArray,
    power: FloatArray, correct: BoolArray, leaves: BoolArray,
) -> Tables:  # fmt: skip
    leaves = leaves.copy()
    leaves[:, -1] = True
    for b, p in enumerate(n_positions):
        for values in (segment, correct, leaves):
            values[b, p:-1] = 0
        head[b, p:] = 0
    return Tables(
        backbones, np.array(n_positions), segment, segment * power, head, head * power, correct, leaves,
        segment.shape[2] - 1, np.ones(len(backbones), dtype=bool),
    )  # fmt: skip
