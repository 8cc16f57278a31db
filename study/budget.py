"""A budget of wall-clock time: what of it is spent, what the rest buys, and whether the next step still fits.

Spent is what the study's own records say: the training of its supernet, its accuracy jobs (as many at a time as there
are workers), the seconds of its real device, and the seconds that its plans took to work out.  Simulated and replayed
rows took no real time.  Within one run the clock counts instead, so whatever else takes time is part of it.

A budget decides how many seed backbones are planned, which is journalled with them, and where the loop stops: never
in the middle of a measurement, and before a step that would not fit.  What a round measures never depends on it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..datasets.records import Truth
from ..errors import ConfigError, StudyError
from .ledger import Ledger, duration, most_backbones, parse_budget

if TYPE_CHECKING:
    from .assembly import ProgressCallback
    from .config import LearningConfig
    from .loop import Study

SEED_SHARE = 0.5
"""Most of a budget that seeds may take, if more than the fewest are wanted: the rounds are what it is given for."""

FEWEST_SEEDS = 3
"""Seed backbones below which predictors cannot be fitted."""

REPORT_SHARE, REPORT_S = 0.02, 60.0
"""Of a budget, kept back for the report: this share, at most so many seconds."""


class BudgetSpent(Exception):  # noqa: N818 - a way to stop, and nobody's fault
    """The next step does not fit any more.

    Attributes:
        step: which, in words.
        needs_s: what it is expected to take; 0 = not known, for nothing is left at all.
        at_least: whether it takes more than that, for part of it was never done yet.
    """

    def __init__(self, step: str, needs_s: float = 0.0, *, at_least: bool = False) -> None:
        super().__init__(step)
        self.step, self.needs_s, self.at_least = step, needs_s, at_least


class Prices:
    """What the steps of a study are expected to take, in real seconds, by what they took."""

    def __init__(self, study: Study) -> None:
        """Read the ledger as it is now."""
        self._study, self._ledger = study, Ledger(study)

    @cached_property
    def backbone_s(self) -> float | None:
        """One accuracy job; ``None`` if none alike was ever measured."""
        try:
            return self._ledger.backbone_s()
        except StudyError:
            return None

    @cached_property
    def n_workers(self) -> int:
        """Accuracy jobs at a time; one where only the user knows."""
        try:
            return self._ledger.n_workers
        except ConfigError:
            return 1

    @cached_property
    def point_s(self) -> float:
        """One cost row; 0 where rows take no real time.  Several devices share their rows evenly."""
        point = self._ledger.point_cost() if self._ledger.truth is Truth.DEVICE else None
        return 0.0 if point is None else point.median_s / self._n_devices

    @property
    def _n_devices(self) -> int:
        device = self._study.config.device
        return len(device.names) if device.is_real else 1

    @cached_property
    def planning_s(self) -> float | None:
        """Fitting, searching and choosing of one round; ``None`` if this study has planned none."""
        taken = [plan["seconds"] for plan in self._study.findings.plans() if "seconds" in plan]
        return float(np.median(taken)) if taken else None

    def measuring_s(self, n_backbones: int, n_points: int) -> float:
        """Accuracies of so many new backbones, and so many points."""
        return math.ceil(n_backbones / self.n_workers) * (self.backbone_s or 0.0) + n_points * self.point_s

    @property
    def round_s(self) -> float:
        """A round as large as those so far; before the first one, all its backbones are taken to be new.

        What planning takes is left out while it is not known.
        """
        findings, batch = self._study.findings, self._study.config.learning.batch
        n_new = [findings.n_new_backbones(r) for r in range(1, findings.n_measured_rounds)]
        return (self.planning_s or 0.0) + self.measuring_s(
            math.ceil(np.mean(n_new)) if n_new else batch, batch
        )

    @cached_property
    def training_s(self) -> float | None:
        """What is left of the supernet's training; ``None`` if none alike was ever trained."""
        try:
            return self._ledger.training_s_left()
        except StudyError:
            return None

    @property
    def seeds_s(self) -> float | None:
        """What is missing of the smallest round of seeds, or of the planned one, with what is left of training.

        ``None`` where one of these prices is not known.
        """
        findings, learning = self._study.findings, self._study.config.learning
        if self.training_s is None or self.backbone_s is None:
            return None
        plan = findings.event("plan:0")
        n = (plan.get("n_backbones") or learning.seed_backbones) if plan else fewest_seeds(learning)
        n_jobs = max(0, n - len(self._ledger.own_accuracy))
        n_rows = 0 if plan is None else len(findings.cost_rows(0))
        return self.training_s + self.measuring_s(n_jobs, max(0, n * learning.seed_settings - n_rows))

    def spent_s(self) -> float:
        """Real seconds that the study has spent, by its records."""
        study, ledger = self._study, self._ledger
        trained = study.findings.event("supernet")
        training = trained["seconds"] if trained is not None and not trained.get("found") else 0.0
        accuracy = sum(sum(row.seconds.values()) for row in ledger.own_accuracy) / self.n_workers
        device = ledger.device_s() / self._n_devices if ledger.truth is Truth.DEVICE else 0.0
        planning = sum(plan.get("seconds", 0.0) for plan in study.findings.plans())
        return float(training + accuracy + device + planning + study.findings.other_seconds())

    def buys(self, seconds: float) -> str:
        """What so much time buys, in words; empty if the prices are not known yet."""
        if self.backbone_s is None or self.training_s is None:
            return ""
        settings = self._study.config.learning.seed_settings
        n = most_backbones(
            max(0.0, seconds - self.training_s), self.backbone_s, settings * self.point_s, self.n_workers
        )
        backbones = f"{n or 'no'} backbone{'s' if n != 1 else ''} with {settings} points each"
        if not self._study.findings.n_measured_rounds:
            return backbones
        return f"{self._rounds_in(seconds)}, or {backbones}"

    def _rounds_in(self, seconds: float) -> str:
        what = f"of {self._study.config.learning.batch} points"
        if self.planning_s is None:
            return f"rounds {what} (how many is known once one is planned)"
        n, each = int(seconds / self.round_s), f"{what} ({duration(self.round_s)} each)"
        return f"about {n} round{'s' if n != 1 else ''} {each}" if n else f"no whole round {each}"


