"""Intervals of medians, and energy of power readings, against what is known by brute force."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hadas.datasets.records import Statistic
from hadas.errors import RecordError
from hadas.measurement.hardware.device import MeasurementPlan
from hadas.measurement.hardware.measuring.protocol import total_statistic
from hadas.measurement.hardware.measuring.runner import MeasuredDevice
from hadas.measurement.hardware.measuring.statistics import (
    _T975,
    agreement,
    bootstrap_interval,
    latency_evidence,
    latency_statistic,
    median_interval,
    relative_move,
    window_energy,
)
from hadas.measurement.hardware.rig import Block, EnergySource, PowerTrace
from hadas.spaces import mini_space

from .virtual_rig import COUNTER, JETSON_SENSOR, VirtualRig, a_request

# --- medians ---------------------------------------------------------------------------------------


def test_the_interval_is_the_percentile_bootstrap():
    values = np.random.default_rng(1).normal(10, 1, 14)
    drawn = np.random.default_rng([0, 14]).integers(0, 14, (1000, 14), dtype=np.int32)
    medians = [np.median(np.sort(values)[row]) for row in drawn]
    assert bootstrap_interval(values) == pytest.approx(tuple(np.quantile(medians, (0.025, 0.975))))


@pytest.mark.parametrize("n", [12, 25, 80])
@pytest.mark.parametrize(
    ("name", "median"), [("normal", 0.0), ("exponential", math.log(2)), ("lognormal", 1.0)]
)
def test_intervals_hold_the_median_as_often_as_they_say(name, median, n):
    rng = np.random.default_rng(7)
    samples = getattr(rng, name)(size=(500, n))
    ends = np.array([bootstrap_interval(sample, n_resamples=400, seed=i) for i, sample in enumerate(samples)])
    coverage = np.mean((ends[:, 0] <= median) & (median <= ends[:, 1]))
    assert 0.91 <= coverage <= 0.99


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.1, 100.0), min_size=3, max_size=40), st.floats(0.01, 50.0), st.randoms(use_true_random=False)
)  # fmt: skip
def test_intervals_hold_the_sample_median_scale_and_forget_order(values, factor, random):
    low, high = bootstrap_interval(np.array(values), n_resamples=200)
    assert min(values) <= low <= high <= max(values)
    shuffled = random.sample(values, len(values))
    assert bootstrap_interval(np.array(shuffled), n_resamples=200) == (low, high)
    scaled = bootstrap_interval(factor * np.array(values), n_resamples=200)
    assert scaled == pytest.approx((factor * low, factor * high))


def test_latency_evidence_by_hand():
    """Blocks of 2 runs, ms: (1, 3), (2, 2), (2, 100), (3, 3); medians and deviations counted on fingers."""
    runs = [(1.0, 3.0), (2.0, 2.0), (2.0, 100.0), (3.0, 3.0)]
    blocks = [Block(float(i), i + 0.5, tuple(1e-3 * ms for ms in pair)) for i, pair in enumerate(runs)]
    found = latency_evidence(blocks, "count", 1.5)
    assert found.block_ms == pytest.approx((2.0, 2.0, 51.0, 3.0))
    assert found.median_ms == pytest.approx(2.5)
    # Single runs 1 2 2 2 3 3 3 100: median 2.5, deviations .5 .5 .5 .5 .5 .5 1.5 97.5, median .5, 5 MAD = 2.5.
    assert found.mad_ms == pytest.approx(0.5)
    assert found.n_outliers == 1
    assert found.p90_ms == pytest.approx(np.quantile(np.ravel(runs), 0.9))
    assert (found.runs_per_block, found.stopped_by, found.warm_up_s) == (2, "count", 1.5)


def neighbours_alike(rho, sd, shape, seed):
    """(rows, n) values around 1 of an autoregressive process of first order."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    for i in range(1, shape[1]):
        noise[:, i] = rho * noise[:, i - 1] + math.sqrt(1 - rho**2) * noise[:, i]
    return np.exp(sd * noise)


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.5])
def test_intervals_of_blocks_allow_for_neighbours_that_are_alike(rho, n):
    rows = neighbours_alike(rho, 0.03, (400, n), seed=11)
    ends = np.array([median_interval(row, n_resamples=300) for row in rows])
    coverage = np.mean((ends[:, 0] <= 1.0) & (ends[:, 1] >= 1.0))
    assert 0.92 <= coverage <= 0.995
    if rho == 0.5:
        plain = np.array([bootstrap_interval(row, n_resamples=300) for row in rows])
        assert np.mean((plain[:, 0] <= 1.0) & (plain[:, 1] >= 1.0)) < 0.85


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.1, 100.0), min_size=3, max_size=40), st.floats(0.01, 50.0))
def test_intervals_of_blocks_are_never_narrower_than_the_bootstrap_and_scale(values, factor):
    low, high = median_interval(np.array(values), n_resamples=200)
    least = bootstrap_interval(np.array(values), n_resamples=200)
    assert low <= least[0] + 1e-9 <= np.median(values) + 2e-9
    assert high >= least[1] - 1e-9
    scaled = median_interval(factor * np.array(values), n_resamples=200)
    assert scaled == pytest.approx((factor * low, factor * high), abs=1e-9 * factor)


