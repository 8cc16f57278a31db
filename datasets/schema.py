"""The tables of the store, their version, and what brings an older database up to it."""

from __future__ import annotations

import sqlalchemy as sa

from ..errors import StoreError

VERSION = 1
"""Of the tables; a database of another version is refused."""

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

    Raises:
        StoreError: a database of another schema version.
    """
    metadata.create_all(engine)
    _check_version(engine, name)
    _add_missing_columns(engine)


def _check_version(engine: sa.Engine, name: str) -> None:
    with engine.begin() as connection:
        found = connection.execute(sa.select(meta.c.schema_version)).scalar_one_or_none()
        if found is None:
            connection.execute(meta.insert().values(schema_version=VERSION))
        elif found != VERSION:
            raise StoreError(
                f"store {name}: schema version {found}; this hadas reads version {VERSION}. Name a new file."
            )


def _add_missing_columns(engine: sa.Engine) -> None:
    """Columns that came later have a default, so that stores written before are read as they are."""
    late = accuracies.c.hardware
    if late.name in _accuracy_columns(engine):
        return
    kind = late.type.compile(engine.dialect)
    statement = sa.text(f"ALTER TABLE {accuracies.name} ADD COLUMN {late.name} {kind} DEFAULT ''")
    try:
        with engine.begin() as connection:
            connection.execute(statement)
    except sa.exc.SQLAlchemyError:
        if late.name not in _accuracy_columns(engine):  # else another process was faster
            raise


def _accuracy_columns(engine: sa.Engine) -> set[str]:
    return {column["name"] for column in sa.inspect(engine).get_columns(accuracies.name)}
