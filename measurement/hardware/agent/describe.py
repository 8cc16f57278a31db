"""What the agent says of the board and of itself."""

import datetime
import hashlib
import time
from typing import Any, Dict, List, Optional

from . import identity, sensors
from .clocks import Clocks
from .discovery import EmcDomain
from .journal import Journal
from .rails import PowerSensor
from .sysfs import SysFs
from .worker import agent_file

VERSION = "hadas-agent 1"

Message = Dict[str, Any]


def describe(
    fs: SysFs, clocks: Clocks, sensor: Optional[PowerSensor], engines: List[Dict[str, str]]
) -> Message:
    """What ``discover`` tells of the board."""
    domains: List[Message] = []
    for domain in clocks.found.domains:
        entry: Message = {"name": domain.name, "frequencies_hz": list(domain.frequencies_hz)}
        if domain.cores:
            entry["cores"] = list(domain.cores)
        domains.append(entry)
    flags = list(clocks.found.flags)
    named = None
    if sensor is not None:
        flags.extend(sensor.flags)
        named = {
            "name": sensor.name, "averaging_s": sensor.averaging_s, "update_s": sensor.update_s,
            "poll_s": sensor.poll_s,
        }  # fmt: skip
    return {
        "board": identity.board(fs),
        "domains": domains,
        "rails": [rail.label for rail in sensor.rails] if sensor else [],
        "scope": list(sensor.scope) if sensor else [],
        "sensor": named,
        "temperatures": sensors.temperatures(fs),
        "has_overcurrent_counter": sensors.overcurrent_events(fs) is not None,
        "engines": engines,
        "writable": writable(fs, clocks),
        "flags": flags,
    }


def journal_flags(journal: Journal, restoring: bool) -> List[str]:
    """What the host should know about an earlier agent's journal."""
    left = ["restore-incomplete" if restoring else "stale-journal"] if journal.entries else []
    return journal.flags + left


def writable(fs: SysFs, clocks: Clocks) -> bool:
    """Whether clocks could be set if that were allowed."""
    files = []
    for domain in clocks.found.domains:
        if isinstance(domain, EmcDomain):
            files.append(domain.lock)
        else:
            files.extend(file for folder in domain.folders for file in domain.limits(folder))
    return bool(files) and all(fs.writable(path) for path in files)


def agent_version() -> str:
    """Version, and the digest of the file that runs."""
    archive = agent_file()
    if not archive:
        return VERSION + " (sources)"
    with open(archive, "rb") as file:
        return "%s sha256:%s" % (VERSION, hashlib.sha256(file.read()).hexdigest())


def now() -> Message:
    """The board's two clocks; only the first one is computed with."""
    utc = datetime.datetime.now(datetime.timezone.utc)
    return {"monotonic_s": time.monotonic(), "utc": utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
