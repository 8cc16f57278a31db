"""Clock settings: which frequencies a device offers, and one choice among them.

Frequencies are integer hertz everywhere.  The built-in tables are offline defaults for the
four settings of the HADAS paper; a real device's own table always wins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

from ..errors import ConfigError, OffTableFrequencyError
from .userfile import read_user_text


@dataclass(frozen=True, slots=True)
class ClockDomain:
    """One scalable clock.

    Attributes:
        name: ``gpu``, ``cpu`` or ``emc`` (external memory).
        frequencies_hz: ascending, without repeats.
    """

    name: str
    frequencies_hz: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.frequencies_hz:
            raise ConfigError(f"clock domain '{self.name}' lists no frequencies")
        if any(f <= 0 for f in self.frequencies_hz):
            raise ConfigError(f"clock domain '{self.name}': frequencies are positive integers in Hz")
        if any(a >= b for a, b in zip(self.frequencies_hz, self.frequencies_hz[1:], strict=False)):
            raise ConfigError(f"clock domain '{self.name}': frequencies must ascend without repeats")


@dataclass(frozen=True, slots=True)
class Setting:
    """One choice of clocks.

    Attributes:
        clocks_hz: (domain, frequency in Hz) pairs in the table's order; empty on a device
            whose clocks are not controlled.
    """

    clocks_hz: tuple[tuple[str, int], ...] = ()

    def hz(self, domain: str) -> int:
        """Frequency of a domain."""
        return dict(self.clocks_hz)[domain]

    def __str__(self) -> str:
        return " ".join(f"{name} {hz / 1e6:g} MHz" for name, hz in self.clocks_hz) or "clocks not controlled"


@dataclass(frozen=True, slots=True)
class SwitchingCost:
    """What one change of clocks between two settings costs, on top of the work done.

    Attributes:
        latency_ms: time during which nothing is computed.
        energy_mj: energy of that time; 0 on a device that counts none.
    """

    latency_ms: float
    energy_mj: float

    def __post_init__(self) -> None:
        for name, unit in (("latency_ms", "ms"), ("energy_mj", "mJ")):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"switching cost '{name}' = {value!r} {unit}: finite and not negative")


@dataclass(frozen=True)
class ClockTable:
    """All settings of a device: the product of its domains' frequencies.

    Setting index: row-major in the order of ``domains`` (the last domain varies fastest).

    Attributes:
        switching: what a change of clocks costs, if that was measured; needed for clocks per exit.
    """

    name: str
    domains: tuple[ClockDomain, ...]
    switching: SwitchingCost | None = None

    def __len__(self) -> int:
        return len(self.settings)

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """Every setting, in index order."""
        names = [domain.name for domain in self.domains]
        choices = product(*(domain.frequencies_hz for domain in self.domains))
        return tuple(Setting(tuple(zip(names, clocks, strict=True))) for clocks in choices)

    @cached_property
    def _index(self) -> dict[Setting, int]:
        return {setting: index for index, setting in enumerate(self.settings)}

    @property
    def default(self) -> Setting:
        """Maximum clocks: the setting that static fitness is defined at."""
        return self.settings[-1]

    def index(self, setting: Setting) -> int:
        """Index of a setting.

        Raises:
            OffTableFrequencyError: a frequency that the table does not list.
        """
        self.check(setting)
        return self._index[setting]

    def check(self, setting: Setting) -> None:
        """Refuse what the device would round in silence.

        Raises:
            OffTableFrequencyError: a frequency that the table does not list.
            ConfigError: domains that are not this table's.
        """
        names = tuple(name for name, _ in setting.clocks_hz)
        if names != tuple(domain.name for domain in self.domains):
            raise ConfigError(
                f"setting names clocks {list(names)}; table '{self.name}' has {[d.name for d in self.domains]}"
            )
        for domain, (name, hz) in zip(self.domains, setting.clocks_hz, strict=True):
            if hz not in domain.frequencies_hz:
                raise OffTableFrequencyError(name, hz, domain.frequencies_hz)

    def narrowed(self, wanted: ClockTable) -> ClockTable:
        """``wanted``, once it is sure that it offers nothing which this table lacks.

        It keeps this table's switching cost, unless it names its own.

        Raises:
            ConfigError: domains that are not this table's.
            OffTableFrequencyError: a frequency that this table does not list.
        """
        known = {domain.name: domain.frequencies_hz for domain in self.domains}
        offered = [domain.name for domain in wanted.domains]
        if offered != list(known):
            raise ConfigError(
                f"clock table '{wanted.name}' has domains {offered}; '{self.name}' has {list(known)}"
            )
        for domain in wanted.domains:
            for hz in domain.frequencies_hz:
                if hz not in known[domain.name]:
                    raise OffTableFrequencyError(domain.name, hz, known[domain.name])
        if wanted.switching is not None or self.switching is None:
            return wanted
        return replace(wanted, switching=self.switching)

    def setting(self, **clocks_hz: int) -> Setting:
        """A checked setting from keyword frequencies in Hz, e.g. ``table.setting(gpu=..., emc=...)``."""
        chosen = Setting(tuple((d.name, clocks_hz[d.name]) for d in self.domains if d.name in clocks_hz))
        self.check(chosen)
        return chosen


_AGX_GPU = tuple(
    round(mhz * 1e6)
    for mhz in (
        114.75, 216.75, 318.75, 420.75, 522.75, 624.75, 675.75, 828.75, 905.25, 1032.75, 1198.5, 1236.75, 1338.75, 1377,
    )
)  # fmt: skip
_AGX_EMC = tuple(round(mhz * 1e6) for mhz in (204, 408, 665.6, 800, 1065.6, 1331.2, 1600, 1866, 2133))
_CARMEL_CPU = tuple(115_200_000 + 76_800_000 * step for step in range(29))
_TX2_GPU = tuple(
    round(mhz * 1e6)
    for mhz in (
        114.75,
        216.75,
        318.75,
        420.75,
        522.75,
        624.75,
        726.75,
        854.25,
        930.75,
        1032.75,
        1122,
        1236.75,
        1300.5,
    )
)
_TX2_EMC = tuple(
    round(mhz * 1e6) for mhz in (40.8, 68, 102, 204, 408, 665.6, 800, 1062.4, 1331.2, 1600, 1866)
)
_DENVER_CPU = tuple(345_600_000 + 153_600_000 * step for step in range(12))

CLOCK_TABLES: Mapping[str, ClockTable] = {
    "agx-volta-gpu": ClockTable(
        "agx-volta-gpu", (ClockDomain("gpu", _AGX_GPU), ClockDomain("emc", _AGX_EMC))
    ),
    "agx-carmel-cpu": ClockTable(
        "agx-carmel-cpu", (ClockDomain("cpu", _CARMEL_CPU), ClockDomain("emc", _AGX_EMC))
    ),
    "tx2-pascal-gpu": ClockTable(
        "tx2-pascal-gpu", (ClockDomain("gpu", _TX2_GPU), ClockDomain("emc", _TX2_EMC))
    ),
    "tx2-denver-cpu": ClockTable(
        "tx2-denver-cpu", (ClockDomain("cpu", _DENVER_CPU), ClockDomain("emc", _TX2_EMC))
    ),
}
"""The four settings of the HADAS paper (its Table II, with the unit slip of the lowest AGX
memory clock and the rounded TX2 limits corrected from device logs)."""

PINNED = ClockTable("pinned", ())
"""The table of a device whose clocks are not controlled: exactly one setting."""


HZ = {"": 1.0, "hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9}
"""Hz of each unit in small letters; what has none is in Hz."""


def unit_hint(frequency: int) -> str:
    """What to do about a positive frequency too low to be one in Hz; empty if it may be one.

    Clocks of edge processors and their memories run between 10 MHz and 10 GHz, so the three
    usual units do not overlap.
    """
    if frequency <= 0 or frequency >= 10_000_000:
        return ""
    unit, factor = ("MHz", 1_000_000) if frequency < 10_000 else ("kHz", 1_000)
    return f"Hz expected, this looks like {unit}; multiply by {factor}"


def load_clock_table(path: Path) -> ClockTable:
    """Read a clock table from a user's JSON file.

    The file holds ``{"name": "...", "domains": {"gpu": [Hz, ...], "emc": [Hz, ...]}}`` and, where it was measured,
    ``"switching": {"latency_ms": ..., "energy_mj": ...}``, the cost of one change of clocks.

    Raises:
        ConfigError: a missing or unreadable file, bad JSON, or a bad field (named).
    """
    try:
        document = json.loads(read_user_text(path, "clock table"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"clock table {path}, line {error.lineno}: not JSON ({error.msg})") from error
    if (
        not isinstance(document, dict)
        or not isinstance(document.get("domains"), dict)
        or not document["domains"]
    ):
        raise ConfigError(f"clock table {path}: field 'domains' must map domain names to lists of Hz")
    domains = []
    for name, frequencies in document["domains"].items():
        if not isinstance(frequencies, list) or not all(type(f) is int for f in frequencies):
            raise ConfigError(f"clock table {path}: 'domains.{name}' must be a list of integers in Hz")
        if frequencies and (hint := unit_hint(max(frequencies))):
            raise ConfigError(f"clock table {path}: 'domains.{name}' peaks at {max(frequencies)}: {hint}")
        try:
            domains.append(ClockDomain(name, tuple(frequencies)))
        except ConfigError as error:
            raise ConfigError(f"clock table {path}: {error}") from error
    switching = _switching(path, document["switching"]) if "switching" in document else None
    return ClockTable(str(document.get("name", path.stem)), tuple(domains), switching)


def _switching(path: Path, fields: object) -> SwitchingCost:
    """The field ``switching`` of a clock table's file."""
    names = ("latency_ms", "energy_mj")
    if not isinstance(fields, dict) or sorted(fields) != sorted(names):
        raise ConfigError(f"clock table {path}: field 'switching' must map {list(names)} to numbers")
    for name in names:
        if type(fields[name]) not in (int, float):
            raise ConfigError(f"clock table {path}: 'switching.{name}' = {fields[name]!r}: must be a number")
    try:
        return SwitchingCost(float(fields["latency_ms"]), float(fields["energy_mj"]))
    except ConfigError as error:
        raise ConfigError(f"clock table {path}: {error}") from error


def clock_table(name_or_path: str) -> ClockTable:
    """A built-in table by name, or a user's JSON file by path."""
    if name_or_path in CLOCK_TABLES:
        return CLOCK_TABLES[name_or_path]
    if name_or_path.endswith(".json"):
        return load_clock_table(Path(name_or_path))
    raise ConfigError(
        f"no clock table '{name_or_path}'; known: {sorted(CLOCK_TABLES)}, or a path to a .json file"
    )
