"""Energy counters and power sensors of the machine that hadas runs on.

A meter declares what it reads (:class:`~.rig.EnergySource`) and is read by a :class:`Sampler` while a
program loops.  A meter that cannot be read, or whose counter stands still under load, is not used, and
:class:`Finding` says why: virtual machines often offer counters that always read 0.00 J.

Units: W, J, seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ..rig import EnergySource, PowerTrace

POWERCAP = Path("/sys/class/powercap")
"""Where the kernel shows the energy counters of processors."""

ALIVENESS_S = 0.5
"""How long the machine is kept busy to see whether its counters move."""

_STANDSTILL_UPDATES = 1.5
"""A counter that keeps its value for so many update intervals counts slowly or nothing: that is a reading, too."""


class EnergyMeter(Protocol):
    """Something that counts energy or reads power."""

    @property
    def source(self) -> EnergySource:
        """What is read; ``averaging_s`` 0 = an energy counter."""
        ...

    @property
    def poll_s(self) -> float:
        """How often to read."""
        ...

    def read(self) -> tuple[float, ...]:
        """Per rail: of a counter J since some fixed moment, never falling; of a power sensor W.

        Raises:
            OSError: there is no reading this time.
        """
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...


@dataclass(frozen=True)
class Finding:
    """What was found where energy might be counted.

    Attributes:
        meter: ``None`` where nothing counts.
        notes: what was left out, and why; for people.
    """

    meter: EnergyMeter | None
    notes: tuple[str, ...] = ()


class PowercapMeter:
    """Energy counters of Intel and AMD processors (RAPL) through the kernel's powercap files.

    Counters advance about every millisecond and start again at ``max_energy_range_uj``.  They must be
    read before they have come round once, which takes minutes at full power.

    Args:
        zones: (label, directory) of the zones to read.
        scope: labels whose sum is the energy of the machine.
    """

    poll_s = 0.05

    def __init__(self, zones: tuple[tuple[str, Path], ...], scope: tuple[str, ...]) -> None:
        self._files = tuple(directory / "energy_uj" for _, directory in zones)
        self._largest_uj = tuple(
            int((directory / "max_energy_range_uj").read_text()) for _, directory in zones
        )
        self._last_uj = [int(file.read_text()) for file in self._files]
        self._total_uj = [0] * len(zones)
        rails = tuple(label for label, _ in zones)
        self.source = EnergySource("powercap", rails, scope, averaging_s=0.0, update_s=self.poll_s)

    def read(self) -> tuple[float, ...]:
        """J per zone since the meter was made."""
        for index, file in enumerate(self._files):
            now_uj = int(file.read_text())
            self._total_uj[index] += counted(self._last_uj[index], now_uj, self._largest_uj[index])
            self._last_uj[index] = now_uj
        return tuple(total_uj * 1e-6 for total_uj in self._total_uj)

    def close(self) -> None:
        """Nothing is held."""


def counted(before: int, after: int, largest: int) -> int:
    """What a counter counted that starts again at ``largest``, if it came round at most once."""
    return after - before if after >= before else after - before + largest


def find_powercap(root: Path = POWERCAP, busy: Callable[[float], None] | None = None) -> Finding:
    """The powercap counters that this user may read and that are alive.

    The scope is the sum of the packages: all of them or none, since one of two would be half a machine.
    ``psys``, where a laptop has it, is the whole platform and contains them: it is read and never added.

    Args:
        root: directory of the zones.
        busy: keeps the machine busy for that many seconds; one core, unless given.
    """
    zones: list[tuple[str, Path]] = []
    notes: list[str] = []
    packages: set[str] = set()
    # 'intel-rapl-mmio:*' counts the same packages once more; 'intel-rapl:0:0' is a part of its package.
    for directory in sorted(root.glob("intel-rapl:*")):
        if directory.name.count(":") > 1:
            continue
        try:
            label = (directory / "name").read_text().strip()
            packages.update({label} if label.startswith("package") else ())
            PowercapMeter(((label, directory),), ()).read()
        except PermissionError:
            notes.append(
                f"no energy: only root may read {directory / 'energy_uj'} (CVE-2020-8694); "
                "let this user read it, or go on without energy"
            )
        except (OSError, ValueError) as error:
            notes.append(f"no energy: {error}")
        else:
            zones.append((label, directory))
    if not zones:
        return Finding(None, tuple(notes) or (f"no energy: no intel-rapl zone in {root}",))
    dead = dead_rails(PowercapMeter(tuple(zones), ()), busy or busy_loop)
    notes += [f"no energy: counter '{label}' stands still under load" for label in dead]
    living = tuple((label, directory) for label, directory in zones if label not in dead)
    scope = tuple(label for label, _ in living if label in packages)
    if not packages or set(scope) != packages:
        return Finding(None, tuple(notes) or (f"no energy: no zone of a package in {root}",))
    return Finding(PowercapMeter(living, scope), tuple(notes))


def dead_rails(meter: EnergyMeter, busy: Callable[[float], None]) -> tuple[str, ...]:
    """Rails whose counter does not move, or whose power reads zero, while the machine is busy."""
    before = meter.read()
    busy(ALIVENESS_S)
    after = meter.read()
    is_counter = meter.source.averaging_s == 0
    moved = [b - a for a, b in zip(before, after, strict=True)] if is_counter else after
    return tuple(label for label, amount in zip(meter.source.rails, moved, strict=True) if not amount > 0)


def busy_loop(seconds: float) -> None:
    """Keep one core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class Sampler:
    """Reads a meter in a thread of its own for as long as its context lasts.

    Args:
        meter: what to read; ``None`` = nothing, ``also`` alone is called.
        also: called after every reading, to look at something else at the same pace.
        poll_s: interval of ``also`` where there is no meter.
    """

    def __init__(
        self, meter: EnergyMeter | None, also: Callable[[], None] | None = None, poll_s: float = 0.1
    ) -> None:
        self._meter = meter
        self._also = also
        self._poll_s = poll_s if meter is None else meter.poll_s
        self._readings: list[tuple[float, tuple[float, ...]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power sampler", daemon=True)

    def __enter__(self) -> Self:
        if self._meter is not None or self._also is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._read()
            if self._also is not None:
                self._also()
            if self._stop.wait(self._poll_s):
                self._read()  # so that the trace covers all of the last block
                return

    def _read(self) -> None:
        if self._meter is None:
            return
        before_s = time.monotonic()
        try:
            values = self._meter.read()
        except OSError:
            return  # the next reading of a counter makes up for it, and a power trace has a longer step
        # Waiting for the interpreter's lock may put some milliseconds between reading and telling the time.
        self._readings.append(((before_s + time.monotonic()) / 2, values))

    def trace(self) -> PowerTrace | None:
        """All readings so far; ``None`` without a meter."""
        if self._meter is None:
            return None
        readings = tuple(self._readings)
        if self._meter.source.averaging_s > 0:
            powers = zip(*(values for _, values in readings), strict=True)
            return PowerTrace(tuple(time_s for time_s, _ in readings), tuple(powers))
        return counter_trace(readings, self._meter.source.update_s)


def counter_trace(readings: tuple[tuple[float, tuple[float, ...]], ...], update_s: float) -> PowerTrace:
    """Mean power between the moments at which an energy counter advanced.

    A counter that advances every 100 ms, read every 20 ms, is known to within 20 ms at the readings
    that differ from those before; the others tell nothing and would only blur the trace.

    Args:
        readings: (time in s, J per rail), ascending.
        update_s: of the counter; when it stands still for longer, that is an entry of no power, which the next
            entry makes up for.
    """
    times: list[float] = []
    powers: list[tuple[float, ...]] = []
    if not readings:
        return PowerTrace((), ())
    last_s, last_j = readings[0]
    known = False  # the first reading lies anywhere between two advances
    for time_s, values_j in readings[1:]:
        moved = values_j != last_j
        if not moved and time_s - last_s < _STANDSTILL_UPDATES * update_s:
            continue
        if known or not moved:
            times.append(time_s)
            elapsed_s = time_s - last_s
            powers.append(tuple((b - a) / elapsed_s for a, b in zip(last_j, values_j, strict=True)))
        last_s, last_j, known = time_s, values_j, True
    if not times:
        return PowerTrace((), tuple(() for _ in last_j))
    return PowerTrace(tuple(times), tuple(zip(*powers, strict=True)))
