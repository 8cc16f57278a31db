"""What blocks of runs and power readings say: medians with intervals, energy of a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....datasets.evidence import EnergyEvidence, LatencyEvidence, StoppedBy
from ....datasets.records import CostRecord, Statistic
from ....errors import RecordError
from ..rig import Block, EnergySource, PowerTrace

FloatArray = NDArray[np.float64]

Z95 = 1.959964
"""Half-width of a normal distribution's central 95 %, in standard deviations."""

_T975 = {2: 4.3027, 3: 3.1824, 7: 2.3646, 15: 2.1314}
"""97.5 % quantiles of Student's t, by degrees of freedom."""
_BATCHES = (4, 8, 16)  # runs of consecutive values whose scatter tells how far neighbours go together
_N_PARTS = 25  # of an energy window, at most: their scatter is its standard error


def bootstrap_interval(
    values: FloatArray, *, n_resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the median of independent values.

    Args:
        values: (n,) n >= 3.

    Returns:
        Low and high end; the same values give the same interval, whatever their order.

    The median of a resample of sorted values is the value at the median of the drawn ranks, so only
    whole numbers are partitioned (Efron, Annals of Statistics 7 (1979), section 3).
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    drawn = np.random.default_rng([seed, n]).integers(0, n, (n_resamples, n), dtype=np.int32)
    low, high = (n - 1) // 2, n // 2
    drawn.partition((low, high) if low != high else low, axis=1)
    medians = (ordered[drawn[:, low]] + ordered[drawn[:, high]]) / 2
    tail = (1.0 - level) / 2
    ends = np.quantile(medians, (tail, 1.0 - tail))
    return float(ends[0]), float(ends[1])


def batch_half_width(values: FloatArray, centre: Callable[[FloatArray], Any] = np.median) -> float:
    """Half-width of a 95 % interval of the centre of values of which neighbours may go together.

    The values are cut into a few runs of consecutive ones; their centres scatter as slow phases make them, and
    Student's t allows for their being few (batch means: Schmeiser, Operations Research 30 (1982)).  Few long runs
    see slow phases, many short ones are seldom alike by chance: the widest of several counts, which matters most
    to a caller that stops as soon as the interval is narrow.

    Args:
        values: (n,) n >= 3, in order of time.
        centre: ``np.median`` or ``np.mean``.
    """
    widths = []
    for n_batches in [min(len(values), _BATCHES[0]), *(k for k in _BATCHES[1:] if len(values) >= 2 * k)]:
        centres = [float(centre(batch)) for batch in np.array_split(values, n_batches)]
        widths.append(_T975[n_batches - 1] * float(np.std(centres, ddof=1)) / math.sqrt(n_batches))
    return max(widths)


def median_interval(values: FloatArray, *, n_resamples: int = 1000) -> tuple[float, float]:
    """95 % interval of a median over blocks, which slow phases of the machine do not escape.

    The bootstrap takes blocks for independent.  Where :func:`batch_half_width` says that they are not, an end
    that is nearer to the median than that moves out.  How often intervals hold the truth at which correlation
    is printed by ``benchmarks/interval_coverage.py``.

    Args:
        values: (n,) n >= 3, in order of time.
    """
    low, high = bootstrap_interval(values, n_resamples=n_resamples)
    median, half = float(np.median(values)), batch_half_width(values)
    if 2 * half <= high - low:
        return low, high
    return min(low, median - half), max(high, median + half)


def block_means_ms(blocks: Sequence[Block]) -> FloatArray:
    """(n_blocks,) mean latency per inference of each block."""
    return np.array([1e3 * sum(block.run_s) / len(block.run_s) for block in blocks])


def latency_evidence(
    blocks: Sequence[Block], stopped_by: StoppedBy, warm_up_s: float, *, n_bootstrap: int = 1000
) -> LatencyEvidence:
    """Summary of all blocks of a stage.

    Args:
        blocks: in order of time, warm-up excluded.
    """
    means = block_means_ms(blocks)
    runs_ms = 1e3 * np.concatenate([block.run_s for block in blocks])
    centre = float(np.median(runs_ms))
    distance = np.abs(runs_ms - centre)
    mad = float(np.median(distance))
    p90, p99 = np.quantile(runs_ms, (0.9, 0.99))
    return LatencyEvidence(
        block_ms=tuple(means.tolist()), runs_per_block=len(blocks[0].run_s), median_ms=float(np.median(means)),
        interval95_ms=median_interval(means, n_resamples=n_bootstrap), p90_ms=float(p90), p99_ms=float(p99),
        mad_ms=mad, n_outliers=int(np.count_nonzero(distance > 5 * mad)), stopped_by=stopped_by,
        warm_up_s=warm_up_s,
    )  # fmt: skip


def latency_statistic(evidence: LatencyEvidence) -> Statistic:
    """Median over blocks; 1.96 standard errors are half of its 95 % interval."""
    low, high = evidence.interval95_ms
    return Statistic(evidence.median_ms, (high - low) / (2 * Z95), len(evidence.block_ms))


@dataclass(frozen=True, slots=True)
class WindowEnergy:
    """Energy of one window.

    Attributes:
        duration_s, n_runs: of the window.
        rail_j: (rails,) energy of every rail.
        n_samples: readings in the window.
        n_distinct: different values among the readings of the rails that count.
        error_w: standard error of the mean power of the rails that count.
        run_error: relative standard error of the mean duration of a run.
    """

    duration_s: float
    n_runs: int
    rail_j: FloatArray
    n_samples: int
    n_distinct: int
    error_w: float
    run_error: float = 0.0


def window_energy(
    trace: PowerTrace, source: EnergySource, start_s: float, end_s: float, blocks: Sequence[Block] = ()
) -> WindowEnergy:
    """Energy between two moments.

    An averaging sensor's readings are integrated by the trapezoid rule.  A counter's (``averaging_s`` = 0)
    are mean powers since the reading before, so their sum is exact at every reading and linear
    in between.

    Args:
        start_s, end_s: on the clock of the trace.  A sensor that averages still shows what was before a
            load for one averaging interval: the caller starts that much later.
        blocks: that were run in just this window; none = an idle device.

    Raises:
        RecordError: readings that do not cover the window, that are no powers, or that are all zero.
    """
    times, power = _readings(trace, source)
    duration_s = end_s - start_s
    inside = (times >= start_s) & (times <= end_s)
    n_samples = int(np.count_nonzero(inside))
    expected = duration_s / source.update_s if source.update_s > 0 else 2
    # An end of the window may lie before the first or after the last reading, but not by much.
    slack_s = max(2 * source.update_s, source.averaging_s, 0.02 * duration_s)
    covered = n_samples >= 2 and times[0] <= start_s + slack_s and times[-1] >= end_s - slack_s
    if not covered or n_samples < 0.5 * expected:
        raise _dead(source, f"gave {n_samples} readings in {duration_s:.3g} s, about {expected:.0f} are due")
    if np.any(np.isnan(power) | np.isinf(power)):
        raise _dead(source, "gave readings that are no numbers")
    rows = [source.rails.index(label) for label in source.scope]
    scope_w = power[rows].sum(axis=0)
    if not np.any(scope_w[inside] > 0):
        raise _dead(source, f"showed no power in all of its {n_samples} readings")
    edges = np.linspace(start_s, end_s, _n_parts(source, duration_s, n_samples) + 1)
    cumulative = _cumulative(times, power, source.averaging_s == 0, edges)
    part_w = np.diff(cumulative[rows].sum(axis=0)) / np.diff(edges)
    n_distinct = len(np.unique(scope_w[inside]))
    variance = _mean_error(part_w) ** 2 + _rounding_variance(power[rows][:, inside])
    means_ms = block_means_ms(blocks)
    return WindowEnergy(
        duration_s,
        sum(len(block.run_s) for block in blocks),
        cumulative[:, -1] - cumulative[:, 0],
        n_samples,
        n_distinct,
        float(np.sqrt(variance)),
        _mean_error(means_ms) / float(means_ms.mean()) if len(means_ms) > 1 else 0.0,
    )


def _dead(source: EnergySource, what: str) -> RecordError:
    return RecordError(
        f"the energy source {what}; see that it is alive, or measure latency alone",
        source=f"energy source '{source.name}'", row=None, field="power", unit="W", value=list(source.scope),
    )  # fmt: skip


def _readings(trace: PowerTrace, source: EnergySource) -> tuple[FloatArray, FloatArray]:
    """(t,) times and (rails, t) powers, checked for shape and order."""
    times = np.array(trace.time_s, dtype=np.float64)
    power = np.array(trace.power_w, dtype=np.float64).reshape(len(trace.power_w), -1)
    if power.shape != (len(source.rails), len(times)) or np.any(np.diff(times) <= 0):
        raise _dead(source, f"gave readings of shape {power.shape} at {len(times)} moments, or out of order")
    return times, power


def _n_parts(source: EnergySource, duration_s: float, n_samples: int) -> int:
    """Parts of a window that share no reading and hold several: at least 2, at most 25."""
    by_average = duration_s / source.averaging_s if source.averaging_s > 0 else _N_PARTS
    return int(np.clip(min(by_average, n_samples / 2), 2, _N_PARTS))


def _mean_error(parts: FloatArray) -> float:
    """Standard error of the mean of parts of a window, whose neighbours may go together."""
    error = float(parts.std(ddof=1)) / math.sqrt(len(parts))
    return max(error, batch_half_width(parts, np.mean) / Z95) if len(parts) > 2 else error


def _cumulative(times: FloatArray, power: FloatArray, is_counter: bool, at: FloatArray) -> FloatArray:
    """(rails, len(at)) energy in J up to some moments, from any common origin."""
    if is_counter:
        steps = power[:, 1:] * np.diff(times)
        total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(steps, axis=1)], axis=1)
        return np.stack([np.interp(at, times, rail) for rail in total])
    grid = np.union1d(times, at)
    found = []
    for rail in power:
        values = np.interp(grid, times, rail)
        steps = np.diff(grid) * (values[1:] + values[:-1]) / 2
        found.append(np.concatenate([[0.0], np.cumsum(steps)])[np.searchsorted(grid, at)])
    return np.stack(found)


