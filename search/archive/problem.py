"""What the archive loop is told: a problem, what is believed of it, and how much to spend.

The loop knows genomes and numbers only.  A problem says what they mean: it evaluates genomes, fits beliefs to what was
evaluated, and prices what was not.

Every objective is minimised.  A limit is judged by its *excess*: by how much it is missed, relative to the limit (0.02
= by 2 % of it), at most 0 where it is met; the violation of a design is the sum of what it misses.

Shapes: n genomes, m objectives, c limits, s draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from ...errors import StudyError
from ...spaces import IntArray
from ..lazy_greedy import BoolArray, Prices
from ..objectives import Column
from ..strategies import strategy_by_name
from ..tables import FloatArray


@dataclass(frozen=True)
class Judgement:
    """Objectives and limits of n genomes, once or once per draw.

    Attributes:
        points: (..., n, m) objectives, minimised, natural scale.
        excess: (..., n, c) by how much each limit is missed; ``None`` = no limits.
    """

    points: FloatArray
    excess: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.excess is not None and self.excess.shape[:-1] != self.points.shape[:-1]:
            raise StudyError(
                f"excess of shape {self.excess.shape} does not fit objectives of shape {self.points.shape}"
            )

    @property
    def violation(self) -> FloatArray:
        """(..., n) sum of what is missed; 0 = feasible."""
        if self.excess is None:
            return np.zeros(self.points.shape[:-1])
        # Limit by limit, so that rounding depends on nothing but the values.
        missed = np.maximum(np.moveaxis(self.excess, -1, 0), 0.0)
        return np.asarray(sum(missed, np.zeros(self.points.shape[:-1])))

    @property
    def feasible(self) -> BoolArray:
        """(..., n) whether every limit is met."""
        return np.asarray(self.violation <= 0.0)

    def draw(self, i: int, which: slice) -> Judgement:
        """Draw ``i`` of some of the genomes."""
        return Judgement(self.points[i, which], None if self.excess is None else self.excess[i, which])


class Beliefs(Protocol):
    """What is believed of any genome, after some were evaluated."""

    def mean(self, genomes: IntArray) -> Judgement:
        """Expected objectives and limits of (n, n_genes) genomes: (n, m) and (n, c)."""
        ...

    def draws(self, genomes: IntArray, n_draws: int, seed: int) -> Judgement:
        """Joint draws of (n, n_genes) genomes: (s, n, m) and (s, n, c).

        Draw i of a seed is a function of the genome: the same value in whatever company it is asked for.
        """
        ...


@runtime_checkable
class KnowsNoise(Protocol):
    """Beliefs that know, too, by how much an evaluation misses what it is of."""

    def outcomes(self, genomes: IntArray, n_draws: int, seed: int) -> Judgement:
        """Draws of what evaluating (n, n_genes) genomes would find, chance of the evaluation included."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """What evaluating a genome found.

    Attributes:
        genome: choice indices.
        points: the m objectives; empty if it failed.
        excess: by how much each of the c limits is missed; empty if it failed, or without limits.
        reason: why it failed; empty if it did not.
    """

    genome: tuple[int, ...]
    points: tuple[float, ...] = ()
    excess: tuple[float, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.reason and not (self.points and all(map(math.isfinite, (*self.points, *self.excess)))):
            raise StudyError(
                f"evaluation of genome {self.genome}: objectives {self.points} and limits {self.excess} must be "
                "finite numbers; an evaluation that failed says why in 'reason'"
            )

    @property
    def failed(self) -> bool:
        """Whether there is nothing but a reason."""
        return bool(self.reason)

    @property
    def violation(self) -> float:
        """Sum of what is missed of the limits; 0 = feasible, infinite if it failed."""
        return math.inf if self.failed else float(sum(max(part, 0.0) for part in self.excess))

    @property
    def feasible(self) -> bool:
        """Whether it was evaluated and meets all limits."""
        return self.violation <= 0.0


class ArchiveProblem(Protocol):
    """What the loop asks of a problem."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The m objectives: names with units, and which are compared on a log scale."""
        ...

    @property
    def limits(self) -> tuple[str, ...]:
        """The c limits in words, such as ``accuracy at least 0.85``; empty = none."""
        ...

    def evaluate(self, genomes: IntArray) -> Iterator[Evaluation]:
        """Evaluate (n, n_genes) distinct genomes, each once, in any order.

        What was found is the problem's to keep: a search that is started again asks for the same genomes, and
        goes on where it was as fast as it gets known answers.
        """
        ...

    def fit(self, evaluations: Sequence[Evaluation]) -> Beliefs:
        """Beliefs from all evaluations that did not fail, in the order that they were asked for."""
        ...

    def prices(self, genomes: IntArray) -> Prices:
        """What evaluating each of (n, n_genes) genomes would cost; ``Prices.equal(n)`` if all cost the same."""
        ...


@dataclass(frozen=True)
class ArchiveSettings:
    """How much to spend, and how to choose.

    Attributes:
        seeds: genomes evaluated before anything is believed, those that the caller names included.
        rounds: rounds after the seeds; fewer if stopped.
        batch: genomes evaluated per round.
        population, generations: of every search on beliefs.  A space of no more than their product is not
            searched but looked through.
        searched_draws: searches on joint draws, beside the one on the mean; each sees one plausible world.
        pool: candidates that a batch is chosen from, shared evenly among the searches.
        draws: joint draws that the candidates are weighed by.
        information_share: share of a batch chosen for what it tells; of strategy ``hvi`` only.
        strategy: how a batch is chosen from the pool (:data:`hadas.search.strategies.STRATEGIES`).
        stop_gain, stop_rounds: as in :class:`hadas.search.stopping.StoppingRule`; a gain of 0 = never stop early.
    """

    seeds: int = 12
    rounds: int = 8
    batch: int = 4
    population: int = 64
    generations: int = 20
    searched_draws: int = 4
    pool: int = 240
    draws: int = 64
    information_share: float = 0.25
    strategy: str = "hvi"
    stop_gain: float = 0.001
    stop_rounds: int = 2

    def __post_init__(self) -> None:
        least = {"seeds": 2, "rounds": 0, "batch": 1, "population": 4, "generations": 1, "searched_draws": 0}
        for name, bound in {**least, "pool": 1, "draws": 2}.items():
            if getattr(self, name) < bound:
                raise StudyError(f"archive search '{name}' = {getattr(self, name)}: must be at least {bound}")
        if not 0.0 <= self.information_share <= 1.0:
            raise StudyError(f"information_share = {self.information_share}: must lie between 0 and 1")
        strategy_by_name(self.strategy)
