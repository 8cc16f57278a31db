"""The CPU that hadas runs on, measured: real latency of the real network, no energy counter.

Every stage is run on its own with batch 1, in rounds over all stages, so that a slow phase of the
machine falls on all of them alike.  Clocks are not controlled: the table has one setting.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...datasets.records import CostRecord, Program, StageCost, Target, Truth
from ...errors import ConfigError
from ...spaces import PINNED, ClockTable, MBConvSpace, Setting, Stage
from ..accuracy.network import build_network, stage_module
from .device import CostRequest, MeasurementPlan
from .energy import POWERCAP, Finding, Sampler, find_powercap
from .machine import cpu_identity, governors, hottest_c, machine_measures
from .protocol import block_statistic, check_plan, total_statistic
from .rig import ClockReading, DeviceState, EnergySource, LoadedStage, PowerTrace, Programs
from .torch_rig import (
    ENGINES,
    Engine,
    Inference,
    LocalPrograms,
    engine_name,
    failures_named,
    idle_trace,
    numpy_decision,
    onnxruntime_inferences,
    time_block,
    torch_decision,
    torch_inferences,
)

FloatArray = NDArray[np.float64]

_CPU = torch.device("cpu")

_WARM_UP_S = 0.05  # per stage
_BLOCK_S = 0.005  # least duration of a block: 10,000 ticks of the clock and more
_N_BLOCKS = 15
_LEAST_CPU_SHARE = 0.5


class HostCpuRig:
    """This machine's CPU, to be driven by the measuring protocol.

    Args:
        space: where backbones come from.
        n_classes: outputs of each classifier.
        threads: of the engine while measuring; torch's own number is restored when programs are unloaded.
        engine: ``eager``, ``torchscript`` or ``onnxruntime``.
        powercap: where the kernel shows its energy counters.

    Raises:
        ConfigError: an unknown engine, or one that is not installed.
    """

    truth = Truth.DEVICE

    def __init__(
        self, space: MBConvSpace, n_classes: int, threads: int = 1, engine: Engine = "eager",
        powercap: Path = POWERCAP,
    ) -> None:  # fmt: skip
        if engine not in ENGINES:
            raise ConfigError(f"engine '{engine}': known are {', '.join(ENGINES)}")
        self.space = space
        self.n_classes = n_classes
        self.threads = threads
        self.engine = engine
        self._engine_name = engine_name(engine)
        self._powercap = powercap

    @property
    def target(self) -> Target:
        """This machine, its system and what runs on it."""
        model, is_virtual = cpu_identity()
        # A virtual machine shares its cores, which no repetition averages out: part of the identity.
        pinned = [("threads", str(self.threads)), ("virtual_machine", "yes" if is_virtual else "no")]
        pinned += [("governor", "+".join(names)) for names in [governors()] if names]
        return Target(
            board="host", processor=model, release=f"{platform.system()} {platform.release()}",
            runtime=self._engine_name, pinned=tuple(sorted(pinned)),
        )  # fmt: skip

    @cached_property
    def _finding(self) -> Finding:
        return find_powercap(self._powercap)

    @property
    def energy(self) -> EnergySource | None:
        """The powercap counters if they are alive; else ``None``, and :attr:`notes` say why."""
        return self._finding.meter.source if self._finding.meter else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What this machine does not count, and why."""
        return self._finding.notes

    def clock_table(self) -> ClockTable:
        """One setting: the host's clocks are its own business."""
        return PINNED

    def set_clocks(self, setting: Setting) -> ClockReading:
        """Nothing is set.

        Raises:
            ConfigError: the setting names clocks.
        """
        PINNED.check(setting)
        return ClockReading(setting, setting)

    def load(self, request: CostRequest, program: Program) -> AbstractContextManager[Programs]:
        """Build the programs of one network; torch runs on ``threads`` threads while they are loaded."""
        return self._load(request, program)

    @contextmanager
    def _load(self, request: CostRequest, program: Program) -> Iterator[Programs]:
        threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with failures_named(self._engine_name):
                stages, inferences = self._inferences(request, program)
            yield LocalPrograms(
                stages, inferences, self._engine_name, time_block, self._decision(request), self._sampler
            )
        finally:
            torch.set_num_threads(threads_before)

    def _inferences(
        self, request: CostRequest, program: Program
    ) -> tuple[tuple[LoadedStage, ...], tuple[Inference, ...]]:
        if self.engine == "onnxruntime":
            return onnxruntime_inferences(self.space, request, self.n_classes, program, threads=self.threads)
        return torch_inferences(
            self.space, request, self.n_classes, program, script=self.engine == "torchscript", device=_CPU
        )

    def _decision(self, request: CostRequest) -> Callable[[], bool] | None:
        if not request.exits.positions:
            return None
        if self.engine == "onnxruntime":
            return numpy_decision(self.n_classes)
        return torch_decision(self.n_classes, _CPU)

    def _sampler(self) -> Sampler:
        return Sampler(self._finding.meter)

    def idle(self, seconds: float) -> PowerTrace | None:
        """Power while this process does nothing."""
        return idle_trace(self._finding.meter, seconds)

    def state(self) -> DeviceState:
        """Temperature, and what else this machine does."""
        return DeviceState(temperature_c=hottest_c(), machine=machine_measures())

    def close(self) -> None:
        """Nothing of the machine was changed."""


