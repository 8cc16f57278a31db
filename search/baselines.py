"""What the nested search must beat, given the same number of measurements.

* presets optimised: the space's named backbones, exits and clocks found by the inner engine;
* backbone only: backbones found by static fitness alone, exits and clocks added afterwards;
* random: everything drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import StudyError
from ..spaces import Backbone, BackboneSpace, ClockTable, Exits
from .designs import Design
from .metrics import HypervolumeReference, greedy_subset
from .operators import GenomeNSGA2, found_of
from .outer import Candidate, SearchSettings, front_designs, static_objectives
from .ranking import best_first, front_indices
from .tables import SupportsTables


def presets_optimized(
    space: BackboneSpace, world: SupportsTables, settings: SearchSettings, n: int, seed: int
) -> tuple[Design, ...]:
    """Up to ``n`` designs on the space's presets, under the inner budget of the settings.

    Raises:
        StudyError: the space names no preset.
    """
    if not space.presets:
        raise StudyError(f"space '{space.name}' names no preset to optimise")
    return _with_exits_and_clocks(space, world, settings, list(space.presets.values()), n, seed)


def backbone_only(
    space: BackboneSpace, world: SupportsTables, settings: SearchSettings, n: int, seed: int, *,
    initial: Sequence[Backbone] = (),
) -> tuple[Design, ...]:  # fmt: skip
    """Up to ``n`` designs: NSGA-II on static fitness, then exits and clocks on its best backbones.

    Spends the outer budget of the settings (population x generations static evaluations) and
    the inner budget on as many backbones as one generation's survivors.

    Args:
        initial: backbones of the first generation; random ones fill it up to the population.
    """
    genomes = GenomeNSGA2(
        space, lambda population: best_first(np.stack(found_of(population))), n_parents=settings.population,
        population=settings.population, seed=seed, initial=[space.encode(backbone) for backbone in initial],
    )  # fmt: skip
    for generation in range(settings.generations):
        asked = genomes.ask(generation)
        if not len(asked):
            break
        genomes.tell(asked, list(static_objectives(world.static([space.decode(genome) for genome in asked]))))
    backbones = [space.decode(genome) for genome in genomes.parents[: settings.survivors].get("X")]
    return _with_exits_and_clocks(space, world, settings, backbones, n, seed)


def random_designs(space: BackboneSpace, clock_table: ClockTable, n: int, seed: int) -> tuple[Design, ...]:
    """``n`` designs drawn at random: backbone uniformly, number of exits uniformly, clocks uniformly."""
    rng = np.random.default_rng(seed)
    designs = []
    for genome in space.sample(n, rng):
        backbone = space.decode(genome)
        n_positions = backbone.n_blocks - space.first_exit
        types = np.zeros(n_positions, dtype=np.int64)
        types[rng.permutation(n_positions)[: rng.integers(0, n_positions + 1)]] = 1
        setting = clock_table.settings[int(rng.integers(len(clock_table.settings)))]
        designs.append(Design(backbone, Exits(space.first_exit, tuple(int(t) for t in types)), setting))
    return tuple(designs)


def _with_exits_and_clocks(
    space: BackboneSpace,
    world: SupportsTables,
    settings: SearchSettings,
    backbones: Sequence[Backbone],
    n: int,
    seed: int,
) -> tuple[Design, ...]:
    objective = settings.make_objective()
    tables = world.tables(backbones)
    fronts = settings.make_inner().run(tables, objective, seed, settings.constraints)
    candidates = [
        candidate
        for backbone, front in zip(backbones, fronts, strict=True)
        for candidate in front_designs(space, world.clock_table, backbone, front)
    ]
    points = np.array([candidate.objectives for candidate in candidates])
    reference = HypervolumeReference.from_front(points, objective.columns(tables.has_energy))
    return tuple(candidate.design for candidate in spread_candidates(candidates, n, reference))


def spread_candidates(
    candidates: Sequence[Candidate], n: int, reference: HypervolumeReference
) -> list[Candidate]:
    """Up to ``n`` candidates that together dominate most, then the least crowded of the rest."""
    points = np.array([candidate.objectives for candidate in candidates])
    front = front_indices(points)
    chosen = [int(front[i]) for i in greedy_subset(points[front], n, reference)]
    rest = [int(i) for i in best_first(reference.transform(points)) if int(i) not in chosen]
    return [candidates[i] for i in [*chosen, *rest][:n]]