def test_quantiles_of_students_t():
    for freedom, quantile in _T975.items():
        assert quantile == pytest.approx(stats.t.ppf(0.975, freedom), abs=5e-5)


def test_slow_phases_widen_the_error_and_stages_share_them():
    """Blocks of 1, 2, 4 and 5 ms, eight of each: by hand, four batches with variance 10 / 3, t 3.1824."""
    blocks = [Block(float(i), i + 0.9, (1e-3 * (1, 2, 4, 5)[i // 8],)) for i in range(32)]
    slow = latency_statistic(latency_evidence(blocks, "count", 0.0))
    assert slow == Statistic(3.0, pytest.approx(3.1824 * math.sqrt(10 / 3 / 4) / 1.96, rel=1e-4), 32)
    mixed = [blocks[i] for i in np.random.default_rng(0).permutation(32)]
    assert latency_statistic(latency_evidence(mixed, "count", 0.0)).standard_error < 0.9
    both = total_statistic([slow, slow], independent=False)
    assert both == Statistic(6.0, pytest.approx(2 * slow.standard_error), 32)
    assert total_statistic([slow, slow], independent=True).standard_error == pytest.approx(
        math.sqrt(2) * slow.standard_error
    )


def test_a_move_and_its_reach():
    move, reach = relative_move(Statistic(100.0, 1.0, 5), Statistic(104.0, 0.0, 5))
    assert move == pytest.approx(0.04)
    assert reach == pytest.approx(1.96 * 0.01, rel=1e-4)


# --- energy ----------------------------------------------------------------------------------------

SENSOR = EnergySource("sensor", ("A", "B", "C"), ("A", "B"), 0.4, 0.05)


def sampled(power, end_s, source=SENSOR):
    """What an ideal sensor without averaging shows of power(t) per rail."""
    times = np.arange(0.0, end_s + 1e-9, source.update_s)
    return PowerTrace(tuple(times.tolist()), tuple(tuple(float(rail(t)) for t in times) for rail in power))


def test_the_trapezoid_is_exact_for_a_ramp_also_between_readings():
    trace = sampled((lambda t: 1 + t, lambda t: 2.0, lambda t: 9.0), 12.0)
    found = window_energy(trace, SENSOR, 1.013, 11.027)
    duration = 11.027 - 1.013
    assert found.duration_s == pytest.approx(duration)
    assert found.rail_j == pytest.approx([duration + (11.027**2 - 1.013**2) / 2, 2 * duration, 9 * duration])
    assert found.n_samples == len([t for t in trace.time_s if 1.013 <= t <= 11.027])


def test_a_counter_counts_by_differences():
    """Readings are mean powers since the one before, so uneven intervals do not matter."""
    source = dataclasses.replace(COUNTER, update_s=0.5)
    times = [0.0, 0.5, 1.5, 1.75, 3.0, 3.5, 4.0]
    energy = [0.0, 3.0, 4.0, 9.0, 9.5, 12.0, 13.0]  # joules up to there
    power = [0.0] + [
        (b - a) / (t - s) for a, b, s, t in zip(energy, energy[1:], times, times[1:], strict=False)
    ]
    found = window_energy(PowerTrace(tuple(times), (tuple(power),)), source, 0.5, 3.5)
    assert found.rail_j == pytest.approx([9.0])
    between = window_energy(PowerTrace(tuple(times), (tuple(power),)), source, 1.0, 3.0)
    assert between.rail_j == pytest.approx([9.5 - 3.5])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.3, 3.0), st.floats(0.5, 20.0)), min_size=2, max_size=12), st.integers(0, 9)
)
def test_an_averaging_sensor_misses_little_of_any_load(parts, seed):
    """Seen through a moving average over 0.4224 s, any piecewise load, repeated over a window, keeps its energy."""
    rig = VirtualRig(energy=JETSON_SENSOR)
    start_s = rig.now
    rng = np.random.default_rng(seed)
    while rig.now < start_s + 12.0:
        for seconds, watts in parts:
            rig.advance(seconds / 20 * rng.uniform(0.9, 1.1), (watts, 1.0, 0.5))
    trace = rig._trace(start_s)
    found = window_energy(trace, JETSON_SENSOR, start_s + 0.4224, trace.time_s[-1])
    truth = rig.true_energy_j(start_s + 0.4224 / 2, trace.time_s[-1] - 0.4224 / 2)
    assert found.rail_j[0] == pytest.approx(truth[0], rel=0.02)
    assert found.rail_j[1] == pytest.approx(found.duration_s * 1.0, rel=1e-9)


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (PowerTrace((), ((), (), ())), "gave 0 readings"),
        (sampled((lambda t: 0.0, lambda t: 0.0, lambda t: 3.0), 12.0), "showed no power"),
        (sampled((lambda t: 1.0, lambda t: math.nan, lambda t: 3.0), 12.0), "no numbers"),
        (sampled((lambda t: 1.0, lambda t: 1.0, lambda t: 3.0), 6.0), "readings in 10 s, about 200"),
        (PowerTrace((0.0, 1.0, 1.0), ((1.0, 1.0, 1.0),) * 3), "out of order"),
        (PowerTrace((0.0, 1.0), ((1.0, 1.0),) * 2), "shape"),
    ],
)
def test_a_dead_sensor_is_an_error_not_an_energy(trace, said):
    with pytest.raises(RecordError, match=said):
        window_energy(trace, SENSOR, 1.0, 11.0)


