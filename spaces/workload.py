"""What a network asks of a device: work per layer, block, exit head and stage.

A workload is hardware-free: it counts multiply-accumulates, parameters, bytes and
shapes.  Devices (real or simulated) turn it into time and energy; predictors turn it
into features.

Conventions
-----------
* 1 MAC = one multiply and one add (2 FLOP).
* ``bytes_moved`` of a layer = input activations + output activations + weights, each
  touched once, at ``dtype_bytes`` per element (no cache reuse between layers).
* Batch is 1 throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

Shape = tuple[int, int, int]
LayerKind = Literal["conv", "depthwise", "linear", "pool", "elementwise"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One kernel launch's worth of work.

    Attributes:
        kind: ``conv`` (dense, 1x1 included), ``depthwise``, ``linear``, ``pool`` or ``elementwise``.
        macs: multiply-accumulates.
        params: trainable scalars.
        bytes_moved: bytes read and written.
        in_shape, out_shape: (channels, height, width).
        kernel: spatial kernel size, 1 for anything without one.
    """

    kind: LayerKind
    macs: int
    params: int
    bytes_moved: int
    in_shape: Shape
    out_shape: Shape
    kernel: int = 1


@dataclass(frozen=True)
class Unit:
    """A run of layers that always execute together: a block, an exit head, the stem, the tail.

    Attributes:
        name: for people, such as ``mb3.1`` or ``head@7``.
        stage: index of the macro stage (0 = stem, 1..7 = mb1..mb7, 8 = tail).
        index_in_stage: 0-based position within the stage.
        layers: the layers in order.
    """

    name: str
    stage: int
    index_in_stage: int
    layers: tuple[Layer, ...]

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def params(self) -> int:
        """Trainable scalars of all layers."""
        return sum(layer.params for layer in self.layers)

    @cached_property
    def bytes_moved(self) -> int:
        """Bytes read and written by all layers."""
        return sum(layer.bytes_moved for layer in self.layers)

    @property
    def in_shape(self) -> Shape:
        """(channels, height, width) at the entry."""
        return self.layers[0].in_shape

    @property
    def out_shape(self) -> Shape:
        """(channels, height, width) at the exit."""
        return self.layers[-1].out_shape


@dataclass(frozen=True)
class Stage:
    """What one compiled program runs: the units between two exits in use, or one exit head.

    Attributes:
        kind: ``segment`` (backbone units) or ``head`` (one exit head).
        position: the exit position (block index) that the stage ends at; for the last
            segment the number of blocks L, where the final classifier stands.
        units: the units it runs, in order.
        n_leading: of a segment that begins the network, how many units run before an exit may stand: the
            stem and the blocks up to the first exit; 1 elsewhere.
    """

    kind: Literal["segment", "head"]
    position: int
    units: tuple[Unit, ...]
    n_leading: int = 1

    @property
    def parts(self) -> tuple[Stage, ...]:
        """The finest stages that it runs (see :meth:`Workload.unit_stages`): itself, if no exit may stand in it."""
        if len(self.units) <= self.n_leading:
            return (self,)
        first = Stage("segment", 0, self.units[: self.n_leading], self.n_leading)
        parts = [first, *(Stage("segment", 0, (unit,)) for unit in self.units[self.n_leading :])]
        start = self.position - len(parts) + 1
        return tuple(replace(part, position=start + i) for i, part in enumerate(parts))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers of all units, in order."""
        return tuple(layer for unit in self.units for layer in unit.layers)


@dataclass(frozen=True)
class Workload:
    """The work of one backbone and of the exit heads that may stand on it.

    Attributes:
        arch_id: identity of the backbone.
        first_exit: block index after which the first exit may stand.
        stem: first convolution.
        blocks: the L blocks, in order.
        tail: everything after the last block, the final classifier included.
        heads: one exit head per exit position (``first_exit`` .. L-1), P = L - first_exit in all.
    """

    arch_id: str
    first_exit: int
    stem: Unit
    blocks: tuple[Unit, ...]
    tail: Unit
    heads: tuple[Unit, ...]

    @property
    def n_positions(self) -> int:
        """Number of exit positions, P."""
        return len(self.heads)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of the backbone with its final classifier, without exit heads."""
        return self.stem.macs + sum(block.macs for block in self.blocks) + self.tail.macs

    @cached_property
    def params(self) -> int:
        """Parameters of the backbone with its final classifier, without exit heads."""
        return self.stem.params + sum(block.params for block in self.blocks) + self.tail.params

    def stages(self, positions: Sequence[int]) -> tuple[Stage, ...]:
        """The stages of the early-exit network that has exits at the given positions.

        Args:
            positions: block indices of the exits in use, ascending, each in
                ``first_exit`` .. L-1; may be empty.

        Returns:
            segment, head, segment, head, ..., final segment: 2 * len(positions) + 1 stages.
        """
        stages: list[Stage] = []
        units: list[Unit] = [self.stem]
        done = 0
        leading = min(self.first_exit, len(self.blocks)) + 2
        for position in positions:
            units.extend(self.blocks[done : position + 1])
            done = position + 1
            stages.append(Stage("segment", position, tuple(units), 1 if stages else leading))
            stages.append(Stage("head", position, (self.heads[position - self.first_exit],)))
            units = []
        units.extend(self.blocks[done:])
        units.append(self.tail)
        stages.append(Stage("segment", len(self.blocks), tuple(units), 1 if stages else leading))
        return tuple(stages)

    def unit_stages(self) -> tuple[Stage, ...]:
        """The finest stages: an exit at every position (what tables are made of)."""
        return self.stages(range(self.first_exit, len(self.blocks)))


