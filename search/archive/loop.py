"""The archive loop: seeds, then rounds of fitting beliefs, proposing a few genomes and evaluating them.

Everything depends on the seed and on what evaluations find.  So a search that was killed is started again with the
same arguments: the problem answers from what it kept, and the loop makes the same choices as before, then goes on.
Who keeps the plans, too, spares the loop making them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InfeasibleError, StudyError
from ...spaces import IntArray
from ..metrics import HypervolumeReference
from ..operators import GenomeSpace, genome_key
from ..ranking import front_indices
from ..stopping import RoundProspect, StoppingRule
from .problem import ArchiveProblem, ArchiveSettings, Evaluation
from .proposing import Proposals, propose
from .seeds import derived_seed, seed_genomes

_ROUNDING = 1e-9
"""An objective that is known beforehand has an interval of no width; it may come out otherwise in its last digits."""


def _between(low: float, value: float, high: float) -> bool:
    return low - _ROUNDING * abs(low) <= value <= high + _ROUNDING * abs(high)


@dataclass(frozen=True)
class ArchiveRound:
    """One round: what was proposed and believed, and what came out.

    Attributes:
        number: 0 = the seeds, which nothing was believed of.
        proposals: made before the evaluations, in the same order; none for the seeds.
        evaluations: in the order that they were asked for.
        hypervolume_before, hypervolume: of the feasible evaluations, before and after the round.
    """

    number: int
    proposals: Proposals
    evaluations: tuple[Evaluation, ...]
    hypervolume_before: float
    hypervolume: float

    @property
    def within_90(self) -> tuple[tuple[bool, ...], ...]:
        """Per evaluation that did not fail, whether each objective came out in the interval believed before."""
        pairs = zip(self.proposals.chosen, self.evaluations, strict=False)
        return tuple(
            tuple(_between(*three) for three in zip(p.low_90, e.points, p.high_90, strict=True))
            for p, e in pairs
            if not e.failed
        )


@dataclass(frozen=True)
class ArchiveResult:
    """What an archive search found.

    Attributes:
        evaluations: all, in the order that they were asked for; failed ones say why.
        front: those that are feasible and not dominated, by their objectives.
        history: hypervolume after the seeds and after each round; it never falls.
        rounds: the seeds' first.
        reference: what hypervolume is measured to, frozen once something meets the limits: from all
            evaluations until then, the seeds if one of them does.
        ended: why there were no more rounds, in words.
    """

    evaluations: tuple[Evaluation, ...]
    front: tuple[Evaluation, ...]
    history: tuple[float, ...]
    rounds: tuple[ArchiveRound, ...]
    reference: HypervolumeReference
    ended: str

    def coverage_90(self) -> tuple[float, ...]:
        """(m,) share of new evaluations within the 90 % interval that was believed before; NaN without any."""
        within = [row for one in self.rounds for row in one.within_90]
        if not within:
            return (float("nan"),) * len(self.reference.point)
        return tuple(np.mean(within, axis=0).tolist())


def archive_search(
    space: GenomeSpace,
    problem: ArchiveProblem,
    settings: ArchiveSettings,
    seed: int,
    *,
    initial: Sequence[IntArray] = (),
    on_round: Callable[[ArchiveRound], str | None] = lambda _: None,
    on_plan: Callable[[int, Proposals], None] = lambda *_: None,
    planned: Sequence[Proposals] = (),
) -> ArchiveResult:
    """Search with predictors that grow with the archive.

    Args:
        space: where genomes come from.
        problem: evaluates, believes, prices.
        settings: how much to spend, and how to choose.
        seed: fixes the result, whatever the order in which evaluations come in.
        initial: genomes to evaluate first; seeds far from these and from each other fill up ``settings.seeds``.
        on_round: called after the seeds and after every round, before the next one is planned; what it returns,
            if it does, is why the search ends here.
        on_plan: called with the number of a round and what it will evaluate, or would have if it were worth it;
            not for plans that were ``planned`` before.
        planned: plans of rounds 1, 2, ... of the same search, as ``on_plan`` told them before it was killed.

    Raises:
        SpaceError: an initial genome that the space does not contain.
        StudyError: every seed failed, or the problem did not evaluate what it was asked to.
        InfeasibleError: nothing that was evaluated meets all limits; names them, and how close the best came.
    """
    loop = _Loop(space, problem, settings, seed, on_round, on_plan)
    ended = loop.evaluate(seed_genomes(space, settings.seeds, seed, initial), Proposals((), 0))
    ended = ended or loop.rounds_until_end(planned)
    front = _front([e for e in loop.evaluations if e.feasible])
    if not front:
        raise _infeasible(problem.limits, [e for e in loop.evaluations if not e.failed])
    assert loop.reference is not None
    history = tuple(one.hypervolume for one in loop.rounds)
    return ArchiveResult(tuple(loop.evaluations), front, history, tuple(loop.rounds), loop.reference, ended)


class _Loop:
    """Everything that happened so far."""

    def __init__(
        self, space: GenomeSpace, problem: ArchiveProblem, settings: ArchiveSettings, seed: int,
        on_round: Callable[[ArchiveRound], str | None], on_plan: Callable[[int, Proposals], None],
    ) -> None:  # fmt: skip
        self.space, self.problem, self.settings, self.seed = space, problem, settings, seed
        self.on_round, self.on_plan = on_round, on_plan
        self.evaluations: list[Evaluation] = []
        self.rounds: list[ArchiveRound] = []
        self.reference: HypervolumeReference | None = None

    def evaluate(self, genomes: IntArray, proposals: Proposals) -> str | None:
        """One round, the seeds' if it is the first; why to end with it, if the caller says so."""
        before = self.hypervolume()
        found = _evaluated(self.problem, genomes)
        self.evaluations += found
        if self.reference is None:
            now = self._reference_now()
            self.reference = now if any(e.feasible for e in found) else None
        number = len(self.rounds)
        self.rounds.append(ArchiveRound(number, proposals, found, before, self.hypervolume()))
        return self.on_round(self.rounds[-1])

    def hypervolume(self) -> float:
        """Of what is feasible so far."""
        feasible = [e.points for e in self.evaluations if e.feasible]
        return self.reference.hypervolume(np.array(feasible)) if self.reference and feasible else 0.0

    def _reference_now(self) -> HypervolumeReference:
        """From all evaluations, whether they meet the limits or not: few may."""
        points = [e.points for e in self.evaluations if not e.failed]
        if not points:
            first = self.evaluations[0]
            raise StudyError(f"all {len(self.evaluations)} seeds failed, the first with: {first.reason}")
        return HypervolumeReference.from_front(np.array(points), self.problem.columns)

    def rounds_until_end(self, planned: Sequence[Proposals]) -> str:
        """Propose and evaluate until the budget is spent, or more is not worth it; why it ended."""
        rule = StoppingRule(self.settings.stop_gain, self.settings.stop_rounds)
        prospects: list[RoundProspect] = []
        for number in range(1, self.settings.rounds + 1):
            plan = planned[number - 1] if number <= len(planned) else self._plan(number)
            if not plan.chosen:
                return f"all {len(self.evaluations)} designs of the space '{self.space.name}' are evaluated"
            prospects.append(RoundProspect(plan.expected_gain, self.hypervolume()))
            reason = rule.reason(prospects)
            if reason is not None:
                return reason
            reason = self.evaluate(np.array([proposal.genome for proposal in plan.chosen]), plan)
            if reason is not None:
                return reason
        return f"{self.settings.rounds} round(s) were asked for"

    def _plan(self, number: int) -> Proposals:
        seed = derived_seed(self.seed, number)
        reference = self.reference or self._reference_now()
        plan = propose(self.space, self.problem, self.evaluations, reference, self.settings, seed)
        self.on_plan(number, plan)
        return plan


