"""A folder that looks like a Jetson's sysfs, with the kernel's behaviour on top.

What a plain folder cannot show: refused and clamped limits, rounding, clocks that follow their
limits with a lag, clusters of coupled cores, a memory clock with a lock and a cap, files that only
root may touch.  All state is in files, so that several processes in turn see one board.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

from hadas.measurement.hardware.agent.sysfs import SysFs

FLAVOURS = ("4.9", "5.x")
FAULTS = (
    "user",  # not root: nothing may be written, debugfs and cpuinfo_cur_freq are closed
    "emc-ignores",  # the firmware drops every rate that is asked for
    "late-devfreq",  # the GPU's clock appears when the GPU is first powered
    "overcurrent",  # the CPUs run at 242 MHz, and only cpuinfo_cur_freq shows it
    "lazy-governor",  # the GPU's clock follows its limits only under 'performance'
    "thermal-again",  # the first thermal zone's unit is gated
    "cooling",  # while a cooling device is at work, CPUs are capped, and limits show the cap
    "writes-lost",  # the first write of every limit is overruled by somebody else
)
OVERCURRENT_KHZ = 242_000
COOLED_KHZ = 1_190_400
LAG_READS = 3  # a new clock is seen at the fourth look

_CLOCKS = ("cur_freq", "scaling_cur_freq", "cpuinfo_cur_freq")
_DEBUG = "sys/kernel/debug"
_CAPS = ("sys/kernel/nvpmodel_emc_cap/emc_iso_cap", "sys/kernel/nvpmodel_clk_cap/emc")


class FakeBoard(SysFs):
    """The kernel of a reconstructed tree.

    Args:
        root: folder of the tree; ``.fake`` in it holds what the kernel knows and files do not show.
        flavour: ``4.9`` refuses a lower limit above the upper, ``5.x`` clamps it in silence.
        kill_at_write: the process kills itself just before its nth write; 0 = never.
    """

    def __init__(
        self, root: str, flavour: str = "4.9", faults: tuple[str, ...] = (), kill_at_write: int = 0
    ) -> None:
        assert flavour in FLAVOURS, flavour
        assert set(faults) <= set(FAULTS), faults
        super().__init__(root)
        self.flavour = flavour
        self.faults = faults
        self.kill_at_write = kill_at_write
        self.written: list[tuple[str, str]] = []
        self.refused: list[tuple[str, str]] = []
        self._memory = Path(root) / ".fake"
        self._memory.mkdir(exist_ok=True)
        if "late-devfreq" in faults:
            self._hide_devfreq()

    # --- what the agent calls

    def read_file(self, path: str) -> str:
        path = self._canonical(path)
        name = os.path.basename(path)
        if "user" in self.faults and (path.startswith(_DEBUG) or name == "cpuinfo_cur_freq"):
            raise OSError(errno.EACCES, "permission denied")
        if "thermal-again" in self.faults and path.endswith("thermal_zone0/temp"):
            raise OSError(errno.EAGAIN, "try again")
        text = super().read_file(path)
        if name == "cpuinfo_cur_freq" and "overcurrent" in self.faults:
            return f"{min(int(text), OVERCURRENT_KHZ)}\n"
        if name == "scaling_max_freq" and self._is_cooling():
            return f"{min(int(text), COOLED_KHZ)}\n"
        if name in (*_CLOCKS, "scaling_min_freq", "scaling_max_freq"):
            return self._lagging(path, text)
        return text

    def write_file(self, path: str, text: str) -> None:
        path = self._canonical(path)
        self.written.append((path, text))
        if len(self.written) == self.kill_at_write:
            os.kill(os.getpid(), signal.SIGKILL)
        if "user" in self.faults:
            raise OSError(errno.EACCES, "permission denied")
        name = os.path.basename(path)
        if name in ("min_freq", "max_freq", "scaling_min_freq", "scaling_max_freq"):
            self._write_limit(path, int(text))
        elif name == "railgate_enable":
            self._store(path, text)
            if int(text) == 0:
                self._show_devfreq()
        elif path.startswith(f"{_DEBUG}/bpmp/debug/clk/emc/") or path in _CAPS:
            self._write_memory_clock(path, int(text))
        elif name in ("governor", "scaling_governor"):
            self._write_governor(path, text)
        else:
            raise OSError(errno.EACCES, "the agent has no business here")

    def exists(self, path: str) -> bool:
        if "user" in self.faults and self._canonical(path).startswith(_DEBUG + "/"):
            return False
        return super().exists(path)

    def names(self, folder: str, pattern: str = "") -> list[str]:
        if "user" in self.faults and self._canonical(folder).startswith(_DEBUG):
            return []
        return super().names(folder, pattern)

    def writable(self, path: str) -> bool:
        return "user" not in self.faults and super().writable(path)

    def _is_cooling(self) -> bool:
        folder = "sys/class/thermal"
        return "cooling" in self.faults and any(
            super(FakeBoard, self).read_file(f"{folder}/{name}/cur_state").strip() != "0"
            for name in self.names(folder, r"cooling_device\d+")
        )

    # --- GPU and CPU limits

    def _write_limit(self, path: str, value: int) -> None:
        folder, name = os.path.split(path)
        for twin in self._coupled(folder):
            self._write_own_limit(twin, name, value)

    def _write_own_limit(self, folder: str, name: str, value: int) -> None:
        prefix = "scaling_" if name.startswith("scaling_") else ""
        low_path, high_path = f"{folder}/{prefix}min_freq", f"{folder}/{prefix}max_freq"
        idle = self._recall(f"{folder}/idle", super().read_file(f"{folder}/{prefix}cur_freq"))
        low = int(self._recall(low_path, super().read_file(low_path)))
        high = int(self._recall(high_path, super().read_file(high_path)))
        if "writes-lost" in self.faults and self._recall(f"{folder}/{name}/lost", "") == "":
            self._keep(f"{folder}/{name}/lost", "yes")
            return
        is_low = name.endswith("min_freq")
        low, high = (value, high) if is_low else (low, value)
        if self.flavour == "4.9" and low > high:
            self.refused.append((f"{folder}/{name}", str(value)))
            raise OSError(errno.EINVAL, "invalid argument")
        self._keep(low_path, str(low))
        self._keep(high_path, str(high))
        for limit_path, limit in ((low_path, min(low, high)), (high_path, high)):
            before = super().read_file(limit_path)
            self._store(limit_path, f"{limit}\n")
            if self.flavour == "5.x" and prefix and before != f"{limit}\n":
                # cpufreq's limits are applied by a worker of the kernel, a moment later.
                self._keep(f"{limit_path}/lag", json.dumps([before, LAG_READS]))
        self._move_clock(folder, prefix, int(idle))

    def _move_clock(self, folder: str, prefix: str, idle: int) -> None:
        """The clock goes to the nearest step at or above what its limits leave of the idle clock."""
        low = int(super().read_file(f"{folder}/{prefix}min_freq"))
        high = int(super().read_file(f"{folder}/{prefix}max_freq"))
        performs = super().read_file(f"{folder}/{prefix}governor").strip() == "performance"
        if "lazy-governor" in self.faults and not prefix and not performs and low == high:
            return
        listed = f"{folder}/scaling_available_frequencies" if prefix else f"{folder}/available_frequencies"
        table = sorted(int(step) for step in super().read_file(listed).split())
        wanted = high if performs else min(max(idle, low), high)
        clock = next((step for step in table if step >= wanted), table[-1])
        for name in ("scaling_cur_freq", "cpuinfo_cur_freq") if prefix else ("cur_freq", "target_freq"):
            path = f"{folder}/{name}"
            before = super().read_file(path)
            if before != f"{clock}\n":
                self._store(path, f"{clock}\n")
                self._keep(f"{path}/lag", json.dumps([before, LAG_READS]))

    def _write_governor(self, path: str, text: str) -> None:
        folder, name = os.path.split(path)
        prefix = "scaling_" if name.startswith("scaling_") else ""
        if text.strip() not in super().read_file(f"{folder}/{prefix}available_governors").split():
            raise OSError(errno.EINVAL, "invalid argument")
        idle = self._recall(f"{folder}/idle", super().read_file(f"{folder}/{prefix}cur_freq"))
        for twin in self._coupled(folder):
            self._store(f"{twin}/{name}", text)
            self._move_clock(twin, prefix, int(idle))

    def _coupled(self, folder: str) -> list[str]:
        """Folders of all cores of a cluster; a GPU's own."""
        related = Path(self.full(folder)) / "related_cpus"
        if not related.exists():
            return [folder]
        twins = [f"sys/devices/system/cpu/cpu{core}/cpufreq" for core in related.read_text().split()]
        return [twin for twin in twins if super(FakeBoard, self).exists(twin)]

    def _lagging(self, path: str, text: str) -> str:
        before, reads_left = json.loads(self._recall(f"{path}/lag", "[null, 0]"))
        if reads_left == 0:
            return text
        self._keep(f"{path}/lag", json.dumps([before, reads_left - 1]))
        return str(before)

    # --- memory clock

    def _write_memory_clock(self, path: str, value: int) -> None:
        clock = f"{_DEBUG}/bpmp/debug/clk/emc"
        rate_path = f"{clock}/rate"
        idle = int(self._recall("emc/idle", super().read_file(rate_path)))
        if path != rate_path:
            self._store(path, f"{value}\n")
            if path.endswith("mrq_rate_locked") and value == 0:
                self._store(rate_path, f"{self._capped(idle)}\n")  # its load decides again
            if path in _CAPS:
                self._store(rate_path, f"{self._capped(int(super().read_file(rate_path)))}\n")
            return
        listed = super().read_file(f"{_DEBUG}/bpmp/debug/emc/possible_rates").split()
        table = [1000 * int(khz) for khz in listed if khz.isdigit()]
        if value in table and "emc-ignores" not in self.faults:
            self._store(path, f"{self._capped(value)}\n")

    def _capped(self, rate: int) -> int:
        caps = [
            int(super(FakeBoard, self).read_file(cap)) for cap in _CAPS if super(FakeBoard, self).exists(cap)
        ]
        return min([rate, *(cap for cap in caps if cap)])

    # --- a GPU that has not been powered since boot

    def _hide_devfreq(self) -> None:
        if self._recall("devfreq/shown", "") == "":
            folder = Path(self.full("sys/class/devfreq"))
            for link in folder.iterdir():
                self._keep("devfreq/link", json.dumps([link.name, os.readlink(link)]))
                link.unlink()
            self._keep("devfreq/shown", "no")

    def _show_devfreq(self) -> None:
        if self._recall("devfreq/shown", "") == "no":
            name, target = json.loads(self._recall("devfreq/link", ""))
            os.symlink(target, self.full(f"sys/class/devfreq/{name}"))
            self._keep("devfreq/shown", "yes")

    # --- what the kernel remembers

    def _canonical(self, path: str) -> str:
        """The path without links, even for a file that is not there."""
        return self.resolve(path)

    def _store(self, path: str, text: str) -> None:
        """Replace the text in one step: a process killed here leaves the old or the new one."""
        file = Path(self.full(path))
        if file.exists() and file.read_text() == text:
            return
        new = self._memory / f"new-{os.getpid()}"
        new.write_text(text)
        new.replace(file)

    def _memory_file(self, key: str) -> Path:
        return self._memory / key.replace("/", "|")

    def _keep(self, key: str, text: str) -> None:
        self._store(os.path.relpath(self._memory_file(key), self.root), text)

    def _recall(self, key: str, first: str) -> str:
        """What was kept; the first time, the given text, which is kept then."""
        file = self._memory_file(key)
        if not file.exists():
            self._keep(key, first)
        return file.read_text()


def contents(root: Path) -> dict[str, str]:
    """Text of every file of the board; the kernel's memory and the agent's journal are not part of it."""
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in (".fake", "var")
    }
