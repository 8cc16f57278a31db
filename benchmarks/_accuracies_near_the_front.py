"""Which backbones of the mini space are measured besides random ones: those where a wrong accuracy would matter.

A search that sees a modelled truth ends where the model errs to the good, and a model of random backbones says least
about the ends of the space.  So the oracle of accuracies is not frozen from random backbones alone:

- neighbours of both ends are measured, which differ from them in one gene (:func:`neighbours`);
- then, for two rounds, the truth as it would be frozen now is searched, and backbones of the front that is found
  are measured (:func:`on_the_front`).  Where the model was wrong to the good, the next round knows.

Everything found is kept beside the measurements; nothing is searched or measured twice.

    python benchmarks/_accuracies_near_the_front.py [--supernet-seed N]

prints what the oracle said of these backbones before they were measured, and how well trees of different leaves say
what they were not told.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import numpy as np
from _accuracy_oracle import AccuracyOracle
from _mini_accuracies import DIRECTORY, N_BACKBONES, MiniAccuracies, Say, mini_records
from _simulated_truth import TrueWorld, Truth, kept

from hadas.datasets.records import AccuracyRecord
from hadas.search.outer import SearchSettings, nested_search
from hadas.spaces import Backbone, MBConvSpace, mini_space
from hadas.surrogates.threads import single_thread

EVERY_NTH_GENE = 3
"""Genes whose neighbours are measured at each end: a third of them."""

N_ROUNDS = 2
PER_ROUND = 8
LEAVES_COMPARED = (1, 2, 3, 5)
SEARCH = SearchSettings(generations=20, survivors=12, inner_population=24, inner_generations=15)


def accuracies_near_the_front(say: Say = print, *, supernet_seed: int = 0) -> MiniAccuracies:
    """Accuracies of the random backbones and of those that matter, measured now or found from an earlier call.

    Args:
        say: told how it goes on, and what the oracle of each round said of backbones that were measured then.
        supernet_seed: of the supernet's training; the backbones that matter are those of its own accuracies.
    """
    further = list(neighbours(mini_space()))
    found = mini_records(N_BACKBONES, further=further, supernet_seed=supernet_seed, say=say)
    for i in range(N_ROUNDS):
        oracle = AccuracyOracle(found.space, found.data, found.records)
        path = DIRECTORY / f"front-{oracle.digest}-{i}.json"
        genomes = kept(path, partial(on_the_front, Truth(oracle), PER_ROUND, seed=i))
        fresh = [found.space.decode(np.array(genome)) for genome in genomes]
        further += fresh
        found = mini_records(N_BACKBONES, further=further, supernet_seed=supernet_seed, say=say)
        say(f"front, round {i + 1}: {_compared(oracle, [found.by_arch_id[b.arch_id] for b in fresh])}")
    return found


def _compared(oracle: AccuracyOracle, records: Sequence[AccuracyRecord]) -> str:
    """What an oracle said of backbones that were measured afterwards, in words."""
    said = [100 * own[-1] for own in oracle.fractions([record.backbone for record in records])]
    right = [100 * r.calibration.fractions[-1] for r in records if r.calibration is not None]
    apart = np.subtract(said, right)
    return (
        f"the oracle said {np.mean(said):.1f} % of {len(said)} backbones where {np.mean(right):.1f} % were measured, "
        f"root-mean-square difference {np.sqrt(np.mean(apart**2)):.1f} points"
    )


def neighbours(space: MBConvSpace) -> tuple[Backbone, ...]:
    """Of the smallest backbone every third gene's next choice up, of the largest every third gene's next one down."""
    found = []
    for end, step in ((space.smallest, 1), (space.largest, -1)):
        genome = np.asarray(space.encode(end))
        for gene in range(0, len(genome), EVERY_NTH_GENE):
            other = genome.copy()
            other[gene] += step
            if 0 <= other[gene] < len(space.variables[gene].choices):
                found.append(space.decode(other))
    return tuple(dict.fromkeys(found))


def on_the_front(truth: Truth, n: int, *, seed: int) -> list[list[int]]:
    """Genomes of up to ``n`` backbones of the front of a search that sees the truth, spread over it, not measured yet."""
    space = truth.space
    initial = [record.backbone for record in truth.oracle.measured]
    found = nested_search(space, TrueWorld(truth), SEARCH, seed, initial=initial)
    known = {backbone.arch_id for backbone in initial}
    backbones = dict.fromkeys(candidate.design.backbone for candidate in found.front)
    fresh = [backbone for backbone in backbones if backbone.arch_id not in known]
    places = np.unique(np.linspace(0, len(fresh) - 1, min(n, len(fresh))).round().astype(int))
    return [genome_of(space, fresh[i]) for i in places] if fresh else []


def genome_of(space: MBConvSpace, backbone: Backbone) -> list[int]:
    """For JSON."""
    return [int(gene) for gene in space.encode(backbone)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--supernet-seed", type=int, default=0, metavar="N", help="of its training (default: 0)"
    )
    arguments = parser.parse_args()
    with single_thread():
        found = accuracies_near_the_front(supernet_seed=arguments.supernet_seed)
        for leaf in LEAVES_COMPARED:
            oracle = AccuracyOracle(found.space, found.data, found.records, min_leaf=leaf)
            said = ", ".join(f"{name} {value:.4f}" for name, value in oracle.cross_validated().items())
            print(f"leaves of at least {leaf} of {len(found.records)} backbones: {said}")


if __name__ == "__main__":
    main()
