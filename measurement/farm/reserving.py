"""From a name in the devices file to a device to measure on: its lease, its rig, its health."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...datasets.leases import HeldLease, Leases
from ...datasets.records import Program
from ...errors import DeviceBusyError, DeviceError, HadasError, HotDeviceError
from ...spaces import MBConvSpace, mini_space
from ..hardware.measuring.protocol import MeasuringProtocol
from ..hardware.measuring.runner import MeasuredDevice
from ..hardware.remote.boards import board_name, release_name
from ..hardware.remote.client import AgentClient
from ..hardware.remote.transport import LocalTransport, SshTransport, Transport
from ..hardware.rig import Rig
from .devices import CudaConfig, DeviceConfig, HostCpuConfig, JetsonConfig

_LISTENING_S = 1.0
_SETTLING_S = 15.0
_DISCOVERY_S = 120.0  # it imports every engine to see its version


def owner_name(purpose: str = "") -> str:
    """Who asks for a lease: user, machine, process, and what for."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no entry for this user id, as in a container
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} process {os.getpid()}" + (f" ({purpose})" if purpose else "")


def transport_of(config: JetsonConfig) -> Transport:
    """How a board is reached."""
    if config.transport == "local":
        return LocalTransport()
    ssh = config.transport
    return SshTransport(ssh.ssh, user=ssh.user, port=ssh.port, options=ssh.options)


def open_client(config: JetsonConfig, *, may_write: bool) -> AgentClient:
    """A connection to a board's agent.

    Args:
        may_write: whether the agent may set clocks, if the devices file allows that.

    Raises:
        UnreachableDeviceError, DeviceBusyError, ConnectionLostError, DeviceError: as they say.
    """
    return AgentClient(
        transport_of(config),
        allow_dvfs=config.allow_dvfs and may_write,
        sudo=config.sudo,
        python=config.python,
        program=config.agent,
    )


def open_rig(config: DeviceConfig, *, space: MBConvSpace, n_classes: int) -> Rig:
    """The rig of a device, without a lease.

    Raises:
        HadasError: it cannot be used; says why.
    """
    # Rigs of this machine need torch at import, those behind an agent do not before they export.
    if isinstance(config, HostCpuConfig):
        from ..hardware.local.host_cpu import HostCpuRig

        return HostCpuRig(space, n_classes, threads=config.threads, engine=config.engine)
    if isinstance(config, CudaConfig):
        from ..hardware.local.cuda import CudaRig

        return CudaRig(
            space, n_classes, index=config.index, engine=config.engine, dtype=config.dtype,
            allow_clock_locking=config.allow_dvfs,
        )  # fmt: skip
    from ..hardware.remote.jetson import JetsonRig

    client = open_client(config, may_write=True)
    return JetsonRig(client, config.settings, space=space, n_classes=n_classes)


@dataclass(frozen=True)
class ReservedDevice:
    """A device under a lease (see :class:`.parallel.FarmDevice`).

    Attributes:
        name: in the devices file.
        device: to measure on.
        held: its lease, renewed by a heartbeat.
    """

    name: str
    device: MeasuredDevice
    held: HeldLease

    def check(self) -> None:
        """See that the lease holds and that the device answers.

        Raises:
            DeviceError: not so.
        """
        self.held.check()
        self.device.rig.state()


@contextmanager
def reserve(
    name: str, config: DeviceConfig, leases: Leases, protocol: MeasuringProtocol, *, space: MBConvSpace,
    n_classes: int, program: Program = "stages", purpose: str = "", priority: int = 0, wait_s: float = 0.0,
    raw_directory: Path | None = None,
) -> Iterator[ReservedDevice]:  # fmt: skip
    """Hold the lease of a device and its rig while the context lasts.

    A device that cannot be opened, does not answer any more, or is not left as it was found has failed a health
    check.  One that somebody else holds has not, nor one that is hot, nor one that is well while others fail.

    Args:
        raw_directory: where the power readings of every row are kept; ``None`` = nowhere.
        purpose: told to others who want the device.
        priority, wait_s: as in :meth:`~hadas.datasets.leases.Leases.acquire`.

    Raises:
        DeviceBusyError: somebody else holds it; says who and until when.
        HadasError: it is in quarantine, or cannot be opened; says why.
    """
    with leases.hold(name, owner=owner_name(purpose), priority=priority, wait_s=wait_s) as held:
        with _reporting(name, leases):
            rig = open_rig(config, space=space, n_classes=n_classes)
        leases.report(name)
        device = MeasuredDevice(
            rig, protocol, space=space, n_classes=n_classes, program=program, raw_directory=raw_directory,
            check=held.check,
        )  # fmt: skip
        try:
            yield ReservedDevice(name, device, held)
        except DeviceBusyError:
            raise
        except DeviceError:
            with suppress(DeviceError), _reporting(name, leases):
                rig.state()  # the error may be another device's
            raise
        finally:
            with _reporting(name, leases):
                rig.close()


