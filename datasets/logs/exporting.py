"""Out of the store: cost rows as our own log, which reads back exactly, or as a flat CSV; all else as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ...errors import ConfigError, DataError
from ..records import CostRecord, Statistic, Target, Truth
from ..store import Store
from . import tables
from .jsonl import write_records
from .readings import SensorState, TegrastatsRecord
from .tables import ForeignCost


def export_rows(
    store: Store,
    path: Path,
    *,
    session: str | None = None,
    target_id: str | None = None,
    truth: Truth | None = None,
    prefix: str = "",
) -> int:
    """Write the cost rows of a store, valid and invalid, in order of session and number.

    Args:
        path: a new file; ``.jsonl`` keeps everything, ``.csv`` the totals of every row.
        session, target_id, truth: only rows of these.
        prefix: only rows whose session begins so.

    Returns:
        How many rows.

    Raises:
        ConfigError: another kind of file.
        DataError: no row to write; the file exists, or cannot be written.
    """
    if path.suffix not in (".jsonl", ".csv"):
        raise ConfigError(f"{path}: the name of an export ends in .jsonl (everything) or .csv (totals)")
    found = [
        record
        for record in store.costs(session=session, target_id=target_id)
        if (truth is None or record.truth is truth) and record.session.startswith(prefix)
    ]
    if not found:
        raise DataError(
            f"nothing to export to {path}: no cost row of session {session or 'any'}, target {target_id or 'any'}, "
            f"truth {truth or 'any'}{_hint(store)}"
        )
    if path.suffix == ".jsonl":
        return write_records(path, found)
    return _write_csv(path, found)


def export_foreign(store: Store, path: Path, *, series: str | None = None) -> int:
    """Write costs of networks that no space of ours contains as CSV.

    Args:
        series: only this one.

    Returns, Raises:
        As :func:`export_rows`.
    """
    _check_csv(path)
    found = tables.foreign_costs(store, series)
    if not found:
        raise _no_series(store, path, "networks of others", tables.log_costs, series)
    names = [dict.fromkeys(name for cost in found for name in cost.features)]
    names.append(dict.fromkeys(name for cost in found for name, _ in cost.clocks_hz))
    names.append(dict.fromkeys(name for cost in found for name in cost.kept))
    return _write_table(path, [_flat_foreign(cost, *names) for cost in found])


def export_telemetry(store: Store, path: Path, *, series: str | None = None) -> int:
    """Write lines of tegrastats as CSV: a column per rail, sensor, engine and core, with the unit in its name.

    Args:
        series: only this one.

    Returns, Raises:
        As :func:`export_rows`.
    """
    _check_csv(path)
    rows = [
        {"series": name, "line_no": line_no, "source": source, **_flat_reading(reading)}
        for name in tables.series_names(store, tables.log_telemetry)
        if series in (None, name)
        for (line_no, source), reading in tables.numbered_telemetry(store, name)
    ]
    if not rows:
        raise _no_series(store, path, "tegrastats", tables.log_telemetry, series)
    return _write_table(path, rows)


def _check_csv(path: Path) -> None:
    if path.suffix != ".csv":
        raise ConfigError(f"{path}: the name of an export of telemetry or foreign costs ends in .csv")


def _no_series(store: Store, path: Path, what: str, table: sa.Table, series: str | None) -> DataError:
    known = ", ".join(tables.series_names(store, table)) or "none"
    return DataError(
        f"nothing to export to {path}: no {what} in series {series or 'any'}; the store has series: {known}"
    )


def _hint(store: Store) -> str:
    """What else a store has."""
    told = ""
    for option, what, table in (
        ("--telemetry", "tegrastats", tables.log_telemetry), ("--foreign", "networks of others", tables.log_costs)
    ):  # fmt: skip
        if names := tables.series_names(store, table):
            told += f"; {option} exports the {what} of series {', '.join(names)}"
    return told


def _write_csv(path: Path, records: Sequence[CostRecord]) -> int:
    domains = tuple(dict.fromkeys(name for record in records for name, _ in record.requested.clocks_hz))
    return _write_table(path, [_flat(record, domains) for record in records])


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Write rows under all their columns; a column that a row lacks stays empty."""
    columns = dict.fromkeys(name for row in rows for name in row)
    try:
        with path.open("x", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(columns), restval="")
            writer.writeheader()
            writer.writerows(rows)
    except FileExistsError as error:
        raise DataError(f"{path}: exists; name a new file") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); name a file in a folder of yours"
        ) from error
    return len(rows)


