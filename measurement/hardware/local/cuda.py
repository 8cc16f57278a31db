"""An NVIDIA GPU of this machine.

Runs are timed by CUDA events between them and synchronised once per block: the time of an inference
counts from the end of the one before, so that what launches the kernels is timed where it is slower than
the GPU, and hidden where it is not.  No setting of the card is changed unless clock locking is allowed.
"""

from __future__ import annotations

import atexit
import re
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from itertools import pairwise

import torch

from ....datasets.records import Program, Target, Truth
from ....errors import ConfigError
from ....spaces import PINNED, ClockDomain, ClockTable, MBConvSpace, Setting
from ..device import CostRequest
from ..programs import torch_dtype
from ..rig import Block, ClockReading, DeviceState, EnergySource, PowerTrace, Programs
from .energy import Finding, Sampler
from .machine import Measures, machine_measures
from .nvml import POWER_CAP, SLOWDOWN, GpuSensors, NvmlGpu, find_gpu_energy, open_gpu, require_lockable
from .torch_rig import (
    Engine,
    Inference,
    LocalPrograms,
    engine_name,
    failures_named,
    idle_trace,
    torch_decision,
    torch_inferences,
)

_LOOK_S = 0.1
_SETTLE_S = 2.0
_CLOCK_TOLERANCE = 0.01
_BUSY_SIDE = 2048  # of the matrices that keep the GPU busy


class CudaRig:
    """One NVIDIA GPU.

    Args:
        space: where backbones come from.
        n_classes: outputs of each classifier.
        index: torch's index of the GPU.
        engine: ``eager`` or ``torchscript``.
        dtype: ``fp32`` or ``fp16``.
        count_energy: whether to read the card's energy; rows without it take less time.
        allow_clock_locking: offer the graphics clocks of the card (at its highest memory clock) and lock
            them as asked for, which takes root; :meth:`close`, which also runs at the end of the process,
            resets the lock to the driver's default.  A lock that somebody else had set is lost, since NVML
            does not tell it; after a killed process ``nvidia-smi -rgc`` resets it.

    Raises:
        ConfigError: torch finds no such GPU, another engine or dtype is asked for, or clocks cannot be
            locked here although they are to be.
    """

    truth = Truth.DEVICE

    def __init__(
        self, space: MBConvSpace, n_classes: int, *, index: int = 0, engine: Engine = "eager", dtype: str = "fp32",
        count_energy: bool = True, allow_clock_locking: bool = False,
    ) -> None:  # fmt: skip
        if engine not in ("eager", "torchscript"):
            raise ConfigError(f"engine '{engine}' does not run on CUDA here: choose eager or torchscript")
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise ConfigError(
                f"torch finds no CUDA GPU {index} here: measure on another device, e.g. the host CPU"
            )
        torch_dtype(dtype)
        self.space = space
        self.n_classes = n_classes
        self.engine = engine
        self.dtype = dtype
        self._count_energy = count_energy
        self._device = torch.device("cuda", index)
        properties = torch.cuda.get_device_properties(self._device)
        self._name = properties.name
        self._sensors, self.notes = open_gpu("GPU-" + str(properties.uuid).removeprefix("GPU-"))
        self._release = f"driver {self._sensors.driver}" if self._sensors else "driver unknown"
        try:
            self._lockable = require_lockable(self._sensors) if allow_clock_locking else None
        except ConfigError:
            self._close_sensors()
            raise
        self._locked = False
        self._watch = ClockWatch(self._sensors)
        atexit.register(self.close)

    @property
    def target(self) -> Target:
        """This card, its driver and what runs on it."""
        tf32 = "yes" if self.dtype == "fp32" and torch.backends.cudnn.allow_tf32 else "no"
        clocks = "locked" if self._lockable else "driver"
        return Target(
            board="nvidia-gpu", processor=re.sub(r"[^a-z0-9]+", "-", self._name.lower()).strip("-"),
            release=self._release, runtime=f"{engine_name(self.engine)} cuda {torch.version.cuda}", dtype=self.dtype,
            pinned=(("clocks", clocks), ("tf32", tf32)),
        )  # fmt: skip

    @cached_property
    def _finding(self) -> Finding:
        if self._sensors is None or not self._count_energy:
            return Finding(None)
        finding = find_gpu_energy(self._sensors, self._busy)
        self.notes += finding.notes
        return finding

    @property
    def energy(self) -> EnergySource | None:
        """The counter of the card, or its power; ``None`` where neither lives (:attr:`notes` say why)."""
        return self._finding.meter.source if self._finding.meter else None

    def clock_table(self) -> ClockTable:
        """One setting, the driver's; with clock locking, the card's graphics clocks.

        Raises:
            ConfigError: the card lists no clocks to lock.
        """
        if self._lockable is None:
            return PINNED
        frequencies_hz = self._lockable.lockable_hz()
        if not frequencies_hz:
            raise ConfigError(
                f"{self._name} lists no clocks that could be locked: measure without clock locking"
            )
        return ClockTable("nvidia-gpu", (ClockDomain("gpu", frequencies_hz),))

    def set_clocks(self, setting: Setting) -> ClockReading:
        """Lock the graphics clock if that is allowed; nothing otherwise.

        Raises:
            OffTableFrequencyError, ConfigError: not in the table; nothing is set.
            DeviceError: the driver refuses.
        """
        self.clock_table().check(setting)
        if self._lockable is None:
            return ClockReading(setting, setting)
        asked_hz = setting.hz("gpu")
        self._lockable.lock_hz(asked_hz)
        self._locked = True
        end = time.monotonic() + _SETTLE_S
        while True:
            self._busy(0.05)  # an idle card may report a lower clock
            actual_hz = self._graphics_hz(self._lockable)
            settled = actual_hz is not None and abs(actual_hz - asked_hz) <= _CLOCK_TOLERANCE * asked_hz
            if settled or time.monotonic() >= end:
                break
        if settled:
            return ClockReading(setting, setting)
        actual = Setting((("gpu", actual_hz or 0),))
        return ClockReading(setting, actual, ("unverified",))

    def _graphics_hz(self, gpu: NvmlGpu) -> int | None:
        clocks = gpu.clocks_hz()
        return None if clocks is None else clocks[0]

    def load(self, request: CostRequest, program: Program) -> AbstractContextManager[Programs]:
        """Build the programs of one network on the GPU."""
        return self._load(request, program)

    @contextmanager
    def _load(self, request: CostRequest, program: Program) -> Iterator[Programs]:
        name = f"{engine_name(self.engine)} {self.dtype}"
        with failures_named(name), torch.cuda.device(self._device):
            stages, inferences = torch_inferences(
                self.space, request, self.n_classes, program, script=self.engine == "torchscript",
                device=self._device, dtype=self.dtype,
            )  # fmt: skip
        decide = torch_decision(self.n_classes, self._device, self.dtype) if request.exits.positions else None
        yield LocalPrograms(stages, inferences, name, self._time_block, decide, self._sampler)

    def _sampler(self) -> Sampler:
        self._watch.begin()
        return Sampler(self._finding.meter, self._watch.look, _LOOK_S)

    def _time_block(self, inference: Inference, runs: int) -> Block:
        with torch.cuda.device(self._device), torch.inference_mode():
            events = [
                torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
                for _ in range(runs + 1)
            ]
            torch.cuda.synchronize()
            start_s = time.monotonic()
            events[0].record()
            for event in events[1:]:
                inference()
                event.record()
            torch.cuda.synchronize()
            end_s = time.monotonic()
        run_s = tuple(1e-3 * before.elapsed_time(after) for before, after in pairwise(events))
        return Block(start_s, end_s, run_s)

    def _busy(self, seconds: float) -> None:
        with torch.cuda.device(self._device):
            matrix = torch.ones(_BUSY_SIDE, _BUSY_SIDE, device=self._device)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                torch.mm(matrix, matrix)
                torch.cuda.synchronize()

    def idle(self, seconds: float) -> PowerTrace | None:
        """Power while the card has nothing to do; its context and programs stay."""
        return idle_trace(self._finding.meter, seconds)

    def state(self) -> DeviceState:
        """Temperature, slowdowns, clocks while programs ran; what else this machine does."""
        temperature_c = self._sensors.temperature_c() if self._sensors else None
        actual = None
        if self._lockable is not None and (clock_hz := self._graphics_hz(self._lockable)) is not None:
            actual = Setting((("gpu", clock_hz),))
        # The share of a core that this process had says nothing of a program that runs on the GPU.
        others = tuple(pair for pair in machine_measures() if pair[0] != "process_cpu_s")
        return DeviceState(temperature_c, self._watch.slowdowns, actual, (*self._watch.measures(), *others))

    def close(self) -> None:
        """Give clocks back to the driver, if they were locked, and let go of the sensors."""
        atexit.unregister(self.close)
        try:
            if self._locked and self._lockable is not None:
                self._lockable.unlock()
                self._locked = False
        finally:
            self._close_sensors()

    def _close_sensors(self) -> None:
        if self._sensors is not None:
            self._sensors.close()
            self._sensors = None


