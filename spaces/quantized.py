"""Early-exit, quantized MobileNetV2 networks for edge accelerators.

The backbone is fixed; what is chosen is where exits stand, the type of each exit's head, the bits
of weights and activations, and, on accelerators of several cores, the core that runs each segment.

A stem (3x3 convolution) and twelve blocks 0..11 follow one another.  Exits may be mounted after
blocks 0..9, called A..J; the final exit K stands after block 11.  **Segment** i is what lies between
mounting point i-1 and mounting point i: one block, with the stem before block 0 and with both blocks 10
and 11 before K.  A **head** is a max-pool to 4x4, flattened, then one fully connected layer (type 1), or
two with a hidden layer of half the input's width (type 2).

At full width and 32 px, MACs and parameters are those of the 96 published records of Zniber et al.
(arXiv:2512.04705), which is also where the channels and kernels below were worked out from: batch norm
counts two parameters per channel, the depthwise kernel is 3 in blocks 0..6 and 7 in blocks 7..11.

Imports with numpy alone.  Byte counts of layers are at 8 bits per element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from ..errors import SpaceError
from .genomes import Genomes, IntArray, Variable
from .inverted_residual import (
    DTYPE_BYTES,
    POOLED_SIDE,
    InvertedResidual,
    block_layers,
    head_layers,
    inverted_residuals,
)
from .quantized_network import FINAL, HEAD_TYPES, LETTERS, N_POINTS, QuantizedNetwork
from .workload import Shape, Unit, conv

__all__ = [
    "BIT_PAIRS", "EDGE_SPACES", "FINAL", "HEAD_TYPES", "LETTERS", "N_POINTS", "POOLED_SIDE", "SEGMENT_BITS",
    "ExitStage", "InvertedResidual", "QuantizedExitSpace", "QuantizedNetwork", "SegmentWork", "edge_space",
]  # fmt: skip

BIT_PAIRS = ((4, 4), (4, 8), (8, 4), (8, 8), (32, 32))
"""(backbone, heads) bits of weights and activations that a ``pairs`` space offers."""
SEGMENT_BITS = (4, 8)
"""Bits that a ``per-segment`` space offers."""
Bits = Literal["pairs", "per-segment"]

_STEM_CHANNELS = 32
# (channels, kernel, stride, expansion) of blocks 0..11
_BLOCKS = (
    (16, 3, 1, 1), (24, 3, 1, 6), (24, 3, 1, 6), (32, 3, 1, 6), (32, 3, 1, 6), (64, 3, 2, 6), (64, 3, 1, 6),
    (96, 7, 1, 6), (96, 7, 1, 6), (160, 7, 2, 6), (160, 7, 1, 6), (320, 7, 1, 6),
)  # fmt: skip
_BLOCKS_OF_SEGMENT = (*((i,) for i in range(FINAL)), (10, 11))
_REDUCTION = 4  # of the image's side, at the last block
_PAIR_BASE = 100  # a pair's gene value reads (8, 4) as 804


@dataclass(frozen=True)
class SegmentWork:
    """Work of one segment of the backbone.

    Attributes:
        position: mounting point at its end, 0..10.
        units: its stem and blocks, in order.
        bits: of weights and activations.
        core: that runs it.
    """

    position: int
    units: tuple[Unit, ...]
    bits: int
    core: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(unit.macs for unit in self.units)

    @property
    def params(self) -> int:
        """Trainable scalars."""
        return sum(unit.params for unit in self.units)


@dataclass(frozen=True)
class ExitStage:
    """What runs between the previous exit in use and this one, and this one's head.

    Attributes:
        position: mounting point, 0..10.
        segments: of the backbone since the previous exit in use.
        head: the head's work; ``head_type``, ``head_bits``, ``head_core`` say which it is and where it runs.
        cumulative_macs, cumulative_params: of the backbone from its start to this exit, without any head.
    """

    position: int
    segments: tuple[SegmentWork, ...]
    head: Unit
    head_type: int
    head_bits: int
    head_core: int
    cumulative_macs: int
    cumulative_params: int

    @property
    def channels(self) -> int:
        """Channels of the map that the head reads."""
        return self.head.in_shape[0]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the segments."""
        return sum(segment.macs for segment in self.segments)


