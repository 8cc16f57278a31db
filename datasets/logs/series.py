"""What a log of lines without numbers is called in the store: equal lines of one series are one line.

So a file must not pass for another that happens to be called the same (a board prints the same idle lines
every day), and a copy of a file under another name must not come in twice.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from ...errors import ConfigError
from ..store import Store
from .lines import LogFile
from .tables import log_files


class Series:
    """What a file is called, and its content, which the store notes with the first row that it gets of it."""

    def __init__(self, name: str, sha256: str, n_bytes: int, *, noted: bool) -> None:
        self.name = name
        self._sha256, self._n_bytes, self._noted = sha256, n_bytes, noted

    def note(self, connection: sa.Connection) -> None:
        """Remember that the series was made from this file."""
        if not self._noted:
            values = {"series": self.name, "sha256": self._sha256, "n_bytes": self._n_bytes}
            connection.execute(log_files.insert().values(values))
            self._noted = True


def series_of(store: Store, log: LogFile, given: str) -> Series:
    """The series that a file goes into.

    Args:
        given: what the user calls it, or empty: then what a file of the same content was called, else
            the file's own name.

    Raises:
        ConfigError: no name is given, and what is called like the file is another log: the file is not
            that log grown longer.
    """
    query = sa.select(log_files.c.series, log_files.c.sha256, log_files.c.n_bytes).order_by(
        log_files.c.series
    )
    with store.transaction() as connection:
        known = connection.execute(query).all()
    digests, n_bytes = log.digests({row.n_bytes for row in known})
    whole = digests[n_bytes]
    name = given
    if not name:
        same = [row.series for row in known if row.sha256 == whole]
        name = same[0] if same else _stem(log.path)
        others = [row for row in known if row.series == name]
        if others and not any(digests.get(row.n_bytes) == row.sha256 for row in others):
            raise ConfigError(
                f"log {log.path}: the store has a series '{name}' that was made from another file. If this is the "
                f"same log, mended or cut, say so with --series {name}; if not, give it a name of its own"
            )
    noted = any(row.series == name and row.sha256 == whole for row in known)
    return Series(name, whole, n_bytes, noted=noted)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name
