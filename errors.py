"""Every error that a user of hadas can cause, in one place.

All of them derive from :class:`HadasError`; the command line prints the message
without a traceback and exits with status 2.  A message names the thing at fault
(file, row, field, unit) and what to do about it.
"""

from __future__ import annotations

from typing import Any


class HadasError(Exception):
    """Base of all errors that are the input's fault, not the program's."""


class SpaceError(HadasError):
    """A design that its space does not contain (unknown gene value, bad length)."""


class OffTableFrequencyError(HadasError):
    """A clock frequency that the device's table does not list."""

    def __init__(self, domain: str, frequency_hz: int, table_hz: tuple[int, ...]) -> None:
        nearest = min(table_hz, key=lambda known: abs(known - frequency_hz))
        super().__init__(
            f"clock '{domain}_hz': {frequency_hz} Hz is not in the device's table of "
            f"{len(table_hz)} frequencies; the nearest is {nearest} Hz. "
            "A device rounds an unknown request in silence, so hadas refuses it."
        )
        self.domain = domain
        self.frequency_hz = frequency_hz


class RecordError(HadasError):
    """A measurement record with an impossible value; names source, row, field and unit."""

    def __init__(
        self, reason: str, *, source: str, row: int | None, field: str, unit: str = "", value: Any = None
    ) -> None:
        where = source if row is None else f"{source}, row {row}"
        named = f"{field} [{unit}]" if unit else field
        super().__init__(f"{where}: {named} = {value!r}: {reason}")
        self.source, self.row, self.field, self.unit, self.value = source, row, field, unit, value


class DataError(HadasError):
    """Images or labels that cannot be read; names the file and the row."""


class CheckpointError(HadasError):
    """Weights that do not fit the space or the data they are asked for."""


class TrainingError(HadasError):
    """A training that its recipe led to numbers that are not finite; names the step."""


class ConfigError(HadasError):
    """A study configuration that does not validate; names every field at fault."""


class StoreError(HadasError):
    """A store that cannot be opened, or that holds another schema."""


class StudyError(HadasError):
    """A study asked for something that its state or its configuration forbids."""


class InfeasibleError(StudyError):
    """Constraints that nothing in the search space meets.

    Attributes:
        constraints: in words, those that no design meets, or all of them if each is met by some design alone.
    """

    def __init__(self, message: str, constraints: tuple[str, ...]) -> None:
        super().__init__(message)
        self.constraints = constraints


class ModelError(HadasError):
    """A predictor asked about what it was not made for, or a model file that is not one."""


class DeviceError(HadasError):
    """A device that cannot do what it is asked for; names the device and the remedy."""


class AcceleratorError(HadasError):
    """An accelerator whose cost model cannot be asked, or has no answer; names the core, the layer and the remedy."""


class DeviceBusyError(DeviceError):
    """A device that somebody else holds; names the holder, and until when."""


class HotDeviceError(DeviceError):
    """A device that is well, but too hot to set its clocks now."""


class UnreachableDeviceError(DeviceError):
    """A device that cannot be worked with at all.

    Attributes:
        cause: ``host-unknown``, ``host-silent``, ``key-refused``, ``host-key-changed``,
            ``host-key-unknown``, ``no-python``, ``no-sudo`` or ``refused``.
    """

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class ConnectionLostError(DeviceError):
    """The link to a device broke; an agent that is cut off restores the device by itself."""