class QuantizedExitSpace(Genomes):
    """All early-exit networks on one MobileNetV2.

    Args:
        name: of the space; part of every network's identity.
        resolution: side of the square image in px, a multiple of 16.
        width: multiplies all channels (rounded to even numbers, at least 2).
        n_classes: of the heads.
        bits: ``pairs`` offers one gene with the five published (backbone, heads) pairs; ``per-segment`` a gene
            of 4 or 8 bits for every segment and one for the heads.
        n_cores: above 1, a gene for the core of every segment and one for the heads'.

    Raises:
        SpaceError: a resolution, width or count that no network can have.
    """

    def __init__(
        self,
        name: str,
        *,
        resolution: int = 32,
        width: float = 1.0,
        n_classes: int = 10,
        bits: Bits = "pairs",
        n_cores: int = 1,
    ) -> None:
        if resolution < 1 or resolution % (_REDUCTION * POOLED_SIDE):
            raise SpaceError(
                f"resolution {resolution} px of space '{name}': give a positive multiple of 16 px, so that the "
                "last map pools to 4x4"
            )
        if not 0 < width < float("inf"):
            raise SpaceError(f"width {width} of space '{name}': give a positive factor, such as 0.5")
        if n_classes < 2 or n_cores < 1:
            raise SpaceError(f"space '{name}': {n_classes} classes, {n_cores} cores; needs 2 and 1 at least")
        if bits not in ("pairs", "per-segment"):
            raise SpaceError(f"bits '{bits}' of space '{name}': give 'pairs' or 'per-segment'")
        super().__init__(name)
        self.resolution = resolution
        self.width = width
        self.n_classes = n_classes
        self.bits: Bits = bits
        self.n_cores = n_cores
        self._heads: dict[tuple[int, int], Unit] = {}

    def __repr__(self) -> str:
        return f"QuantizedExitSpace({self.name!r}, {self.cardinality:,} networks)"

    # -- genomes ------------------------------------------------------------------------------------

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """Genes in the order of the genome: exits A..K, bits, cores."""
        genes = [Variable(f"exit.{letter}", (0, *HEAD_TYPES)) for letter in LETTERS[:FINAL]]
        genes.append(Variable(f"exit.{LETTERS[FINAL]}", HEAD_TYPES))
        if self.bits == "pairs":
            genes.append(Variable("bits", tuple(_PAIR_BASE * b + h for b, h in BIT_PAIRS)))
        else:
            genes += [Variable(f"bits.{part}", SEGMENT_BITS) for part in (*LETTERS, "heads")]
        if self.n_cores > 1:
            genes += [Variable(f"core.{part}", tuple(range(self.n_cores))) for part in (*LETTERS, "heads")]
        return tuple(genes)

    @property
    def bit_choices(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Bits that segments may have, and bits that heads may have, ascending."""
        if self.bits == "per-segment":
            return SEGMENT_BITS, SEGMENT_BITS
        backbone, heads = zip(*BIT_PAIRS, strict=True)
        return tuple(sorted({*backbone})), tuple(sorted({*heads}))

    def decode(self, genome: IntArray) -> QuantizedNetwork:
        """The network of one genome.

        Args:
            genome: (n_genes,) choice indices.

        Raises:
            SpaceError: wrong length, or an index that a gene does not have.
        """
        values = self.values(genome)
        if self.bits == "pairs":
            backbone, head_bits = divmod(values["bits"], _PAIR_BASE)
            segment_bits = (backbone,) * N_POINTS
        else:
            segment_bits = tuple(values[f"bits.{letter}"] for letter in LETTERS)
            head_bits = values["bits.heads"]
        return QuantizedNetwork(
            space=self.name,
            heads=tuple(values[f"exit.{letter}"] for letter in LETTERS),
            segment_bits=segment_bits,
            head_bits=head_bits,
            cores=tuple(values.get(f"core.{part}", 0) for part in (*LETTERS, "heads")),
        )

    def encode(self, network: QuantizedNetwork) -> IntArray:
        """Choice indices of a network: the inverse of :meth:`decode`.

        Raises:
            SpaceError: a network of another space, or a value that a gene does not offer.
        """
        self._check_owner(network)
        values = {f"exit.{letter}": head for letter, head in zip(LETTERS, network.heads, strict=True)}
        if self.bits == "pairs":
            if len({*network.segment_bits}) > 1:
                raise SpaceError(
                    f"segment bits {network.segment_bits} differ; space '{self.name}' has one pair of bits. "
                    "A space with bits='per-segment' holds such networks."
                )
            values["bits"] = _PAIR_BASE * network.segment_bits[0] + network.head_bits
        else:
            values |= {f"bits.{letter}": b for letter, b in zip(LETTERS, network.segment_bits, strict=True)}
            values["bits.heads"] = network.head_bits
        values |= {
            f"core.{part}": core for part, core in zip((*LETTERS, "heads"), network.cores, strict=True)
        }
        if self.n_cores == 1 and any(network.cores):
            raise SpaceError(f"cores {network.cores}: space '{self.name}' has one core, index 0")
        return self.genome(values)

    def _check_owner(self, network: QuantizedNetwork) -> None:
        if network.space != self.name:
            raise SpaceError(f"network belongs to space '{network.space}', not to '{self.name}'")

    def network(
        self,
        letters: str,
        *,
        head_types: int | Sequence[int] = 1,
        bits: int | Sequence[int] = 8,
        head_bits: int = 8,
        cores: Sequence[int] = (0,) * (N_POINTS + 1),
    ) -> QuantizedNetwork:
        """A network from the letters of its exits, such as ``D,F,I,K``; the final K may be left out.

        Args:
            letters: mounting points, with or without commas.
            head_types: one for all, or one per exit in use, the final included, in order of depth.
            bits: of the backbone, one for all, or one per segment (11).
            head_bits: of the heads.
            cores: (12,) see :class:`QuantizedNetwork`.

        Raises:
            SpaceError: an unknown letter, a wrong number of head types, or a network not in this space.
        """
        wanted = {letter for letter in letters.upper() if letter not in ", "} | {LETTERS[FINAL]}
        if unknown := wanted - {*LETTERS}:
            raise SpaceError(f"exits '{letters}': {sorted(unknown)} are no mounting points; give A to K")
        positions = sorted(LETTERS.index(letter) for letter in wanted)
        types = [head_types] * len(positions) if isinstance(head_types, int) else list(head_types)
        if len(types) != len(positions):
            raise SpaceError(
                f"{len(types)} head types for {len(positions)} exits ({letters} and K): give one each"
            )
        heads = [0] * N_POINTS
        for position, head_type in zip(positions, types, strict=True):
            heads[position] = head_type
        segment_bits = (bits,) * N_POINTS if isinstance(bits, int) else tuple(bits)
        network = QuantizedNetwork(self.name, tuple(heads), segment_bits, head_bits, tuple(cores))
        self.encode(network)
        return network

    # -- work ---------------------------------------------------------------------------------------

    @cached_property
    def stem_channels(self) -> int:
        """Channels after the stem."""
        return self._scaled(_STEM_CHANNELS)

    @cached_property
    def blocks(self) -> tuple[InvertedResidual, ...]:
        """Dimensions of the twelve blocks."""
        scaled = [(self._scaled(out), kernel, stride, expand) for out, kernel, stride, expand in _BLOCKS]
        return inverted_residuals(scaled, channels=self.stem_channels, side=self.resolution)

    def _scaled(self, channels: int) -> int:
        return max(2, 2 * round(channels * self.width / 2))

    @cached_property
    def segments(self) -> tuple[tuple[Unit, ...], ...]:
        """(11,) the units of each segment: the stem and block 0, blocks 1..9, blocks 10 and 11."""
        image: Shape = (3, self.resolution, self.resolution)
        stem = Unit("stem", 0, 0, (conv(image, self.stem_channels, 3, dtype_bytes=DTYPE_BYTES),))
        units = [
            Unit(f"block{i}", i + 1, 0, block_layers(block)) for i, block in enumerate(self.blocks)
        ]  # one macro stage per block
        found = [tuple(units[b] for b in blocks) for blocks in _BLOCKS_OF_SEGMENT]
        return ((stem, *found[0]), *found[1:])

    def head(self, position: int, head_type: int) -> Unit:
        """The head of a type at a mounting point.

        Raises:
            SpaceError: no such mounting point or head type.
        """
        if not 0 <= position < N_POINTS or head_type not in HEAD_TYPES:
            raise SpaceError(f"head type {head_type} at {position}: types are 1 and 2, points 0..{FINAL}")
        key = (position, head_type)
        if key not in self._heads:
            block = self.blocks[_BLOCKS_OF_SEGMENT[position][-1]]
            layers = head_layers(block.out_shape, head_type, self.n_classes)
            self._heads[key] = Unit(f"head{head_type}@{LETTERS[position]}", position + 1, 0, layers)
        return self._heads[key]

    def stages(self, network: QuantizedNetwork) -> tuple[ExitStage, ...]:
        """What runs up to each exit in use, in order.

        Raises:
            SpaceError: a network of another space.
        """
        self._check_owner(network)
        stages: list[ExitStage] = []
        macs = params = begin = 0
        for position in network.exits:
            segments = tuple(
                SegmentWork(i, self.segments[i], network.segment_bits[i], network.cores[i])
                for i in range(begin, position + 1)
            )
            begin = position + 1
            macs += sum(segment.macs for segment in segments)
            params += sum(segment.params for segment in segments)
            head_type = network.heads[position]
            head = self.head(position, head_type)
            stages.append(
                ExitStage(
                    position, segments, head, head_type, network.head_bits, network.cores[-1], macs, params
                )
            )
        return tuple(stages)


_SHAPES: Mapping[str, tuple[int, float]] = {"mobilenetv2": (32, 1.0), "mobilenetv2-small": (16, 0.25)}
EDGE_SPACES = tuple(_SHAPES)
"""Names that :func:`edge_space` knows: the published network for 32 px images, and one for 16 px digits on a CPU."""


@cache
def edge_space(name: str, *, bits: Bits = "pairs", n_cores: int = 1) -> QuantizedExitSpace:
    """A named space; ``bits`` and ``n_cores`` as in :class:`QuantizedExitSpace`.

    The name stands for the network's dimensions alone: a network has the same identity in every space that
    offers it.

    Raises:
        SpaceError: no space of that name.
    """
    if name not in _SHAPES:
        raise SpaceError(f"no edge space '{name}'; known: {sorted(_SHAPES)}")
    resolution, width = _SHAPES[name]
    return QuantizedExitSpace(name, resolution=resolution, width=width, bits=bits, n_cores=n_cores)