def _rounding_variance(power: FloatArray) -> float:
    """Variance of the mean that a coarse resolution adds, over rails.

    Rounding to lsb errs by lsb^2 / 12; a load that moves the reading over several values averages it
    out as far.  The smallest distance of two readings stands for the resolution.
    """
    variance = 0.0
    for rail in power:
        distinct = np.unique(rail)
        if len(distinct) > 1:
            variance += float(np.min(np.diff(distinct))) ** 2 / 12 / len(distinct)
    return variance


def energy_result(
    windows: Sequence[WindowEnergy], source: EnergySource, idle: Sequence[WindowEnergy]
) -> tuple[Statistic, EnergyEvidence]:
    """Energy per inference of one program, in mJ: the mean over its windows.

    Its standard error joins the scatter within windows, of power and of the runs' durations, and, where there are
    several windows, between them: the larger counts.

    Args:
        idle: readings of the idle device, before and after; none = no net energy.
    """
    rows = [source.rails.index(label) for label in source.scope]
    rails = np.mean([1e3 * window.rail_j / window.n_runs for window in windows], axis=0)
    gross = np.array([1e3 * window.rail_j[rows].sum() / window.n_runs for window in windows])
    run_s = np.array([window.duration_s / window.n_runs for window in windows])
    power_mj = 1e3 * run_s * np.array([window.error_w for window in windows])
    duration_mj = gross * np.array([window.run_error for window in windows])
    within = np.sqrt(np.mean(power_mj**2 + duration_mj**2))
    errors = [float(within)]
    if len(windows) > 1:
        errors.append(float(gross.std(ddof=1)))
    mean = float(gross.mean())
    statistic = Statistic(mean, max(errors) / math.sqrt(len(windows)), sum(w.n_samples for w in windows))
    idle_w, net_mj, net_error_mj = None, None, None
    if idle:
        idle_w, idle_error_w = _idle_power(idle, rows)
        idle_mj_per_w = 1e3 * float(run_s.mean())
        net_mj = mean - idle_w * idle_mj_per_w
        net_error_mj = math.hypot(statistic.standard_error, idle_error_w * idle_mj_per_w)
    evidence = EnergyEvidence(
        gross_mj=mean, net_mj=net_mj, idle_w=idle_w, net_error_mj=net_error_mj,
        scope=source.scope, rails_mj=tuple(zip(source.rails, rails.tolist(), strict=True)),
        window_s=float(np.mean([window.duration_s for window in windows])), n_windows=len(windows),
        n_samples=statistic.n, n_distinct=max(w.n_distinct for w in windows),
        averaging_s=source.averaging_s,
    )  # fmt: skip
    return statistic, evidence


