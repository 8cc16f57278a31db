"""Which points are most worth measuring next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..search.acquisition import Suggestion
    from .assembly import ProgressCallback
    from .loop import Study


def plan_suggestions(study: Study, n: int, progress: ProgressCallback) -> None:
    """Choose ``n`` points and plan them as the next round."""
    began = time.monotonic()
    suggestions = suggestions_of(study, n, progress)
    why = [{"expected_gain": s.expected_gain, "cost_s": s.cost_s, "why": s.why} for s in suggestions]
    study.journal_plan([s.design for s in suggestions], why, seconds=time.monotonic() - began)


def plan_round(study: Study, progress: ProgressCallback) -> bool:
    """Plan the next round of the loop."""
    plan_suggestions(study, study.config.learning.batch, progress)
    return True


def suggestions_of(study: Study, n: int, progress: ProgressCallback) -> Sequence[Suggestion]:
    """The ``n`` points whose measurement is worth most per second, from searches on the mean and on joint draws."""
    from ..search.acquisition import candidate_pool, suggest

    r, learning, findings = study.latest_round(), study.config.learning, study.findings
    found, worlds = study.search(progress), study.worlds(progress)
    draws = worlds.predictors.draws(learning.draws, study.seed_for(5, r))
    results = [found]
    for i in range(learning.searches_on_draws):
        phase = f"nested search on draw {i + 1}"
        world = worlds.drawn(draws, i)
        results.append(study.search_in(world, study.seed_for(6, r, i), phase, progress, found.population))
    points = findings.loop_points()
    measured, _ = findings.objectives(points)
    pool = candidate_pool(results, exclude={point.design for point in points})
    # Never a question of a budget, so that what is chosen does not depend on how long it lasts.
    is_last = findings.n_suggested_rounds() + 1 == learning.rounds
    return suggest(
        pool,
        worlds.design_draws(pool, draws).objectives([column.name for column in findings.columns]),
        measured=measured,
        reference=findings.reference,
        measured_backbones={point.design.backbone.arch_id for point in points},
        costs=findings.unit_costs(),
        batch=n,
        # What the last round learns no later round can use.
        information_share=0.0 if is_last else learning.information_share,
    )
