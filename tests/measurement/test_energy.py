from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas.measurement.hardware.local.energy import (
    PowercapMeter,
    Sampler,
    busy_loop,
    counted,
    counter_trace,
    find_powercap,
)
from hadas.measurement.hardware.rig import EnergySource, PowerTrace

LARGEST_UJ = 262_143_328_850  # of a desktop processor


def _zone(root: Path, name: str, label: str, energy_uj: int = 1000, largest_uj: int = LARGEST_UJ) -> Path:
    zone = root / name
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{label}\n")
    (zone / "energy_uj").write_text(f"{energy_uj}\n")
    (zone / "max_energy_range_uj").write_text(f"{largest_uj}\n")
    return zone


def _add(zone: Path, energy_uj: int) -> None:
    """Let a counter count, round the end of its range if need be."""
    file, largest_uj = zone / "energy_uj", int((zone / "max_energy_range_uj").read_text())
    file.write_text(f"{(int(file.read_text()) + energy_uj) % largest_uj}\n")


def _counting(*zones: Path) -> Callable[[float], None]:
    """A load under which these zones count 15 J."""

    def busy(seconds: float) -> None:
        for zone in zones:
            _add(zone, 15_000_000)

    return busy


def test_packages_are_summed_and_the_platform_is_read_beside_them(tmp_path: Path) -> None:
    zones = [
        _zone(tmp_path, "intel-rapl:0", "package-0"),
        _zone(tmp_path, "intel-rapl:1", "package-1"),
        _zone(tmp_path, "intel-rapl:2", "psys"),
    ]
    _zone(tmp_path, "intel-rapl:0:0", "core")  # inside package-0
    _zone(tmp_path, "intel-rapl-mmio:0", "package-0")  # package-0 a second time
    finding = find_powercap(tmp_path, _counting(*zones))
    assert finding.notes == ()
    assert finding.meter is not None
    assert finding.meter.source.rails == ("package-0", "package-1", "psys")
    assert finding.meter.source.scope == ("package-0", "package-1")
    assert finding.meter.source.averaging_s == 0
    _add(zones[0], 2_000_000)
    _add(zones[2], 5_000_000)
    assert finding.meter.read() == pytest.approx((2.0, 0.0, 5.0))


def test_a_counter_that_stands_still_is_dead_and_that_is_said(tmp_path: Path) -> None:
    package = _zone(tmp_path, "intel-rapl:0", "package-0")
    _zone(tmp_path, "intel-rapl:1", "psys", energy_uj=0)
    finding = find_powercap(tmp_path, _counting(package))
    assert finding.meter is not None
    assert finding.meter.source.rails == ("package-0",)
    assert any("'psys' stands still under load" in note for note in finding.notes)
    # psys alone counts: the scope's counter is dead, and there is no energy.
    finding = find_powercap(tmp_path, _counting(tmp_path / "intel-rapl:1"))
    assert finding.meter is None
    assert any("'package-0' stands still" in note for note in finding.notes)


def test_one_package_of_two_is_not_the_machine(tmp_path: Path) -> None:
    zones = [_zone(tmp_path, f"intel-rapl:{i}", f"package-{i}") for i in range(2)]
    assert find_powercap(tmp_path, _counting(zones[0])).meter is None
    assert find_powercap(tmp_path, _counting(*zones)).meter is not None


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    finding = find_powercap(tmp_path / "powercap", lambda seconds: pytest.fail("nothing to be busy for"))
    assert finding.meter is None
    assert "no intel-rapl zone" in finding.notes[0]


