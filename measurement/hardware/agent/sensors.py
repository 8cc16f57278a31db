"""What the board shows while a workload runs: power by rail, temperatures, over-current, clocks."""

import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from .problems import FileError
from .rails import PowerSensor, Rail, read_all_w
from .sysfs import SysFs

THERMAL_FOLDER = "sys/class/thermal"
HWMON_FOLDER = "sys/class/hwmon"
SENTINELS_C = (-256.0, -45.0)  # shown by a sensor that is not connected or not powered
HARMLESS = ("fan", "hot-surface")  # cooling devices: a fan's state is its speed, the other one only warns
WATCH_S = 1.0
SLOW_READS = 3  # so many low readings of a clock in a row are throttling
SLOW = 0.98

Clocks = Callable[[], Tuple[Dict[str, int], Tuple[str, ...]]]


def temperatures(fs: SysFs) -> Dict[str, float]:
    """Degrees Celsius by zone; zones that are gated or not connected are left out."""
    found: Dict[str, float] = {}
    for zone in fs.names(THERMAL_FOLDER, r"thermal_zone\d+"):
        folder = THERMAL_FOLDER + "/" + zone
        try:
            name, celsius = fs.value(folder + "/type"), fs.integer(folder + "/temp") / 1000.0
        except FileError:
            continue  # EAGAIN of a zone whose unit is powered down
        if celsius not in SENTINELS_C:
            found[name] = celsius
    return found


def hottest(celsius: Dict[str, float]) -> Optional[float]:
    """Of the live sensors; the power chip's is a constant."""
    live = [value for name, value in celsius.items() if not name.upper().startswith("PMIC")]
    return max(live) if live else None


def overcurrent_events(fs: SysFs) -> Optional[int]:
    """Sum of all over-current counters; ``None`` without one."""
    counts = []
    for monitor in fs.names(HWMON_FOLDER):
        folder = HWMON_FOLDER + "/" + monitor
        for name in fs.names(folder, r"oc\d_event_cnt"):
            try:
                counts.append(fs.integer(folder + "/" + name))
            except FileError:
                continue
    return sum(counts) if counts else None


def alarms(fs: SysFs, rails: Tuple[Rail, ...]) -> List[str]:
    """Flags of what limits the board right now: critical currents, and cooling that is at work."""
    flags = [
        "current-critical:" + rail.label for rail in rails if rail.alarm and fs.value_or(rail.alarm) == "1"
    ]
    return sorted(flags + ["cooling:" + kind for kind in cooling(fs)])


def cooling(fs: SysFs) -> List[str]:
    """Cooling devices at work that slow something down."""
    found = []
    for device in fs.names(THERMAL_FOLDER, r"cooling_device\d+"):
        kind = fs.value_or("%s/%s/type" % (THERMAL_FOLDER, device))
        state = fs.value_or("%s/%s/cur_state" % (THERMAL_FOLDER, device), "0")
        if state != "0" and not any(word in kind for word in HARMLESS):
            found.append(kind)
    return found


class Sampler:
    """Reads the rails in a thread of its own until it is stopped; everything else once a second.

    Args:
        sensor: rails to read, at the pace that fits them; ``None`` = only watch.
        read_clocks: gives the clocks of all domains, Hz, and flags.
        wanted_hz: clocks that were set; lower readings count as throttling.
    """

    def __init__(
        self, fs: SysFs, sensor: Optional[PowerSensor], read_clocks: Clocks, wanted_hz: Dict[str, int]
    ) -> None:
        self.fs = fs
        self.sensor = sensor
        self.read_clocks = read_clocks
        self.wanted_hz = dict(wanted_hz)
        self.failed_reads = 0
        self._time_s: List[float] = []
        self._power_w: List[List[float]] = []
        self._watch: Dict[str, List[Any]] = {
            "time_s": [], "temperature_c": [], "overcurrent_events": [], "clocks_hz": []
        }  # fmt: skip
        self._slow: Dict[str, int] = {}
        self._flags: List[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Sampler":
        """Begin to read."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End reading; the thread is gone afterwards."""
        self._ended.set()
        self._thread.join(5.0)

    @property
    def flags(self) -> List[str]:
        """``slow-clock:`` domains that were throttled, ``rails-unreadable`` if reads failed."""
        return sorted(set(self._flags + (["rails-unreadable"] if self.failed_reads else [])))

    def trace(self) -> Optional[Dict[str, Any]]:
        """Readings so far, as on the wire; ``None`` without rails."""
        if self.sensor is None:
            return None
        labels = [rail.label for rail in self.sensor.rails]
        n = len(self._time_s)  # the thread appends powers first
        return {
            "time_s": self._time_s[:n],
            "power_w": {label: [row[i] for row in self._power_w[:n]] for i, label in enumerate(labels)},
            "watch": {key: list(values) for key, values in self._watch.items()},
            "flags": self.flags,
        }

    def _run(self) -> None:
        period_s = WATCH_S if self.sensor is None else self.sensor.poll_s
        next_read = next_watch = time.monotonic()
        while not self._ended.is_set():
            if self.sensor is not None:
                self._read_rails(self.sensor)
            if time.monotonic() >= next_watch:
                self._look()
                next_watch += WATCH_S
            # A read that came late must not be followed by a burst.
            next_read = max(next_read + period_s, time.monotonic())
            self._ended.wait(max(0.0, next_read - time.monotonic()))

    def _read_rails(self, sensor: PowerSensor) -> None:
        began = time.monotonic()
        power_w = read_all_w(self.fs, sensor.rails)
        if power_w is None:
            self.failed_reads += 1
            return
        self._power_w.append([round(power, 6) for power in power_w])
        self._time_s.append(round((began + time.monotonic()) / 2, 6))

    def _look(self) -> None:
        clocks_hz, flags = self.read_clocks()
        self._watch["time_s"].append(round(time.monotonic(), 6))
        self._watch["temperature_c"].append(hottest(temperatures(self.fs)))
        self._watch["overcurrent_events"].append(overcurrent_events(self.fs))
        self._watch["clocks_hz"].append(clocks_hz)
        self._flags.extend(flag for flag in flags if flag.startswith("overcurrent"))
        for name, wanted_hz in self.wanted_hz.items():
            slow = clocks_hz.get(name, wanted_hz) < SLOW * wanted_hz
            self._slow[name] = self._slow.get(name, 0) + 1 if slow else 0
            if self._slow[name] >= SLOW_READS:
                self._flags.append("slow-clock:" + name)
