"""Calibration measures against closed forms, brute force and what is known of the normal."""

import json

import numpy as np
import pytest

from hadas.surrogates.calibration import (
    CalibrationSummary,
    central_interval,
    coverage,
    crps_normal,
)


@pytest.mark.parametrize(("level", "half"), [(0.5, 0.67449), (0.9, 1.64485), (0.95, 1.95996)])
def test_central_interval_golden_values(level, half):
    lower, upper = central_interval(np.array([1.0, -2.0]), np.array([1.0, 3.0]), level)
    np.testing.assert_allclose(lower, [1.0 - half, -2.0 - 3 * half], atol=2e-5)
    np.testing.assert_allclose(upper, [1.0 + half, -2.0 + 3 * half], atol=2e-5)


def test_interval_ends_count_and_nothing_measured_is_nan():
    lower, upper = central_interval(np.zeros(2), np.ones(2), 0.9)
    assert coverage(lower, upper, np.array([lower[0], 2.0])) == 0.5
    assert np.isnan(coverage(np.array([]), np.array([]), np.array([])))


def test_crps_of_a_normal_golden_values():
    """At z = 0: 2 phi(0) - 1/sqrt(pi); at z = 1: (2 Phi(1) - 1) + 2 phi(1) - 1/sqrt(pi); a sure prediction: its error."""
    mean, sd = np.array([0.0, 0.0, 5.0, 5.0]), np.array([1.0, 1.0, 2.0, 0.0])
    found = crps_normal(mean, sd, np.array([0.0, 1.0, 5.0, 3.5]))
    np.testing.assert_allclose(found, [0.2336950, 0.6024414, 0.4673900, 1.5], atol=1e-6)


def test_right_predictions_pass_in_every_respect():
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(size=4000), rng.uniform(0.5, 2.0, 4000)
    found = CalibrationSummary.of_normal(mean, sd, mean + sd * rng.standard_normal(4000))
    for level, share in found.coverage.items():
        low, high = found.coverage_band(level)
        assert low <= share <= high
        assert high - low < 0.035
    assert abs(found.bias_sd) < 0.04
    assert found.spread_sd == pytest.approx(1.0, abs=0.03)
    assert found.pit_p > 0.05
    assert sum(found.pit) == pytest.approx(1.0)


def test_each_fault_shows_in_its_own_figure():
    rng = np.random.default_rng(1)
    mean, noise = np.zeros(2000), rng.standard_normal(2000)
    sure = CalibrationSummary.of_normal(mean, np.full(2000, 0.5), noise)
    biased = CalibrationSummary.of_normal(mean, np.ones(2000), noise + 0.5)
    assert sure.coverage[0.9] < 0.65  # P(|z| < 0.82) = 0.59
    assert sure.spread_sd == pytest.approx(2.0, rel=0.05)
    assert sure.pit[0] > 0.15  # measurements pile up at both ends
    assert sure.pit[-1] > 0.15
    assert biased.bias_sd == pytest.approx(0.5, abs=0.05)
    assert biased.pit[-1] > 2 * biased.pit[0]
    assert max(sure.pit_p, biased.pit_p) < 1e-6
    honest = CalibrationSummary.of_normal(mean, np.ones(2000), noise)
    assert honest.crps < sure.crps
    assert honest.crps < biased.crps


def test_nothing_measured_is_said_and_not_hidden():
    nothing = CalibrationSummary.of_normal(np.array([]), np.array([]), np.array([]))
    assert nothing.n == 0
    assert np.isnan([nothing.crps, nothing.bias_sd, nothing.coverage[0.9]]).all()


def test_a_summary_becomes_json_with_levels_in_percent():
    found = CalibrationSummary.of_normal(np.zeros(30), np.ones(30), np.linspace(-2, 2, 30))
    document = json.loads(json.dumps(found.to_json()))
    assert set(document["coverage"]) == {"50", "80", "90", "95"}
    assert document["n"] == 30
