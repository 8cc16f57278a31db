"""Rows of the measuring protocol on a virtual rig whose truth is known."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import io
import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from hadas.datasets.evidence import Evidence
from hadas.errors import ConfigError, ConnectionLostError, DeviceBusyError, OffTableFrequencyError
from hadas.measurement.hardware.device import MeasurementPlan
from hadas.measurement.hardware.measuring.disturbance import judge_states
from hadas.measurement.hardware.measuring.loops import LoopResult, loop_energy
from hadas.measurement.hardware.measuring.protocol import FULL, QUICK, MeasuringProtocol
from hadas.measurement.hardware.measuring.runner import MeasuredDevice
from hadas.measurement.hardware.measuring.statistics import window_energy
from hadas.measurement.hardware.rig import DeviceState, EnergySource
from hadas.spaces import PINNED, mini_space

from .rig_contract import check_device, check_rig
from .virtual_rig import BROKEN, COUNTER, JETSON_SENSOR, LOST, TABLE, Faults, VirtualRig, a_request

MINI = mini_space()
TRUE_MS = [4.0, 7.0, 10.0, 13.0, 16.0]
TRUE_W = [5.0, 6.0, 7.0, 8.0, 9.0]  # of the rails that count


def device(rig, protocol=FULL, **kwargs):
    return MeasuredDevice(rig, protocol, space=MINI, n_classes=10, clock=rig.clock, **kwargs)


def measure(rig, *requests, protocol=FULL, seed=0, **kwargs):
    plan = MeasurementPlan("s", requests or (a_request(),), seed=seed)
    return list(device(rig, protocol, **kwargs).measure(plan))


def measure_until(error, rig, *requests, **kwargs):
    """The rows that come before an error, and what it says."""
    rows = []

    def run():
        for row in device(rig, FULL, **kwargs).measure(MeasurementPlan("s", requests)):
            rows.append(row)

    with pytest.raises(error) as raised:
        run()
    return rows, str(raised.value)


# --- contracts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["stages", "prefix"])
@pytest.mark.parametrize("energy", [JETSON_SENSOR, COUNTER, None])
def test_the_virtual_rig_keeps_the_contract(program, energy):
    check_rig(VirtualRig(energy=energy), a_request(), space=MINI, n_classes=10, program=program)


@pytest.mark.parametrize("energy", [JETSON_SENSOR, COUNTER, None])
def test_a_measured_device_keeps_the_contract(energy):
    requests = [a_request(setting_no=i) for i in (5, 0, 3)]
    rows = check_device(device(VirtualRig(energy=energy)), requests, space=MINI)
    assert all(row.valid for row in rows)
    assert len(rows) == 3


# --- what a row says --------------------------------------------------------------------------------


@pytest.mark.parametrize("energy", [JETSON_SENSOR, COUNTER])
def test_a_row_finds_the_truth(energy):
    watts = (lambda i: (3.0 + i, 2.0, 0.7)) if energy is JETSON_SENSOR else (lambda i: (5.0 + i,))
    idle = (0.4, 1.1, 0.2) if energy is JETSON_SENSOR else (1.5,)
    (row,) = measure(VirtualRig(energy=energy, noise=0.01, stage_w=watts, idle_w=idle))
    assert row.valid
    assert row.evidence.protocol == FULL.protocol_id
    assert row.evidence.clocks_verified is True
    assert row.evidence.decision_ms == pytest.approx(0.025)
    assert row.evidence.flags == ()
    for stage, evidence, ms, w in zip(row.stages, row.evidence.stages, TRUE_MS, TRUE_W, strict=True):
        assert stage.latency_ms.value == pytest.approx(ms, rel=0.005)
        assert stage.latency_ms.standard_error < 0.005 * ms
        assert stage.energy_mj.value == pytest.approx(w * ms, rel=0.005)
        assert evidence.energy.idle_w == pytest.approx(1.5, rel=1e-6)
        assert evidence.energy.net_mj == pytest.approx((w - 1.5) * ms, rel=0.007)
        assert evidence.energy.gross_mj == stage.energy_mj.value
    if energy is JETSON_SENSOR:
        rails = dict(row.evidence.stages[2].energy.rails_mj)
        assert rails == pytest.approx({"GPU": 50.0, "SYS": 20.0, "DDR": 7.0}, rel=0.005)
    # The full pass is the sum of its stages, the decisions apart.
    assert row.latency_ms.value == pytest.approx(sum(stage.latency_ms.value for stage in row.stages))
    assert Evidence.from_json(json.loads(json.dumps(dataclasses.asdict(row.evidence)))) == row.evidence


def test_energies_hold_the_truth_as_often_as_they_say_where_runs_scatter():
    """Power is steady, but blocks take longer or shorter by 3 %: so does what an inference draws."""
    truth_mj = 5.0 * 4.0 * np.exp(0.03**2)  # of runs and of blocks, both lognormal
    rows = [measure(VirtualRig(noise=0.03, seed=seed), a_request(positions=()))[0] for seed in range(40)]
    errors = [row.energy_mj.standard_error for row in rows]
    inside = [abs(r.energy_mj.value - truth_mj) <= 1.96 * e for r, e in zip(rows, errors, strict=True)]
    assert np.mean(inside) >= 0.9
    assert np.mean(errors) <= 2.0 * np.std([row.energy_mj.value for row in rows])


def test_energy_needs_the_first_averaging_interval_dropped():
    """A loop that follows an idle device: the sensor, averaging over 2 s, still shows it for 2 s."""
    sensor = replace(JETSON_SENSOR, averaging_s=2.0)
    rig = VirtualRig(energy=sensor, noise=0.0)
    rig.advance(10.0)
    with rig.load(a_request(), "stages") as programs, programs.loop(0, 25, 12.0) as running:
        blocks = tuple(islice(running, 120))
        trace = running.trace()
    found = loop_energy(LoopResult(blocks, 0.0, True, "interval", trace, ()), sensor)
    scope = slice(0, 2)
    assert found.rail_j[scope].sum() / found.n_runs == pytest.approx(5.0 * 4e-3, rel=1e-6)
    naive = window_energy(trace, sensor, blocks[0].start_s, trace.time_s[-1])
    assert naive.rail_j[scope].sum() / naive.duration_s < 0.95 * 5.0


@pytest.mark.parametrize("energy", [JETSON_SENSOR, COUNTER])
def test_no_energy_window_spans_a_pause(energy):
    """Warming up takes 8 s, so that the program's 18 s at a time end in the window; it loads again for 4 s."""
    rig = VirtualRig(energy=energy, noise=0.001, stage_w=lambda i: (5.0, 0.0, 0.7), idle_w=(1.0, 0.0, 0.2))
    rig.faults = Faults(pauses=(18.0, 4.0))
    (row,) = measure(rig, a_request(positions=()), protocol=replace(FULL, warm_up_s=8.0))
    (stage,) = row.evidence.stages
    assert stage.energy.gross_mj == pytest.approx(20.0, rel=0.005)
    assert stage.energy.window_s >= 10.0
    assert row.evidence.flags == ()