class Budget:
    """The time that one run may still spend; asked before every step."""

    def __init__(self, study: Study, budget_s: float, now: Callable[[], float] = time.monotonic) -> None:
        """Args: now: seconds of a clock that only ever goes forward."""
        self._study, self.budget_s, self._now = study, budget_s, now
        self._before_s, self._began = Prices(study).spent_s(), now()
        self._point_s = 0.0
        self.stopped: BudgetSpent | None = None
        """Why the run ended, if the budget ended it."""
        if study.store.study_config(study.config.study) is not None:
            self._remember()

    def _remember(self) -> None:
        """Write the budget down; a study that has not begun does not begin with it, so that its file can be mended."""
        if self.journalled(self._study) != self.budget_s:
            self._study.journal(f"budget:{self._study.findings.n_budgets}", {"budget_s": self.budget_s})

    @staticmethod
    def journalled(study: Study) -> float | None:
        """Seconds of the latest budget that the study was given."""
        event = study.findings.event(f"budget:{study.findings.n_budgets - 1}")
        return None if event is None else float(event["budget_s"])

    @property
    def spent_s(self) -> float:
        """By earlier runs, as their records say, and by this one."""
        return self._before_s + self._now() - self._began

    @property
    def left_s(self) -> float:
        """What may still be spent on anything but the report."""
        return max(0.0, self.budget_s - kept_for_report_s(self.budget_s) - self.spent_s)

    def check(self, step: str, needs_s: float = 0.0, *, at_least: bool = False) -> None:
        """Raises: BudgetSpent: the step does not fit."""
        if needs_s > self.left_s or self.left_s <= 0.0:
            raise BudgetSpent(step, needs_s, at_least=at_least)

    def note(self) -> None:
        """Journal what this run has spent that no row or plan tells, such as reports; a kill forgets the rest."""
        if self._study.findings.event("supernet") is None:
            return  # a training that is not finished keeps count of its seconds itself
        untold_s = self.spent_s - Prices(self._study).spent_s()
        if untold_s >= 1.0:
            self._study.journal(f"time:{self._study.findings.n_notes}", {"seconds": untold_s})

    def watching(self, progress: ProgressCallback) -> ProgressCallback:
        """Progress of a training, which can be interrupted anywhere, and is where the budget ends.

        The callback raises:
            BudgetSpent: nothing is left.
        """
        began: list[tuple[int, float]] = []

        def advance(phase: str, done: int, total: int, note: str = "") -> None:
            progress(phase, done, total, note)
            now = self._now()
            if not began:
                began.append((done, now))
            n_done = done - began[0][0]
            # Stopped after two steps at the earliest, so that what the rest takes can be told.
            if n_done and done < total and self.left_s <= 0.0:
                rest_s = (now - began[0][1]) / n_done * (total - done)
                raise BudgetSpent("the end of the supernet's training", rest_s)

        return advance

    def n_jobs(self, n_missing: int) -> int:
        """How many accuracy jobs to begin now, at least one; the caller asks again for the rest.

        Half of what fits is begun at a time, so that jobs slower than those before are noticed in time.

        Raises:
            BudgetSpent: none fits.
        """
        prices = Prices(self._study)
        self.check("the next accuracy job", prices.backbone_s or 0.0)
        if not prices.backbone_s:
            return min(n_missing, prices.n_workers)
        n_turns = int(self.left_s / prices.backbone_s)
        return min(n_missing, prices.n_workers * max(1, n_turns // 2))

    def begin_rows(self) -> None:
        """Look up what a cost row takes, once for a session."""
        self._point_s = Prices(self._study).point_s

    def check_row(self, taken_s: Sequence[float]) -> None:
        """See whether one more cost row fits.

        Args:
            taken_s: device seconds of the rows of this run so far; once there are some, they are the price.

        Raises:
            BudgetSpent: it does not.
        """
        real = self._study.truth is Truth.DEVICE
        self.check("the next cost row", float(np.median(taken_s)) if real and taken_s else self._point_s)

    def check_round(self) -> None:
        """See whether a whole round fits: until it is whole, what is measured of it is of no use.

        Raises:
            BudgetSpent: it does not.
        """
        prices = Prices(self._study)
        self.check("the next round", prices.round_s, at_least=prices.planning_s is None)

    def n_seeds(self) -> int:
        """Seed backbones to plan: as many as configured, or as half of what is left buys, but never below three.

        Raises:
            BudgetSpent: not even those fit.
        """
        self._remember()
        prices, learning = Prices(self._study), self._study.config.learning
        points_s = learning.seed_settings * prices.point_s
        fewest = fewest_seeds(learning)
        self.check(f"{fewest} seed backbones", prices.measuring_s(fewest, fewest * learning.seed_settings))
        if not prices.backbone_s:
            return learning.seed_backbones
        n = most_backbones(SEED_SHARE * self.left_s, prices.backbone_s, points_s, prices.n_workers)
        return max(fewest, min(n, learning.seed_backbones))

    def standing(self) -> str:
        """Spent, left, and what the rest buys."""
        return standing(self._study, self.budget_s, self.spent_s)

    def verdict(self) -> str:
        """Why the run stopped, and what to do; empty if the budget did not stop it."""
        if self.stopped is None:
            return ""
        stopped, spent_s, prices = self.stopped, self.spent_s, Prices(self._study)
        about = "at least" if stopped.at_least else "about"
        takes = f", which takes {about} {duration(stopped.needs_s)}" if stopped.needs_s else ""
        begun = bool(self._study.findings.n_measured_rounds)
        whole_s = prices.round_s if begun else prices.seeds_s or 0.0
        # Twice what is needed to get on, for no two steps take the same.
        larger = _budget_leaving(2 * max(stopped.needs_s, whole_s, 0.1 * self.budget_s), spent_s)
        bought = prices.buys(parse_budget(larger) - kept_for_report_s(parse_budget(larger)) - spent_s)
        if bought:
            advice = f"{larger} would buy {bought}."
        elif stopped.needs_s:
            advice = (
                f"{larger} is about enough for that; what the seeds take is known once some are measured."
            )
        else:
            advice = f"{larger}, for instance; what training and seeds take is known once they are begun."
        return (
            f"stopped before {stopped.step}{takes}: {duration(spent_s)} of the budget of {duration(self.budget_s)} "
            f"are spent. The same command with a larger budget goes on from here: --budget {advice}"
        )


def kept_for_report_s(budget_s: float) -> float:
    """Seconds of a budget that no step may take, for the report comes after all of them."""
    return min(REPORT_SHARE * budget_s, REPORT_S)


def fewest_seeds(learning: LearningConfig) -> int:
    """Seed backbones that are planned however small the budget is."""
    return min(FEWEST_SEEDS, learning.seed_backbones)


def _budget_leaving(left_s: float, spent_s: float) -> str:
    """A budget of which so many seconds are left beside the spent ones and the report's, as a user would write it."""
    without_report_s = left_s + spent_s
    seconds = min(without_report_s / (1.0 - REPORT_SHARE), without_report_s + REPORT_S)
    for unit, size in (("h", 3600.0), ("m", 60.0)):
        if seconds >= 2 * size:
            return f"{math.ceil(seconds / size)}{unit}"
    return f"{math.ceil(seconds)}s"


def standing(study: Study, budget_s: float, spent_s: float | None = None) -> str:
    """Where a study stands with a budget, in one line.

    Args:
        spent_s: by default, what its records say.
    """
    prices = Prices(study)
    spent_s = prices.spent_s() if spent_s is None else spent_s
    unspent_s = max(0.0, budget_s - spent_s)
    kept_s = min(kept_for_report_s(budget_s), unspent_s)
    left_s = unspent_s - kept_s
    bought = prices.buys(left_s) if left_s else ""
    return (
        f"{duration(spent_s)} of {duration(budget_s)} spent, "
        + (f"{duration(kept_s)} kept for the report, " if kept_s else "")
        + f"{duration(left_s)} left"
        + (f": {bought}" if bought else "")
    )
