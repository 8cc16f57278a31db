"""Quantized early-exit MobileNetV2 as a torch module, built from its space's dimensions.

Every convolution and linear layer multiplies quantized weights with quantized activations, the first and
the last included, as in the published networks; sums, biases and batch norm stay in full precision, as
accumulators do, and logits are not rounded.  A map is rounded where it is made, to the bits of the segment
that made it: that is how it lies in memory.  A segment or head of fewer bits rounds it again where it reads
it.  An image has 8 bits.

Shapes: n images, c channels, s x s pixels, C classes, e exits in use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import SpaceError
from ...spaces.quantized import (
    FINAL,
    HEAD_TYPES,
    LETTERS,
    N_POINTS,
    POOLED_SIDE,
    InvertedResidual,
    QuantizedExitSpace,
    QuantizedNetwork,
)
from ..accuracy.network import Normalization
from .quantizers import FLOAT_BITS, MAX_BITS, MIN_BITS, ActivationQuantizer, quantized_weight

IMAGE_BITS = 8
Heads = Sequence[tuple[int, int]]
"""(mounting point, head type) of each head."""

ALL_HEADS: tuple[tuple[int, int], ...] = tuple(
    (position, head_type) for position in range(N_POINTS) for head_type in HEAD_TYPES
)


class ConvNorm(nn.Module):
    """Convolution with quantized weights, batch norm, optionally ReLU6 with a rounding of what comes out."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1, bits: int,
        activation: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.bits = bits
        self.output = ActivationQuantizer(bits, signed=False) if activation else None

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        weight = quantized_weight(conv.weight, self.bits)
        x = functional.conv2d(x, weight, None, conv.stride, conv.padding, groups=conv.groups)
        x = self.bn(x)
        return x if self.output is None else self.output(x)


class Block(nn.Module):
    """Inverted residual: (n, in, s, s) -> (n, out, s / stride, s / stride), rounded at its end."""

    def __init__(self, plan: InvertedResidual, bits: int, bits_before: int) -> None:
        super().__init__()
        self.has_residual = plan.has_residual
        self.entry = ActivationQuantizer(bits, signed=True) if bits < bits_before else None
        self.expand = ConvNorm(plan.in_channels, plan.hidden, 1, bits=bits) if plan.has_expansion else None
        self.depthwise = ConvNorm(
            plan.hidden, plan.hidden, plan.kernel, plan.stride, groups=plan.hidden, bits=bits
        )
        self.project = ConvNorm(plan.hidden, plan.out_channels, 1, bits=bits, activation=False)
        self.output = ActivationQuantizer(bits, signed=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.entry is not None:
            x = self.entry(x)
        hidden = x if self.expand is None else self.expand(x)
        out: Tensor = self.project(self.depthwise(hidden))
        rounded: Tensor = self.output(out + x if self.has_residual else out)
        return rounded


class QuantizedLinear(nn.Linear):
    """A linear layer with quantized weights and a bias in full precision."""

    def __init__(self, in_features: int, out_features: int, bits: int) -> None:
        super().__init__(in_features, out_features)
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, quantized_weight(self.weight, self.bits), self.bias)


