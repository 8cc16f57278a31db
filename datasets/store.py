"""The store: every record ever measured, and what each study decided, in one database.

Append-only.  Cost rows belong to a target; accuracy rows belong to none, so studies of
different devices share them.  A study's journal is a list of events, each with a unique key:
what is journalled is never computed twice, so running the same command again continues.

SQLite (write-ahead log, one writer at a time) by default; any SQLAlchemy URL works.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..errors import StoreError
from . import rows, schema
from .records import AccuracyRecord, CostRecord


@dataclass(frozen=True, slots=True)
class AccuracyExpense:
    """What one accuracy row cost.

    Attributes:
        session: of the row; names the study that measured it.
        space, split_id: what it was measured on; the space's name tells the width of its exit heads.
        hardware, seconds, valid: as in :class:`AccuracyRecord`.
    """

    session: str
    space: str
    split_id: str
    hardware: str
    seconds: Mapping[str, float]
    valid: bool


_N_WAL_ATTEMPTS, _WAL_PAUSE_S = 100, 0.05
_REMEDY = (
    "See that the database is whole, its disk not full and its server up; then run the same command again."
)


class Store:
    """All records and journals behind one database URL.

    Every method that writes is one transaction: after a kill, a write is there whole or not at all.
    """

    def __init__(self, url: str) -> None:
        """Open, and create what is missing.

        Args:
            url: a path to an SQLite file, or any SQLAlchemy database URL.

        Raises:
            StoreError: not a database, unreachable, or of another schema version.
        """
        self.url = url if "://" in url else f"sqlite:///{Path(url)}"
        remedy = "Name a new file, or a database that this user may write."
        try:
            if self.url.startswith("sqlite:///"):
                Path(self.url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            self._engine = sa.create_engine(self.url, json_serializer=rows.to_json)
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _configure_sqlite)
            schema.prepare(self._engine, self._name)
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(
                f"store {self._name}: cannot be opened ({_first_line(error)}). {remedy}"
            ) from error
        except OSError as error:
            raise StoreError(
                f"store {self._name}: its folder cannot be made ({error.strerror}). {remedy}"
            ) from error
        except ModuleNotFoundError as error:
            raise StoreError(
                f"store {self._name}: the database driver '{error.name}' is not installed. "
                "Install it, or name an SQLite file."
            ) from error

    @property
    def _name(self) -> str:
        """The URL as messages show it: without its password."""
        try:
            return sa.make_url(self.url).render_as_string(hide_password=True)
        except sa.exc.ArgumentError:
            return self.url

    @property
    def engine(self) -> sa.Engine:
        """The database, for modules that keep tables of their own in it (see :mod:`.leases`)."""
        return self._engine

    def close(self) -> None:
        """Release the database."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """A connection for queries; every read goes through here."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(
                f"store {self._name}: cannot be read ({_first_line(error)}). {_REMEDY}"
            ) from error

    def create_tables(self, metadata: sa.MetaData) -> None:
        """Create what is missing of a module's own tables.

        Raises:
            StoreError: the database cannot be written.
        """
        try:
            schema.create_tables(self._engine, metadata)
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(
                f"store {self._name}: cannot be written ({_first_line(error)}). {_REMEDY}"
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A connection whose writes are all there once the context is left, or none of them.

        For modules of this package that write many rows at once, or keep tables of their own beside the store's.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.IntegrityError as error:
            raise StoreError(
                f"store {self._name}: row exists already ({_first_line(error)}). Another hadas seems to be "
                "measuring this study; let it finish, then run the same command again."
            ) from error
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(
                f"store {self._name}: cannot be written ({_first_line(error)}). {_REMEDY}"
            ) from error

    def _write(self, statements: Sequence[sa.Executable]) -> None:
        """Run statements in one transaction.  The only place where single rows are written."""
        with self.transaction() as connection:
            for statement in statements:
                connection.execute(statement)

    # -- cost ---------------------------------------------------------------------------------

    def add_cost(self, record: CostRecord) -> None:
        """Append one cost row.

        Raises:
            RecordError: a value that cannot be (see :meth:`CostRecord.check`); nothing is written.
            StoreError: the (session, row_no) is taken.
        """
        record.check(f"session {record.session}")
        statements: list[sa.Executable] = []
        if not self._has_target(record.target.target_id):
            statements.append(
                schema.targets.insert().values(
                    target_id=record.target.target_id, fields=asdict(record.target)
                )
            )
        statements.append(schema.costs.insert().values(rows.cost_to_row(record)))
        self._write(statements)

    def _has_target(self, target_id: str) -> bool:
        query = sa.select(schema.targets.c.target_id).where(schema.targets.c.target_id == target_id)
        with self._reading() as connection:
            return connection.execute(query).first() is not None

    def costs(self, *, session: str | None = None, target_id: str | None = None) -> tuple[CostRecord, ...]:
        """Cost rows in order of (session, row_no), valid and invalid, optionally of one session or target.

        A session that several devices shared has a part ``session@device`` for each of them: its rows are
        those of all parts.
        """
        query = (
            sa.select(schema.costs.c.row, schema.targets.c.fields)
            .join(schema.targets)
            .order_by(schema.costs.c.session, schema.costs.c.row_no)
        )
        if session is not None:
            own = schema.costs.c.session
            query = query.where((own == session) | own.startswith(f"{session}@", autoescape=True))
        if target_id is not None:
            query = query.where(schema.costs.c.target_id == target_id)
        with self._reading() as connection:
            return tuple(rows.cost_from_json(row, target) for row, target in connection.execute(query))

    def count_costs(self) -> dict[str, int]:
        """Cost rows by ``target_id``, valid and invalid."""
        column = schema.costs.c.target_id
        query = sa.select(column, sa.func.count()).group_by(column).order_by(column)
        with self._reading() as connection:
            return {target_id: int(n) for target_id, n in connection.execute(query)}

    # -- accuracy -----------------------------------------------------------------------------

    def add_accuracy(self, record: AccuracyRecord) -> None:
        """Append one accuracy row.

        Raises:
            StoreError: the (session, row_no) is taken.
        """
        self._write([schema.accuracies.insert().values(rows.accuracy_to_row(record))])

    def accuracy(
        self, arch_ids: Sequence[str], *, weights_id: str, recipe_id: str, split_id: str
    ) -> dict[str, AccuracyRecord]:
        """Accuracy rows of the given backbones under one recipe, whichever study measured them.

        Returns:
            arch_id -> its valid row, or its latest invalid one if it never succeeded; a
            backbone without any row is absent.
        """
        query = (
            sa.select(schema.accuracies)
            .where(
                schema.accuracies.c.arch_id.in_(list(arch_ids)),
                schema.accuracies.c.weights_id == weights_id,
                schema.accuracies.c.recipe_id == recipe_id,
                schema.accuracies.c.split_id == split_id,
            )
            .order_by(schema.accuracies.c.valid, schema.accuracies.c.session, schema.accuracies.c.row_no)
        )
        with self._reading() as connection:
            records = [rows.accuracy_from_row(row._mapping) for row in connection.execute(query)]
        found = {record.backbone.arch_id: record for record in records}
        return {arch_id: found[arch_id] for arch_id in arch_ids if arch_id in found}

    def accuracy_expenses(self, recipe_id: str) -> tuple[AccuracyExpense, ...]:
        """What the accuracy rows of one exit recipe cost, of all studies, valid and invalid."""
        columns = schema.accuracies.c
        query = (
            sa.select(
                columns.session, columns.backbone, columns.split_id, columns.hardware, columns.seconds,
                columns.valid,
            )
            .where(columns.recipe_id == recipe_id)
            .order_by(columns.session, columns.row_no)
        )  # fmt: skip
        with self._reading() as connection:
            return tuple(
                AccuracyExpense(session, backbone["space"], *rest)
                for session, backbone, *rest in connection.execute(query)
            )

    def next_accuracy_row(self, session: str) -> int:
        """First free row number of a session."""
        query = sa.select(sa.func.max(schema.accuracies.c.row_no)).where(
            schema.accuracies.c.session == session
        )
        with self._reading() as connection:
            last = connection.execute(query).scalar_one()
        return 0 if last is None else int(last) + 1

    # -- studies and their journals --------------------------------------------------------------

    def study_ids(self) -> tuple[str, ...]:
        """Names of all studies."""
        with self._reading() as connection:
            return tuple(
                connection.execute(
                    sa.select(schema.studies.c.study_id).order_by(schema.studies.c.study_id)
                ).scalars()
            )

    def study_config(self, study_id: str) -> dict[str, Any] | None:
        """The configuration a study was created with, or ``None`` if there is no such study."""
        query = sa.select(schema.studies.c.config).where(schema.studies.c.study_id == study_id)
        with self._reading() as connection:
            found: dict[str, Any] | None = connection.execute(query).scalar_one_or_none()
        return found

    def put_study(self, study_id: str, config: Mapping[str, Any]) -> None:
        """Create a study, or replace the configuration of one."""
        if self.study_config(study_id) is None:
            self._write([schema.studies.insert().values(study_id=study_id, config=dict(config))])
        else:
            self._write(
                [
                    schema.studies.update()
                    .where(schema.studies.c.study_id == study_id)
                    .values(config=dict(config))
                ]
            )

    def journal(self, study_id: str, key: str, payload: Mapping[str, Any]) -> None:
        """Append one event; its key is unique within the study.

        Raises:
            StoreError: the key is taken.
        """
        json.dumps(payload, allow_nan=True)  # fails here, with a clear traceback, rather than in the driver
        self._write([schema.events.insert().values(study_id=study_id, key=key, payload=dict(payload))])

    def event(self, study_id: str, key: str) -> dict[str, Any] | None:
        """Payload of one event, or ``None``."""
        query = sa.select(schema.events.c.payload).where(
            schema.events.c.study_id == study_id, schema.events.c.key == key
        )
        with self._reading() as connection:
            found: dict[str, Any] | None = connection.execute(query).scalar_one_or_none()
        return found

    def event_keys(self, study_id: str) -> tuple[str, ...]:
        """Keys of all events of a study, oldest first."""
        query = (
            sa.select(schema.events.c.key)
            .where(schema.events.c.study_id == study_id)
            .order_by(schema.events.c.event_no)
        )
        with self._reading() as connection:
            return tuple(connection.execute(query).scalars())


def _configure_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=30000")
    for attempt in range(_N_WAL_ATTEMPTS):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            # SQLite itself does not wait while another process does the same to a new file.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or attempt + 1 == _N_WAL_ATTEMPTS:
                raise
            time.sleep(_WAL_PAUSE_S)
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _first_line(error: sa.exc.SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