def conv(
    in_shape: Shape,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    padding: int | None = None,
    groups: int = 1,
    batch_norm: bool = True,
    bias: bool = False,
    dtype_bytes: int = 4,
) -> Layer:
    """A 2-D convolution; batch norm counts as 2 parameters per channel and no MACs (it folds).

    Args:
        in_shape: (channels, height, width).
        padding: per side; ``None`` = kernel // 2.
        groups: 1 = dense, ``in_channels`` = depthwise.
    """
    channels, height, width = in_shape
    pad = kernel // 2 if padding is None else padding
    out_height = (height + 2 * pad - kernel) // stride + 1
    out_width = (width + 2 * pad - kernel) // stride + 1
    out_shape = (out_channels, out_height, out_width)
    weights = out_channels * (channels // groups) * kernel * kernel
    params = weights + (2 * out_channels if batch_norm else 0) + (out_channels if bias else 0)
    moved = channels * height * width + out_channels * out_height * out_width + weights
    return Layer(
        kind="depthwise" if groups == channels and groups > 1 else "conv",
        macs=weights * out_height * out_width,
        params=params,
        bytes_moved=moved * dtype_bytes,
        in_shape=in_shape,
        out_shape=out_shape,
        kernel=kernel,
    )


def linear(in_features: int, out_features: int, *, dtype_bytes: int = 4) -> Layer:
    """A fully connected layer with bias."""
    weights = in_features * out_features
    return Layer(
        kind="linear",
        macs=weights,
        params=weights + out_features,
        bytes_moved=(in_features + out_features + weights) * dtype_bytes,
        in_shape=(in_features, 1, 1),
        out_shape=(out_features, 1, 1),
    )


def pool(in_shape: Shape, out_size: tuple[int, int] = (1, 1), *, dtype_bytes: int = 4) -> Layer:
    """Average pooling to ``out_size``: no MACs, only traffic."""
    channels, height, width = in_shape
    out_shape = (channels, *out_size)
    moved = channels * (height * width + out_size[0] * out_size[1])
    return Layer("pool", 0, 0, moved * dtype_bytes, in_shape, out_shape)


def elementwise(shape: Shape, n_inputs: int = 2, *, dtype_bytes: int = 4) -> Layer:
    """An element-wise operation such as a residual sum or a channel scale: no MACs, only traffic."""
    channels, height, width = shape
    return Layer("elementwise", 0, 0, (n_inputs + 1) * channels * height * width * dtype_bytes, shape, shape)
