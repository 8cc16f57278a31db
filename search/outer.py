"""The outer engine: the nested search over backbones, exits and clocks.

Each generation: static fitness S of every new genome; a first, non-dominated selection on S
keeps P'; the inner engine finds the front of exits and clocks of every backbone in P'; the
second selection ranks backbones by their (S, D) triples; the best become parents.  The
survivors of earlier generations compete in the second selection, so nothing good is lost.
Genomes are varied by pymoo's NSGA-II (:mod:`operators`), whose survival is the second selection.

What meets the constraints comes before what does not, in both selections and in the archive.  They are judged on
expected values under the controller, which the first selection cannot know yet: it relaxes limits on costs by what
exits and clocks have been seen to save.

Every generation ends in a :class:`SearchState`, from which any process can go on (:mod:`checkpoint`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StudyError
from ..spaces import Backbone, BackboneSpace, IntArray
from .checkpoint import Checkpoint, search_digest
from .constraints import NOTHING_ATTAINED, Attained, Constraints, Extremes
from .inner import InnerFront
from .metrics import HypervolumeReference
from .objectives import Column
from .operators import GenomeNSGA2, found_of, genome_key
from .ranking import best_first, front_indices, pareto_ranks
from .settings import (
    INNER_ENGINES,
    SEARCH_PRESETS,
    InnerEngineName,
    SearchSettings,
    constraints_of,
    search_settings,
)
from .state import Candidate, Member, Reach, SearchState, front_designs, member_designs
from .tables import FloatArray, StaticFitness, SupportsTables

__all__ = [
    "INNER_ENGINES", "SEARCH_PRESETS", "STAGNATION_TOLERANCE", "Candidate", "GenerationSummary", "InnerEngineName",
    "SearchResult", "SearchSettings", "constraints_of", "front_designs", "nested_search", "search_settings",
    "static_objectives",
]  # fmt: skip

STAGNATION_TOLERANCE = 1e-3
"""A generation that raises the hypervolume by a smaller share than this gains nothing."""


@dataclass(frozen=True)
class GenerationSummary:
    """Progress after one generation.

    Attributes:
        generation: 0-based.
        n_static, n_inner: cumulative static and inner evaluations.
        hypervolume: of the archive, to the search's own reference.
        front: the archive's objectives, (q, m).
    """

    generation: int
    n_static: int
    n_inner: int
    hypervolume: float
    front: FloatArray


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        front: archive of (b*, x*, f*), non-dominated in the dynamic objectives, no duplicates.
        population: parents after the last generation, best first.
        candidates: inner fronts of those parents, the pool that measurements are chosen from.
        history: archive hypervolume after each generation; shorter than asked for if it stagnated.
        columns: the objectives.
        reference: what hypervolumes are measured to.
        n_static, n_inner: evaluations of S and of D.
    """

    front: tuple[Candidate, ...]
    population: tuple[Backbone, ...]
    candidates: tuple[Candidate, ...]
    history: tuple[float, ...]
    columns: tuple[Column, ...]
    reference: HypervolumeReference
    n_static: int
    n_inner: int


def static_objectives(static: StaticFitness) -> FloatArray:
    """(k, 3) or, without energy, (k, 2): error, energy in mJ, latency in ms; minimised."""
    columns = [1.0 - static.accuracy, static.energy_mj, static.latency_ms]
    if np.isnan(static.energy_mj).any():
        del columns[1]
    return np.stack(columns, axis=1)


def first_selection(static: StaticFitness, constraints: Constraints, reach: Reach, n: int) -> IntArray:
    """Up to ``n`` of k backbones that the inner engine looks at: least hopeless first, then by rank and crowding.

    Exits hardly raise accuracy, so that is judged as it is; costs are judged at the least share of the
    static cost that exits and clocks have brought any backbone to, and not at all before that is known.
    """
    violation = constraints.violation(
        static.accuracy, static.energy_mj * reach.energy_ratio, static.latency_ms * reach.latency_ratio, 0
    )
    order = best_first(static_objectives(static))
    return order[np.argsort(violation[order], kind="stable")][:n]


def second_selection(pool: Sequence[Member], reference: HypervolumeReference) -> IntArray:
    """Order of the pool: rank of the best (S, D) triple, ties by exclusive hypervolume.

    The exclusive hypervolume is what the archive of the pool would lose in D without the
    backbone; a backbone that is best in S alone thus ranks first but yields in a tie.
    Backbones on which nothing meets the constraints follow, by how far they miss them.
    """
    owner = np.repeat(np.arange(len(pool)), [len(m.inner.objectives) for m in pool])
    dynamic = np.concatenate([m.inner.objectives for m in pool])
    triples = np.concatenate([np.stack([m.static for m in pool])[owner], dynamic], axis=1)
    violation = np.array([m.violation for m in pool])
    # Those that meet the constraints are ranked among themselves.
    ranks = np.zeros(len(owner), dtype=np.int64)
    dynamic_ranks = np.zeros_like(ranks)
    for group in (violation[owner] == 0, violation[owner] > 0):
        ranks[group], dynamic_ranks[group] = pareto_ranks(triples[group]), pareto_ranks(dynamic[group])
    best_rank = np.array([ranks[owner == i].min() for i in range(len(pool))])
    # Most backbones own no volume of their own; among those, nearness to the front in D decides.
    nearness = np.array([dynamic_ranks[owner == i].min() for i in range(len(pool))])
    exclusive = _exclusive_hypervolumes(dynamic, owner, len(pool), reference)
    return np.lexsort((nearness, -exclusive, best_rank, violation)).astype(np.int64)