def test_a_program_that_never_runs_for_a_whole_window_says_so():
    rig = VirtualRig(noise=0.001, faults=Faults(pauses=(6.0, 1.0)))
    (row,) = measure(rig, a_request(positions=()))
    (stage,) = row.evidence.stages
    assert stage.energy.gross_mj == pytest.approx(20.0, rel=0.005)
    assert 4.5 <= stage.energy.window_s <= 6.0
    assert "short-window" in row.evidence.flags
    assert row.device_seconds < 70.0


@pytest.mark.parametrize("averaging_s", [0.0, 0.05, 0.4224, 1.0])
def test_windows_are_ten_seconds_and_25_averaging_intervals(averaging_s):
    source = EnergySource("s", ("GPU", "SYS", "DDR"), ("GPU", "SYS"), averaging_s, 0.05)
    (row,) = measure(VirtualRig(energy=source), a_request(positions=()))
    (stage,) = row.evidence.stages
    least = max(10.0, 25 * averaging_s)
    assert least <= stage.energy.window_s <= least + 0.5
    assert stage.energy.averaging_s == averaging_s
    # Latency blocks and power readings are of one loop: its blocks fill the window, and no second one was run.
    assert sum(stage.latency.block_ms) / 1e3 * stage.latency.runs_per_block >= stage.energy.window_s


