"""Rows that nobody has measured yet: networks and settings from a CSV file, read by the map of a measured one."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from ...errors import ConfigError, DataError, RecordError
from ..records import Target, Truth
from ..store import Store
from .columns import Cell, ColumnMap
from .csvrows import CsvReader, CsvRow
from .lines import LogFile
from .tables import ForeignCost


def read_unmeasured(store: Store, path: Path, column_map: ColumnMap) -> tuple[ForeignCost, ...]:
    """Networks of others and their settings; columns of latency, energy and power need not be there.

    Args:
        column_map: the one that measured rows were imported with.

    Returns:
        Rows without a cost: ``latency_ms`` is NaN.

    Raises:
        ConfigError: a map for networks of a space of ours, or one that does not fit the header.
        RecordError: a bad row; names file, line, field and unit.
        DataError: the file cannot be read, or has no row.
    """
    if column_map.is_own:
        raise ConfigError(
            f"{column_map.source}: is of networks of a space of ours; `hadas predict STUDY` predicts these"
        )
    # A row needs a latency to be read; this one is thrown away.
    latency = replace(
        column_map.latency, cell=Cell(None, "1"), unit="ms", factor=Decimal(1), error=None, runs=None, noise=None
    )  # fmt: skip
    blind = replace(column_map, latency=latency, energy=None, power=None, keep=())
    reader, found = CsvReader(path, blind, store), []
    for line in LogFile(path).lines():
        if not line.text.strip():
            continue
        if line.problem:
            raise RecordError(
                f"{line.problem}; save the file as UTF-8", source=f"{path}, line {line.number}", row=None,
                field="line", value=line.text[:60],
            )  # fmt: skip
        row = reader.read(line)
        if row is None:
            continue
        found.append(_without_costs(row, line.number, path.name))
    if not found:
        raise DataError(f"{path}: has no row below its header; nothing to predict")
    return tuple(found)


def _without_costs(row: CsvRow, line_no: int, source: str) -> ForeignCost:
    assert isinstance(row.network, str)
    clocks = tuple((str(name), int(hz)) for name, hz in row.clocks_hz)
    return ForeignCost(
        series="", line_no=line_no, source=source, truth=Truth(row.truth), target=Target(**row.target),
        network=row.network, features=row.features, clocks_hz=clocks, latency_ms=float("nan"),
        latency_error_ms=None, energy_mj=None, energy_error_mj=None, power_mw=None, runs=None, kept={},
    )  # fmt: skip
