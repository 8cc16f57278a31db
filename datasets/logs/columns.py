"""Column maps: what the columns of a user's CSV file mean, and in which units.

A map is a YAML file.  Every field is a constant or ``{column: NAME}``; every quantity names its unit; see
:mod:`.examples`, which the command line and ``docs/devices.md`` show.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ...errors import ConfigError
from ...spaces import SPACES, MBConvSpace, space_by_name
from ...spaces.userfile import read_user_text
from ..records import Truth
from ..userfiles import load_yaml

_UNITS: Mapping[str, Mapping[str, Decimal]] = {
    "ms": {"s": Decimal(1000), "ms": Decimal(1), "us": Decimal("0.001"), "ns": Decimal("0.000001")},
    "mJ": {"J": Decimal(1000), "mJ": Decimal(1), "uJ": Decimal("0.001")},
    "mW": {"W": Decimal(1000), "mW": Decimal(1), "uW": Decimal("0.001")},
    "Hz": {"Hz": Decimal(1), "kHz": Decimal(1000), "MHz": Decimal(10**6), "GHz": Decimal(10**9)},
}
_TOP = ("series", "truth", "target", "network", "latency", "energy", "power", "clocks", "keep")
_TARGET = ("board", "processor", "release", "runtime", "dtype", "batch", "pinned")
_OWN = ("space", "preset", "arch_id", "genes", "n_classes", "heads")
_NAMINGS = ("preset", "arch_id", "genes")


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a value stands: in a column, or the same in all rows.

    Attributes:
        column: its name, ``None`` for a constant.
        constant: its text.
    """

    column: str | None
    constant: str = ""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A measured quantity.

    Attributes:
        field, unit, base: as messages call it; the unit of the column, and the one of the record.
        factor: from the one to the other.
        error, runs: its standard error, in the same unit, and number of runs; ``None`` if not known.
        noise: relative standard error where a row states none; ``None`` if not known.
    """

    field: str
    cell: Cell
    unit: str
    base: str
    factor: Decimal
    error: Cell | None = None
    runs: Cell | None = None
    noise: float | None = None


@dataclass(frozen=True)
class ColumnMap:
    """What columns mean; see the module.

    Attributes:
        series: what the log is called, or empty.
        map_id: hash of what the map says, its series left out.
        target: field -> cell, the pinned settings left out.
        space: of the networks; ``None`` if they are of no space of ours.
        naming: how a network of ours is named: ``preset``, ``arch_id`` or ``genes``.
        network: the cells that name a network, by gene if ``genes``, else one by that name.
    """

    source: str
    series: str
    map_id: str
    truth: Truth
    target: Mapping[str, Cell]
    pinned: tuple[tuple[str, Cell], ...]
    space: MBConvSpace | None
    naming: str
    network: Mapping[str, Cell]
    n_classes: Cell | None
    heads: Cell | None
    features: tuple[tuple[str, Cell], ...]
    latency: Quantity
    energy: Quantity | None
    power: Quantity | None
    clocks: tuple[Quantity, ...]
    keep: tuple[str, ...]

    @property
    def is_own(self) -> bool:
        """Whether the networks are of a space of ours, so that rows are cost rows."""
        return self.space is not None

    def columns(self) -> Iterator[str]:
        """Every column that is read."""
        quantities = [q for q in (self.latency, self.energy, self.power, *self.clocks) if q is not None]
        cells = [
            *self.target.values(), *(cell for _, cell in self.pinned), *self.network.values(), self.n_classes,
            self.heads, *(cell for _, cell in self.features),
            *(cell for q in quantities for cell in (q.cell, q.error, q.runs)),
        ]  # fmt: skip
        yield from (cell.column for cell in cells if cell is not None and cell.column is not None)
        yield from self.keep


def load_column_map(path: Path) -> ColumnMap:
    """Read a column map from a YAML file.

    Raises:
        ConfigError: unreadable, no YAML, or a field that does not fit; names it.
    """
    try:
        document = load_yaml(read_user_text(path, "column map"))
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"column map {path}: not YAML ({' '.join(str(error).split())})") from error
    return column_map(document, str(path))


def column_map(document: Any, source: str = "column map") -> ColumnMap:
    """The same from a document that is already read.

    Args:
        source: what messages call it.

    Raises:
        ConfigError: a field that does not fit; names it.
    """
    return _Parser(source).parse(document)


def likely_clock_unit(number: Decimal) -> str:
    """The unit in which a number is a clock, 10 MHz to 10 GHz; at most one is, and empty if none."""
    return next((unit for unit, factor in _UNITS["Hz"].items() if 10**7 <= number * factor < 10**10), "")


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = f"column map {source}" if source != "column map" else source

    def parse(self, document: Any) -> ColumnMap:
        top = self._mapping(document, "the file", _TOP, needed=("truth", "target", "network", "latency"))
        if top["truth"] not in [str(truth) for truth in Truth]:
            self._refuse("truth", f"{top['truth']!r}: must be device, replay or simulator")
        target = self._mapping(top["target"], "target", _TARGET, needed=_TARGET[:4])
        pinned = self._mapping(target.pop("pinned", {}), "target.pinned")
        network = self._mapping(top["network"], "network")
        own = self._own_network(network) if "space" in network else self._foreign_network(network)
        space: MBConvSpace | None = own.pop("space", None)
        if space is not None:
            for field in ("power", "keep"):
                if field in top:
                    self._refuse(field, "a cost row has no place for it; leave it out (energy is kept)")
        keep = top.get("keep", [])
        if not isinstance(keep, list) or not all(isinstance(name, str) for name in keep):
            self._refuse("keep", "must list names of columns")
        said = json.dumps({k: v for k, v in top.items() if k != "series"}, sort_keys=True, default=str)
        clocks = self._mapping(top.get("clocks", {}), "clocks")
        return ColumnMap(
            source=self._source,
            series=str(top.get("series", "")),
            map_id=hashlib.sha256(said.encode()).hexdigest()[:16],
            truth=Truth(top["truth"]),
            target={name: self._cell(value, f"target.{name}") for name, value in target.items()},
            pinned=tuple(
                (name, self._cell(pinned[name], f"target.pinned.{name}")) for name in sorted(pinned)
            ),
            space=space,
            latency=self._quantity(top["latency"], "latency", "ms"),
            energy=self._quantity(top["energy"], "energy", "mJ") if "energy" in top else None,
            power=self._quantity(top["power"], "power", "mW") if "power" in top else None,
            clocks=tuple(self._clock(name, clocks[name]) for name in clocks),
            keep=tuple(keep),
            **own,
        )

    def _own_network(self, network: dict[str, Any]) -> dict[str, Any]:
        self._mapping(network, "network", _OWN, needed=("n_classes",))
        named = [naming for naming in _NAMINGS if naming in network]
        if len(named) != 1:
            self._refuse("network", "needs exactly one of 'preset', 'arch_id' and 'genes'")
        if not isinstance(network["space"], str):
            self._refuse("network.space", f"must be a name such as {sorted(SPACES)}")
        space, naming = space_by_name(network["space"]), named[0]
        if naming == "genes":
            genes = tuple(variable.name for variable in space.variables)
            given = self._mapping(network["genes"], "network.genes", genes, needed=genes)
        else:
            given = {naming: network[naming]}
        return {
            "space": space,
            "naming": naming,
            "network": {name: self._cell(value, f"network.{name}") for name, value in given.items()},
            "n_classes": self._cell(network["n_classes"], "network.n_classes"),
            "heads": self._cell(network["heads"], "network.heads") if "heads" in network else None,
            "features": (),
        }

    def _foreign_network(self, network: dict[str, Any]) -> dict[str, Any]:
        self._mapping(network, "network", ("name", "features"), needed=("name",))
        features = self._mapping(network.get("features", {}), "network.features")
        return {
            "naming": "name",
            "network": {"name": self._cell(network["name"], "network.name")},
            "n_classes": None,
            "heads": None,
            "features": tuple((f, self._cell(v, f"network.features.{f}")) for f, v in features.items()),
        }

    def _clock(self, name: str, value: Any) -> Quantity:
        clock = self._quantity(value, f"clocks.{name}", "Hz")
        if (clock.error, clock.runs, clock.noise) != (None, None, None):
            self._refuse(f"clocks.{name}", "a clock has no 'error', no 'noise' and no 'runs'")
        return clock

    def _quantity(self, value: Any, field: str, base: str) -> Quantity:
        given = self._mapping(
            value, field, ("column", "value", "unit", "error", "noise", "runs"), needed=("unit",)
        )
        units = _UNITS[base]
        unit = given.pop("unit")
        if unit not in units:
            self._refuse(f"{field}.unit", f"{unit!r}: must be one of {list(units)}")
        error, runs, noise = given.pop("error", None), given.pop("runs", None), given.pop("noise", None)
        if noise is not None and (type(noise) is not float or not 0 < noise < 1):
            self._refuse(f"{field}.noise", f"{noise!r}: must be a share of the value, such as 0.02")
        if len(given) != 1:
            self._refuse(field, "needs exactly one of 'column' and 'value'")
        cell = self._cell(given if "column" in given else given["value"], field)
        return Quantity(
            field, cell, unit, base, units[unit],
            None if error is None else self._cell(error, f"{field}.error"),
            None if runs is None else self._cell(runs, f"{field}.runs"), noise,
        )  # fmt: skip

    def _cell(self, value: Any, field: str) -> Cell:
        if isinstance(value, dict) and list(value) == ["column"] and isinstance(value["column"], str):
            return Cell(value["column"])
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return Cell(None, str(value).strip())
        self._refuse(field, f"{value!r}: must be a text, a number, or {{column: NAME}}")

    def _mapping(
        self, value: Any, field: str, known: tuple[str, ...] | None = None, needed: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            self._refuse(field, "must map names to values")
        for name in value:
            if known is not None and name not in known:
                near = get_close_matches(name, known, 1)
                self._refuse(field, f"has no field '{name}'" + (f"; did you mean '{near[0]}'?" if near else f"; known: {list(known)}"))  # fmt: skip
        for name in needed:
            if name not in value:
                self._refuse(field, f"'{name}' is missing")
        return dict(value)

    def _refuse(self, field: str, reason: str) -> NoReturn:
        raise ConfigError(f"{self._source}: '{field}': {reason}")
