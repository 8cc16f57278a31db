"""What the measuring protocol asks of a device: set clocks, load programs, loop one, read the sensors.

A rig only obeys.  When to stop, what to repeat and what to believe is decided by the protocol
(:mod:`.measuring.runner`), which is the same for every device: the CPU and the GPU of this machine, and a
Jetson behind an agent.

Units: seconds, W, Hz, degrees Celsius.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ...datasets.records import Program, StageKind, Target, Truth
from ...spaces import ClockTable, Setting
from .device import CostRequest


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Clocks asked for, and read back once they had settled.

    Attributes:
        requested, actual: domains in the order of the rig's table; ``actual`` may be off the table.
        flags: what kept the clocks from being what was asked for, if that is known.
    """

    requested: Setting
    actual: Setting
    flags: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether the device runs at what was asked for."""
        return self.actual == self.requested


@dataclass(frozen=True, slots=True)
class EnergySource:
    """What counts energy.

    Attributes:
        name: ``ina3221``, ``powercap``, ``nvml`` ...
        rails: labels of everything that is read.
        scope: labels whose sum is the energy of the device; a subset of ``rails``.
        averaging_s: what one reading averages over; 0 for a counter.
        update_s: interval between two new readings.
    """

    name: str
    rails: tuple[str, ...]
    scope: tuple[str, ...]
    averaging_s: float
    update_s: float


@dataclass(frozen=True, slots=True)
class PowerTrace:
    """Time-stamped power of every rail, on the clock that the blocks' times are on.

    Attributes:
        time_s: (t,) ascending.
        power_w: per rail in the order of the source, (t,) readings; of an energy counter, the mean
            power since the reading before.
    """

    time_s: tuple[float, ...]
    power_w: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Some inferences run back to back.

    Attributes:
        start_s, end_s: on the rig's monotonic clock.
        run_s: time of every inference, device-synchronised.
    """

    start_s: float
    end_s: float
    run_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DeviceState:
    """How the device is right now.

    Attributes:
        temperature_c: of the hottest live sensor; ``None`` = no sensor.
        overcurrent_events: counter; ``None`` = no counter.
        actual: clocks read back; ``None`` where they are not controlled.
        machine: cumulative (``..._s``) or momentary measures of what else runs, (name, value) pairs; those
            that are judged are listed in :mod:`.disturbance`.
        flags: what the device itself says is odd or limits it, ``name`` or ``name:detail``, since the state
            before; those that are judged are listed in :mod:`.disturbance`.
        held_hz: (name, frequency it is held at, frequency read back) of clocks that are held beside
            the steered ones; 0 = it could not be read.
    """

    temperature_c: float | None = None
    overcurrent_events: int | None = None
    actual: Setting | None = None
    machine: tuple[tuple[str, float], ...] = ()
    flags: tuple[str, ...] = ()
    held_hz: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedStage:
    """One program that is ready to run: a stage, or the whole network up to an exit (``prefix``)."""

    kind: StageKind
    position: int


class Loop(Protocol):
    """One program running without a pause until the caller has seen enough.

    Iterating yields blocks as they end, for ever; leaving the context stops the program.
    """

    def __iter__(self) -> Iterator[Block]: ...
    def trace(self) -> PowerTrace | None:
        """Power readings since the loop began; ``None`` without an energy source.

        Asked once, inside the context, after the last block.
        """
        ...


class Programs(Protocol):
    """The programs of one network, loaded on the device."""

    @property
    def stages(self) -> tuple[LoadedStage, ...]:
        """In execution order."""
        ...

    @property
    def engine(self) -> str:
        """What executes them, with its version."""
        ...

    def loop(self, index: int, runs_per_block: int, expected_s: float) -> AbstractContextManager[Loop]:
        """Run the program of ``stages[index]`` until the context is left.

        Args:
            expected_s: how long the caller expects to look: an engine that cannot be stopped in
                between runs that long at a time.
        """
        ...

    def decision_s(self) -> float | None:
        """Median time of one decision whether to leave; ``None`` if the network has no exits."""
        ...


class Rig(Protocol):
    """One device, reserved for one caller."""

    @property
    def target(self) -> Target: ...
    @property
    def truth(self) -> Truth: ...
    @property
    def energy(self) -> EnergySource | None:
        """``None`` where nothing counts energy, or the counter is dead."""
        ...

    def clock_table(self) -> ClockTable:
        """Clocks read from the device, never assumed."""
        ...

    def set_clocks(self, setting: Setting) -> ClockReading:
        """Set, read back, and wait until they have settled.

        Raises:
            OffTableFrequencyError: a frequency that the device does not list; nothing is written.
        """
        ...

    def load(self, request: CostRequest, program: Program) -> AbstractContextManager[Programs]:
        """Build, copy and load the programs of one network."""
        ...

    def idle(self, seconds: float) -> PowerTrace | None:
        """Power while nothing runs, programs still loaded; ``None`` without an energy source."""
        ...

    def state(self) -> DeviceState: ...
    def close(self) -> None:
        """Leave the device as it was found."""
        ...
