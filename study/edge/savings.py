"""What early exits save against the static networks, at their accuracy: picked on one split, judged on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...search.report.wording import percent, significant
from ...spaces.quantized import LETTERS
from .findings import EdgePoint

SAVING_COLUMNS = (
    "static",
    "its accuracy",
    "its ET, J x cycles",
    "cheapest with exits",
    "as accurate",
    "accuracy",
    "ET_avg less",
)

_WITHIN, _STRICT = "within 1 se", "strictly"


def described(point: EdgePoint) -> str:
    """A network for people: its exits with the layers of their heads, and its bits."""
    return f"{shown_exits(point)} at {point.bits} bits"


def shown_exits(point: EdgePoint) -> str:
    """Exits with the layers of their heads, such as ``D1 F2 K1``."""
    return " ".join(f"{LETTERS[i]}{point.network.heads[i]}" for i in point.network.exits)


@dataclass(frozen=True)
class Saving:
    """What early exits save against one static network, at its accuracy.

    Picked among networks with early exits on the calibration split; accuracy and ET_avg of all three are those of the
    test split.

    Attributes:
        static: what is compared with.
        same_bits: whether only networks of its bits were looked at; if not, what fewer bits save counts, too.
        within: cheapest network at most one standard error of the static network less accurate; ``None`` = none cheaper.
        strict: cheapest network that is not less accurate at all.
        limits_decide: whether a cheaper one of ``within`` was left out because it misses the constraints.
    """

    static: EdgePoint
    same_bits: bool
    within: EdgePoint | None
    strict: EdgePoint | None
    limits_decide: bool

    @property
    def bars(self) -> list[tuple[str, EdgePoint | None]]:
        """What was found by how accurate it had to be; one entry where both bars give the same."""
        if self.within is self.strict:
            return [("either way", self.within)]
        return [(_WITHIN, self.within), (_STRICT, self.strict)]

    def reduction(self, found: EdgePoint) -> tuple[float, float]:
        """1 - ET_avg / ET of the static network on the test split, and its standard error (of the shares)."""
        base = self.static.test.et_average
        return 1.0 - found.test.et_average / base, found.test.et_average_se / base


def savings(points: Sequence[EdgePoint]) -> list[Saving]:
    """Against each static network with its own bits; then any bits against the most accurate static network."""
    static = [point for point in points if point.is_static]
    early = [point for point in points if len(point.network.exits) > 1]
    found = [_saving(base, [p for p in early if p.bits == base.bits], same_bits=True) for base in static]
    if static:
        found.append(_saving(min(static, key=_by_accuracy), early, same_bits=False))
    return found


def headline(points: Sequence[EdgePoint]) -> Saving | None:
    """What exits alone save: against the most accurate static network that any of its own bits is cheaper than.

    Chosen on the calibration split, as all that is compared; ``None`` if exits save nothing at any bits.
    """
    own = [saving for saving in savings(points) if saving.same_bits and saving.within is not None]
    return min(own, key=lambda saving: _by_accuracy(saving.static), default=None)


def _by_accuracy(point: EdgePoint) -> tuple[float, float]:
    return -point.search.accuracy, point.search.et_average


def _saving(static: EdgePoint, points: Sequence[EdgePoint], *, same_bits: bool) -> Saving:
    bar, error = static.search.accuracy, static.search.accuracy_se
    cheaper = [p for p in points if p.search.et_average < static.search.et_average]

    def cheapest(least: float, among: Sequence[EdgePoint]) -> EdgePoint | None:
        able = [p for p in among if p.search.accuracy >= least]
        return min(able, key=lambda p: p.search.et_average, default=None)

    allowed = [p for p in cheaper if p.feasible]
    within = cheapest(bar - error, allowed)
    limits_decide = cheapest(bar - error, cheaper) is not within
    return Saving(static, same_bits, within, cheapest(bar, allowed), limits_decide)


def saving_rows(points: Sequence[EdgePoint]) -> list[list[str]]:
    """One row of text per comparison with a static network."""
    rows = []
    for saving in savings(points):
        static = saving.static
        base = [
            f"{static.bits} vs {'own' if saving.same_bits else 'any'}",
            percent(static.test.accuracy, static.test.accuracy_se),
            significant(static.test.et_average),
        ]
        for bar, found in saving.bars:
            if found is None:
                none = "none within the constraints" if saving.limits_decide else "none"
                rows.append([*base, none, bar, "–", "–"])
                continue
            own = percent(found.test.accuracy, found.test.accuracy_se)
            rows.append([*base, described(found), bar, own, percent(*saving.reduction(found))])
    return rows


def saving_sentences(points: Sequence[EdgePoint], mark: str) -> list[str]:
    """What was saved against whom; where nothing of its own bits was found and no constraint decides, the table tells."""
    compared = savings(points)
    told = [one for one in compared[:-1] if one.within is not None or one.limits_decide] + compared[-1:]
    return [_sentence(saving, mark) for saving in told]


def _sentence(saving: Saving, mark: str) -> str:
    static = saving.static
    which = (
        f"the static network at {static.bits} bits"
        if saving.same_bits
        else "the most accurate static network"
    )
    base = (
        f"{which} ({'' if saving.same_bits else f'{static.bits} bits, '}"
        f"{percent(static.test.accuracy, static.test.accuracy_se)} on the test split, ET "
        f"{significant(static.test.et_average)} J x cycles{'' if static.feasible else ', misses the constraints'})"
    )
    whose = f"of {'the same' if saving.same_bits else 'any'} bits with early exits"
    whose += " within the constraints" if saving.limits_decide else ""
    if saving.within is None:
        return f"No trained network {whose} is as accurate as {base}, within one standard error, and cheaper."
    parts = []
    for bar, found in saving.bars:
        accurate = "at most one standard error less accurate" if bar == _WITHIN else "not less accurate"
        if found is None:
            parts.append(f"none is cheaper and {accurate}")
            continue
        parts.append(
            f"{described(found)}, {accurate} on the calibration split, has {percent(*saving.reduction(found))} less ET_avg "
            f"at {accuracy_against(static, found)}{_by_bits(static, found)}"
        )
    return f"Against {base}, among networks {whose} (costs {mark}): {'; '.join(parts)}."


def accuracy_against(static: EdgePoint, found: EdgePoint) -> str:
    """Accuracy on the test split, and by how much it differs from that of the static network."""
    accuracy = found.test.accuracy
    difference = 100 * (accuracy - static.test.accuracy)
    return f"{percent(accuracy, found.test.accuracy_se)} ({difference:+.1f} points) on the test split"


def _by_bits(static: EdgePoint, found: EdgePoint) -> str:
    return "" if found.bits == static.bits else ", its fewer bits included"
