"""pymoo's NSGA-II over genomes, with operators that know their space.

A genome is an array of choice indices; the choices of a gene ascend, so a neighbouring index is a small change.
Genes of one stage (its width, depth, kernel and expansion) were found to be good together, so crossover
takes a stage from one parent as a whole.  Nobody is asked about twice: duplicates are told by genome,
among everything seen, not by distance.

Shapes: n genomes, q parents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mating import Mating
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling
from pymoo.core.survival import Survival
from pymoo.core.termination import NoTermination
from pymoo.operators.selection.tournament import TournamentSelection

from ..spaces import IntArray, Variable

CROSSOVER_PROBABILITY = 0.9
N_MUTATED = 1.5
"""Genes that a child changes on average."""

MATING_ROUNDS = 10
"""Rounds of mating that may fall short of new genomes before random ones fill the rest."""

_RANDOM_ROUNDS = 20


class GenomeSpace(Protocol):
    """What variation needs to know of a space: its genes, and how to draw from it."""

    @property
    def name(self) -> str: ...
    @property
    def variables(self) -> tuple[Variable, ...]: ...
    def sample(self, n: int, rng: np.random.Generator) -> IntArray: ...


def genome_key(genome: IntArray) -> bytes:
    """Identity of a genome."""
    return np.asarray(genome, dtype=np.int64).tobytes()


def random_genomes(
    space: GenomeSpace, n: int, rng: np.random.Generator, seen: AbstractSet[bytes]
) -> IntArray:
    """Up to ``n`` distinct random genomes that are not in ``seen``; (n', n_genes), fewer in a space used up."""
    known = set(seen)
    rows: list[IntArray] = []
    for _ in range(_RANDOM_ROUNDS):
        for genome in space.sample(2 * (n - len(rows)), rng):
            key = genome_key(genome)
            if key not in known and len(rows) < n:
                known.add(key)
                rows.append(genome)
        if len(rows) >= n:
            break
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(space.variables))


def stage_groups(space: GenomeSpace) -> IntArray:
    """(n_genes,) which group each gene belongs to: genes named after the same stage (``depth.mb3``,
    ``width.mb3``) share one, every other gene is its own."""
    labels = [variable.name.rpartition(".")[2] for variable in space.variables]
    first = {label: i for i, label in reversed(list(enumerate(labels)))}
    return np.array([first[label] for label in labels], dtype=np.int64)


class GenomeProblem(Problem):  # type: ignore[misc]
    """Bounds of the genes; values are told, not computed (ask and tell)."""

    def __init__(self, space: GenomeSpace) -> None:
        upper = np.array([len(variable.choices) - 1 for variable in space.variables])
        super().__init__(n_var=len(upper), n_obj=1, xl=np.zeros(len(upper), int), xu=upper, vtype=int)


class FirstGenomes(Sampling):  # type: ignore[misc]
    """Given genomes, then distinct random ones up to the population."""

    def __init__(self, space: GenomeSpace, initial: Sequence[IntArray] = ()) -> None:
        super().__init__()
        self._space, self._initial = space, initial

    def _do(
        self, problem: Problem, n_samples: int, *_: Any, random_state: np.random.Generator, **__: Any
    ) -> IntArray:
        given = {genome_key(genome): genome for genome in self._initial}
        known = np.array(list(given.values()), dtype=np.int64).reshape(len(given), problem.n_var)
        seen = {genome_key(genome) for genome in known}
        missing = max(0, n_samples - len(known))
        return np.concatenate([known, random_genomes(self._space, missing, random_state, seen)])


class StageCrossover(Crossover):  # type: ignore[misc]
    """Uniform crossover of whole stages; one child per pair."""

    def __init__(self, space: GenomeSpace) -> None:
        super().__init__(n_parents=2, n_offsprings=1, prob=CROSSOVER_PROBABILITY)
        self._groups = stage_groups(space)

    def _do(
        self, _: Problem, X: NDArray[Any], *__: Any, random_state: np.random.Generator, **___: Any
    ) -> IntArray:
        n_genes = X.shape[2]
        from_second = (random_state.random((X.shape[1], n_genes)) < 0.5)[:, self._groups]
        return np.asarray(np.where(from_second, X[1], X[0])[None], dtype=np.int64)


class NeighbourMutation(Mutation):  # type: ignore[misc]
    """Each gene that mutates steps to a neighbouring choice or, as often, is drawn afresh."""

    def _do(
        self, problem: Problem, X: NDArray[Any], *_: Any, random_state: np.random.Generator, **__: Any
    ) -> IntArray:
        genomes = X.astype(np.int64)
        shape, upper = genomes.shape, problem.xu.astype(np.int64)
        mutates = random_state.random(shape) < N_MUTATED / shape[1]
        step = np.clip(genomes + np.where(random_state.random(shape) < 0.5, -1, 1), 0, upper)
        fresh = random_state.integers(0, upper + 1, shape)
        return np.where(mutates, np.where(random_state.random(shape) < 0.5, step, fresh), genomes)