def test_a_row_costs_what_the_protocol_says():
    assert FULL.expected_seconds(5, True) == pytest.approx(0.5 + 3 + 4 * 0.3 + 5 + 5 * (0.4224 + 10.56))
    assert 45 <= FULL.expected_seconds(5, True) <= 65
    assert 1300 <= 86_400 / FULL.expected_seconds(5, True) <= 1900
    rig = VirtualRig()
    rows = measure(rig, a_request(), a_request("m1"))
    assert rows[0].device_seconds == pytest.approx(FULL.expected_seconds(5, True), rel=0.06)
    assert dict(rows[0].evidence.machine)["loading_s"] == pytest.approx(1.0)  # device_seconds counts it
    # The second is at the same clocks: nothing settles, and the idle device is known.
    assert rows[0].device_seconds - rows[1].device_seconds == pytest.approx(5.5, abs=0.6)
    assert rig.log.count("idle") == 2
    alone = FULL.expected_seconds(5, False)
    (row,) = measure(VirtualRig(energy=None))
    assert alone == pytest.approx(0.5 + 3 + 4 * 0.3 + 5 * 34 * 0.1)
    assert row.device_seconds < alone


def test_idle_power_that_moves_is_in_the_error_of_net_energy():
    """1.5 W before the row, 1.9 W after: net of 1.7 W, give or take 0.2 W."""
    (steady,) = measure(VirtualRig(noise=0.001), a_request(positions=()))
    (energy,) = (stage.energy for stage in steady.evidence.stages)
    assert energy.net_error_mj == pytest.approx(steady.energy_mj.standard_error, rel=0.01)
    rig = VirtualRig(noise=0.001)
    rig.faults = Faults(temperature_c=lambda now: 50.0 if now < 1015 else warm(rig))

    def warm(rig):
        rig.idle_w = (0.8, 1.1, 0.2)
        return 50.0

    (row,) = measure(rig, a_request(positions=()))
    (energy,) = (stage.energy for stage in row.evidence.stages)
    assert energy.idle_w == pytest.approx(1.7)
    assert energy.net_mj == pytest.approx((5.0 - 1.7) * 4.0, rel=0.005)
    assert energy.net_error_mj == pytest.approx(0.2 * 4.0, rel=0.02)


def test_three_windows_take_turns_and_join_their_scatter():
    rig = VirtualRig(noise=0.001)
    (row,) = measure(rig, a_request(positions=(5,)), protocol=replace(FULL, n_windows=3))
    loops = [line for line in rig.log if line.startswith("loop")]
    assert loops[:3] == ["loop 0", "loop 1", "loop 2"]  # how many runs fill a block
    assert loops[3:] == ["loop 0", "loop 1", "loop 2"] * 3
    assert {stage.energy.n_windows for stage in row.evidence.stages} == {3}
    assert row.device_seconds == pytest.approx(replace(FULL, n_windows=3).expected_seconds(3, True), rel=0.05)


def test_a_program_that_differs_between_windows_says_so_in_its_error():
    """The second third of a row draws the same power and takes 4 % longer; one window cannot know."""
    rig = VirtualRig(noise=0.001, faults=Faults(slower=lambda now: 1.04 if 1050 < now < 1090 else 1.0))
    (row,) = measure(rig, a_request(positions=(5,)), protocol=replace(FULL, n_windows=3))
    errors = [stage.energy_mj.standard_error / stage.energy_mj.value for stage in row.stages]
    assert max(errors) > 0.01


