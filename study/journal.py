"""What a study writes down: designs, checks and round summaries as JSON and back."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from ..datasets.records import AccuracyRecord, CostRecord
from ..datasets.rows import backbone_from_json, setting_from_json
from ..spaces import Backbone, Exits, Setting

if TYPE_CHECKING:
    from ..search.designs import Design, DesignOutcome
    from ..search.outer import Candidate, SearchResult


@dataclass(frozen=True)
class MeasuredPoint:
    """One design whose accuracy and cost were both measured.

    Attributes:
        strategy: ``seed``, ``hadas`` or the name of a baseline.
        round: round it was measured in; -1 for a baseline.
        outcome: on the calibration split, thresholds cross-fitted.
        accuracy, cost: the rows it comes from.
    """

    strategy: str
    round: int
    design: Design
    outcome: DesignOutcome
    accuracy: AccuracyRecord
    cost: CostRecord


@dataclass(frozen=True, slots=True)
class Check:
    """One prediction and what was then measured.

    Attributes:
        quantity: ``accuracy``, ``energy_mj`` or ``latency_ms``, under the controller.
        predicted, sd: mean and standard deviation of the predictive draws, noise included.
        low_90, high_90: their central 90 % interval.
        measured: what came out.
    """

    quantity: str
    arch_id: str
    round: int
    predicted: float
    low_90: float
    high_90: float
    sd: float
    measured: float

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the interval."""
        return self.low_90 <= self.measured <= self.high_90


def checks_of(predictions: Sequence[Mapping[str, Any]], points: Sequence[MeasuredPoint]) -> list[Check]:
    """Journalled predictions against what was measured of their designs; others are passed over."""
    measured = {point.design: point for point in points}
    checks = []
    for entry in predictions:
        point = measured.get(design_from_json(entry["design"]))
        if point is not None:
            value = getattr(point.outcome.controller, entry["quantity"])
            interval = (entry["predicted"], entry["low_90"], entry["high_90"], entry["sd"])
            arch_id = point.design.backbone.arch_id
            checks.append(Check(entry["quantity"], arch_id, point.round, *interval, measured=value))
    return checks


