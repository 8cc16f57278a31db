"""Logs into the store: every row once, however often and however far a file was imported before.

A file is read in batches, each one transaction: after a kill, a batch is in the store whole or not at all, and
importing the file again adds what is missing.  A row of our own log is known by all that it says but its
session's name, its number included, and one of which nothing was measured by its session, too; a line of
tegrastats or CSV by its content (:func:`.tables.content_digest`) and its series.  So equal lines of one file stay repeats.  A bad row is kept aside with its reason.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, RecordError
from ..store import Store
from . import tables
from .columns import ColumnMap
from .lines import Line, LogFile, LogKind
from .rejects import Rejects
from .series import series_of
from .sinks import CsvRows, Holds, OwnRows, Sink, Telemetry

_BATCH = 2000


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far the import of a file is: bytes of the file, rows seen, seconds."""

    path: Path
    bytes_done: int
    bytes_total: int
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What became of the rows of one file.

    Attributes:
        imported, known, rejected: rows; known ones were in the store already.
        unfinished: whether the last line is cut, as a killed writer leaves it; it is no row.
        rejects: the file with the bad rows and their reasons, ``None`` if there is none.
        into: sessions of cost rows, or the series of what is kept in tables of its own.
        holds: what was put there: ``costs``, ``foreign`` costs, or ``telemetry``.
        assumed_errors: imported rows that state no standard error, so that one was assumed.
    """

    path: Path
    kind: LogKind
    imported: int
    known: int
    rejected: int
    unfinished: bool
    rejects: Path | None
    into: tuple[str, ...]
    holds: Holds
    assumed_errors: int
    seconds: float


def import_log(
    store: Store,
    path: Path,
    *,
    series: str | None = None,
    column_map: ColumnMap | None = None,
    on_progress: Callable[[ImportProgress], None] = lambda progress: None,
) -> ImportSummary:
    """Import one file: our own log, tegrastats, or CSV.

    Args:
        series: what the log is called in the store; the default is the map's, or what :func:`.series.series_of`
            finds.  Lines of one series that are equal are one line, unless they stand in one file.
        column_map: how a CSV file is to be read; needed for one, and of no use to anything else.

    Raises:
        DataError: the file, or its rejects file, cannot be read or written.
        ConfigError: no column map for a CSV file, or one that does not fit its header; a file called like
            another log.
        StoreError: the store cannot be written.
    """
    log = LogFile(path)
    kind = log.kind()
    tables.prepare(store)
    sink = _sink(store, log, kind, series, column_map)
    with Rejects(path) as rejects, _collector_paused():
        return _Import(log, kind, sink, rejects, on_progress).run()


def _sink(
    store: Store, log: LogFile, kind: LogKind, series: str | None, column_map: ColumnMap | None
) -> Sink:
    if kind == "jsonl":
        return OwnRows(store, log.path, series)
    if kind == "tegrastats":
        return Telemetry(store, log.path, series_of(store, log, series or ""))
    if column_map is None:
        raise ConfigError(
            f"log {log.path}: neither our own format nor tegrastats; if it is CSV, say what its columns are with a "
            "column map (--map FILE)"
        )
    return CsvRows(store, log.path, series_of(store, log, series or column_map.series), column_map)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Without the cycle collector: a batch is a million small objects without a cycle, and it would look at
    all of them again and again, a quarter of the whole time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Import:
    """One file on its way into the store."""

    def __init__(
        self, log: LogFile, kind: LogKind, sink: Sink, rejects: Rejects,
        on_progress: Callable[[ImportProgress], None],
    ) -> None:  # fmt: skip
        self._log, self._kind, self._sink, self._rejects = log, kind, sink, rejects
        self._on_progress = on_progress
        self._began = time.monotonic()
        self._imported = self._known = self._rows = 0

    def run(self) -> ImportSummary:
        unfinished = False
        batch: list[tuple[Line, Any]] = []
        for line in self._log.lines():
            if not line.text.strip():
                continue
            try:
                row = self._read(line)
            except RecordError as error:
                self._rows += 1
                if line.ended or (self._kind == "jsonl" and error.field != "line"):
                    self._rejects.add(line.number, error, line.text)
                else:
                    unfinished = True
                continue
            if row is None:
                continue
            self._rows += 1
            batch.append((line, row))
            if len(batch) >= _BATCH:
                self._write(batch)
                batch = []
        self._write(batch)
        return ImportSummary(
            self._log.path, self._kind, self._imported, self._known, self._rejects.count, unfinished,
            self._rejects.path if self._rejects.count else None, tuple(sorted(self._sink.into)),
            self._sink.holds, self._sink.assumed_errors, time.monotonic() - self._began,
        )  # fmt: skip

    def _read(self, line: Line) -> Any:
        if line.problem:
            raise RecordError(
                f"{line.problem}; save the file as UTF-8", source=f"{self._log.path}, line {line.number}",
                row=None, field="line", value=line.text[:60],
            )  # fmt: skip
        if not line.ended and self._kind != "jsonl":
            # The end of its last number may be missing, and nothing in the line would show it.
            raise RecordError(
                "the last line does not end, so it may be cut", source=f"{self._log.path}, line {line.number}",
                row=None, field="line", value=line.text[:60],
            )  # fmt: skip
        return self._sink.read(line)

    def _write(self, batch: Sequence[tuple[Line, Any]]) -> None:
        if batch:
            for (line, _), fate in zip(batch, self._sink.write(batch), strict=True):
                if fate == "imported":
                    self._imported += 1
                elif fate == "known":
                    self._known += 1
                else:
                    self._rejects.add(line.number, fate, line.text)
        progress = ImportProgress(
            self._log.path, self._log.position, self._log.size, self._rows, time.monotonic() - self._began
        )
        self._on_progress(progress)
