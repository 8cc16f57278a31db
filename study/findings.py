"""What a study has found so far: a read-only view of its rows, points, fronts and rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.believable import is_anchor, judged
from ..datasets.records import AccuracyRecord, CostRecord, Truth
from ..datasets.store import Store
from ..errors import StudyError
from ..spaces import Backbone, exits_from_heads
from .assembly import Assembly
from .journal import (
    Adoption,
    Check,
    Forgetting,
    MeasuredPoint,
    RoundSummary,
    checks_of,
    settings_digest,
)
from .repeats import once_each

if TYPE_CHECKING:
    from ..measurement.accuracy.meter import AccuracyMeter
    from ..search.acquisition import UnitCosts
    from ..search.constraints import Attained, Constraints
    from ..search.metrics import HypervolumeReference
    from ..search.objectives import Column
    from ..surrogates.conformal import Correction

FloatArray = NDArray[np.float64]

ASKED_FOR = "asked for"
"""Strategy of designs that the user asked to be measured: kept apart in every comparison."""


class Findings:
    """Rows, points and rounds of one study."""

    def __init__(self, study_id: str, store: Store, parts: Assembly) -> None:
        self.study_id = study_id
        self.store = store
        self.parts = parts

    # -- the journal -------------------------------------------------------------------------

    def event(self, key: str) -> dict[str, Any] | None:
        """Payload of a journal entry, ``None`` if it is not there yet."""
        return self.store.event(self.study_id, key)

    def _n_rounds(self, kind: str) -> int:
        keys = (key.partition(":") for key in self.store.event_keys(self.study_id))
        return sum(name == kind and label.isdigit() for name, _, label in keys)

    @property
    def n_measured_rounds(self) -> int:
        """Rounds that are completely measured, the seeds included."""
        return self._n_rounds("measured")

    @property
    def n_planned_rounds(self) -> int:
        """Rounds that have a plan, the seeds included."""
        return self._n_rounds("plan")

    @property
    def n_budgets(self) -> int:
        """How often the study was given another budget of time."""
        return self._n_rounds("budget")

    @property
    def n_notes(self) -> int:
        """How often time was noted that no row or plan tells."""
        return self._n_rounds("time")

    def other_seconds(self) -> float:
        """Seconds that runs with a budget took beside what rows and plans tell."""
        events = (self.event(f"time:{k}") for k in range(self.n_notes))
        return float(sum(event["seconds"] for event in events if event is not None))

    def plans(self) -> list[dict[str, Any]]:
        """Plans of all rounds, the seeds' first."""
        events = (self.event(f"plan:{r}") for r in range(self.n_planned_rounds))
        return [event for event in events if event is not None]

    def name(self, backbone: Backbone) -> str:
        """A name for people: a preset's own, an end of the space, else the start of the hash."""
        space = self.parts.space
        names = {space.smallest: "smallest", space.largest: "largest"}
        names |= {preset: name for name, preset in space.presets.items()}
        return names.get(backbone, backbone.arch_id.rpartition("-")[2][:6])

    def session(self, label: str | int) -> str:
        """Session of the cost rows of a round (by number) or a baseline (by name)."""
        return f"{self.study_id}/{label}"

    # -- rows and points ---------------------------------------------------------------------

    @cached_property
    def meter(self) -> AccuracyMeter:
        """The accuracy meter; trains the supernet if it is not there."""
        return self.parts.meter(self.parts.trained_supernet(lambda phase, done, total, note="": None))

    def accuracy_records(self, backbones: Sequence[Backbone]) -> dict[str, AccuracyRecord]:
        """Accuracy rows of backbones, whichever study of the store measured them; by arch_id."""
        return self.accuracy_rows([b.arch_id for b in backbones])

    def accuracy_rows(self, arch_ids: Sequence[str]) -> dict[str, AccuracyRecord]:
        """The same of backbones by their ``arch_id``; reads the store alone, no weights.

        Raises:
            StudyError: the study has no supernet yet.
        """
        trained = self.event("supernet")
        if trained is None:
            raise StudyError(f"study '{self.study_id}': nothing is measured yet; run: hadas measure")
        return self.store.accuracy(
            arch_ids,
            weights_id=trained["weights_id"],
            recipe_id=self.parts.recipes[1].recipe_id,
            split_id=self.parts.data.split_id,
        )

    def cost_rows(self, label: int | str) -> tuple[CostRecord, ...]:
        """Cost rows of a session; those that a later drift undid are marked invalid."""
        return judged(self.store.costs(session=self.session(label)))

    def loop_rows(self, n_rounds: int) -> tuple[CostRecord, ...]:
        """Cost rows of rounds 0 .. n_rounds - 1, baselines excluded."""
        return tuple(self._rows_of_rounds(0, n_rounds))

    def cost_records(self, n_rounds: int, before: int | None = None) -> tuple[CostRecord, ...]:
        """What cost predictors after n_rounds rounds are trained on: rows of the rounds and adopted ones, as they came.

        Where adopted rows showed that the device had drifted, all rows before them are brought to their level.

        Args:
            before: without the adoption of this number and those after it; by default with all.
        """
        from ..surrogates.assessment import at_level

        rows: list[CostRecord] = []
        done = 0
        for adoption in self.adoptions(n_rounds):
            if before is not None and adoption.number >= before:
                break
            rows += self._rows_of_rounds(done, adoption.after_round + 1)
            done = adoption.after_round + 1
            factors = (self.event(f"drift:{adoption.number}") or {}).get("factors", {})
            rows = [at_level(row, factors) for row in rows]
            rows += self.adopted_rows(adoption)
        return (*rows, *self._rows_of_rounds(done, n_rounds))

    def _rows_of_rounds(self, first: int, end: int) -> list[CostRecord]:
        return [row for r in range(first, end) for row in self.cost_rows(r)]

    @property
    def n_adoptions(self) -> int:
        """How often rows from elsewhere were adopted or left out, also where that was taken back."""
        return self._n_rounds("logs")

    def adoptions(self, n_rounds: int) -> list[Adoption]:
        """Adoptions that are trained on, after one of the rounds 0 .. n_rounds - 1, oldest first."""
        return [
            adoption
            for adoption in self._journalled_adoptions()
            if adoption.used and adoption.after_round < n_rounds and not self._is_forgotten(adoption.number)
        ]

    def decided_rows(self) -> set[tuple[str, int]]:
        """(session, row number) of rows from elsewhere that are adopted, or never will be."""
        refused = {forgetting.adoption for forgetting in self.forgettings()}
        return {
            (session, row_no)
            for adoption in self._journalled_adoptions()
            if not (adoption.used and self._is_forgotten(adoption.number)) or adoption.number in refused
            for session, row_numbers in adoption.rows.items()
            for row_no in row_numbers
        }

    def forgettings(self) -> list[Forgetting]:
        """Adoptions taken back, in order."""
        events = (self.event(f"forgotten:{k}") for k in range(1, self._n_rounds("forgotten") + 1))
        return [Forgetting(**event) for event in events if event is not None]

    def _journalled_adoptions(self) -> list[Adoption]:
        events = ((k, self.event(f"logs:{k}")) for k in range(1, self.n_adoptions + 1))
        return [Adoption.from_json(k, event) for k, event in events if event is not None]

    def _is_forgotten(self, number: int) -> bool:
        return any(forgetting.covers(number) for forgetting in self.forgettings())

    def adopted_rows(self, adoption: Adoption) -> list[CostRecord]:
        """Cost rows that an adoption names, as they stand in the store."""
        rows: list[CostRecord] = []
        for session, row_numbers in adoption.rows.items():
            wanted = set(row_numbers)
            rows += [row for row in self.store.costs(session=session) if row.row_no in wanted]
        return rows

    def n_new_backbones(self, r: int) -> int:
        """Backbones that round ``r`` was the first to measure."""
        known = {row.backbone for row in self.loop_rows(r)}
        return len({row.backbone for row in self.cost_rows(r)} - known)

    def fit_label(self, r: int) -> str:
        """How fits and searches after round ``r`` are journalled: rows adopted or forgotten since make new ones."""
        changes: list[Adoption | Forgetting] = [*(item for item in self._journalled_adoptions() if item.used)]
        changes += self.forgettings()
        n = sum(change.after_round == r for change in changes)
        return f"{r}+{n}" if n else f"{r}"

    def search_label(self, r: int) -> str:
        """How searches after round ``r``, and what follows from them, are journalled.

        As fits, with the digest of the search's settings where others were adopted than the study began with.
        """
        label, now = self.fit_label(r), settings_digest(self.parts.config.search.model_dump(mode="json"))
        return label if self._first_settings in (None, now) else f"{label}~{now}"

    @property
    def _first_settings(self) -> str | None:
        """Digest of the search settings that the study began with, if others were adopted since."""
        event = self.event("search_settings")
        return None if event is None else str(event["digest"])

    def training_accuracy(self, n_rounds: int) -> tuple[AccuracyRecord, ...]:
        """Valid accuracy rows of the backbones of rounds 0 .. n_rounds - 1."""
        found = self.accuracy_records([row.backbone for row in self.loop_rows(n_rounds)])
        return tuple(record for record in found.values() if record.valid)

    def unit_costs(self) -> UnitCosts:
        """What suggestions are weighed with: mean device seconds of a cost row, and the configured
        price of an accuracy job (its measured seconds depend on the host, and so would the run)."""
        from ..search.acquisition import UnitCosts

        # What a log does not have took no time, which says nothing of a row that it has.
        rows = [
            row for row in self.loop_rows(self.n_measured_rounds) if row.valid or row.truth is Truth.DEVICE
        ]
        return UnitCosts(
            device_s=float(np.mean([row.device_seconds for row in rows])),
            accuracy_s=self.parts.config.learning.accuracy_job_s,
        )

    def points(self, label: int | str) -> list[MeasuredPoint]:
        """Every design of a session whose accuracy and cost were both measured."""
        from ..search.designs import Design, evaluate_measured

        rows = [row for row in self.cost_rows(label) if row.valid and not is_anchor(row)]
        known = self.accuracy_records([row.backbone for row in rows])
        strategy = self._strategy(label)
        found = []
        for row in rows:
            accuracy = known.get(row.backbone.arch_id)
            if accuracy is None or not accuracy.valid:
                continue
            first = self.parts.space.first_exit
            exits = exits_from_heads(row.heads, first_exit=first, n_blocks=row.backbone.n_blocks)
            design = Design(row.backbone, exits, row.requested)
            outcome = evaluate_measured(design, accuracy, row, controller=self.parts.controller)
            r = label if isinstance(label, int) else -1
            found.append(MeasuredPoint(strategy, r, design, outcome, accuracy, row))
        return found

    def _strategy(self, label: int | str) -> str:
        """Who proposed the designs of a session."""
        if isinstance(label, str):
            return label
        if label == 0:
            return "seed"
        plan = self.event(f"plan:{label}") or {}
        return ASKED_FOR if plan.get("asked_for") else "hadas"

    def n_suggested_rounds(self) -> int:
        """Measured rounds that the search proposed; those of the user's own designs do not count."""
        return sum(self._strategy(r) == "hadas" for r in range(1, self.n_measured_rounds))

    def loop_points(self, n_rounds: int | None = None) -> list[MeasuredPoint]:
        """Points of the seeds and of all rounds so far (or the first ``n_rounds``), in order."""
        rounds = self.n_measured_rounds if n_rounds is None else n_rounds
        return [point for r in range(rounds) for point in self.points(r)]

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The objectives that measured points are compared on: error and expected cost."""
        from ..search.objectives import Expected

        settings = self.parts.search_settings
        return Expected(with_latency=settings.with_latency).columns(self.parts.counts_energy)

    def objectives(self, points: Sequence[MeasuredPoint]) -> tuple[FloatArray, FloatArray]:
        """(q, m) objectives of measured points, minimised, and their standard errors."""
        names = [column.name for column in self.columns]
        pairs = [point.outcome.objectives(names) for point in points]
        shape = (len(pairs), len(names))
        return np.array([p[0] for p in pairs]).reshape(shape), np.array([p[1] for p in pairs]).reshape(shape)

    @property
    def constraints(self) -> Constraints:
        """What designs have to keep to."""
        return self.parts.search_settings.constraints

    def violations(self, points: Sequence[MeasuredPoint]) -> FloatArray:
        """(q,) by how much measured points miss the constraints; 0 = they keep to them."""
        return self.constraints.violation(*self._constrained(points))

    def _constrained(self, points: Sequence[MeasuredPoint]) -> tuple[FloatArray, ...]:
        """Accuracy, energy (NaN where none is counted), latency and number of exits of points, each (q,)."""
        costs = [point.outcome.controller for point in points]
        return (
            np.array([cost.accuracy for cost in costs]),
            np.array([math.nan if cost.energy_mj is None else cost.energy_mj for cost in costs]),
            np.array([cost.latency_ms for cost in costs]),
            np.array([float(len(point.design.exits.positions)) for point in points]),
        )

    def comparable(self, points: Sequence[MeasuredPoint]) -> list[MeasuredPoint]:
        """What of measured points counts: a design that was measured again once, and none that misses a constraint."""
        found = once_each(points, self.parts.controller)
        return [point for point, miss in zip(found, self.violations(found), strict=True) if miss == 0.0]

    def infeasibility(self, points: Sequence[MeasuredPoint]) -> str:
        """Which constraint no measured point meets, and the best there is; empty if some meets them all."""
        if not points or self.comparable(points):
            return ""
        return self.constraints.missed_by_all(self.attained(points))

    def attained(self, points: Sequence[MeasuredPoint]) -> Attained:
        """What measured points attain of what is constrained."""
        return self.constraints.attained(*self._constrained(once_each(points, self.parts.controller)))

    def front(self, points: Sequence[MeasuredPoint]) -> list[MeasuredPoint]:
        """The non-dominated of the points that count (see :meth:`comparable`), best accuracy last."""
        from ..search.ranking import front_indices

        points = self.comparable(points)
        if not points:
            return []
        values, _ = self.objectives(points)
        chosen = [points[int(i)] for i in front_indices(values)]
        return sorted(chosen, key=lambda point: point.outcome.controller.accuracy)

    @property
    def reference(self) -> HypervolumeReference:
        """Reference of every hypervolume that is reported, frozen when the seeds were measured."""
        from ..search.metrics import HypervolumeReference

        event = self.event("reference")
        if event is None:
            raise StudyError(f"study '{self.study_id}': nothing is measured yet; run: hadas measure")
        return HypervolumeReference.from_json(event)

    def first_reference(self) -> HypervolumeReference:
        """The reference that the seeds' front gives; frozen by being journalled.

        Of the seeds that meet the constraints, or of all if none does.

        Raises:
            StudyError: no seed has both rows valid.
        """
        from ..search.metrics import HypervolumeReference

        seeds = self._some_points(0)
        values, _ = self.objectives(self.comparable(seeds) or seeds)
        return HypervolumeReference.from_front(values, self.columns)

    def hypervolume(self, points: Sequence[MeasuredPoint]) -> float:
        """Hypervolume of the measured points that count to the study's reference; 0 for none."""
        points = self.comparable(points)
        return self.reference.hypervolume(self.objectives(points)[0]) if points else 0.0

    def hypervolume_standard_error(self, points: Sequence[MeasuredPoint]) -> float:
        """Bootstrap standard error of :meth:`hypervolume`, from the points' standard errors."""
        from ..search.metrics import hypervolume_standard_error

        values, errors = self.objectives(self.comparable(points))
        return hypervolume_standard_error(values, errors, self.reference, seed=self.parts.config.seed)

    def _some_points(self, r: int) -> list[MeasuredPoint]:
        points = self.loop_points(r + 1)
        if not points:
            raise StudyError(
                f"study '{self.study_id}': no design has both a valid accuracy row and a valid cost row; "
                "the reasons are in: hadas status"
            )
        return points

    def summarise(self, r: int) -> RoundSummary:
        """What round ``r`` found; its rows must be in the store.

        Raises:
            StudyError: no design has both rows valid.
        """
        points = self._some_points(r)
        rows = self.store.costs(session=self.session(r))
        fresh = {row.backbone.arch_id for row in rows} - {row.backbone.arch_id for row in self.loop_rows(r)}
        trained = self.accuracy_records([row.backbone for row in rows])
        own = [t for a, t in trained.items() if a in fresh and t.session == self.session("accuracy")]
        return RoundSummary.of_checks(
            self.round_checks(r),
            round=r,
            n_measured=len(points),
            hypervolume=self.hypervolume(points),
            hypervolume_se=self.hypervolume_standard_error(points),
            device_seconds=sum(row.device_seconds for row in rows),
            training_seconds=sum(sum(t.seconds.values()) for t in own),
        )

    def round_checks(self, r: int) -> list[Check]:
        """Predictions that came with plan ``r`` against what was then measured."""
        plan = self.event(f"plan:{r}") or {"predictions": []}
        return checks_of(plan["predictions"], self.points(r))

    def corrections(self, key: str) -> dict[str, Correction]:
        """What intervals were corrected by, per quantity, as an entry of the journal says; none if it does not."""
        from ..surrogates.conformal import Correction

        found = (self.event(key) or {}).get("corrections", {})
        return {quantity: Correction.from_json(document) for quantity, document in found.items()}

    def checks(self) -> list[Check]:
        """Every prediction of every round that could be checked."""
        return [check for r in range(self.n_measured_rounds) for check in self.round_checks(r)]

    def summaries(self) -> list[RoundSummary]:
        """What each measured round found; its hypervolume is that of the points that count today."""
        events = (self.event(f"measured:{r}") for r in range(self.n_measured_rounds))
        found = [RoundSummary.from_json(event) for event in events if event is not None]
        # Under adopted constraints others count than when the round was measured.
        return found if self._first_settings is None else [self._recounted(summary) for summary in found]

    def _recounted(self, summary: RoundSummary) -> RoundSummary:
        points = self.loop_points(summary.round + 1)
        error = self.hypervolume_standard_error(points)
        return replace(summary, hypervolume=self.hypervolume(points), hypervolume_se=error)
