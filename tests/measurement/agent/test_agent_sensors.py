"""Rails by label, temperatures without sentinels, and what throttling leaves behind."""

import time

import pytest

from hadas.measurement.hardware.agent.identity import parse_power_mode
from hadas.measurement.hardware.agent.rails import discover_rails, read_power_w, total_scope
from hadas.measurement.hardware.agent.sensors import (
    WATCH_S,
    Sampler,
    alarms,
    hottest,
    overcurrent_events,
    temperatures,
)
from hadas.measurement.hardware.agent.sysfs import SysFs, parse_cores

from .fake_board import FakeBoard
from .trees import build_tx2


@pytest.fixture
def tree(tmp_path):
    return build_tx2(tmp_path / "tx2")


def put(tree, path, text):
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def hwmon_chip(tree, chip, number, texts):
    folder = f"sys/devices/i2c/{chip}/hwmon/hwmon{number}"
    for name, text in texts.items():
        put(tree, f"{folder}/{name}", text)
    link = tree / f"sys/bus/i2c/drivers/ina3221/{chip}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(f"../../../../devices/i2c/{chip}")


def test_l4t_rails_are_found_by_label_and_read_in_watts(tree):
    sensor = discover_rails(SysFs(str(tree)))
    assert [rail.label for rail in sensor.rails] == ["VDD_SYS_GPU", "VDD_IN", "VDD_SYS_DDR"]  # no NC
    assert sensor.scope == ("VDD_IN",)
    assert (sensor.name, sensor.averaging_s) == ("ina3221x", pytest.approx(0.4224))
    assert 1 / 20 <= sensor.poll_s <= 1 / 10
    power_w = [read_power_w(SysFs(str(tree)), rail) for rail in sensor.rails]
    assert power_w == [0.76, 3.8, 0.48]
    # Without a power file it is voltage times current.
    (tree / "sys/devices/3160000.i2c/i2c-0/0-0041/iio:device1/in_power0_input").unlink()
    sensor = discover_rails(SysFs(str(tree)))
    assert read_power_w(SysFs(str(tree)), sensor.rails[1]) == pytest.approx(3.8)


def test_l4t_rails_behind_a_link_of_another_name_count_once(tree):
    device = tree / "sys/devices/3160000.i2c/i2c-0/0-0041"
    (device / "iio_device").symlink_to("iio:device1")
    labels = [rail.label for rail in discover_rails(SysFs(str(tree))).rails]
    assert labels == ["VDD_SYS_GPU", "VDD_IN", "VDD_SYS_DDR"]
    device.rename(device.with_name("elsewhere"))
    device.mkdir()
    (device / "iio_device").symlink_to("../elsewhere/iio:device1")
    labels = [rail.label for rail in discover_rails(SysFs(str(tree))).rails]
    assert labels == ["VDD_SYS_GPU", "VDD_IN", "VDD_SYS_DDR"]


def test_agx_orin_does_not_count_its_memory_twice(tmp_path):
    chips = {
        "1-0040": (3, {
            "in1_label": "VDD_GPU_SOC", "in1_input": 20_000, "curr1_input": 150,
            "in2_label": "VDD_CPU_CV", "in2_input": 20_000, "curr2_input": 50, "curr2_crit_alarm": 0,
            "in3_label": "VIN_SYS_5V0", "in3_input": 5_000, "curr3_input": 400, "curr3_crit_alarm": 1,
            "in7_label": "sum of shunt voltages", "in7_input": 4, "samples": 4, "update_interval": 26,
        }),
        "1-0041": (4, {
            "in1_label": "NC", "in1_input": 0, "curr1_input": 0,
            "in2_label": "VDDQ_VDD2_1V8AO", "in2_input": 5_000, "curr2_input": 100,
            "in3_label": "VDD_X", "in3_enable": 0, "in3_input": 0, "curr3_input": 0,
        }),
    }  # fmt: skip
    for chip, (number, texts) in chips.items():
        hwmon_chip(tmp_path, chip, number, texts)
    fs = SysFs(str(tmp_path))
    sensor = discover_rails(fs)
    assert {rail.label: read_power_w(fs, rail) for rail in sensor.rails} == pytest.approx(
        {"VDD_GPU_SOC": 3.0, "VDD_CPU_CV": 1.0, "VIN_SYS_5V0": 2.0, "VDDQ_VDD2_1V8AO": 0.5}
    )
    assert sensor.scope == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    assert (sensor.name, sensor.averaging_s, sensor.flags) == ("ina3221", 0.026, ())
    assert alarms(fs, sensor.rails) == ["current-critical:VIN_SYS_5V0"]


def test_an_older_mainline_driver_averages_as_many_samples_as_it_says(tmp_path):
    hwmon_chip(
        tmp_path, "1-0040", 0, {"in1_label": "POM_5V_IN", "in1_input": 5000, "curr1_input": 1, "samples": 16}
    )
    sensor = discover_rails(SysFs(str(tmp_path)))
    assert sensor.averaging_s == sensor.update_s == pytest.approx(16 * 0.0066)


def test_a_sensor_that_is_faster_than_it_is_read_is_new_at_every_read(tmp_path):
    """So many readings are due, and a trace that has them is not called dead."""
    hwmon_chip(tmp_path, "1-0040", 0, {"in1_label": "VDD_IN", "in1_input": 5000, "curr1_input": 1})
    sensor = discover_rails(SysFs(str(tmp_path)))
    assert sensor.averaging_s == pytest.approx(0.0066)
    assert sensor.update_s == sensor.poll_s == 0.05


