"""The whole problem, on the simulator: a learner that may measure little against a search that may measure anything.

The learner (:mod:`_simulated_learner`) follows the method of a study.  Strategies differ in the choice alone; seeds,
budgets and everything else are shared, but for :data:`RANDOM_SEEDS`, which is our choice after other seeds.

Learner and search are judged on the truth (:mod:`_simulated_truth`): the hypervolume of the true values of what was
measured, as a share of what a search reaches that sees the truth.

There are two truths.  Some of the learner's settings were decided with the first one in sight, so how good they are
there says too little.  The second one is a check: the same problem, but its accuracies are those of a supernet that
was trained with another seed (:data:`UNSEEN_SUPERNET`), and nothing was decided on it.

    python benchmarks/_simulated_problem.py

measures and searches both truths as far as that has not been done; a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
from _accuracies_near_the_front import accuracies_near_the_front
from _accuracy_oracle import AccuracyOracle
from _learning_tasks import OURS, RANDOM_SEEDS, SEEDS, Bound, Curve
from _mini_accuracies import DIRECTORY, Say
from _predictor_tasks import FloatArray
from _simulated_learner import PLAN, Learner
from _simulated_truth import STRICT_MARGIN, Generosity, TrueWorld, Truth, Yardstick, yardstick
from filelock import FileLock

from hadas.search.designs import Design
from hadas.search.metrics import REFERENCE_MARGIN
from hadas.search.outer import SearchSettings
from hadas.search.ranking import front_indices
from hadas.surrogates.threads import single_thread

SHARE = 0.99
GENEROUS = Generosity(
    SearchSettings(generations=30, survivors=16, inner_population=40, inner_generations=25),
    (1000, 1001, 1002, 1003, 1004),
    PLAN.budget.backbones,
)
BEST_INNER = SearchSettings(inner_population=40, inner_generations=15)

UNSEEN_SUPERNET = 1
"""Training seed of the supernet of the check.

