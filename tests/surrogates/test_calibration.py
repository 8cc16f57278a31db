"""Calibration measures against what is known of the normal."""

import numpy as np
import pytest

from hadas.surrogates.calibration import central_interval, coverage


@pytest.mark.parametrize(("level", "half"), [(0.5, 0.67449), (0.9, 1.64485), (0.95, 1.95996)])
def test_central_interval_golden_values(level, half):
    lower, upper = central_interval(np.array([1.0, -2.0]), np.array([1.0, 3.0]), level)
    np.testing.assert_allclose(lower, [1.0 - half, -2.0 - 3 * half], atol=2e-5)
    np.testing.assert_allclose(upper, [1.0 + half, -2.0 + 3 * half], atol=2e-5)


def test_calibrated_predictions_cover_what_they_promise():
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(size=4000), rng.uniform(0.5, 2.0, 4000)
    measured = mean + sd * rng.standard_normal(4000)
    for level in (0.5, 0.8, 0.9):
        assert coverage(*central_interval(mean, sd, level), measured) == pytest.approx(level, abs=0.025)


def test_interval_ends_count_and_nothing_measured_is_nan():
    lower, upper = central_interval(np.zeros(2), np.ones(2), 0.9)
    assert coverage(lower, upper, np.array([lower[0], 2.0])) == 0.5
    assert np.isnan(coverage(np.array([]), np.array([]), np.array([])))
