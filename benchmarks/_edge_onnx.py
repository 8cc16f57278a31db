"""A whole early-exit network as one ONNX graph, without values of weights: what a direct run of zigzag-dse reads.

The graph is drawn from the space's dimensions, not from the layers that the cost model sums, so that it shows a
layer that is missing, doubled or of another shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from _checkout import make_importable
from onnx import ModelProto, TensorProto, helper

make_importable()

from hadas.spaces.quantized import (  # noqa: E402
    POOLED_SIDE,
    InvertedResidual,
    QuantizedExitSpace,
    QuantizedNetwork,
)

_SEGMENT_OF_BLOCK = (*range(10), 10, 10)
_MAX_ACCUMULATOR_BITS = 32


class _Graph:
    """Nodes and the shapes of all tensors."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.values: dict[str, tuple[int, ...]] = {}
        self.weights: list[str] = []

    def conv(self, x: str, out_channels: int, kernel: int, stride: int, groups: int, bits: int) -> str:
        _, channels, side, _ = self.values[x]
        name = f"conv{len(self.nodes)}"
        self._weight(f"{name}.w", (out_channels, channels // groups, kernel, kernel))
        pads = [kernel // 2] * 4
        self.nodes.append(
            helper.make_node(
                "Conv", [x, f"{name}.w"], [name], name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads,
                group=groups, dilations=[1, 1], **_precision(bits),
            )
        )  # fmt: skip
        self.values[name] = (1, out_channels, side // stride, side // stride)
        return name

    def linear(self, x: str, out_features: int, bits: int) -> str:
        name = f"linear{len(self.nodes)}"
        self._weight(f"{name}.w", (self.values[x][1], out_features))
        self.nodes.append(helper.make_node("Gemm", [x, f"{name}.w"], [name], name, **_precision(bits)))
        self.values[name] = (1, out_features)
        return name

    def plain(self, operator: str, inputs: Sequence[str], shape: tuple[int, ...], **attributes: Any) -> str:
        """A node without multiply-accumulates."""
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        self.values[name] = shape
        return name

    def _weight(self, name: str, shape: tuple[int, ...]) -> None:
        self.values[name] = shape
        self.weights.append(name)

    def model(self, inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
        def described(names: Sequence[str]) -> list[Any]:
            return [helper.make_tensor_value_info(n, TensorProto.FLOAT, self.values[n]) for n in names]

        inner = [n for n in self.values if n not in {*inputs, *outputs, *self.weights}]
        graph = helper.make_graph(
            self.nodes,
            "network",
            described([*inputs, *self.weights]),
            described(outputs),
            value_info=described(inner),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def _precision(bits: int) -> dict[str, int]:
    """The attributes from which zigzag takes the bits of a node's operands."""
    return {"weight_size": bits, "act_size": bits, "output_size": min(2 * bits, _MAX_ACCUMULATOR_BITS)}


def network_onnx(space: QuantizedExitSpace, network: QuantizedNetwork) -> ModelProto:
    """One graph of the backbone with all its exits."""
    graph = _Graph()
    graph.values["image"] = (1, 3, space.resolution, space.resolution)
    x = graph.conv("image", space.stem_channels, 3, 1, 1, network.segment_bits[0])
    outputs = []
    for index, block in enumerate(space.blocks):
        segment = _SEGMENT_OF_BLOCK[index]
        x = _block(graph, x, block, network.segment_bits[segment])
        ends = index + 1 == len(space.blocks) or _SEGMENT_OF_BLOCK[index + 1] != segment
        if ends and network.heads[segment]:
            outputs.append(_head(graph, x, network.heads[segment], space.n_classes, network.head_bits))
    return graph.model(["image"], outputs)


def _block(graph: _Graph, x: str, block: InvertedResidual, bits: int) -> str:
    y = graph.conv(x, block.hidden, 1, 1, 1, bits) if block.has_expansion else x
    y = graph.conv(y, block.hidden, block.kernel, block.stride, block.hidden, bits)
    y = graph.conv(y, block.out_channels, 1, 1, 1, bits)
    return graph.plain("Add", [x, y], graph.values[y]) if block.has_residual else y


def _head(graph: _Graph, x: str, head_type: int, n_classes: int, bits: int) -> str:
    _, channels, side, _ = graph.values[x]
    window = [side // POOLED_SIDE] * 2
    pooled = graph.plain(
        "MaxPool", [x], (1, channels, POOLED_SIDE, POOLED_SIDE), kernel_shape=window, strides=window
    )
    features = channels * POOLED_SIDE**2
    y = graph.plain("Flatten", [pooled], (1, features))
    if head_type == 2:
        y = graph.linear(y, features // 2, bits)
    return graph.linear(y, n_classes, bits)