@contextmanager
def _as_a_user() -> Iterator[Path]:
    """A folder that anybody can enter, and no root's rights."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            yield Path(directory)
        finally:
            os.seteuid(was)


def test_files_of_root_are_named_to_a_user() -> None:
    with _as_a_user() as root:
        zone = root / "intel-rapl:0"
        was, _ = os.geteuid(), os.seteuid(os.getuid())
        _zone(root, "intel-rapl:0", "package-0")
        (zone / "energy_uj").chmod(0o000)
        os.seteuid(was)
        finding = find_powercap(root, _counting())
    assert finding.meter is None
    assert "only root may read" in finding.notes[0]
    assert "energy_uj" in finding.notes[0]


def test_an_unreadable_counter_is_a_reason_not_a_crash(tmp_path: Path) -> None:
    zone = _zone(tmp_path, "intel-rapl:0", "package-0")
    (zone / "energy_uj").write_text("")
    assert find_powercap(tmp_path, _counting()).meter is None
    (zone / "energy_uj").unlink()
    assert "energy_uj" in find_powercap(tmp_path, _counting()).notes[0]


@given(
    start=st.integers(0, 10**6),
    steps=st.lists(st.integers(0, 10**6 - 1), max_size=50),
    largest=st.just(10**6),
)
def test_differences_add_up_however_often_a_counter_comes_round(
    start: int, steps: list[int], largest: int
) -> None:
    value, total = start % largest, 0
    for step in steps:
        after = (value + step) % largest
        total += counted(value, after, largest)
        value = after
    assert total == sum(steps)


def test_a_meter_reads_through_the_end_of_its_range(tmp_path: Path) -> None:
    zone = _zone(tmp_path, "intel-rapl:0", "package-0", energy_uj=LARGEST_UJ - 1_000_000)
    meter = PowercapMeter((("package-0", zone),), ("package-0",))
    for total_j in (2.0, 4.0, 6.0):
        _add(zone, 2_000_000)
        assert meter.read() == pytest.approx((total_j,))


def _integral_j(trace: PowerTrace, rail: int = 0) -> float:
    """Energy from the first entry to the last: an entry is the mean power since the one before."""
    return float(np.dot(trace.power_w[rail][1:], np.diff(trace.time_s)))


@given(power_w=st.floats(1.0, 500.0), poll_s=st.floats(0.005, 0.03), phase_s=st.floats(0.0, 0.1))
def test_the_trace_of_a_counter_that_advances_in_steps_holds_its_energy(
    power_w: float, poll_s: float, phase_s: float
) -> None:
    """Advances every 100 ms, as NVML's: every entry is right to within a poll, and so is the whole."""
    times_s = np.arange(0.0, 5.0, poll_s)
    counter_j = power_w * 0.1 * np.floor((times_s + phase_s) / 0.1)
    readings = tuple((float(t), (float(e),)) for t, e in zip(times_s, counter_j, strict=True))
    trace = counter_trace(readings, update_s=0.1)
    assert len(trace.time_s) in (47, 48, 49, 50)
    elapsed_s = trace.time_s[-1] - trace.time_s[0]
    assert _integral_j(trace) == pytest.approx(power_w * elapsed_s, abs=1.01 * power_w * poll_s)


def test_a_counter_that_stops_reads_as_no_power() -> None:
    readings = tuple((0.1 * i, (10.0 if i < 5 else 12.0,)) for i in range(60))
    trace = counter_trace(readings, update_s=0.1)
    assert trace.power_w[0][-1] == 0.0
    assert trace.time_s[-1] > 5.0
    assert counter_trace((), 0.1) == PowerTrace((), ())
    assert counter_trace(readings[:1], 0.1) == PowerTrace((), ((),))


def test_a_sampler_follows_real_files_that_count(tmp_path: Path) -> None:
    zone = _zone(tmp_path, "intel-rapl:0", "package-0", energy_uj=LARGEST_UJ - 2_000_000)
    meter = PowercapMeter((("package-0", zone),), ("package-0",))
    stop = threading.Event()
    began_s = time.monotonic()

    def count() -> None:
        """10 W."""
        while not stop.wait(0.005):
            now_uj = int(10e6 * (time.monotonic() - began_s))
            replacement = zone / "new"
            replacement.write_text(f"{(LARGEST_UJ - 2_000_000 + now_uj) % LARGEST_UJ}\n")
            replacement.replace(zone / "energy_uj")  # a reader never sees half a number

    thread = threading.Thread(target=count)
    thread.start()
    looked: list[float] = []
    with Sampler(meter, lambda: looked.append(time.monotonic())) as sampler:
        time.sleep(0.8)
        part = sampler.trace()
    stop.set()
    thread.join()
    trace = sampler.trace()
    assert part is not None
    assert trace is not None
    assert len(trace.time_s) >= len(part.time_s) > 4
    assert began_s < trace.time_s[0] < trace.time_s[-1] <= time.monotonic()
    assert list(trace.time_s) == sorted(trace.time_s)
    elapsed_s = trace.time_s[-1] - trace.time_s[0]
    assert _integral_j(trace) == pytest.approx(10.0 * elapsed_s, rel=0.1)
    assert len(looked) >= 4


class _PowerSensor:
    """A power sensor whose every third reading fails."""

    poll_s = 0.01
    source = EnergySource("sensor", ("a", "b"), ("a",), averaging_s=0.4, update_s=0.01)

    def __init__(self) -> None:
        self.n = 0

    def read(self) -> tuple[float, ...]:
        self.n += 1
        if self.n % 3 == 0:
            raise OSError("gated")
        return (2.0, 3.0)

    def close(self) -> None: ...


def test_a_failed_reading_leaves_a_gap_in_the_trace_of_a_power_sensor() -> None:
    meter = _PowerSensor()
    with Sampler(meter) as sampler:
        time.sleep(0.1)
    trace = sampler.trace()
    assert trace is not None
    assert len(trace.time_s) == meter.n - meter.n // 3 >= 2
    assert set(trace.power_w[0]) == {2.0}
    assert set(trace.power_w[1]) == {3.0}


def test_without_a_meter_there_is_no_trace_and_no_thread() -> None:
    n_threads = threading.active_count()
    with Sampler(None) as sampler:
        assert threading.active_count() == n_threads
    assert sampler.trace() is None


def test_the_busy_loop_keeps_a_core_busy() -> None:
    wall, cpu = time.monotonic(), time.process_time()
    busy_loop(0.2)
    assert time.monotonic() - wall >= 0.2
    assert time.process_time() - cpu > 0.05
