"""Which inference engines can really be imported here, with their versions."""

import subprocess
import sys
import time
from typing import Callable, Dict, List, Tuple

from .engines import find_trtexec

PROBE_S = 60.0  # importing torch from a cold SD card takes tens of seconds
_PROGRAM = "import sys, {0}; sys.stdout.write('version=' + {0}.__version__)"


def engines(pause: Callable[[float], None], limit_s: float = PROBE_S) -> Tuple[List[Dict[str, str]], bool]:
    """Import each engine in a process of its own, since a broken installation may end the process.

    Args:
        pause: waits that many seconds; whatever it raises ends the probing.
        limit_s: engines that have not answered by then do not count.

    Returns:
        Engines with their versions, and whether all have answered in time.
    """
    probes = {
        name: subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(name)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for name in ("torch", "onnxruntime")
    }
    end = time.monotonic() + limit_s
    complete = False
    try:
        while any(probe.poll() is None for probe in probes.values()) and time.monotonic() < end:
            pause(0.02)
        complete = all(probe.poll() is not None for probe in probes.values())
    finally:
        for probe in probes.values():
            if probe.poll() is None:
                probe.kill()
    found = []
    for name, probe in probes.items():
        printed = probe.communicate()[0].decode("utf-8", "replace")
        version = printed.rpartition("version=")[2].strip()
        if probe.returncode == 0 and version:
            found.append({"name": name, "version": version})
    if find_trtexec() is not None:
        # It tells its version only when it runs; the workload reports it with the engine it built.
        found.append({"name": "trtexec", "version": ""})
    return found, complete
