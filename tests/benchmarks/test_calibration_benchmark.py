"""The calibration benchmark's search and its verdict, on made-up problems where the answer is known."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hadas.surrogates.calibration import CalibrationSummary

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import calibration
from _calibration_problems import Predicted, fronts


def test_fronts_are_peeled_per_stratum_and_known_points_are_never_proposed():
    values = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [3.0, 3.0], [5.0, 5.0], [6.0, 6.0]])
    strata, nothing = np.array([0, 0, 0, 0, 1, 1]), np.array([], dtype=np.int64)
    assert fronts(values, strata, nothing, 1).tolist() == [0, 1, 4]
    assert fronts(values, strata, nothing, 4).tolist() == [0, 1, 2, 4, 5]
    assert fronts(values, strata, np.array([0, 1]), 2).tolist() == [2, 4]
    assert fronts(values, strata, np.arange(6), 3).tolist() == []


@dataclass
class OverSure:
    """Costs predicted with twice the error that is admitted, the better the more was measured."""

    truth: np.ndarray
    n_train: int = 60

    @property
    def measured(self):
        return {"cost": self.truth}

    @property
    def strata(self):
        return np.zeros(len(self.truth), dtype=np.int64)

    def predict(self, rows, seed):
        rng = np.random.default_rng([seed, len(rows)])
        mean = self.truth + 0.4 * rng.standard_normal(len(self.truth))
        mean[rows] = self.truth[rows]
        return Predicted(
            {"cost": mean}, {"cost": np.full(len(mean), 0.2)}, {"cost": 2.0 * rng.standard_normal(len(rows))}
        )

    def objectives(self, mean):
        return mean["cost"][:, None]


@pytest.fixture
def over_sure(monkeypatch):
    def problem(seed):
        return OverSure(np.random.default_rng([7, seed]).normal(size=600))

    monkeypatch.setattr(calibration, "PROBLEMS", {"over-sure": problem})


def test_the_correction_is_judged_on_points_that_were_not_measured_before(over_sure):
    found = calibration.summaries(calibration.repetitions(range(12), workers=1))
    n = 24 * 12
    assert {key[2:]: summary.n for key, summary in found.items()} == {
        ("before", "plain"): n, ("before", "corrected"): n, ("after", "plain"): n, ("after", "corrected"): n,
        ("random", "plain"): found["over-sure", "cost", "random", "plain"].n,
        ("random", "corrected"): found["over-sure", "cost", "random", "plain"].n,
    }  # fmt: skip
    plain, corrected = (found["over-sure", "cost", "after", form] for form in calibration.FORMS)
    assert plain.coverage[0.9] < 0.7
    assert corrected.coverage[0.9] > 0.8
    assert 0 < corrected.bias_sd < plain.bias_sd  # proposed points cost more than predicted
    assert (
        calibration.repetitions([3], 1)[0].mean.tolist() == calibration.repetitions([3], 1)[0].mean.tolist()
    )


def summary(n, inside, bias):
    found = CalibrationSummary.of_normal(np.zeros(n), np.ones(n), np.zeros(n))
    return CalibrationSummary(**{**vars(found), "coverage": {0.9: inside}, "bias_sd": bias})


@pytest.mark.parametrize(
    ("n", "inside", "bias", "missed"),
    [
        (240, 0.86, 0.2, []),
        (240, 0.84, 0.2, ["P, q: coverage 84.0 %"]),
        (240, 0.95, -0.3, ["P, q: bias -0.30 sd"]),
        (24, 0.75, 0.6, []),  # so few points may show this of intervals that reach 85 %
        (24, 0.5, 0.0, ["P, q: coverage 50.0 %"]),
    ],
)
def test_what_is_missed(n, inside, bias, missed):
    found = {
        ("P", "q", "after", "corrected"): summary(n, inside, bias),
        ("P", "q", "after", "plain"): summary(n, 0, 9),
    }
    assert calibration.misses(found) == missed
