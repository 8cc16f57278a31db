"""The tables of the store, their version, and what brings an older database up to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from ..errors import StoreError

VERSION = 1
"""Of the tables; a database of another version is refused."""
_N_ATTEMPTS = 5

metadata = sa.MetaData()
meta = sa.Table("meta", metadata, sa.Column("schema_version", sa.Integer, nullable=False))
targets = sa.Table(
    "targets",
    metadata,
    sa.Column("target_id", sa.String, primary_key=True),
    sa.Column("fields", sa.JSON, nullable=False),
)
costs = sa.Table(
    "cost_rows",
    metadata,
    sa.Column("session", sa.String, primary_key=True),
    sa.Column("row_no", sa.Integer, primary_key=True),
    sa.Column("arch_id", sa.String, nullable=False, index=True),
    sa.Column("target_id", sa.String, sa.ForeignKey("targets.target_id"), nullable=False, index=True),
    sa.Column("truth", sa.String, nullable=False),
    sa.Column("valid", sa.Boolean, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("device_seconds", sa.Float, nullable=False),
    sa.Column("latency_ms", sa.Float),
    sa.Column("energy_mj", sa.Float),
    sa.Column("row", sa.JSON, nullable=False),
)
accuracies = sa.Table(
    "accuracy_rows",
    metadata,
    sa.Column("session", sa.String, primary_key=True),
    sa.Column("row_no", sa.Integer, primary_key=True),
    sa.Column("arch_id", sa.String, nullable=False),
    sa.Column("weights_id", sa.String, nullable=False),
    sa.Column("recipe_id", sa.String, nullable=False),
    sa.Column("split_id", sa.String, nullable=False),
    sa.Column("first_exit", sa.Integer, nullable=False),
    sa.Column("valid", sa.Boolean, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("backbone", sa.JSON, nullable=False),
    sa.Column("seconds", sa.JSON, nullable=False),
    sa.Column("calibration", sa.LargeBinary),
    sa.Column("test", sa.LargeBinary),
    sa.Column("hardware", sa.String, server_default=""),
    sa.Index("accuracy_identity", "arch_id", "weights_id", "recipe_id", "split_id"),
)
studies = sa.Table(
    "studies",
    metadata,
    sa.Column("study_id", sa.String, primary_key=True),
    sa.Column("config", sa.JSON, nullable=False),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("event_no", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("study_id", sa.String, sa.ForeignKey("studies.study_id"), nullable=False, index=True),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.UniqueConstraint("study_id", "key"),
)


def prepare(engine: sa.Engine, name: str) -> None:
    """Create what is missing in a database; ``name`` is how messages call it.

    Several processes may open a new database at once: one of them creates everything.

    Raises:
        StoreError: a database of another schema version; nothing is changed in it.
    """
    with engine.connect() as connection:  # a store that is only read needs no lock
        if _is_complete(connection):
            _check_version(connection, name)
            return

    def complete(connection: sa.Connection) -> None:
        metadata.create_all(connection)
        if not _versions(connection):
            connection.execute(meta.insert().values(schema_version=VERSION))
        _check_version(connection, name)
        _add_missing_columns(connection)

    _change(engine, complete)


def create_tables(engine: sa.Engine, wanted: sa.MetaData) -> None:
    """Create what is missing of some tables, though other processes may be doing the same."""
    if not set(wanted.tables) <= set(sa.inspect(engine).get_table_names()):
        _change(engine, wanted.create_all)


def _change(engine: sa.Engine, change: Callable[[sa.Connection], None]) -> None:
    """Change tables in one transaction."""
    for attempt in range(_N_ATTEMPTS):
        try:
            with exclusively(engine) as connection:
                change(connection)
            return
        except sa.exc.SQLAlchemyError:
            # A database server lets others create tables meanwhile; what they made is there at the next attempt.
            if attempt + 1 == _N_ATTEMPTS or engine.dialect.name == "sqlite":
                raise


@contextmanager
def exclusively(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction; with SQLite one that nobody else writes beside, from its first read on.

    By itself SQLite's driver begins a transaction at its first write, and what was read before may be old then;
    tables it creates outside of any.
    """
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            yield connection
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")


def _is_complete(connection: sa.Connection) -> bool:
    there = set(sa.inspect(connection).get_table_names())
    return (
        set(metadata.tables) <= there
        and accuracies.c.hardware.name in _accuracy_columns(connection)
        and bool(_versions(connection))
    )


def _versions(connection: sa.Connection) -> set[int]:
    return set(connection.execute(sa.select(meta.c.schema_version)).scalars())


def _check_version(connection: sa.Connection, name: str) -> None:
    others = _versions(connection) - {VERSION}
    if others:
        raise StoreError(
            f"store {name}: schema version {max(others)}; this hadas reads version {VERSION}. Name a new file."
        )


def _add_missing_columns(connection: sa.Connection) -> None:
    """Columns that came later have a default, so that stores written before are read as they are."""
    late = accuracies.c.hardware
    if late.name not in _accuracy_columns(connection):
        kind = late.type.compile(connection.dialect)
        connection.execute(sa.text(f"ALTER TABLE {accuracies.name} ADD COLUMN {late.name} {kind} DEFAULT ''"))


def _accuracy_columns(connection: sa.Connection) -> set[str]:
    return {column["name"] for column in sa.inspect(connection).get_columns(accuracies.name)}
