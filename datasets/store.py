"""The store: every record ever measured, and what each study decided, in one database.

Append-only.  Cost rows belong to a target; accuracy rows belong to none, so studies of
different devices share them.  A study's journal is a list of events, each with a unique key:
what is journalled is never computed twice, so running the same command again continues.

SQLite (write-ahead log, one writer at a time) by default; any SQLAlchemy URL works.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..errors import StoreError
from ..spaces import Backbone, Setting
from .records import AccuracyRecord, CostRecord, OutcomeMatrix, StageCost, Statistic, Target, Truth

SCHEMA_VERSION = 1

_metadata = sa.MetaData()
_meta = sa.Table("meta", _metadata, sa.Column("schema_version", sa.Integer, nullable=False))
_targets = sa.Table(
    "targets",
    _metadata,
    sa.Column("target_id", sa.String, primary_key=True),
    sa.Column("fields", sa.JSON, nullable=False),
)
_costs = sa.Table(
    "cost_rows",
    _metadata,
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
_accuracies = sa.Table(
    "accuracy_rows",
    _metadata,
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
_studies = sa.Table(
    "studies",
    _metadata,
    sa.Column("study_id", sa.String, primary_key=True),
    sa.Column("config", sa.JSON, nullable=False),
)
_events = sa.Table(
    "events",
    _metadata,
    sa.Column("event_no", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("study_id", sa.String, sa.ForeignKey("studies.study_id"), nullable=False, index=True),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.UniqueConstraint("study_id", "key"),
)


@dataclass(frozen=True, slots=True)
class AccuracyExpense:
    """What one accuracy row cost.

    Attributes:
        session: of the row; names the study that measured it.
        space, weights_id, split_id: what it was measured on.
        hardware, seconds, valid: as in :class:`AccuracyRecord`.
    """

    session: str
    space: str
    weights_id: str
    split_id: str
    hardware: str
    seconds: Mapping[str, float]
    valid: bool


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
            self._engine = sa.create_engine(self.url)
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _configure_sqlite)
            _metadata.create_all(self._engine)
            self._check_schema()
            self._add_missing_columns()
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

    def _check_schema(self) -> None:
        with self._engine.begin() as connection:
            found = connection.execute(sa.select(_meta.c.schema_version)).scalar_one_or_none()
            if found is None:
                connection.execute(_meta.insert().values(schema_version=SCHEMA_VERSION))
            elif found != SCHEMA_VERSION:
                raise StoreError(
                    f"store {self._name}: schema version {found}; this hadas reads version {SCHEMA_VERSION}. Name a new file."
                )

    def _add_missing_columns(self) -> None:
        """Columns that came later have a default, so that stores written before are read as they are."""
        late = _accuracies.c.hardware
        if late.name in self._accuracy_columns():
            return
        kind = late.type.compile(self._engine.dialect)
        statement = sa.text(f"ALTER TABLE {_accuracies.name} ADD COLUMN {late.name} {kind} DEFAULT ''")
        try:
            with self._engine.begin() as connection:
                connection.execute(statement)
        except sa.exc.SQLAlchemyError:
            if late.name not in self._accuracy_columns():  # else another process was faster
                raise

    def _accuracy_columns(self) -> set[str]:
        return {column["name"] for column in sa.inspect(self._engine).get_columns(_accuracies.name)}

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

    def _write(self, statements: Sequence[sa.Executable]) -> None:
        """Run statements in one transaction.  The only place where rows are written."""
        try:
            with self._engine.begin() as connection:
                for statement in statements:
                    connection.execute(statement)
        except sa.exc.IntegrityError as error:
            raise StoreError(
                f"store {self._name}: row exists already ({_first_line(error)}). Another hadas seems to be "
                "measuring this study; let it finish, then run the same command again."
            ) from error
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(
                f"store {self._name}: cannot be written ({_first_line(error)}). {_REMEDY}"
            ) from error

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
                _targets.insert().values(target_id=record.target.target_id, fields=asdict(record.target))
            )
        statements.append(
            _costs.insert().values(
                session=record.session,
                row_no=record.row_no,
                arch_id=record.backbone.arch_id,
                target_id=record.target.target_id,
                truth=str(record.truth),
                valid=record.valid,
                reason=record.reason,
                device_seconds=record.device_seconds,
                latency_ms=record.latency_ms.value if record.latency_ms else None,
                energy_mj=record.energy_mj.value if record.energy_mj else None,
                row=_cost_to_json(record),
            )
        )
        self._write(statements)

    def _has_target(self, target_id: str) -> bool:
        query = sa.select(_targets.c.target_id).where(_targets.c.target_id == target_id)
        with self._reading() as connection:
            return connection.execute(query).first() is not None

    def costs(self, *, session: str | None = None, target_id: str | None = None) -> tuple[CostRecord, ...]:
        """Cost rows in order of (session, row_no), valid and invalid, optionally of one session or target."""
        query = (
            sa.select(_costs.c.row, _targets.c.fields)
            .join(_targets)
            .order_by(_costs.c.session, _costs.c.row_no)
        )
        if session is not None:
            query = query.where(_costs.c.session == session)
        if target_id is not None:
            query = query.where(_costs.c.target_id == target_id)
        with self._reading() as connection:
            return tuple(_cost_from_json(row, target) for row, target in connection.execute(query))

    # -- accuracy -----------------------------------------------------------------------------

    def add_accuracy(self, record: AccuracyRecord) -> None:
        """Append one accuracy row.

        Raises:
            StoreError: the (session, row_no) is taken.
        """
        self._write(
            [
                _accuracies.insert().values(
                    session=record.session,
                    row_no=record.row_no,
                    arch_id=record.backbone.arch_id,
                    weights_id=record.weights_id,
                    recipe_id=record.recipe_id,
                    split_id=record.split_id,
                    first_exit=record.first_exit,
                    valid=record.valid,
                    reason=record.reason,
                    backbone=asdict(record.backbone),
                    seconds=dict(record.seconds),
                    calibration=record.calibration.to_bytes() if record.calibration else None,
                    test=record.test.to_bytes() if record.test else None,
                    hardware=record.hardware,
                )
            ]
        )

    def accuracy(
        self, arch_ids: Sequence[str], *, weights_id: str, recipe_id: str, split_id: str
    ) -> dict[str, AccuracyRecord]:
        """Accuracy rows of the given backbones under one recipe, whichever study measured them.

        Returns:
            arch_id -> its valid row, or its latest invalid one if it never succeeded; a
            backbone without any row is absent.
        """
        query = (
            sa.select(_accuracies)
            .where(
                _accuracies.c.arch_id.in_(list(arch_ids)),
                _accuracies.c.weights_id == weights_id,
                _accuracies.c.recipe_id == recipe_id,
                _accuracies.c.split_id == split_id,
            )
            .order_by(_accuracies.c.valid, _accuracies.c.session, _accuracies.c.row_no)
        )
        with self._reading() as connection:
            records = [_accuracy_from_row(row._mapping) for row in connection.execute(query)]
        found = {record.backbone.arch_id: record for record in records}
        return {arch_id: found[arch_id] for arch_id in arch_ids if arch_id in found}

    def accuracy_expenses(self, recipe_id: str) -> tuple[AccuracyExpense, ...]:
        """What the accuracy rows of one exit recipe cost, of all studies, valid and invalid."""
        columns = _accuracies.c
        query = (
            sa.select(
                columns.session, columns.backbone, columns.weights_id, columns.split_id, columns.hardware,
                columns.seconds, columns.valid,
            )
            .where(columns.recipe_id == recipe_id)
            .order_by(columns.session, columns.row_no)
        )  # fmt: skip
        with self._reading() as connection:
            return tuple(
                AccuracyExpense(session, backbone["space"], *rest)
                for session, backbone, *rest in connection.execute(query)
            )

    def n_accuracy_rows(self) -> int:
        """Number of accuracy rows of all studies."""
        with self._reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(_accuracies)).scalar_one())

    def next_accuracy_row(self, session: str) -> int:
        """First free row number of a session."""
        query = sa.select(sa.func.max(_accuracies.c.row_no)).where(_accuracies.c.session == session)
        with self._reading() as connection:
            last = connection.execute(query).scalar_one()
        return 0 if last is None else int(last) + 1

    # -- studies and their journals --------------------------------------------------------------

    def study_ids(self) -> tuple[str, ...]:
        """Names of all studies."""
        with self._reading() as connection:
            return tuple(
                connection.execute(sa.select(_studies.c.study_id).order_by(_studies.c.study_id)).scalars()
            )

    def study_config(self, study_id: str) -> dict[str, Any] | None:
        """The configuration a study was created with, or ``None`` if there is no such study."""
        query = sa.select(_studies.c.config).where(_studies.c.study_id == study_id)
        with self._reading() as connection:
            found: dict[str, Any] | None = connection.execute(query).scalar_one_or_none()
        return found

    def put_study(self, study_id: str, config: Mapping[str, Any]) -> None:
        """Create a study, or replace the configuration of one."""
        if self.study_config(study_id) is None:
            self._write([_studies.insert().values(study_id=study_id, config=dict(config))])
        else:
            self._write(
                [_studies.update().where(_studies.c.study_id == study_id).values(config=dict(config))]
            )

    def journal(self, study_id: str, key: str, payload: Mapping[str, Any]) -> None:
        """Append one event; its key is unique within the study.

        Raises:
            StoreError: the key is taken.
        """
        json.dumps(payload, allow_nan=True)  # fails here, with a clear traceback, rather than in the driver
        self._write([_events.insert().values(study_id=study_id, key=key, payload=dict(payload))])

    def event(self, study_id: str, key: str) -> dict[str, Any] | None:
        """Payload of one event, or ``None``."""
        query = sa.select(_events.c.payload).where(_events.c.study_id == study_id, _events.c.key == key)
        with self._reading() as connection:
            found: dict[str, Any] | None = connection.execute(query).scalar_one_or_none()
        return found

    def event_keys(self, study_id: str) -> tuple[str, ...]:
        """Keys of all events of a study, oldest first."""
        query = sa.select(_events.c.key).where(_events.c.study_id == study_id).order_by(_events.c.event_no)
        with self._reading() as connection:
            return tuple(connection.execute(query).scalars())


def _configure_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _first_line(error: sa.exc.SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def backbone_from_json(fields: Mapping[str, Any]) -> Backbone:
    """The inverse of ``dataclasses.asdict`` on a :class:`Backbone` that went through JSON."""
    return Backbone(
        space=fields["space"],
        resolution=fields["resolution"],
        width=tuple(fields["width"]),
        depth=tuple(fields["depth"]),
        kernel=tuple(fields["kernel"]),
        expand=tuple(fields["expand"]),
    )


def setting_from_json(clocks: Sequence[Sequence[Any]]) -> Setting:
    """The inverse of listing a :class:`Setting`'s ``clocks_hz``."""
    return Setting(tuple((name, hz) for name, hz in clocks))


