"""One line of ``tegrastats`` as typed readings, and what a board draws in all.

Units: mW, Hz, degrees Celsius, KiB, percent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

_AGX_XAVIER_RAILS = ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")
_AGX_ORIN_RAILS = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")
"""Of one of them a board draws everything."""
_SAME_MEMORY = 1.05  # the kernel takes its part first, a little more or less from boot to boot


class SensorState(StrEnum):
    """Whether a printed temperature is one.

    ``gated``: -256 C, the sensor's domain is off.  ``unread``: -40 C and colder (mostly -45), a sensor that
    gives nothing.  ``constant``: the PMIC's 100 C, which the firmware prints whatever the temperature is.
    """

    LIVE = "live"
    GATED = "gated"
    UNREAD = "unread"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class RailPower:
    """Power of one rail, or of a sum of rails.

    Attributes:
        label: as printed, or labels joined by ``+``.
        instant_mw: now.
        average_mw: since tegrastats began.
        third_mw: the third number of JetPack 7, undocumented; ``None`` elsewhere and in sums.
    """

    label: str
    instant_mw: int
    average_mw: int
    third_mw: int | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """Load and clocks of the GPU (``GR3D_FREQ``), the memory controller (``EMC_FREQ``), or another engine.

    Attributes:
        load_percent: ``None`` where it is not printed.
        clocks_hz: one per cluster of the engine, 0 for one that is gated; empty where none is printed (without
            root, or off).
        is_off: printed as ``off``.
    """

    name: str
    load_percent: int | None
    clocks_hz: tuple[int, ...]
    is_off: bool = False


@dataclass(frozen=True, slots=True)
class Core:
    """One CPU core; both are ``None`` if it is off, the clock also where it is not printed."""

    load_percent: int | None
    clock_hz: int | None

    @property
    def online(self) -> bool:
        """Whether it runs."""
        return self.load_percent is not None


@dataclass(frozen=True, slots=True)
class Temperature:
    """One sensor; ``second_c`` is the undocumented second number of JetPack 7."""

    name: str
    celsius: float
    state: SensorState
    second_c: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Used and total memory, KiB."""

    used_kib: int
    total_kib: int


@dataclass(frozen=True, slots=True)
class TegrastatsRecord:
    """One line.

    Attributes:
        epoch_s: seconds since 1970 that somebody put before the line, ``None`` if nobody did.
        local_time: date and time that tegrastats (JetPack 5 and later) or somebody put before it; carries
            a time zone only if that was printed.
        ram, swap, iram: ``None`` where not printed (``ram`` always is).
        cores: of all CPUs in their order.
        engines, temperatures, rails: in the order of the line.
        foreground_percent, background_percent: of the ``MTS`` field (Denver and Carmel).
    """

    epoch_s: float | None
    local_time: datetime | None
    ram: Memory
    swap: Memory | None
    iram: Memory | None
    cores: tuple[Core, ...]
    engines: tuple[Engine, ...]
    temperatures: tuple[Temperature, ...]
    rails: tuple[RailPower, ...]
    foreground_percent: int | None = None
    background_percent: int | None = None

    @property
    def gpu(self) -> Engine | None:
        """The GPU."""
        return self.engine("GR3D_FREQ") or self.engine("GR3D")

    @property
    def emc(self) -> Engine | None:
        """The memory controller."""
        return self.engine("EMC_FREQ") or self.engine("EMC")

    @property
    def gpu_hz(self) -> int | None:
        """Clock of the GPU, of several clusters the highest; ``None`` where it is not printed."""
        return max(self.gpu.clocks_hz, default=None) if self.gpu else None

    @property
    def emc_hz(self) -> int | None:
        """Clock of the memory controller; ``None`` where it is not printed."""
        return max(self.emc.clocks_hz, default=None) if self.emc else None

    def engine(self, name: str) -> Engine | None:
        """An engine by its printed name."""
        return next((engine for engine in self.engines if engine.name == name), None)

    def rail(self, label: str) -> RailPower | None:
        """A rail by its printed label."""
        return next((rail for rail in self.rails if rail.label == label), None)

    @property
    def total(self) -> RailPower | None:
        """What the module draws; ``None`` where the rails that are printed do not tell.

        The input rail where there is one (never a sum that would count it twice); on AGX Xavier all six
        rails; on AGX Orin the three that nothing else of the three feeds.
        """
        for label in TOTAL_RAILS:
            if (rail := self.rail(label)) is not None:
                return rail
        for labels in (_AGX_XAVIER_RAILS, _AGX_ORIN_RAILS):
            found = [rail for rail in self.rails if rail.label in labels]
            if len(found) == len(labels):
                instant_mw = sum(rail.instant_mw for rail in found)
                return RailPower("+".join(labels), instant_mw, sum(rail.average_mw for rail in found))
        return None

    @property
    def hottest_c(self) -> float | None:
        """Temperature of the hottest live sensor."""
        live = [t.celsius for t in self.temperatures if t.state is SensorState.LIVE]
        return max(live, default=None)

    def differs_from(self, other: TegrastatsRecord) -> str:
        """What shows that two lines are of different boards; empty if nothing does.

        Cores of a board stay (one that is off keeps its place), and so do its rails, though not every user is
        shown all of them.  Its memory stays but for some per cent, which tells apart what is sold in several sizes.
        """
        sizes_kib = sorted((self.ram.total_kib, other.ram.total_kib))
        if sizes_kib[1] > _SAME_MEMORY * sizes_kib[0]:
            return f"{self.ram.total_kib // 1024} MB of memory, not {other.ram.total_kib // 1024} MB"
        if self.cores and other.cores and len(self.cores) != len(other.cores):
            return f"{len(self.cores)} cores, not {len(other.cores)}"
        own, others = ({rail.label for rail in record.rails} for record in (self, other))
        if own - others and others - own:
            return f"rails {', '.join(sorted(own - others))}, not {', '.join(sorted(others - own))}"
        return ""
