"""From names to something to measure on: devices of this machine, of a devices file, or several as one.

Who measures holds a lease.  Leases of the devices of a file are kept beside it, those of this
machine's own devices in the user's cache: two studies that want one device meet there, whatever
their stores.
"""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ...datasets.leases import Leases
from ...datasets.records import CostRecord, Program, Target, Truth
from ...datasets.store import Store
from ...errors import ConfigError
from ...spaces import ClockTable, MBConvSpace
from ..hardware.device import Device, MeasurementPlan
from ..hardware.measuring.protocol import MeasuringProtocol
from .devices import CudaConfig, DeviceConfig, HostCpuConfig, JetsonConfig, load_devices
from .parallel import FarmDevice, check_same_target, measure_in_parallel
from .reserving import owner_name, reserve

LOCAL_DEVICES: dict[str, DeviceConfig] = {
    "host": HostCpuConfig(kind="host-cpu"),
    "cuda": CudaConfig(kind="cuda"),
}
"""Devices that need no file."""


def known_devices(devices_file: Path | None) -> dict[str, DeviceConfig]:
    """This machine's devices and those of a file, by name; the file's own come first where names clash.

    Raises:
        ConfigError: the file cannot be used.
    """
    return LOCAL_DEVICES | ({} if devices_file is None else load_devices(devices_file))


def chosen_devices(names: Sequence[str], devices_file: Path | None) -> dict[str, DeviceConfig]:
    """Devices by name.

    Raises:
        ConfigError: an unknown name, with the nearest known one.
    """
    known = known_devices(devices_file)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            where = f"in {devices_file} or of this machine" if devices_file else "of this machine"
            more = "" if devices_file else "; name others in a devices file (hadas devices --help)"
            raise ConfigError(f"no device '{name}' {where}{hint}; known: {sorted(known)}{more}")
    return {name: known[name] for name in dict.fromkeys(names)}


def leases_of(devices_file: Path | None) -> Leases:
    """Where the leases of a file's devices, or of this machine's own, are kept."""
    if devices_file is not None:
        return Leases(Store(str(devices_file.resolve().with_suffix(".leases.sqlite"))))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Leases(Store(str(cache / "hadas" / "leases.sqlite")))


@contextmanager
def hold_devices(
    names: Sequence[str], devices_file: Path | None, protocol: MeasuringProtocol, *, space: MBConvSpace,
    n_classes: int, program: Program = "stages", purpose: str = "", wait_s: float = 0.0,
    raw_directory: Path | None = None,
) -> Iterator[Device]:  # fmt: skip
    """Hold one device, or several of one kind as one, while the context lasts.

    Args:
        purpose: told to others who want the device.
        wait_s: how long to wait for somebody else's lease to end.
        raw_directory: where the power readings of every row are kept; ``None`` = nowhere.

    Raises:
        ConfigError: an unknown name, or devices of different kinds.
        DeviceBusyError: somebody else holds one; says who and until when.
        HadasError: a device that is in quarantine or cannot be opened.
    """
    chosen = chosen_devices(names, devices_file)
    leases, parts = leases_of(devices_file), _own_parts(chosen)
    with ExitStack() as held:
        for part in sorted(set(parts.values())):
            held.enter_context(leases_of(None).hold(part, owner=owner_name(purpose), wait_s=wait_s))
        devices = [
            held.enter_context(
                reserve(
                    name, config, leases, protocol, space=space, n_classes=n_classes, program=program,
                    purpose=purpose, wait_s=wait_s, raw_directory=raw_directory,
                )
            )
            for name, config in sorted(chosen.items())
        ]  # fmt: skip
        yield devices[0].device if len(devices) == 1 else SeveralDevices(devices, leases)


def _own_parts(chosen: Mapping[str, DeviceConfig]) -> dict[str, str]:
    """Which part of this machine each device is: it has one lease, whatever files call it.

    Raises:
        ConfigError: two devices that are the same part.
    """
    parts: dict[str, str] = {}
    machine = socket.gethostname()  # several machines may share one home
    for name, config in chosen.items():
        if isinstance(config, JetsonConfig):
            continue  # its agent sees to it that a board has one master
        part = (
            f"the GPU {config.index} of {machine}"
            if isinstance(config, CudaConfig)
            else f"the CPU of {machine}"
        )
        for other, taken in parts.items():
            if taken == part:
                raise ConfigError(f"devices '{other}' and '{name}' are both {part}; name one of them")
        parts[name] = part
    return parts


class SeveralDevices:
    """Devices of one kind as one: they share the queue of every plan.

    A device that dies is put into quarantine, and the others do its work.

    Raises:
        ConfigError: their targets or clocks differ.
    """

    def __init__(self, devices: Sequence[FarmDevice], leases: Leases) -> None:
        check_same_target(devices)
        self._devices = devices
        self._leases = leases

    @property
    def target(self) -> Target:
        """The same of all."""
        return self._devices[0].device.target

    @property
    def truth(self) -> Truth:
        """The same of all."""
        return self._devices[0].device.truth

    @property
    def counts_energy(self) -> bool:
        """Whether all of them count energy."""
        return all(reserved.device.counts_energy for reserved in self._devices)

    def clock_table(self) -> ClockTable:
        """The same of all."""
        return self._devices[0].device.clock_table()

    def measure(self, plan: MeasurementPlan) -> Iterator[CostRecord]:
        """See :func:`.parallel.measure_in_parallel`: rows of each device are a session of their own."""
        return measure_in_parallel(self._devices, plan, on_death=self._leases.quarantine)
