"""Devices: which there are, who holds them, and how they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError, DeviceBusyError
from .printing import console, print_table

if TYPE_CHECKING:
    from ..datasets.leases import Leases
    from ..measurement.farm.devices import DeviceConfig
    from ..measurement.farm.reserving import CheckUp

DevicesFile = Annotated[
    Path | None,
    typer.Option("--devices", help="A devices file: boards and where they are; see `hadas devices --help`."),
]


def devices(
    devices_file: DevicesFile = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Connect to each, read clocks and sensors, write nothing; note the outcome."
        ),
    ] = False,
    release: Annotated[
        str | None, typer.Option(help="Let this device out of quarantine, once it is mended.")
    ] = None,
) -> None:
    """List this machine's devices and those of a devices file: who holds them, and how they are.

    A devices file is YAML, a name of your own for each device:

        tx2-left:
          kind: jetson                      # jetson | host-cpu | cuda
          transport: {ssh: tx2-left.lan}    # an alias of ~/.ssh/config will do; or: local
          allow_dvfs: true                  # may clocks be set?  They are restored in any case
          sudo: true                        # the agent as root (sudo -n): clocks and sensors are root's
          domains: {gpu: [gpu], emc: [emc]} # clocks to search over -> clocks of the board
          pinned: {cpu0: max}               # clocks to hold

    docs/devices.md explains every field.
    """
    from ..measurement.farm.opening import LOCAL_DEVICES, known_devices, leases_of

    known = known_devices(devices_file)
    if release is not None:
        if release not in known:
            raise ConfigError(f"--release {release}: no such device; known: {sorted(known)}")
        leases_of(None if release in LOCAL_DEVICES else devices_file).end_quarantine(release)
    rows, checks = [], {}
    for name, config in known.items():
        leases = leases_of(None if name in LOCAL_DEVICES else devices_file)
        is_here = _is_here(name, config)
        if check and is_here:
            checks[name] = _check_up(name, config, leases)
        health = _health(name, leases, devices_file) if is_here else "no NVIDIA GPU here"
        rows.append((name, config.kind, _reached(config), _held_by(name, leases), health))
    print_table("devices", ("device", "kind", "reached by", "held by", "health"), rows)
    for name, found in checks.items():
        print_table(name, ("", ""), [*found.facts, ("verdict", found.failure or "well")])
    if any(found.failure for found in checks.values()):
        raise typer.Exit(1)
    if not check:
        console.print("--check connects to each and says what it offers.", highlight=False)


def _is_here(name: str, config: DeviceConfig) -> bool:
    """False for the GPU that every machine may name and this one lacks: that is no failure."""
    if config.kind != "cuda" or name != "cuda":
        return True
    import torch

    return torch.cuda.is_available()


def _check_up(name: str, config: DeviceConfig, leases: Leases) -> CheckUp:
    from ..measurement.farm.reserving import CheckUp, check_up

    try:
        return check_up(name, config, leases)
    except DeviceBusyError as error:
        return CheckUp("", (("left alone", str(error)),))


def _reached(config: DeviceConfig) -> str:
    if config.kind != "jetson":
        return "this machine"
    if config.transport == "local":
        return "this machine, by its agent"
    ssh = config.transport
    return f"ssh {ssh.user + '@' if ssh.user else ''}{ssh.ssh}{f':{ssh.port}' if ssh.port else ''}"


def _held_by(name: str, leases: Leases) -> str:
    held = [lease for lease in leases.active() if lease.device == name]
    return f"{held[0].owner}, until {held[0].expires_utc} unless renewed" if held else "nobody"


def _health(name: str, leases: Leases, devices_file: Path | None) -> str:
    health = leases.health(name)
    if health.quarantined:
        where = f" --devices {devices_file}" if devices_file else ""
        return f"QUARANTINE: {health.reason} (hadas devices{where} --release {name} ends it)"
    if health.failures:
        return f"failed {health.failures} times: {health.reason}"
    return "no complaint"
