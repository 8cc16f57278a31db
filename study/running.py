"""The whole loop, until its rounds are done, nothing is left to gain, or a budget of time is spent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .baselines import measure_baselines
from .budget import Budget, BudgetSpent
from .predicted_front import front_confidence
from .stopping import stop_reason
from .suggesting import plan_suggestions

if TYPE_CHECKING:
    from .assembly import ProgressCallback
    from .journal import RoundSummary
    from .loop import Study


def whole_loop(study: Study, progress: ProgressCallback, budget: Budget | None) -> Iterator[RoundSummary]:
    """Seeds, rounds, baselines; see :meth:`.Study.run`."""
    shown = 0
    try:
        for summary in study.findings.summaries():  # of earlier runs, before anything else is measured
            yield summary
            shown += 1
        study.measure(progress, budget)
        while True:
            for summary in study.findings.summaries()[shown:]:
                yield summary
                shown += 1
            if budget is not None:
                budget.note()
            if study.findings.n_planned_rounds == study.findings.n_measured_rounds:
                if _enough_rounds(study, budget) or stop_reason(study):
                    break
                if budget is not None:
                    budget.check_round()
                if not plan_suggestions(study, study.config.learning.batch, progress, may_stop=True):
                    break
            study.measure(progress, budget)
        if budget is not None:
            budget.check("the last search")
        study.search(progress)
        front_confidence(study, progress)
        if study.config.baselines:
            measure_baselines(study, progress, budget)
    except BudgetSpent as spent:
        if budget is None:
            raise
        budget.stopped = spent


def _enough_rounds(study: Study, budget: Budget | None) -> bool:
    """Whether all rounds are done; with a budget, it says how many there are."""
    return budget is None and study.findings.n_suggested_rounds() >= study.config.learning.rounds
