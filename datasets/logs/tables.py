"""Tables for what logs hold beside cost rows of our own spaces: they stand beside the store's, in its database.

``log_rows`` says which row of a CSV file became which cost row.  ``log_costs`` holds costs of networks that no
space of ours contains, ``log_telemetry`` lines of tegrastats.  A row is known by its ``digest``: of the series,
of what the line says, and of how many equal lines came before it in the file.  ``log_files`` remembers which
files a series was made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from .. import schema
from ..records import Target, Truth
from ..store import Store
from . import tegrastats
from .readings import TegrastatsRecord

metadata = sa.MetaData()
log_rows = sa.Table(
    "log_rows",
    metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("map_id", sa.String, nullable=False),
    sa.Column("session", sa.String, nullable=False),
    sa.Column("row_no", sa.Integer, nullable=False),
    sa.UniqueConstraint("session", "row_no"),
)
log_costs = sa.Table(
    "log_costs",
    metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("map_id", sa.String, nullable=False),
    sa.Column("series", sa.String, nullable=False, index=True),
    sa.Column("line_no", sa.Integer, nullable=False),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("truth", sa.String, nullable=False),
    sa.Column("target_id", sa.String, nullable=False, index=True),
    sa.Column("target", sa.JSON, nullable=False),
    sa.Column("network", sa.String, nullable=False),
    sa.Column("features", sa.JSON, nullable=False),
    sa.Column("clocks_hz", sa.JSON, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("latency_error_ms", sa.Float),
    sa.Column("energy_mj", sa.Float),
    sa.Column("energy_error_mj", sa.Float),
    sa.Column("power_mw", sa.Float),
    sa.Column("runs", sa.Integer),
    sa.Column("kept", sa.JSON, nullable=False),
)
log_telemetry = sa.Table(
    "log_telemetry",
    metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("series", sa.String, nullable=False, index=True),
    sa.Column("line_no", sa.Integer, nullable=False),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("total_mw", sa.Integer),
    sa.Column("gpu_hz", sa.BigInteger),
    sa.Column("emc_hz", sa.BigInteger),
    sa.Column("line", sa.Text, nullable=False),
)
log_files = sa.Table(
    "log_files",
    metadata,
    sa.Column("series", sa.String, primary_key=True),
    sa.Column("sha256", sa.String, primary_key=True),
    sa.Column("n_bytes", sa.BigInteger, nullable=False),
)

cost_likeness = sa.Index("cost_likeness", schema.costs.c.row_no, schema.costs.c.arch_id)
"""Finds cost rows that may say the same, whatever their session; stores from before it get it at their next import."""


@dataclass(frozen=True, slots=True)
class ForeignCost:
    """Cost of a network that no space of ours contains, measured by others.

    Attributes:
        series, line_no, source: the log, the line in it, and the file it came from.
        network, features: its name, and what is known of it by name.
        clocks_hz: (domain, Hz) pairs.
        latency_ms, energy_mj, power_mw: ``None`` where the log has none.
        latency_error_ms, energy_error_mj, runs: standard errors and runs, ``None`` where the log has none.
        kept: further columns as text.
    """

    series: str
    line_no: int
    source: str
    truth: Truth
    target: Target
    network: str
    features: dict[str, float]
    clocks_hz: tuple[tuple[str, int], ...]
    latency_ms: float
    latency_error_ms: float | None
    energy_mj: float | None
    energy_error_mj: float | None
    power_mw: float | None
    runs: int | None
    kept: dict[str, str]


def prepare(store: Store) -> None:
    """Create what is missing of these tables.

    Raises:
        StoreError: the database cannot be written.
    """
    store.create_tables(metadata)
    with store.transaction() as connection:
        connection.execute(sa.schema.CreateIndex(cost_likeness, if_not_exists=True))


def series_names(store: Store, *of: sa.Table) -> tuple[str, ...]:
    """Every series of some of :data:`log_costs` and :data:`log_telemetry`, by default of both."""
    prepare(store)
    found: set[str] = set()
    with store.transaction() as connection:
        for table in of or (log_costs, log_telemetry):
            found.update(connection.execute(sa.select(table.c.series).distinct()).scalars())
    return tuple(sorted(found))


def foreign_costs(store: Store, series: str | None = None) -> tuple[ForeignCost, ...]:
    """Costs of networks that no space of ours contains, in the order of their lines."""
    prepare(store)
    query = sa.select(log_costs).order_by(log_costs.c.series, log_costs.c.line_no, log_costs.c.digest)
    if series is not None:
        query = query.where(log_costs.c.series == series)
    with store.transaction() as connection:
        return tuple(_foreign_cost(row._mapping) for row in connection.execute(query))


def _foreign_cost(row: Any) -> ForeignCost:
    pinned = tuple((name, value) for name, value in row["target"]["pinned"])
    taken = {
        name: row[name] for name in ForeignCost.__slots__ if name not in ("truth", "target", "clocks_hz")
    }
    return ForeignCost(
        truth=Truth(row["truth"]),
        target=Target(**{**row["target"], "pinned": pinned}),
        clocks_hz=tuple((name, hz) for name, hz in row["clocks_hz"]),
        **taken,
    )


def first_reading(store: Store, series: str) -> TegrastatsRecord | None:
    """The first line of tegrastats of one series."""
    return next(telemetry(store, series, limit=1), None)


def telemetry(store: Store, series: str, *, limit: int | None = None) -> Iterator[TegrastatsRecord]:
    """Lines of tegrastats of one series, in their order; the first of them if there is a limit."""
    for _, reading in numbered_telemetry(store, series, limit=limit):
        yield reading


def numbered_telemetry(
    store: Store, series: str, *, limit: int | None = None
) -> Iterator[tuple[tuple[int, str], TegrastatsRecord]]:
    """The same, each with its line number and the file that it came from."""
    prepare(store)
    query = (
        sa.select(log_telemetry.c.line, log_telemetry.c.line_no, log_telemetry.c.source)
        .where(log_telemetry.c.series == series)
        .order_by(log_telemetry.c.line_no, log_telemetry.c.digest)
        .limit(limit)
    )
    with store.transaction() as connection:
        found = connection.execute(query).all()
    for line, line_no, source in found:
        yield (line_no, source), tegrastats.parse_line(line, source=source, row=line_no)


def content_digest(series: str, ordinal: int, text: str) -> str:
    """Identity of a line by what it says.

    Args:
        ordinal: how many equal lines came before it in its file.
    """
    return hashlib.blake2b(f"{series}\0{ordinal}\0{text}".encode(), digest_size=16).hexdigest()
