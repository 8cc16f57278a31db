"""Our own log: one cost row per line, with its target, so that every line stands for itself.

A line is a JSON object: ``schema`` (``hadas-meas/1``), ``arch_id`` (for people and for checking),
``target``, and the fields of a :class:`~hadas.datasets.records.CostRecord` as they are, the evidence
included: clocks in Hz, latencies in ms, energies in mJ.  Written by ``hadas measure --device X --log FILE``
and ``hadas logs export``; a killed writer leaves at most one unfinished line, which the next one keeps as
a line that says so, and every import names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ...errors import DataError, RecordError
from ..records import CostRecord, Target
from ..rows import cost_from_json, cost_to_json
from .checking import SCHEMA, UNFINISHED, RowReader
from .lines import LogFile


def record_line(record: CostRecord) -> str:
    """A record as a line, its end included."""
    fields = json.dumps(cost_to_json(record))[1:]
    return f'{{"schema": "{SCHEMA}", "arch_id": "{record.backbone.arch_id}", "target": {_target(record.target)}, {fields}\n'


@lru_cache(maxsize=64)
def _target(target: Target) -> str:
    return json.dumps(asdict(target))


class LogWriter:
    """Appends records to a log; what :meth:`append` returns from is on the disk.

    Args:
        path: made if it is not there, with the folders above it.
        sync_every: records between two syncs; 1 for measured rows, more for an export.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, path: Path, *, sync_every: int = 1) -> None:
        self.path = path
        self._sync_every = sync_every
        self._waiting = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _end_cut_line(path)
            self._file: IO[bytes] = path.open("ab")
        except OSError as error:
            raise self._unwritable(error) from error

    def append(self, record: CostRecord) -> None:
        """Write one record."""
        try:
            self._file.write(record_line(record).encode())
            self._waiting += 1
            if self._waiting >= self._sync_every:
                self._sync()
        except OSError as error:
            raise self._unwritable(error) from error

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._waiting = 0

    def close(self) -> None:
        """Sync and close."""
        if self._file.closed:
            return
        try:
            self._sync()
            self._file.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"log {self.path}: cannot be written ({error.strerror}); name a file in a folder of yours"
        )


def _end_cut_line(path: Path) -> None:
    """Keep what a killed writer left of its last row as a line that says so; a whole row only lacks its end.

    The new line is longer than what it replaces, so a kill in here leaves a cut line, too.
    """
    with path.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        start = 0
        for line in stream:
            if line.endswith(b"\n"):
                start += len(line)
        if start == size:
            return
        stream.seek(start)
        left = stream.read()
        if _is_whole(left):
            stream.write(b"\n")
            return
        stream.seek(start)
        told = {"schema": SCHEMA, UNFINISHED: left.decode(errors="backslashreplace")}
        stream.write(json.dumps(told).encode() + b"\n")


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def write_records(path: Path, records: Iterable[CostRecord]) -> int:
    """Write a new log.

    Returns:
        How many records.

    Raises:
        DataError: the file exists, or cannot be written.
    """
    if path.exists():
        raise DataError(f"log {path}: exists; name a new file")
    n_written = 0
    with LogWriter(path, sync_every=10_000) as writer:
        for record in records:
            writer.append(record)
            n_written += 1
    return n_written


def read_records(path: Path) -> tuple[CostRecord, ...]:
    """All records of a log, each checked; what a killed writer left unfinished is no record.

    Raises:
        DataError: the file cannot be read.
        RecordError: a bad row; names file, line and field.
    """
    reader, records = RowReader(str(path)), []
    for line in LogFile(path).lines():
        if not line.text.strip():
            continue
        try:
            checked = reader.read(line.number, line.text)
        except RecordError as error:
            if error.field == UNFINISHED or (not line.ended and error.field == "line"):
                continue
            raise
        records.append(cost_from_json(checked.row, checked.target))
    return tuple(records)
