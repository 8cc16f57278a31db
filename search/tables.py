"""Tables: everything the inner search needs to know of k backbones, as plain arrays.

Costs add up over stages and exits are trained on a frozen backbone, so every choice of
exits and clocks on a backbone is an index into these arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..spaces import Backbone, ClockTable

if TYPE_CHECKING:
    from .ensemble import AnyTables

FloatArray = NDArray[np.float64]

CostKind = Literal["energy_mj", "latency_ms"]


@dataclass(frozen=True, slots=True)
class CostTable:
    """One kind of cost, setting before stage, as candidates look it up.

    Attributes:
        segment: (k, F, P + 1).
        head: (k, F, P).
        alone: (k,) cost of a backbone without exits at the default setting.
    """

    segment: FloatArray
    head: FloatArray
    alone: FloatArray


@dataclass(frozen=True)
class Tables:
    """Costs and outcomes of k backbones over P exit positions, F settings and n samples.

    P is the largest number of positions among the backbones; shorter ones are padded at the
    end.  Column P of ``segment_*``, ``correct`` and ``leaves`` is always the final segment
    and classifier.

    Attributes:
        backbones: the k backbones.
        n_positions: (k,) true number of exit positions of each.
        segment_latency_ms, segment_energy_mj: (k, P + 1, F); 0 where padded.  Energy is NaN
            throughout on a device without an energy counter.
        head_latency_ms, head_energy_mj: (k, P, F); 0 where padded.
        correct: (k, P + 1, n) bool, whether an exit classifies a sample correctly; False where padded.
        leaves: (k, P + 1, n) bool, whether the calibrated controller would let a sample leave
            at an exit if it stands there; True in column P, False where padded.
        default_setting: index of the setting that static fitness is defined at.
        measured: (k,) bool, whether the outcomes were measured (else predicted).
    """

    backbones: tuple[Backbone, ...]
    n_positions: NDArray[np.int64]
    segment_latency_ms: FloatArray
    segment_energy_mj: FloatArray
    head_latency_ms: FloatArray
    head_energy_mj: FloatArray
    correct: NDArray[np.bool_]
    leaves: NDArray[np.bool_]
    default_setting: int
    measured: NDArray[np.bool_]

    @property
    def n_settings(self) -> int:
        """F."""
        return int(self.segment_latency_ms.shape[2])

    @property
    def max_positions(self) -> int:
        """P."""
        return int(self.head_latency_ms.shape[1])

    @property
    def n_samples(self) -> int:
        """n."""
        return int(self.correct.shape[2])

    def take(self, indices: Sequence[int]) -> Self:
        """The tables of some of the backbones (same P, so masks keep their shape)."""
        rows = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            backbones=tuple(self.backbones[i] for i in indices),
            n_positions=self.n_positions[rows],
            segment_latency_ms=self.segment_latency_ms[rows],
            segment_energy_mj=self.segment_energy_mj[rows],
            head_latency_ms=self.head_latency_ms[rows],
            head_energy_mj=self.head_energy_mj[rows],
            correct=self.correct[rows],
            leaves=self.leaves[rows],
            measured=self.measured[rows],
        )

    @cached_property
    def has_energy(self) -> bool:
        """Whether the device counts energy."""
        return not bool(np.isnan(self.segment_energy_mj).any())

    def by_setting(self, kind: CostKind) -> CostTable:
        """A cost of all stages, setting before stage."""
        return self._energy_by_setting if kind == "energy_mj" else self._latency_by_setting

    @cached_property
    def _latency_by_setting(self) -> CostTable:
        return self._by_setting(self.segment_latency_ms, self.head_latency_ms)

    @cached_property
    def _energy_by_setting(self) -> CostTable:
        return self._by_setting(self.segment_energy_mj, self.head_energy_mj)

    def _by_setting(self, segment: FloatArray, head: FloatArray) -> CostTable:
        # A running sum: padding has no part in its rounding.
        alone = np.cumsum(segment[:, :, self.default_setting], axis=1)[:, -1]
        segment, head = (np.ascontiguousarray(cost.transpose(0, 2, 1)) for cost in (segment, head))
        return CostTable(segment, head, alone)

    @cached_property
    def n_correct(self) -> NDArray[np.int64]:
        """(k, P + 1) samples that an exit, or the final classifier, gets right."""
        return np.asarray(np.bitwise_count(self.packed_correct).sum(axis=2, dtype=np.int64))

    @cached_property
    def packed_correct(self) -> NDArray[np.uint64]:
        """(k, P + 1, W) bits of :attr:`correct`, 64 samples a word, the last word padded with 0."""
        return pack_samples(self.correct)

    @cached_property
    def packed_leaves(self) -> NDArray[np.uint64]:
        """(k, P + 1, W) bits of :attr:`leaves`, packed likewise."""
        return pack_samples(self.leaves)

    @cached_property
    def packed_samples(self) -> NDArray[np.uint64]:
        """(W,) one bit per sample: where everybody starts."""
        return pack_samples(np.ones(self.n_samples, dtype=bool))


def pack_samples(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack the last axis (n samples) into ceil(n / 64) words."""
    n = bits.shape[-1]
    words = -(-n // 64)
    padded = np.zeros((*bits.shape[:-1], words * 64), dtype=bool)
    padded[..., :n] = bits
    return np.packbits(padded, axis=-1).view(np.uint64)


@dataclass(frozen=True)
class StaticFitness:
    """S(b) of k backbones: the backbone alone, without exits, at default clocks. All (k,)."""

    accuracy: FloatArray
    latency_ms: FloatArray
    energy_mj: FloatArray


class SupportsTables(Protocol):
    """The fast door through which the nested search sees the world."""

    @property
    def clock_table(self) -> ClockTable:
        """The settings that the last axis of the tables counts, in the table's order."""
        ...

    def static(self, backbones: Sequence[Backbone]) -> StaticFitness:
        """Static fitness; must be cheap, the outer search asks it of every genome."""
        ...

    def tables(self, backbones: Sequence[Backbone]) -> AnyTables:
        """Full tables; asked of the backbones that survive the first selection."""
        ...
