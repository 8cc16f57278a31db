"""Costs of early-exit networks on an accelerator: sums over a table of layers, and transfers between cores.

Layers run one after another, from off-chip memory to off-chip memory, on one core at a time, so that costs add up:
cores never overlap, and nothing stays on chip between two layers.  A map that another core reads next crosses a
link: its bits, at the bits of the segment that made it, times the link's energy, over the link's bandwidth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...errors import AcceleratorError
from ...spaces.quantized import FINAL, HEAD_TYPES, N_POINTS, QuantizedExitSpace, QuantizedNetwork
from ...spaces.workload import Unit
from .cores import Accelerator, CoreStyle
from .network_costs import BoolArray, FloatArray, IntArray, NetworkCosts
from .signatures import layer_signature
from .table import FillReport, LayerTable, Progress, Wanted

_MJ_PER_PJ = 1e-9


class AcceleratorCostModel:
    """Modelled energy and latency of the networks of a space on an accelerator.

    Args:
        space: of the networks.
        accelerator: its cores' indices are what networks name.
        table: costs of layers; what it lacks is filled when it is first asked for.
        data_movement: whether max-pools and residual sums, which have no multiply-accumulates, cost what they move
            to and from off-chip memory (zigzag-dse leaves them out of a network it reads from ONNX).
        progress: told while the table fills.

    Raises:
        AcceleratorError: a space of more cores than the accelerator has.
    """

    def __init__(
        self,
        space: QuantizedExitSpace,
        accelerator: Accelerator,
        table: LayerTable,
        *,
        data_movement: bool = True,
        progress: Progress | None = None,
    ) -> None:
        if space.n_cores > len(accelerator.cores):
            raise AcceleratorError(
                f"space '{space.name}' maps to {space.n_cores} cores; accelerator '{accelerator.name}' has "
                f"{len(accelerator.cores)}"
            )
        self.space = space
        self.accelerator = accelerator
        self.table = table
        self._data_movement = data_movement
        self._progress = progress
        self._styles = tuple(dict.fromkeys(accelerator.cores))
        self._style_of_core = np.array([self._styles.index(style) for style in accelerator.cores])
        # Elements of the map at the end of each segment, which is what crosses a link.
        self._elements = np.array([np.prod(units[-1].out_shape) for units in space.segments], dtype=np.int64)

    def layers(self, units: Sequence[Unit], bits: int, style: CoreStyle) -> Iterator[Wanted]:
        """Layers of some units that cost anything, on a core of a style."""
        for unit in units:
            for layer in unit.layers:
                signature = layer_signature(layer, bits)
                if signature.multiplies or self._data_movement:
                    yield style, signature

    def fill(
        self, networks: Sequence[QuantizedNetwork] | None = None, progress: Progress | None = None
    ) -> FillReport:
        """Fill the table with all that some networks need, or every network of the space.

        Raises:
            AcceleratorError: as :meth:`LayerTable.fill`.
        """
        needed = self._everything() if networks is None else self._needs(_Genes(networks, self))
        return self.table.fill(self._layers_of(needed), progress or self._progress)

    def coverage(self) -> tuple[int, int]:
        """How many of the layers that networks of the space can have are in the table, and how many there are."""
        needed = dict.fromkeys(self._layers_of(self._everything()))
        return len(needed) - len(self.table.missing(needed)), len(needed)

    def costs(self, networks: Sequence[QuantizedNetwork]) -> NetworkCosts:
        """Costs of some networks; the table is filled first with what they need and it lacks.

        Raises:
            AcceleratorError: no networks, one of another space or on a core that is not there, or see
                :meth:`LayerTable.fill`.
        """
        genes = _Genes(networks, self)
        segments, heads = self._tables(genes)
        points = np.arange(N_POINTS)
        own = segments[:, points, genes.bit_index, genes.style_index]
        head = heads[:, points, genes.heads, genes.head_bit_index[:, None], genes.head_style_index[:, None]]
        moved = self._transfers(genes)
        return self._composed(genes, own, head, moved)

    # -- sums of layers -----------------------------------------------------------------------------

    def _tables(self, genes: _Genes) -> tuple[FloatArray, FloatArray]:
        """Sums of layers that the networks need, in pJ and cycles; NaN for what they do not.

        Returns:
            (2, segment, bits, style) and (2, mounting point, head type, bits, style); head type 0 is free.
        """
        needed = list(self._needs(genes))
        costs = self.table.costs(tuple(self._layers_of(needed)), self._progress)
        n_bits, n_styles = len(genes.bits), len(self._styles)
        segments = np.full((2, N_POINTS, n_bits, n_styles), np.nan)
        heads = np.full((2, N_POINTS, 1 + len(HEAD_TYPES), n_bits, n_styles), np.nan)
        heads[:, :, 0] = 0.0
        for part in needed:
            position, head_type, bits, style = part
            found = [costs[key] for key in self._layers_of([part])]
            total = (sum(cost.energy_pj for cost in found), sum(cost.cycles for cost in found))
            where = (genes.bits.index(bits), self._styles.index(style))
            if head_type:
                heads[(slice(None), position, head_type, *where)] = total
            else:
                segments[(slice(None), position, *where)] = total
        return segments, heads

    def _needs(self, genes: _Genes) -> Iterator[_Part]:
        for position in range(N_POINTS):
            pairs = np.stack([genes.bit_index[:, position], genes.style_index[:, position]], axis=1)
            for bit, style in np.unique(pairs, axis=0):
                yield position, 0, genes.bits[bit], self._styles[style]
        for position in range(N_POINTS):
            used = genes.heads[:, position] > 0
            rows = np.stack([genes.heads[:, position], genes.head_bit_index, genes.head_style_index], axis=1)
            for head_type, bit, style in np.unique(rows[used], axis=0):
                yield position, int(head_type), genes.bits[bit], self._styles[style]

    def _everything(self) -> Iterator[_Part]:
        segment_bits, head_bits = self.space.bit_choices
        styles = dict.fromkeys(self.accelerator.cores[: self.space.n_cores])
        for style in styles:
            for position in range(N_POINTS):
                yield from ((position, 0, bits, style) for bits in segment_bits)
                yield from ((position, t, bits, style) for t in HEAD_TYPES for bits in head_bits)

    def _layers_of(self, parts: Iterator[_Part] | Sequence[_Part]) -> Iterator[Wanted]:
        for position, head_type, bits, style in parts:
            units = (self.space.head(position, head_type),) if head_type else self.space.segments[position]
            yield from self.layers(units, bits, style)

    # -- networks -----------------------------------------------------------------------------------

    def _transfers(self, genes: _Genes) -> FloatArray:
        """Moves between cores, (2, 2, n, 11): pJ and cycles, of the maps into each segment and into each head."""
        out_bits = self._elements * genes.segment_bits
        into_segment = np.zeros_like(out_bits)
        into_segment[:, 1:] = np.where(genes.cores[:, 1:-1] != genes.cores[:, :-2], out_bits[:, :-1], 0)
        crosses = (genes.cores[:, :-1] != genes.cores[:, -1:]) & (genes.heads > 0)
        bits = np.stack([into_segment, np.where(crosses, out_bits, 0)])
        link = self.accelerator
        return np.stack([bits * link.link_pj_per_bit, np.ceil(bits / link.link_bits_per_cycle)])

    def _composed(self, genes: _Genes, own: FloatArray, head: FloatArray, moved: FloatArray) -> NetworkCosts:
        """Args: own, head: (2, n, 11) of layers alone; moved: see :meth:`_transfers`."""
        scale = np.array([_MJ_PER_PJ, 1.0])
        segment = (own + moved[:, 0]) * scale[:, None, None]
        head = (head + moved[:, 1]) * scale[:, None, None]
        used = genes.heads > 0
        n_exits = used.sum(axis=1)
        columns = np.argsort(~used, axis=1, kind="stable")[:, : n_exits.max()]
        valid: BoolArray = np.arange(columns.shape[1]) < n_exits[:, None]
        upto = np.take_along_axis(np.cumsum(segment, axis=2), columns[None], axis=2)
        before = np.concatenate([np.zeros_like(upto[:, :, :1]), upto[:, :, :-1]], axis=2)
        segment_of_exit = np.where(valid, upto - before, 0.0)
        head_of_exit = np.where(valid, np.take_along_axis(head, columns[None], axis=2), 0.0)
        transfers = moved.sum(axis=(1, 3)) * scale[:, None]
        static = segment.sum(axis=2) + head[:, :, FINAL]
        return NetworkCosts(
            accelerator=self.accelerator.name,
            core_hz=self.accelerator.core_hz,
            positions=np.where(valid, columns, -1),
            segment_energy_mj=segment_of_exit[0],
            segment_cycles=segment_of_exit[1],
            head_energy_mj=head_of_exit[0],
            head_cycles=head_of_exit[1],
            transfer_energy_mj=transfers[0],
            transfer_cycles=transfers[1],
            static_energy_mj=static[0],
            static_cycles=static[1],
        )


_Part = tuple[int, int, int, CoreStyle]
"""(mounting point, head type or 0 for the segment, bits, core style)"""


class _Genes:
    """Networks as arrays.

    Attributes:
        bits: all bits in use, ascending; ``bit_index`` (n, 11) and ``head_bit_index`` (n,) point into them.
        heads, segment_bits: (n, 11); cores: (n, 12).
        style_index: (n, 11) and head_style_index: (n,) into the model's styles.
    """

    def __init__(self, networks: Sequence[QuantizedNetwork], model: AcceleratorCostModel) -> None:
        if not networks:
            raise AcceleratorError("no networks to cost: give at least one")
        for network in networks:
            if network.space != model.space.name:
                raise AcceleratorError(
                    f"network '{network}' belongs to space '{network.space}', not to '{model.space.name}'"
                )
        self.heads: IntArray = np.array([network.heads for network in networks])
        self.segment_bits: IntArray = np.array([network.segment_bits for network in networks])
        self.cores: IntArray = np.array([network.cores for network in networks])
        head_bits = np.array([network.head_bits for network in networks])
        n_cores = len(model.accelerator.cores)
        if self.cores.max() >= n_cores:
            bad = networks[int(self.cores.max(axis=1).argmax())]
            raise AcceleratorError(
                f"network '{bad}' names core {self.cores.max()}; accelerator '{model.accelerator.name}' has "
                f"{n_cores}, from 0"
            )
        unique = np.union1d(self.segment_bits, head_bits)
        self.bits = [int(bits) for bits in unique]
        self.bit_index: IntArray = np.searchsorted(unique, self.segment_bits)
        self.head_bit_index: IntArray = np.searchsorted(unique, head_bits)
        styles = model._style_of_core[self.cores]
        self.style_index: IntArray = styles[:, :-1]
        self.head_style_index: IntArray = styles[:, -1]
