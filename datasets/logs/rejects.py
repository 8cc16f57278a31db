"""Bad rows kept aside with their reasons, so that they can be mended and imported."""

from __future__ import annotations

import csv
import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from ...errors import DataError, RecordError

_COLUMNS = ("file", "line", "field", "unit", "reason", "text")


class Rejects:
    """``FILE.rejects.csv`` beside a log; none if there is no bad row.

    An import reads a log from its beginning, so the file always lists every bad row of it.  It is written under
    a name of its own and takes its place when the import ends: another import of the same log may be running.
    What a killed import left under such a name, the next one on the same machine removes.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.path = log.with_name(f"{log.name}.rejects.csv")
        self.count = 0
        self._stem = f".{self.path.name}.{socket.gethostname()}."  # several machines may share a folder
        self._written = log.with_name(f"{self._stem}{os.getpid()}")
        self._file: TextIO | None = None
        self._writer: Any = None

    def __enter__(self) -> Self:
        with suppress(OSError):  # in a folder of somebody else's they do no harm
            for path in self.log.parent.iterdir():
                process = path.name.removeprefix(self._stem)
                if process != path.name and process.isdecimal() and not _is_running(int(process)):
                    path.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            try:
                os.replace(self._written, self.path)
            except OSError as failed:
                raise self._unwritable(failed) from failed
        elif kind is None:
            with suppress(OSError):  # of an earlier import, before the log was mended
                self.path.unlink(missing_ok=True)

    def add(self, line: int, error: RecordError, text: str) -> None:
        """Keep one bad row.

        Raises:
            DataError: the file cannot be written.
        """
        self.count += 1
        try:
            if self._file is None:
                self._file = self._written.open("w", newline="", encoding="utf-8")
                self._writer = csv.writer(self._file)
                self._writer.writerow(_COLUMNS)
            said = str(error)
            reason = said.partition(f"= {error.value!r}: ")[2] or said
            self._writer.writerow((self.log, line, error.field, error.unit, reason, text))
        except OSError as failed:
            raise self._unwritable(failed) from failed

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"rejects {self.path}: cannot be written ({error.strerror}); copy the log to a folder of yours"
        )


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        return True
    return True
