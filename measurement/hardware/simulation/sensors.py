"""Power sensors: what the board shows of a power trace, and what can be concluded from it.

The INA3221 sensor of L4T averages over 422 ms in its continuous mode and rounds to tens or
hundreds of milliwatts, so energy needs a window of many such intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SENSOR_AVERAGING_S = 0.4224
"""64 averages x (1.1 + 1.1) ms x 3 channels: the continuous mode of the L4T driver."""

_READS_PER_AVERAGING = 8  # one read every 53 ms, about 19 Hz


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
