"""From findings to words and rows of text, for the command line and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import TYPE_CHECKING

from ...search.report.wording import percent, significant, with_error
from ...spaces.quantized import FINAL
from ..ledger import duration
from .findings import EdgeFindings, EdgePoint, EdgeRound
from .savings import saving_sentences, shown_exits

if TYPE_CHECKING:
    from .loop import EdgeStudy

FRONT_COLUMNS = (
    "network",
    "exits and bits",
    "accuracy",
    "ET_avg, J x cycles",
    "less than its static",
    "head share",
    "leave, %",
)
_QUANTITY_NAMES = {"accuracy": "accuracy", "et_average": "ET_avg", "head_share": "head share"}


def shown_shares(point: EdgePoint) -> str:
    """Where the samples of the test split leave, in percent."""
    return " ".join(f"{100 * share:.0f}" for share in point.test.shares)


def front_table(findings: EdgeFindings) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the front (of the calibration split), judged on the test split, cheapest first; then the
    static networks.  Cores are shown where not all segments run on the first."""
    points = findings.points()
    front = findings.front(points)
    shown = [*front, *(point for point in points if point.is_static and point not in front)]
    columns, rows = list(FRONT_COLUMNS), [_front_row(point) for point in shown]
    if any(any(point.network.cores) for point in shown):
        columns.insert(2, "cores")
        for row, point in zip(rows, shown, strict=True):
            row.insert(2, shown_cores(point))
    return columns, rows


def _front_row(point: EdgePoint) -> list[str]:
    return [
        point.name,
        f"{shown_exits(point)} at {point.bits}",
        percent(point.test.accuracy, point.test.accuracy_se),
        with_error(point.test.et_average, point.test.et_average_se or None),
        "–" if len(point.network.exits) == 1 else percent(point.test.reduction),
        percent(point.test.head_share),
        shown_shares(point),
    ]


def shown_cores(point: EdgePoint) -> str:
    """The core of each segment, then that of the heads, such as ``00000033333+0``; one number if it runs all."""
    cores = point.network.cores
    if len(set(cores)) == 1:
        return str(cores[0])
    between = "" if max(cores) < 10 else "."
    return f"{between.join(map(str, cores[:-1]))}+{cores[-1]}"


def statements(findings: EdgeFindings) -> list[str]:
    """What was found, in plain sentences."""
    points = findings.points()
    found = [f"Accelerator ({findings.mark}): {findings.cores_used}."]
    found += [_constraints(findings, points)] if findings.limits else []
    if not points:
        return found
    found += saving_sentences(points, findings.mark)
    found += front_sentences(findings.front(points), findings.mark)
    if checked := _held(findings):
        found.append(checked)
    return found


def front_sentences(front: Sequence[EdgePoint], mark: str) -> list[str]:
    """How much less the networks of a front take than without early exits, by their final heads; nothing without any."""
    found = []
    for layers in (1, 2):
        early = [p.test for p in front if len(p.network.exits) > 1 and p.network.heads[FINAL] == layers]
        if not early:
            continue
        static, full = [one.reduction for one in early], [one.reduction_of_full_pass for one in early]
        found.append(
            f"Networks of the front with early exits and a final head of {_LAYERS[layers]} ({len(early)}) have "
            f"{_range(static)} less ET_avg than the same backbone, bits and final head without early exits, and "
            f"{_range(full)} less than themselves run to the end ({mark}), whatever their accuracy. {_THAN[layers]}"
        )
    return found


_LAYERS = {1: "one layer", 2: "two layers"}
_THAN = {
    1: "Published against no exits, for larger networks on other images: over 50 % claimed, 35 to 48 % in the authors' "
    "rerun of six.",
    2: "A head of two layers is so dear that this says more of the head than of the exits: no network needs it to do "
    "without exits.",
}


def _range(shares: Sequence[float]) -> str:
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low} to {high}"


def _constraints(findings: EdgeFindings, points: Sequence[EdgePoint]) -> str:
    n = sum(point.feasible for point in points)
    said = f"Constraints ({', '.join(findings.limits)}): {n} of {len(points)} trained networks meet them"
    if n == 0 and points:
        accuracy = max(point.search.accuracy for point in points)
        latency_ms = min(point.search.latency_ms for point in points)
        said += (
            f"; the best of each on the calibration split: accuracy {percent(accuracy)}, latency "
            f"{significant(latency_ms)} ms ({findings.mark})"
        )
    return f"{said}."


def _held(findings: EdgeFindings) -> str:
    held: dict[str, tuple[int, int]] = {}
    for summary in findings.summaries():
        for quantity, (inside, n) in summary.inside_90.items():
            before = held.get(quantity, (0, 0))
            held[quantity] = (before[0] + inside, before[1] + n)
    return f"Predicted before they were trained, inside their 90 % interval: {_counts(held)}." if held else ""


def _counts(inside_90: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(
        f"{_QUANTITY_NAMES[quantity]} {inside} of {n}{' (too few)' if too_few(inside, n) else ''}"
        for quantity, (inside, n) in inside_90.items()
    )


def too_few(inside: int, n: int, share: float = 0.9, level: float = 0.05) -> bool:
    """Whether right 90 % intervals would hold so few of n predictions in less than one case in twenty."""
    return sum(comb(n, k) * share**k * (1.0 - share) ** (n - k) for k in range(inside + 1)) < level


def round_line(summary: EdgeRound) -> str:
    """One sentence on a round."""
    name = "seeds" if summary.number == 0 else f"round {summary.number}"
    parts = [f"{name}: {summary.n_trained} networks trained, hypervolume {summary.hypervolume:.4f}"]
    if summary.inside_90:
        parts.append(f"found inside the predicted 90 % interval: {_counts(summary.inside_90)}")
    parts.append(f"{duration(summary.seconds)} of training")
    parts += [f"{trained_id} failed: {reason}" for trained_id, reason in summary.failed]
    return "; ".join(parts)


def status_rows(study: EdgeStudy) -> list[tuple[str, str]]:
    """What is trained, what it cost, and what comes next."""
    findings, parts = study.findings, study.parts
    rows = [
        ("store", study.store.url),
        ("accelerator", f"{parts.accelerator.name} ({findings.mark}): {parts.cores_used}"),
        ("rounds trained", f"{findings.n_rounds} (seeds included)"),
    ]
    if adopted := findings.adopted:
        n = len(adopted["genomes"])
        rows.append(
            ("adopted", f"{'; '.join(adopted['changed'])}; rounds began anew with {n} trained networks")
        )
    tables = [findings.event(f"table:{k}") for k in range(_count_tables(study))]
    n_layers = sum(event["n_layers"] for event in tables if event)
    seconds = sum(event["cpu_seconds"] for event in tables if event)
    held, needed = parts.costs.coverage()
    own = f"; {n_layers} by this study, in {duration(seconds)} of processor time" if n_layers else ""
    rows.append(("layers modelled", f"{held} of {needed} in the store{own}"))
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
        which = f"round {findings.n_rounds}" if findings.n_rounds else "the seeds"
        rows.append(("unfinished", f"{which}, of which {n} of {len(networks)} networks are trained"))
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
