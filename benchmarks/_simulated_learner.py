"""The learner of the whole problem on the simulator: the method of a study, with a truth in place of devices.

It measures seed backbones with some of their exits, and then, round by round, fits the package's predictors to what
it has measured, searches on their means and on joint draws, lets a strategy choose a batch of the designs found, and
measures these: an accuracy row for every new backbone, and a cost row for every design.  A study's own plan differs:
its seeds hold no neighbours of the smallest unless it is told so, its pools and searches are smaller by default,
accuracy jobs are priced as they were timed, and measured sums of stages are corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from _learning_tasks import OURS
from _predictor_tasks import FloatArray
from _simulated_truth import COLUMNS, Truth

from hadas.datasets.records import CostRecord
from hadas.measurement.accuracy.policies import DEFAULT_CONTROLLER
from hadas.search.acquisition import candidate_pool, covering_reference
from hadas.search.batch import Prices, choose_batch
from hadas.search.designs import Design
from hadas.search.metrics import HypervolumeReference
from hadas.search.outcomes import OutcomeLibrary
from hadas.search.outer import SearchSettings, nested_search
from hadas.search.strategies import STRATEGIES, BatchProblem
from hadas.search.world import DrawView, MeanView, PredictedWorld, design_draws
from hadas.spaces import Backbone, Exits
from hadas.study.seeds import above_the_smallest
from hadas.surrogates.predictor_set import PredictorSet

ACCURACY_JOB_S = 5.0
"""What choices are weighed with for an accuracy job, seconds: about what one takes of this space, and never device time.

