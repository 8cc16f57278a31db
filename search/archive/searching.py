"""Candidates for evaluation: searches on the mean of beliefs and on joint draws of them.

A search on the mean finds what is expected to be good; a search on a draw finds what is good in one world that the
evaluations do not rule out (Thompson sampling of a front).  All go on side by side, so that the beliefs are asked once
per generation.  A space of no more genomes than a search would look at is looked through instead.

Shapes: n genomes, m objectives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ...spaces import IntArray
from ..metrics import HypervolumeReference
from ..operators import GenomeNSGA2, GenomeSpace, found_of, genome_key
from ..ranking import best_first
from ..tables import FloatArray
from .problem import ArchiveSettings, Beliefs, Judgement
from .seeds import derived_seed


@dataclass(frozen=True)
class Opinion:
    """What one search looked at, and what it made of it.

    Attributes:
        genomes: (n, n_genes).
        points: (n, m) objectives on the scale of the reference.
        violation: (n,).
    """

    genomes: IntArray
    points: FloatArray
    violation: FloatArray

    @classmethod
    def of(cls, genomes: IntArray, judged: Judgement, reference: HypervolumeReference) -> Opinion:
        """On the scale of the reference."""
        return cls(genomes, reference.transform(judged.points), judged.violation)

    def best(self, n: int, excluded: AbstractSet[bytes]) -> list[IntArray]:
        """Up to ``n`` genomes, best first, that are not excluded."""
        new = np.array([genome_key(genome) not in excluded for genome in self.genomes], dtype=bool)
        genomes = self.genomes[new]
        return [genomes[i] for i in best_first(self.points[new], self.violation[new])[:n]]


def cardinality(space: GenomeSpace) -> int:
    """Number of genomes."""
    return math.prod(len(variable.choices) for variable in space.variables)


def all_genomes(space: GenomeSpace) -> IntArray:
    """(cardinality, n_genes) every genome of a small space, the last gene changing first."""
    shape = tuple(len(variable.choices) for variable in space.variables)
    return np.stack(np.unravel_index(np.arange(math.prod(shape)), shape), axis=1).astype(np.int64)


def opinions(
    space: GenomeSpace, beliefs: Beliefs, reference: HypervolumeReference, settings: ArchiveSettings, seed: int,
    initial: Sequence[IntArray],
) -> tuple[Opinion, ...]:  # fmt: skip
    """What searches on the mean (first) and on ``settings.searched_draws`` joint draws looked at.

    Args:
        initial: genomes that every search begins with; random ones fill its first generation.
    """
    if cardinality(space) <= settings.population * settings.generations:
        return _looked_through(all_genomes(space), beliefs, reference, settings.searched_draws, seed)
    n = 1 + settings.searched_draws
    searches = [
        GenomeNSGA2(
            space, _order, n_parents=settings.population, population=settings.population,
            seed=derived_seed(seed, i), initial=initial,
        )
        for i in range(n)
    ]  # fmt: skip
    seen: list[list[Opinion]] = [[] for _ in range(n)]
    for generation in range(settings.generations):
        asked = [search.ask(generation) for search in searches]
        judged = _judged(asked, beliefs, seed)
        for search, genomes, found, own in zip(searches, asked, judged, seen, strict=True):
            own.append(Opinion.of(genomes, found, reference))
            search.tell(genomes, list(zip(own[-1].points, own[-1].violation, strict=True)))
    return tuple(_joined(own) for own in seen)


def _looked_through(
    genomes: IntArray, beliefs: Beliefs, reference: HypervolumeReference, n_draws: int, seed: int
) -> tuple[Opinion, ...]:
    judged = [beliefs.mean(genomes)]
    if n_draws:
        drawn = beliefs.draws(genomes, n_draws, derived_seed(seed, 0))
        judged += [drawn.draw(i, slice(None)) for i in range(n_draws)]
    return tuple(Opinion.of(genomes, one, reference) for one in judged)


def _judged(asked: Sequence[IntArray], beliefs: Beliefs, seed: int) -> list[Judgement]:
    """What each search's own view makes of its own genomes; the first views the mean."""
    judged = [beliefs.mean(asked[0])]
    if len(asked) > 1:
        drawn = beliefs.draws(np.concatenate(asked[1:]), len(asked) - 1, derived_seed(seed, 0))
        ends = np.cumsum([0, *(len(genomes) for genomes in asked[1:])]).tolist()
        judged += [drawn.draw(i, slice(start, end)) for i, (start, end) in enumerate(pairwise(ends))]
    return judged


def _order(population: Any) -> IntArray:
    """Parents and children by constraint violation, rank and crowding."""
    points, violation = zip(*found_of(population), strict=True)
    return best_first(np.array(points), np.array(violation))


def _joined(parts: Sequence[Opinion]) -> Opinion:
    join = partial(np.concatenate, axis=0)
    return Opinion(
        join([p.genomes for p in parts]), join([p.points for p in parts]), join([p.violation for p in parts])
    )
