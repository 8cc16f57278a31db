"""The CPU that hadas runs on, measured: real latency of the real network, energy where a counter lives.

Clocks are not controlled: the table has one setting, and the governor is part of the target.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path

import torch

from ....datasets.records import Program, Target, Truth
from ....errors import ConfigError
from ....spaces import PINNED, ClockTable, MBConvSpace, Setting
from ..device import CostRequest
from ..measuring.protocol import QUICK, MeasuringProtocol
from ..measuring.runner import MeasuredDevice
from ..rig import ClockReading, DeviceState, EnergySource, LoadedStage, PowerTrace, Programs
from .energy import POWERCAP, Finding, Sampler, find_powercap
from .machine import cpu_identity, governors, hottest_c, machine_measures
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
    widen_heap,
)

_CPU = torch.device("cpu")


class HostCpuRig:
    """This machine's CPU, to be driven by the measuring protocol.

    Args:
        space: where backbones come from.
        n_classes: outputs of each classifier.
        threads: of the engine while measuring; torch's own number is restored when programs are unloaded.
        engine: ``eager``, ``torchscript`` or ``onnxruntime``.
        powercap: where the kernel shows its energy counters.
        count_energy: whether to look for one; rows without energy take less time.

    Raises:
        ConfigError: an unknown engine, or one that is not installed.
    """

    truth = Truth.DEVICE

    def __init__(
        self, space: MBConvSpace, n_classes: int, threads: int = 1, engine: Engine = "eager",
        powercap: Path = POWERCAP, count_energy: bool = True,
    ) -> None:  # fmt: skip
        if engine not in ENGINES:
            raise ConfigError(f"engine '{engine}': known are {', '.join(ENGINES)}")
        self.space = space
        self.n_classes = n_classes
        self.threads = threads
        self.engine = engine
        self._engine_name = engine_name(engine)
        self._powercap = powercap
        self._count_energy = count_energy

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
        if not self._count_energy:
            return Finding(None, ("no energy: not asked for",))
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
        widen_heap()
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


class HostCpuDevice(MeasuredDevice):
    """This machine's CPU, measured by a protocol that takes about a second per row.

    Its stages take turns, three times, so that a slow phase of the machine falls on all of them alike.

    Args:
        space: where backbones come from.
        n_classes: outputs of each classifier.
        threads: of the engine while measuring.
        engine: ``eager``, ``torchscript`` or ``onnxruntime``.
        protocol: another one, such as :data:`~.protocol.FULL`.
        program: what is measured, ``stages`` or ``prefix``.
    """

    def __init__(
        self, space: MBConvSpace, n_classes: int, threads: int = 1, *, engine: Engine = "eager",
        protocol: MeasuringProtocol = QUICK, program: Program = "stages",
    ) -> None:  # fmt: skip
        rig = HostCpuRig(space, n_classes, threads, engine)
        super().__init__(rig, protocol, space=space, n_classes=n_classes, program=program)
