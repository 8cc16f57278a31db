"""Rows of quantized early-exit networks, in the same database as the store's own.

Append-only.  Accuracy depends on no accelerator and on no mapping, so rows are found by
:attr:`~hadas.spaces.quantized.QuantizedNetwork.trained_id`, whichever study and whichever cores they were
measured for.  It does depend on the shared start, whose weights come out otherwise on another machine, so rows
are found by its hash, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from ..errors import StoreError
from ..spaces.quantized import QuantizedNetwork
from .quantized_records import QuantizedRecord
from .records import OutcomeMatrix
from .store import Store

metadata = sa.MetaData()
quantized = sa.Table(
    "quantized_trainings",
    metadata,
    sa.Column("written_no", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("session", sa.String, nullable=False),
    sa.Column("row_no", sa.Integer, nullable=False),
    sa.Column("trained_id", sa.String, nullable=False),
    sa.Column("recipe_id", sa.String, nullable=False),
    sa.Column("split_id", sa.String, nullable=False),
    sa.Column("start_id", sa.String, nullable=False),
    sa.Column("valid", sa.Boolean, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("passing", sa.Boolean, nullable=False),
    sa.Column("network", sa.JSON, nullable=False),
    sa.Column("seconds", sa.JSON, nullable=False),
    sa.Column("hardware", sa.String, nullable=False),
    sa.Column("calibration", sa.LargeBinary),
    sa.Column("test", sa.LargeBinary),
    sa.UniqueConstraint("session", "row_no"),
    sa.Index("quantized_training_identity", "trained_id", "recipe_id", "split_id", "start_id"),
)

_IDS_PER_QUERY = 500  # databases bound the number of values in one query


class QuantizedStore:
    """The quantized networks' rows of one store.

    Args:
        store: whose database keeps them.

    Raises:
        StoreError: the database cannot be written.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        store.create_tables(metadata)

    def add(self, record: QuantizedRecord) -> None:
        """Append one row.

        Raises:
            RecordError: a row that contradicts itself; nothing is written.
            StoreError: the (session, row_no) is taken, or the database cannot be written.
        """
        record.check(f"session {record.session}")
        with self._store.transaction() as connection:
            connection.execute(quantized.insert().values(_to_row(record)))

    def find(
        self, networks: Iterable[QuantizedNetwork], *, recipe_id: str, split_id: str, start_id: str
    ) -> dict[str, QuantizedRecord]:
        """Rows of the given networks, tuned by one recipe from one shared start, whichever study measured them.

        Returns:
            ``trained_id`` -> the valid row that was written first, or the invalid one that was written last if it
            never succeeded; a network without any row is absent.
        """
        wanted = sorted({network.trained_id for network in networks})
        columns = quantized.c
        found: dict[str, QuantizedRecord] = {}
        for begin in range(0, len(wanted), _IDS_PER_QUERY):
            query = (
                sa.select(quantized)
                .where(
                    columns.trained_id.in_(wanted[begin : begin + _IDS_PER_QUERY]),
                    columns.recipe_id == recipe_id,
                    columns.split_id == split_id,
                    columns.start_id == start_id,
                )
                .order_by(columns.written_no)
            )
            for record in self._read(query):
                before = found.get(record.network.trained_id)
                if before is None or not before.valid:
                    found[record.network.trained_id] = record
        return found

    def records(self, session: str) -> tuple[QuantizedRecord, ...]:
        """Rows of one session in order of their numbers, valid and invalid."""
        query = sa.select(quantized).where(quantized.c.session == session).order_by(quantized.c.row_no)
        return self._read(query)

    def next_row(self, session: str) -> int:
        """First free row number of a session."""
        query = sa.select(sa.func.max(quantized.c.row_no)).where(quantized.c.session == session)
        ((last,),) = self._rows(query)
        return 0 if last is None else int(last) + 1

    def _read(self, query: sa.Select[Any]) -> tuple[QuantizedRecord, ...]:
        return tuple(_from_row(row._mapping) for row in self._rows(query))

    def _rows(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        try:
            with self._store.engine.connect() as connection:
                return connection.execute(query).all()
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(
                f"store {self._store.engine.url.render_as_string(hide_password=True)}: the rows of quantized networks "
                f"cannot be read ({error.__class__.__name__}). See that the database is whole and its server up; then "
                "run the same command again."
            ) from error


def _to_row(record: QuantizedRecord) -> dict[str, Any]:
    return {
        "session": record.session,
        "row_no": record.row_no,
        "trained_id": record.network.trained_id,
        "recipe_id": record.recipe_id,
        "split_id": record.split_id,
        "start_id": record.start_id,
        "valid": record.valid,
        "reason": record.reason,
        "passing": record.passing,
        "network": asdict(record.network),
        "seconds": dict(record.seconds),
        "hardware": record.hardware,
        "calibration": record.calibration.to_bytes() if record.calibration else None,
        "test": record.test.to_bytes() if record.test else None,
    }


def _from_row(row: Any) -> QuantizedRecord:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row["network"].items()
    }
    return QuantizedRecord(
        session=row["session"],
        row_no=row["row_no"],
        network=QuantizedNetwork(**fields),
        recipe_id=row["recipe_id"],
        split_id=row["split_id"],
        calibration=OutcomeMatrix.from_bytes(row["calibration"]) if row["calibration"] else None,
        test=OutcomeMatrix.from_bytes(row["test"]) if row["test"] else None,
        seconds=row["seconds"],
        valid=row["valid"],
        reason=row["reason"],
        passing=row["passing"],
        hardware=row["hardware"],
        start_id=row["start_id"],
    )