def _evaluated(problem: ArchiveProblem, genomes: IntArray) -> tuple[Evaluation, ...]:
    """What the problem finds, in the order asked for."""
    found = {genome_key(np.array(e.genome)): e for e in problem.evaluate(genomes)}
    asked = [genome_key(genome) for genome in genomes]
    if set(found) != set(asked):
        raise StudyError(
            f"{len(asked)} genomes were to be evaluated, {len(set(asked) & set(found))} of them were, and "
            f"{len(set(found) - set(asked))} others; every genome asked for needs one evaluation, failed or not"
        )
    m, c = len(problem.columns), len(problem.limits)
    for e in found.values():
        if not e.failed and (len(e.points), len(e.excess)) != (m, c):
            raise StudyError(
                f"evaluation of genome {e.genome} has {len(e.points)} objectives and {len(e.excess)} limits; "
                f"the problem names {m} and {c}"
            )
    return tuple(found[key] for key in asked)


def _front(feasible: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    points = np.array([e.points for e in feasible])
    return tuple(sorted((feasible[i] for i in front_indices(points)), key=lambda e: e.points))


def _infeasible(limits: Sequence[str], valid: Sequence[Evaluation]) -> InfeasibleError:
    """Which limits nothing meets, or that none meets all of them together."""
    excess = np.array([e.excess for e in valid])
    least = excess.min(axis=0)
    missed = [(words, part) for words, part in zip(limits, least.tolist(), strict=True) if part > 0]
    if missed:
        parts = " nor ".join(
            f"{words} (the best misses it by {100 * part:.3g} % of it)" for words, part in missed
        )
        message = f"none of {len(valid)} evaluated designs meets the limit {parts}"
        named = tuple(words for words, _ in missed)
    else:
        closest = valid[int(np.argmin([e.violation for e in valid]))]
        parts = ", ".join(
            f"{words} by {100 * part:.3g} % of it"
            for words, part in zip(limits, closest.excess, strict=True)
            if part > 0
        )
        message = (
            f"none of {len(valid)} evaluated designs meets all limits together ({', '.join(limits)}), though each "
            f"is met by some; the closest misses {parts}"
        )
        named = tuple(limits)
    return InfeasibleError(f"{message}; relax it, or give the search more rounds", named)