def test_prefix_programs_are_cumulative():
    (row,) = measure(VirtualRig(noise=0.001), program="prefix")
    assert row.program == "prefix"
    assert [stage.kind for stage in row.stages] == ["prefix"] * 3
    values = [stage.latency_ms.value for stage in row.stages]
    assert values == pytest.approx([11.0, 34.0, 50.0], rel=0.002)
    assert row.latency_ms.value == values[-1]
    assert row.energy_mj.value == row.stages[-1].energy_mj.value
    assert row.evidence.flags == ()
    (odd,) = measure(VirtualRig(noise=0.001, faults=Faults(not_monotone=True)), program="prefix")
    assert odd.evidence.flags == ("not-monotone",)


# --- when a loop ends -------------------------------------------------------------------------------

LATENCY = replace(FULL, latency_limit_runs=10**9)


def test_a_quiet_program_stops_by_its_interval():
    (row,) = measure(VirtualRig(energy=None, noise=0.01), protocol=LATENCY)
    for stage in row.evidence.stages:
        low, high = stage.latency.interval95_ms
        assert stage.latency.stopped_by == "interval"
        assert (high - low) / 2 <= 0.01 * stage.latency.median_ms
        assert 12 <= len(stage.latency.block_ms) <= 60
        spent_s = sum(stage.latency.block_ms) / 1e3 * stage.latency.runs_per_block
        assert spent_s >= 3.0  # a moment is not enough, however alike its blocks


def test_a_noisy_program_stops_by_time():
    (row,) = measure(VirtualRig(energy=None, noise=0.4), a_request(positions=()), protocol=LATENCY)
    (stage,) = row.evidence.stages
    assert stage.latency.stopped_by == "time"
    spent_s = sum(stage.latency.block_ms) / 1e3 * stage.latency.runs_per_block
    assert 30.0 <= spent_s <= 31.0


def test_a_noisy_short_program_stops_by_count():
    rig = VirtualRig(energy=None, noise=0.1, stage_ms=lambda i: 1.0)
    (row,) = measure(rig, a_request(positions=()))
    (stage,) = row.evidence.stages
    assert stage.latency.stopped_by == "count"
    assert 2000 <= len(stage.latency.block_ms) * stage.latency.runs_per_block <= 2200


def test_no_limit_comes_before_enough_blocks():
    """A program of 4 s reaches 30 s after 8 blocks, and one of 10 us has 2000 runs in its first block."""
    for ms in (4000.0, 0.01):
        rig = VirtualRig(energy=None, noise=0.01, stage_ms=lambda i, ms=ms: ms)
        (row,) = measure(rig, a_request(positions=()))
        assert len(row.evidence.stages[0].latency.block_ms) >= FULL.least_blocks


def test_intervals_of_rows_hold_the_truth_although_they_are_looked_at_often():
    rig = VirtualRig(energy=None, noise=0.02, stage_ms=lambda i: 10.0, seed=5)
    short = replace(QUICK, n_windows=1, block_s=0.05, latency_limit_s=30.0, anchor_every=0)
    rows = measure(rig, *([a_request(positions=(5, 6, 7, 8))] * 20), protocol=short)
    inside = [
        low <= 10.0 * np.exp(0.02**2 / 2) <= high
        for row in rows
        for low, high in [stage.latency.interval95_ms for stage in row.evidence.stages]
    ]
    assert len(inside) == 180
    assert 0.88 <= np.mean(inside) <= 0.99


def test_warming_up_counts_nothing_and_lasts_until_blocks_agree():
    """The first seconds of a program are slower, by less and less: after 3 s still by 15 %."""
    rig = VirtualRig(energy=None, noise=0.001)
    began = []

    def slower(now):
        began.append(now)
        return 1.0 + 3.0 * np.exp(-(now - began[0]) / 1.0)

    rig.faults = Faults(slower=slower)
    (row,) = measure(rig, a_request(positions=()))
    latency = row.evidence.stages[0].latency
    assert 4.0 <= latency.warm_up_s <= 8.0
    assert max(latency.block_ms) < 4.0 * 1.03
    assert row.evidence.flags == ()


