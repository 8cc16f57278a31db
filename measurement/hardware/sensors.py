"""From block times and power traces to statistics: how a measurement is taken and summarised.

The protocol's figures follow public Jetson practice: the INA3221 sensor of L4T averages over
422 ms in its continuous mode, so energy needs a window of many such intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...datasets.records import Statistic

FloatArray = NDArray[np.float64]

_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_MEDIAN_INEFFICIENCY = 1.2533  # sqrt(pi / 2): standard error of a normal sample's median over its mean's


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one row is measured.

    Attributes:
        settle_s: after setting the clocks.
        warm_up_s: running before anything counts.
        block_s: least duration of one latency block.
        n_blocks: latency blocks per stage, spread over the stage's energy window.
        window_s: energy window per stage, one continuous loop of the stage.
    """

    settle_s: float = 0.5
    warm_up_s: float = 3.0
    block_s: float = 0.1
    n_blocks: int = 24
    window_s: float = 10.0

    def device_seconds(self, n_stages: int) -> float:
        """Device time of one row: settle + warm-up + per stage one window and the interval before it
        that fills the sensor's average.  Latency blocks are timed inside the window and add nothing.
        """
        return self.settle_s + self.warm_up_s + n_stages * (self.window_s + SENSOR_AVERAGING_S)


SENSOR_AVERAGING_S = 0.4224
"""64 averages x (1.1 + 1.1) ms x 3 channels: the continuous mode of the L4T driver."""

_READS_PER_AVERAGING = 8  # one read every 53 ms, about 19 Hz


def block_statistic(block_ms: FloatArray) -> Statistic:
    """Median over blocks, its standard error from the median absolute deviation.

    Args:
        block_ms: (n_blocks,) mean latency of each block, ms.
    """
    median = float(np.median(block_ms))
    deviation = float(np.median(np.abs(block_ms - median)))
    error = _MEDIAN_INEFFICIENCY * _MAD_TO_SIGMA * deviation / math.sqrt(len(block_ms))
    return Statistic(median, error, len(block_ms))


@dataclass(frozen=True, slots=True)
class PowerSensor:
    """An averaging, quantizing power sensor on each of r rails.

    Attributes:
        lsb_w: resolution of a rail, W; 0 = none.
    """

    lsb_w: float

    @property
    def read_interval_s(self) -> float:
        """Time between two reads."""
        return SENSOR_AVERAGING_S / _READS_PER_AVERAGING

    def n_reads(self, window_s: float) -> int:
        """Reads in a window plus the averaging interval before it."""
        return math.ceil(window_s / self.read_interval_s) + _READS_PER_AVERAGING

    def read(self, power_w: FloatArray, idle_w: FloatArray) -> FloatArray:
        """What the sensor shows while the power is ``power_w``.

        Args:
            power_w: (..., t) true power of a rail, one value per read interval.
            idle_w: (...) power before the trace begins: the first reads still average it in.

        Returns:
            (..., t) moving average over 422 ms, rounded to the resolution.
        """
        before = np.repeat(idle_w[..., None], _READS_PER_AVERAGING, axis=-1)
        total = np.cumsum(np.concatenate([before, power_w], axis=-1), axis=-1)
        average: FloatArray = total[..., _READS_PER_AVERAGING:] - total[..., :-_READS_PER_AVERAGING]
        average /= _READS_PER_AVERAGING
        if self.lsb_w == 0:
            return average
        rounded: FloatArray = np.round(average / self.lsb_w) * self.lsb_w
        return rounded

    def mean_power(self, readings_w: FloatArray) -> tuple[FloatArray, FloatArray, int]:
        """Mean total power of the rails over the window, without the first averaging interval.

        Neighbouring reads share most of their average, so the standard error counts averaging
        intervals.  Rounding adds lsb / sqrt(12) per rail, which averaging removes only as far as
        the load moves the reading: divided by the number of distinct values seen.

        Args:
            readings_w: (stages, rails, t) as :meth:`read` gives them.

        Returns:
            (stages,) W, (stages,) standard error in W, number of averaging intervals.
        """
        kept = readings_w[..., _READS_PER_AVERAGING:]
        n_intervals = kept.shape[-1] // _READS_PER_AVERAGING
        total = kept.sum(axis=-2)
        parts = total[..., : n_intervals * _READS_PER_AVERAGING]
        means = parts.reshape(*parts.shape[:-1], n_intervals, _READS_PER_AVERAGING).mean(axis=-1)
        variance = means.var(axis=-1, ddof=1) / n_intervals
        if self.lsb_w:
            ordered = np.sort(kept, axis=-1)
            n_distinct = 1 + np.count_nonzero(np.diff(ordered, axis=-1) > self.lsb_w / 2, axis=-1)
            variance = variance + np.sum(self.lsb_w**2 / 12 / n_distinct, axis=-1)
        return total.mean(axis=-1), np.sqrt(variance), n_intervals