def test_power_that_wanders_has_a_larger_error_than_power_that_jitters():
    """The same readings of a counter, in two orders: their mean is known better where they are independent."""
    power_w = 10.0 * neighbours_alike(0.9, 0.05, (1, 250), seed=3)[0]

    def error_w(readings):
        source = dataclasses.replace(COUNTER, update_s=0.04)
        times = 0.04 * np.arange(251)
        trace = PowerTrace(tuple(times.tolist()), ((0.0, *readings.tolist()),))
        return window_energy(trace, source, 0.0, 10.0).error_w

    assert error_w(power_w) > 1.3 * error_w(np.random.default_rng(0).permutation(power_w))


def test_rounding_and_scatter_are_in_the_standard_error():
    coarse = sampled((lambda t: round(5 + 0.3 * math.sin(t), 1), lambda t: 1.0, lambda t: 0.0), 12.0)
    assert window_energy(coarse, SENSOR, 1.0, 11.0).error_w > 0.02
    steady = sampled((lambda t: 5.0, lambda t: 1.0, lambda t: 0.0), 12.0)
    assert window_energy(steady, SENSOR, 1.0, 11.0).error_w == pytest.approx(0.0, abs=1e-9)


# --- two rows --------------------------------------------------------------------------------------


def test_repeated_rows_agree_or_say_that_they_were_noisy():
    def row(**settings):
        rig = VirtualRig(energy=None, **settings)
        device = MeasuredDevice(rig, space=mini_space(), n_classes=10, clock=rig.clock)
        return next(iter(device.measure(MeasurementPlan("s", (a_request(),)))))

    first = row(seed=1, noise=0.02)
    assert agreement(first, row(seed=2, noise=0.02)).agree
    slower = row(seed=3, noise=0.02, stage_ms=lambda i: 1.1 * (4.0 + 3.0 * i))
    found = agreement(first, slower)
    assert (found.agree, found.noisy, found.honest) == (False, False, False)
    assert found.difference == pytest.approx(0.1, abs=0.01)
    flagged = dataclasses.replace(slower.evidence, flags=("noisy",))
    assert agreement(first, dataclasses.replace(slower, evidence=flagged)).honest
    with pytest.raises(RecordError, match="heads"):
        agreement(first, dataclasses.replace(first, heads=()))


def test_an_end_that_blocks_pull_to_the_median_moves_out_too():
    """Seven fast blocks, then five slow ones: nothing says that the truth cannot lie below the median."""
    low, high = median_interval(np.array([1.0] * 7 + [1.2] * 5))
    assert low < 1.0 < 1.2 <= high
