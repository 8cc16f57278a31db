"""What an NVIDIA GPU says of itself: energy, power, temperature, clocks, reasons for low clocks.

Through ``nvidia-ml-py`` (extra [gpu]); where that is not installed, through the ``nvidia-smi`` program
of the driver, which knows no energy counter: energy is then the integral of a power that is averaged over
a second.  A Jetson's GPU answers neither; it is measured by its own rails.

Facts of the NVML documentation that matter here: the energy counter (Volta and newer) is in mJ and
advances about every 100 ms; power is an average over 1 s on Ampere and newer except GA100, and a moment's
value on others; setting clocks takes root.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import Any, Protocol

from ....errors import ConfigError, DeviceError
from ..rig import EnergySource
from .energy import EnergyMeter, Finding, dead_rails

RAIL = "gpu"
_UPDATE_S = 0.1
_GA100_NAMES = ("A100", "A800", "A30")

# Bits of nvmlClocksEventReasons; the same in nvidia-smi's clocks_event_reasons.active.
POWER_CAP = 0x4
SLOWDOWN = 0x8 | 0x20 | 0x40 | 0x80
"""Hardware slowdown, thermal slowdown by software and by hardware, power brake: never by design."""


class GpuSensors(Protocol):
    """What is read of a GPU; what a card does not tell is ``None``."""

    name: str
    driver: str
    via: str
    power_averaging_s: float

    def energy_j(self) -> float | None:
        """Since the driver was loaded."""
        ...

    def power_w(self) -> float | None: ...
    def temperature_c(self) -> float | None: ...
    def clocks_hz(self) -> tuple[int, int] | None:
        """Of the multiprocessors, and of the memory."""
        ...

    def clock_reasons(self) -> int | None:
        """Bits: why the clocks are as they are."""
        ...

    def close(self) -> None: ...


class NvmlGpu:
    """One GPU through nvidia-ml-py.

    Args:
        uuid: as the driver writes it, ``GPU-...``; an index would depend on CUDA_VISIBLE_DEVICES.

    Raises:
        DeviceError: NVML is there and does not answer.
    """

    via = "nvml"

    def __init__(self, uuid: str) -> None:
        import pynvml

        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            self.name = str(pynvml.nvmlDeviceGetName(self._handle))
            self.driver = str(pynvml.nvmlSystemGetDriverVersion())
        except pynvml.NVMLError as error:
            raise DeviceError(f"NVML finds no GPU {uuid}: {error}") from error
        architecture = self._ask("nvmlDeviceGetArchitecture")
        self.power_averaging_s = power_averaging_s(self.name, architecture)

    def _ask(self, function: str, *arguments: object) -> Any:
        """The answer of an NVML function about this GPU; ``None`` if the card or the driver has none."""
        try:
            return getattr(self._nvml, function)(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None

    def energy_j(self) -> float | None:
        """Since the driver was loaded; ``None`` before Volta."""
        energy_mj = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if energy_mj is None else energy_mj * 1e-3

    def power_w(self) -> float | None:
        """GPU, memory and what belongs to them."""
        power_mw = self._ask("nvmlDeviceGetPowerUsage")
        return None if power_mw is None else power_mw * 1e-3

    def temperature_c(self) -> float | None:
        """Of the die."""
        temperature = self._ask("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU)
        return None if temperature is None else float(temperature)

    def clocks_hz(self) -> tuple[int, int] | None:
        """Of the multiprocessors, and of the memory."""
        kinds = (self._nvml.NVML_CLOCK_SM, self._nvml.NVML_CLOCK_MEM)
        sm_mhz, memory_mhz = (self._ask("nvmlDeviceGetClockInfo", kind) for kind in kinds)
        if sm_mhz is None or memory_mhz is None:
            return None
        return sm_mhz * 1_000_000, memory_mhz * 1_000_000

    def clock_reasons(self) -> int | None:
        """Bits: why the clocks are as they are (drivers before 535 know them by the older name)."""
        reasons: int | None = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return reasons

    def lockable_hz(self) -> tuple[int, ...]:
        """Graphics clocks to choose from at the highest memory clock, ascending; empty if none is told."""
        memory_mhz = self._ask("nvmlDeviceGetSupportedMemoryClocks") or ()
        if not memory_mhz:
            return ()
        graphics_mhz = self._ask("nvmlDeviceGetSupportedGraphicsClocks", max(memory_mhz)) or ()
        return tuple(sorted({mhz * 1_000_000 for mhz in graphics_mhz}))

    def lock_hz(self, frequency_hz: int) -> None:
        """Hold the graphics clock.

        Raises:
            DeviceError: the driver refuses, as it does without root.
        """
        mhz = frequency_hz // 1_000_000
        try:
            self._nvml.nvmlDeviceSetGpuLockedClocks(self._handle, mhz, mhz)
        except self._nvml.NVMLError as error:
            raise DeviceError(
                f"{self.name}: the graphics clock cannot be locked to {mhz} MHz: {error}; it takes root and a "
                "GPU of Volta or newer"
            ) from error

    def unlock(self) -> None:
        """Give the clock back to the driver.

        Raises:
            DeviceError: the driver refuses.
        """
        try:
            self._nvml.nvmlDeviceResetGpuLockedClocks(self._handle)
        except self._nvml.NVMLError as error:
            raise DeviceError(
                f"{self.name}: the graphics clock stays locked: {error}; unlock it by 'nvidia-smi -rgc'"
            ) from error

    def close(self) -> None:
        """Let go of NVML, which counts its users."""
        self._nvml.nvmlShutdown()


def power_averaging_s(name: str, architecture: int | None) -> float:
    """What a power reading averages over: 1 s on Ampere (7 in NVML's count) and newer except GA100.

    Elsewhere a reading is a moment's value that is renewed every 100 ms; an unknown GPU counts as new.
    """
    is_ga100 = architecture == 7 and any(word in _GA100_NAMES for word in name.replace("-", " ").split())
    return _UPDATE_S if is_ga100 or (architecture is not None and architecture < 7) else 1.0


class NvidiaSmiGpu:
    """One GPU through ``nvidia-smi``, which runs beside and prints a line every 100 ms.

    Raises:
        DeviceError: the program is missing or does not know the GPU.
    """

    via = "nvidia-smi"
    power_averaging_s = 1.0  # no way to ask for the architecture: the longest that any has

    _ALWAYS = ("name", "driver_version", "power.draw", "temperature.gpu", "clocks.sm", "clocks.mem")
    # Renamed with driver 535.
    _REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
    _FIRST_LINE_S = 10.0

    def __init__(self, uuid: str, program: str = "nvidia-smi") -> None:
        path = shutil.which(program)
        if path is None:
            raise DeviceError(f"the program {program} is not installed")
        command = [path, f"--id={uuid}", "--format=csv,noheader,nounits"]
        fields = self._known_fields(command)
        self._command = [*command, f"--query-gpu={','.join(fields)}", f"--loop-ms={round(1e3 * _UPDATE_S)}"]
        self._latest: list[str] = []
        self._has_line = threading.Event()
        # Into a terminal a program prints line by line; into a pipe it may keep lines back.
        self._terminal, terminal_end = pty.openpty()
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=terminal_end)
        os.close(terminal_end)
        self._reader = threading.Thread(target=self._read, name="nvidia-smi", daemon=True)
        self._reader.start()
        if not self._has_line.wait(self._FIRST_LINE_S):
            self.close()
            raise DeviceError(f"{program} says nothing of GPU {uuid} within {self._FIRST_LINE_S:g} s")
        self.name, self.driver = self._latest[:2]

    def _known_fields(self, command: list[str]) -> tuple[str, ...]:
        problem = ""
        for reasons in (*self._REASONS, ""):
            fields = (*self._ALWAYS, *([reasons] if reasons else []))
            answer = subprocess.run(
                [*command, f"--query-gpu={','.join(fields)}"], capture_output=True, text=True, timeout=60
            )
            if answer.returncode == 0:
                return fields
            problem = answer.stdout.strip() or answer.stderr.strip()
        raise DeviceError(f"nvidia-smi: {problem}")

    def _read(self) -> None:
        with os.fdopen(self._terminal, encoding="utf-8") as lines:
            try:
                for line in lines:
                    self._latest = [word.strip() for word in line.split(",")]
                    self._has_line.set()
            except OSError:
                pass  # how Linux says that the other end of a terminal is closed
        self._latest = []

    def _number(self, index: int) -> float | None:
        """Of a field of the last line; ``[N/A]`` and the like are none."""
        latest = self._latest
        if index >= len(latest):
            return None
        try:
            return float(latest[index])
        except ValueError:
            return None

    def energy_j(self) -> float | None:
        """Never: nvidia-smi does not print the counter."""
        return None

    def power_w(self) -> float | None:
        """Average over up to a second."""
        return self._number(2)

    def temperature_c(self) -> float | None:
        """Of the die."""
        return self._number(3)

    def clocks_hz(self) -> tuple[int, int] | None:
        """Of the multiprocessors, and of the memory."""
        sm_mhz, memory_mhz = self._number(4), self._number(5)
        if sm_mhz is None or memory_mhz is None:
            return None
        return round(sm_mhz * 1e6), round(memory_mhz * 1e6)

    def clock_reasons(self) -> int | None:
        """Bits, printed as a hexadecimal number."""
        latest = self._latest
        try:
            return int(latest[6], 16) if len(latest) > 6 else None
        except ValueError:
            return None

    def close(self) -> None:
        """End the program."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()


def open_gpu(uuid: str) -> tuple[GpuSensors | None, tuple[str, ...]]:
    """The best sensors that this machine has for a GPU, and notes on what is missing."""
    notes: list[str] = []
    openers: tuple[Callable[[str], GpuSensors], ...] = (NvmlGpu, NvidiaSmiGpu)
    for opener in openers:
        try:
            return opener(uuid), tuple(notes)
        except ImportError:
            notes.append("nvidia-ml-py (extra [gpu]) is not installed: nvidia-smi is asked instead")
        except DeviceError as error:
            notes.append(str(error))
    return None, tuple(notes)


class GpuMeter:
    """The energy counter of a GPU, or its power.

    Args:
        counter: read the counter; else the power.
    """

    def __init__(self, gpu: GpuSensors, *, counter: bool) -> None:
        self._gpu = gpu
        self._counter = counter
        # A counter is read five times as often as it advances, to know when it did.
        self.poll_s = _UPDATE_S / 5 if counter else _UPDATE_S
        averaging_s = 0.0 if counter else gpu.power_averaging_s
        name = f"{gpu.via}-{'energy' if counter else 'power'}"
        self.source = EnergySource(name, (RAIL,), (RAIL,), averaging_s, _UPDATE_S)

    def read(self) -> tuple[float, ...]:
        """J of the counter, or W."""
        value = self._gpu.energy_j() if self._counter else self._gpu.power_w()
        if value is None:
            raise OSError(f"{self._gpu.name} gives no {self.source.name}")
        return (value,)

    def close(self) -> None:
        """The sensors belong to the rig."""


def find_gpu_energy(gpu: GpuSensors, busy: Callable[[float], None]) -> Finding:
    """The GPU's counter; its power where there is no counter or it is dead.

    Args:
        busy: keeps the GPU busy for that many seconds.
    """
    notes = []
    for counter in (True, False):
        meter: EnergyMeter = GpuMeter(gpu, counter=counter)
        try:
            dead = dead_rails(meter, busy)
        except OSError as error:
            notes.append(f"no energy: {error}")
            continue
        if not dead:
            return Finding(meter, tuple(notes))
        notes.append(f"no energy: {meter.source.name} of {gpu.name} stands still under load")
    return Finding(None, tuple(notes))


def require_lockable(gpu: GpuSensors | None) -> NvmlGpu:
    """Raises: ConfigError: clocks cannot be locked here."""
    if not isinstance(gpu, NvmlGpu):
        raise ConfigError(
            "locking GPU clocks needs the package 'nvidia-ml-py': install hadas with the extra [gpu]"
        )
    return gpu
