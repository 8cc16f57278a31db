"""Whether going on is worth it: what the latest best batch was expected to bring, against what is measured.

Journal key ``stop:r`` (as searches are labelled): the batch after round r that the loop did not plan, because it and
those before it promised too little.  A changed rule is asked anew, with the same figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..search.stopping import RoundProspect
    from .loop import Study


def stop_reason(study: Study, expected_gain: float | None = None, hypervolume: float = 0.0) -> str:
    """Why the loop stops here, in words; empty if it goes on.

    Args:
        expected_gain: hypervolume that the best batch after the latest round is expected to add; by default the
            journalled one of a batch that the loop stopped at, if there is one.
        hypervolume: of what is measured, to the same reference.
    """
    from ..search.stopping import StoppingRule

    findings, learning = study.findings, study.config.learning
    if not learning.stop_gain or not findings.n_measured_rounds:
        return ""
    stopped = findings.event(_key(study))
    if expected_gain is not None:
        latest = {"expected_gain": expected_gain, "hypervolume": hypervolume}
    elif stopped is not None:
        latest = stopped
    else:
        return ""
    planned = [plan for plan in findings.plans() if plan.get("expected_gain") is not None]
    rule = StoppingRule(learning.stop_gain, learning.stop_rounds)
    reason = rule.reason([_prospect(found) for found in (*planned, latest)])
    if reason and stopped is None:
        study.journal(_key(study), latest)
    return reason or ""


def _key(study: Study) -> str:
    return f"stop:{study.findings.search_label(study.latest_round())}"


def _prospect(found: dict[str, Any]) -> RoundProspect:
    from ..search.stopping import RoundProspect

    return RoundProspect(found["expected_gain"], found["hypervolume"])
