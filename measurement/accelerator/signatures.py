"""What the cost of one layer on one core depends on, and that cost.

Many networks share few layers: a table of costs by signature answers for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import SpaceError
from ...spaces.workload import Layer

Operation = Literal["conv", "depthwise", "linear", "pool", "add"]
_OPERATIONS: dict[str, Operation] = {
    "conv": "conv",
    "depthwise": "depthwise",
    "linear": "linear",
    "pool": "pool",
    "elementwise": "add",
}
MAX_ACCUMULATOR_BITS = 32


@dataclass(frozen=True, slots=True, order=True)
class LayerSignature:
    """One kind of layer.

    Attributes:
        operation: ``conv`` (dense, 1x1 included), ``depthwise``, ``linear``, ``pool``, or ``add`` (a residual sum).
        in_channels, out_channels: features of a linear layer.
        in_side: pixels per side of the square input; 1 for a linear layer.
        kernel, stride: of the window; padding keeps ``in_side / stride``; 1 where there is no window.
        groups: ``in_channels`` of a depthwise convolution, else 1.
        weight_bits, activation_bits: of both inputs of each product; outputs have ``activation_bits`` as well.
    """

    operation: Operation
    in_channels: int
    out_channels: int
    in_side: int
    kernel: int
    stride: int
    groups: int
    weight_bits: int
    activation_bits: int

    @property
    def out_side(self) -> int:
        """Pixels per side of the output."""
        return self.in_side // self.stride

    @property
    def multiplies(self) -> bool:
        """Whether it has multiply-accumulates; what has none only moves data."""
        return self.operation in ("conv", "depthwise", "linear")

    @property
    def accumulator_bits(self) -> int:
        """Of partial sums: twice the activations', 32 at most."""
        return accumulator_bits(self.activation_bits)

    @property
    def input_bits(self) -> int:
        """Bits of all inputs that are activations; a sum has two."""
        n_inputs = 2 if self.operation == "add" else 1
        return n_inputs * self.in_channels * self.in_side**2 * self.activation_bits

    @property
    def output_bits(self) -> int:
        """Bits of the output."""
        return self.out_channels * self.out_side**2 * self.activation_bits

    def __str__(self) -> str:
        bits = f"{self.weight_bits}x{self.activation_bits} bits"
        if self.operation == "linear":
            return f"linear {self.in_channels}->{self.out_channels}, {bits}"
        return (
            f"{self.operation} {self.kernel}x{self.kernel} stride {self.stride}, "
            f"{self.in_channels}->{self.out_channels} at {self.in_side} px, {bits}"
        )


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Modelled cost of one layer.

    Attributes:
        energy_pj: of one inference.
        cycles: of the core's clock, data movement included.
    """

    energy_pj: float
    cycles: float


def accumulator_bits(activation_bits: int) -> int:
    """Bits of partial sums: twice the activations', 32 at most."""
    return max(activation_bits, min(2 * activation_bits, MAX_ACCUMULATOR_BITS))


def layer_signature(layer: Layer, bits: int) -> LayerSignature:
    """The signature of a layer whose weights and activations have ``bits``.

    Raises:
        SpaceError: a map that is not square, or does not shrink by a whole number.
    """
    channels, height, width = layer.in_shape
    out_channels, out_height, out_width = layer.out_shape
    if height != width or out_height != out_width or height % out_height:
        raise SpaceError(
            f"layer {layer.kind} {layer.in_shape} -> {layer.out_shape}: accelerator costs are for square maps whose "
            "side shrinks by a whole number"
        )
    stride = height // out_height
    return LayerSignature(
        operation=_OPERATIONS[layer.kind],
        in_channels=channels,
        out_channels=out_channels,
        in_side=height,
        kernel=stride if layer.kind == "pool" else layer.kernel,
        stride=stride,
        groups=channels if layer.kind == "depthwise" else 1,
        weight_bits=bits,
        activation_bits=bits,
    )
