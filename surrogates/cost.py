"""Latency and power of stages under clocks: a physical baseline, and a model of what it misses.

Latency is modelled as log(latency / baseline), power as log power; energy = power x latency.
So nothing is ever negative, and a draw of energy uses the draw of latency.  The baseline
is a sum of terms that add up over stages, with coefficients that are never negative, so
that predictions far from the training rows stay sane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from ..datasets.records import CostRecord, Statistic
from ..errors import ModelError
from ..spaces import BackboneSpace, ClockTable
from .features import ClockRoles, Signature, StageWork, signature, stage_work
from .models import IntArray
from .prediction import FloatArray


@dataclass(frozen=True)
class CostRows:
    """Training rows of the cost predictors: n measured stages.

    Attributes:
        signatures: the distinct stages.
        stage: (n,) index into ``signatures``.
        clocks_ghz: (n, domains) clocks read back.
        log_latency: (n,) log ms; log_power: (n,) log W, NaN without an energy counter.
        latency_noise, power_noise: (n,) known variances of the two.
        groups: (n,) index of the backbone.
        used: (session, row) of the records the rows come from.
        skipped: how many records gave no row, by reason.
    """

    signatures: tuple[Signature, ...]
    stage: IntArray
    clocks_ghz: FloatArray
    log_latency: FloatArray
    log_power: FloatArray
    latency_noise: FloatArray
    power_noise: FloatArray
    groups: IntArray
    used: tuple[tuple[str, int], ...]
    skipped: dict[str, int]


def cost_rows(space: BackboneSpace, table: ClockTable, records: Sequence[CostRecord]) -> CostRows:
    """Stage rows of all usable records.

    A valid record of a ``stages`` program gives one row per stage; one without stage costs
    gives one row if it has no heads, for then its total is a stage.  All others are skipped
    and counted.

    Raises:
        ModelError: another space's backbone, other clock domains, stages that do not fit the
            record's exits, targets or truths mixed, or no usable row.
    """
    skipped: dict[str, int] = {}
    used: list[CostRecord] = []
    measured: list[tuple[int, Signature, Statistic, Statistic | None]] = []
    for record in records:
        reason = _skip_reason(record)
        if reason:
            skipped[reason] = skipped.get(reason, 0) + 1
            continue
        for part in _record_stages(space, record):
            measured.append((len(used), *part))
        used.append(record)
    _refuse_mixtures(used)
    if not measured:
        raise ModelError(
            f"no usable cost record among {len(records)} to train on; skipped: {skipped or 'none'}"
        )
    index: dict[Signature, int] = {}
    stage = np.array([index.setdefault(sig, len(index)) for _, sig, _, _ in measured], dtype=np.int64)
    of_record = np.array([i for i, _, _, _ in measured], dtype=np.int64)
    clocks = ClockRoles.of(table).clocks_ghz([record.actual for record in used])[of_record]
    latency, latency_noise = _log_values([latency for _, _, latency, _ in measured])
    energy, energy_noise = _log_values([energy for _, _, _, energy in measured])
    ids = sorted({record.backbone.arch_id for record in used})
    group_of = {arch_id: i for i, arch_id in enumerate(ids)}
    groups = np.array([group_of[record.backbone.arch_id] for record in used], dtype=np.int64)[of_record]
    return CostRows(
        tuple(index), stage, clocks, latency, energy - latency, latency_noise, energy_noise + latency_noise,
        groups, tuple((record.session, record.row_no) for record in used), skipped,
    )  # fmt: skip


def _skip_reason(record: CostRecord) -> str:
    if not record.valid:
        return "invalid"
    if record.program != "stages":
        return "not a 'stages' program"
    if not record.stages and (record.heads or record.latency_ms is None):
        return "no stage costs"
    return ""


def _record_stages(
    space: BackboneSpace, record: CostRecord
) -> list[tuple[Signature, Statistic, Statistic | None]]:
    where = f"cost record {record.session} row {record.row_no}"
    if record.backbone.space != space.name:
        raise ModelError(
            f"{where}: backbone of space '{record.backbone.space}'; the predictors are for '{space.name}'"
        )
    workload = space.workload(record.backbone, n_classes=record.n_classes)
    stages = workload.stages([position for position, _ in record.heads])
    if not record.stages:
        assert record.latency_ms is not None
        return [(signature(stages[0]), record.latency_ms, record.energy_mj)]
    expected = [(stage.kind, stage.position) for stage in stages]
    found = [(stage.kind, stage.position) for stage in record.stages]
    if expected != found:
        raise ModelError(f"{where}: stages {found} do not fit its exits, which make {expected}")
    return [
        (signature(stage), cost.latency_ms, cost.energy_mj)
        for stage, cost in zip(stages, record.stages, strict=True)
    ]


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


@dataclass(frozen=True)
class LatencyBaseline:
    """A roofline-like sum: latency_ms = coefficients . terms, all coefficients >= 0.

    Terms: dense and depthwise MACs over the compute clock, bytes over the memory and over the
    compute clock, layers over the compute clock, layers, and 1 per stage.

    Attributes:
        coefficients: (7,) in ms per GMAC GHz, GB GHz, layer GHz, layer, stage.
        floor_ms: the least it says, for stages that lack every term the fit relied on.
    """

    coefficients: FloatArray
    floor_ms: float

    @classmethod
    def fit(
        cls, work: StageWork, clocks_ghz: FloatArray, roles: ClockRoles, latency_ms: FloatArray
    ) -> LatencyBaseline:
        """Non-negative least squares on relative errors over n paired rows."""
        terms = _baseline_terms(work, clocks_ghz, roles) / latency_ms[:, None]
        scale = np.maximum(np.sqrt((terms**2).mean(axis=0)), 1e-300)
        solution, _ = nnls(terms / scale, np.ones(len(terms)))
        return cls(np.asarray(solution / scale), 1e-3 * float(latency_ms.min()))

    def __call__(self, work: StageWork, clocks_ghz: FloatArray, roles: ClockRoles) -> FloatArray:
        """Latency (n,), ms, of n paired rows."""
        return np.asarray(np.maximum(self._parts_ms(work, clocks_ghz, roles).sum(axis=1), self.floor_ms))

    def shares(self, work: StageWork, clocks_ghz: FloatArray, roles: ClockRoles) -> FloatArray:
        """Shares (n, 3) of compute, memory and launches in the latency of n paired rows."""
        parts = self._parts_ms(work, clocks_ghz, roles)
        grouped = np.stack(
            [parts[:, :2].sum(axis=1), parts[:, 2:4].sum(axis=1), parts[:, 4:6].sum(axis=1)], axis=1
        )
        return np.asarray(grouped / np.maximum(parts.sum(axis=1), self.floor_ms)[:, None])

    def _parts_ms(self, work: StageWork, clocks_ghz: FloatArray, roles: ClockRoles) -> FloatArray:
        return np.asarray(_baseline_terms(work, clocks_ghz, roles) * self.coefficients)


def _baseline_terms(work: StageWork, clocks_ghz: FloatArray, roles: ClockRoles) -> FloatArray:
    compute = roles.column(clocks_ghz, roles.compute)
    memory = roles.column(clocks_ghz, roles.memory)
    return np.stack(
        [
            work.dense_macs * 1e-9 / compute,
            work.depthwise_macs * 1e-9 / compute,
            work.bytes_moved * 1e-9 / memory,
            work.bytes_moved * 1e-9 / compute,
            work.n_layers / compute,
            work.n_layers,
            np.ones(len(compute)),
        ],
        axis=1,
    )


def rows_work(rows: CostRows) -> StageWork:
    """Work totals (n,) of training rows."""
    return stage_work(rows.signatures).take(rows.stage)
