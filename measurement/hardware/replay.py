"""A device that answers from a log: rows recorded before, looked up instead of measured.

A request is answered by the recorded row of the same network, exits and clocks; asked for again within a
session, by the next recorded repeat.  A network that was never recorded as a whole is put together from
stages that were: a stage with the same layers is the same program, so its cost at the same clocks is the
same.  What was not recorded is an invalid row that says what is nearest; nothing is interpolated.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

from ...datasets.believable import believable
from ...datasets.evidence import Evidence
from ...datasets.logs.jsonl import read_records
from ...datasets.records import CostRecord, StageCost, Statistic, Target, Truth
from ...errors import ConfigError
from ...spaces import PINNED, Backbone, BackboneSpace, ClockDomain, ClockTable, Layer, Setting, Stage
from .device import CostRequest, MeasurementPlan
from .measuring.protocol import check_plan, total_statistic

COMPOSED = "composed"
"""Flag of a row that was put together from stages of several recorded rows."""

_Heads = tuple[tuple[int, int], ...]
_Program = tuple[str, tuple[Layer, ...]]
_N_NEAREST = 3


class ReplayDevice:
    """The device that some rows were measured on, as far as they go.

    Args:
        records: rows of one target; those of other spaces or numbers of classes, of ``prefix`` programs,
            and those that may not be believed are left out.
        space: where backbones come from.
        n_classes: outputs of each classifier.
        target_id: whose rows to take where the records are of several targets.
        source: what messages call the records.

    Raises:
        ConfigError: no usable row; rows of several targets, truths or clock domains.
    """

    def __init__(
        self, records: Sequence[CostRecord], *, space: BackboneSpace, n_classes: int,
        target_id: str | None = None, source: str = "recorded rows",
    ) -> None:  # fmt: skip
        self.space, self.n_classes, self._source = space, n_classes, source
        self._records = self._usable(records, target_id)
        self._target = self._records[0].target
        self._recorded: dict[tuple[Backbone, _Heads, Setting], list[CostRecord]] = defaultdict(list)
        for record in self._records:
            self._recorded[record.backbone, record.heads, record.requested].append(record)

    @classmethod
    def from_log(
        cls, path: Path, *, space: BackboneSpace, n_classes: int, target_id: str | None = None
    ) -> Self:
        """The same from a log that hadas wrote (:mod:`hadas.datasets.logs.jsonl`).

        Raises:
            DataError, RecordError: a file that cannot be read, or a bad row in it.
            ConfigError: as for the class.
        """
        records = read_records(path)
        return cls(records, space=space, n_classes=n_classes, target_id=target_id, source=str(path))

    def _usable(self, records: Sequence[CostRecord], target_id: str | None) -> tuple[CostRecord, ...]:
        fitting = [
            record
            for record in believable(records)
            if (record.backbone.space, record.n_classes) == (self.space.name, self.n_classes)
            and record.program == "stages"
            and target_id in (None, record.target.target_id)
        ]
        if not fitting:
            known = sorted({f"'{r.backbone.space}' with {r.n_classes} classes" for r in records})
            raise ConfigError(
                f"replay of {self._source}: no valid row of space '{self.space.name}' with {self.n_classes} classes"
                + (f" and target {target_id}" if target_id else "")
                + f" among {len(records)}; it has rows of {', '.join(known) or 'nothing'}"
            )
        for what, values in (
            ("targets", {record.target.target_id for record in fitting}),
            ("truths", {str(record.truth) for record in fitting}),
            ("sets of clocks", {"+".join(n for n, _ in r.requested.clocks_hz) or "none" for r in fitting}),
        ):
            if len(values) > 1:
                raise ConfigError(
                    f"replay of {self._source}: rows of several {what}: {', '.join(sorted(values))}; name the target "
                    "to replay, or export the rows of one (hadas logs export --target)"
                )
        return tuple(fitting)

    @property
    def target(self) -> Target:
        """The recorded rows' own."""
        return self._target

    @property
    def truth(self) -> Truth:
        """``REPLAY``; ``SIMULATOR`` if that is where the rows are from: a replay does not make them measured."""
        return Truth.SIMULATOR if self._records[0].truth is Truth.SIMULATOR else Truth.REPLAY

    @property
    def counts_energy(self) -> bool:
        """Whether every recorded row has an energy."""
        return all(record.energy_mj is not None for record in self._records)

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """Settings that were recorded with any network, ascending."""
        return tuple(sorted({record.requested for record in self._records}, key=lambda s: s.clocks_hz))

    def clock_table(self) -> ClockTable:
        """Every recorded frequency of every domain.

        Not all combinations need to be recorded: the table's name says how many are, and a request for
        another one is an invalid row.
        """
        return self._table

    @cached_property
    def _table(self) -> ClockTable:
        names = [name for name, _ in self.settings[0].clocks_hz]
        if not names:
            return PINNED
        domains = tuple(
            ClockDomain(name, tuple(sorted({setting.hz(name) for setting in self.settings})))
            for name in names
        )
        n_all = math.prod(len(domain.frequencies_hz) for domain in domains)
        share = "" if len(self.settings) == n_all else f" ({len(self.settings)} of {n_all} settings recorded)"
        return ClockTable(f"replay of {self._source}{share}", domains)

    def measure(self, plan: MeasurementPlan) -> Iterator[CostRecord]:
        """Yield one record per request from ``plan.first_row`` on.

        Raises:
            OffTableFrequencyError: a request whose clocks were never recorded.
            SpaceError: a request whose network is not in the device's space.
        """
        check_plan(plan, self._table, self.space)
        return self._rows(plan)

    def _rows(self, plan: MeasurementPlan) -> Iterator[CostRecord]:
        asked = Counter(plan.requests[: plan.first_row])
        for row_no, request in enumerate(plan.requests[plan.first_row :], start=plan.first_row):
            found = self._answer(request, asked[request])
            asked[request] += 1
            yield replace(found, session=plan.session, row_no=row_no, truth=self.truth).check("replay")

    def _answer(self, request: CostRequest, repeat: int) -> CostRecord:
        rows = self._recorded.get((request.backbone, request.exits.heads, request.setting), [])
        if repeat < len(rows):
            return _without_role(rows[repeat])
        if rows:
            return self._nothing(request, f"recorded {len(rows)} times, this is request {repeat + 1} for it")
        stages = self._stages(request.backbone, request.exits.positions)
        known = [self._stage_costs.get((_program(stage), request.setting), []) for stage in stages]
        if all(len(costs) > repeat for costs in known):
            return self._composed(request, stages, [costs[repeat] for costs in known])
        return self._nothing(request, f"not recorded; {self._nearest(request)}")

    # -- networks put together from recorded stages ------------------------------------------------

    def _stages(self, backbone: Backbone, positions: Sequence[int]) -> tuple[Stage, ...]:
        return self.space.workload(backbone, n_classes=self.n_classes).stages(positions)

    @cached_property
    def _stage_costs(self) -> dict[tuple[_Program, Setting], list[StageCost]]:
        """What every recorded stage cost, in the order of the records."""
        found: dict[tuple[_Program, Setting], list[StageCost]] = defaultdict(list)
        for record in self._records:
            stages = self._stages(record.backbone, [position for position, _ in record.heads])
            if [(s.kind, s.position) for s in stages] == [(c.kind, c.position) for c in record.stages]:
                for stage, cost in zip(stages, record.stages, strict=True):
                    found[_program(stage), record.requested].append(cost)
        return found

    def _composed(
        self, request: CostRequest, stages: Sequence[Stage], known: Sequence[StageCost]
    ) -> CostRecord:
        costs = tuple(
            replace(cost, position=stage.position) for stage, cost in zip(stages, known, strict=True)
        )
        energies = [cost.energy_mj for cost in costs if cost.energy_mj is not None]
        evidence = Evidence(self._target.runtime, "replay", "", (), flags=(COMPOSED,))
        return replace(
            self._row(request), stages=costs, evidence=evidence,
            latency_ms=self._total([cost.latency_ms for cost in costs]),
            energy_mj=self._total(energies) if len(energies) == len(costs) else None,
            device_seconds=self._seconds_per_stage * len(costs),
        )  # fmt: skip

    def _total(self, parts: Sequence[Statistic]) -> Statistic:
        """By the rule that the recorded rows follow: errors of a simulation are independent, others are not."""
        return total_statistic(parts, independent=self.truth is Truth.SIMULATOR)

    @cached_property
    def _seconds_per_stage(self) -> float:
        """What a stage took to record, on average: the price of a row that was never recorded as a whole."""
        n_stages = sum(2 * len(record.heads) + 1 for record in self._records)
        return sum(record.device_seconds for record in self._records) / n_stages

    # -- what was not recorded ---------------------------------------------------------------------

    def _row(self, request: CostRequest) -> CostRecord:
        """A row of the request that costs nothing yet; session, number and truth are put in later."""
        return CostRecord(
            session="", row_no=0, backbone=request.backbone, n_classes=self.n_classes, heads=request.exits.heads,
            requested=request.setting, actual=request.setting, target=self._target, truth=self.truth, stages=(),
            latency_ms=None, energy_mj=None, device_seconds=0.0,
        )  # fmt: skip

    def _nothing(self, request: CostRequest, why: str) -> CostRecord:
        reason = f"replay of {self._source}: {request.backbone.arch_id}, exits {request.exits}, {request.setting}: {why}"
        return replace(self._row(request), valid=False, reason=reason)

    def _nearest(self, request: CostRequest) -> str:
        """What was recorded nearest: other clocks of the same network, its other exits, or other networks."""
        heads = request.exits.heads
        same_network = [record for record in self._records if record.backbone == request.backbone]
        same_design = [record for record in same_network if record.heads == heads]
        if same_design:
            settings = sorted(
                {record.requested for record in same_design},
                key=lambda s: (_distance(s, request.setting), s.clocks_hz),
            )
            return f"recorded with these exits at {_listed(settings)}"
        if same_network:
            exits = sorted(
                {record.heads for record in same_network},
                key=lambda known: (len(set(known) ^ set(heads)), known),
            )
            return f"recorded with exits {_listed('+'.join(str(p) for p, _ in known) or 'none' for known in exits)}"
        genome = self.space.encode(request.backbone)
        networks = sorted(
            {record.backbone for record in self._records},
            key=lambda known: (int((self.space.encode(known) != genome).sum()), known.arch_id),
        )
        return f"the nearest recorded networks are {_listed(known.arch_id for known in networks)}"


def _program(stage: Stage) -> _Program:
    """What a compiled stage is: equal ones are the same program, wherever they stand."""
    return stage.kind, stage.layers


def _without_role(record: CostRecord) -> CostRecord:
    """A recorded row without the part it had in its own session: anchors are of the session that measures."""
    if record.evidence is None:
        return record
    return replace(record, evidence=replace(record.evidence, anchor=False, attempt=0))


def _distance(a: Setting, b: Setting) -> float:
    """Between clocks, as ratios."""
    return sum(abs(math.log(x / y)) for (_, x), (_, y) in zip(a.clocks_hz, b.clocks_hz, strict=True))


def _listed(values: Iterator[object] | Sequence[object]) -> str:
    texts = [str(value) for value in values]
    more = f" and {len(texts) - _N_NEAREST} more" if len(texts) > _N_NEAREST else ""
    return ", ".join(texts[:_N_NEAREST]) + more
