"""Cost rows from elsewhere: which of them a study may train on, and what they change.

Rows arrive in the store by ``hadas logs import``, or because another study measured the same device.
A study adopts them once, by name, in its journal; from then on its cost predictors are trained on them,
too, unless the adoption is taken back.  They are nobody's proposals, so they are no points of its fronts, and no accuracy follows from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from ..datasets.believable import judged
from ..datasets.records import CostRecord
from ..errors import SpaceError, StudyError
from ..spaces import exits_from_heads
from .assembly import ProgressCallback
from .journal import Adoption, Forgetting

if TYPE_CHECKING:
    from ..surrogates.assessment import Assessment
    from .findings import Findings
    from .loop import Study

StageNames = list[tuple[str, int]]
_N_SHOWN = 4  # suspect sessions that a message names


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
        number: of the adoption.
        target_id: the device.
        n_rows, n_networks: adopted.
        assessments: per quantity, errors before and after, and whether the device has drifted.
        factors: per quantity, what rows from before are multiplied by from now on, to train on them.
    """

    number: int
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
    def from_json(cls, number: int, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`; the number stands in the journal's key."""
        from ..surrogates.assessment import Assessment

        assessments = tuple(map(Assessment.from_json, document["assessments"]))
        return cls(number, **{**document, "assessments": assessments})


def find_arrivals(findings: Findings) -> Arrivals:
    """Look through the store for rows that the study has not seen."""
    identity = findings.parts.device_identity
    target_id, own = identity.target.target_id, f"{findings.study_id}/"
    known = findings.decided_rows()
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
    if tuple(name for name, _ in row.actual.clocks_hz) != tuple(d.name for d in identity.table.domains):
        return "with other clocks than the device's"
    key = (row.backbone, row.heads, row.n_classes, row.program)
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
    if row.program == "prefix":
        return [("prefix", position) for position in (*exits.positions, row.backbone.n_blocks)]
    stages = space.workload(row.backbone, n_classes=row.n_classes).stages(exits.positions)
    return [(stage.kind, stage.position) for stage in stages]


def fit_new(
    study: Study, progress: ProgressCallback, *, accept_drift: bool = False
) -> tuple[Change | None, Arrivals]:
    """Adopt what has arrived, fit the predictors anew, and say what changed.

    An adoption that a killed process left without its result is finished first, instead of looking for
    more rows.

    Args:
        accept_drift: adopt rows however far they are from what was predicted.

    Returns:
        What changed, ``None`` if nothing usable has arrived; and what was found in the store.

    Raises:
        StudyError: the study has measured nothing yet, so there is nothing to compare with; or rows are
            so far from what was predicted that their unit is suspect (nothing is adopted then).
    """
    r, findings = study.latest_round(), study.findings
    arrivals = find_arrivals(findings)
    adoption = _unfinished(findings, r)
    if adoption is None:
        if not arrivals.usable:
            return None, arrivals
        adoption = Adoption.of(findings.n_adoptions + 1, r, arrivals.usable)
        if not accept_drift:
            _refuse_wrong_units(study, arrivals.usable, progress)
        study.journal(f"logs:{adoption.number}", adoption.to_json())
    key = f"drift:{adoption.number}"
    event = findings.event(key)
    if event is None:
        event = _change(study, adoption, progress).to_json()
        study.journal(key, event)
    study.fitted(progress)
    return Change.from_json(adoption.number, event), arrivals


def leave_out(study: Study, session: str) -> int:
    """Never adopt the rows of a session (or of all sessions below that name) that have arrived so far.

    Returns:
        How many rows.

    Raises:
        StudyError: no usable row has arrived under that name; names those there are.
    """
    usable = find_arrivals(study.findings).usable
    rows = [row for row in usable if row.session == session or row.session.startswith(f"{session}/")]
    if not rows:
        known = ", ".join(sorted({row.session for row in usable})) or "none"
        raise StudyError(
            f"study '{study.config.study}': no rows of '{session}' wait to be adopted; sessions that do: {known}"
        )
    adoption = Adoption.of(study.findings.n_adoptions + 1, study.latest_round(), rows, used=False)
    study.journal(f"logs:{adoption.number}", adoption.to_json())
    return len(rows)


def forget(study: Study, number: int, progress: ProgressCallback) -> tuple[Adoption, ...]:
    """Take an adoption back: its rows are trained on no more, and what they changed is undone.

    Later adoptions were judged by predictors that knew it, so they are taken back, too; their rows can be
    adopted anew by :func:`fit_new`, its own never.

    Returns:
        Every adoption taken back, the asked for first.

    Raises:
        StudyError: no such adoption is in use; names those there are.
    """
    r, findings = study.latest_round(), study.findings
    in_use = findings.adoptions(r + 1)
    undone = tuple(adoption for adoption in in_use if adoption.number >= number)
    if not undone or undone[0].number != number:
        known = ", ".join(str(adoption.number) for adoption in in_use) or "none"
        raise StudyError(f"study '{study.config.study}': no adoption {number} is in use; in use: {known}")
    k = len(findings.forgettings()) + 1
    study.journal(f"forgotten:{k}", asdict(Forgetting(number, findings.n_adoptions, r)))
    study.fitted(progress)
    return undone


def _unfinished(findings: Findings, r: int) -> Adoption | None:
    """The latest adoption, if it was left without its result, or without predictors that know of it."""
    adoptions = findings.adoptions(r + 1)
    if not adoptions:
        return None
    latest = adoptions[-1]
    is_fitted = (
        latest.after_round < r
        or latest.number < findings.n_adoptions
        or findings.event(f"fit:{findings.fit_label(r)}") is not None
    )
    return None if is_fitted and findings.event(f"drift:{latest.number}") is not None else latest


def _refuse_wrong_units(study: Study, rows: Sequence[CostRecord], progress: ProgressCallback) -> None:
    from ..surrogates.units import unit_slips

    slips = unit_slips(study.parts.space, study.fitted(progress).cost_model, rows)
    if slips:
        shown = "; ".join(str(slip) for slip in slips[:_N_SHOWN])
        more = f"; and {len(slips) - _N_SHOWN} more" if len(slips) > _N_SHOWN else ""
        raise StudyError(
            f"study '{study.config.study}': {shown}{more}. No device drifts so far: their unit is suspect, and nothing "
            f"was adopted. If it is wrong, leave these rows out (hadas fit {study.path} --leave-out "
            f"{slips[0].session}), correct the log and import it as another series; if it is right: "
            f"hadas fit {study.path} --new-only --accept-drift"
        )


def _change(study: Study, adoption: Adoption, progress: ProgressCallback) -> Change:
    """Judge the predictors before an adoption on its rows, and what those rows improve."""
    from ..surrogates.assessment import assess, level_factors

    findings, r, k = study.findings, study.latest_round(), adoption.number
    new_rows, older = findings.adopted_rows(adoption), study.fitted(progress, k)
    assessments = assess(
        study.parts.space, older.cost_model, findings.cost_records(r + 1, k), new_rows,
        chosen={summary.quantity: summary.chosen for summary in older.summary},
        seed=study.seed_for(9, k), progress=progress,
    )  # fmt: skip
    return Change(
        k, findings.parts.device_identity.target.target_id, len(new_rows), len({row.backbone for row in new_rows}),
        assessments, level_factors({item.quantity: item.drift for item in assessments}),
    )  # fmt: skip
