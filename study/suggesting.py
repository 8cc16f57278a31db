"""Which points are most worth measuring next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InfeasibleError
from .journal import design_to_json
from .stopping import stop_reason

if TYPE_CHECKING:
    from ..search.acquisition import Suggestion
    from ..search.designs import Design
    from ..search.explaining import Explanation
    from ..search.outer import SearchResult
    from ..surrogates.predictor_set import PredictorDraws
    from .assembly import ProgressCallback
    from .findings import FloatArray
    from .loop import Study


N_CHECK_DRAWS = 256
"""Joint draws behind the predicted intervals that a round is checked against."""


def journal_plan(
    study: Study,
    designs: Sequence[Design],
    why: Sequence[dict[str, Any]],
    *,
    asked_for: bool = False,
    **found: Any,
) -> None:
    """Write down what the next round measures, with what is predicted of it now.

    Args:
        why: per design, why it was chosen.
        asked_for: whether the user named the designs, so that nothing proposed them for what was predicted of them.
        found: what else is to be remembered of the choice.
    """
    worlds = study.worlds().unshifted() if asked_for else study.worlds()
    seed = study.seed_for(7, study.latest_round())
    study.journal(
        f"plan:{study.findings.n_planned_rounds}",
        {
            "asked_for": asked_for,
            "designs": [design_to_json(d.backbone, d.exits, d.setting) for d in designs],
            "suggestions": list(why),
            "predictions": worlds.predictions(designs, n_draws=N_CHECK_DRAWS, seed=seed),
            "corrections": {quantity: c.to_json() for quantity, c in worlds.corrections.items()},
            **found,
        },
    )


def plan_suggestions(study: Study, n: int, progress: ProgressCallback, *, may_stop: bool = False) -> bool:
    """Choose ``n`` points and plan them as the next round.

    Args:
        may_stop: ask first whether their measurement is worth it (see :mod:`.stopping`).

    Returns:
        Whether they are planned.
    """
    began = time.monotonic()
    chosen, measured = suggestions_of(study, n, progress)
    gain = sum(suggestion.expected_gain for suggestion, _ in chosen)
    if may_stop and stop_reason(study, gain, measured):
        return False
    why = [
        {
            "expected_gain": suggestion.expected_gain,
            "cost_s": suggestion.cost_s,
            "why": suggestion.why,
            "explanation": explanation.to_json(),
        }
        for suggestion, explanation in chosen
    ]
    journal_plan(
        study, [suggestion.design for suggestion, _ in chosen], why, expected_gain=gain, hypervolume=measured,
        seconds=time.monotonic() - began,
    )  # fmt: skip
    return True


def suggestions_of(
    study: Study, n: int, progress: ProgressCallback
) -> tuple[Sequence[tuple[Suggestion, Explanation]], float]:
    """The ``n`` points whose measurement is worth most per second, from searches on the mean and on joint draws.

    Measured points that miss a constraint do not count, and neither do draws in which a candidate misses one.
    Gains are measured to the study's reference, moved out so far that it covers the candidates' front.

    Returns:
        The points, and the hypervolume of what is measured, to the same reference.
    """
    from ..search.acquisition import candidate_pool, covering_reference, suggest
    from ..search.explaining import explain, proposers
    from ..search.repeating import repeatable_errors

    r, learning, findings = study.latest_round(), study.config.learning, study.findings
    worlds = study.worlds(progress)
    draws = worlds.predictors.draws(learning.draws, study.seed_for(5, r))
    results = _searches(study, draws, progress)
    points = findings.loop_points()
    standing = findings.comparable(points)
    columns = [column.name for column in findings.columns]
    measured, _ = findings.objectives(standing)
    pending = study.pending_designs()
    excluded = {point.design for point in points} | set(pending)
    pool = candidate_pool(list(results.values()), exclude=excluded)
    pool_draws, feasible = drawn_objectives(study, pool, draws)
    reference = covering_reference(findings.reference, measured, pool_draws, feasible)
    pending_draws, pending_feasible = drawn_objectives(study, pending, draws) if pending else (None, None)
    # Never a question of a budget, so that what is chosen does not depend on how long it lasts.
    is_last = findings.n_suggested_rounds() + 1 == learning.rounds
    suggestions = suggest(
        pool,
        pool_draws,
        measured=measured,
        reference=reference,
        measured_backbones={item.backbone.arch_id for item in excluded},
        costs=findings.unit_costs(),
        batch=n,
        pending_draws=pending_draws,
        # What the last round learns no later round can use.
        information_share=0.0 if is_last else learning.information_share,
        feasible=feasible,
        pending_feasible=pending_feasible,
        measured_designs=[point.design for point in standing],
        measured_errors=repeatable_errors(
            [point.outcome for point in standing], [point.cost for point in standing], columns
        ),
        strategy=learning.strategy,
        seed=study.seed_for(10, r),
    )
    explanations = explain(
        suggestions,
        measured=measured,
        reference=reference,
        proposed_by=proposers(results),
        name=lambda design: f"{findings.name(design.backbone)} with exits {design.exits} at {design.setting}",
        constraints=findings.constraints,
    )
    hypervolume = reference.hypervolume(measured) if len(measured) else 0.0
    return list(zip(suggestions, explanations, strict=True)), hypervolume


def _searches(study: Study, draws: PredictorDraws, progress: ProgressCallback) -> dict[str, SearchResult]:
    """What searches on the mean and on some joint draws find, by their names; nothing where nothing is feasible."""
    r, worlds = study.latest_round(), study.worlds(progress)
    found = study.search(progress)
    results = {"the search on the mean": found}
    for i in range(study.config.learning.searches_on_draws):
        phase, seed = f"nested search on draw {i + 1}", study.seed_for(6, r, i)
        # A draw may be a world in which nothing meets the constraints, although the mean is none.
        with suppress(InfeasibleError):
            result = study.search_in(worlds.drawn(draws, i), seed, phase, progress, found.population)
            results[f"the search on draw {i + 1}"] = result
    return results


def drawn_objectives(
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