class HostCpuDevice:
    """This machine's CPU.

    Args:
        space: where backbones come from.
        n_classes: outputs of each classifier.
        threads: torch threads while measuring; the process's own number is restored afterwards.
    """

    def __init__(self, space: MBConvSpace, n_classes: int, threads: int = 1) -> None:
        self.space = space
        self.n_classes = n_classes
        self.threads = threads

    @property
    def target(self) -> Target:
        """This machine, its system and torch."""
        model, is_virtual = cpu_identity()
        # A virtual machine shares its cores, which no repetition averages out: part of the identity.
        pinned = (("threads", str(self.threads)), ("virtual_machine", "yes" if is_virtual else "no"))
        return Target(
            board="host", processor=model, release=f"{platform.system()} {platform.release()}",
            runtime=f"torch {torch.__version__} eager", pinned=pinned,
        )  # fmt: skip

    @property
    def truth(self) -> Truth:
        """Always :attr:`Truth.DEVICE`."""
        return Truth.DEVICE

    @property
    def counts_energy(self) -> bool:
        """Never: no energy counter is read."""
        return False

    def clock_table(self) -> ClockTable:
        """One setting: the host's clocks are its own business."""
        return PINNED

    def measure(self, plan: MeasurementPlan) -> Iterator[CostRecord]:
        """Yield one record per request from ``plan.first_row`` on.

        A row during which other processes held the core is invalid and says so.

        Raises:
            ConfigError: before anything is measured, if a setting names clocks.
            SpaceError: before anything is measured, if a network is not in the device's space.
        """
        check_plan(plan, PINNED, self.space)
        return self._rows(plan)

    def _rows(self, plan: MeasurementPlan) -> Iterator[CostRecord]:
        for row_no in range(plan.first_row, len(plan.requests)):
            yield self._measure_row(plan.session, row_no, plan.requests[row_no])

    def _measure_row(self, session: str, row_no: int, request: CostRequest) -> CostRecord:
        started = time.perf_counter()
        workload = self.space.workload(request.backbone, n_classes=self.n_classes)
        stages = workload.stages(request.exits.positions)
        threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            programs = self._programs(request, stages)
            block_ms, cpu_share = _time_in_rounds(programs)
        finally:
            torch.set_num_threads(threads_before)
        costs = tuple(
            StageCost(stage.kind, stage.position, block_statistic(blocks), None)
            for stage, blocks in zip(stages, block_ms, strict=True)
        )
        reason = disturbance(cpu_share)
        return CostRecord(
            session=session, row_no=row_no, backbone=request.backbone, n_classes=self.n_classes,
            heads=request.exits.heads, requested=request.setting, actual=request.setting, target=self.target,
            truth=self.truth, stages=costs, latency_ms=total_statistic([cost.latency_ms for cost in costs]),
            energy_mj=None, device_seconds=time.perf_counter() - started, valid=not reason, reason=reason,
        ).check("host measurement")  # fmt: skip

    def _programs(self, request: CostRequest, stages: tuple[Stage, ...]) -> list[tuple[nn.Module, Tensor]]:
        """Module and input of each stage; weights do not matter to time, but are fixed all the same."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build_network(self.space.macro, request.backbone, self.n_classes).eval()
        generator = torch.Generator().manual_seed(0)
        return [
            (stage_module(network, stage), torch.rand(1, *stage.units[0].in_shape, generator=generator))
            for stage in stages
        ]


def disturbance(cpu_share: float) -> str:
    """Why a row is not to be believed, or nothing.

    Args:
        cpu_share: process time over wall time while measuring.
    """
    if cpu_share >= _LEAST_CPU_SHARE:
        return ""
    return (
        f"other processes held the CPU: process time was {cpu_share:.0%} of wall time, at least "
        f"{_LEAST_CPU_SHARE:.0%} is needed; measure again on an idle machine"
    )


def _time_in_rounds(programs: list[tuple[nn.Module, Tensor]]) -> tuple[FloatArray, float]:
    """Block latencies (s, n_blocks) in ms of s stages, and process time over wall time."""
    block_ms = np.empty((len(programs), _N_BLOCKS))
    with torch.inference_mode():
        n_runs = [_warm_up(module, x) for module, x in programs]
        wall, cpu = time.perf_counter(), time.process_time()
        for block in range(_N_BLOCKS):
            for s, (module, x) in enumerate(programs):
                block_ms[s, block] = 1e3 * _run(module, x, n_runs[s]) / n_runs[s]
        cpu_share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return block_ms, cpu_share


def _warm_up(module: nn.Module, x: Tensor) -> int:
    """Run until warm; the number of runs that fill a block."""
    spent, fastest = 0.0, float("inf")
    while spent < _WARM_UP_S:
        once = _run(module, x, 1)
        spent += once
        fastest = min(fastest, once)
    return max(1, round(_BLOCK_S / fastest))


def _run(module: nn.Module, x: Tensor, n: int) -> float:
    """Seconds that n runs take."""
    started = time.perf_counter()
    for _ in range(n):
        module(x)
    return time.perf_counter() - started