Weighed like a device point, a minute, fewer backbones were measured than the budget has.
"""


@dataclass(frozen=True)
class Budget:
    """What may be measured at most."""

    backbones: int = 100
    device_points: int = 600
    device_hours: float = 11.0


LEARNERS_SEARCH = SearchSettings(generations=12, survivors=16, inner_population=24, inner_generations=15)


@dataclass(frozen=True)
class Plan:
    """How a run spends its budget.

    Attributes:
        seed_backbones: measured first: both ends of the space, its presets, neighbours of the smallest, then random
            ones between the ends (:meth:`Learner.between_ends`).
        seed_neighbours: as many backbones that are one choice of one gene above the smallest, at most.
        seed_settings: clock settings of each: random ones, at the ends of the space the highest too.
        seed_exits: share of its exits that a seed uses, random ones; the ends of the space use all.
        rounds: of fitting, searching, choosing and measuring.
        batch: points per round.
        draws: joint draws that strategies weigh designs with.
        searches_on_draws: searches on single draws, besides the one on the means, whose population they start from;
            the one on the means starts from all that are measured, as a study's does.
        generations_on_draws: of these.
        pool: designs that strategies choose from, at most.
        search: settings of the learner's searches.
        information_share: of a batch of ours, but for the last.
        candidates: kinds of predictors.
    """

    seed_backbones: int = 40
    seed_neighbours: int = 28
    seed_settings: int = 1
    seed_exits: float = 0.3
    rounds: int = 5
    batch: int = 60
    draws: int = 32
    searches_on_draws: int = 2
    generations_on_draws: int = 4
    pool: int = 400
    information_share: float = 0.25
    candidates: tuple[str, ...] = ("gp",)
    search: SearchSettings = LEARNERS_SEARCH
    budget: Budget = Budget()


PLAN = Plan()


@dataclass
class Measured:
    """What a run has measured so far.

    Attributes:
        designs, costs: the measured points, row by row.
        seen: (n, 2) their values as measured; true: as they truly are.
        backbones: distinct ones, in order.
        spent: of each counter after every point.
    """

    designs: list[Design] = field(default_factory=list)
    costs: list[CostRecord] = field(default_factory=list)
    seen: list[FloatArray] = field(default_factory=list)
    true: list[FloatArray] = field(default_factory=list)
    backbones: dict[Backbone, None] = field(default_factory=dict)
    spent: dict[str, list[float]] = field(
        default_factory=lambda: {"backbones": [], "device points": [], "device hours": []}
    )

    def add(self, truth: Truth, designs: Sequence[Design], session: str, seed: int) -> None:
        """Measure designs."""
        if not designs:
            return
        rows = truth.measure(designs, session, seed)
        seen, true = truth.judged(designs, rows), truth.values(designs)
        for design, row, own_seen, own_true in zip(designs, rows, seen, true, strict=True):
            self.designs.append(design)
            self.costs.append(row)
            self.seen.append(own_seen)
            self.true.append(own_true)
            self.backbones[design.backbone] = None
            hours = self.spent["device hours"][-1] if self.spent["device hours"] else 0.0
            self.spent["backbones"].append(float(len(self.backbones)))
            self.spent["device points"].append(float(len(self.designs)))
            self.spent["device hours"].append(hours + row.device_seconds / 3600)


class Learner:
    """One run of one strategy."""

    def __init__(self, truth: Truth, plan: Plan, strategy: str, seed: int) -> None:
        self.truth, self.plan, self.strategy, self.seed = truth, plan, strategy, seed
        self.measured = Measured()
        self.reference: HypervolumeReference | None = None
        self.last_pool: tuple[Design, ...] = ()

    def seed_for(self, *purpose: int) -> int:
        """A seed of its own for every purpose; those of strategies do not differ."""
        return int(np.random.SeedSequence([self.seed, *purpose]).generate_state(1)[0])

    def run(self) -> Measured:
        """All rounds; what was measured."""
        self.measured.add(self.truth, self.seed_designs(), f"seeds {self.seed}", self.seed_for(1))
        self.reference = HypervolumeReference.from_front(np.array(self.measured.seen), self.truth.columns)
        for r in range(self.plan.rounds):
            chosen = self._affordable(self._choose(r))
            session = f"{self.strategy}, seed {self.seed}, round {r + 1}"
            self.measured.add(self.truth, chosen, session, self.seed_for(2, r))
            if not chosen:
                break
        return self.measured

    def seed_designs(self) -> list[Design]:
        """What is measured first, the same for all strategies."""
        plan, space, table = self.plan, self.truth.space, self.truth.clock_table
        rng = np.random.default_rng(self.seed_for(0))
        presets = list(space.presets.values())
        above = above_the_smallest(space, rng)[: plan.seed_neighbours]
        backbones = dict.fromkeys([space.smallest, space.largest, *presets, *above][: plan.seed_backbones])
        while len(backbones) < plan.seed_backbones:
            backbones[self.between_ends(rng)] = None
        designs = []
        for backbone in backbones:
            at_an_end = backbone in (space.smallest, space.largest)
            used = rng.random(backbone.n_blocks - space.first_exit) < (1.0 if at_an_end else plan.seed_exits)
            exits = Exits(space.first_exit, tuple(int(use) for use in used))
            settings = [table.settings[int(i)] for i in rng.permutation(len(table))[: plan.seed_settings]]
            if at_an_end:
                settings[0] = table.default
            designs += [Design(backbone, exits, setting) for setting in dict.fromkeys(settings)]
        return designs

    def between_ends(self, rng: np.random.Generator) -> Backbone:
        """A random backbone of random size: a random share of its genes is that of the largest, the others' is random.

        Or that of the smallest, as often.  Genes that are all random add up to middling sizes, where no front is.
        """
        space = self.truth.space
        end = space.encode(space.smallest if rng.random() < 0.5 else space.largest)
        kept = rng.random(len(end)) < rng.random()
        return space.decode(np.where(kept, end, space.sample(1, rng)[0]))

    def _choose(self, r: int) -> list[Design]:
        """The batch of a round, in the order of choice."""
        truth, plan, space = self.truth, self.plan, self.truth.space
        records = [truth.oracle.record(backbone) for backbone in self.measured.backbones]
        predictors = PredictorSet.fit(
            space, truth.clock_table, records, self.measured.costs, n_classes=truth.n_classes,
            seed=self.seed_for(3, r), candidates=plan.candidates,
        )  # fmt: skip
        library = OutcomeLibrary(records, DEFAULT_CONTROLLER)
        draws = predictors.draws(plan.draws, self.seed_for(4, r))
        views: list[MeanView | DrawView] = [MeanView(space, predictors)]
        views += [DrawView(space, draws, i, n_classes=truth.n_classes) for i in range(plan.searches_on_draws)]
        initial: Sequence[Backbone] = list(self.measured.backbones)
        results = []
        for i, view in enumerate(views):
            world = PredictedWorld(space, truth.clock_table, view, library, n_classes=truth.n_classes)
            settings = plan.search if i == 0 else replace(plan.search, generations=plan.generations_on_draws)
            results.append(nested_search(space, world, settings, self.seed_for(5, r, i), initial=initial))
            initial = results[0].population
        pool = self._affordable_pool(
            candidate_pool(results, exclude=set(self.measured.designs), limit=plan.pool)
        )
        self.last_pool = tuple(pool)
        drawn = design_draws(pool, draws, space, library, n_classes=truth.n_classes).objectives(COLUMNS)
        return self._of_strategy(r, pool, drawn)

    def _of_strategy(self, r: int, pool: Sequence[Design], drawn: FloatArray) -> list[Design]:
        assert self.reference is not None
        measured, prices = np.array(self.measured.seen), self._prices(pool)
        reference = covering_reference(self.reference, measured, drawn)
        if self.strategy == OURS:
            # What the last round learns no later round can use.
            share = 0.0 if r + 1 == self.plan.rounds else self.plan.information_share
            choices = choose_batch(
                drawn, measured, reference, batch=self.plan.batch, prices=prices, information_share=share
            )
        else:
            problem = BatchProblem(drawn, measured, reference, prices)
            choices = STRATEGIES[self.strategy](problem, self.plan.batch, self.seed_for(6, r))
        return [pool[choice.index] for choice in choices]

    def _prices(self, pool: Sequence[Design]) -> Prices:
        """Device seconds by number of stages, and an accuracy job for each backbone that is not measured."""
        protocol = self.truth.device.protocol
        owners = list(dict.fromkeys(design.backbone for design in pool))
        seconds = [protocol.expected_seconds(2 * len(d.exits.positions) + 1, True) for d in pool]
        group = np.array([owners.index(design.backbone) for design in pool], dtype=np.int64)
        jobs = [0.0 if backbone in self.measured.backbones else ACCURACY_JOB_S for backbone in owners]
        return Prices(np.array(seconds), group, np.array(jobs))

    def _affordable(self, chosen: Sequence[Design]) -> list[Design]:
        """Those that the budget still buys, in order: a design that does not fit is left out."""
        budget, known = self.plan.budget, set(self.measured.backbones)
        n_points = len(self.measured.designs)
        hours = self.measured.spent["device hours"][-1]
        bought = []
        for design in chosen:
            seconds = self.truth.device.protocol.expected_seconds(2 * len(design.exits.positions) + 1, True)
            fits = n_points + 1 <= budget.device_points and hours + seconds / 3600 <= budget.device_hours
            if not fits or len(known | {design.backbone}) > budget.backbones:
                continue
            bought.append(design)
            known.add(design.backbone)
            n_points, hours = n_points + 1, hours + seconds / 3600
        return bought

    def _affordable_pool(self, pool: Sequence[Design]) -> list[Design]:
        """Without new backbones once the budget has no more of them."""
        if len(self.measured.backbones) < self.plan.budget.backbones:
            return list(pool)
        return [design for design in pool if design.backbone in self.measured.backbones]
