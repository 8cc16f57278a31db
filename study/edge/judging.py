"""What a network is worth: accuracy under its exit policy is measured, what it costs is modelled.

ET_i is what a sample that leaves at exit i has cost: energy of all stages up to there, heads of earlier exits
included, times their cycles.  ET_avg is its mean over samples, ``sum_i r_i ET_i`` with shares r_i (Zniber et al.,
arXiv:2512.04705, checked on their published records): the mean of products, not the product of means.

Shapes: n networks, e exits in use (padded with zeros to the most that any has), s draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...search.archive import Judgement
from ...search.objectives import Column
from ...search.tables import FloatArray
from .config import LimitsConfig

if TYPE_CHECKING:
    from ...measurement.accelerator import NetworkCosts
    from ...measurement.quantized.policy import QuantizedOutcome

COLUMNS = (Column("error", False), Column("ET_avg, J x cycles", True), Column("head share", False))
"""Objectives of the archive search, all minimised."""

QUANTITIES = ("accuracy", "et_average", "head_share")
"""The same for people; accuracy is one minus the error."""


@dataclass(frozen=True)
class Limits:
    """What a network must keep to, expected under its exit policy."""

    min_accuracy: float | None = None
    max_latency_ms: float | None = None

    @classmethod
    def of(cls, config: LimitsConfig) -> Limits:
        """As a study file says them."""
        return cls(config.min_accuracy, config.max_latency_ms)

    @property
    def words(self) -> tuple[str, ...]:
        """Each limit in words."""
        said = []
        if self.min_accuracy is not None:
            said.append(f"accuracy at least {100 * self.min_accuracy:g} %")
        if self.max_latency_ms is not None:
            said.append(f"latency at most {self.max_latency_ms:g} ms")
        return tuple(said)

    def excess(self, accuracy: FloatArray, latency_ms: FloatArray) -> FloatArray | None:
        """(..., n, c) by how much each limit is missed, relative to it; ``None`` without limits."""
        parts = []
        if self.min_accuracy is not None:
            parts.append((self.min_accuracy - accuracy) / self.min_accuracy)
        if self.max_latency_ms is not None:
            parts.append((latency_ms - self.max_latency_ms) / self.max_latency_ms)
        return np.stack(parts, axis=-1) if parts else None


def judgement(accuracy: FloatArray, shares: FloatArray, costs: NetworkCosts, limits: Limits) -> Judgement:
    """Objectives and limits of networks.

    Args:
        accuracy: (..., n), 0..1.
        shares: (..., n, e) of samples that leave at each exit; 0 where padded.
        costs: of the n networks.
    """
    points = np.stack([1.0 - accuracy, costs.et_average(shares), costs.head_share(shares)], axis=-1)
    return Judgement(points, limits.excess(accuracy, costs.expected_latency_ms(shares)))


@dataclass(frozen=True)
class JudgedNetwork:
    """One network on one split.

    Attributes:
        accuracy, accuracy_se: under its exit policy, 0..1; clustered by underlying image.
        shares: (e,) of samples that leave at each exit in use.
        branch_accuracy: (e,) among the samples that left there; 0 where none did.
        thresholds: (e,) confidence from which on samples leave; 0 at the final exit.
        et_average, et_average_se: J x cycles, MODELLED; the error is that of the shares alone.
        energy_mj, latency_ms: expected, MODELLED.
        head_share: of the expected energy, what heads take.
        et_exits: (e,) ET of a sample that leaves at each exit.
        et_static: ET of the same backbone, at the same bits, with its final head alone.
    """

    accuracy: float
    accuracy_se: float
    shares: tuple[float, ...]
    branch_accuracy: tuple[float, ...]
    thresholds: tuple[float, ...]
    et_average: float
    et_average_se: float
    energy_mj: float
    latency_ms: float
    head_share: float
    et_exits: tuple[float, ...]
    et_static: float

    @property
    def reduction(self) -> float:
        """1 - ET_avg / ET of the static network of the same backbone and bits."""
        return 1.0 - self.et_average / self.et_static

    @property
    def reduction_of_full_pass(self) -> float:
        """1 - ET_avg / ET of a sample that runs through all exits, their heads included."""
        return 1.0 - self.et_average / self.et_exits[-1]


def padded(shares: Sequence[FloatArray]) -> FloatArray:
    """(n, e) shares of n networks, zeros past a network's last exit."""
    found = np.zeros((len(shares), max(map(len, shares))))
    for row, own in zip(found, shares, strict=True):
        row[: len(own)] = own
    return found


def effective_samples(outcome: QuantizedOutcome) -> float:
    """How many independent samples the standard errors of accuracy and shares are worth.

    Copies of one image are not independent, so they count for less than as many images: the variance p (1 - p) of
    one sample over the squared error, pooled over the accuracy and all shares.
    """
    values = np.append(outcome.shares, outcome.accuracy.value)
    errors = np.append(outcome.share_errors, outcome.accuracy.standard_error)
    variance, squared = float(np.sum(values * (1.0 - values))), float(np.sum(errors**2))
    return variance / squared if squared > 0.0 else float(outcome.accuracy.n)


def judged(outcomes: Sequence[QuantizedOutcome], costs: NetworkCosts) -> list[JudgedNetwork]:
    """n networks from what they do with a split and from what they cost."""
    shares = padded([outcome.shares for outcome in outcomes])
    average = costs.et_average(shares)
    energy_mj, latency_ms = costs.expected_energy_mj(shares), costs.expected_latency_ms(shares)
    head_share = costs.head_share(shares)
    found = []
    for i, outcome in enumerate(outcomes):
        et = costs.et[i, : len(outcome.shares)]
        variance = float(np.sum(outcome.shares * (et - average[i]) ** 2))
        found.append(
            JudgedNetwork(
                accuracy=outcome.accuracy.value,
                accuracy_se=outcome.accuracy.standard_error,
                shares=tuple(outcome.shares.tolist()),
                branch_accuracy=tuple(outcome.branch_accuracy.tolist()),
                thresholds=tuple(outcome.thresholds.tolist()),
                et_average=float(average[i]),
                et_average_se=math.sqrt(variance / effective_samples(outcome)),
                energy_mj=float(energy_mj[i]),
                latency_ms=float(latency_ms[i]),
                head_share=float(head_share[i]),
                et_exits=tuple(et.tolist()),
                et_static=float(costs.static_et[i]),
            )
        )
    return found
