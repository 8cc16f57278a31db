"""Which board this is: what the device tree, the release and the power mode say."""

import hashlib
import shutil
import subprocess
from typing import Any, Dict, List, Optional

from .sysfs import SysFs, parse_cores

CPU_FOLDER = "sys/devices/system/cpu"


def online_cores(fs: SysFs) -> List[int]:
    """Cores that are up.

    A core's own ``online`` file is asked first: core 0 often has none, which means that it is up.
    """
    cores = [int(name[3:]) for name in fs.names(CPU_FOLDER, r"cpu\d+")]
    if not cores:
        return parse_cores(fs.value_or(CPU_FOLDER + "/online"))
    return [core for core in cores if fs.value_or("%s/cpu%d/online" % (CPU_FOLDER, core), "1") == "1"]


def offline_cores(fs: SysFs) -> List[int]:
    """Cores that the board has and that are down."""
    present = parse_cores(fs.value_or(CPU_FOLDER + "/present"))
    return sorted(set(present) - set(online_cores(fs)))


def compatible(fs: SysFs) -> List[str]:
    """What the device tree calls the board, the most special name first."""
    text = fs.value_or("proc/device-tree/compatible")
    return [name for name in text.split("\0") if name]


def board(fs: SysFs) -> Dict[str, Any]:
    """The ``board`` member of what ``discover`` answers."""
    return {
        "model": fs.value_or("proc/device-tree/model"),
        "compatible": compatible(fs),
        "release": fs.value_or("etc/nv_tegra_release"),
        "kernel": fs.value_or("proc/sys/kernel/osrelease"),
        "serial_hash": serial_hash(fs),
        "nvpmodel": power_mode() if fs.root == "/" else None,
        "online_cores": online_cores(fs),
    }


def serial_hash(fs: SysFs) -> str:
    """16 hexadecimal digits that tell boards apart without giving away the serial number.

    A serial number is short enough to be guessed from a plain hash, so this one is made slow.
    Where the device tree has none, the machine id stands in; empty where there is neither.
    """
    serial = fs.value_or("proc/device-tree/serial-number") or fs.value_or("etc/machine-id")
    if not serial:
        return ""
    return hashlib.pbkdf2_hmac("sha256", serial.encode(), b"hadas board identity", 50000).hex()[:16]


def power_mode() -> Optional[Dict[str, Any]]:
    """Current power mode by NVIDIA's own tool, or ``None`` where it is missing or will not say.

    In a container the tool ignores the request and still exits with 0.
    """
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    try:
        done = subprocess.run(
            [tool, "-q"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=5.0,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_power_mode(done.stdout.decode("utf-8", "replace"))


def parse_power_mode(text: str) -> Optional[Dict[str, Any]]:
    """Id, name and fan mode from what ``nvpmodel -q`` prints; ``None`` if it names no mode."""
    mode: Dict[str, Any] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == "NV Power Mode":
            mode["name"] = value.strip()
        elif colon and key.strip() == "NV Fan Mode":
            mode["fan"] = value.strip()
        elif "name" in mode and line.strip().isdigit():
            mode["id"] = int(line.strip())
    return mode if "name" in mode else None
