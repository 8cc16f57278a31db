"""The outer engine: the nested search over backbones, exits and clocks.

Each generation: static fitness S of every new genome; a first, non-dominated selection on S
keeps P'; the inner engine finds the front of exits and clocks of every backbone in P'; the
second selection ranks backbones by their (S, D) triples; the best become parents.  The
survivors of earlier generations compete in the second selection, so nothing good is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError, StudyError
from ..spaces import Backbone, BackboneSpace, ClockTable, Exits, IntArray
from .designs import Design
from .genetics import genome_key, offspring, random_genomes
from .inner import ArrayNSGA2, Hybrid, InnerEngine, InnerFront, PymooNSGA2
from .metrics import HypervolumeReference
from .objectives import Column, Objective, objective_by_name
from .ranking import best_first, front_indices, pareto_ranks
from .tables import FloatArray, StaticFitness, SupportsTables

InnerEngineName = Literal["array", "pymoo"]
INNER_ENGINES: dict[InnerEngineName, type[ArrayNSGA2] | type[PymooNSGA2]] = {
    "array": ArrayNSGA2, "pymoo": PymooNSGA2,
}  # fmt: skip


@dataclass(frozen=True)
class SearchSettings:
    """Budget and goal of a nested search.

    Attributes:
        population: genomes per generation.
        generations: including the first, random one.
        survivors: backbones per generation that the first selection hands to the inner engine.
        inner_population, inner_generations: inner NSGA-II budget per backbone.
        inner_engine: implementation of the inner NSGA-II: ``array`` (all backbones in lockstep) or
            ``pymoo`` (one run per backbone; slower).
        exact_limit: a backbone with at most this many (exits, setting) choices (and at most 16 exit
            positions) is enumerated exhaustively instead; 0 = never.
        objective: ``expected`` or ``hadas-2d``.
        with_latency: minimise expected latency besides expected energy (``expected`` only).
        gamma: exponent of dissim (``hadas-2d`` only).
    """

    population: int = 64
    generations: int = 7
    survivors: int = 10
    inner_population: int = 10
    inner_generations: int = 5
    inner_engine: InnerEngineName = "array"
    exact_limit: int = 0
    objective: str = "expected"
    with_latency: bool = False
    gamma: float = 1.0

    def __post_init__(self) -> None:
        for name in ("population", "generations", "survivors", "inner_population", "inner_generations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search setting '{name}' = {getattr(self, name)}: must be at least 1")
        if self.survivors > self.population:
            raise ConfigError(
                f"search setting 'survivors' = {self.survivors}: at most the population, {self.population}"
            )
        if self.inner_engine not in INNER_ENGINES:
            raise ConfigError(
                f"search setting 'inner_engine' = {self.inner_engine!r}: known are {sorted(INNER_ENGINES)}"
            )
        self.make_objective()

    def make_objective(self) -> Objective:
        """The objective that the settings name."""
        return objective_by_name(self.objective, with_latency=self.with_latency, gamma=self.gamma)

    def make_inner(self) -> InnerEngine:
        """The inner engine that the settings describe."""
        engine = INNER_ENGINES[self.inner_engine]
        return Hybrid(self.exact_limit, engine(self.inner_population, self.inner_generations))


SEARCH_PRESETS: dict[str, SearchSettings] = {
    "paper": SearchSettings(),
    "thorough": SearchSettings(inner_population=70, inner_generations=50),
    "demo": SearchSettings(population=64, generations=20, survivors=16, exact_limit=5_000_000),
    "smoke": SearchSettings(
        population=12, generations=2, survivors=3, inner_population=8, inner_generations=3
    ),
}
"""``paper``: 64 x 7 genomes, 10 survivors a generation, 10 x 5 inner evaluations each (reads the
paper's 450 and 3500 evaluations as totals: an inference).  ``thorough``: 3500 inner evaluations
per surviving backbone, the other reading.  ``demo``: exhaustive inside.  ``smoke``: for tests."""


def search_settings(preset: str, overrides: dict[str, Any] | None = None) -> SearchSettings:
    """A preset with some fields replaced.

    Raises:
        ConfigError: no such preset, field, or value.
    """
    if preset not in SEARCH_PRESETS:
        raise ConfigError(f"no search preset '{preset}'; known: {sorted(SEARCH_PRESETS)}")
    types = {field.name: type(field.default) for field in fields(SearchSettings)}
    checked: dict[str, Any] = {}
    for name, value in (overrides or {}).items():
        if name not in types:
            raise ConfigError(f"search setting '{name}' does not exist; known: {sorted(types)}")
        wanted = types[name]
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise ConfigError(f"search setting '{name}' = {value!r}: must be of type {wanted.__name__}")
        checked[name] = value
    return replace(SEARCH_PRESETS[preset], **checked)


@dataclass(frozen=True)
class Candidate:
    """A design and what the search believes of it: (m,) objectives, minimised."""

    design: Design
    objectives: tuple[float, ...]


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
        history: archive hypervolume after each generation.
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


def front_designs(
    space: BackboneSpace, clock_table: ClockTable, backbone: Backbone, front: InnerFront
) -> list[Candidate]:
    """An inner front as designs."""
    n_positions = backbone.n_blocks - space.first_exit
    return [
        Candidate(
            Design(
                backbone,
                Exits(space.first_exit, tuple(int(bit) for bit in mask[:n_positions])),
                clock_table.settings[int(setting)],
            ),
            tuple(float(v) for v in point),
        )
        for mask, setting, point in zip(front.masks, front.settings, front.objectives, strict=True)
    ]


def static_objectives(static: StaticFitness) -> FloatArray:
    """(k, 3) or, without energy, (k, 2): error, energy in mJ, latency in ms; minimised."""
    columns = [1.0 - static.accuracy, static.energy_mj, static.latency_ms]
    if np.isnan(static.energy_mj).any():
        del columns[1]
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class _Member:
    """A backbone that reached the inner engine."""

    genome: IntArray
    backbone: Backbone
    static: FloatArray
    inner: InnerFront


class _Nested:
    """State of one nested search."""

    def __init__(
        self,
        space: BackboneSpace,
        world: SupportsTables,
        settings: SearchSettings,
        seed: int,
        reference: HypervolumeReference | None,
    ) -> None:
        self.space, self.world, self.settings, self.seed = space, world, settings, seed
        self.objective, self.inner = settings.make_objective(), settings.make_inner()
        self.rng = np.random.default_rng(seed)
        self.reference = reference
        self.columns: tuple[Column, ...] = ()
        self.seen: set[bytes] = set()
        self.parents: list[_Member] = []
        self.archive: list[Candidate] = []
        self.history: list[float] = []
        self.n_static = self.n_inner = 0

    def generation(self, genomes: IntArray) -> None:
        """Evaluate genomes, select twice, update the archive and the parents."""
        self.seen.update(genome_key(genome) for genome in genomes)
        backbones = [self.space.decode(genome) for genome in genomes]
        static = static_objectives(self.world.static(backbones))
        self.n_static += len(backbones)
        chosen = best_first(static)[: self.settings.survivors]
        tables = self.world.tables([backbones[i] for i in chosen])
        self.columns = self.objective.columns(tables.has_energy)
        fronts = self.inner.run(tables, self.objective, self.seed)
        self.n_inner += sum(front.n_evaluated for front in fronts)
        members = [
            _Member(genomes[i], backbones[i], static[i], front)
            for i, front in zip(chosen, fronts, strict=True)
        ]
        self._archive(members)
        pool = self.parents + members
        self.parents = [pool[i] for i in self._second_selection(pool)[: self.settings.survivors]]

    def _archive(self, members: Sequence[_Member]) -> None:
        candidates = self.archive + [c for member in members for c in self.designs(member)]
        points = np.array([candidate.objectives for candidate in candidates])
        self.archive = [candidates[i] for i in front_indices(points)]
        if self.reference is None:
            self.reference = HypervolumeReference.from_front(points, self.columns)
        self.history.append(self.reference.hypervolume(points))

    def designs(self, member: _Member) -> list[Candidate]:
        """The inner front of a member as designs."""
        return front_designs(self.space, self.world.clock_table, member.backbone, member.inner)

    def _second_selection(self, pool: Sequence[_Member]) -> IntArray:
        """Order of the pool: rank of the best (S, D) triple, ties by exclusive hypervolume.

        The exclusive hypervolume is what the archive of the pool would lose in D without the
        backbone; a backbone that is best in S alone thus ranks first but yields in a tie.
        """
        assert self.reference is not None
        owner = np.repeat(np.arange(len(pool)), [len(m.inner.objectives) for m in pool])
        dynamic = np.concatenate([m.inner.objectives for m in pool])
        triples = np.concatenate([np.stack([m.static for m in pool])[owner], dynamic], axis=1)
        ranks = pareto_ranks(triples)
        best_rank = np.array([ranks[owner == i].min() for i in range(len(pool))])
        transformed = self.reference.transform(dynamic)
        whole = self.reference.transformed_hypervolume(transformed)
        exclusive = np.array(
            [
                whole - self.reference.transformed_hypervolume(transformed[owner != i])
                for i in range(len(pool))
            ]
        )
        # Most backbones own no volume of their own; among those, nearness to the front in D decides.
        dynamic_ranks = pareto_ranks(dynamic)
        nearness = np.array([dynamic_ranks[owner == i].min() for i in range(len(pool))])
        return np.lexsort((nearness, -exclusive, best_rank)).astype(np.int64)


def nested_search(
    space: BackboneSpace,
    world: SupportsTables,
    settings: SearchSettings,
    seed: int,
    *,
    on_generation: Callable[[GenerationSummary], None] | None = None,
    initial: Sequence[Backbone] | None = None,
    reference: HypervolumeReference | None = None,
) -> SearchResult:
    """Search backbones, exits and clocks together.

    Args:
        space: where backbones come from.
        world: measured or predicted tables.
        settings: budget and objective.
        seed: fixes the result.
        on_generation: called after every generation.
        initial: backbones of the first generation; random ones fill it up to the population.
        reference: hypervolume reference; by default frozen from the first generation's front.

    Raises:
        StudyError: a search in which nothing could be evaluated.
    """
    search = _Nested(space, world, settings, seed, reference)
    genomes = _first_genomes(space, settings.population, search.rng, initial or ())
    for generation in range(settings.generations):
        if generation:
            parents = np.array([member.genome for member in search.parents])
            genomes = offspring(space, parents, settings.population, search.rng, search.seen)
        if not len(genomes):
            break
        search.generation(genomes)
        if on_generation is not None:
            front = np.array([candidate.objectives for candidate in search.archive])
            on_generation(
                GenerationSummary(generation, search.n_static, search.n_inner, search.history[-1], front)
            )
    if search.reference is None:
        raise StudyError("the search evaluated nothing: the space offers no backbone")
    return SearchResult(
        front=tuple(sorted(search.archive, key=lambda c: c.objectives)),
        population=tuple(member.backbone for member in search.parents),
        candidates=tuple(c for member in search.parents for c in search.designs(member)),
        history=tuple(search.history),
        columns=search.columns,
        reference=search.reference,
        n_static=search.n_static,
        n_inner=search.n_inner,
    )


def _first_genomes(
    space: BackboneSpace, population: int, rng: np.random.Generator, initial: Sequence[Backbone]
) -> IntArray:
    given = {backbone.arch_id: space.encode(backbone) for backbone in initial}
    known = np.array(list(given.values()), dtype=np.int64).reshape(len(given), len(space.variables))
    seen = {genome_key(genome) for genome in known}
    missing = max(0, population - len(known))
    return np.concatenate([known, random_genomes(space, missing, rng, seen)])