class Head(nn.Module):
    """Max-pool to 4x4, flatten, one linear layer or two with a ReLU6 between: (n, c, s, s) -> (n, C) logits."""

    def __init__(
        self, channels: int, side: int, head_type: int, n_classes: int, bits: int, bits_before: int
    ) -> None:
        super().__init__()
        self.window = side // POOLED_SIDE
        features = channels * POOLED_SIDE**2
        self.entry = ActivationQuantizer(bits, signed=True) if bits < bits_before else None
        self.hidden = QuantizedLinear(features, features // 2, bits) if head_type == 2 else None
        self.between = ActivationQuantizer(bits, signed=False) if head_type == 2 else None
        self.classifier = QuantizedLinear(features // 2 if head_type == 2 else features, n_classes, bits)

    def forward(self, x: Tensor) -> Tensor:
        # Not adaptive pooling, whose gradient on a GPU is summed in no fixed order.
        x = functional.max_pool2d(x, self.window).flatten(1)
        if self.entry is not None:
            x = self.entry(x)
        if self.hidden is not None and self.between is not None:
            x = self.between(self.hidden(x))
        logits: Tensor = self.classifier(x)
        return logits


class QuantizedExitNet(nn.Module):
    """A backbone and some of its heads.

    Attributes:
        exits: (mounting point, head type) of the heads, by depth.
        normalization: of the images that it reads.
    """

    normalization = Normalization.SYMMETRIC

    def __init__(
        self, space: QuantizedExitSpace, exits: Heads, *, segment_bits: Sequence[int], head_bits: int
    ) -> None:
        super().__init__()
        self.resolution = space.resolution
        self.exits = tuple(exits)
        block_bits = [segment_bits[min(index, FINAL)] for index in range(len(space.blocks))]
        first = block_bits[0]
        self.entry = ActivationQuantizer(first, signed=True) if first < IMAGE_BITS else None
        self.stem = ConvNorm(3, space.stem_channels, 3, bits=first)
        self.blocks = nn.ModuleList(
            Block(plan, bits, before)
            for plan, bits, before in zip(space.blocks, block_bits, [first, *block_bits], strict=False)
        )
        self.heads = nn.ModuleDict()
        for position, head_type in self.exits:
            index = self._last_block(position)
            plan = space.blocks[index]
            self.heads[head_name(position, head_type)] = Head(
                plan.out_channels, plan.out_side, head_type, space.n_classes, head_bits, block_bits[index]
            )

    def _last_block(self, position: int) -> int:
        return len(self.blocks) - 1 if position == FINAL else position

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.stem.conv.weight.device

    def logits(self, images: Tensor, exits: Heads) -> list[Tensor]:
        """(n, C) logits of some of the heads, which must be ordered by depth.

        Args:
            images: (n, 3, r, r) float32 at the space's resolution r.
        """
        x = images if self.entry is None else self.entry(images)
        x = self.stem(x)
        waiting = list(exits)
        found: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            while waiting and self._last_block(waiting[0][0]) == index:
                found.append(self.heads[head_name(*waiting.pop(0))](x))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """(n, e, C) float32 logits of all heads, by depth."""
        return torch.stack([logits.float() for logits in self.logits(images, self.exits)], dim=1)


def head_name(position: int, head_type: int) -> str:
    """Such as ``D1``: the mounting point's letter and the type."""
    return f"{LETTERS[position]}{head_type}"


def network_module(space: QuantizedExitSpace, network: QuantizedNetwork) -> QuantizedExitNet:
    """The module of one network; its weights are torch's own initial ones.

    Raises:
        SpaceError: a network of another space, or bits that cannot be rounded to.
    """
    if network.space != space.name:
        raise SpaceError(f"network belongs to space '{network.space}', not to '{space.name}'")
    for bits in (*network.segment_bits, network.head_bits):
        if bits != FLOAT_BITS and not MIN_BITS <= bits <= MAX_BITS:
            raise SpaceError(
                f"{network.network_id}: {bits} bits cannot be trained; give {MIN_BITS} to {MAX_BITS}, or "
                f"{FLOAT_BITS} for floating point"
            )
    exits = [(position, network.heads[position]) for position in network.exits]
    return QuantizedExitNet(space, exits, segment_bits=network.segment_bits, head_bits=network.head_bits)


def start_module(space: QuantizedExitSpace, seed: int) -> QuantizedExitNet:
    """Full precision, all heads of both types, with seeded initial weights.

    Convolutions and linear layers: normal with variance 2 / fan-in (He et al., ICCV 2015), the last layer of a
    head 1 / fan-in.  Batch norm: scale 1, but 0 at the end of a residual branch, so that such a block starts
    as its shortcut (Goyal et al., 2017).  Biases: 0.
    """
    net = QuantizedExitNet(space, ALL_HEADS, segment_bits=(FLOAT_BITS,) * N_POINTS, head_bits=FLOAT_BITS)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0 if name.endswith("bn.weight") else 0.0)
                continue
            gain = 1.0 if name.endswith("classifier.weight") else 2.0
            fan_in = math.prod(parameter.shape[1:])
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * math.sqrt(gain / fan_in))
        for block in net.blocks:
            assert isinstance(block, Block)
            if block.has_residual:
                block.project.bn.weight.zero_()
    return net
