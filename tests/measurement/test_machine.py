from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hadas.measurement.hardware.local.energy import busy_loop
from hadas.measurement.hardware.local.machine import cpu_identity, governors, hottest_c, machine_measures


def _write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of four cores: a tenth of its time stolen."""
    _write(tmp_path, "proc/stat", "cpu  400 100 200 4000 300 50 50 500 90 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    _write(
        tmp_path,
        "proc/pressure/cpu",
        "some avg10=12.50 avg60=1.74 avg300=1.41 total=6018793771\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    )
    _write(tmp_path, "proc/loadavg", "2.50 1.10 0.90 3/412 12345\n")
    _write(
        tmp_path, "proc/cpuinfo", "model name\t: Intel(R) Xeon(R) @ 2.20GHz\nflags\t\t: fpu vme hypervisor\n"
    )
    for core, (khz, governor) in enumerate(((1_200_000, "powersave"), (2_400_000, "performance"))):
        _write(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", f"{khz}\n")
        _write(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor", f"{governor}\n")
    for zone, temperature in enumerate(("45000", "-256000", "61500", "0", "")):
        _write(tmp_path, f"sys/class/thermal/thermal_zone{zone}/temp", f"{temperature}\n")
    return tmp_path


def test_measures_are_read_with_their_units(root: Path) -> None:
    found = dict(machine_measures(root))
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    # Guests' 90 and 10 ticks are part of user's and nice's.
    assert found["cpu_total_s"] == pytest.approx(5600 * tick_s)
    assert found["cpu_busy_s"] == pytest.approx(1300 * tick_s)
    assert found["cpu_steal_s"] == pytest.approx(500 * tick_s)
    assert found["cpu_pressure_percent"] == 12.5
    assert found["cpu_pressure_s"] == pytest.approx(6018.793771)
    assert found["load_1min"] == 2.5
    assert found["cpu_hz"] == 1.8e9


def test_the_hottest_zone_that_tells_something_true(root: Path) -> None:
    assert hottest_c(root) == 61.5
    assert hottest_c(root / "nowhere") is None


def test_identity_and_governors(root: Path) -> None:
    assert cpu_identity(root) == ("intel-r-xeon-r-2-20ghz", True)
    assert governors(root) == ("performance", "powersave")


def test_what_a_machine_does_not_tell_is_left_out(tmp_path: Path) -> None:
    assert {name for name, _ in machine_measures(tmp_path)} == {"wall_s", "process_cpu_s"}
    assert governors(tmp_path) == ()
    processor, is_virtual = cpu_identity(tmp_path)
    assert processor
    assert not is_virtual


def test_this_machine_is_busy_when_this_process_is() -> None:
    before = dict(machine_measures())
    busy_loop(0.3)
    after = dict(machine_measures())
    assert 0.3 <= after["wall_s"] - before["wall_s"] < 5
    grown = after["process_cpu_s"] - before["process_cpu_s"]
    assert 0.02 < grown <= after["wall_s"] - before["wall_s"] + 0.05
    if "cpu_busy_s" in before:
        assert after["cpu_busy_s"] - before["cpu_busy_s"] >= 0.5 * grown
        assert after["cpu_total_s"] > before["cpu_total_s"]
    assert abs(after["wall_s"] - time.monotonic()) < 5
