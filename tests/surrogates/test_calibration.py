"""Calibration measures against closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from hadas.surrogates.calibration import (
    central_interval,
    coverage,
    crps_draws,
    crps_normal,
    pit_draws,
    pit_normal,
    report_draws,
    report_normal,
)


def test_crps_of_the_standard_normal_at_its_mean():
    # (sqrt 2 - 1) / sqrt pi
    assert crps_normal(np.zeros(1), np.ones(1), np.zeros(1))[0] == pytest.approx(0.23369497725510913)


def test_crps_without_spread_is_the_error():
    np.testing.assert_allclose(crps_normal(np.array([1.0]), np.zeros(1), np.array([3.0])), 2.0)
    np.testing.assert_allclose(crps_draws(np.array([[1.0], [1.0]]), np.array([3.0])), 2.0)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.floats(-5, 5))
def test_crps_of_draws_is_the_double_sum(draws, measured):
    x = np.array(draws)
    direct = np.abs(x - measured).mean() - 0.5 * np.abs(x[:, None] - x[None, :]).mean()
    assert crps_draws(x[:, None], np.array([measured]))[0] == pytest.approx(direct, abs=1e-9)


def test_crps_of_many_draws_is_that_of_the_normal():
    draws = norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None] * 2.0 + 1.0
    assert crps_draws(draws, np.array([0.0]))[0] == pytest.approx(
        crps_normal(np.ones(1), np.full(1, 2.0), np.zeros(1))[0], rel=1e-3
    )


def test_calibrated_predictions_cover_what_they_promise():
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(size=4000), rng.uniform(0.5, 2.0, 4000)
    measured = mean + sd * rng.standard_normal(4000)
    report = report_normal(mean, sd, measured, levels=(0.5, 0.8, 0.9))
    for level, share in report.coverage:
        assert share == pytest.approx(level, abs=0.025)
    assert abs(report.bias) < 0.06
    assert report.rmse == pytest.approx(np.sqrt(np.mean(sd**2)), rel=0.05)
    assert report.sharpness == pytest.approx(2 * 1.6449 * sd.mean(), rel=1e-3)
    np.testing.assert_allclose(np.histogram(pit_normal(mean, sd, measured), bins=10)[0], 400, atol=80)


def test_bias_is_predicted_minus_measured():
    assert report_normal(np.full(3, 5.0), np.ones(3), np.full(3, 4.0)).bias == 1.0


def test_draws_and_normal_reports_agree():
    rng = np.random.default_rng(1)
    measured = rng.normal(size=200)
    draws = rng.normal(size=(3000, 200))
    one, two = report_draws(draws, measured), report_normal(np.zeros(200), np.ones(200), measured)
    assert one.crps == pytest.approx(two.crps, rel=0.02)
    assert one.coverage[1][1] == pytest.approx(two.coverage[1][1], abs=0.03)
    np.testing.assert_allclose(pit_draws(draws, measured), norm.cdf(measured), atol=0.04)


def test_interval_ends_count_and_nothing_measured_is_nan():
    lower, upper = central_interval(np.zeros(2), np.ones(2), 0.9)
    assert coverage(lower, upper, np.array([lower[0], 2.0])) == 0.5
    assert np.isnan(coverage(np.array([]), np.array([]), np.array([])))
    empty = report_normal(np.array([]), np.array([]), np.array([]))
    assert empty.n == 0
    assert np.isnan(empty.crps)