def _idle_power(idle: Sequence[WindowEnergy], rows: Sequence[int]) -> tuple[float, float]:
    """Mean over readings, and its error in W: half of their spread where they differ by more than chance."""
    power_w = [float(window.rail_j[rows].sum() / window.duration_s) for window in idle]
    chance_w = math.hypot(*(window.error_w for window in idle)) / len(idle)
    return sum(power_w) / len(power_w), max(chance_w, (max(power_w) - min(power_w)) / 2)


def half_width(statistic: Statistic) -> float:
    """Of the 95 % interval."""
    return Z95 * statistic.standard_error


def relative_move(before: Statistic, after: Statistic) -> tuple[float, float]:
    """How far a value moved, relative to the first, and the 95 % half-width of that."""
    error = np.hypot(before.standard_error / before.value, after.standard_error / after.value)
    return after.value / before.value - 1.0, float(Z95 * error)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether two rows of one network at one setting agree.

    Attributes:
        agree: whether the 95 % intervals of their latencies overlap.
        noisy: whether a row says that its machine was noisy, or is not valid.
        difference: of the latencies, relative to the first; NaN if a row has none.
    """

    agree: bool
    noisy: bool
    difference: float

    @property
    def honest(self) -> bool:
        """Whether the medians agree, or a row says why they need not."""
        return self.agree or self.noisy


def agreement(first: CostRecord, second: CostRecord) -> Agreement:
    """Whether two measurements of the same thing agree within their reported intervals.

    Raises:
        RecordError: rows of different networks, exits, clocks, programs or targets.
    """
    for field in ("backbone", "heads", "requested", "program", "target"):
        if getattr(first, field) != getattr(second, field):
            raise RecordError(
                f"row {first.row_no} of session {first.session} differs: only rows of one network at one setting "
                "on one target can agree",
                source=f"session {second.session}", row=second.row_no, field=field,
            )  # fmt: skip
    flags = [row.evidence.flags if row.evidence is not None else () for row in (first, second)]
    noisy = any("noisy" in found for found in flags) or not (first.valid and second.valid)
    if first.latency_ms is None or second.latency_ms is None:
        return Agreement(False, noisy, float("nan"))
    difference, _ = relative_move(first.latency_ms, second.latency_ms)
    reach = half_width(first.latency_ms) + half_width(second.latency_ms)
    return Agreement(abs(second.latency_ms.value - first.latency_ms.value) <= reach, noisy, difference)
