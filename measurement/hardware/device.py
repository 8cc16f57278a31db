"""The one interface behind which every device stands, real, recorded or simulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ...datasets.records import CostRecord, Target, Truth
from ...spaces import Backbone, ClockTable, Exits, Setting


@dataclass(frozen=True)
class CostRequest:
    """One network at one setting: what a row is asked for."""

    backbone: Backbone
    exits: Exits
    setting: Setting


@dataclass(frozen=True)
class MeasurementPlan:
    """Rows to measure in one session, in order.

    Attributes:
        session: identity of the session that the rows will carry.
        requests: what to measure; row i of the session is ``requests[i]``.
        first_row: rows before this one are already in the store (a resumed plan skips them;
            the remaining rows come out exactly as they would have without the interruption).
        seed: fixes everything random about a simulated device.
    """

    session: str
    requests: tuple[CostRequest, ...]
    first_row: int = 0
    seed: int = 0


class Device(Protocol):
    """Something that can run an early-exit network and say what it cost."""

    @property
    def target(self) -> Target: ...
    @property
    def truth(self) -> Truth: ...
    @property
    def counts_energy(self) -> bool:
        """Whether rows have energies."""
        ...

    def clock_table(self) -> ClockTable:
        """Clocks read from the device, never assumed."""
        ...

    def measure(self, plan: MeasurementPlan) -> Iterator[CostRecord]:
        """Yield one record per request from ``plan.first_row`` on; a failure is a record with a reason.

        Raises:
            OffTableFrequencyError: before anything is measured, if any request is off the table.
        """
        ...
