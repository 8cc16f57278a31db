"""Cost rows out of the store: our own log, which reads back exactly, or a flat CSV for other tools."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError, DataError
from ..records import CostRecord, Statistic, Truth
from ..store import Store
from .jsonl import write_records


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
            f"truth {truth or 'any'}"
        )
    if path.suffix == ".jsonl":
        return write_records(path, found)
    return _write_csv(path, found)


def _write_csv(path: Path, records: Sequence[CostRecord]) -> int:
    domains = tuple(dict.fromkeys(name for record in records for name, _ in record.requested.clocks_hz))
    rows = [_flat(record, domains) for record in records]
    try:
        with path.open("x", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except FileExistsError as error:
        raise DataError(f"{path}: exists; name a new file") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); name a file in a folder of yours"
        ) from error
    return len(rows)


def _flat(record: CostRecord, domains: Iterable[str]) -> dict[str, Any]:
    target, requested, actual = record.target, dict(record.requested.clocks_hz), dict(record.actual.clocks_hz)
    clocks: dict[str, Any] = {}
    for name in domains:
        clocks |= {f"{name}_hz": requested.get(name, ""), f"actual_{name}_hz": actual.get(name, "")}
    return {
        "session": record.session,
        "row_no": record.row_no,
        "truth": str(record.truth),
        "target_id": target.target_id,
        "board": target.board,
        "processor": target.processor,
        "release": target.release,
        "runtime": target.runtime,
        "dtype": target.dtype,
        "batch": target.batch,
        "pinned": " ".join(f"{name}={value}" for name, value in target.pinned),
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