def test_a_program_that_never_settles_says_so():
    rig = VirtualRig(energy=None, faults=Faults(slower=lambda now: 1 + 0.2 * np.sin(np.pi * now)))
    (row,) = measure(rig, a_request(positions=()))
    assert row.evidence.flags == ("unsettled",)
    assert row.evidence.stages[0].latency.warm_up_s == pytest.approx(15.0, abs=0.2)


# --- clocks, heat, disturbances -----------------------------------------------------------------------


def test_unverified_clocks_are_refused_before_anything_is_loaded():
    bad = a_request(setting_no=0)
    rig = VirtualRig(faults=Faults(unverified=(bad.setting,)))
    rows = measure(rig, a_request(), bad, protocol=replace(QUICK, anchor_every=0))
    assert [row.valid for row in rows] == [True, False, False]
    assert "clocks not verified: asked for gpu 100 MHz" in rows[1].reason
    assert "clamped" in rows[1].reason
    assert rows[1].actual.hz("gpu") == 50_000_000
    assert rows[1].evidence.clocks_verified is False
    assert [row.evidence.attempt for row in rows] == [0, 0, 1]
    assert sum(line.startswith("load") for line in rig.log) == 1


def test_a_device_without_clocks_is_neither_verified_nor_not():
    rig = VirtualRig(table=PINNED)
    request = replace(a_request(), setting=PINNED.default)
    (row,) = measure(rig, request)
    assert row.valid
    assert row.evidence.clocks_verified is None


def test_a_hot_device_is_waited_for():
    """A row ended at 50 degrees; then it is 70 and cools by 0.1 a second, so 180 s to 52."""
    rig = VirtualRig(energy=None)

    def temperature_c(now):
        return 50.0 if rig.n_loads < 2 else max(40.0, 70.0 - 0.1 * (now - 1010.0))

    rig.faults = Faults(temperature_c=temperature_c)
    patient = replace(QUICK, gate_limit_s=1000.0)
    rows = measure(rig, a_request(), a_request("m1"), protocol=patient)
    assert rows[1].valid
    assert rows[1].evidence.flags == ()
    assert rows[1].evidence.temperature_c[1] <= 52.0
    assert rows[1].device_seconds > 150.0


def test_a_device_that_works_itself_warm_is_not_waited_for():
    """From 35 to 60 degrees over the first minutes of work."""
    rig = VirtualRig(energy=None)
    rig.faults = Faults(temperature_c=lambda now: 60.0 - 25.0 * np.exp(-(now - 1000.0) / 60.0))
    rows = measure(rig, *(a_request(f"m{i}") for i in range(7)))
    assert all(row.valid and row.evidence.flags == () for row in rows)
    assert max(row.device_seconds for row in rows) < 25.0
    warm = replace(QUICK, gate_reference_c=30.0, gate_limit_s=40.0)
    rig.now = 1000.0
    waited = measure(rig, a_request("m1"), protocol=warm)
    assert waited[0].device_seconds > 40.0
    assert waited[0].evidence.flags == ("hot",)


def test_a_device_that_stays_hot_says_so_and_one_that_is_steady_is_not_waited_for():
    def rows(temperature_c):
        rig = VirtualRig(energy=None)
        rig.faults = Faults(temperature_c=lambda now: 50.0 if rig.n_loads < 2 else temperature_c(now))
        return measure(rig, a_request(), a_request("m1"), protocol=replace(QUICK, gate_limit_s=60.0))

    restless = rows(lambda now: 80.0 + 0.05 * (now - 1000.0))[1]
    assert restless.evidence.flags == ("hot",)
    assert restless.valid
    assert restless.device_seconds > 60.0
    steady = rows(lambda now: 60.0)[1]
    assert steady.evidence.flags == ()
    assert 10.0 < steady.device_seconds < 20.0


