"""Log files as numbered lines, plain or gzipped, and what kind of log a file is."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from ...errors import DataError

_MEMORY = re.compile(r"\bRAM [0-9]+/[0-9]+[kM]B")
_LOOK_AT = 10  # lines; the first of a log may be damaged

LogKind = Literal["jsonl", "tegrastats", "csv"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file.

    Attributes:
        number: from 1.
        text: without its end.
        ended: whether it ends with a newline; a last line that does not may be cut.
        problem: why the text is not the line's, or nothing.
    """

    number: int
    text: str
    ended: bool
    problem: str = ""


class LogFile:
    """A file that is read line by line; tells how far it is.

    Args:
        path: plain text, or gzipped if its name ends in ``.gz``.

    Raises:
        DataError: missing, a folder, unreadable, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise DataError(f"log {path}: is a folder; name a file in it")
        try:
            self.size = path.stat().st_size
        except FileNotFoundError as error:
            raise DataError(f"log {path}: no such file; correct the path") from error
        except OSError as error:
            raise DataError(f"log {path}: cannot be read ({error.strerror}); correct the path") from error
        self._raw: IO[bytes] | None = None

    @property
    def position(self) -> int:
        """Bytes of the file read so far, of :attr:`size`."""
        return 0 if self._raw is None or self._raw.closed else self._raw.tell()

    def lines(self) -> Iterator[Line]:
        """All lines; a line that is no UTF-8 text comes with its problem."""
        with self._opened() as stream:
            for number, data in enumerate(stream, start=1):
                try:
                    text, problem = data.decode("utf-8"), ""
                except UnicodeDecodeError as error:
                    text, problem = (
                        data.decode("utf-8", "backslashreplace"),
                        f"byte {error.start} is not UTF-8",
                    )
                if number == 1:
                    text = text.removeprefix("\ufeff")
                yield Line(number, text.rstrip("\r\n"), text.endswith("\n"), problem)

    def digests(self, lengths: Iterable[int]) -> tuple[dict[int, str], int]:
        """SHA-256 of the content, unpacked, up to some lengths and as a whole.

        Returns:
            length -> digest, for the lengths that the file has; and its whole length, which is among them.
        """
        digest, found, n_read = hashlib.sha256(), {}, 0
        with self._opened() as stream:
            for length in sorted(lengths):
                while n_read < length and (chunk := stream.read(min(1 << 20, length - n_read))):
                    digest.update(chunk)
                    n_read += len(chunk)
                if n_read < length:
                    break
                found[length] = digest.hexdigest()
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                n_read += len(chunk)
        return {**found, n_read: digest.hexdigest()}, n_read

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            with self.path.open("rb") as raw:
                self._raw = raw
                if self.path.suffix == ".gz":
                    with gzip.open(raw) as unpacked:
                        yield unpacked  # type: ignore[misc]
                else:
                    yield raw
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"log {self.path}: damaged gzip data ({error}); fetch the file again") from error
        except OSError as error:
            raise DataError(
                f"log {self.path}: cannot be read ({error.strerror}); correct the path"
            ) from error

    def kind(self) -> LogKind:
        """By its first lines: ``{`` begins a row of our own log, tegrastats prints ``RAM``, all else is CSV.

        Raises:
            DataError: an empty file, or one that is no text.
        """
        looked_at = 0
        for line in self.lines():
            text = line.text.strip()
            if "\0" in text:
                raise DataError(f"log {self.path}: is no text in UTF-8; name a log, or save it as UTF-8")
            if text.startswith("{"):
                return "jsonl"
            if _MEMORY.search(text):
                return "tegrastats"
            looked_at += bool(text)
            if looked_at == _LOOK_AT:
                break
        if not looked_at:
            raise DataError(f"log {self.path}: is empty; nothing to import")
        return "jsonl" if self.path.name.removesuffix(".gz").endswith(".jsonl") else "csv"
