"""The direct reference of the edge cost benchmark is the same network, drawn another way."""

import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="onnx is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from _edge_onnx import network_onnx
from edge_cost import Direct, Ranking, Result

from hadas.measurement.accelerator import FillReport, LayerSignature, layer_signature
from hadas.spaces import QuantizedNetwork, edge_space

SMALL = edge_space("mobilenetv2-small", bits="per-segment")
LARGE = edge_space("mobilenetv2")


def drawn(model) -> Counter[LayerSignature]:
    """Layers that multiply, from the nodes of a graph."""
    graph = model.graph
    shapes = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    found: Counter[LayerSignature] = Counter()
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        fields = {a.name: a.i if a.type == 2 else tuple(a.ints) for a in node.attribute}
        inputs, outputs = shapes[node.input[0]], shapes[node.output[0]]
        side, groups = (inputs[2], fields["group"]) if node.op_type == "Conv" else (1, 1)
        kernel, stride = (
            (fields["kernel_shape"][0], fields["strides"][0]) if node.op_type == "Conv" else (1, 1)
        )
        operation = "linear" if node.op_type == "Gemm" else "conv" if groups == 1 else "depthwise"
        assert fields["output_size"] == min(32, 2 * fields["act_size"])
        found[
            LayerSignature(
                operation, inputs[1], outputs[1], side, kernel, stride, groups, fields["weight_size"],
                fields["act_size"],
            )
        ] += 1  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("space", "network"),
    [
        (LARGE, LARGE.network("D,F,I")),
        (LARGE, LARGE.network("A,J", head_types=(2, 1, 2), bits=32, head_bits=32)),
        (SMALL, SMALL.network("B,C,H", head_types=(1, 2, 2, 1), bits=(4, 8) * 5 + (4,), head_bits=4)),
    ],
    ids=str,
)
def test_the_graph_has_the_layers_that_the_cost_model_sums(space, network: QuantizedNetwork) -> None:
    summed: Counter[LayerSignature] = Counter()
    for stage in space.stages(network):
        for segment in stage.segments:
            summed.update(
                layer_signature(layer, segment.bits) for unit in segment.units for layer in unit.layers
            )
        summed.update(layer_signature(layer, stage.head_bits) for layer in stage.head.layers)
    assert drawn(network_onnx(space, network)) == Counter({s: n for s, n in summed.items() if s.multiplies})


def result(energy: float = 1.0, cpu_seconds: float = 10.0, warm_s: float = 0.01) -> Result:
    direct = Direct("X", (energy, 1.0), (1.0, 1.0), 10.0)
    return Result(
        [direct],
        FillReport(50, cpu_seconds),
        6.0,
        warm_s,
        {"r": Ranking(3, 1.0, 1.0, 1.0, 1.0)},
        0.5,
        {},
        0.1,
    )


def test_what_misses_its_bound_is_named() -> None:
    assert result().fails == []
    assert len(result(energy=1.03).fails) == 1
    assert "filling" in result(cpu_seconds=50.0).fails[0]
    assert "warm" in result(warm_s=1.0).fails[0]
