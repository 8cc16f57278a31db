"""Where an archive begins, and how its random streams are told apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import SpaceError
from ...spaces import IntArray
from ..operators import GenomeSpace, genome_key, random_genomes
from ..space_filling import farthest_first

_SEED_CANDIDATES = 32
"""Random genomes that each seed is chosen among."""


def derived_seed(*parts: int) -> int:
    """A seed of its own for every purpose."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def seed_genomes(space: GenomeSpace, n: int, seed: int, initial: Sequence[IntArray] = ()) -> IntArray:
    """(n', n_genes) genomes to begin with: the initial ones, then each as far as can be from those before it.

    Distance is the number of genes that differ: which choices lie near each other is not known yet.

    Raises:
        SpaceError: an initial genome that the space does not contain.
    """
    sizes = np.array([len(variable.choices) for variable in space.variables])
    given = {genome_key(genome): np.asarray(genome, dtype=np.int64) for genome in initial}
    for genome in given.values():
        if genome.shape != sizes.shape or (genome < 0).any() or (genome >= sizes).any():
            raise SpaceError(
                f"initial genome {genome.tolist()}: space '{space.name}' has {len(sizes)} genes of "
                f"{sizes.tolist()} choices"
            )
    rng = np.random.default_rng([seed, 0])
    candidates = random_genomes(space, max(_SEED_CANDIDATES * n, 1), rng, set(given))
    genomes = np.concatenate(
        [np.array(list(given.values()), dtype=np.int64).reshape(-1, len(sizes)), candidates]
    )
    one_hot = np.concatenate(
        [genomes[:, [j]] == np.arange(size) for j, size in enumerate(sizes)], axis=1
    ).astype(np.float64)
    wanted = max(n, len(given))
    return np.asarray(genomes[farthest_first(one_hot, wanted, rng, range(len(given)))])
