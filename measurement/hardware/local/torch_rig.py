"""What the rigs of this machine share: programs of torch or ONNX Runtime, looped in this process.

Engines: ``eager`` (torch modules as they are), ``torchscript`` (traced and frozen: batch norm folded,
some fusion), ``onnxruntime`` (exported, then optimised by ONNX Runtime).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ....datasets.records import Program
from ....errors import DeviceError
from ....spaces import MBConvSpace
from ..device import CostRequest
from ..programs import (
    ProgramFile,
    example_input,
    export_programs,
    require_package,
    stage_modules,
    torch_dtype,
    torchscript,
)
from ..rig import Block, LoadedStage, Loop, PowerTrace
from .energy import EnergyMeter, Sampler

Engine = Literal["eager", "torchscript", "onnxruntime"]
ENGINES: tuple[Engine, ...] = ("eager", "torchscript", "onnxruntime")

Inference = Callable[[], object]
"""Runs one program once and returns what it put out."""

_N_DECISIONS = 200
_THRESHOLD = 0.9  # of the timed decision; it takes as long at any other
_LARGEST_THRESHOLD_BYTES = 32 * 2**20  # of glibc on 64 bits
_SCRIPT_WARM_UPS = 3  # TorchScript specialises a program in its first runs


class LocalLoop:
    """Blocks of one program, as long as the caller wants more."""

    def __init__(self, time_block: Callable[[], Block], sampler: Sampler) -> None:
        self._time_block = time_block
        self._sampler = sampler

    def __iter__(self) -> Iterator[Block]:
        while True:
            yield self._time_block()

    def trace(self) -> PowerTrace | None:
        """Power readings since the loop began; ``None`` without an energy source."""
        return self._sampler.trace()


class LocalPrograms:
    """Programs of one network, ready to run in this process.

    Args:
        stages: in execution order.
        inferences: one per stage.
        engine: what runs them, with its version.
        time_block: times that many runs of one program.
        decide: takes one decision whether to leave; ``None`` if the network has no exits.
        sampler: makes what reads the energy meter while a program loops.
    """

    def __init__(
        self, stages: tuple[LoadedStage, ...], inferences: tuple[Inference, ...], engine: str,
        time_block: Callable[[Inference, int], Block], decide: Callable[[], bool] | None,
        sampler: Callable[[], Sampler],
    ) -> None:  # fmt: skip
        self.stages = stages
        self.engine = engine
        self._inferences = inferences
        self._time_block = time_block
        self._decide = decide
        self._sampler = sampler

    def loop(self, index: int, runs_per_block: int, expected_s: float) -> AbstractContextManager[Loop]:
        """Run the program of ``stages[index]``; it can be stopped after every block."""
        return self._loop(self._inferences[index], runs_per_block)

    @contextmanager
    def _loop(self, inference: Inference, runs_per_block: int) -> Iterator[Loop]:
        def time_block() -> Block:
            with failures_named(self.engine):
                return self._time_block(inference, runs_per_block)

        with self._sampler() as sampler:
            yield LocalLoop(time_block, sampler)

    def decision_s(self) -> float | None:
        """Median time of one decision: scores to the host, softmax, largest, comparison."""
        if self._decide is None:
            return None
        seconds = []
        for _ in range(_N_DECISIONS):
            began = time.monotonic()
            self._decide()
            seconds.append(time.monotonic() - began)
        return statistics.median(seconds)


def time_block(inference: Inference, runs: int) -> Block:
    """Time inferences that are done when they return."""
    run_s = []
    with torch.inference_mode():
        start = before = time.monotonic()
        for _ in range(runs):
            inference()
            now = time.monotonic()
            run_s.append(now - before)
            before = now
    return Block(start, before, tuple(run_s))


def widen_heap() -> None:
    """Let the C library keep the memory of activations between inferences.

    glibc returns freed memory to the system until it has seen a large block freed (its mmap threshold is
    dynamic, mallopt(3)).  Before that, every inference takes its pages anew: 1,500 page faults in the first
    segment of AttentiveNAS a0, which then takes 14 ms instead of 6, but only for the first network of a
    process, so that its row would not be like the others.
    """
    torch.empty(_LARGEST_THRESHOLD_BYTES - 2**20, dtype=torch.uint8)


def torch_inferences(
    space: MBConvSpace, request: CostRequest, n_classes: int, program: Program, *, script: bool,
    device: torch.device, dtype: str = "fp32",
) -> tuple[tuple[LoadedStage, ...], tuple[Inference, ...]]:  # fmt: skip
    """Programs of one network in torch, on any device.

    Args:
        script: trace and freeze them.
    """
    stages, inferences = [], []
    for stage, module, shape in stage_modules(space, request, n_classes, program):
        x = example_input(shape, dtype).to(device)
        runnable: Callable[[Tensor], object] = module.to(device, torch_dtype(dtype))
        if script:
            runnable = torchscript(module, x)
            with torch.inference_mode():
                for _ in range(_SCRIPT_WARM_UPS):
                    runnable(x)
        stages.append(stage)
        inferences.append(_bound(runnable, x))
    return tuple(stages), tuple(inferences)


def _bound(runnable: Callable[[Tensor], object], x: Tensor) -> Inference:
    return lambda: runnable(x)


def onnxruntime_inferences(
    space: MBConvSpace, request: CostRequest, n_classes: int, program: Program, *, threads: int
) -> tuple[tuple[LoadedStage, ...], tuple[Inference, ...]]:
    """Programs of one network in ONNX Runtime on the CPU."""
    with tempfile.TemporaryDirectory() as directory:
        files = export_programs(
            space, request, n_classes=n_classes, program=program, directory=Path(directory), format="onnx"
        )
        inferences = tuple(_session(file, threads) for file in files)
    return tuple(LoadedStage(file.kind, file.position) for file in files), inferences


def _session(file: ProgramFile, threads: int) -> Inference:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(file.path), sess_options=options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: example_input(file.input_shape).numpy()}
    return lambda: session.run(None, feed)


def torch_decision(n_classes: int, device: torch.device, dtype: str = "fp32") -> Callable[[], bool]:
    """The decision of a max-softmax controller on scores that lie on ``device``; it waits for them."""
    scores = example_input((1, 1, 1, n_classes), dtype).reshape(1, n_classes).to(device)

    def decide() -> bool:
        return bool(torch.softmax(scores.to("cpu", torch.float32), dim=1).max() >= _THRESHOLD)

    return decide


def numpy_decision(n_classes: int) -> Callable[[], bool]:
    """The same on scores as ONNX Runtime returns them."""
    scores: Any = example_input((1, 1, 1, n_classes)).reshape(1, n_classes).numpy()

    def decide() -> bool:
        # The largest softmax probability is one over the sum of exp(score - largest score).
        return bool(1.0 / np.exp(scores - scores.max()).sum() >= _THRESHOLD)

    return decide


def engine_name(engine: Engine) -> str:
    """With its version, as rows keep it.

    Raises:
        ConfigError: ONNX Runtime is asked for and is not installed.
    """
    if engine != "onnxruntime":
        return f"torch {torch.__version__} {engine}"
    for package in ("onnx", "onnxruntime"):
        require_package(package, "the engine onnxruntime", "onnx")
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def idle_trace(meter: EnergyMeter | None, seconds: float) -> PowerTrace | None:
    """What the meter reads while nothing runs."""
    with Sampler(meter) as sampler:
        time.sleep(seconds)
    return sampler.trace()


@contextmanager
def failures_named(engine: str) -> Iterator[None]:
    """Turn what an engine raises (out of memory, a kernel that is missing) into an error of the device.

    Raises:
        DeviceError: names the engine.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        raise DeviceError(f"{engine}: {str(error).strip().splitlines()[0]}") from error
    except Exception as error:
        # ONNX Runtime's exceptions have no base of their own.
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise DeviceError(f"{engine}: {error}") from error
