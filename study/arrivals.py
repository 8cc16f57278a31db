"""Cost rows from elsewhere: which of them a study may train on, and what they change.

Rows arrive in the store by ``hadas logs import``, or because another study measured the same device.
A study adopts them once, by name, in its journal; from then on its cost predictors are trained on them,
too.  They are nobody's proposals, so they are no points of its fronts, and no accuracy follows from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from ..datasets.believable import judged
from ..datasets.records import CostRecord
from ..errors import SpaceError
from ..spaces import exits_from_heads
from .assembly import ProgressCallback
from .journal import Adoption

if TYPE_CHECKING:
    from ..surrogates.assessment import Assessment
    from .findings import Findings
    from .loop import Study

StageNames = list[tuple[str, int]]


@dataclass(frozen=True)
class Arrivals:
    """Rows of the store that are not yet a study's own.

    Attributes:
        usable: rows to train on, in order of (session, row number).
        refused: how many rows cannot be used, by reason.
    """

    usable: tuple[CostRecord, ...]
    refused: Mapping[str, int]


@dataclass(frozen=True)
class Change:
    """What one adoption changed.

    Attributes:
        target_id: the device.
        n_rows, n_networks: adopted.
        assessments: per quantity, errors before and after, and whether the device has drifted.
        factors: per quantity, what rows from before are multiplied by from now on, to train on them.
    """

    target_id: str
    n_rows: int
    n_networks: int
    assessments: tuple[Assessment, ...]
    factors: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {
            "target_id": self.target_id, "n_rows": self.n_rows, "n_networks": self.n_networks,
            "assessments": [assessment.to_json() for assessment in self.assessments],
            "factors": dict(self.factors),
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        from ..surrogates.assessment import Assessment

        return cls(**{**document, "assessments": tuple(map(Assessment.from_json, document["assessments"]))})


def find_arrivals(findings: Findings) -> Arrivals:
    """Look through the store for rows that the study has not seen."""
    identity = findings.parts.device_identity
    target_id, own = identity.target.target_id, f"{findings.study_id}/"
    known = {
        (session, row_no)
        for adoption in findings.adoptions(findings.n_measured_rounds)
        for session, row_numbers in adoption.rows.items()
        for row_no in row_numbers
    }
    refused: Counter[str] = Counter()
    for other, n in findings.store.count_costs().items():
        if other != target_id:
            refused[f"of another device: {other}"] += n
    usable = []
    expected: dict[tuple[Any, ...], StageNames | str] = {}
    for row in judged(findings.store.costs(target_id=target_id)):
        if row.session.startswith(own) or (row.session, row.row_no) in known:
            continue
        reason = _refusal(findings, row, expected)
        if reason:
            refused[reason] += 1
        else:
            usable.append(row)
    return Arrivals(tuple(usable), dict(sorted(refused.items())))


def _refusal(findings: Findings, row: CostRecord, expected: dict[tuple[Any, ...], StageNames | str]) -> str:
    """Why a row cannot be trained on; empty if it can."""
    identity, space = findings.parts.device_identity, findings.parts.space
    if not row.valid:
        return "invalid, or undone by a drift of their session"
    if row.truth is not identity.truth:
        return f"{row.truth}, not {identity.truth}"
    if row.backbone.space != space.name:
        return f"of space '{row.backbone.space}'"
    if row.program != "stages":
        return f"of a '{row.program}' program"
    if tuple(name for name, _ in row.actual.clocks_hz) != tuple(d.name for d in identity.table.domains):
        return "with other clocks than the device's"
    if row.latency_ms is None or (row.heads and not row.stages):
        return "without the costs of their stages"
    key = (row.backbone, row.heads, row.n_classes)
    if key not in expected:
        expected[key] = _expected_stages(findings, row)
    stages = expected[key]
    if isinstance(stages, str):
        return stages
    if row.stages and [(stage.kind, stage.position) for stage in row.stages] != stages:
        return "with stages that do not fit their exits"
    return ""


def _expected_stages(findings: Findings, row: CostRecord) -> StageNames | str:
    """Kind and position of the stages that a row's network has, or why it has none."""
    space = findings.parts.space
    try:
        space.encode(row.backbone)
        exits = exits_from_heads(row.heads, first_exit=space.first_exit, n_blocks=row.backbone.n_blocks)
    except SpaceError:
        return f"of a network that space '{space.name}' does not contain"
    if exits.heads != row.heads:
        return "with stages that do not fit their exits"
    stages = space.workload(row.backbone, n_classes=row.n_classes).stages(exits.positions)
    return [(stage.kind, stage.position) for stage in stages]


def fit_new(study: Study, progress: ProgressCallback) -> tuple[Change | None, Arrivals]:
    """Adopt what has arrived, fit the predictors anew, and say what changed.

    An adoption that a killed process left without its result is finished first, instead of looking for
    more rows.

    Returns:
        What changed, ``None`` if nothing usable has arrived; and what was found in the store.

    Raises:
        StudyError: the study has measured nothing yet, so there is nothing to compare with.
    """
    r, findings = study.latest_round(), study.findings
    arrivals = find_arrivals(findings)
    if not _is_unfinished(findings, r):
        if not arrivals.usable:
            return None, arrivals
        study.journal(f"logs:{findings.n_adoptions + 1}", Adoption.of(r, arrivals.usable).to_json())
    k = findings.n_adoptions
    event = findings.event(f"drift:{k}")
    if event is None:
        event = _change(study, k, progress).to_json()
        study.journal(f"drift:{k}", event)
    study.fitted(progress)
    return Change.from_json(event), arrivals


def _is_unfinished(findings: Findings, r: int) -> bool:
    """Whether the latest adoption was left without its result, or without predictors that know of it."""
    adoptions = findings.adoptions(r + 1)
    if not adoptions:
        return False
    is_fitted = adoptions[-1].after_round < r or findings.event(f"fit:{findings.fit_label(r)}") is not None
    return findings.event(f"drift:{len(adoptions)}") is None or not is_fitted


def _change(study: Study, k: int, progress: ProgressCallback) -> Change:
    """Judge the predictors before the k-th adoption on its rows, and what those rows improve."""
    from ..surrogates.assessment import assess, level_factors, network_index

    findings, r = study.findings, study.latest_round()
    new_rows = findings.adopted_rows(findings.adoptions(r + 1)[k - 1])
    older = study.fitted(progress, k - 1)
    assessments = assess(
        study.parts.space, older.cost_model, findings.cost_records(r + 1, k - 1), new_rows,
        chosen={summary.quantity: summary.chosen for summary in older.summary},
        seed=study.seed_for(9, k), progress=progress,
    )  # fmt: skip
    return Change(
        findings.parts.device_identity.target.target_id, len(new_rows),
        len(set(network_index(new_rows).tolist())), assessments,
        level_factors({item.quantity: item.drift for item in assessments}),
    )  # fmt: skip
