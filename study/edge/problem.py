"""What the archive search is told of edge networks: training them, and predictors fitted to what was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...errors import StudyError
from ...search.archive import Evaluation
from ...search.lazy_greedy import Prices
from ...search.objectives import Column
from ...spaces import IntArray
from .assembly import EdgeAssembly
from .beliefs import EdgeBeliefs, exit_inputs
from .judging import COLUMNS, effective_samples, judgement, padded
from .training import Trained

if TYPE_CHECKING:
    from ..assembly import ProgressCallback


class EdgeProblem:
    """The problem of one study (:class:`hadas.search.archive.ArchiveProblem`).

    Args:
        on_seeds: told the first genomes that are to be trained, before they are.
        seed: of the predictors.
    """

    def __init__(
        self, parts: EdgeAssembly, trained: Trained, *, seed: int, on_seeds: Callable[[IntArray], None],
        progress: ProgressCallback,
    ) -> None:  # fmt: skip
        self._parts, self._trained, self._seed = parts, trained, seed
        self._on_seeds, self._progress = on_seeds, progress
        self._n_rounds = 0

    @property
    def columns(self) -> tuple[Column, ...]:
        """Error, ET_avg, share of the heads."""
        return COLUMNS

    @property
    def limits(self) -> tuple[str, ...]:
        """The study's constraints in words."""
        return self._parts.limits.words

    def evaluate(self, genomes: IntArray) -> Iterator[Evaluation]:
        """Train what is not trained yet; judge it cross-fitted on the calibration split."""
        number = self._n_rounds
        self._n_rounds += 1
        if number == 0:
            self._on_seeds(genomes)
        networks = [self._parts.space.decode(genome) for genome in genomes]
        self._trained.train(networks, "seeds" if number == 0 else f"round {number}", self._progress)
        judged = self._trained.judged(networks, "calibration")
        for genome, network, found in zip(genomes, networks, judged, strict=True):
            key = tuple(map(int, genome))
            if found is None:
                yield Evaluation(key, reason=self._trained.reason(network))
                continue
            costs = self._parts.costs.costs(self._trained.mapped([network]))
            one = judgement(np.array([found.accuracy]), np.array([found.shares]), costs, self._parts.limits)
            excess = () if one.excess is None else tuple(one.excess[0].tolist())
            yield Evaluation(key, tuple(one.points[0].tolist()), excess)

    def fit(self, evaluations: Sequence[Evaluation]) -> EdgeBeliefs:
        """Predictors of accuracy and shares from all that was trained; costs are known."""
        from ...surrogates.joint_exits import JointExitModel

        space = self._parts.space
        networks = [space.decode(np.array(evaluation.genome)) for evaluation in evaluations]
        found = [one for one in self._trained.judged(networks, "calibration") if one is not None]
        if len(found) < len(networks):
            raise StudyError("an evaluated network has no valid row any more; was the store changed?")
        shares = padded([np.array(one.shares) for one in found])
        self._progress("fitting the predictors", 0, 1)
        model = JointExitModel(seed=self._seed).fit(
            exit_inputs(space, networks),
            np.array([one.accuracy for one in found]),
            shares,
            # How hard a split is, all networks share, so that this counts as noise what is none between them; on the
            # demo's networks the predictions were as good with it as without.
            np.array([round(effective_samples(self._trained.outcome(n, "calibration"))) for n in networks]),
        )
        self._progress("fitting the predictors", 1, 1)
        known = {
            network.trained_id: (one.accuracy, one.shares)
            for network, one in zip(networks, found, strict=True)
        }
        return EdgeBeliefs(space, model, self._parts.mapper, self._parts.limits, known)

    def prices(self, genomes: IntArray) -> Prices:
        """One training each: genomes are exits, heads and bits, of which each needs its own."""
        return Prices.equal(len(genomes))
