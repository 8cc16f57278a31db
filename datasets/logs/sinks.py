"""Where the rows of a log go, each kind of log its own way: one batch is one transaction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

import sqlalchemy as sa

from ...errors import RecordError
from .. import schema
from ..evidence import Evidence
from ..store import Store
from . import tables, tegrastats
from .checking import CheckedRow, RowReader
from .columns import ColumnMap
from .csvrows import CsvReader, CsvRow
from .lines import Line
from .series import Series

_QUERY = 400  # values, or pairs of them, in one list of a query; the least that any database takes is 999

SESSION_PREFIX = "log:"
"""Sessions of imported cost rows begin with it, so that no study takes them for rows of its own."""


Holds = Literal["costs", "foreign", "telemetry"]
"""Cost rows; costs of networks of no space of ours; lines of tegrastats."""

Fate = Literal["imported", "known"] | RecordError
"""What became of a row: it is in the store now, was there before, or cannot be, and why."""


class Sink(Protocol):
    """Where the rows of one kind of log go.

    Attributes:
        into: sessions or series that rows were put into.
        holds: what they are.
        assumed_errors: how many of them had no standard error, so that one was assumed.
    """

    into: set[str]
    holds: Holds
    assumed_errors: int

    def read(self, line: Line) -> Any:
        """The row of a line, ``None`` if it has none (a header).

        Raises:
            RecordError: a bad row.
        """
        ...

    def write(self, batch: Sequence[tuple[Line, Any]]) -> list[Fate]:
        """Store a batch in one transaction; the fate of every row, in order."""
        ...


# -- our own log -----------------------------------------------------------------------------


class OwnRows:
    """Cost rows of our own log, into ``cost_rows``."""

    def __init__(self, store: Store, path: Path, series: str | None) -> None:
        self._store, self._source, self._series = store, str(path), series
        self._reader = RowReader(str(path))
        self._targets: set[str] = set()
        self.into: set[str] = set()
        self.holds: Holds = "costs"
        self.assumed_errors = 0

    def read(self, line: Line) -> CheckedRow:
        return self._reader.read(line.number, line.text)

    def write(self, batch: Sequence[tuple[Line, CheckedRow]]) -> list[Fate]:
        fates: list[Fate] = []
        with writing(self._store) as connection:
            # A row is known by what it says, whatever its session is called here or there, if that is enough.
            known = _rows_like(connection, {_likeness(row.columns) for _, row in batch})
            keys = {(row.columns["session"], row.columns["row_no"]) for _, row in batch}
            measured = set() if self._series is not None else _taken(connection, keys)
            taken = _taken(connection, {(self._session(session), row_no) for session, row_no in keys})
            new: list[dict[str, Any]] = []
            for line, checked in batch:
                columns = checked.columns
                session = self._session(columns["session"])
                key = (session, columns["row_no"])
                said = (columns["target_id"], checked.row)
                like = known.setdefault(_likeness(columns), [])
                if any(_same(stored, said) for stored in like):
                    fates.append("known")
                    continue
                if key in taken or (columns["session"], columns["row_no"]) in measured:
                    fates.append(self._conflict(line, (columns["session"], columns["row_no"])))
                    continue
                like.append(said)
                taken.add(key)
                new.append({**columns, "session": session, "row": checked.row_as(session)})
                fates.append("imported")
                self.into.add(session)
                if columns["target_id"] not in self._targets:
                    _add_target(connection, columns["target_id"], checked.target)
                    self._targets.add(columns["target_id"])
            if new:
                connection.execute(schema.costs.insert(), new)
        return fates

    def _session(self, session: str) -> str:
        if self._series is not None:
            return f"{SESSION_PREFIX}{self._series}/{session.removeprefix(SESSION_PREFIX)}"
        return session if session.startswith(SESSION_PREFIX) else SESSION_PREFIX + session

    def _conflict(self, line: Line, key: tuple[str, int]) -> RecordError:
        return RecordError(
            f"the store has a row {key[1]} of session '{key[0]}' that says something else; if both are right (two "
            "devices whose sessions are called the same), import this file under another --series",
            source=f"{self._source}, line {line.number}", row=None, field="session, row_no", value=key,
        )  # fmt: skip


@contextmanager
def writing(store: Store) -> Iterator[sa.Connection]:
    """A transaction that nobody else writes beside: what it reads first is still so when it writes."""
    with store.transaction() as connection:
        if connection.dialect.name == "sqlite":  # whose driver begins by itself only at the first write
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(schema.meta).with_for_update())
        yield connection


_Stored = tuple[str, dict[str, Any]]
_Likeness = tuple[int, str]


def _likeness(columns: Mapping[str, Any]) -> _Likeness:
    """What equal rows have in common, and few others; :data:`.tables.cost_likeness` finds it."""
    return columns["row_no"], columns["arch_id"]


def _rows_like(connection: sa.Connection, wanted: set[_Likeness]) -> dict[_Likeness, list[_Stored]]:
    """likeness -> (target_id, row) of those that the store has under any session."""
    costs = schema.costs.c
    found: dict[_Likeness, list[_Stored]] = {}
    for chunk in _chunks(sorted(wanted)):
        # Joined, so that the index is used: SQLite looks through the whole table for pairs in a list.
        pairs = sa.values(costs.row_no, costs.arch_id, name="wanted").data(list(chunk)).cte()
        query = sa.select(costs.row_no, costs.arch_id, costs.target_id, costs.row).join_from(
            pairs,
            schema.costs,
            sa.and_(costs.row_no == pairs.c.row_no, costs.arch_id == pairs.c.arch_id),
        )
        for row_no, arch_id, target_id, row in connection.execute(query):
            found.setdefault((row_no, arch_id), []).append((target_id, row))
    return found


def _taken(connection: sa.Connection, keys: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """(session, row_no) of those that the store has."""
    costs = schema.costs.c
    by_session: dict[str, list[int]] = {}
    for session, row_no in keys:
        by_session.setdefault(session, []).append(row_no)
    found: set[tuple[str, int]] = set()
    for session, numbers in by_session.items():
        for chunk in _chunks(sorted(numbers)):
            query = sa.select(costs.row_no).where(costs.session == session, costs.row_no.in_(chunk))
            found.update((session, row_no) for row_no in connection.execute(query).scalars())
    return found


def _same(stored: _Stored, said: _Stored) -> bool:
    """Whether two rows are one, whatever their sessions are called; one without a figure is its session's only."""
    if stored[0] != said[0]:
        return False
    if not _has_figures(said[1]) and not _one_session(stored[1]["session"], said[1]["session"]):
        return False
    rows = [{"evidence": None, **row, "session": ""} for _, row in (stored, said)]
    evidences = [row.pop("evidence") for row in rows]
    if rows[0] == rows[1]:
        if evidences[0] == evidences[1]:
            return True
        # Read, because evidence that was written before a field was thought of lacks it.
        if None not in evidences and Evidence.from_json(evidences[0]) == Evidence.from_json(evidences[1]):
            return True
    # As text only where a NaN, which equals nothing, could stand.
    return not rows[0]["valid"] and _as_text(rows[0], evidences[0]) == _as_text(rows[1], evidences[1])


