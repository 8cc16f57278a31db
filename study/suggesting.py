"""Which points are most worth measuring next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import InfeasibleError

if TYPE_CHECKING:
    from ..search.acquisition import Suggestion
    from ..search.designs import Design
    from ..search.outer import SearchResult
    from ..surrogates.predictor_set import PredictorDraws
    from .assembly import ProgressCallback
    from .findings import FloatArray
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
    """The ``n`` points whose measurement is worth most per second, from searches on the mean and on joint draws.

    Measured points that miss a constraint do not count, and neither do draws in which a candidate misses one.
    """
    from ..search.acquisition import candidate_pool, suggest

    r, learning, findings = study.latest_round(), study.config.learning, study.findings
    worlds = study.worlds(progress)
    draws = worlds.predictors.draws(learning.draws, study.seed_for(5, r))
    results = _searches(study, draws, progress)
    points = findings.loop_points()
    standing = findings.comparable(points)
    measured, errors = findings.objectives(standing)
    pending = study.pending_designs()
    pool = candidate_pool(results, exclude={point.design for point in points} | set(pending))
    pool_draws, feasible = _drawn(study, pool, draws)
    pending_draws, pending_feasible = _drawn(study, pending, draws) if pending else (None, None)
    # Never a question of a budget, so that what is chosen does not depend on how long it lasts.
    is_last = findings.n_suggested_rounds() + 1 == learning.rounds
    return suggest(
        pool,
        pool_draws,
        measured=measured,
        reference=findings.reference,
        measured_backbones={
            item.backbone.arch_id for item in (*pending, *(point.design for point in points))
        },
        costs=findings.unit_costs(),
        batch=n,
        pending_draws=pending_draws,
        # What the last round learns no later round can use.
        information_share=0.0 if is_last else learning.information_share,
        feasible=feasible,
        pending_feasible=pending_feasible,
        measured_designs=[point.design for point in standing],
        measured_errors=errors,
    )


def _searches(study: Study, draws: PredictorDraws, progress: ProgressCallback) -> list[SearchResult]:
    """What searches on the mean and on some joint draws find; one in which nothing is feasible finds nothing."""
    r, worlds = study.latest_round(), study.worlds(progress)
    found = study.search(progress)
    results = [found]
    for i in range(study.config.learning.searches_on_draws):
        phase, seed = f"nested search on draw {i + 1}", study.seed_for(6, r, i)
        # A draw may be a world in which nothing meets the constraints, although the mean is none.
        with suppress(InfeasibleError):
            results.append(study.search_in(worlds.drawn(draws, i), seed, phase, progress, found.population))
    return results


def _drawn(
    study: Study, designs: Sequence[Design], draws: PredictorDraws
) -> tuple[FloatArray, NDArray[np.bool_] | None]:
    """(s, n, m) objectives of designs in every draw, and (s, n) whether they meet the constraints there, if any."""
    findings = study.findings
    drawn = study.worlds().design_draws(designs, draws)
    objectives = drawn.objectives([column.name for column in findings.columns])
    if not findings.constraints.any:
        return objectives, None
    n_exits = np.array([float(len(design.exits.positions)) for design in designs])
    misses = findings.constraints.violation(1.0 - drawn.error, drawn.energy_mj, drawn.latency_ms, n_exits)
    return objectives, misses == 0.0