def test_a_board_that_nobody_knows_is_the_sum_of_its_rails_and_says_so():
    flags = []
    assert total_scope(["A", "B"], flags) == ("A", "B")
    assert flags == ["scope-unknown"]
    flags = []
    assert total_scope(["GPU", "CPU", "SOC", "CV", "VDDRQ"], flags) == ("GPU", "CPU", "SOC", "CV", "VDDRQ")
    assert flags == ["scope-unknown"]  # AGX Xavier with a rail missing is no AGX Xavier


def test_sentinels_constants_and_gated_zones_are_not_the_hottest(tree):
    celsius = temperatures(SysFs(str(tree)))
    assert celsius == {"GPU-therm": 38.0, "BCPU-therm": 38.5, "PMIC-Die": 100.0}
    assert hottest(celsius) == 38.5
    assert temperatures(FakeBoard(str(tree), faults=("thermal-again",))) == {
        "BCPU-therm": 38.5,
        "PMIC-Die": 100.0,
    }
    assert hottest({"PMIC-Die": 100.0}) is None


def test_overcurrent_counters_add_up_and_cooling_shows(tree):
    fs = SysFs(str(tree))
    assert overcurrent_events(fs) is None
    put(tree, "sys/class/hwmon/hwmon2/oc1_event_cnt", 2)
    put(tree, "sys/class/hwmon/hwmon2/oc3_event_cnt", 5)
    assert overcurrent_events(fs) == 7
    devices = {"pwm-fan": 3, "gpu-throttle": 1, "cpu-throttle": 0, "hot-surface-alert": 1}
    for number, (kind, state) in enumerate(devices.items()):
        put(tree, f"sys/class/thermal/cooling_device{number}/type", kind)
        put(tree, f"sys/class/thermal/cooling_device{number}/cur_state", state)
    assert alarms(fs, ()) == ["cooling:gpu-throttle"]


def test_samples_come_at_the_sensor_s_pace_with_rising_times(tree):
    fs = SysFs(str(tree))
    sensor = discover_rails(fs)
    began = time.monotonic()
    sampler = Sampler(fs, sensor, lambda: ({"gpu": 1}, ()), {}).start()
    time.sleep(0.6)
    put(tree, "sys/devices/3160000.i2c/i2c-0/0-0041/iio:device1/in_power0_input", 5000)
    time.sleep(0.3)
    sampler.stop()
    trace = sampler.trace()
    times = trace["time_s"]
    assert times == sorted(times)
    assert began <= times[0]
    assert times[-1] <= time.monotonic()
    assert 5 <= len(times) <= 20
    assert set(trace["power_w"]) == {"VDD_SYS_GPU", "VDD_IN", "VDD_SYS_DDR"}
    assert all(len(power) == len(times) for power in trace["power_w"].values())
    assert trace["power_w"]["VDD_IN"][0] == 3.8
    assert trace["power_w"]["VDD_IN"][-1] == 5.0
    assert trace["watch"]["temperature_c"] == [38.5]
    assert trace["watch"]["clocks_hz"] == [{"gpu": 1}]


def test_a_rail_that_stops_answering_is_flagged_and_leaves_no_gap_in_the_columns(tree):
    fs = SysFs(str(tree))
    sampler = Sampler(fs, discover_rails(fs), lambda: ({}, ()), {}).start()
    time.sleep(0.15)
    (tree / "sys/devices/3160000.i2c/i2c-0/0-0041/iio:device1/in_power1_input").unlink()
    time.sleep(0.15)
    sampler.stop()
    trace = sampler.trace()
    assert trace["flags"] == ["rails-unreadable"]
    assert {len(power) for power in trace["power_w"].values()} == {len(trace["time_s"])}


def test_three_low_readings_of_a_clock_in_a_row_are_throttling(tree, monkeypatch):
    monkeypatch.setattr("hadas.measurement.hardware.agent.sensors.WATCH_S", 0.01)
    assert WATCH_S == 1.0
    readings = iter([900, 800, 800, 1000, 800, 800, 1000] + [1000] * 10_000)
    sampler = Sampler(SysFs(str(tree)), None, lambda: ({"gpu": next(readings)}, ()), {"gpu": 1000}).start()
    time.sleep(0.2)
    sampler.stop()
    assert sampler.flags == ["slow-clock:gpu"]
    readings = iter([800, 800, 1000] * 10_000)
    sampler = Sampler(SysFs(str(tree)), None, lambda: ({"gpu": next(readings)}, ()), {"gpu": 1000}).start()
    time.sleep(0.2)
    sampler.stop()
    assert sampler.flags == []
    assert sampler.trace() is None  # no rails, no trace


def test_power_mode_is_read_from_what_the_tool_prints():
    printed = "NVPM WARN: fan mode is not set!\nNV Fan Mode:quiet\nNV Power Mode: MAXP_CORE_ARM\n3\n"
    assert parse_power_mode(printed) == {"fan": "quiet", "name": "MAXP_CORE_ARM", "id": 3}
    assert parse_power_mode("Running in chroot, ignoring request\n") is None


def test_core_lists_in_all_their_spellings():
    assert parse_cores("0 3 4 5") == [0, 3, 4, 5]
    assert parse_cores("0-3,5") == [0, 1, 2, 3, 5]
    assert parse_cores("") == []
