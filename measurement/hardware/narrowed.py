"""A device of whose clocks only some may be chosen."""

from __future__ import annotations

from collections.abc import Iterator

from ...datasets.records import CostRecord, Target, Truth
from ...spaces import ClockTable
from .device import Device, MeasurementPlan


class NarrowedDevice:
    """A device that offers fewer clocks than it has.

    Args:
        device: what measures.
        table: clocks on offer, a subset of the device's.

    Raises:
        ConfigError: domains that are not the device's.
        OffTableFrequencyError: a frequency that the device does not have.
    """

    def __init__(self, device: Device, table: ClockTable) -> None:
        self._device = device
        self._table = device.clock_table().narrowed(table)

    @property
    def target(self) -> Target:
        """The device's: its costs do not depend on what is on offer."""
        return self._device.target

    @property
    def truth(self) -> Truth:
        """The device's."""
        return self._device.truth

    @property
    def counts_energy(self) -> bool:
        """The device's."""
        return self._device.counts_energy

    def clock_table(self) -> ClockTable:
        """The clocks on offer."""
        return self._table

    def measure(self, plan: MeasurementPlan) -> Iterator[CostRecord]:
        """As the device does.

        Raises:
            OffTableFrequencyError: before anything is measured, if any request is not on offer.
        """
        for request in plan.requests:
            self._table.check(request.setting)
        return self._device.measure(plan)