def _exclusive_hypervolumes(
    points: FloatArray, owner: IntArray, n: int, reference: HypervolumeReference
) -> FloatArray:
    """(n,) hypervolume that only the points of each owner dominate."""
    transformed = reference.transform(points)
    whole = reference.transformed_hypervolume(transformed)
    return np.array([whole - reference.transformed_hypervolume(transformed[owner != i]) for i in range(n)])


class _Nested:
    """One nested search: what stays the same, and the state after the latest generation."""

    def __init__(
        self, space: BackboneSpace, world: SupportsTables, settings: SearchSettings, seed: int,
        initial: Sequence[Backbone], reference: HypervolumeReference | None, known: SearchState | None,
    ) -> None:  # fmt: skip
        self.space, self.world, self.settings, self.seed = space, world, settings, seed
        self.objective, self.inner = settings.make_objective(), settings.make_inner()
        known_good = [space.encode(backbone) for backbone in initial]
        self.initial = {genome_key(genome) for genome in known_good}
        self.genomes = GenomeNSGA2(
            space, self._order, n_parents=settings.survivors, population=settings.population, seed=seed,
            initial=known_good,
        )  # fmt: skip
        none_seen = np.zeros((0, len(space.variables)), dtype=np.int64)
        self.state = known or SearchState(0, none_seen, reference=reference)
        if known is not None:
            parents = np.array([member.genome for member in known.parents])
            self.genomes.resume(known.seen, parents, known.parents)

    def _order(self, population: Any) -> IntArray:
        members: list[Member] = found_of(population)
        return second_selection(members, self._selection_reference(members))

    def _selection_reference(self, members: Sequence[Member]) -> HypervolumeReference:
        """The search's own; before anything met the constraints, one of what there is."""
        if self.state.reference is not None:
            return self.state.reference
        points = np.concatenate([member.inner.objectives for member in members])
        return HypervolumeReference.from_front(points, self.state.columns)

    @property
    def finished(self) -> bool:
        """Whether the budget is spent, or nothing has been gained for too long."""
        state, patience = self.state, self.settings.stagnation
        if state.n_generations >= self.settings.generations:
            return True
        if not patience or len(state.history) <= patience:
            return False
        now, before = state.history[-1], state.history[-1 - patience]
        return before > 0.0 and now - before < STAGNATION_TOLERANCE * before

    def generation(self) -> bool:
        """Evaluate new genomes, select twice, update the archive; False if the space has no more."""
        genomes = self.genomes.ask(self.state.n_generations)
        if not len(genomes):
            return False
        settings, state = self.settings, self.state
        backbones = [self.space.decode(genome) for genome in genomes]
        static = self.world.static(backbones)
        order = first_selection(static, settings.constraints, state.reach, len(genomes))
        given = self._given(genomes)
        n_chosen = max(settings.survivors, int(given.sum()))
        chosen = order[np.argsort(~given[order], kind="stable")][:n_chosen]
        fronts, has_energy = self._inner_fronts([backbones[i] for i in chosen])
        points = static_objectives(static)
        members = [
            Member(genomes[i], backbones[i], points[i], front)
            for i, front in zip(chosen, fronts, strict=True)
        ]
        reach = state.reach
        if settings.constraints.any:
            reach = _further(reach, members)
        self.state = replace(
            state,
            n_generations=state.n_generations + 1,
            seen=np.concatenate([state.seen, genomes]),
            columns=self.objective.columns(has_energy),
            n_static=state.n_static + len(backbones),
            n_inner=state.n_inner + sum(front.n_evaluated for front in fronts),
            reach=reach,
        )
        self._archive(members)
        self.genomes.tell(genomes[chosen], members)
        self.state = replace(self.state, parents=tuple(found_of(self.genomes.parents)))
        return True

    def _inner_fronts(self, backbones: Sequence[Backbone]) -> tuple[list[InnerFront], bool]:
        """Front of every backbone, and whether there is energy; tables of as many at a time as survive."""
        settings, fronts, has_energy = self.settings, list[InnerFront](), False
        for start in range(0, len(backbones), settings.survivors):
            tables = self.world.tables(backbones[start : start + settings.survivors])
            has_energy = tables.has_energy
            fronts += self.inner.run(tables, self.objective, self.seed, settings.constraints)
        return fronts, has_energy

    def _given(self, genomes: IntArray) -> NDArray[np.bool_]:
        """(n,) whether the caller named the genome to begin with; static fitness alone must not part with those."""
        return np.array([genome_key(genome) in self.initial for genome in genomes], dtype=bool)

    def _archive(self, members: Sequence[Member]) -> None:
        state = self.state
        candidates = [*state.archive, *member_designs(self.space, self.world.clock_table, members)]
        violation = np.array([candidate.violation for candidate in candidates])
        least = np.flatnonzero(violation == violation.min())
        points = np.array([candidates[i].objectives for i in least])
        reference, hypervolume = state.reference, 0.0
        if violation.min() == 0.0:
            if reference is None:
                reference = HypervolumeReference.from_front(points, state.columns)
            hypervolume = reference.hypervolume(points)
        self.state = replace(
            state,
            archive=tuple(candidates[least[i]] for i in front_indices(points)),
            history=(*state.history, hypervolume),
            reference=reference,
        )

    def summary(self) -> GenerationSummary:
        """Where the search stands."""
        state = self.state
        front = np.array([candidate.objectives for candidate in state.archive])
        return GenerationSummary(
            state.n_generations - 1, state.n_static, state.n_inner, state.history[-1], front
        )

    def result(self, measured: Attained) -> SearchResult:
        """What was found; ``measured`` enters the verdict if nothing met the constraints.

        Raises:
            StudyError: nothing could be evaluated.
            InfeasibleError: nothing met the constraints.
        """
        state = self.state
        if not state.archive:
            raise StudyError("the search evaluated nothing: the space offers no backbone")
        if state.reference is None or state.archive[0].violation > 0.0:
            raise self.settings.constraints.infeasible(state.reach.best, measured)
        return SearchResult(
            front=tuple(sorted(state.archive, key=lambda c: c.objectives)),
            population=tuple(member.backbone for member in state.parents),
            candidates=tuple(member_designs(self.space, self.world.clock_table, state.parents)),
            history=state.history,
            columns=state.columns,
            reference=state.reference,
            n_static=state.n_static,
            n_inner=state.n_inner,
        )