@contextmanager
def _reporting(name: str, leases: Leases) -> Iterator[None]:
    """What fails in here is a failed health check, unless the device is only in use elsewhere, or hot."""
    try:
        yield
    except (DeviceBusyError, HotDeviceError):
        raise
    except DeviceError as error:
        leases.report(name, str(error))
        raise


@dataclass(frozen=True, slots=True)
class CheckUp:
    """What a health check found.

    Attributes:
        failure: what is wrong, or empty.
        facts: (what, value) pairs for people: board, release, clocks, sensor ...
    """

    failure: str
    facts: tuple[tuple[str, str], ...] = ()


def check_up(name: str, config: DeviceConfig, leases: Leases) -> CheckUp:
    """See whether a device can be worked with, without writing anything on it, and note it.

    A board is connected to; its agent tells what there is, reads every clock, and listens to
    the power sensor for a second.  A device that somebody holds is left alone.

    Raises:
        DeviceBusyError: somebody holds it.
    """
    if leases.health(name).quarantined:  # no lease is given, and none is needed
        found = _look_at(config)
    else:
        with leases.hold(name, owner=owner_name("health check")):
            found = _look_at(config)
    leases.report(name, found.failure)
    return found


def _look_at(config: DeviceConfig) -> CheckUp:
    """Connect and look.

    Raises:
        DeviceBusyError: another agent holds the board.
    """
    try:
        if isinstance(config, JetsonConfig):
            with open_client(config, may_write=False) as client:
                return _look_at_board(client)
        return _look_at_rig(config)
    except DeviceBusyError:
        raise
    except HadasError as error:
        return CheckUp(str(error))


def _look_at_board(client: AgentClient) -> CheckUp:
    found = client.request("discover", deadline_s=_DISCOVERY_S)
    state = client.request("state")
    board = found["board"]
    facts = [
        ("board", f"{board_name(board)} ({board['model'] or 'no model name'})"),
        ("release", release_name(board["release"])),
        ("agent", f"{client.hello['agent']}, Python {client.hello['python']}"),
        *((f"clock {domain['name']}", _clock_fact(domain, state["actual"])) for domain in found["domains"]),
        (
            "engines",
            ", ".join(f"{e['name']} {e.get('version') or ''}".strip() for e in found["engines"]) or "none",
        ),
        ("clocks writable", "yes" if found["writable"] else "no: run the agent as root (sudo: true)"),
        *((("flags", ", ".join(found["flags"])),) if found["flags"] else ()),
    ]
    unread = [domain["name"] for domain in found["domains"] if not state["actual"].get(domain["name"])]
    if unread:
        return CheckUp(f"clocks {', '.join(unread)} cannot be read; run the agent as root", tuple(facts))
    if found["sensor"] is None:
        return CheckUp("", (*facts, ("power sensor", "none: latency alone is measured")))
    trace = client.request("idle", deadline_s=_LISTENING_S + _SETTLING_S, seconds=_LISTENING_S)["trace"]
    scope_w = [
        sum(powers) for powers in zip(*(trace["power_w"][label] for label in found["scope"]), strict=True)
    ]
    if not scope_w or max(scope_w) <= 0:
        return CheckUp(f"power sensor {found['sensor']['name']} is dead: it shows no power", tuple(facts))
    sensor = f"{found['sensor']['name']}: {'+'.join(found['scope'])} = {max(scope_w):.2f} W"
    return CheckUp("", (*facts, ("power sensor", sensor)))


def _clock_fact(domain: Mapping[str, Any], actual_hz: Mapping[str, int]) -> str:
    table = domain["frequencies_hz"]
    now = f"{actual_hz[domain['name']] / 1e6:g} MHz now" if actual_hz.get(domain["name"]) else "not readable"
    return f"{len(table)} steps, {table[0] / 1e6:g} to {table[-1] / 1e6:g} MHz, {now}"


def _look_at_rig(config: DeviceConfig) -> CheckUp:
    """A rig of this machine: it is made and read, nothing is run on it."""
    rig = open_rig(config, space=mini_space(), n_classes=2)
    try:
        target, energy, state = rig.target, rig.energy, rig.state()
    finally:
        rig.close()
    facts = [
        ("board", f"{target.board} {target.processor}"),
        ("release", target.release),
        ("runtime", target.runtime),
        ("energy", "not counted: latency alone is measured" if energy is None else energy.name),
    ]
    if state.temperature_c is not None:
        facts.append(("temperature", f"{state.temperature_c:g} °C"))
    return CheckUp("", tuple(facts))
