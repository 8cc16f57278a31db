"""Rows of a CSV file read by a column map: every number in a unit that the map names, every clock checked."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from difflib import get_close_matches
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy as sa

from ...errors import ConfigError, RecordError, SpaceError
from ...spaces import Backbone, genome_from_values
from .. import rows, schema
from ..evidence import Evidence
from ..records import Target
from ..store import Store
from .columns import Cell, ColumnMap, Quantity, likely_clock_unit
from .examples import ASSUMED_NOISE
from .lines import Line
from .plausibility import error_slip, power_slip, total_slip

_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{0,40})?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_HEAD = re.compile(r"([0-9]{1,4})(?::([0-9]{1,4}))?", re.ASCII)
_NO_HEADS = ("", "none")
ASSUMED_ERROR = "assumed-error"
"""Flag of rows whose standard error nobody stated."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A quantity in the unit of records; ``error`` and ``runs`` are ``None`` where neither log nor map has them."""

    value: float
    error: float | None
    runs: int | None

    def statistic(self) -> dict[str, Any]:
        """As rows keep it: an error that is not known is assumed (predictors weigh rows by it), runs are one."""
        error = ASSUMED_NOISE * self.value if self.error is None else self.error
        return {"value": self.value, "standard_error": error, "n": self.runs or 1}


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One row; ``network`` is its name, or of a space of ours its backbone."""

    truth: str
    target_id: str
    target: dict[str, Any]
    network: str | Backbone
    n_classes: int
    heads: tuple[tuple[int, int], ...]
    features: dict[str, float]
    clocks_hz: list[list[Any]]
    latency_ms: Measured
    energy_mj: Measured | None
    power_mw: float | None
    kept: dict[str, str]

    @property
    def assumes_error(self) -> bool:
        """Whether the standard error of its latency or energy is assumed."""
        return self.latency_ms.error is None or (self.energy_mj is not None and self.energy_mj.error is None)

    def cost_columns(self, session: str, row_no: int) -> dict[str, Any]:
        """Columns of ``schema.costs``, for a network of ours."""
        assert isinstance(self.network, Backbone)
        row = {
            "session": session, "row_no": row_no, "backbone": _backbone_fields(self.network), "n_classes": self.n_classes,
            "heads": self.heads, "requested": {"clocks_hz": self.clocks_hz}, "actual": {"clocks_hz": self.clocks_hz},
            "truth": self.truth, "stages": [], "latency_ms": self.latency_ms.statistic(),
            "energy_mj": self.energy_mj and self.energy_mj.statistic(), "device_seconds": 0.0, "program": "stages",
            "valid": True, "reason": "", "evidence": _assumed_evidence(self.target["runtime"]) if self.assumes_error else None,
        }  # fmt: skip
        return {
            "session": session, "row_no": row_no, "arch_id": self.network.arch_id, "target_id": self.target_id,
            "truth": self.truth, "valid": True, "reason": "", "device_seconds": 0.0,
            "latency_ms": self.latency_ms.value, "energy_mj": self.energy_mj and self.energy_mj.value, "row": row,
        }  # fmt: skip

    def foreign_columns(self) -> dict[str, Any]:
        """Columns of ``tables.log_costs``, for a network of others."""
        return {
            "truth": self.truth, "target_id": self.target_id, "target": self.target, "network": self.network,
            "features": self.features, "clocks_hz": self.clocks_hz, "latency_ms": self.latency_ms.value,
            "latency_error_ms": self.latency_ms.error, "runs": self.latency_ms.runs,
            "energy_mj": self.energy_mj and self.energy_mj.value,
            "energy_error_mj": self.energy_mj and self.energy_mj.error, "power_mw": self.power_mw, "kept": self.kept,
        }  # fmt: skip


Cells = Sequence[str]
_Take = Callable[[Cells], str]


class CsvReader:
    """Reads the lines of one file; what rows have in common is made once.

    Args:
        path: for messages.
        store: where backbones that are named by ``arch_id`` are looked up.
    """

    def __init__(self, path: Path, column_map: ColumnMap, store: Store) -> None:
        self._path, self._map, self._store = path, column_map, store
        self._where = str(path)
        self._header: list[str] | None = None
        self._index: dict[str, int] = {}
        self._targets: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {}
        self._networks: dict[tuple[str, ...], Backbone | str] = {}

    def read(self, line: Line) -> CsvRow | None:
        """One line; ``None`` for the header, which is the first.

        Raises:
            ConfigError: a header without a column that the map names.
            RecordError: a bad row; names file, line, field and unit.
        """
        self._where = f"{self._path}, line {line.number}"
        try:
            cells = next(csv.reader([line.text], strict=True))
        except csv.Error as error:
            self._refuse(
                "line", "", line.text[:60], f"not a row of CSV ({error}); a quoted text must end in its line"
            )
        if self._header is None:
            self._take_header(cells)
            return None
        if len(cells) != len(self._header):
            self._refuse(
                "line", "", line.text[:60], f"{len(cells)} cells; the header has {len(self._header)}"
            )
        return self._row(cells)

    def _take_header(self, cells: list[str]) -> None:
        self._header = [name.strip() for name in cells]
        for name in self._map.columns():
            if self._header.count(name) != 1:
                near = get_close_matches(name, self._header, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"it has {self._header}"
                many = "is there twice" if name in self._header else f"is not in the header; {hint}"
                raise ConfigError(f"{self._map.source}: column '{name}' of {self._path} {many}")
            self._index[name] = self._header.index(name)

    def _row(self, cells: Cells) -> CsvRow:
        mapped = self._map
        latency = self._measured(mapped.latency, cells)
        if latency is None:
            self._refuse("latency", mapped.latency.unit, "", "a row needs a latency")
        target_id, target = self._target(cells)
        energy = self._measured(mapped.energy, cells) if mapped.energy else None
        power = self._measured(mapped.power, cells) if mapped.power else None
        self._check_plausible(latency, energy, power)
        network = self._network(cells)
        return CsvRow(
            truth=str(mapped.truth),
            target_id=target_id,
            target=target,
            network=network,
            n_classes=self._integer(mapped.n_classes, cells, "network.n_classes", 2)
            if mapped.n_classes
            else 0,
            heads=self._heads(network, cells),
            features=self._features(cells),
            clocks_hz=[[clock.field.partition(".")[2], self._clock(clock, cells)] for clock in mapped.clocks],
            latency_ms=latency,
            energy_mj=energy,
            power_mw=power.value if power else None,
            kept={name: cells[self._index[name]] for name in mapped.keep},
        )

    def _text(self, cell: Cell, cells: Cells) -> str:
        return cell.constant if cell.column is None else cells[self._index[cell.column]].strip()

    # -- numbers -------------------------------------------------------------------------------

    def _number(self, text: str, field: str, unit: str) -> Decimal:
        if not _NUMBER.fullmatch(text):
            self._refuse(field, unit, text, "must be a finite number, with a point for decimals")
        return Decimal(text)

    def _measured(self, quantity: Quantity, cells: Cells) -> Measured | None:
        text = self._text(quantity.cell, cells)
        if not text:
            return None
        number = self._number(text, quantity.field, quantity.unit) * quantity.factor
        value = float(number)
        if not 0 < value < float("inf"):
            self._refuse(quantity.field, quantity.unit, text, "must be a positive finite number")
        error = runs = None
        if quantity.error is not None and (said := self._text(quantity.error, cells)):
            error = float(self._number(said, f"{quantity.field}.error", quantity.unit) * quantity.factor)
            if not 0 <= error < float("inf"):
                self._refuse(
                    f"{quantity.field}.error", quantity.unit, said, "must be a finite number, not negative"
                )
        elif quantity.noise is not None:
            error = quantity.noise * value
        if quantity.runs is not None and self._text(quantity.runs, cells):
            runs = self._integer(quantity.runs, cells, f"{quantity.field}.runs", 1)
        return Measured(value, error, runs)

    def _check_plausible(self, latency: Measured, energy: Measured | None, power: Measured | None) -> None:
        """Refuse what is most likely a wrong unit in the map."""
        energy_mj = None if energy is None else energy.value
        slip = total_slip(latency.value, energy_mj)
        if slip is None and power is not None:
            slip = power_slip(latency.value, energy_mj, 1e-3 * power.value)
        for name, unit, found in (("latency_ms", "ms", latency), ("energy_mj", "mJ", energy)):
            if slip is None and found is not None and found.error is not None:
                slip = error_slip(name, unit, found.value, found.error)
        if slip:
            quantity = slip.field.partition("_")[0]
            remedy = f"If the whole column is so, correct 'unit' of '{quantity}' in the column map"
            self._refuse(slip.field, slip.unit, slip.value, f"{slip.reason} {remedy}")

    def _clock(self, clock: Quantity, cells: Cells) -> int:
        text = self._text(clock.cell, cells)
        hz = self._number(text, clock.field, clock.unit) * clock.factor
        if hz != hz.to_integral_value() or abs(hz) > 10**15:
            self._refuse(
                clock.field, clock.unit, text, f"{hz:g} Hz is no whole number of Hz that a clock may have"
            )
        unit = likely_clock_unit(hz / clock.factor)
        if unit != clock.unit:
            looks = f"so the column looks like {unit}; correct 'unit' of '{clock.field}' in the column map"
            known = looks if unit else f"and {float(hz):g} Hz is none in any unit"
            self._refuse(clock.field, clock.unit, text, f"clocks run between 10 MHz and 10 GHz, {known}")
        return int(hz)

    def _integer(self, cell: Cell, cells: Cells, field: str, least: int) -> int:
        text = self._text(cell, cells)
        number = self._number(text, field, "")
        if number != number.to_integral_value() or not least <= number < 2**31:
            self._refuse(field, "", text, f"must be an integer, at least {least}")
        return int(number)

    def _features(self, cells: Cells) -> dict[str, float]:
        found = {}
        for name, cell in self._map.features:
            if text := self._text(cell, cells):
                found[name] = float(self._number(text, f"network.features.{name}", ""))
                if not isfinite(found[name]):
                    self._refuse(f"network.features.{name}", "", text, "must be a finite number")
        return found

    # -- what rows share -------------------------------------------------------------------------

    def _target(self, cells: Cells) -> tuple[str, dict[str, Any]]:
        mapped = self._map
        key = (
            *(self._text(cell, cells) for cell in mapped.target.values()),
            *(self._text(cell, cells) for _, cell in mapped.pinned),
        )
        if key not in self._targets:
            fields: dict[str, Any] = {name: self._text(cell, cells) for name, cell in mapped.target.items()}
            for name, value in fields.items():
                if not value:
                    self._refuse(f"target.{name}", "", value, "must not be empty")
            if "batch" in fields:
                fields["batch"] = self._integer(mapped.target["batch"], cells, "target.batch", 1)
            pinned = ((name, self._text(cell, cells)) for name, cell in mapped.pinned)
            target = Target(**fields, pinned=tuple((name, value) for name, value in pinned if value))
            self._targets[key] = target.target_id, asdict(target)
        return self._targets[key]

    def _network(self, cells: Cells) -> str | Backbone:
        key = tuple(self._text(cell, cells) for cell in self._map.network.values())
        if self._map.space is None:
            if not key[0]:
                self._refuse("network.name", "", "", "must not be empty")
            return key[0]
        if key not in self._networks:
            self._networks[key] = self._resolve(cells)
        found = self._networks[key]
        if isinstance(found, str):
            self._refuse(f"network.{self._map.naming}", "", " ".join(key), found)
        return found

    def _resolve(self, cells: Cells) -> Backbone | str:
        """The backbone that a row names, or why there is none."""
        space, naming = self._map.space, self._map.naming
        assert space is not None
        if naming == "genes":
            values = {
                gene: self._integer(cell, cells, f"network.genes.{gene}", 0)
                for gene, cell in self._map.network.items()
            }
            try:
                return space.decode(genome_from_values(space, values))
            except SpaceError as error:
                return str(error)
        name = self._text(self._map.network[naming], cells)
        presets = space.presets
        if naming == "preset":
            return presets.get(name) or f"space '{space.name}' names {sorted(presets)}"
        known = {backbone.arch_id: backbone for backbone in presets.values()}
        found = known.get(name) or _stored_backbone(self._store, name)
        if found is not None and found.space != space.name:
            return f"is of space '{found.space}', not of '{space.name}'"
        return (
            found or "neither a preset of the space nor a network that the store has rows of; map its genes"
        )

    def _heads(self, network: str | Backbone, cells: Cells) -> tuple[tuple[int, int], ...]:
        mapped = self._map
        if mapped.heads is None or mapped.space is None or isinstance(network, str):
            return ()
        text = self._text(mapped.heads, cells)
        if text in _NO_HEADS:
            return ()
        heads = []
        for part in re.split(r"[\s+;]+", text):
            if (found := _HEAD.fullmatch(part)) is None:
                self._refuse("network.heads", "", text, "must read like '5:1 9:1' (position:type) or '5+9'")
            heads.append((int(found.group(1)), int(found.group(2) or 1)))
        positions = [position for position, _ in heads]
        first, last = mapped.space.first_exit, network.n_blocks - 1
        if positions != sorted(set(positions)) or not first <= positions[0] <= positions[-1] <= last or any(t < 1 for _, t in heads):  # fmt: skip
            self._refuse(
                "network.heads", "", text, f"positions ascend from {first} to {last}, types start at 1"
            )
        return tuple(heads)

    def _refuse(self, field: str, unit: str, value: Any, reason: str) -> NoReturn:
        raise RecordError(reason, source=self._where, row=None, field=field, unit=unit, value=value)


@lru_cache(maxsize=4096)
def _backbone_fields(backbone: Backbone) -> dict[str, Any]:
    return asdict(backbone)


@lru_cache(maxsize=64)
def _assumed_evidence(runtime: str) -> dict[str, Any]:
    return asdict(Evidence(runtime, "column map", "", (), flags=(ASSUMED_ERROR,)))


def _stored_backbone(store: Store, arch_id: str) -> Backbone | None:
    costs = schema.costs.c
    query = sa.select(costs.row).where(costs.arch_id == arch_id).limit(1)
    with store.transaction() as connection:
        row = connection.execute(query).scalar_one_or_none()
    return None if row is None else rows.backbone_from_json(row["backbone"])