def _statistic(fields: Mapping[str, Any] | None) -> Statistic | None:
    return None if fields is None else Statistic(**fields)


def _cost_to_json(record: CostRecord) -> dict[str, Any]:
    row = asdict(record)
    del row["target"]
    row["truth"] = str(record.truth)
    return row


def _cost_from_json(row: Mapping[str, Any], target: Mapping[str, Any]) -> CostRecord:
    stages = tuple(
        StageCost(s["kind"], s["position"], Statistic(**s["latency_ms"]), _statistic(s["energy_mj"]))
        for s in row["stages"]
    )
    pinned = tuple((name, value) for name, value in target["pinned"])
    return CostRecord(
        **{
            **row,
            "backbone": backbone_from_json(row["backbone"]),
            "heads": tuple((position, head) for position, head in row["heads"]),
            "requested": setting_from_json(row["requested"]["clocks_hz"]),
            "actual": setting_from_json(row["actual"]["clocks_hz"]),
            "target": Target(**{**target, "pinned": pinned}),
            "truth": Truth(row["truth"]),
            "stages": stages,
            "latency_ms": _statistic(row["latency_ms"]),
            "energy_mj": _statistic(row["energy_mj"]),
        }
    )


def _accuracy_from_row(row: Any) -> AccuracyRecord:
    return AccuracyRecord(
        session=row["session"],
        row_no=row["row_no"],
        backbone=backbone_from_json(row["backbone"]),
        weights_id=row["weights_id"],
        recipe_id=row["recipe_id"],
        split_id=row["split_id"],
        first_exit=row["first_exit"],
        calibration=OutcomeMatrix.from_bytes(row["calibration"]) if row["calibration"] else None,
        test=OutcomeMatrix.from_bytes(row["test"]) if row["test"] else None,
        seconds=row["seconds"],
        valid=row["valid"],
        reason=row["reason"],
        hardware=row["hardware"],
    )
