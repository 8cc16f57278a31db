"""Power rails: the INA3221 monitors by label, through L4T's own driver or the mainline one."""

import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from .problems import FileError
from .sysfs import SysFs

DRIVERS = "sys/bus/i2c/drivers"
L4T_AVERAGING_S = 0.4224  # 64 averages x (1.1 + 1.1) ms x 3 channels, continuous mode
MAINLINE_AVERAGING_S = 0.0066  # (1.1 + 1.1) ms x 3 channels, no averaging
POLLS_PER_AVERAGING = 8
LEAST_POLL_S, MOST_POLL_S = 0.05, 0.1  # faster reading returns repeats and costs CPU

SCOPES = (
    ("VDD_IN",),  # TX2, Xavier NX, Orin NX and Nano: the input of the module
    ("POM_5V_IN",),  # Nano
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier has no rail of the whole
    # AGX Orin: VDDQ_VDD2_1V8AO is fed from VIN_SYS_5V0 and must not be counted twice.
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
)


class Rail(NamedTuple):
    """One rail.

    Attributes:
        label: what the board calls it.
        power_mw: file; empty where power is voltage times current.
        voltage_mv, current_ma: files.
        alarm: file that is 1 while a critical current is exceeded; empty without one.
    """

    label: str
    power_mw: str
    voltage_mv: str
    current_ma: str
    alarm: str = ""


class PowerSensor(NamedTuple):
    """All rails of the board, and how often they are worth reading.

    Attributes:
        name: driver.
        rails: by chip address, then channel.
        scope: labels whose sum is the power of the module.
        averaging_s: what a reading averages over.
        flags: what is odd about them.
    """

    name: str
    rails: Tuple[Rail, ...]
    scope: Tuple[str, ...]
    averaging_s: float
    flags: Tuple[str, ...] = ()

    @property
    def poll_s(self) -> float:
        """Time between two reads: several per averaging interval, 10 to 20 a second."""
        return min(MOST_POLL_S, max(LEAST_POLL_S, self.averaging_s / POLLS_PER_AVERAGING))

    @property
    def update_s(self) -> float:
        """Time between two new readings: a chip that is faster than it is read has one for every read."""
        return max(self.averaging_s, self.poll_s)


def discover_rails(fs: SysFs) -> Optional[PowerSensor]:
    """Find the monitors; ``None`` where there is none."""
    rails = _l4t_rails(fs)
    name, averaging_s = "ina3221x", L4T_AVERAGING_S
    if not rails:
        name = "ina3221"
        rails, averaging_s = _mainline_rails(fs)
    if not rails:
        return None
    flags: List[str] = []
    rails = _without_repeats(rails, flags)
    scope = total_scope([rail.label for rail in rails], flags)
    return PowerSensor(name, tuple(rails), scope, averaging_s, tuple(flags))


def total_scope(labels: List[str], flags: List[str]) -> Tuple[str, ...]:
    """Labels whose sum is the module's power; on an unknown board all of them, and a flag says so."""
    for scope in SCOPES:
        if all(label in labels for label in scope):
            return scope
    flags.append("scope-unknown")
    return tuple(labels)


def _l4t_rails(fs: SysFs) -> List[Rail]:
    rails = []
    folder = DRIVERS + "/ina3221x"
    for chip in fs.names(folder, r"\d+-00[0-9a-f]+"):
        seen = set()
        # Some releases reach the device through a link with another name.
        for entry in fs.names(folder + "/" + chip, r"iio.*"):
            device = fs.resolve("%s/%s/%s" % (folder, chip, entry))
            for holder in [device] + [device + "/" + name for name in fs.names(device, r"iio:device\d+")]:
                if holder in seen:
                    continue
                seen.add(holder)
                rails.extend(_l4t_channels(fs, holder))
    return rails


def _l4t_channels(fs: SysFs, folder: str) -> List[Rail]:
    rails = []
    for name in fs.names(folder, r"rail_name_\d+"):
        channel = name.rpartition("_")[2]
        label = fs.value_or(folder + "/" + name)
        if label and label != "NC":
            power = "%s/in_power%s_input" % (folder, channel)
            rails.append(
                Rail(
                    label,
                    power if fs.exists(power) else "",
                    "%s/in_voltage%s_input" % (folder, channel),
                    "%s/in_current%s_input" % (folder, channel),
                )
            )
    return rails


def _mainline_rails(fs: SysFs) -> Tuple[List[Rail], float]:
    """Rails, and the longest averaging interval of their chips."""
    rails = []
    averaging_s = 0.0
    folder = DRIVERS + "/ina3221"
    for chip in fs.names(folder, r"\d+-00[0-9a-f]+"):
        for monitor in fs.names("%s/%s/hwmon" % (folder, chip), r"hwmon\d+"):
            holder = fs.resolve("%s/%s/hwmon/%s" % (folder, chip, monitor))
            rails.extend(_mainline_channels(fs, holder))
            averaging_s = max(averaging_s, _mainline_averaging_s(fs, holder))
    return rails, averaging_s


def _mainline_channels(fs: SysFs, folder: str) -> List[Rail]:
    rails = []
    for name in fs.names(folder, r"in[123]_label"):  # in7 is the sum of the shunts' voltages
        channel = re.findall(r"\d", name)[0]
        label = fs.value_or(folder + "/" + name)
        if not label or label == "NC" or fs.value_or("%s/in%s_enable" % (folder, channel), "1") == "0":
            continue
        alarm = "%s/curr%s_crit_alarm" % (folder, channel)
        rails.append(
            Rail(
                label,
                "",
                "%s/in%s_input" % (folder, channel),
                "%s/curr%s_input" % (folder, channel),
                alarm if fs.exists(alarm) else "",
            )
        )
    return rails


def _mainline_averaging_s(fs: SysFs, folder: str) -> float:
    """The driver's update interval covers all conversions of all channels; older ones do not tell it."""
    interval_ms = fs.value_or(folder + "/update_interval", "0")
    if interval_ms.isdigit() and int(interval_ms) > 0:
        return int(interval_ms) / 1000.0
    samples = fs.value_or(folder + "/samples", "1")
    return MAINLINE_AVERAGING_S * (int(samples) if samples.isdigit() else 1)


def _without_repeats(rails: List[Rail], flags: List[str]) -> List[Rail]:
    """Labels made unique: a second rail of the same name, such as a carrier board's, gets a number."""
    counts: Dict[str, int] = {}
    unique = []
    for rail in rails:
        counts[rail.label] = counts.get(rail.label, 0) + 1
        if counts[rail.label] > 1:
            flags.append("label-repeats:" + rail.label)
            rail = rail._replace(label="%s#%d" % (rail.label, counts[rail.label]))
        unique.append(rail)
    return unique


def read_power_w(fs: SysFs, rail: Rail) -> float:
    """Power of a rail, W.

    Raises:
        FileError: a file cannot be read.
    """
    if rail.power_mw:
        return fs.integer(rail.power_mw) / 1000.0
    return fs.integer(rail.voltage_mv) * fs.integer(rail.current_ma) / 1e6


def read_all_w(fs: SysFs, rails: Tuple[Rail, ...]) -> Optional[List[float]]:
    """Power of every rail, or ``None`` if one of them cannot be read right now."""
    try:
        return [read_power_w(fs, rail) for rail in rails]
    except FileError:
        return None
