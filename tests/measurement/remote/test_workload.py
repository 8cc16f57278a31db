"""The process that runs the programs: no run is lost, errors name the cure, trtexec is driven as documented."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas.measurement.hardware.agent.engines import (
    Program,
    blocks_of,
    parse_trtexec_times,
    tensorrt_options,
)
from hadas.measurement.hardware.device import CostRequest
from hadas.measurement.hardware.programs import ProgramFile, export_programs
from hadas.measurement.hardware.remote.jetson import tensorrt_version
from hadas.measurement.hardware.remote.transport import LocalTransport
from hadas.spaces import PINNED, Exits, mini_space

HERE = Path(__file__).parent
_START = "import sys; from hadas.measurement.hardware.agent.workload import main; sys.exit(main([]))"


class Workload:
    """The agent's end of its pipe."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def send(self, **message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line: dict[str, Any] = json.loads(self.process.stdout.readline())
        return line

    def ask(self, **message: Any) -> dict[str, Any]:
        self.send(**message)
        return self.receive()

    def until_reply(self) -> tuple[list[list[Any]], dict[str, Any]]:
        """Blocks of all events up to the next reply, and that."""
        blocks: list[list[Any]] = []
        while "ok" not in (line := self.receive()):
            assert line["event"] == "blocks", line
            blocks += line["blocks"]
        return blocks, line


@pytest.fixture
def workload() -> Iterator[Workload]:
    workload = Workload()
    yield workload
    workload.process.kill()
    workload.process.wait()
    for stream in (workload.process.stdin, workload.process.stdout):
        assert stream is not None
        stream.close()


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> ProgramFile:
    space = mini_space()
    backbone = space.presets["m0"]
    exits = Exits.at((), first_exit=space.first_exit, n_blocks=backbone.n_blocks)
    (file,) = export_programs(
        space, CostRequest(backbone, exits, PINNED.default), n_classes=10, program="stages",
        directory=tmp_path_factory.mktemp("programs"), format="onnx",
    )  # fmt: skip
    return file


def fields(file: ProgramFile, **changes: Any) -> dict[str, Any]:
    return {
        "name": "whole", "path": str(file.path), "format": file.format, "inputs": [list(file.input_shape)],
        "dtype": file.dtype, **changes,
    }  # fmt: skip


def test_stopping_loses_no_block(workload: Workload, onnx: ProgramFile) -> None:
    assert workload.ask(op="load", engine="auto", programs=[fields(onnx)])["ok"]
    began = time.monotonic()
    workload.send(op="loop", program="whole", runs_per_block=5, expected_s=1)
    time.sleep(0.7)
    asked = time.monotonic()
    workload.send(op="stop")
    blocks, reply = workload.until_reply()
    assert reply == {"ok": True, "result": {}}
    assert blocks[0][0] >= began
    assert blocks[-1][1] >= asked, "the block that ran when it was stopped is reported"
    for start_s, end_s, run_s in blocks:
        assert len(run_s) == 5
        assert sum(run_s) == pytest.approx(end_s - start_s, abs=1e-6)
    gaps = [later[0] - earlier[1] for earlier, later in pairwise(blocks)]
    assert min(gaps) >= 0
    # By medians: a busy machine may take the process off its core at any moment.
    assert median(gaps) < 0.1 * median(end - start for start, end, _ in blocks), "it runs nearly all the time"


def test_errors_are_replies_and_loops_that_fail_end_the_process(
    workload: Workload, onnx: ProgramFile
) -> None:
    error = workload.ask(op="load", engine="tflite", programs=[fields(onnx)])["error"]
    assert error["type"] == "workload"
    assert error["field"] == "engine"
    assert "engines on this device: torch, onnxruntime" in error["message"]
    half = workload.ask(op="load", engine="onnxruntime", programs=[fields(onnx, dtype="fp16")])["error"]
    assert half["message"] == "program whole takes fp32, not fp16"
    assert (
        "fp32 or fp16" in workload.ask(op="load", programs=[fields(onnx, dtype="int8")])["error"]["message"]
    )
    assert "at least one program" in workload.ask(op="load", programs=[])["error"]["message"]
    nobody = workload.ask(op="load", engine="onnxruntime", cores=[10_000], programs=[fields(onnx)])["error"]
    assert nobody["field"] == "cores"
    assert not workload.ask(op="decision", n_classes=10, runs=3)["ok"]
    assert workload.ask(op="load", engine="onnxruntime", programs=[fields(onnx)])["ok"]
    assert 0 < workload.ask(op="decision", n_classes=10, runs=30)["result"]["seconds"] < 0.01
    event = workload.ask(op="loop", program="other", runs_per_block=1, expected_s=1)
    assert event["event"] == "workload-ended"
    assert "no program 'other' is loaded; loaded are whole" in event["reason"]
    assert workload.process.wait(10) == 1


