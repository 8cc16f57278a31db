"""What else this machine does while something is measured, and what kind of machine it is (Linux).

Measures are (name, value) pairs for :class:`~.rig.DeviceState`.  Those whose name ends in ``_s`` are
cumulative since some fixed moment: what counts is their difference over a measurement.  Where a file
does not exist, its measures are left out.

| name | meaning |
|---|---|
| ``cpu_total_s`` | time of all CPUs together, whatever they did |
| ``cpu_busy_s`` | of it, not idle and not waiting for a disk |
| ``cpu_steal_s`` | of it, taken by the hypervisor for other guests |
| ``process_cpu_s`` | CPU time of this process, all threads |
| ``wall_s`` | the monotonic clock |
| ``cpu_pressure_s`` | time in which some task waited for a CPU (PSI, ``some total``) |
| ``cpu_pressure_percent`` | share of it in the last 10 s (PSI, ``some avg10``) |
| ``load_1min`` | tasks that ran or waited, average of the last minute |
| ``cpu_hz`` | clock, mean over the CPUs that tell theirs |
"""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

Measures = tuple[tuple[str, float], ...]

ROOT = Path("/")


def machine_measures(root: Path = ROOT) -> Measures:
    """All measures that this machine gives, now.

    Args:
        root: where ``proc`` and ``sys`` stand.
    """
    return (
        ("wall_s", time.monotonic()),
        ("process_cpu_s", time.process_time()),
        *_cpu_times(root),
        *_pressure(root),
        *_load(root),
        *_clock(root),
    )


def _cpu_times(root: Path) -> Measures:
    """First line of /proc/stat: ticks of user, nice, system, idle, iowait, irq, softirq, steal; guests' time
    follows and is already part of user's and nice's (proc(5)).
    """
    words = _text(root / "proc/stat").partition("\n")[0].split()
    if words[:1] != ["cpu"] or len(words) < 9:
        return ()
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    times_s = [int(word) * tick_s for word in words[1:9]]
    total_s, idle_s, steal_s = sum(times_s), times_s[3] + times_s[4], times_s[7]
    return (("cpu_total_s", total_s), ("cpu_busy_s", total_s - idle_s), ("cpu_steal_s", steal_s))


def _pressure(root: Path) -> Measures:
    """``some avg10=4.89 avg60=1.74 avg300=1.41 total=6018793771``: percent, and microseconds."""
    found = re.search(r"^some avg10=([\d.]+) .*total=(\d+)", _text(root / "proc/pressure/cpu"), re.MULTILINE)
    if found is None:
        return ()
    return (("cpu_pressure_percent", float(found.group(1))), ("cpu_pressure_s", int(found.group(2)) / 1e6))


def _load(root: Path) -> Measures:
    words = _text(root / "proc/loadavg").split()
    return (("load_1min", float(words[0])),) if words else ()


def _clock(root: Path) -> Measures:
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    clocks_khz = [int(text) for file in files if (text := _text(file).strip()).isdecimal()]
    return (("cpu_hz", 1e3 * sum(clocks_khz) / len(clocks_khz)),) if clocks_khz else ()


def hottest_c(root: Path = ROOT) -> float | None:
    """Temperature of the hottest thermal zone, degrees Celsius; ``None`` without a zone that answers."""
    readings = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        text = _text(zone / "temp").strip()
        # Unpowered sensors show constants such as -256 or 0 degrees.
        if text.isdecimal() and int(text) > 0:
            readings.append(int(text) / 1e3)
    return max(readings, default=None)


def governors(root: Path = ROOT) -> tuple[str, ...]:
    """Names of the governors in use, sorted; empty where the system does not steer CPU clocks."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return tuple(sorted({name for file in files if (name := _text(file).strip())}))


def cpu_identity(root: Path = ROOT) -> tuple[str, bool]:
    """Model name in lower case with dashes, and whether this is a virtual machine."""
    text = _text(root / "proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    model = found.group(1) if found else platform.processor() or platform.machine()
    is_virtual = re.search(r"^flags\s*:.*\bhypervisor\b", text, re.MULTILINE) is not None
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-"), is_virtual


def _text(path: Path) -> str:
    """What the file holds, or nothing: a sensor whose domain is off answers with an error."""
    try:
        return path.read_text()
    except OSError:
        return ""
