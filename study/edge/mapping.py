"""Which core runs each segment: for a given network and given shares, what costs least.

Nothing that training decides depends on the mapping, and all that does is known, so it is worked out and not searched.
ET_avg is a sum of products, sum_p r_p E_p C_p with the energy E_p and the cycles C_p up to each exit, so it is not a
sum over segments; its slope is.  A path of cores that is best for a slope (dynamic programming over segments) gives the
next slope; starts differ in what energy weighs against cycles; at last each segment is moved by itself.  Compared with
all mappings of random networks on cores of two styles, that is the best for 63 of 64, and within 0.1 % for the other.

Shapes: n networks, e exits in use, p = 11 mounting points, k styles of cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from ...search.lazy_greedy import BoolArray
from ...search.tables import FloatArray
from ...spaces import IntArray
from ...spaces.quantized import FINAL, HEAD_TYPES, N_POINTS, QuantizedNetwork
from .judging import Limits

if TYPE_CHECKING:
    from ...measurement.accelerator.cost_model import AcceleratorCostModel
    from ...measurement.accelerator.network_costs import NetworkCosts

_STEPS = 4
"""Slopes that are followed from each start; the last ones hardly ever change anything."""

_EXCHANGE = np.array([0.0, 0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0, np.inf])
"""Starts: what a relative saving of energy weighs against one of cycles."""


class SegmentMapper:
    """The best mapping of networks onto the cores of one accelerator.

    Cores of one style differ in nothing, and moving between two of them costs, so one core per style is enough; on
    equal cores everything stays where it is.

    Args:
        costs: of a space with as many cores as may be used.
    """

    def __init__(self, costs: AcceleratorCostModel, limits: Limits) -> None:
        self._costs, self._limits = costs, limits
        cores = costs.accelerator.cores[: costs.space.n_cores]
        self._cores = np.array([cores.index(style) for style in dict.fromkeys(cores)])
        self._bits = sorted({*costs.space.bit_choices[0], *costs.space.bit_choices[1]})
        self._layers = _Layers(costs, self._bits, self._cores) if len(self._cores) > 1 else None

    def mapped(
        self, networks: Sequence[QuantizedNetwork], shares: FloatArray
    ) -> tuple[list[QuantizedNetwork], NetworkCosts]:
        """The networks with the cores whose expected ET_avg is least, and what they cost.

        A mapping that keeps to the limit of latency goes before one that does not.

        Args:
            shares: (n, e) of the samples that leave at each exit in use; 0 past a network's last.
        """
        if self._layers is None:
            found = [replace(network, cores=(0,) * (N_POINTS + 1)) for network in networks]
            return found, self._costs.costs(found)
        tables = self._layers.of(networks, shares)
        best = np.zeros((len(networks), N_POINTS + 1), dtype=np.int64)
        order = self._judged(tables, best)

        def look_at(styles: IntArray) -> None:
            nonlocal order
            judged = self._judged(tables, styles)
            better = _before(judged, order)
            best[better], order = styles[better], np.where(better, judged, order)

        for styles in _candidates(tables, len(self._cores)):
            look_at(styles)
        for part, style in product((*range(N_POINTS + 1), *range(N_POINTS)), range(len(self._cores))):
            moved = best.copy()
            moved[:, part] = style
            look_at(moved)
        found = [
            replace(network, cores=tuple(row))
            for network, row in zip(networks, self._cores[best].tolist(), strict=True)
        ]
        return found, self._costs.costs(found)

    def _judged(self, tables: _Tables, styles: IntArray) -> FloatArray:
        """(2, n) by how much the limit of latency is missed, and ET_avg; the smaller, the better."""
        energy, cycles = tables.cumulated(styles)
        late = np.zeros(len(styles))
        if self._limits.max_latency_ms is not None:
            latency_ms = (tables.share * cycles).sum(axis=1) / self._costs.accelerator.core_hz * 1e3
            late = np.maximum(latency_ms - self._limits.max_latency_ms, 0.0)
        return np.stack([late, (tables.share * energy * cycles).sum(axis=1)])


def _before(one: FloatArray, other: FloatArray) -> BoolArray:
    """(n,) where (2, n) comes before another, the first row going before the second."""
    return np.asarray((one[0] < other[0]) | ((one[0] == other[0]) & (one[1] < other[1])))


class _Layers:
    """What segments, heads and moves cost by themselves, asked of the cost model: (energy in mJ, cycles) each.

    Attributes:
        segment: (2, bits, k, p); head: (2, head type, bits, k, p); move: (2, bits, p) of the map that leaves a segment.
    """

    def __init__(self, costs: AcceleratorCostModel, bits: Sequence[int], cores: IntArray) -> None:
        def network(heads: Sequence[int], b: int, on: Sequence[int]) -> QuantizedNetwork:
            return QuantizedNetwork(costs.space.name, tuple(heads), (b,) * N_POINTS, b, tuple(on))

        self.bits = list(bits)
        alone = [
            network((head,) * N_POINTS, b, (int(core),) * (N_POINTS + 1))
            for head in HEAD_TYPES
            for b in bits
            for core in cores
        ]
        found = costs.costs(alone)
        shape = (len(HEAD_TYPES), len(bits), len(cores), N_POINTS)
        self.segment = np.stack([found.segment_energy_mj, found.segment_cycles]).reshape(2, *shape)[:, 0]
        self.head = np.stack([found.head_energy_mj, found.head_cycles]).reshape(2, *shape)
        self.head = np.concatenate([np.zeros_like(self.head[:, :1]), self.head], axis=1)  # type 0: none
        a, b_core = int(cores[0]), int(cores[1])
        crossing = [
            network((0,) * FINAL + (1,), b, (a,) * (i + 1) + (b_core,) * (N_POINTS - i))
            for b in bits
            for i in range(N_POINTS)
        ]
        moved = costs.costs(crossing)
        self.move = np.stack([moved.transfer_energy_mj, moved.transfer_cycles]).reshape(
            2, len(bits), N_POINTS
        )

    def of(self, networks: Sequence[QuantizedNetwork], shares: FloatArray) -> _Tables:
        """Looked up for networks."""
        heads = np.array([network.heads for network in networks])
        bits = np.searchsorted(self.bits, [network.segment_bits for network in networks])
        head_bits = np.searchsorted(self.bits, [network.head_bits for network in networks])[:, None]
        points, share = np.arange(N_POINTS), np.zeros(heads.shape)
        used = heads > 0
        share[used] = shares[np.arange(shares.shape[1]) < used.sum(axis=1)[:, None]]
        return _Tables(
            self.segment.transpose(0, 1, 3, 2)[:, bits, points],
            self.head.transpose(0, 1, 2, 4, 3)[:, heads, head_bits, points],
            self.move[:, bits, points], used, share,
        )  # fmt: skip


class _Tables:
    """Costs of n networks: segment, head (2, n, p, k), move (2, n, p); used, share (n, p) by mounting point."""

    def __init__(
        self, segment: FloatArray, head: FloatArray, move: FloatArray, used: BoolArray, share: FloatArray
    ) -> None:
        self.segment, self.head, self.move, self.used, self.share = segment, head, move, used, share

    def cumulated(self, styles: IntArray) -> FloatArray:
        """(2, n, p) energy and cycles up to each mounting point, heads before it included, on styles (n, p + 1)."""
        own, heads = styles[:, :-1], styles[:, -1:]
        of_head = np.broadcast_to(heads, own.shape)
        found = np.take_along_axis(self.segment, own[None, :, :, None], axis=3)[..., 0]
        found = found + np.take_along_axis(self.head, of_head[None, :, :, None], axis=3)[..., 0]
        found = found + np.where((own != heads) & self.used, self.move, 0.0)
        found[:, :, 1:] += np.where(own[:, 1:] != own[:, :-1], self.move[:, :, :-1], 0.0)
        return np.cumsum(found, axis=2)

    def slope(self, styles: IntArray) -> FloatArray:
        """(2, n, p) how ET_avg rises with the energy and the cycles of each segment and its head."""
        after = self.share * self.cumulated(styles)[::-1]
        return np.asarray(np.cumsum(after[:, :, ::-1], axis=2)[:, :, ::-1])

    def path(self, weights: FloatArray, heads_on: int) -> IntArray:
        """(n, p + 1) styles whose weighted costs add up to least, with the heads on a given style."""
        k = self.segment.shape[3]
        off = np.arange(k) != heads_on
        local = self.segment + self.head[..., heads_on, None]
        local = local + np.where(off & self.used[..., None], self.move[..., None], 0.0)
        own = (weights[..., None] * local).sum(axis=0)
        hop = (weights[:, :, 1:] * self.move[:, :, :-1]).sum(axis=0)
        total, came = own[:, 0], []
        for i in range(1, N_POINTS):
            # (n, to, from): staying comes first where it costs the same.
            ways = total[:, None, :] + np.where(np.eye(k, dtype=bool), 0.0, hop[:, i - 1, None, None])
            came.append(ways.argmin(axis=2))
            total = ways.min(axis=2) + own[:, i]
        styles = np.full((len(own), N_POINTS + 1), heads_on)
        styles[:, -2] = total.argmin(axis=1)
        for i in range(N_POINTS - 2, -1, -1):
            styles[:, i] = np.take_along_axis(came[i], styles[:, i + 1, None], axis=1)[:, 0]
        return styles


def _candidates(tables: _Tables, k: int) -> Iterator[IntArray]:
    """Mappings (n, p + 1) that are tried of each network: the single styles first, then what slopes lead to."""
    left = np.cumsum(tables.share[:, ::-1], axis=1)[:, ::-1]
    one = np.zeros((len(left), N_POINTS + 1), dtype=np.int64)
    yield from (one + style for style in range(k))
    energy, cycles = tables.cumulated(one)[:, :, -1:]
    for heads_on in range(k):
        for exchange in _EXCHANGE:
            of_energy = 1.0 if exchange == np.inf else exchange
            styles = tables.path(
                np.stack([of_energy * left / energy, (exchange < np.inf) * left / cycles]), heads_on
            )
            for _ in range(_STEPS):
                yield styles
                before, styles = styles, tables.path(tables.slope(styles), heads_on)
                if (before == styles).all():
                    break
