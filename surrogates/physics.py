"""The physical parts of latency and power: sums of terms with coefficients that are never negative.

They stand beside the models and not inside them (as :mod:`.trend` does), because a sum of stages has to be
attributed to its parts before a model sees them, and because the shares of latency are features of power, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .features import ClockRoles, StageWork
from .prediction import FloatArray
from .trend import fit_trend

N_TERMS = 7
N_POWER_TERMS = 12


@dataclass(frozen=True)
class LatencyBaseline:
    """A roofline-like sum: latency_ms = coefficients . terms, all coefficients >= 0.

    Attributes:
        coefficients: (7,) in ms per unit of :func:`baseline_terms`.
        floor_ms: the least it says, for stages that lack every term the fit relied on.
    """

    coefficients: FloatArray
    floor_ms: float

    @classmethod
    def fit(cls, terms: FloatArray, log_latency: FloatArray) -> LatencyBaseline:
        """Fit to n values: terms (n, 7), summed over the parts of each value, and log ms (n,)."""
        return cls(*fit_trend(terms, log_latency))

    def __call__(self, terms: FloatArray) -> FloatArray:
        """Latency (n,), ms, of terms (n, 7)."""
        return np.asarray(np.maximum(terms @ self.coefficients, self.floor_ms))

    def shares(self, terms: FloatArray) -> FloatArray:
        """Shares (n, 3) of compute, memory and launches in the latency."""
        parts = terms * self.coefficients
        grouped = [parts[:, :2].sum(axis=1), parts[:, 2:4].sum(axis=1), parts[:, 4:6].sum(axis=1)]
        return np.asarray(np.stack(grouped, axis=1) / np.maximum(parts.sum(axis=1), self.floor_ms)[:, None])


def baseline_terms(work: StageWork, clocks_ghz: FloatArray, roles: ClockRoles) -> FloatArray:
    """Terms (n, 7) of n paired rows of stages and clocks.

    Dense and depthwise GMACs over the compute clock, GB over the memory and over the compute clock (GHz),
    layers over the compute clock, layers, and 1 per stage.
    """
    compute = roles.column(clocks_ghz, roles.compute)
    memory = roles.column(clocks_ghz, roles.memory)
    columns = (
        work.dense_macs * 1e-9 / compute,
        work.depthwise_macs * 1e-9 / compute,
        work.bytes_moved * 1e-9 / memory,
        work.bytes_moved * 1e-9 / compute,
        work.n_layers / compute,
        work.n_layers,
        np.ones(len(compute)),
    )
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class PowerBaseline:
    """Power of a stage, W: what a chip draws at rest, and what switches, by what keeps it busy.

    Switching takes activity x capacity x voltage^2 x frequency, and voltage rises with frequency at the upper
    end of a table, so the first three powers of the compute clock span what lies between.

    Attributes:
        coefficients: (12,) in W per unit of :func:`power_terms`.
        floor_w: the least it says.
    """

    coefficients: FloatArray
    floor_w: float

    @classmethod
    def fit(cls, terms: FloatArray, log_power: FloatArray) -> PowerBaseline:
        """Fit to n values: terms (n, 12), averaged over the time of each value's parts, and log W (n,)."""
        return cls(*fit_trend(terms, log_power))

    def __call__(self, terms: FloatArray) -> FloatArray:
        """Power (n,), W, of terms (n, 12)."""
        return np.asarray(np.maximum(terms @ self.coefficients, self.floor_w))


@dataclass(frozen=True)
class Physics:
    """Both baselines; ``power`` is ``None`` without an energy counter."""

    latency: LatencyBaseline
    power: PowerBaseline | None


def power_terms(shares: FloatArray, clocks_ghz: FloatArray, roles: ClockRoles) -> FloatArray:
    """Terms (n, 12) of n rows.

    1, powers 1 to 3 of the compute clock, the memory clock (GHz); the share of compute in the latency, alone
    and times powers 1 to 3 of the compute clock; the share of memory, alone and times either clock.
    """
    compute = roles.column(clocks_ghz, roles.compute)
    memory = roles.column(clocks_ghz, roles.memory)
    busy, moving = shares[:, 0], shares[:, 1]
    powers = [compute, compute**2, compute**3]
    columns = [
        np.ones(len(compute)), *powers, memory, busy, *(busy * power for power in powers),
        moving, moving * memory, moving * compute,
    ]  # fmt: skip
    return np.stack(columns, axis=1)
