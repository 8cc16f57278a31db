"""From findings to words and rows of text, for the command line and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...search.report.wording import percent, significant, with_error
from ...spaces.quantized import LETTERS
from ..ledger import duration
from .findings import EdgeFindings, EdgePoint, EdgeRound

if TYPE_CHECKING:
    from .loop import EdgeStudy

ET = "ET_avg, J x cycles"
FRONT_COLUMNS = (
    "network",
    "exits",
    "bits",
    "accuracy",
    ET,
    "less than its static",
    "head share",
    "leaving, %",
)
SAVING_COLUMNS = ("static", "accuracy", ET, "cheapest network", "as accurate", "accuracy", "ET_avg less")

_WITHIN, _STRICT = "within 1 se", "strictly"

_QUANTITY_NAMES = {"accuracy": "accuracy", "et_average": "ET_avg", "head_share": "head share"}


def described(point: EdgePoint) -> str:
    """A network for people: its exits with the layers of their heads, and its bits."""
    return f"{shown_exits(point)} at {point.bits} bits"


def shown_exits(point: EdgePoint) -> str:
    """Exits with the layers of their heads, such as ``D1 F2 K1``."""
    return " ".join(f"{LETTERS[i]}{point.network.heads[i]}" for i in point.network.exits)


def shown_shares(point: EdgePoint) -> str:
    """Where the samples of the test split leave, in percent."""
    return " ".join(f"{100 * share:.0f}" for share in point.test.shares)


def front_rows(findings: EdgeFindings) -> list[list[str]]:
    """The front (of the calibration split), judged on the test split, cheapest first; then the static networks."""
    points = findings.points()
    front = findings.front(points)
    rest = [point for point in points if point.is_static and point not in front]
    return [
        [
            point.name,
            shown_exits(point),
            point.bits,
            percent(point.test.accuracy, point.test.accuracy_se),
            with_error(point.test.et_average, point.test.et_average_se or None),
            "–" if len(point.network.exits) == 1 else percent(point.test.reduction),
            percent(point.test.head_share),
            shown_shares(point),
        ]
        for point in (*front, *rest)
    ]


@dataclass(frozen=True)
class Saving:
    """What exits save against one static network, at its accuracy.

    Picked on the calibration split; accuracy and ET_avg of all three are those of the test split.

    Attributes:
        static: what is compared with.
        same_bits: whether only networks of its bits were looked at.
        within: cheapest network at most one standard error of the static network less accurate; ``None`` = none cheaper.
        strict: cheapest network that is not less accurate at all.
    """

    static: EdgePoint
    same_bits: bool
    within: EdgePoint | None
    strict: EdgePoint | None

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
    found = [_saving(base, [p for p in points if p.bits == base.bits], same_bits=True) for base in static]
    if static:
        best = max(static, key=lambda point: (point.search.accuracy, -point.search.et_average))
        found.append(_saving(best, points, same_bits=False))
    return found


def _saving(static: EdgePoint, points: Sequence[EdgePoint], *, same_bits: bool) -> Saving:
    bar, error = static.search.accuracy, static.search.accuracy_se

    def cheapest(least: float) -> EdgePoint | None:
        able = [p for p in points if p.search.accuracy >= least and p.feasible]
        able = [p for p in able if p.search.et_average < static.search.et_average]
        return min(able, key=lambda p: p.search.et_average, default=None)

    return Saving(static, same_bits, cheapest(bar - error), cheapest(bar))


def saving_rows(findings: EdgeFindings) -> list[list[str]]:
    """One row of text per comparison with a static network."""
    rows = []
    for saving in savings(findings.points()):
        static = saving.static
        base = [
            f"{static.bits} vs {'own' if saving.same_bits else 'any'}",
            percent(static.test.accuracy, static.test.accuracy_se),
            significant(static.test.et_average),
        ]
        for bar, found in saving.bars:
            if found is None:
                rows.append([*base, "none", bar, "–", "–"])
                continue
            own = percent(found.test.accuracy, found.test.accuracy_se)
            rows.append([*base, described(found), bar, own, percent(*saving.reduction(found))])
    return rows


def statements(findings: EdgeFindings) -> list[str]:
    """What was found, in plain sentences."""
    points = findings.points()
    found = [_constraints(findings, points)] if findings.limits else []
    if not points:
        return found
    compared = savings(points)
    # Where nothing of its own bits was found, the table says so.
    told = [saving for saving in compared[:-1] if saving.within is not None] + compared[-1:]
    found += [_saved(saving, findings.mark) for saving in told]
    early = [p.test for p in findings.front(points) if len(p.network.exits) > 1]
    if early:
        static, full = [one.reduction for one in early], [one.reduction_of_full_pass for one in early]
        found.append(
            f"Networks of the front with early exits ({len(early)}) have {percent(min(static))} to {percent(max(static))} "
            f"less ET_avg than the same backbone and bits without early exits, and {percent(min(full))} to "
            f"{percent(max(full))} less than themselves run to the end ({findings.mark}), whatever their accuracy. "
            "Published, for larger networks on other images: over 50 % claimed, 35 to 48 % in the artefacts."
        )
    if checked := _held(findings):
        found.append(checked)
    return found


def _constraints(findings: EdgeFindings, points: Sequence[EdgePoint]) -> str:
    n = sum(point.feasible for point in points)
    return f"Constraints ({', '.join(findings.limits)}): {n} of {len(points)} trained networks meet them."


def _saved(saving: Saving, mark: str) -> str:
    static = saving.static
    which = (
        f"the static network at {static.bits} bits"
        if saving.same_bits
        else "the most accurate static network"
    )
    base = (
        f"{which} ({'' if saving.same_bits else f'{static.bits} bits, '}"
        f"{percent(static.test.accuracy, static.test.accuracy_se)} on the test split, ET "
        f"{significant(static.test.et_average)} J x cycles)"
    )
    whose = "of the same bits" if saving.same_bits else "of any bits"
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
            f"at {percent(found.test.accuracy, found.test.accuracy_se)}"
        )
    return f"Against {base}, among networks {whose} (costs {mark}): {'; '.join(parts)}."


def _held(findings: EdgeFindings) -> str:
    held: dict[str, list[bool]] = {}
    for number in range(1, findings.n_rounds):
        for check in findings.checks(number):
            held.setdefault(check.quantity, []).append(check.inside)
    shares = ", ".join(f"{_QUANTITY_NAMES[q]} {sum(one)} of {len(one)}" for q, one in held.items())
    return f"Predicted before they were trained, inside their 90 % interval: {shares}." if shares else ""


def round_line(summary: EdgeRound) -> str:
    """One sentence on a round."""
    name = "seeds" if summary.number == 0 else f"round {summary.number}"
    parts = [f"{name}: {summary.n_trained} networks trained, hypervolume {summary.hypervolume:.4f}"]
    if summary.inside_90:
        shares = ", ".join(
            f"{_QUANTITY_NAMES[quantity]} {inside} of {n}"
            for quantity, (inside, n) in summary.inside_90.items()
        )
        parts.append(f"found inside the predicted 90 % interval: {shares}")
    parts.append(f"{duration(summary.seconds)} of training")
    parts += [f"{network_id} failed: {reason}" for network_id, reason in summary.failed]
    return "; ".join(parts)


def status_rows(study: EdgeStudy) -> list[tuple[str, str]]:
    """What is trained, what it cost, and what comes next."""
    findings, parts = study.findings, study.parts
    rows = [
        ("store", study.store.url),
        ("accelerator", f"{parts.accelerator.name} ({findings.mark})"),
        ("rounds trained", f"{findings.n_rounds} (seeds included)"),
    ]
    tables = [findings.event(f"table:{k}") for k in range(_count_tables(study))]
    n_layers = sum(event["n_layers"] for event in tables if event)
    seconds = sum(event["cpu_seconds"] for event in tables if event)
    rows.append(("layers modelled", f"{n_layers} by this study, in {duration(seconds)} of processor time"))
    rows += [("", round_line(summary)) for summary in findings.summaries()]
    if findings.n_rounds and findings.limits:
        rows.append(("constraints", _constraints(findings, findings.points())))
    ended = study.ended()
    if ended:
        rows.append(("ended", ended))
    elif findings.n_planned > findings.n_rounds:
        networks = findings.planned(findings.n_rounds)
        study.trained.find(networks)
        n = sum(study.trained.has(network.trained_id) for network in networks)
        rows.append(("being trained", f"{n} of {len(networks)} networks of round {findings.n_rounds}"))
    if infeasible := study.infeasible():
        rows.append(("ended", infeasible))
        rows.append(
            (
                "next",
                "relax 'search.constraints' in the study file, or raise 'learning.rounds'; hadas run --adopt",
            )
        )
    else:
        rows.append(("next", "hadas report" if ended else "hadas run"))
    return rows


def _count_tables(study: EdgeStudy) -> int:
    return sum(key.startswith("table:") for key in study.store.event_keys(study.config.study))