@dataclass(frozen=True)
class Adoption:
    """Cost rows from elsewhere (logs, other studies) that a study trains on from some round on.

    Attributes:
        number: of the adoption, from 1.
        after_round: the latest measured round when they were adopted.
        rows: row numbers by session.
        used: false for rows that the user left out for good.
    """

    number: int
    after_round: int
    rows: Mapping[str, tuple[int, ...]]
    used: bool = True

    @classmethod
    def of(cls, number: int, after_round: int, records: Sequence[CostRecord], *, used: bool = True) -> Self:
        """The adoption of some rows."""
        rows: dict[str, list[int]] = defaultdict(list)
        for record in records:
            rows[record.session].append(record.row_no)
        return cls(number, after_round, {session: tuple(found) for session, found in rows.items()}, used)

    @property
    def n_rows(self) -> int:
        """How many rows it names."""
        return sum(map(len, self.rows.values()))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {
            "after_round": self.after_round, "rows": {name: list(rows) for name, rows in self.rows.items()},
            "used": self.used,
        }  # fmt: skip

    @classmethod
    def from_json(cls, number: int, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`; the number stands in the journal's key."""
        rows = {name: tuple(numbers) for name, numbers in document["rows"].items()}
        return cls(number, document["after_round"], rows, document.get("used", True))


@dataclass(frozen=True, slots=True)
class Forgetting:
    """An adoption taken back, and with it those after it, which were judged by predictors that knew it.

    Attributes:
        adoption: the number of the first; its rows are never adopted again.
        last: of the last that there was; rows of those after the first may be adopted anew.
        after_round: the latest measured round at the time.
    """

    adoption: int
    last: int
    after_round: int

    def covers(self, number: int) -> bool:
        """Whether an adoption is taken back."""
        return self.adoption <= number <= self.last


@dataclass(frozen=True)
class RoundSummary:
    """What one round found and cost.

    Attributes:
        n_measured: points measured by the loop up to and including this round.
        hypervolume, hypervolume_se: of these points, and its bootstrap standard error.
        coverage_90: by quantity, share of this round's measurements inside their 90 % interval.
        bias: by quantity, mean of (measured - predicted) / predicted standard deviation.
        n_checked: by quantity, predictions checked.
        device_seconds, training_seconds: what the round cost.
    """

    round: int
    n_measured: int
    hypervolume: float
    hypervolume_se: float
    coverage_90: Mapping[str, float]
    bias: Mapping[str, float]
    n_checked: Mapping[str, int]
    device_seconds: float
    training_seconds: float

    @classmethod
    def of_checks(cls, checks: Sequence[Check], **found: Any) -> Self:
        """A summary with coverage and bias computed from the round's checks."""
        by_quantity: dict[str, list[Check]] = defaultdict(list)
        for check in checks:
            by_quantity[check.quantity].append(check)
        return cls(
            coverage_90={q: sum(c.inside for c in cs) / len(cs) for q, cs in by_quantity.items()},
            bias={
                q: sum((c.measured - c.predicted) / c.sd for c in cs) / len(cs)
                for q, cs in by_quantity.items()
            },
            n_checked={q: len(cs) for q, cs in by_quantity.items()},
            **found,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(**document)


def content_digest(
    accuracy: Sequence[AccuracyRecord], costs: Sequence[CostRecord], seed: int, candidates: Sequence[str]
) -> str:
    """12 hex digits over everything that a fit depends on: the values of the rows, seed, candidates."""
    digest = hashlib.sha256(repr((seed, tuple(candidates))).encode())
    for record in accuracy:
        matrix = record.calibration
        values = None if matrix is None else (matrix.fractions.tolist(), matrix.standard_errors().tolist())
        digest.update(repr((record.backbone, record.weights_id, record.split_id, values)).encode())
    for row in costs:
        digest.update(repr(row).encode())
    return digest.hexdigest()[:12]


def design_to_json(backbone: Backbone, exits: Exits, setting: Setting) -> dict[str, Any]:
    """A JSON-ready mapping of a design."""
    return {
        "backbone": asdict(backbone),
        "exits": asdict(exits),
        "clocks_hz": [list(c) for c in setting.clocks_hz],
    }


def design_from_json(document: Mapping[str, Any]) -> Design:
    """The inverse of :func:`design_to_json`."""
    from ..search.designs import Design

    exits = Exits(document["exits"]["first_exit"], tuple(document["exits"]["types"]))
    return Design(backbone_from_json(document["backbone"]), exits, setting_from_json(document["clocks_hz"]))


def search_to_json(result: SearchResult) -> dict[str, Any]:
    """A JSON-ready mapping of what a search found."""
    return {
        "front": [_candidate_to_json(c) for c in result.front],
        "candidates": [_candidate_to_json(c) for c in result.candidates],
        "population": [asdict(backbone) for backbone in result.population],
        "columns": [asdict(column) for column in result.columns],
        "reference": result.reference.to_json(),
        "history": list(result.history),
        "n_static": result.n_static,
        "n_inner": result.n_inner,
    }


def settings_digest(section: Mapping[str, Any]) -> str:
    """Identity of a study file's section ``search``; what is left open (``None``, nothing) does not count.

    Studies from before a field could be said have the digest that they have with it left open.
    """
    text = json.dumps(_said(section), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _said(section: Mapping[str, Any]) -> dict[str, Any]:
    pruned = {key: _said(value) if isinstance(value, Mapping) else value for key, value in section.items()}
    return {key: value for key, value in pruned.items() if value is not None and value != {}}


def search_from_json(document: Mapping[str, Any]) -> SearchResult:
    """The inverse of :func:`search_to_json`."""
    from ..search.metrics import HypervolumeReference
    from ..search.objectives import Column
    from ..search.outer import SearchResult

    return SearchResult(
        front=tuple(_candidate_from_json(c) for c in document["front"]),
        candidates=tuple(_candidate_from_json(c) for c in document["candidates"]),
        population=tuple(backbone_from_json(b) for b in document["population"]),
        columns=tuple(Column(**column) for column in document["columns"]),
        reference=HypervolumeReference.from_json(document["reference"]),
        history=tuple(document["history"]),
        n_static=document["n_static"],
        n_inner=document["n_inner"],
    )


def _candidate_to_json(candidate: Candidate) -> dict[str, Any]:
    design = candidate.design
    return {
        "design": design_to_json(design.backbone, design.exits, design.setting),
        "objectives": list(candidate.objectives),
        "violation": candidate.violation,
    }


def _candidate_from_json(document: Mapping[str, Any]) -> Candidate:
    from ..search.outer import Candidate

    # Searches that were written down before constraints could be named had none.
    violation = document.get("violation", 0.0)
    return Candidate(design_from_json(document["design"]), tuple(document["objectives"]), violation)
