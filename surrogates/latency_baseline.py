"""The physical part of latency: terms that add up over stages, with coefficients that are never negative.

It stands beside the models and not inside them (as :mod:`.trend` does), because a sum of stages has to be
attributed to its parts before a model sees them, and because its shares are features of power, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .features import ClockRoles, StageWork
from .prediction import FloatArray
from .trend import fit_trend

N_TERMS = 7


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
