"""Measured costs as training rows: what was measured, and the sum of which stages it is.

A measured value may be one stage's, or a sum: a segment between two exits with blocks between them, everything
up to an exit (rows of ``prefix`` programs), or a whole network of which no stages are known.  Parts are the
finest stages, as a search's tables have them: a segment costs what its finest segments cost together.  Latency is learned as log(latency / baseline), power as log
power; energy = power x latency.  So nothing is ever negative, and a draw of energy uses the draw of latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..datasets.records import CostRecord, Statistic
from ..errors import ModelError
from ..spaces import Backbone, BackboneSpace, ClockTable, Stage, Workload
from .features import ClockRoles, Signature, signature
from .models import IntArray
from .prediction import FloatArray


@dataclass(frozen=True)
class CostRows:
    """Training rows of the cost predictors: n measured values, sums of m parts in all.

    Attributes:
        signatures: the distinct stages.
        stage: (m,) index into ``signatures`` of each part.
        row: (m,) which value each part belongs to, ascending; every value has at least one part.
        clocks_ghz: (n, domains) clocks read back.
        log_latency: (n,) log ms, NaN where another row says it already.
        log_power: (n,) log W over the whole value, NaN without an energy.
        latency_noise, power_noise: (n,) known variances of the two.
        fused: (n,) whether one compiled program ran several stages.
        groups: (n,) index of the backbone.
        used: (session, row) of the records the rows come from.
        target_id: whose costs these are.
        skipped: how many records gave no row, by reason.
    """

    signatures: tuple[Signature, ...]
    stage: IntArray
    row: IntArray
    clocks_ghz: FloatArray
    log_latency: FloatArray
    log_power: FloatArray
    latency_noise: FloatArray
    power_noise: FloatArray
    fused: NDArray[np.bool_]
    groups: IntArray
    used: tuple[tuple[str, int], ...]
    target_id: str
    skipped: dict[str, int]

    @cached_property
    def n_parts(self) -> IntArray:
        """(n,) parts of each value."""
        return np.asarray(np.bincount(self.row, minlength=len(self.log_latency)), dtype=np.int64)

    @cached_property
    def records(self) -> IntArray:
        """(n,) index of the network under one setting that each value is of."""
        networks = np.column_stack([self.groups, self.clocks_ghz])
        return np.asarray(np.unique(networks, axis=0, return_inverse=True)[1].reshape(-1), dtype=np.int64)

    def n_records(self, among: NDArray[np.bool_]) -> int:
        """How many networks under how many clocks some of the values (n,) are of."""
        return len(np.unique(self.records[among]))


@dataclass(frozen=True)
class _Value:
    """One measured value: the stages that it is the sum of, its latency (``None``: known already) and power."""

    record: int
    stages: tuple[Stage, ...]
    latency: Statistic | None
    power: Statistic | None
    fused: bool = False

    @cached_property
    def parts(self) -> tuple[Stage, ...]:
        """The finest stages."""
        return tuple(part for stage in self.stages for part in stage.parts)


def cost_rows(space: BackboneSpace, table: ClockTable, records: Sequence[CostRecord]) -> CostRows:
    """Rows of all valid records.

    A record of a ``stages`` program gives one row per stage, and one for its total energy if its stages
    have none.  One of ``prefix`` programs gives a row per exit, the sum of the stages up to it.  A record of
    which only the total is known gives one row, the sum of all its stages.

    Raises:
        ModelError: another space's backbone, other clock domains, stages that do not fit the
            record's exits, targets or truths mixed, or no usable row.
    """
    skipped: dict[str, int] = {}
    used: list[CostRecord] = []
    values: list[_Value] = []
    workloads: dict[tuple[Backbone, int], Workload] = {}
    for record in records:
        reason = _skip_reason(record)
        if reason:
            skipped[reason] = skipped.get(reason, 0) + 1
            continue
        _refuse_other_space(space, record)
        key = record.backbone, record.n_classes
        if key not in workloads:
            workloads[key] = space.workload(record.backbone, n_classes=record.n_classes)
        values += _values(workloads[key], record, len(used))
        used.append(record)
    _refuse_mixtures(used)
    if not values:
        raise ModelError(
            f"no usable cost record among {len(records)} to train on; skipped: {skipped or 'none'}"
        )
    index: dict[Signature, int] = {}
    stage = [index.setdefault(signature(part), len(index)) for value in values for part in value.parts]
    of_record = np.array([value.record for value in values], dtype=np.int64)
    clocks = ClockRoles.of(table).clocks_ghz([record.actual for record in used])[of_record]
    latency, latency_noise = _log_values([value.latency for value in values])
    power, power_noise = _log_values([value.power for value in values])
    ids = {arch_id: i for i, arch_id in enumerate(sorted({record.backbone.arch_id for record in used}))}
    groups = np.array([ids[record.backbone.arch_id] for record in used], dtype=np.int64)[of_record]
    return CostRows(
        tuple(index), np.array(stage, dtype=np.int64),
        np.repeat(np.arange(len(values), dtype=np.int64), [len(value.parts) for value in values]),
        clocks, latency, power, latency_noise, power_noise,
        np.array([value.fused for value in values], dtype=np.bool_), groups,
        tuple((record.session, record.row_no) for record in used), used[0].target.target_id, skipped,
    )  # fmt: skip


def _skip_reason(record: CostRecord) -> str:
    if not record.valid:
        return "invalid"
    if record.latency_ms is None and not record.stages:
        return "no latency"
    return ""


def _refuse_other_space(space: BackboneSpace, record: CostRecord) -> None:
    if record.backbone.space != space.name:
        raise ModelError(
            f"{_where(record)}: backbone of space '{record.backbone.space}'; the predictors are for '{space.name}'"
        )


def _where(record: CostRecord) -> str:
    return f"cost record {record.session} row {record.row_no}"


def _values(workload: Workload, record: CostRecord, i: int) -> list[_Value]:
    """What the i-th record, of a backbone of this workload, measured."""
    stages = workload.stages([position for position, _ in record.heads])
    is_prefix = record.program == "prefix"
    if not record.stages:
        assert record.latency_ms is not None
        power = _mean_power(record.energy_mj, record.latency_ms)
        return [_Value(i, stages, record.latency_ms, power, fused=is_prefix and len(stages) > 1)]
    ends = [(2 * k + 2 if k < len(record.heads) else len(stages)) for k in range(len(record.heads) + 1)]
    expected: list[tuple[str, int]] = [(stage.kind, stage.position) for stage in stages]
    if is_prefix:
        expected = [("prefix", stages[end - 1].position) for end in ends]
    found = [(cost.kind, cost.position) for cost in record.stages]
    if expected != found:
        raise ModelError(f"{_where(record)}: stages {found} do not fit its exits, which make {expected}")
    parts = [stages[:end] for end in ends] if is_prefix else [(stage,) for stage in stages]
    values = [
        _Value(i, own, cost.latency_ms, _mean_power(cost.energy_mj, cost.latency_ms), fused=len(own) > 1)
        for own, cost in zip(parts, record.stages, strict=True)
    ]
    if record.energy_mj is not None and all(cost.energy_mj is None for cost in record.stages):
        last = record.stages[-1].latency_ms if is_prefix else _sum([c.latency_ms for c in record.stages])
        power = _mean_power(record.energy_mj, record.latency_ms or last)
        values.append(_Value(i, stages, None, power))
    return values


def _mean_power(energy_mj: Statistic | None, latency_ms: Statistic) -> Statistic | None:
    """Power in W over a time; relative variances of the two add up."""
    if energy_mj is None:
        return None
    value = energy_mj.value / latency_ms.value
    relative = np.hypot(
        energy_mj.standard_error / energy_mj.value, latency_ms.standard_error / latency_ms.value
    )
    return Statistic(value, float(value * relative), min(energy_mj.n, latency_ms.n))


def _sum(statistics: Sequence[Statistic]) -> Statistic:
    errors = [statistic.standard_error for statistic in statistics]
    return Statistic(
        sum(s.value for s in statistics), float(np.linalg.norm(errors)), min(s.n for s in statistics)
    )


def _refuse_mixtures(records: Sequence[CostRecord]) -> None:
    targets = sorted({record.target.target_id for record in records})
    truths = sorted({record.truth.value for record in records})
    for what, known in (("targets", targets), ("truths", truths)):
        if len(known) > 1:
            raise ModelError(f"cost records mix {what} {known}; predictors are trained on one")


def _log_values(statistics: Sequence[Statistic | None]) -> tuple[FloatArray, FloatArray]:
    """Logs and their variances by the delta method, (standard error / value)^2; NaN where missing."""
    value = np.array([s.value if s is not None else np.nan for s in statistics], dtype=np.float64)
    error = np.array([s.standard_error if s is not None else np.nan for s in statistics], dtype=np.float64)
    return np.log(value), (error / value) ** 2