class ClockWatch:
    """Looks at clocks, and at why they are low, while a program loops.

    Attributes:
        slowdowns: how often the card was seen to slow down for heat or current, once at least in every loop
            in which it did; ``None`` if it does not tell.
    """

    def __init__(self, gpu: GpuSensors | None) -> None:
        self._gpu = gpu
        self._lock = threading.Lock()
        self.slowdowns: int | None = None
        self.begin()
        self.look()
        if self.slowdowns is not None:
            self.slowdowns = 0  # what began before counts where a loop sees it

    def begin(self) -> None:
        """Forget what was seen of the loop before."""
        with self._lock:
            self._slowed = False
            self._next_s = 0.0
            self._n_capped = self._n_reasons = 0
            self._clocks: list[tuple[int, int]] = []

    def look(self) -> None:
        """Look, if the last time is long enough ago."""
        now = time.monotonic()
        with self._lock:
            if self._gpu is None or now < self._next_s:
                return
            self._next_s = now + _LOOK_S
            self._note(self._gpu.clock_reasons(), self._gpu.clocks_hz())

    def _note(self, reasons: int | None, clocks_hz: tuple[int, int] | None) -> None:
        if clocks_hz is not None:
            self._clocks.append(clocks_hz)
        if reasons is None:
            return
        slowed = bool(reasons & SLOWDOWN)
        self.slowdowns = (self.slowdowns or 0) + (slowed and not self._slowed)
        self._slowed = slowed
        self._n_reasons += 1
        self._n_capped += bool(reasons & POWER_CAP)

    def measures(self) -> Measures:
        """Of the last loop: mean clocks, and the share of looks at which the power limit held them down."""
        with self._lock:
            found: list[tuple[str, float]] = []
            if self._clocks:
                for name, values in zip(
                    ("gpu_sm_hz", "gpu_memory_hz"), zip(*self._clocks, strict=True), strict=True
                ):
                    found.append((name, sum(values) / len(values)))
            if self._n_reasons:
                found.append(("gpu_power_cap_share", self._n_capped / self._n_reasons))
            return tuple(found)
