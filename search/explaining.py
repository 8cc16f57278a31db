"""Why designs are suggested, in words and figures that a user can check.

What is said of each: how likely it is to improve the front, and by how much on average; how likely it meets
the constraints; how it is predicted to differ, in the median and in 90 % of the draws, from the member of the
measured front that is nearest to it; what it costs; which searches proposed it; and what it was preferred to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from .acquisition import Suggestion
from .batch import Reason, reference_scale
from .constraints import NO_CONSTRAINTS, Constraints
from .designs import Design
from .metrics import HypervolumeReference
from .outer import SearchResult
from .ranking import front_indices
from .tables import FloatArray

_COSTS = {"energy_mj": "energy", "latency_ms": "latency"}

_CHOSEN_FOR: dict[Reason, str] = {
    "qlognehvi": "most gain over all draws as BoTorch estimates it, whatever it costs",
    "mean": "most hypervolume per second if the means of the draws were certain; what gains nothing then follows "
    "by its variance",
    "thompson": "most hypervolume per second in one draw, taken at random",
    "variance": "least is known of it, whatever it brings or costs",
    "spread": "it fills the largest gap along the second objective on the front of the means, whatever it costs",
    "random": "picked from the pool at random",
}
"""What other strategies than ours choose by."""


@dataclass(frozen=True)
class Comparison:
    """A design against the member of the measured front that is nearest to it.

    Attributes:
        member: row of the measured points.
        differences: by objective: of an error in accuracy its change in percentage points (higher is
            better), of a quantity compared as log its relative change, of others the change itself.
        words: the same for people, with what 90 % of the draws say where it is given.
    """

    member: int
    differences: Mapping[str, float]
    words: str


@dataclass(frozen=True)
class Explanation:
    """What speaks for one suggestion.

    Attributes:
        why: the reason in one sentence.
        gain: expected gain and its probability, one sentence.
        comparison: with the nearest member of the front, one sentence; empty if nothing is measured.
        cost: what it costs, one sentence.
        proposed_by: searches that proposed it, by their names.
        runner_up: what it was preferred to, one sentence; empty if there was nothing else.
        gain_share: expected gain / hypervolume of the measured front; NaN if that is 0.
        constraints: how likely it meets which constraints, one sentence; empty without any.
    """

    why: str
    gain: str
    comparison: str
    cost: str
    proposed_by: tuple[str, ...]
    runner_up: str
    gain_share: float
    constraints: str = ""

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that is to be said, in order."""
        proposed = f"Proposed by {' and '.join(self.proposed_by)}." if self.proposed_by else ""
        said = (self.why, self.gain, self.constraints, self.comparison, self.cost, proposed, self.runner_up)
        return tuple(sentence for sentence in said if sentence)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self) | {"proposed_by": list(self.proposed_by)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(**(document | {"proposed_by": tuple(document["proposed_by"])}))


def proposers(results: Mapping[str, SearchResult]) -> dict[Design, tuple[str, ...]]:
    """Which searches, by their names, have a design on their front or among their last candidates."""
    found: dict[Design, list[str]] = {}
    for name, result in results.items():
        for design in dict.fromkeys(c.design for c in (*result.front, *result.candidates)):
            found.setdefault(design, []).append(name)
    return {design: tuple(names) for design, names in found.items()}


def explain(
    suggestions: Sequence[Suggestion],
    *,
    measured: FloatArray,
    reference: HypervolumeReference,
    proposed_by: Mapping[Design, Sequence[str]],
    name: Callable[[Design], str] = str,
    constraints: Constraints = NO_CONSTRAINTS,
) -> tuple[Explanation, ...]:
    """Explain suggestions.

    Args:
        suggestions: of :func:`.acquisition.suggest`.
        measured: (q, m) measured points that they were weighed against, natural scale.
        reference: what gains were measured to (:func:`.acquisition.covering_reference`).
        proposed_by: of :func:`proposers`.
        name: what to call a design.
        constraints: what the suggestions were asked to keep to.
    """
    return tuple(
        _explanation(
            suggestion, measured, reference, tuple(proposed_by.get(suggestion.design, ())), name, constraints
        )
        for suggestion in suggestions
    )


def _explanation(
    suggestion: Suggestion,
    measured: FloatArray,
    reference: HypervolumeReference,
    proposed_by: tuple[str, ...],
    name: Callable[[Design], str],
    constraints: Constraints,
) -> Explanation:
    volume = reference.hypervolume(measured) if len(measured) else 0.0
    share = suggestion.expected_gain / volume if volume > 0 else float("nan")
    interval = (suggestion.low_90, suggestion.high_90) if suggestion.low_90 else None
    found = (
        None
        if suggestion.why == "repeat"
        else nearest_member(suggestion.median, measured, reference, interval)
    )
    return Explanation(
        why=_why(suggestion, measured, reference),
        gain=_gain(suggestion, share),
        comparison=""
        if found is None
        else f"Against the nearest member of the front, in the median{' (90 % of the draws)' if interval else ''}: "
        f"{found.words}.",
        cost=_cost(suggestion),
        proposed_by=proposed_by,
        runner_up=_runner_up(suggestion, name),
        gain_share=share,
        constraints=_feasibility(suggestion, constraints),
    )


def _why(suggestion: Suggestion, measured: FloatArray, reference: HypervolumeReference) -> str:
    if suggestion.why == "repeat":
        return (
            "Measured before, and within its errors neither surely on the front nor surely off it: "
            "a second measurement decides."
        )
    if suggestion.why == "information":
        # The figure is a share per second.
        share = suggestion.gain_per_s * suggestion.cost_s
        return f"It tells most per second: {100 * share:.1f} % of what is uncertain about the designs near the front."
    if suggestion.why in _CHOSEN_FOR:
        return f"Chosen by the strategy {suggestion.why}: {_CHOSEN_FOR[suggestion.why]}."
    promises = "It promises most hypervolume per second."
    if suggestion.n_sharing > 1:
        promises = (
            f"A new backbone: its best {suggestion.n_sharing} designs together promise most hypervolume per "
            "second, the accuracy job paid once."
        )
    points = np.array([*measured.tolist(), suggestion.median])
    if reference.hypervolume(points) > (reference.hypervolume(measured) if len(measured) else 0.0):
        return promises
    return f"{promises} In the median it adds nothing: it is chosen because it is very uncertain."


def _feasibility(suggestion: Suggestion, constraints: Constraints) -> str:
    if suggestion.probability_feasible is None or not constraints.any:
        return ""
    return f"Probability {suggestion.probability_feasible:.2f} to meet the constraints ({constraints})."


def _gain(suggestion: Suggestion, share: float) -> str:
    if suggestion.why == "repeat":
        return ""
    relative = "" if np.isnan(share) else f", {100 * share:+.2f} % of the measured hypervolume"
    return (
        f"Probability {suggestion.probability_of_gain:.2f} to join the measured front; expected "
        f"gain {suggestion.expected_gain:.4g} given those before it{relative}."
    )


def _cost(suggestion: Suggestion) -> str:
    job_s = suggestion.accuracy_job_s
    job = f", {job_s:.0f} s of them for the accuracy of its backbone, measured once" if job_s > 0 else ""
    return f"Costs {suggestion.cost_s:.0f} s{job}."


def _runner_up(suggestion: Suggestion, name: Callable[[Design], str]) -> str:
    if suggestion.runner_up is None or suggestion.runner_up[1] <= 0:
        return ""
    design, figure = suggestion.runner_up
    return (
        f"Next best was {name(design)}, with {100 * figure / suggestion.gain_per_s:.0f} % of that per second."
    )


def nearest_member(
    median: Sequence[float],
    measured: FloatArray,
    reference: HypervolumeReference,
    interval: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Comparison | None:
    """The member of the measured front nearest to a point, and how the point differs from it.

    Distance is Euclidean on the scale of the reference, each objective in units of the distance from
    its best measured value to the reference.

    Args:
        median: m objectives, natural scale.
        measured: (q, m).
        interval: low and high ends of what is likely of each objective, likewise.
    """
    if not len(measured):
        return None
    front = front_indices(measured)
    point = np.array(median)
    scaled = reference.transform(measured[front]) - reference.transform(point)
    distance = ((scaled / reference_scale(reference, measured)) ** 2).sum(axis=1)
    member = int(front[int(np.argmin(distance))])
    differences: dict[str, float] = {}
    words = []
    values = np.array([point, *(interval or ())])
    for k, (column, is_log) in enumerate(zip(reference.columns, reference.log, strict=True)):
        own, other = values[:, k], float(measured[member, k])
        is_error = column == "error"
        changed = own / other - 1.0 if is_log else own - other
        found = 100.0 * (other - own) if is_error else changed
        differences["accuracy" if is_error else column] = float(found[0])
        # The largest error is the lowest accuracy: ends change places.
        words.append(_difference_words(column, is_log, float(found[0]), sorted(found[1:].tolist())))
    return Comparison(member, differences, ", ".join(words))


def _difference_words(column: str, is_log: bool, median: float, likely: Sequence[float]) -> str:
    """E.g. ``energy +21.3 % (-5.0 .. +90.1)``."""
    if column == "error":
        name, factor, digits, unit = "accuracy", 1.0, "+.2f", " points"
    elif is_log:
        name, factor, digits, unit = _COSTS.get(column, column), 100.0, "+.1f", " %"
    else:
        name, factor, digits, unit = column, 1.0, "+.4g", ""
    interval = f" ({' .. '.join(f'{factor * end:{digits}}' for end in likely)})" if likely else ""
    return f"{name} {factor * median:{digits}}{unit}{interval}"
