"""Why designs are suggested, in words and figures that a user can check.

What is said of each: how likely it is to improve the front, and by how much on average; how it is
expected to differ from the member of the measured front that is nearest to it; what it costs; which
searches proposed it; and what it was preferred to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from .acquisition import Suggestion
from .batch import reference_scale
from .designs import Design
from .metrics import HypervolumeReference
from .outer import SearchResult
from .ranking import front_indices
from .tables import FloatArray

_COSTS = {"energy_mj": "energy", "latency_ms": "latency"}


@dataclass(frozen=True)
class Comparison:
    """A design against the member of the measured front that is nearest to it.

    Attributes:
        member: row of the measured points.
        differences: by objective: of an error in accuracy its change in percentage points (higher is
            better), of a quantity compared as log its relative change, of others the change itself.
        words: the same for people.
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
    """

    why: str
    gain: str
    comparison: str
    cost: str
    proposed_by: tuple[str, ...]
    runner_up: str
    gain_share: float

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that is to be said, in order."""
        proposed = f"Proposed by {' and '.join(self.proposed_by)}." if self.proposed_by else ""
        said = (self.why, self.gain, self.comparison, self.cost, proposed, self.runner_up)
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
) -> tuple[Explanation, ...]:
    """Explain suggestions.

    Args:
        suggestions: of :func:`.acquisition.suggest`.
        measured: (q, m) measured points that they were weighed against, natural scale.
        reference: the study's hypervolume reference.
        proposed_by: of :func:`proposers`.
        name: what to call a design.
    """
    return tuple(
        _explanation(suggestion, measured, reference, tuple(proposed_by.get(suggestion.design, ())), name)
        for suggestion in suggestions
    )


def _explanation(
    suggestion: Suggestion,
    measured: FloatArray,
    reference: HypervolumeReference,
    proposed_by: tuple[str, ...],
    name: Callable[[Design], str],
) -> Explanation:
    volume = reference.hypervolume(measured) if len(measured) else 0.0
    share = suggestion.expected_gain / volume if volume > 0 else float("nan")
    found = None if suggestion.why == "repeat" else nearest_member(suggestion.expected, measured, reference)
    return Explanation(
        why=_why(suggestion),
        gain=_gain(suggestion, share),
        comparison="" if found is None else f"Against the nearest member of the front: {found.words}.",
        cost=_cost(suggestion),
        proposed_by=proposed_by,
        runner_up=_runner_up(suggestion, name),
        gain_share=share,
    )


def _why(suggestion: Suggestion) -> str:
    if suggestion.why == "repeat":
        return (
            "Measured before, and within its errors neither surely on the front nor surely off it: "
            "a second measurement decides."
        )
    if suggestion.why == "information":
        # The figure is a share per second.
        share = suggestion.gain_per_s * suggestion.cost_s
        return f"It tells most per second: {100 * share:.1f} % of what is uncertain about the designs near the front."
    if suggestion.n_sharing > 1:
        return (
            f"A new backbone: its best {suggestion.n_sharing} designs together promise most hypervolume per "
            "second, the accuracy job paid once."
        )
    return "It promises most hypervolume per second."


def _gain(suggestion: Suggestion, share: float) -> str:
    if suggestion.why == "repeat":
        return ""
    relative = "" if np.isnan(share) else f", {100 * share:+.2f} % of the measured hypervolume"
    return (
        f"Probability {suggestion.probability_of_gain:.2f} to join the measured front; expected "
        f"gain {suggestion.expected_gain:.4g} given those before it{relative}."
    )


def _cost(suggestion: Suggestion) -> str:
    return f"Costs {suggestion.cost_s:.0f} s."


def _runner_up(suggestion: Suggestion, name: Callable[[Design], str]) -> str:
    if suggestion.runner_up is None or suggestion.runner_up[1] <= 0:
        return ""
    design, figure = suggestion.runner_up
    return (
        f"Next best was {name(design)}, with {100 * figure / suggestion.gain_per_s:.0f} % of that per second."
    )


def nearest_member(
    expected: Sequence[float], measured: FloatArray, reference: HypervolumeReference
) -> Comparison | None:
    """The member of the measured front nearest to a point, and how the point differs from it.

    Distance is Euclidean on the scale of the reference, each objective in units of the distance from
    its best measured value to the reference.

    Args:
        expected: m objectives, natural scale.
        measured: (q, m).
    """
    if not len(measured):
        return None
    front = front_indices(measured)
    point = np.array(expected)
    scaled = reference.transform(measured[front]) - reference.transform(point)
    distance = ((scaled / reference_scale(reference, measured)) ** 2).sum(axis=1)
    member = int(front[int(np.argmin(distance))])
    differences: dict[str, float] = {}
    words = []
    for column, is_log, own, other in zip(
        reference.columns, reference.log, point.tolist(), measured[member].tolist(), strict=True
    ):
        if column == "error":
            differences["accuracy"] = 100.0 * (other - own)
            words.append(f"accuracy {differences['accuracy']:+.2f} points")
        elif is_log:
            differences[column] = own / other - 1.0
            words.append(f"expected {_COSTS.get(column, column)} {100 * differences[column]:+.1f} %")
        else:
            differences[column] = own - other
            words.append(f"{column} {differences[column]:+.4g}")
    return Comparison(member, differences, ", ".join(words))