class UnseenGenomes(DuplicateElimination):  # type: ignore[misc]
    """Drops genomes that were proposed before, ever."""

    def __init__(self, seen: set[bytes]) -> None:
        super().__init__()
        self._seen = seen

    def _do(self, pop: Population, other: Population | None, is_duplicate: NDArray[np.bool_]) -> Any:
        known = set(self._seen) if other is None else {genome_key(ind.X) for ind in other}
        for i, individual in enumerate(pop):
            key = genome_key(individual.X)
            is_duplicate[i] = key in known
            if other is None:
                known.add(key)
        return is_duplicate


def _better_placed(_: Population, pairs: IntArray, **__: Any) -> IntArray:
    """Binary tournament in a population that is in order of merit: the smaller place wins."""
    return np.asarray(pairs.min(axis=1, keepdims=True), dtype=np.int64)


class InOrder(Survival):  # type: ignore[misc]
    """Keeps the first of an order of merit.

    Args:
        order: (n,) indices of a population, best first.
        n_parents: how many survive.
    """

    def __init__(self, order: Callable[[Population], IntArray], n_parents: int) -> None:
        super().__init__(filter_infeasible=False)
        self._order, self._n_parents = order, n_parents

    def _do(self, _: Problem, pop: Population, *__: Any, **___: Any) -> Population:
        survivors = pop[self._order(pop)[: self._n_parents]]
        survivors.set("rank", np.arange(len(survivors)))
        return survivors


class GenomeNSGA2:
    """Ask and tell: pymoo's NSGA-II on genomes, parents chosen by a given order of merit.

    The random stream of a generation derives from (seed, generation), so that a search can go on
    from any generation without the state of a generator.
    """

    def __init__(
        self, space: GenomeSpace, order: Callable[[Population], IntArray], *, n_parents: int,
        population: int, seed: int, initial: Sequence[IntArray] = (),
    ) -> None:  # fmt: skip
        """Args:
        order: of parents and children (n individuals), best first, from what they were told with.
        n_parents: how many of them become parents.
        population: genomes per generation; ``initial`` ones may make the first larger.
        """
        self._space, self._seed, self._population = space, seed, population
        self.seen: set[bytes] = set()
        unseen = UnseenGenomes(self.seen)
        mating = Mating(
            TournamentSelection(func_comp=_better_placed), StageCrossover(space), NeighbourMutation(),
            eliminate_duplicates=unseen, n_max_iterations=MATING_ROUNDS,
        )  # fmt: skip
        self._algorithm = NSGA2(
            pop_size=population, sampling=FirstGenomes(space, initial), mating=mating,
            survival=InOrder(order, n_parents), eliminate_duplicates=unseen,
        )  # fmt: skip
        self._algorithm.setup(GenomeProblem(space), termination=NoTermination(), seed=seed)

    def ask(self, generation: int) -> IntArray:
        """(n', n_genes) new genomes, up to the population; none once the space is used up."""
        rng = np.random.default_rng([self._seed, generation])
        self._algorithm.random_state = rng
        asked = self._algorithm.ask()
        # pymoo wants to end once mating finds nothing new; random genomes may still do.
        self._algorithm.termination.force_termination = False
        genomes = np.zeros((0, len(self._space.variables)), dtype=np.int64)
        if asked is not None and len(asked):
            genomes = asked.get("X").astype(np.int64)
        taken = self.seen | {genome_key(genome) for genome in genomes}
        rest = random_genomes(self._space, max(0, self._population - len(genomes)), rng, taken)
        genomes = np.concatenate([genomes, rest])
        self.seen.update(genome_key(genome) for genome in genomes)
        return genomes

    def tell(self, genomes: IntArray, found: Sequence[Any]) -> None:
        """Evaluated genomes (n, n_genes) compete with the parents; ``found`` is what the order looks at."""
        self._algorithm.tell(infills=_individuals(genomes, found))

    @property
    def parents(self) -> Population:
        """The present parents, best first."""
        return self._algorithm.pop

    def resume(self, seen: IntArray, parents: IntArray, found: Sequence[Any]) -> None:
        """Go on where another run stopped: it had proposed ``seen`` and chosen ``parents``, best first."""
        self.seen.update(genome_key(genome) for genome in seen)
        self._algorithm.pop = _individuals(parents, found)
        self._algorithm.n_iter, self._algorithm.is_initialized = 1, True


def _individuals(genomes: IntArray, found: Sequence[Any]) -> Population:
    individuals = Population.new("X", genomes)
    for individual, what in zip(individuals, found, strict=True):
        individual.set("found", what)
    return individuals


def found_of(population: Population) -> list[Any]:
    """What the individuals of a population were told with."""
    return [individual.get("found") for individual in population]