def test_the_end_of_its_pipe_ends_it(workload: Workload) -> None:
    assert workload.process.stdin is not None
    workload.process.stdin.close()
    assert workload.process.wait(10) == 0


@pytest.fixture
def trtexec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{HERE}:{os.environ['PATH']}")


@pytest.mark.usefixtures("trtexec")
def test_trtexec_builds_an_engine_once_and_runs_it_as_long_as_expected(
    onnx: ProgramFile, tmp_path: Path
) -> None:
    workload = Workload()
    path = tmp_path / "whole.onnx"
    path.write_bytes(onnx.path.read_bytes())
    program = fields(onnx, path=str(path), dtype="fp16")
    reply = workload.ask(op="load", engine="trtexec", processor="gpu", programs=[program])
    assert reply == {"ok": True, "result": {"engine": "trtexec TensorRT v8201 fp16"}}
    engine = tmp_path / "whole.onnx.fp16.engine"
    assert engine.read_bytes().startswith(b"engine fp16")
    built = engine.stat().st_mtime_ns
    assert workload.ask(op="load", engine="trtexec", programs=[program]) == reply
    assert engine.stat().st_mtime_ns == built, "rows at other clocks run the same engine"
    began = time.monotonic()
    workload.send(op="loop", program="whole", runs_per_block=50, expected_s=0.6)
    event = workload.receive()
    ended = time.monotonic()
    assert event["event"] == "blocks"
    blocks = event["blocks"]
    # A second of runs of 2 ms, 1.5 ms of it computing; those of the warm-up do not count.
    assert len(blocks) == 10
    assert all(len(run_s) == 50 and run_s[0] == pytest.approx(0.0015) for _, _, run_s in blocks)
    assert began + 0.2 < blocks[0][0]
    assert blocks[-1][1] < ended, "times are on the clock of the device"
    asked = time.monotonic()
    workload.send(op="stop")
    assert workload.until_reply()[1]["ok"]
    assert time.monotonic() - asked < 1.0, "the invocation that nobody wants is ended"
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"broken")
    error = workload.ask(op="load", engine="trtexec", programs=[fields(onnx, path=str(broken))])["error"]
    assert "cannot build an engine of whole: [E] ModelImporter: the network is broken" in error["message"]
    refused = workload.ask(op="load", engine="trtexec", processor="cpu", programs=[program])["error"]
    assert refused["message"] == "trtexec runs on the GPU alone"
    assert workload.ask(op="quit")["ok"]
    assert workload.process.wait(10) == 0


def test_engines_of_onnx_runtime_are_kept_beside_their_program(tmp_path: Path) -> None:
    """Rows at other clocks must run the same kernels; two programs must not share a folder, nor two types."""
    folders = set()
    for name in ("a", "b"):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(b"not looked at")
        if os.geteuid() == 0:
            os.chown(path, 1234, 1234)
        for dtype in ("fp32", "fp16"):
            program = Program(
                {"name": name, "path": str(path), "format": "onnx", "inputs": [], "dtype": dtype}
            )
            options = tensorrt_options(program)
            assert tensorrt_options(program) == options, "the second row finds what the first one built"
            assert options["trt_engine_cache_enable"] is True
            assert options.get("trt_fp16_enable", False) is (dtype == "fp16")
            folder = Path(options["trt_engine_cache_path"])
            assert folder.is_dir()
            assert folder.parent == tmp_path, "it is removed with the program"
            assert folder.stat().st_uid == path.stat().st_uid, "and by whoever brought that"
            folders.add(folder)
    assert len(folders) == 4


@pytest.mark.usefixtures("trtexec")
def test_the_version_of_tensorrt_is_known_before_anything_is_built() -> None:
    assert tensorrt_version(LocalTransport()) == "TensorRT v8201"


def test_times_of_old_and_of_new_releases_are_read() -> None:
    old = [{"startInMs": 2.0 * i, "startComputeMs": 2.0 * i, "endComputeMs": 2.0 * i + 1} for i in range(200)]
    runs = parse_trtexec_times(old, 10.0)
    assert len(runs) == 100
    assert runs[0] == pytest.approx((10.2, 10.201))
    new = [{"startH2dMs": 0.0, "startComputeMs": 2.0 * i, "endComputeMs": 2.0 * i + 1} for i in range(50)]
    assert len(parse_trtexec_times(new, 10.0)) == 50


@given(n_runs=st.integers(1, 60), size=st.integers(1, 20))
def test_blocks_hold_every_run_but_a_rest_shorter_than_a_block(n_runs: int, size: int) -> None:
    runs = [(0.1 * i, 0.1 * i + 0.05) for i in range(n_runs)]
    blocks = blocks_of(runs, size)
    assert sum(len(run_s) for _, _, run_s in blocks) == (n_runs if n_runs < size else n_runs - n_runs % size)
    assert [block[0] for block in blocks] == [runs[i * size][0] for i in range(len(blocks))]
