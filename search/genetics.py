"""Variation of backbone genomes: arrays of choice indices, one column per gene."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

import numpy as np

from ..spaces import BackboneSpace, IntArray

_TRIES = 20
"""Rounds of variation that may yield nothing new before random genomes fill the rest."""


def genome_key(genome: IntArray) -> bytes:
    """Identity of a genome."""
    return np.asarray(genome, dtype=np.int64).tobytes()


def random_genomes(
    space: BackboneSpace, n: int, rng: np.random.Generator, seen: AbstractSet[bytes]
) -> IntArray:
    """Up to ``n`` distinct random genomes that are not in ``seen``; (n', n_genes)."""
    return _distinct(lambda wanted, _: space.sample(wanted, rng), n, space, seen)


def offspring(
    space: BackboneSpace, parents: IntArray, n: int, rng: np.random.Generator, seen: AbstractSet[bytes]
) -> IntArray:
    """Up to ``n`` distinct children that are not in ``seen``.

    Binary tournament on the order of the parents, uniform crossover for most, then about one
    mutated gene each: a step to a neighbouring choice (choices ascend, so that is a small
    change) or a fresh draw.

    Args:
        parents: (q, n_genes), best first.

    Returns:
        (n', n_genes).
    """
    n_choices = np.array([len(variable.choices) for variable in space.variables])

    def draw(wanted: int, tries: int) -> IntArray:
        if tries >= _TRIES // 2:
            return space.sample(wanted, rng)
        places = rng.integers(0, len(parents), (2, 2, wanted)).min(axis=1)
        mother, father = parents[places[0]], parents[places[1]]
        mixed = rng.random((wanted, 1)) < 0.9
        children = np.where(mixed & (rng.random(mother.shape) < 0.5), father, mother)
        return _mutated(children, n_choices, rng)

    return _distinct(draw, n, space, seen)


def _mutated(genomes: IntArray, n_choices: IntArray, rng: np.random.Generator) -> IntArray:
    shape = genomes.shape
    mutate = rng.random(shape) < 1.5 / shape[1]
    step = np.clip(genomes + np.where(rng.random(shape) < 0.5, -1, 1), 0, n_choices - 1)
    changed = np.where(rng.random(shape) < 0.5, step, rng.integers(0, n_choices, shape))
    return np.where(mutate, changed, genomes)


def _distinct(
    draw: Callable[[int, int], IntArray], n: int, space: BackboneSpace, seen: AbstractSet[bytes]
) -> IntArray:
    """Collect new genomes from ``draw(wanted, tries)``."""
    known = set(seen)
    rows: list[IntArray] = []
    for tries in range(_TRIES):
        if len(rows) >= n:
            break
        for genome in draw(2 * (n - len(rows)), tries):
            key = genome_key(genome)
            if key not in known and len(rows) < n:
                known.add(key)
                rows.append(genome)
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(space.variables))
