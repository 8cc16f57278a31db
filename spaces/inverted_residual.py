"""MobileNetV2's inverted residual blocks, and the exit heads behind them, as layers.

Byte counts of layers are at 8 bits per element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .workload import Layer, Shape, conv, elementwise, linear, pool

POOLED_SIDE = 4
"""Side of the map that a head flattens."""
DTYPE_BYTES = 1


@dataclass(frozen=True, slots=True)
class InvertedResidual:
    """Dimensions of one block: [1x1 to ``hidden``], depthwise, 1x1 to ``out_channels``.

    Attributes:
        in_side, out_side: pixels per side at the entry and at the exit.
        has_expansion: whether the first 1x1 convolution exists.
        has_residual: whether the block's input is added to its output.
    """

    in_channels: int
    hidden: int
    out_channels: int
    kernel: int
    stride: int
    in_side: int
    out_side: int
    has_expansion: bool
    has_residual: bool

    @property
    def in_shape(self) -> Shape:
        """(channels, height, width) at the entry."""
        return (self.in_channels, self.in_side, self.in_side)

    @property
    def out_shape(self) -> Shape:
        """(channels, height, width) at the exit."""
        return (self.out_channels, self.out_side, self.out_side)


def inverted_residuals(
    plan: Sequence[tuple[int, int, int, int]], *, channels: int, side: int
) -> tuple[InvertedResidual, ...]:
    """Dimensions of blocks that follow one another.

    Args:
        plan: (channels, kernel, stride, expansion) of each block.
        channels, side: of the map that the first block reads.
    """
    blocks = []
    for out_channels, kernel, stride, expansion in plan:
        out_side = side // stride
        blocks.append(
            InvertedResidual(
                in_channels=channels,
                hidden=channels * expansion,
                out_channels=out_channels,
                kernel=kernel,
                stride=stride,
                in_side=side,
                out_side=out_side,
                has_expansion=expansion > 1,
                has_residual=stride == 1 and channels == out_channels,
            )
        )
        channels, side = out_channels, out_side
    return tuple(blocks)


def block_layers(block: InvertedResidual) -> tuple[Layer, ...]:
    """Layers of a block; batch norm and activations fold into the convolutions."""
    layers: list[Layer] = []
    shape = block.in_shape
    if block.has_expansion:
        layers.append(conv(shape, block.hidden, 1, dtype_bytes=DTYPE_BYTES))
        shape = layers[-1].out_shape
    layers.append(
        conv(shape, block.hidden, block.kernel, block.stride, groups=block.hidden, dtype_bytes=DTYPE_BYTES)
    )
    layers.append(conv(layers[-1].out_shape, block.out_channels, 1, dtype_bytes=DTYPE_BYTES))
    if block.has_residual:
        layers.append(elementwise(block.out_shape, dtype_bytes=DTYPE_BYTES))
    return tuple(layers)


def head_layers(shape: Shape, head_type: int, n_classes: int) -> tuple[Layer, ...]:
    """Layers of a head of type 1 or 2 on a map of the given (channels, height, width)."""
    pooled = pool(shape, (POOLED_SIDE, POOLED_SIDE), dtype_bytes=DTYPE_BYTES)
    features = shape[0] * POOLED_SIDE**2
    if head_type == 1:
        return pooled, linear(features, n_classes, dtype_bytes=DTYPE_BYTES)
    hidden = linear(features, features // 2, dtype_bytes=DTYPE_BYTES)
    return pooled, hidden, linear(features // 2, n_classes, dtype_bytes=DTYPE_BYTES)