def _flat_foreign(
    cost: ForeignCost, features: Iterable[str], domains: Iterable[str], kept: Iterable[str]
) -> dict[str, Any]:
    clocks = dict(cost.clocks_hz)
    return {
        "series": cost.series, "line_no": cost.line_no, "source": cost.source, "truth": str(cost.truth),
        **_flat_target(cost.target),
        "network": cost.network,
        **{f"feature_{name}": cost.features.get(name, "") for name in features},
        **{f"{name}_hz": clocks.get(name, "") for name in domains},
        "latency_ms": cost.latency_ms, "latency_error_ms": _or_empty(cost.latency_error_ms), "runs": _or_empty(cost.runs),
        "energy_mj": _or_empty(cost.energy_mj), "energy_error_mj": _or_empty(cost.energy_error_mj),
        "power_mw": _or_empty(cost.power_mw),
        **{f"kept_{name}": cost.kept.get(name, "") for name in kept},
    }  # fmt: skip


def _flat_reading(reading: TegrastatsRecord) -> dict[str, Any]:
    total = reading.total
    row: dict[str, Any] = {
        "epoch_s": _or_empty(reading.epoch_s),
        "local_time": "" if reading.local_time is None else reading.local_time.isoformat(),
        "total_mw": "" if total is None else total.instant_mw,
        "total_average_mw": "" if total is None else total.average_mw,
        "total_of": "" if total is None else total.label,
        "gpu_hz": _or_empty(reading.gpu_hz),
        "emc_hz": _or_empty(reading.emc_hz),
        "hottest_c": _or_empty(reading.hottest_c),
        "ram_used_kib": reading.ram.used_kib,
        "ram_total_kib": reading.ram.total_kib,
    }
    for rail in reading.rails:
        row |= {f"{rail.label}_mw": rail.instant_mw, f"{rail.label}_average_mw": rail.average_mw}
    for sensor in reading.temperatures:
        live = sensor.state is SensorState.LIVE
        row[f"{sensor.name}_c"] = sensor.celsius if live else str(sensor.state)
    for engine in reading.engines:
        row[f"{engine.name}_percent"] = _or_empty(engine.load_percent)
        row[f"{engine.name}_hz"] = " ".join(map(str, engine.clocks_hz))
    for i, core in enumerate(reading.cores):
        row |= {f"core{i}_percent": _or_empty(core.load_percent), f"core{i}_hz": _or_empty(core.clock_hz)}
    return row


def _or_empty(value: float | None) -> Any:
    return "" if value is None else value


def _flat_target(target: Target) -> dict[str, Any]:
    return {
        "target_id": target.target_id,
        "board": target.board,
        "processor": target.processor,
        "release": target.release,
        "runtime": target.runtime,
        "dtype": target.dtype,
        "batch": target.batch,
        "pinned": " ".join(f"{name}={value}" for name, value in target.pinned),
    }


def _flat(record: CostRecord, domains: Iterable[str]) -> dict[str, Any]:
    requested, actual = dict(record.requested.clocks_hz), dict(record.actual.clocks_hz)
    clocks: dict[str, Any] = {}
    for name in domains:
        clocks |= {f"{name}_hz": requested.get(name, ""), f"actual_{name}_hz": actual.get(name, "")}
    return {
        "session": record.session,
        "row_no": record.row_no,
        "truth": str(record.truth),
        **_flat_target(record.target),
        "arch_id": record.backbone.arch_id,
        "n_classes": record.n_classes,
        "heads": " ".join(f"{position}:{head}" for position, head in record.heads),
        "program": record.program,
        **clocks,
        **_columns("latency", "ms", record.latency_ms),
        **_columns("energy", "mj", record.energy_mj),
        "device_seconds": record.device_seconds,
        "valid": record.valid,
        "reason": record.reason,
        "flags": " ".join(record.evidence.flags) if record.evidence else "",
    }


def _columns(name: str, unit: str, statistic: Statistic | None) -> dict[str, Any]:
    value, error, n = (
        ("", "", "") if statistic is None else (statistic.value, statistic.standard_error, statistic.n)
    )
    return {f"{name}_{unit}": value, f"{name}_error_{unit}": error, f"{name}_runs": n}