def _has_figures(row: Mapping[str, Any]) -> bool:
    """Whether anything of a row was measured; what failed before that says the same each time."""
    return any(row[name] for name in ("latency_ms", "energy_mj", "stages", "evidence"))


def _one_session(one: str, other: str) -> bool:
    """Whether two names may be of one session, one of them as imported, perhaps under a series."""
    shorter, longer = sorted((one, other), key=len)
    bare = shorter.removeprefix(SESSION_PREFIX)
    return longer.removeprefix(SESSION_PREFIX) == bare or (
        longer.startswith(SESSION_PREFIX) and longer.endswith(f"/{bare}")
    )


def _as_text(row: Mapping[str, Any], evidence: Mapping[str, Any] | None) -> str:
    whole = None if evidence is None else asdict(Evidence.from_json(evidence))
    return json.dumps({**row, "evidence": whole}, sort_keys=True)


def _add_target(connection: sa.Connection, target_id: str, fields: dict[str, Any]) -> None:
    known = sa.select(schema.targets.c.target_id).where(schema.targets.c.target_id == target_id)
    if connection.execute(known).first() is None:
        connection.execute(schema.targets.insert().values(target_id=target_id, fields=fields))


# -- lines known by their content ---------------------------------------------------------------


class _Ordinals:
    """Identities of the lines of one file."""

    def __init__(self, series: str) -> None:
        self._series = series
        self._seen: Counter[str] = Counter()

    def digest(self, text: str) -> str:
        first = tables.content_digest(self._series, 0, text)
        ordinal = self._seen[first]
        self._seen[first] += 1
        return tables.content_digest(self._series, ordinal, text) if ordinal else first


class Telemetry:
    """Lines of tegrastats, into ``log_telemetry``."""

    def __init__(self, store: Store, path: Path, series: Series) -> None:
        self._store, self._path, self._series = store, path, series
        self._ordinals = _Ordinals(series.name)
        self._first = tables.first_reading(store, series.name)
        self.into: set[str] = set()
        self.holds: Holds = "telemetry"
        self.assumed_errors = 0

    def read(self, line: Line) -> dict[str, Any]:
        reading = tegrastats.parse_line(line.text, source=str(self._path), row=line.number)
        self._first = self._first or reading
        if difference := reading.differs_from(self._first):
            raise RecordError(
                f"is of another board than series '{self._series.name}' ({difference}); import the log of each board "
                "by itself, under a --series of its own",
                source=f"{self._path}, line {line.number}", row=None, field="line", value=line.text[:60],
            )  # fmt: skip
        total = reading.total
        return {
            "digest": self._ordinals.digest(line.text),
            "series": self._series.name,
            "line_no": line.number,
            "source": self._path.name,
            "total_mw": None if total is None else total.instant_mw,
            "gpu_hz": reading.gpu_hz,
            "emc_hz": reading.emc_hz,
            "line": line.text,
        }

    def write(self, batch: Sequence[tuple[Line, dict[str, Any]]]) -> list[Fate]:
        with writing(self._store) as connection:
            known = _known_digests(connection, tables.log_telemetry, [row["digest"] for _, row in batch])
            new = [row for _, row in batch if row["digest"] not in known]
            if new:
                self._series.note(connection)
                connection.execute(tables.log_telemetry.insert(), new)
                self.into.add(self._series.name)
        return ["known" if row["digest"] in known else "imported" for _, row in batch]


