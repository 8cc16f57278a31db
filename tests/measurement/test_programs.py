from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from hadas.datasets.records import Program
from hadas.errors import ConfigError
from hadas.measurement.hardware.device import CostRequest
from hadas.measurement.hardware.programs import (
    ONNX_OPSET,
    example_input,
    export_programs,
    load_torchscript,
    stage_modules,
)
from hadas.spaces import PINNED, Exits, mini_space

MINI = mini_space()
N_CLASSES = 10


def _request(*positions: int) -> CostRequest:
    backbone = MINI.presets["m0"]
    exits = Exits.at(positions, first_exit=MINI.first_exit, n_blocks=backbone.n_blocks)
    return CostRequest(backbone, exits, PINNED.default)


def _outputs(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        out = module(x)
    return out if isinstance(out, tuple) else (out,)


def test_a_prefix_computes_what_the_stages_compute_one_after_another() -> None:
    stages = stage_modules(MINI, _request(5, 8), N_CLASSES, "stages")
    prefixes = stage_modules(MINI, _request(5, 8), N_CLASSES, "prefix")
    x = example_input(stages[0][2])
    logits = []
    for stage, module, shape in stages:
        assert tuple(x.shape) == shape
        (out,) = _outputs(module, x)
        if stage.kind == "segment" and stage is not stages[-1][0]:
            x = out
        else:
            logits.append(out)
    last = MINI.presets["m0"].n_blocks
    assert [(p.kind, p.position) for p, _, _ in prefixes] == [("prefix", 5), ("prefix", 8), ("prefix", last)]
    for n_exits, (_, module, shape) in enumerate(prefixes, start=1):
        seen = _outputs(module, example_input(shape))
        # Every head on the way is an output, so that none can be optimised away.
        assert len(seen) == n_exits
        for one, other in zip(seen, logits, strict=False):
            torch.testing.assert_close(one, other)


def test_without_exits_both_programs_are_the_backbone() -> None:
    ((_, stage, shape),) = stage_modules(MINI, _request(), N_CLASSES, "stages")
    ((loaded, prefix, _),) = stage_modules(MINI, _request(), N_CLASSES, "prefix")
    assert loaded.position == MINI.presets["m0"].n_blocks
    x = example_input(shape)
    torch.testing.assert_close(_outputs(prefix, x), _outputs(stage, x))


def test_building_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    stage_modules(MINI, _request(5), N_CLASSES, "stages")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("program", ["stages", "prefix"])
def test_exported_torchscript_computes_the_same(tmp_path: Path, program: Program) -> None:
    files = export_programs(
        MINI, _request(5, 8), n_classes=N_CLASSES, program=program, directory=tmp_path, format="torchscript"
    )
    modules = stage_modules(MINI, _request(5, 8), N_CLASSES, program)
    assert [(f.kind, f.position, f.input_shape) for f in files] == [
        (s.kind, s.position, shape) for s, _, shape in modules
    ]
    for file, (_, module, shape) in zip(files, modules, strict=True):
        x = example_input(shape)
        torch.testing.assert_close(
            _outputs(load_torchscript(file.path), x), _outputs(module, x), atol=1e-4, rtol=1e-4
        )


_SINCE_TORCH_1_8 = {
    "_convolution", "add", "avg_pool2d", "flatten", "hardsigmoid", "leaky_relu", "linear", "mean", "mul", "relu",
    "silu", "silu_",
}  # fmt: skip


def test_torchscript_files_ask_for_nothing_newer_than_the_torch_of_a_jetson(tmp_path: Path) -> None:
    files = export_programs(
        MINI, _request(5), n_classes=N_CLASSES, program="prefix", directory=tmp_path, format="torchscript"
    )
    for file in files:
        with zipfile.ZipFile(file.path) as archive:
            names = archive.namelist()
            (version,) = (archive.read(name) for name in names if name.endswith("/version"))
            code = "".join(archive.read(name).decode() for name in names if name.endswith(".py"))
        assert int(version) <= 3
        assert set(re.findall(r"\btorch\.(\w+)\(", code)) <= _SINCE_TORCH_1_8
        # Frozen: batch norm is folded into the convolutions before it.
        assert "batch_norm" not in code


@pytest.mark.parametrize("program", ["stages", "prefix"])
def test_exported_onnx_computes_the_same(tmp_path: Path, program: Program) -> None:
    files = export_programs(
        MINI, _request(5, 8), n_classes=N_CLASSES, program=program, directory=tmp_path, format="onnx"
    )
    modules = stage_modules(MINI, _request(5, 8), N_CLASSES, program)
    for file, (_, module, shape) in zip(files, modules, strict=True):
        assert [o.version for o in onnx.load(file.path).opset_import] == [ONNX_OPSET]
        session = onnxruntime.InferenceSession(str(file.path), providers=["CPUExecutionProvider"])
        x = example_input(shape)
        expected = _outputs(module, x)
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), atol=1e-4, rtol=1e-4)


def test_half_precision_files_hold_half_precision(tmp_path: Path) -> None:
    (file,) = export_programs(
        MINI, _request(), n_classes=N_CLASSES, program="stages", directory=tmp_path, format="onnx", dtype="fp16"
    )  # fmt: skip
    graph = onnx.load(file.path).graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert file.dtype == "fp16"


def test_bad_formats_and_dtypes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(format: str, dtype: str) -> None:
        export_programs(
            MINI, _request(), n_classes=N_CLASSES, program="stages", directory=tmp_path, format=format, dtype=dtype
        )  # type: ignore[arg-type]  # fmt: skip

    with pytest.raises(ConfigError, match="known are torchscript, onnx"):
        export("tflite", "fp32")
    with pytest.raises(ConfigError, match="fp32 or fp16"):
        export("torchscript", "int8")
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"extra \[onnx\]"):
        export("onnx", "fp32")
    assert not list(tmp_path.iterdir())