Whoever changes the learner because of what it says there has seen it: the check is then due with the next seed.
"""


@dataclass(frozen=True)
class Problem:
    """The truth, and what is reached by who knows it.

    Attributes:
        yardstick: to the reference that a study would freeze; stricter: to that of the pools, to which the ends of the
            front count far less.
    """

    truth: Truth
    yardstick: Yardstick
    stricter: Yardstick

    @classmethod
    def of(cls, truth: Truth, generosity: Generosity, directory: Path) -> Self:
        """Search the truth, or find what an earlier call found in ``directory``."""
        usual, strict = (
            yardstick(truth, generosity, directory, margin) for margin in (REFERENCE_MARGIN, STRICT_MARGIN)
        )
        return cls(truth, usual, strict)


def _quiet(text: str) -> None:
    pass


@cache
def problem(supernet_seed: int = 0, say: Say = _quiet) -> Problem:
    """The accuracies, the truth and the yardstick: measured, modelled and searched once, then found again.

    Args:
        supernet_seed: of the training of the supernet whose accuracies are measured; each has files of its own.
        say: told how it goes on.
    """
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    lock = FileLock(DIRECTORY / (f".lock-{supernet_seed}" if supernet_seed else ".lock"))
    with lock, single_thread():
        found = accuracies_near_the_front(say, supernet_seed=supernet_seed)
        truth = Truth(AccuracyOracle(found.space, found.data, found.records))
        return Problem.of(truth, GENEROUS, DIRECTORY)


NAME = "whole problem, simulated TX2 GPU, mini space"
TRUTH = (
    "modelled: costs of the simulator, accuracies of an oracle frozen from measured backbones; 100 % is what "
    "one search reaches, in the median of several, that sees the truth of every design"
)
BUDGET_BOUNDS = (
    Bound(SHARE, "backbones", PLAN.budget.backbones),
    Bound(SHARE, "device points", PLAN.budget.device_points),
    Bound(SHARE, "device hours", PLAN.budget.device_hours),
)


@dataclass(frozen=True)
class SimulatedTask:
    """Task 3: the whole problem; ``supernet_seed`` is that of the training whose accuracies are its truth."""

    strategies: Mapping[str, int]
    name: str = NAME
    truth: str = TRUTH
    supernet_seed: int = 0
    instances: tuple[str, ...] = ("",)
    bounds: tuple[Bound, ...] = BUDGET_BOUNDS
    counter: str = "device points"
    horizon: float = float(PLAN.seed_backbones * PLAN.seed_settings + PLAN.rounds * PLAN.batch)
    facts: Mapping[str, str] = field(default_factory=dict)

    def run(self, instance: str, strategy: str, seed: int) -> Curve:
        """One run of one strategy; ``instance`` is ignored, there is one."""
        found = problem(self.supernet_seed)
        with single_thread():
            learner = learner_of(found.truth, strategy, seed)
            learner.run()
            return curve_of(found, learner)


def learner_of(truth: Truth, strategy: str, seed: int) -> Learner:
    """The learner that a row of the table stands for: that of a strategy, or ours without the neighbours as seeds."""
    if strategy == RANDOM_SEEDS:
        return Learner(truth, replace(PLAN, seed_neighbours=0), OURS, seed)
    return Learner(truth, PLAN, strategy, seed)


def curve_of(found: Problem, learner: Learner) -> Curve:
    """Shares of the yardstick after every point of a run; its notes say what limits them.

    ``share_of_all_searches_that_see_the_truth`` is of the union of their fronts, ``share_by_the_stricter_reference`` of
    a single one's to :attr:`Problem.stricter`.
    ``share_without_its_weightiest_backbone`` is what would be left, had the one measured backbone that matters most
    not been measured: how far the figure hangs on a single find.

    Two notes name what was missing, of our strategy alone.  Had the whole last pool been measured, the share would be
    ``share_with_whole_last_pool``: what is missing there no choice could have found, only a better search or better
    predictors.  Had the measured backbones been given their best exits and clocks, it would be
    ``share_with_measured_backbones_at_their_best``: what is missing there takes other backbones.
    """
    measured, known = learner.measured, found.yardstick
    true, seen = np.array(measured.true), np.array(measured.seen)
    shares = [known.share(true[: i + 1]) for i in range(len(true))]
    notes = {
        "share_after_seeds": shares[len(learner.seed_designs()) - 1],
        "share_of_measured_front": known.share(true[front_indices(seen)]),
        "share_of_all_searches_that_see_the_truth": known.share_of_all(true),
        "share_without_its_weightiest_backbone": _without_one(known, measured.designs, true),
        "share_that_one_of_them_has_of_all": known.of_one,
        "share_of_one_after_as_many_backbones": known.of_one_early,
        "share_by_the_stricter_reference": found.stricter.share(true),
        "share_of_one_after_as_many_backbones_by_the_stricter_reference": found.stricter.of_one_early,
        **{f"oracle_{name}": value for name, value in known.modelling.items()},
    }
    if learner.strategy == OURS:
        pool = found.truth.values(learner.last_pool)
        notes["share_with_whole_last_pool"] = known.share(np.concatenate([true, pool]))
        tables = TrueWorld(found.truth).tables(list(measured.backbones))
        best = BEST_INNER.make_inner().run(tables, BEST_INNER.make_objective(), learner.seed)
        points = np.concatenate([true, *(front.objectives for front in best)])
        notes["share_with_measured_backbones_at_their_best"] = known.share(points)
    spent = {name: tuple(values) for name, values in measured.spent.items()}
    return Curve(tuple(shares), spent, notes)


def _without_one(known: Yardstick, designs: Sequence[Design], true: FloatArray) -> float:
    """Least share of the true values (n, 2) of designs that is left without all those of one backbone."""
    names = np.array([design.backbone.arch_id for design in designs])
    return min(known.share(true[names != name]) for name in np.unique(names[front_indices(true)]))


def tasks() -> tuple[SimulatedTask, ...]:
    """Task 3, and the same on another supernet, which is a check."""
    n, few, fewest = len(SEEDS), len(SEEDS) // 2, 3
    rows = {OURS: n, "random": n, "mean": n, "variance": few, "thompson": few, "spread": few, "qlognehvi": 1}
    return (
        SimulatedTask({**rows, RANDOM_SEEDS: fewest}),
        SimulatedTask(
            {OURS: fewest, "mean": fewest, RANDOM_SEEDS: fewest},
            name=f"{NAME}, another supernet",
            truth=f"a check, not judged: as before, but the supernet was trained with another seed; {TRUTH}",
            supernet_seed=UNSEEN_SUPERNET,
            bounds=tuple(replace(bound, judged=False) for bound in BUDGET_BOUNDS),
        ),
    )


def main() -> None:
    for task in tasks():
        print(f"{task.name}:", flush=True)
        found = problem(task.supernet_seed, _say)
        n_backbones = len(found.truth.oracle.measured)
        _say(f"measured backbones: {n_backbones}, designs searched: {found.yardstick.n_evaluated}")


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    main()