def _further(reach: Reach, members: Sequence[Member]) -> Reach:
    """What constraints are judged by, after some more backbones."""
    found = [(member.inner.extremes, member.static) for member in members]
    energy = [best.energy_mj / float(static[1]) for best, static in found]
    latency = [best.latency_ms / float(static[-1]) for best, static in found]
    return Reach(
        Extremes.merged([reach.best, *(best for best, _ in found)]),
        _least_known(reach.energy_ratio, energy),
        _least_known(reach.latency_ratio, latency),
    )


def _least_known(known: float, ratios: Sequence[float]) -> float:
    """The least of what is known; 0, which says nothing, where nothing is."""
    least = min((ratio for ratio in (known or np.nan, *ratios) if not np.isnan(ratio)), default=0.0)
    return float(least)


def nested_search(
    space: BackboneSpace,
    world: SupportsTables,
    settings: SearchSettings,
    seed: int,
    *,
    on_generation: Callable[[GenerationSummary], None] | None = None,
    initial: Sequence[Backbone] | None = None,
    reference: HypervolumeReference | None = None,
    checkpoint: Path | None = None,
    measured: Attained = NOTHING_ATTAINED,
) -> SearchResult:
    """Search backbones, exits and clocks together.

    Args:
        space: where backbones come from.
        world: measured or predicted tables.
        settings: budget, objective and constraints.
        seed: fixes the result.
        on_generation: called after every generation; generations of a resumed search that were done before
            are not reported again.
        initial: backbones of the first generation, random ones fill it up to the population.  The inner engine looks
            at all of these, whatever their static fitness, by which the others are chosen: what is measured already,
            maybe with exits and clocks that are not its best, is known best.
        reference: hypervolume reference; by default frozen from the first front that meets the constraints.
        checkpoint: file that the state goes to after every generation.  If it is there, the search goes on
            from it, to the same result as in one go.
        measured: what measured designs attain; it changes nothing but the words of an :class:`InfeasibleError`.

    Raises:
        StudyError: a search in which nothing could be evaluated, or a checkpoint of another search.
        InfeasibleError: nothing that was found meets the constraints; names them and the best found.
    """
    kept, known = None, None
    if checkpoint is not None:
        digest = search_digest(space, world, settings, seed, initial or (), reference)
        kept = Checkpoint(checkpoint, digest, space, world.clock_table)
        known = kept.load()
    search = _Nested(space, world, settings, seed, initial or (), reference, known)
    while not search.finished and search.generation():
        if kept is not None:
            kept.save(search.state)
        if on_generation is not None:
            on_generation(search.summary())
    return search.result(measured)