def test_a_throttled_row_is_kept_and_measured_once_more():
    rig = VirtualRig(faults=Faults(throttle_at_s=(1030.0,)))
    rows = measure(rig, a_request(), a_request("m1"))
    assert [row.valid for row in rows] == [False, True, True]
    assert rows[0].reason == "1 over-current events"
    assert rows[0].evidence.flags == ("throttled",)
    assert rows[0].evidence.overcurrent_events == 1
    assert rows[0].latency_ms.value == pytest.approx(50.0, rel=0.01)
    assert (rows[2].backbone, rows[2].evidence.attempt) == (rows[0].backbone, 1)


def test_clocks_that_drop_while_measuring_are_noticed():
    class Dropping(VirtualRig):
        def state(self):
            state = super().state()
            if 1020 <= self.now <= 1022:
                low = tuple((name, hz - 40_000_000) for name, hz in self.setting.clocks_hz)
                return replace(state, actual=type(self.setting)(low))
            return state

    rows = measure(Dropping())
    assert [row.valid for row in rows] == [False, True]
    assert "clocks ran at gpu 360 MHz instead of 400 MHz" in rows[0].reason
    assert rows[0].evidence.clocks_verified is False


def test_scatter_of_a_clock_reading_is_no_throttling():
    class Scattering(VirtualRig):
        def state(self):
            state = super().state()
            near = tuple((name, round(hz * 0.997)) for name, hz in self.setting.clocks_hz)
            return replace(state, actual=type(self.setting)(near))

    (row,) = measure(Scattering())
    assert row.valid
    assert row.evidence.clocks_verified is True


@pytest.mark.parametrize(
    ("faults", "flags", "valid"),
    [
        (Faults(), (), True),
        (Faults(steal_share=0.02), ("noisy",), True),
        (Faults(pressure_percent=11.0), ("noisy",), True),
        (Faults(cpu_share=0.31), ("noisy",), False),
        (Faults(temperature_c=lambda now: 96.0), ("throttled",), False),
    ],
)
def test_what_else_the_machine_does_is_said(faults, flags, valid):
    row = measure(VirtualRig(energy=None, faults=faults))[0]
    assert (row.evidence.flags, row.valid) == (flags, valid)
    machine = dict(row.evidence.machine)
    assert machine["cpu_steal_share"] == pytest.approx(faults.steal_share, abs=1e-6)
    assert machine["process_cpu_share"] == pytest.approx(faults.cpu_share)
    assert machine["cpu_pressure_percent"] == faults.pressure_percent
    assert machine["load_1min"] == 0.5
    if faults.cpu_share == 0.31:
        assert "process time was 31% of wall time" in row.reason


def test_what_only_one_look_at_the_device_showed_is_kept():
    states = [
        DeviceState(machine=(("load_1min", 0.1), ("wall_s", 1.0))),
        DeviceState(machine=(("power-cap", 1.0), ("wall_s", 2.0))),
        DeviceState(machine=(("load_1min", 0.4), ("wall_s", 3.0))),
    ]
    found = judge_states(states, [], PINNED.default, FULL)
    assert dict(found.machine) == {"load_1min": 0.4, "power-cap": 1.0}
    assert (found.reason, found.flags, found.clocks_verified) == ("", (), None)


# --- failures -----------------------------------------------------------------------------------------


def test_a_sensor_that_dies_spoils_rows_from_then_on():
    rig = VirtualRig(faults=Faults(dead_sensor_from_s=1080.0))
    rows = measure(rig, a_request(), a_request("m1"))
    assert [row.valid for row in rows] == [True, False, False]
    assert "showed no power" in rows[1].reason
    assert rows[1].evidence.engine == "arithmetic 1"