class CsvRows:
    """Rows of a CSV file: into ``cost_rows`` if its networks are of a space of ours, else into ``log_costs``."""

    def __init__(self, store: Store, path: Path, series: Series, column_map: ColumnMap) -> None:
        self._store, self._source, self._series, self._map = store, str(path), series, column_map
        self._reader = CsvReader(path, column_map, store)
        self._ordinals = _Ordinals(series.name)
        self._digests: dict[int, str] = {}
        self._session = SESSION_PREFIX + series.name
        self._targets: set[str] = set()
        self.into: set[str] = set()
        self.holds: Holds = "costs" if column_map.is_own else "foreign"
        self.assumed_errors = 0

    def read(self, line: Line) -> CsvRow | None:
        row = self._reader.read(line)
        if row is not None:
            self._digests[line.number] = self._ordinals.digest(line.text)
        return row

    def write(self, batch: Sequence[tuple[Line, CsvRow]]) -> list[Fate]:
        table = tables.log_rows if self._map.is_own else tables.log_costs
        digests = [self._digests.pop(line.number) for line, _ in batch]
        with writing(self._store) as connection:
            known = _known_digests(connection, table, digests)
            new = [
                (line, digest, row)
                for (line, row), digest in zip(batch, digests, strict=True)
                if digest not in known
            ]
            if new:
                self._series.note(connection)
                (self._insert_own if self._map.is_own else self._insert_foreign)(connection, new)
                self.into.add(self._session if self._map.is_own else self._series.name)
        return [self._fate(line, known.get(digest)) for (line, _), digest in zip(batch, digests, strict=True)]

    def _fate(self, line: Line, map_id: str | None) -> Fate:
        if map_id is None:
            return "imported"
        if map_id == self._map.map_id:
            return "known"
        return RecordError(
            f"series '{self._series.name}' has this line, read by another column map; import it under another --series",
            source=f"{self._source}, line {line.number}", row=None, field="line", value=line.text[:60],
        )  # fmt: skip

    def _add_targets(self, connection: sa.Connection, new: Sequence[tuple[Line, str, CsvRow]]) -> None:
        for _, _, row in new:
            if row.target_id not in self._targets:
                _add_target(connection, row.target_id, row.target)
                self._targets.add(row.target_id)

    def _insert_own(self, connection: sa.Connection, new: Sequence[tuple[Line, str, CsvRow]]) -> None:
        self._add_targets(connection, new)
        last = sa.select(sa.func.max(schema.costs.c.row_no)).where(schema.costs.c.session == self._session)
        found = connection.execute(last).scalar_one()
        first = 0 if found is None else int(found) + 1
        rows, names = [], []
        for row_no, (_, digest, row) in enumerate(new, start=first):
            rows.append(row.cost_columns(self._session, row_no))
            names.append(
                {"digest": digest, "map_id": self._map.map_id, "session": self._session, "row_no": row_no}
            )
        connection.execute(schema.costs.insert(), rows)
        connection.execute(tables.log_rows.insert(), names)
        self.assumed_errors += sum(row.assumes_error for _, _, row in new)

    def _insert_foreign(self, connection: sa.Connection, new: Sequence[tuple[Line, str, CsvRow]]) -> None:
        given = {"map_id": self._map.map_id, "series": self._series.name, "source": Path(self._source).name}
        connection.execute(
            tables.log_costs.insert(),
            [
                {**given, "digest": digest, "line_no": line.number, **row.foreign_columns()}
                for line, digest, row in new
            ],
        )


def _known_digests(connection: sa.Connection, table: sa.Table, digests: Sequence[str]) -> dict[str, str]:
    """digest -> map_id of those that a table has."""
    named = table.c.map_id if "map_id" in table.c else sa.literal("")
    known: dict[str, str] = {}
    for chunk in _chunks(digests):
        query = sa.select(table.c.digest, named).where(table.c.digest.in_(chunk))
        known.update((digest, map_id) for digest, map_id in connection.execute(query))
    return known


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _QUERY):
        yield values[start : start + _QUERY]
