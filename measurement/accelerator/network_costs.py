"""Modelled costs of many early-exit networks at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...errors import AcceleratorError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_MJ_PER_J = 1e3


@dataclass(frozen=True)
class NetworkCosts:
    """Costs of n networks with at most e exits, all of them MODELLED: nothing here was measured.

    A row holds a network's exits in order of depth, the final one last; behind it, zeros.

    Attributes:
        accelerator: name of the modelled accelerator.
        core_hz: its clock, which turns cycles into ms.
        positions: (n, e) mounting points of the exits, -1 where a row has no more.
        segment_energy_mj, segment_cycles: (n, e) of the backbone since the previous exit, with what moving its
            activations between cores costs.
        head_energy_mj, head_cycles: (n, e) of each head, with what moving its input to the heads' core costs.
        transfer_energy_mj, transfer_cycles: (n,) of all moves between cores, contained in the above.
        static_energy_mj, static_cycles: (n,) of the same backbone, bits and cores with its final head alone.
    """

    accelerator: str
    core_hz: int
    positions: IntArray
    segment_energy_mj: FloatArray
    segment_cycles: FloatArray
    head_energy_mj: FloatArray
    head_cycles: FloatArray
    transfer_energy_mj: FloatArray
    transfer_cycles: FloatArray
    static_energy_mj: FloatArray
    static_cycles: FloatArray
    truth: str = "modelled"

    @property
    def in_use(self) -> BoolArray:
        """(n, e) where a row has an exit."""
        return self.positions >= 0

    @cached_property
    def cumulative_energy_mj(self) -> FloatArray:
        """(n, e) of all that has run when a sample leaves at an exit, every earlier head included."""
        return self._cumulated(self.segment_energy_mj + self.head_energy_mj)

    @cached_property
    def cumulative_cycles(self) -> FloatArray:
        """(n, e), as :attr:`cumulative_energy_mj`."""
        return self._cumulated(self.segment_cycles + self.head_cycles)

    def _cumulated(self, values: FloatArray) -> FloatArray:
        return np.where(self.in_use, np.cumsum(values, axis=1), 0.0)

    @cached_property
    def et(self) -> FloatArray:
        """(n, e) energy-latency product of leaving at an exit, J x cycles (arXiv:2512.04705)."""
        return self.cumulative_energy_mj / _MJ_PER_J * self.cumulative_cycles

    @property
    def static_et(self) -> FloatArray:
        """(n,) energy-latency product of the backbone with its final head alone, J x cycles."""
        return self.static_energy_mj / _MJ_PER_J * self.static_cycles

    @property
    def full_energy_mj(self) -> FloatArray:
        """(n,) of a sample that goes through all exits."""
        energy_mj: FloatArray = self.cumulative_energy_mj.max(axis=1)
        return energy_mj

    @property
    def full_latency_ms(self) -> FloatArray:
        """(n,) of a sample that goes through all exits: the longest there is."""
        return self._as_ms(self.cumulative_cycles.max(axis=1))

    def et_average(self, shares: FloatArray) -> FloatArray:
        """ET_avg: the mean over samples of each sample's product, not the product of means.

        Args:
            shares: (..., n, e) of the samples that leave at each exit; zero behind a row's last exit.

        Returns:
            (..., n) J x cycles.

        Raises:
            AcceleratorError: shares of another shape, or at an exit that a network does not have.
        """
        return self._mean(shares, self.et)

    def expected_energy_mj(self, shares: FloatArray) -> FloatArray:
        """(..., n) mean over samples; shares as in :meth:`et_average`."""
        return self._mean(shares, self.cumulative_energy_mj)

    def expected_latency_ms(self, shares: FloatArray) -> FloatArray:
        """(..., n) mean over samples; shares as in :meth:`et_average`."""
        return self._as_ms(self._mean(shares, self.cumulative_cycles))

    def head_share(self, shares: FloatArray) -> FloatArray:
        """(..., n) part of the mean energy that heads take; shares as in :meth:`et_average`."""
        heads = self._mean(shares, self._cumulated(self.head_energy_mj))
        return heads / self.expected_energy_mj(shares)

    def _mean(self, shares: FloatArray, values: FloatArray) -> FloatArray:
        if shares.shape[-2:] != self.positions.shape:
            raise AcceleratorError(
                f"shares of shape {shares.shape} for {self.positions.shape[0]} networks of at most "
                f"{self.positions.shape[1]} exits: give (..., n, e), zeros behind a network's last exit"
            )
        if np.any(np.where(self.in_use, 0.0, shares)):
            raise AcceleratorError(
                "shares at exits that a network does not have: give zeros behind its last exit"
            )
        mean: FloatArray = np.sum(shares * values, axis=-1)
        return mean

    def _as_ms(self, cycles: FloatArray) -> FloatArray:
        latency_ms: FloatArray = cycles / self.core_hz * 1e3
        return latency_ms