@pytest.mark.parametrize("where", ["fail_on_load", "fail_in_loop"])
def test_a_device_error_is_a_row_with_its_reason(where):
    faults = Faults(**{where: lambda row: BROKEN if row == 0 else None})
    rows = measure(VirtualRig(faults=faults), a_request(), a_request("m1"))
    assert [row.valid for row in rows] == [False, True, True]
    assert rows[0].reason == str(BROKEN)
    assert rows[0].device_seconds > 0
    assert rows[0].stages == ()


def test_a_lost_connection_ends_the_session():
    rig = VirtualRig(faults=Faults(fail_in_loop=lambda row: LOST if row == 1 else None))
    rows, said = measure_until(ConnectionLostError, rig, a_request(), a_request("m1"), a_request("m2"))
    assert [row.valid for row in rows] == [True, False]
    assert rows[1].reason == said == str(LOST)


def test_a_lost_lease_ends_the_session_before_the_next_row():
    left = iter(("", "", "taken by somebody else"))

    def check():
        if reason := next(left):
            raise DeviceBusyError(reason)

    requests = (a_request(), a_request("m1"), a_request("m2"))
    rows, said = measure_until(DeviceBusyError, VirtualRig(), *requests, check=check)
    assert len(rows) == 2
    assert said == "taken by somebody else"


def test_a_program_that_ends_by_itself_is_an_error():
    rows = measure(VirtualRig(energy=None, faults=Faults(ends_after_blocks=7)))
    assert not rows[0].valid
    assert "ended by itself after 7 blocks" in rows[0].reason


def test_raw_readings_are_kept_and_named(tmp_path):
    rows = measure(VirtualRig(seed=1), raw_directory=tmp_path / "raw")
    (row,) = rows
    file = tmp_path / "raw" / row.evidence.raw_file
    assert hashlib.sha256(file.read_bytes()).hexdigest() == row.evidence.raw_sha256
    table = list(csv.DictReader(io.StringIO(gzip.decompress(file.read_bytes()).decode())))
    assert list(table[0]) == ["phase", "time_s", "GPU [W]", "SYS [W]", "DDR [W]"]
    phases = list(dict.fromkeys(line["phase"] for line in table))
    last = MINI.presets["m0"].n_blocks
    assert phases == ["idle", "segment@5", "head@5", "segment@8", "head@8", f"segment@{last}", "idle after"]
    assert sum("idle" not in line["phase"] for line in table) > sum(
        stage.energy.n_samples for stage in row.evidence.stages
    )
    (again,) = measure(VirtualRig(seed=1), raw_directory=tmp_path / "again")
    assert again.evidence.raw_sha256 == row.evidence.raw_sha256
    (tmp_path / "file").write_text("")
    (failed, _) = measure(VirtualRig(), raw_directory=tmp_path / "file")
    assert not failed.valid
    assert "power readings" in failed.reason


def test_protocols_are_told_apart_and_checked():
    assert FULL.protocol_id == MeasuringProtocol().protocol_id
    assert FULL.protocol_id != QUICK.protocol_id != replace(QUICK, interval=0.02).protocol_id
    with pytest.raises(ConfigError, match="least_blocks must be at least 3"):
        MeasuringProtocol(least_blocks=2)
    with pytest.raises(ConfigError, match=r"settle_s = -1\.0"):
        MeasuringProtocol(settle_s=-1.0)


def test_a_clock_that_does_not_tell_time_is_an_error():
    rows = measure(VirtualRig(stage_ms=lambda i: 0.0))
    assert not rows[0].valid
    assert "does not tell time" in rows[0].reason


def test_requests_off_the_table_are_refused_at_once():
    rig = VirtualRig()
    off = type(TABLE.default)((("gpu", 123), ("emc", 500_000_000)))
    with pytest.raises(OffTableFrequencyError, match="123 Hz"):
        device(rig).measure(MeasurementPlan("s", (a_request(), replace(a_request(), setting=off))))
    assert rig.log == []
