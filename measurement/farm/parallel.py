"""Measuring on several devices of one kind at once: one queue, one thread and one session per device.

A device that dies gives back what it has not measured, and is put into quarantine; one that somebody
else has taken gives back as well, and no more.  The others go on.  Rows come out as they are measured, whichever device they are from.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from ...datasets.believable import is_anchor, judged
from ...datasets.records import CostRecord
from ...errors import ConfigError, DeviceBusyError, DeviceError
from ..hardware.device import CostRequest, Device, MeasurementPlan, request_key

_CHUNK = 4  # requests that a device takes at a time: the idle device is read once for all of them


class FarmDevice(Protocol):
    """A device of a farm, reserved for one caller."""

    @property
    def name(self) -> str:
        """Its name in the devices file."""
        ...

    @property
    def device(self) -> Device: ...
    def check(self) -> None:
        """See whether it can be worked with; called after every row.

        Raises:
            DeviceError: it cannot; says why.
        """
        ...


def session_of(plan: MeasurementPlan, name: str) -> str:
    """Session of one device of a parallel plan: rows of different devices never share one."""
    return f"{plan.session}@{name}"


def measure_in_parallel(
    devices: Sequence[FarmDevice], plan: MeasurementPlan, *,
    on_death: Callable[[str, str], None] | None = None,
) -> Iterator[CostRecord]:  # fmt: skip
    """Measure a plan on several devices side by side.

    Args:
        devices: of the same target; each is measured on by one thread.
        plan: what to measure; of ``plan.earlier``, each device's own rows (see :func:`session_of`) say how its
            session began.
        on_death: called with a device's name and what is wrong with it, once it can no longer be used.

    Yields:
        Rows, each as soon as it is measured; sessions and row numbers say which device it was.

    Raises:
        ConfigError: devices of different targets, or none; before anything is measured.
        OffTableFrequencyError: a request that is off their table; before anything is measured.
        DeviceBusyError: every device was taken by somebody else before all was measured; after all rows.
        DeviceError: the same of devices of which one at least died.
    """
    check_same_target(devices)
    table = devices[0].device.clock_table()
    for request in plan.requests:
        table.check(request.setting)
    return _Crew(devices, plan, on_death or (lambda name, reason: None)).run()


def check_same_target(devices: Sequence[FarmDevice]) -> None:
    """Refuse to mix devices whose costs do not compare.

    Raises:
        ConfigError: names the devices and the field in which they differ.
    """
    if not devices:
        raise ConfigError("no device to measure on; name at least one")
    first = devices[0]
    for other in devices[1:]:
        for field in fields(first.device.target):
            mine, theirs = (getattr(farm.device.target, field.name) for farm in (first, other))
            if mine != theirs:
                raise ConfigError(
                    f"devices '{first.name}' and '{other.name}' are not of one kind: {field.name} is {mine!r} and "
                    f"{theirs!r}; measure on them in studies of their own"
                )
        if first.device.clock_table().domains != other.device.clock_table().domains:
            raise ConfigError(
                f"devices '{first.name}' and '{other.name}' list different frequencies; bring them to one release"
            )


@dataclass(frozen=True, slots=True)
class _Done:
    """A worker's last word.

    Attributes:
        death: why its device cannot be worked with any more, or nothing.
        is_taken: the device is well, but somebody else holds it now.
    """

    name: str
    death: str = ""
    is_taken: bool = False


class _Crew:
    """The workers of one parallel plan, and the queue that they share."""

    def __init__(
        self, devices: Sequence[FarmDevice], plan: MeasurementPlan, on_death: Callable[[str, str], None]
    ) -> None:
        self._devices = devices
        self._plan = plan
        self._on_death = on_death
        self._todo = deque(_shuffled(plan))
        self._n_taken = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._out: queue.SimpleQueue[CostRecord | _Done | BaseException] = queue.SimpleQueue()

    def run(self) -> Iterator[CostRecord]:
        """Start the workers, pass on what they measure, and see them end."""
        threads = [
            threading.Thread(target=self._guarded, args=(farm,), name=f"measuring on {farm.name}")
            for farm in self._devices
        ]
        for thread in threads:
            thread.start()
        deaths: list[_Done] = []
        fault: BaseException | None = None
        try:
            n_working = len(threads)
            while n_working:
                message = self._out.get()
                if isinstance(message, CostRecord):
                    yield message
                    continue
                n_working -= 1
                if isinstance(message, BaseException):
                    fault = fault or message
                    self._stop()
                elif message.death:
                    deaths.append(message)
                    if not message.is_taken:
                        self._on_death(message.name, message.death)
        finally:
            self._stop()
            for thread in threads:
                thread.join()
        if fault is not None:
            raise fault
        if self._todo:
            told = "; ".join(f"{death.name}: {death.death}" for death in deaths)
            kind = DeviceBusyError if all(death.is_taken for death in deaths) else DeviceError
            raise kind(f"{len(self._todo)} requests were not measured: no device is left ({told})")

    def _stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _guarded(self, farm: FarmDevice) -> None:
        try:
            self._out.put(self._work(farm))
        except BaseException as error:  # a fault of the program: the caller must see it
            self._out.put(error)

    def _work(self, farm: FarmDevice) -> _Done:
        """Measure until nothing is left, or the device is lost."""
        session = session_of(self._plan, farm.name)
        rows = [row for row in self._plan.earlier if row.session == session]
        while chunk := self._take():
            left = list(chunk)
            try:
                self._measure(farm, session, rows, chunk, left)
            except DeviceError as error:
                return _Done(farm.name, str(error), isinstance(error, DeviceBusyError))
            finally:
                self._give_back(len(chunk), left)
        return _Done(farm.name)

    def _measure(
        self, farm: FarmDevice, session: str, rows: list[CostRecord], chunk: list[CostRequest],
        left: list[CostRequest],
    ) -> None:  # fmt: skip
        """Measure some requests; ``rows`` grows, and ``left`` keeps those that the device owes.

        Raises:
            DeviceError: the device cannot be worked with any more; of the type that says whether it is only taken.
        """
        known = [CostRequest.of(row, first_exit=chunk[0].exits.first_exit) for row in rows]
        plan = MeasurementPlan(
            session, (*known, *chunk), first_row=len(known), seed=self._plan.seed, earlier=tuple(rows)
        )
        n_before = len(rows)
        try:
            for row in farm.device.measure(plan):
                rows.append(row)
                self._out.put(row)
                if self._stopping:
                    left.clear()
                    return
                farm.check()
        except DeviceError:
            left[:] = _owed(chunk, rows, n_before)
            raise
        left.clear()  # rows that failed on a device that is well have failed

    def _take(self) -> list[CostRequest]:
        """Some requests; none once all is done.  Waits while others may still give some back."""
        with self._changed:
            while not self._todo and self._n_taken and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return []
            share = -(-len(self._todo) // (2 * len(self._devices)))  # the last ones are shared evenly
            chunk = [self._todo.popleft() for _ in range(min(_CHUNK, share))]
            self._n_taken += len(chunk)
            return chunk

    def _give_back(self, n_taken: int, left: list[CostRequest]) -> None:
        with self._changed:
            self._n_taken -= n_taken
            if not self._stopping:
                self._todo.extendleft(reversed(left))
            self._changed.notify_all()


def _shuffled(plan: MeasurementPlan) -> list[CostRequest]:
    """What the plan still wants, in its random order."""
    wanted = plan.requests[plan.first_row :]
    order = np.random.default_rng([plan.seed, *plan.session.encode()]).permutation(len(wanted))
    return [wanted[i] for i in order]


def _owed(chunk: Sequence[CostRequest], rows: Sequence[CostRecord], n_before: int) -> list[CostRequest]:
    """Requests of a chunk without a row to believe."""
    verdicts = judged(rows)[n_before:]
    done = Counter(request_key(row) for row in verdicts if row.valid and not is_anchor(row))
    owed = []
    for request in chunk:
        key = request.key
        if done[key]:
            done[key] -= 1
        else:
            owed.append(request)
    return owed
