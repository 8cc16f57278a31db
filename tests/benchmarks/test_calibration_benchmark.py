"""The calibration benchmark's search and its verdict, on made-up problems where the answer is known."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

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
    n_random = found["over-sure", "cost", "random", "plain"].summary.n
    assert {key[2:]: pooled.summary.n for key, pooled in found.items()} == {
        ("before", "plain"): n, ("before", "corrected"): n, ("after", "plain"): n, ("after", "corrected"): n,
        ("random", "plain"): n_random, ("random", "corrected"): n_random,
    }  # fmt: skip
    plain, corrected = (found["over-sure", "cost", "after", form] for form in calibration.FORMS)
    assert plain.summary.coverage[0.9] < 0.7
    assert corrected.summary.coverage[0.9] > 0.8
    # Proposed points cost more than predicted; in the corrected deviations, which are wider, that looks smaller.
    assert 0 < corrected.plain_bias_sd < plain.plain_bias_sd == pytest.approx(plain.summary.bias_sd)
    assert abs(corrected.summary.bias_sd) < abs(corrected.plain_bias_sd)
    assert corrected.summary.n_groups == corrected.n_repetitions == 12
    assert calibration.decides(found)
    assert calibration.broken(found, 12) == []
    assert len(calibration.broken(found, 13)) == 4  # points are missing at every place but the random one
    again = calibration.repetitions([3], 1)[0]
    assert calibration.repetitions([3], 1)[0].mean.tolist() == again.mean.tolist()


def judged(form, z, *, factor=1.0, n_repetitions=10):
    """Predictions of 0, standard deviation of the model 1, that err by z (n,) in every repetition."""
    ones = np.ones(len(z))
    return [
        calibration.Judged("P", "q", "after", form, 0.0 * ones, factor * ones, ones, z)
        for _ in range(n_repetitions)
    ]


def found_of(plain, corrected):
    return calibration.summaries([*plain, *corrected])


def test_wide_intervals_are_no_remedy():
    """Three times as wide as right ones: all inside and the bias small in their own unit, but not in the model's."""
    z = norm.ppf((np.arange(24) + 0.5) / 24) + 0.3
    wide = found_of(judged("plain", z), judged("corrected", z, factor=3.0))
    pooled = wide["P", "q", "after", "corrected"]
    assert pooled.summary.coverage[0.9] == 1.0
    assert pooled.summary.bias_sd == pytest.approx(0.1)
    said = calibration.misses(wide)
    assert said[0] == "P, q: bias +0.30 sd"
    assert said[1].startswith("P, q: CRPS 1.")
    assert len(said) == 2
    assert calibration.misses(found_of(judged("plain", z - 0.3), judged("corrected", z - 0.3))) == []


def test_too_narrow_intervals_are_missed_and_few_points_decide_nothing(capsys):
    z = 2 * norm.ppf((np.arange(24) + 0.5) / 24)
    found = found_of(judged("plain", z), judged("corrected", z))
    assert calibration.misses(found) == ["P, q: coverage 58.3 %"]
    right = found_of(judged("plain", z / 2), judged("corrected", z / 2))
    few = found_of(judged("plain", z / 2, n_repetitions=9), judged("corrected", z / 2, n_repetitions=9))

    def verdict(some, n, quick=False):
        result = calibration.judgement(some, range(n), quick=quick)
        return result["decides"], result["holds"]

    assert verdict(found, 10) == (True, False)
    assert verdict(right, 10) == (True, True)
    assert verdict(few, 9) == (False, False)
    assert verdict(few, 9, quick=True) == (False, True)
    assert "that decides nothing" in capsys.readouterr().out


def test_a_broken_correction_shows_in_one_repetition():
    z = norm.ppf((np.arange(24) + 0.5) / 24)
    found = found_of(judged("plain", z, n_repetitions=1), judged("corrected", z, factor=3.0, n_repetitions=1))
    assert calibration.broken(found, 1) == ["corrected CRPS 1.49 x the plain one's on average"]
    assert not calibration.judgement(found, range(1), quick=True)["holds"]


def test_the_band_is_over_repetitions_not_over_points():
    """Half of the repetitions all inside, half all outside: 240 points that share 10 fits say little."""
    some = judged("plain", np.zeros(24), n_repetitions=5) + judged("plain", np.full(24, 9.0), n_repetitions=5)
    low, high = calibration.Pooled.of(some).band_90
    assert (low, high) == pytest.approx(
        (0.5 - 2.262 * 0.527 / 10**0.5, 0.5 + 2.262 * 0.527 / 10**0.5), abs=1e-3
    )
    assert calibration.Pooled.of(some[:1]).band_90 == (0.0, 1.0)
