"""The one interface behind which every device stands, real, recorded or simulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

from ...datasets.records import CostRecord, Target, Truth
from ...spaces import Backbone, ClockTable, Exits, Setting, exits_from_heads


@dataclass(frozen=True)
class CostRequest:
    """One network at one setting: what a row is asked for."""

    backbone: Backbone
    exits: Exits
    setting: Setting

    @classmethod
    def of(cls, row: CostRecord, *, first_exit: int) -> Self:
        """What a row was asked for; ``first_exit`` is its space's."""
        exits = exits_from_heads(row.heads, first_exit=first_exit, n_blocks=row.backbone.n_blocks)
        return cls(row.backbone, exits, row.requested)

    @property
    def key(self) -> RequestKey:
        """What it has in common with its rows (see :func:`request_key`)."""
        return self.backbone.arch_id, self.exits.heads, self.setting.clocks_hz


RequestKey = tuple[str, tuple[tuple[int, int], ...], tuple[tuple[str, int], ...]]
"""Network, heads and clocks."""


def request_key(row: CostRecord) -> RequestKey:
    """The key of the request that a row answers."""
    return row.backbone.arch_id, row.heads, row.requested.clocks_hz


@dataclass(frozen=True)
class MeasurementPlan:
    """Rows to measure in one session.

    Attributes:
        session: identity of the session that the rows will carry.
        requests: what to measure.  A device without drift measures them in order, row i of the session being
            ``requests[i]``; a real one measures the first one first, the others in random order, and some
            of them again (anchors, failed rows).
        first_row: rows before this one are already in the store: ``requests[:first_row]`` is what they measured.
            A simulated device goes on exactly as it would have without the interruption.
        seed: fixes the random order, and everything random about a simulated device.
        earlier: the rows of the session before ``first_row``, in order: what a real device compares anchors with.
    """

    session: str
    requests: tuple[CostRequest, ...]
    first_row: int = 0
    seed: int = 0
    earlier: tuple[CostRecord, ...] = ()


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
        """Yield at least one record per request from ``plan.first_row`` on, each as soon as it is measured.

        Row numbers ascend from ``plan.first_row``.  A failure is a record with a reason.

        Raises:
            OffTableFrequencyError: before anything is measured, if any request is off the table.
            ConnectionLostError: after the row that the device was lost in.
        """
        ...
