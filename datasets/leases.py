"""Who holds which device, and which devices are out of order: leases in the store's database.

A lease has an owner and a time to live, which its holder's heartbeat renews; a lease that is not
renewed in time is free again.  Who waits is served by priority, then in order of arrival.  Several
processes, and with a database server several machines, may ask at once: every decision is one
transaction that excludes all others.  Times are the database's own, so that the clocks of those
who ask need not agree.

Units: seconds.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from ..errors import DeviceBusyError, DeviceError, StoreError
from .schema import exclusively
from .store import Store

TTL_S = 60.0
FAILURES_TO_QUARANTINE = 3
_POLL_S = 0.1
_TICKET_S = 3.0  # of one who waits and is not heard of: 30 polls

metadata = sa.MetaData()
leases = sa.Table(
    "device_leases",
    metadata,
    sa.Column("device", sa.String, primary_key=True),
    sa.Column("lease_id", sa.String, nullable=False),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("granted_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
)
tickets = sa.Table(
    "device_queue",
    metadata,
    sa.Column("ticket", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("device", sa.String, nullable=False, index=True),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)
health = sa.Table(
    "device_health",
    metadata,
    sa.Column("device", sa.String, primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("checked_at", sa.Float, nullable=False),
    sa.Column("quarantined", sa.Boolean, nullable=False),
)
# A row to lock where a database locks rows; SQLite locks the whole file.
gate = sa.Table("device_gate", metadata, sa.Column("id", sa.Integer, primary_key=True))


@dataclass(frozen=True, slots=True)
class Lease:
    """A device held by somebody.

    Attributes:
        device, owner: names.
        lease_id: unique; proves who holds it.
        granted_at, expires_at: seconds since 1970 on the database's clock.
    """

    device: str
    owner: str
    lease_id: str
    granted_at: float
    expires_at: float

    @property
    def expires_utc(self) -> str:
        """Expiry for people."""
        return datetime.fromtimestamp(self.expires_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@dataclass(frozen=True, slots=True)
class Health:
    """What the last checks of a device found.

    Attributes:
        failures: checks that failed in a row.
        reason: of the last failure, or empty.
        checked_at: seconds since 1970 on the database's clock.
        quarantined: whether it is given to nobody until it is released.
    """

    device: str
    failures: int
    reason: str
    checked_at: float
    quarantined: bool


class Leases:
    """Leases and health of all devices that are known by one store.

    Args:
        store: whose database keeps them.
    """

    def __init__(self, store: Store) -> None:
        self._engine = store.engine
        self._now = _clock_of(self._engine.dialect.name)
        self._prepare()

    # -- leases -----------------------------------------------------------------------------------

    def acquire(
        self, device: str, *, owner: str, ttl_s: float = TTL_S, priority: int = 0, wait_s: float = 0.0
    ) -> Lease:
        """Take a device, at once or after waiting for those who came before.

        Args:
            owner: who, for people, e.g. ``ana@build-3 study tx2``.
            ttl_s: how long it is held without a :meth:`renew`.
            priority: the highest is served first.
            wait_s: how long to wait for it.

        Raises:
            DeviceBusyError: somebody else holds it, or is before; says who and until when.
            DeviceError: it is in quarantine; says why.
        """
        give_up = time.monotonic() + wait_s
        ticket = self._queue_up(device, owner, priority)
        try:
            while True:
                with self._exclusive() as connection:
                    lease, busy = self._grant(connection, device, owner, ttl_s, ticket)
                if lease is not None:
                    return lease
                if time.monotonic() >= give_up:
                    raise DeviceBusyError(busy)
                time.sleep(_POLL_S)
        finally:
            with self._exclusive() as connection:
                connection.execute(tickets.delete().where(tickets.c.ticket == ticket))

    def renew(self, lease: Lease, ttl_s: float = TTL_S) -> Lease:
        """Hold on to a device for another ``ttl_s``.

        Raises:
            DeviceBusyError: it was not renewed in time, and somebody else took the device.
        """
        with self._exclusive() as connection:
            now = self._time(connection)
            row = connection.execute(sa.select(leases).where(leases.c.device == lease.device)).first()
            # One that ran out is still the holder's as long as nobody else took the device.
            if row is None or row.lease_id != lease.lease_id:
                holder = "nobody" if row is None else row.owner
                raise DeviceBusyError(
                    f"device '{lease.device}': the lease of {lease.owner} was not renewed by {lease.expires_utc} and "
                    f"{holder} holds it now; ask for it again"
                )
            connection.execute(
                leases.update().where(leases.c.device == lease.device).values(expires_at=now + ttl_s)
            )
        return Lease(lease.device, lease.owner, lease.lease_id, lease.granted_at, now + ttl_s)

    def release(self, lease: Lease) -> None:
        """Give a device back; nothing happens if it is not held any more."""
        with self._exclusive() as connection:
            connection.execute(
                leases.delete().where(leases.c.device == lease.device, leases.c.lease_id == lease.lease_id)
            )

    @contextmanager
    def hold(
        self, device: str, *, owner: str, ttl_s: float = TTL_S, priority: int = 0, wait_s: float = 0.0
    ) -> Iterator[HeldLease]:
        """Hold a device while the context lasts; a heartbeat renews the lease.

        Raises:
            DeviceBusyError, DeviceError: as :meth:`acquire`.
        """
        lease = self.acquire(device, owner=owner, ttl_s=ttl_s, priority=priority, wait_s=wait_s)
        held = HeldLease(self, lease, ttl_s)
        try:
            yield held
        finally:
            held.stop()
            self.release(lease)

    def active(self) -> tuple[Lease, ...]:
        """All leases that have not run out, by device."""
        with self._exclusive() as connection:
            now = self._time(connection)
            query = sa.select(leases).where(leases.c.expires_at > now).order_by(leases.c.device)
            return tuple(_lease(row) for row in connection.execute(query))

    # -- health -----------------------------------------------------------------------------------

    def report(self, device: str, failure: str = "") -> Health:
        """Note the outcome of a health check; three failures in a row put the device into quarantine.

        Args:
            failure: what was wrong; empty = it is well.
        """
        with self._exclusive() as connection:
            before = self._health(connection, device)
            failures = before.failures + 1 if failure else 0
            now = Health(
                device, failures, failure, self._time(connection),
                before.quarantined or failures >= FAILURES_TO_QUARANTINE,
            )  # fmt: skip
            self._put_health(connection, now)
        return now

    def quarantine(self, device: str, reason: str) -> None:
        """Give the device to nobody until it is released."""
        with self._exclusive() as connection:
            before = self._health(connection, device)
            self._put_health(
                connection, Health(device, before.failures + 1, reason, self._time(connection), True)
            )

    def end_quarantine(self, device: str) -> None:
        """Let the device be used again."""
        with self._exclusive() as connection:
            self._put_health(connection, Health(device, 0, "", self._time(connection), False))

    def health(self, device: str) -> Health:
        """What is known of a device; of one that was never checked, that it never failed."""
        with self._exclusive() as connection:
            return self._health(connection, device)

    # -- inside one transaction -------------------------------------------------------------------

    def _queue_up(self, device: str, owner: str, priority: int) -> int:
        with self._exclusive() as connection:
            expires_at = self._time(connection) + _TICKET_S
            added = connection.execute(
                tickets.insert().values(device=device, owner=owner, priority=priority, expires_at=expires_at)
            )
            assert added.inserted_primary_key is not None
            return int(added.inserted_primary_key[0])

    def _grant(
        self, connection: sa.Connection, device: str, owner: str, ttl_s: float, ticket: int
    ) -> tuple[Lease | None, str]:
        """The lease, or why there is none."""
        now = self._time(connection)
        connection.execute(tickets.delete().where(tickets.c.expires_at <= now, tickets.c.ticket != ticket))
        connection.execute(
            tickets.update().where(tickets.c.ticket == ticket).values(expires_at=now + _TICKET_S)
        )
        condition = self._health(connection, device)
        if condition.quarantined:
            raise DeviceError(
                f"device '{device}' is in quarantine ({condition.reason}); once it works again: hadas devices --release {device}, "
                "with the --devices file that names it"
            )
        held = self._active(connection, device, now)
        if held is not None:
            return None, (
                f"device '{device}' is held by {held.owner} until {held.expires_utc} at the least; if that process has "
                "ended, the lease runs out by itself then (hadas measure --wait 60 waits for it)"
            )
        query = (
            sa.select(tickets.c.ticket, tickets.c.owner)
            .where(tickets.c.device == device)
            .order_by(tickets.c.priority.desc(), tickets.c.ticket)
        )
        first = connection.execute(query).first()
        if first is not None and first.ticket != ticket:
            return None, f"device '{device}' is free, but {first.owner} waits for it and comes first"
        lease = Lease(device, owner, uuid.uuid4().hex, now, now + ttl_s)
        connection.execute(leases.delete().where(leases.c.device == device))
        connection.execute(
            leases.insert().values(
                device=device,
                lease_id=lease.lease_id,
                owner=owner,
                granted_at=now,
                expires_at=lease.expires_at,
            )
        )
        return lease, ""

    def _active(self, connection: sa.Connection, device: str, now: float) -> Lease | None:
        query = sa.select(leases).where(leases.c.device == device, leases.c.expires_at > now)
        row = connection.execute(query).first()
        return None if row is None else _lease(row)

    def _health(self, connection: sa.Connection, device: str) -> Health:
        row = connection.execute(sa.select(health).where(health.c.device == device)).first()
        if row is None:
            return Health(device, 0, "", 0.0, False)
        return Health(row.device, row.failures, row.reason, row.checked_at, row.quarantined)

    def _put_health(self, connection: sa.Connection, now: Health) -> None:
        connection.execute(health.delete().where(health.c.device == now.device))
        connection.execute(
            health.insert().values(
                device=now.device, failures=now.failures, reason=now.reason, checked_at=now.checked_at,
                quarantined=now.quarantined,
            )
        )  # fmt: skip

    def _time(self, connection: sa.Connection) -> float:
        return float(connection.execute(sa.select(self._now)).scalar_one())

    def _prepare(self) -> None:
        """Create what is missing; another process may be doing the same."""
        if self._engine.dialect.name == "sqlite":
            with self._exclusive() as connection:
                metadata.create_all(connection)
            return
        for attempt in range(2):
            try:
                with self._engine.begin() as connection:
                    metadata.create_all(connection)
                    if connection.execute(sa.select(gate.c.id)).first() is None:
                        connection.execute(gate.insert().values(id=1))
                return
            except sa.exc.SQLAlchemyError as error:
                if attempt:
                    raise StoreError(f"device leases: their tables cannot be made ({error})") from error

    @contextmanager
    def _exclusive(self) -> Iterator[sa.Connection]:
        """A transaction that no other one of this class runs beside.

        Raises:
            StoreError: the database cannot be used.
        """
        try:
            with exclusively(self._engine) as connection:
                if self._engine.dialect.name != "sqlite":
                    connection.execute(sa.select(gate.c.id).with_for_update())
                yield connection
        except sa.exc.SQLAlchemyError as error:
            first_line = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise StoreError(f"device leases: the database cannot be used ({first_line})") from error


class HeldLease:
    """A lease that a thread of this process renews at a third of its time to live."""

    def __init__(self, leases_: Leases, lease: Lease, ttl_s: float) -> None:
        self._leases = leases_
        self._ttl_s = ttl_s
        self._lost = ""
        self._stop = threading.Event()
        self.lease = lease
        self._thread = threading.Thread(target=self._beat, name=f"lease {lease.device}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Go on only while the device is ours.

        Raises:
            DeviceBusyError: the lease was lost.
        """
        if self._lost:
            raise DeviceBusyError(self._lost)

    def stop(self) -> None:
        """End the heartbeat."""
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self._ttl_s / 3):
            try:
                self.lease = self._leases.renew(self.lease, self._ttl_s)
            except DeviceBusyError as error:
                self._lost = str(error)
                return
            except StoreError:
                continue  # a database that is away for a moment; the next beat tells


def _lease(row: sa.Row[tuple[str, str, str, float, float]]) -> Lease:
    return Lease(row.device, row.owner, row.lease_id, row.granted_at, row.expires_at)


def _clock_of(dialect: str) -> sa.ColumnElement[Any]:
    """Seconds since 1970 by the database's clock."""
    if dialect == "sqlite":
        return sa.literal_column("(julianday('now') - 2440587.5) * 86400.0")
    return sa.extract("epoch", sa.func.clock_timestamp() if dialect == "postgresql" else sa.func.now())
