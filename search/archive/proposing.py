"""What to evaluate next: candidates from searches on beliefs, and a batch of them.

Until something is known that meets all limits, a batch is chosen to find such a thing; from then on by the strategy of
the settings (:mod:`hadas.search.strategies`), as expected hypervolume improvement per cost.

Shapes: s draws, n candidates, m objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from ...errors import StudyError
from ...spaces import IntArray
from ...surrogates.threads import single_thread
from ..batch import choose_batch
from ..lazy_greedy import Choice
from ..metrics import HypervolumeReference
from ..operators import GenomeSpace, genome_key
from ..ranking import best_first
from ..strategies import BatchProblem, priced, strategy_by_name
from ..tables import FloatArray
from .problem import ArchiveProblem, ArchiveSettings, Beliefs, Evaluation, KnowsNoise
from .searching import opinions
from .seeds import derived_seed

N_OUTCOMES = 512
"""Draws behind the interval of each proposal."""


@dataclass(frozen=True)
class Proposal:
    """One genome to evaluate, and what was believed of it before it was.

    Attributes:
        genome: choice indices.
        why: ``improvement``, ``information``, ``feasibility`` (the likeliest to meet limits that nothing meets
            yet), or the name of another strategy.
        expected_gain: expected hypervolume that it adds, given the proposals before it.
        probability_of_gain: share of draws in which it improves the front.
        probability_feasible: share of draws in which it meets all limits.
        mean: (m,) expected objectives.
        low_90, median, high_90: (m,) quantiles of what evaluating it was expected to find; of beliefs that know
            no noise (:class:`.problem.KnowsNoise`), of the objectives themselves.
    """

    genome: tuple[int, ...]
    why: str
    expected_gain: float
    probability_of_gain: float
    probability_feasible: float
    mean: tuple[float, ...]
    low_90: tuple[float, ...]
    median: tuple[float, ...]
    high_90: tuple[float, ...]


@dataclass(frozen=True)
class Proposals:
    """A batch in the order chosen.

    Attributes:
        chosen: fewer than asked for only if no more is left in the space.
        n_pool: candidates that it was chosen from.
    """

    chosen: tuple[Proposal, ...]
    n_pool: int

    @property
    def expected_gain(self) -> float:
        """Expected hypervolume that the whole batch adds."""
        return sum(proposal.expected_gain for proposal in self.chosen)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            StudyError: a field is missing, or one that is not known.
        """
        try:
            chosen = []
            for one in document["chosen"]:
                fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in one.items()}
                chosen.append(Proposal(**fields))
            return cls(tuple(chosen), document["n_pool"])
        except (KeyError, TypeError, AttributeError) as error:
            raise StudyError(f"a stored plan of an archive search is not whole: {error}") from error


def propose(
    space: GenomeSpace,
    problem: ArchiveProblem,
    evaluations: Sequence[Evaluation],
    reference: HypervolumeReference,
    settings: ArchiveSettings,
    seed: int,
) -> Proposals:
    """Choose ``settings.batch`` genomes that are not evaluated.

    Args:
        evaluations: all that were made, failed ones included; these are not proposed again.
        reference: what hypervolume is measured to.
        seed: fixes the choice, together with the evaluations.
    """
    valid = [evaluation for evaluation in evaluations if not evaluation.failed]
    known = {genome_key(np.array(evaluation.genome)) for evaluation in evaluations}
    beliefs = problem.fit(valid)
    with single_thread():
        found = opinions(
            space, beliefs, reference, settings, seed, best_evaluated(valid, settings.population // 2)
        )
        quota = -(-settings.pool // len(found))
        best = {genome_key(genome): genome for opinion in found for genome in opinion.best(quota, known)}
        if not best:
            return Proposals((), 0)
        return _batch(problem, beliefs, np.array(list(best.values())), valid, reference, settings, seed)


def best_evaluated(valid: Sequence[Evaluation], n: int) -> list[IntArray]:
    """Up to ``n`` genomes that were evaluated, those on the front first."""
    order = best_first(np.array([e.points for e in valid]), np.array([e.violation for e in valid]))
    return [np.array(valid[i].genome, dtype=np.int64) for i in order[:n]]


def _batch(
    problem: ArchiveProblem, beliefs: Beliefs, pool: IntArray, valid: Sequence[Evaluation],
    reference: HypervolumeReference, settings: ArchiveSettings, seed: int,
) -> Proposals:  # fmt: skip
    """Choose from a pool (n, n_genes)."""
    drawn = beliefs.draws(pool, settings.draws, derived_seed(seed, 1))
    feasible = drawn.feasible
    measured = np.array([e.points for e in valid if e.feasible]).reshape(-1, len(reference.point))
    asked = BatchProblem(drawn.points, measured, reference, problem.prices(pool), feasible=feasible)
    chosen = _chosen(asked, drawn.violation, settings, seed)
    rows = pool[[choice.index for choice in chosen]]
    outcomes = beliefs.outcomes if isinstance(beliefs, KnowsNoise) else beliefs.draws
    expected = outcomes(rows, N_OUTCOMES, derived_seed(seed, 2)).points
    quantiles = np.quantile(expected, (0.05, 0.5, 0.95), axis=0)
    mean = beliefs.mean(rows).points
    return Proposals(
        tuple(
            _proposal(choice, rows[i], float(feasible[:, choice.index].mean()), mean[i], quantiles[:, i])
            for i, choice in enumerate(chosen)
        ),
        len(pool),
    )


def _chosen(
    asked: BatchProblem, violation: FloatArray, settings: ArchiveSettings, seed: int
) -> tuple[Choice, ...]:
    if not len(asked.measured):
        return _likeliest_feasible(asked, violation, settings.batch)
    if settings.strategy != "hvi":
        return strategy_by_name(settings.strategy)(asked, settings.batch, seed)
    return choose_batch(
        asked.pool_draws, asked.measured, asked.reference, batch=settings.batch, prices=asked.prices,
        information_share=settings.information_share, feasible=asked.feasible,
    )  # fmt: skip


def _likeliest_feasible(asked: BatchProblem, violation: FloatArray, batch: int) -> tuple[Choice, ...]:
    """The batch that is likeliest to hold something feasible: greedily, in draws where nothing chosen is yet.

    Where more is not to be had, the least expected violation (s, n) decides.
    """
    assert asked.feasible is not None
    feasible, expected = asked.feasible, violation.mean(axis=0)
    covered = np.zeros(len(feasible), dtype=bool)
    order: list[int] = []
    while len(order) < min(batch, asked.n):
        more = feasible[~covered].sum(axis=0)
        ranked = np.lexsort((expected, -more))
        j = next(int(j) for j in ranked if int(j) not in order)
        order.append(j)
        covered |= feasible[:, j]
    return priced(asked, order, "feasibility")


def _proposal(
    choice: Choice, genome: IntArray, probability_feasible: float, mean: FloatArray, quantiles: FloatArray
) -> Proposal:
    low, median, high = quantiles.tolist()
    return Proposal(
        genome=tuple(genome.tolist()),
        why=choice.why,
        expected_gain=choice.expected_gain,
        probability_of_gain=choice.probability_of_gain,
        probability_feasible=probability_feasible,
        mean=tuple(mean.tolist()),
        low_90=tuple(low),
        median=tuple(median),
        high_90=tuple(high),
    )
