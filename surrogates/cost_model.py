"""The fitted cost predictors: tabulated means for searches, joint draws for acquisition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..spaces import ClockTable, Setting, Stage
from .cost import CostRows
from .features import (
    N_SHARES,
    N_STAGE_FEATURES,
    ClockRoles,
    Signature,
    StageWork,
    cost_features,
    signature,
    stage_features,
    stage_work,
)
from .fitting import FittedQuantity, Fitter
from .gp import GaussianProcess, GaussianProcessPaths
from .models import Design, IntArray, KernelPart, Model
from .physics import BaselineDoubt, LatencyBaseline, Physics, PowerBaseline, baseline_terms, power_terms
from .prediction import FloatArray, Paths
from .random_features import row_noise
from .selection import TrainingRows
from .sum_process import SumPaths, SumProcess
from .sums import SumRows, sums_of

MAX_CACHED_STAGES = 20_000
"""Stages whose costs are kept; beyond it the cache starts afresh."""


MAX_BLOCK_SETTINGS = 256
"""Settings that a stage is tabulated at together."""


@dataclass(frozen=True)
class _Parts:
    """The m parts of training rows as the models see them.

    Attributes:
        stage_rows: (m, 17) features of their stages; work: their totals.
        clocks_ghz: (m, domains); terms: (m, 7) of the baseline.
        starts: (n,) first part of each value.
    """

    stage_rows: FloatArray
    work: StageWork
    clocks_ghz: FloatArray
    terms: FloatArray
    starts: IntArray
    roles: ClockRoles

    @classmethod
    def of(cls, rows: CostRows, roles: ClockRoles) -> _Parts:
        work = stage_work(rows.signatures).take(rows.stage)
        clocks = rows.clocks_ghz[rows.row]
        starts = np.searchsorted(rows.row, np.arange(len(rows.log_latency)))
        return cls(
            stage_features(rows.signatures)[rows.stage], work, clocks, baseline_terms(work, clocks, roles),
            starts, roles,
        )  # fmt: skip

    def features(self, baseline: LatencyBaseline) -> FloatArray:
        """(m, d)."""
        shares = baseline.shares(self.terms)
        return cost_features(self.stage_rows, self.work, self.clocks_ghz, self.roles, shares)


def _fit_quantity(
    fitter: Fitter, quantity: str, unit: str, rows: CostRows, measured: NDArray[np.bool_], y: FloatArray,
    noise: FloatArray, x: FloatArray, offset: FloatArray, design: Design, seed: int,
) -> FittedQuantity:  # fmt: skip
    """A model of parts from the values (n,) that were measured: of stages one by one, or of sums of them.

    Args:
        x: (m, d) features of the parts; offset: (m,) what is known of their logs.
    """
    data = SumRows(x, offset, rows.row, y, noise, rows.fused, rows.groups, rows.records, design).take(
        measured
    )
    groups = rows.groups[measured]
    if len(data.row) > len(data.y):
        return fitter.fit_sums(quantity, unit, data, n_groups=len(np.unique(groups)), seed=seed)
    single = TrainingRows(data.x, data.y - data.offset, data.noise_variance, groups, data.offset, design)
    return fitter.fit(quantity, unit, single, seed=seed)


def _joint(
    fitted: FittedQuantity, doubt: BaselineDoubt, rows: CostRows, measured: NDArray[np.bool_], x: FloatArray,
    terms: FloatArray, log_value: FloatArray,
) -> tuple[FittedQuantity, BaselineDoubt]:  # fmt: skip
    """A model and the doubt about the baseline under it as one posterior, if the model is a Gaussian process.

    Args:
        x: (m, d) features of all parts; terms: (m, k) of the baseline.
        measured: (n,) which values the model was fitted to; log_value: (n,).
    """
    model = fitted.model
    if not isinstance(model, GaussianProcess | SumProcess):
        return fitted, doubt
    parts = measured[rows.row]
    x, terms = x[parts], terms[parts]
    model = model.with_slopes(x, doubt.slopes(terms))
    if isinstance(model, SumProcess):
        spread = model.left_out_spread
    else:
        size = np.exp(log_value[measured])
        spread = model.left_out_spread(size, rows.groups[measured], rows.records[measured])
    doubt = doubt.joint(model.told, model.pull, spread, rows.n_records(measured))
    return replace(fitted, model=model.without(x, doubt.shifted(terms))), doubt


class Rows(NamedTuple):
    """Rows as the models see them.

    Attributes:
        x: (u, d) features.
        log_latency, log_power: (u,) what physics says, log ms and log W.
        terms, power_terms: (u, 7) and (u, 12) from what.
    """

    x: FloatArray
    log_latency: FloatArray
    log_power: FloatArray
    terms: FloatArray
    power_terms: FloatArray


class CostModel:
    """Latency and power of stages at settings of one clock table.

    Args:
        table: clocks of the device.
        physics: baselines of latency and power.
        latency: model of log(latency / baseline).
        power: model of log(power / baseline), or ``None`` without an energy counter.
    """

    def __init__(self, table: ClockTable, physics: Physics, latency: Model, power: Model | None) -> None:
        self.table, self.physics, self.latency, self.power = table, physics, latency, power
        self.roles = ClockRoles.of(table)
        self._clocks_ghz = self.roles.clocks_ghz(table.settings)
        self._blocks = _setting_blocks(table)
        self._forget()

    def _forget(self) -> None:
        self._index: dict[Signature, int] = {}
        self._features = np.empty((0, 0))
        self._work = stage_work([])
        self._latency_ms = np.empty((0, len(self.table)))
        self._energy_mj = np.empty((0, len(self.table)))

    @classmethod
    def fit(
        cls, table: ClockTable, rows: CostRows, *, fitter: Fitter, seed: int
    ) -> tuple[CostModel, tuple[FittedQuantity, ...]]:
        """Fit baseline, latency and power models to training rows."""
        parts = _Parts.of(rows, ClockRoles.of(table))
        timed = np.isfinite(rows.log_latency)
        told = sums_of(parts.terms, parts.starts)[timed], rows.log_latency[timed], rows.latency_noise[timed]
        baseline = LatencyBaseline.fit(*told)
        doubt = BaselineDoubt.of(baseline, *told, n_records=rows.n_records(timed))
        x = parts.features(baseline)
        log_baseline = np.log(baseline(parts.terms))
        latency = _fit_quantity(
            fitter, "log_latency", "log ms", rows, timed, rows.log_latency, rows.latency_noise, x, log_baseline,
            Design(), seed,
        )  # fmt: skip
        latency, doubt = _joint(latency, doubt, rows, timed, x, parts.terms, rows.log_latency)
        counted = np.isfinite(rows.log_power)
        if not counted.any():
            return cls(table, Physics(baseline, doubt), latency.model, None), (latency,)
        # The power of a sum is the mean of its parts', weighted by their shares in its time.
        log_ms = log_baseline + doubt.shifted(parts.terms) + latency.model.mean(x)[:, 0]
        time = np.exp(log_ms - np.maximum.reduceat(log_ms, parts.starts)[rows.row])
        share = time / np.add.reduceat(time, parts.starts)[rows.row]
        terms = power_terms(baseline.shares(parts.terms), parts.clocks_ghz, parts.roles)
        mean_terms = sums_of(share[:, None] * terms, parts.starts)
        told = mean_terms[counted], rows.log_power[counted], rows.power_noise[counted]
        power_baseline = PowerBaseline.fit(*told)
        of_power = BaselineDoubt.of(power_baseline, *told, n_records=rows.n_records(counted))
        offset = np.log(share) + np.log(power_baseline(terms))
        # Clocks and what bounds a stage set most of its power: a function of its own beside the rest.
        n_clocks = 2 * len(parts.roles.domains)
        clocks_and_shares = range(N_STAGE_FEATURES, N_STAGE_FEATURES + N_SHARES + n_clocks)
        design = Design((KernelPart(tuple(clocks_and_shares)), KernelPart(tuple(range(x.shape[1])))))
        power = _fit_quantity(
            fitter, "log_power", "log W", rows, counted, rows.log_power, rows.power_noise, x, offset,
            design, seed + 1,
        )  # fmt: skip
        power, of_power = _joint(power, of_power, rows, counted, x, terms, rows.log_power)
        physics = Physics(baseline, doubt, power_baseline, of_power)
        return cls(table, physics, latency.model, power.model), (latency, power)

    @property
    def n_registered(self) -> int:
        """Distinct stages in the cache."""
        return len(self._index)

    def register(self, stages: Sequence[Stage]) -> IntArray:
        """Row (r,) of each stage in the cache; equal stages share one."""
        signatures = [signature(stage) for stage in stages]
        new = [s for s in dict.fromkeys(signatures) if s not in self._index]
        if len(self._index) + len(new) > MAX_CACHED_STAGES:
            self._forget()
            new = list(dict.fromkeys(signatures))
        if new:
            for stage in new:
                self._index[stage] = len(self._index)
            features, work = stage_features(new), stage_work(new)
            old = self._work
            self._features = np.vstack([self._features.reshape(-1, features.shape[1]), features])
            self._work = StageWork(
                np.concatenate([old.dense_macs, work.dense_macs]),
                np.concatenate([old.depthwise_macs, work.depthwise_macs]),
                np.concatenate([old.bytes_moved, work.bytes_moved]),
                np.concatenate([old.n_layers, work.n_layers]),
            )
            unknown = np.full((len(new), len(self.table)), np.nan)
            self._latency_ms = np.vstack([self._latency_ms, unknown])
            self._energy_mj = np.vstack([self._energy_mj, unknown])
        return np.array([self._index[s] for s in signatures], dtype=np.int64)

    def tabulated(self, stage_rows: IntArray, setting_rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Latency (r, F) in ms and energy (r, F) in mJ of cached stages at settings of the table.

        These are medians of the predictive distributions, which are log-normal; means lie
        above them by half the variance of the log, well under the model's own error.
        """
        needed = np.unique(stage_rows)
        for block in {id(block): block for block in (self._blocks[i] for i in setting_rows)}.values():
            # The last bit of a product depends on what else is in it.  Stage by stage and in blocks that never
            # change, a cost does not depend on what was asked before, so a resumed search finds the same.
            for stage in needed[np.isnan(self._latency_ms[needed, block[0]])]:
                rows = self._rows(np.full(len(block), stage), self._clocks_ghz[block])
                self._latency_ms[stage, block], self._energy_mj[stage, block] = self._medians(rows)
        wanted = np.ix_(stage_rows, setting_rows)
        return self._latency_ms[wanted], self._energy_mj[wanted]

    def _rows(self, stage: IntArray, clocks_ghz: FloatArray) -> Rows:
        work = self._work.take(stage)
        terms = baseline_terms(work, clocks_ghz, self.roles)
        shares = self.physics.latency.shares(terms)
        x = cost_features(self._features[stage], work, clocks_ghz, self.roles, shares)
        log_power, of_power = np.full(len(x), np.nan), power_terms(shares, clocks_ghz, self.roles)
        if self.physics.power is not None:
            log_power = np.log(self.physics.power(of_power))
        if self.physics.power_doubt is not None:
            log_power += self.physics.power_doubt.shifted(of_power)
        log_latency = np.log(self.physics.latency(terms)) + self.physics.latency_doubt.shifted(terms)
        return Rows(x, log_latency, log_power, terms, of_power)

    def _medians(self, rows: Rows) -> tuple[FloatArray, FloatArray]:
        latency_ms = np.exp(rows.log_latency + self.latency.mean(rows.x)[:, 0])
        if self.power is None:
            return latency_ms, np.full(len(latency_ms), np.nan)
        return latency_ms, latency_ms * np.exp(rows.log_power + self.power.mean(rows.x)[:, 0])

    def medians(self, stages: Sequence[Stage], settings: Sequence[Setting]) -> tuple[FloatArray, FloatArray]:
        """Latency (n,) in ms and energy (n,) in mJ of n (stage, setting) pairs; energy NaN without a counter.

        Of a segment with blocks between: the sums over its finest segments.
        """
        parts, starts, owner = finest(stages)
        rows, pair = self.paired_rows(parts, [settings[i] for i in owner])
        latency_ms, energy_mj = self._medians(rows)
        return sums_of(latency_ms[pair], starts), sums_of(energy_mj[pair], starts)

    def paired_rows(self, stages: Sequence[Stage], settings: Sequence[Setting]) -> tuple[Rows, IntArray]:
        """Distinct (stage, setting) rows behind n pairs, and the row (n,) of each pair."""
        stage = self.register(stages)
        distinct_settings = list(dict.fromkeys(settings))
        clocks = self.roles.clocks_ghz(distinct_settings)
        position = {setting: i for i, setting in enumerate(distinct_settings)}
        setting = np.array([position[s] for s in settings], dtype=np.int64)
        pairs, inverse = np.unique(stage * max(1, len(clocks)) + setting, return_inverse=True)
        rows = self._rows(pairs // max(1, len(clocks)), clocks[pairs % max(1, len(clocks))])
        return rows, np.asarray(inverse, dtype=np.int64)


def _setting_blocks(table: ClockTable) -> list[IntArray]:
    """The block of settings, by setting, that each is tabulated with: the default by itself, which static costs
    ask for, the others by hundreds."""
    default = table.index(table.default)
    others = np.array([i for i in range(len(table)) if i != default], dtype=np.int64)
    found = [np.array([default], dtype=np.int64)] * len(table)
    for start in range(0, len(others), MAX_BLOCK_SETTINGS):
        block = others[start : start + MAX_BLOCK_SETTINGS]
        for setting in block:
            found[setting] = block
    return found


def finest(stages: Sequence[Stage]) -> tuple[list[Stage], IntArray, IntArray]:
    """The finest stages of some, the first (n,) of each, and (m,) whose each is.

    The cost of a segment is the sum of theirs, as tables have it: one long segment asked as a row would lie far
    from rows of networks with many exits.
    """
    parts = [stage.parts for stage in stages]
    sizes = np.array([len(own) for own in parts], dtype=np.int64)
    return (
        [part for own in parts for part in own],
        np.cumsum(sizes) - sizes,
        np.repeat(np.arange(len(sizes), dtype=np.int64), sizes),
    )


class CostDraws:
    """s joint draws of stage latency and energy; a segment's are sums of the draws of its finest segments.

    Args:
        noise: whether each row carries the noise of one new measurement.
    """

    def __init__(self, model: CostModel, n_draws: int, seed: int, *, noise: bool) -> None:
        self._model, self.n_draws, self._seed, self._noise = model, n_draws, seed, noise
        self._latency = model.latency.paths(n_draws, seed)
        self._power = model.power.paths(n_draws, seed + 1) if model.power is not None else None

    def __call__(self, stages: Sequence[Stage], settings: Sequence[Setting]) -> tuple[FloatArray, FloatArray]:
        """Latency (s, n) in ms and energy (s, n) in mJ of n (stage, setting) pairs; energy NaN without a counter."""
        model = self._model
        parts, starts, owner = finest(stages)
        rows, pair = model.paired_rows(parts, [settings[i] for i in owner])
        physics = model.physics
        log_ms = self._draw(
            self._latency, model.latency, rows.x, physics.latency_doubt, rows.terms, self._seed
        )
        part_ms = np.exp(rows.log_latency + log_ms)
        latency_ms = sums_of(part_ms[:, pair].T, starts).T
        energy_mj = np.full_like(latency_ms, np.nan)
        if self._power is not None and model.power is not None and physics.power_doubt is not None:
            log_w = self._draw(
                self._power, model.power, rows.x, physics.power_doubt, rows.power_terms, self._seed + 1
            )
            energy_mj = sums_of((part_ms * np.exp(rows.log_power + log_w))[:, pair].T, starts).T
        if not self._noise:
            return latency_ms, energy_mj
        # A stage is measured as one program, whatever it is the sum of: its noise is one.
        rows, pair = model.paired_rows(stages, settings)
        factor = np.exp(noise_of(model.latency, rows.x, self.n_draws, self._seed))
        latency_ms *= factor[:, pair]
        if model.power is not None:
            factor *= np.exp(noise_of(model.power, rows.x, self.n_draws, self._seed + 1))
            energy_mj *= factor[:, pair]
        return latency_ms, energy_mj

    def _draw(
        self, paths: Paths, model: Model, x: FloatArray, doubt: BaselineDoubt, terms: FloatArray, seed: int
    ) -> FloatArray:
        """(s, u) what lies between the baseline and draws: of its coefficients, and of what it misses."""
        absorbed = None
        if isinstance(paths, GaussianProcessPaths | SumPaths):
            draw, mean, absorbed = paths.beside_mean(x)
        else:
            draw, mean = paths(x)[:, :, 0], model.mean(x)[:, 0]
        # In place: these arrays are the largest of a draw.
        draw -= mean
        draw *= doubt.widening
        draw += mean
        draw += doubt.moved(terms, self.n_draws, seed, absorbed)
        return draw


def noise_of(model: Model, x: FloatArray, n_draws: int, seed: int) -> FloatArray:
    """Noise (s, n) of one new measurement of each row, on the model's scale; fixed by seed and row."""
    sd = np.sqrt(model.predict(x).var_noise[:, 0])
    return np.asarray((row_noise(x, n_draws, seed) * sd[:, None]).T)
