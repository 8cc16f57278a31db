"""What measured points say of the predictors, and what is believed of the next ones because of it."""

import numpy as np
import pytest

from hadas.search.world import DesignDraws
from hadas.study.calibrating import backbone_groups, distinct, learn, normal_checks, normalised_errors
from hadas.study.journal import Check
from hadas.study.worlds import Worlds
from hadas.surrogates.calibration import CalibrationSummary
from hadas.surrogates.conformal import Correction
from hadas.surrogates.widened import WidenedDraws


def checks(z, quantity="latency_ms", r=1, sd=0.1):
    """Predictions of 1 ms that err by so many standard deviations of the log."""
    half = 1.6448536 * sd
    return [
        Check(quantity, f"a{i}", r, 1.0, np.exp(-half), np.exp(half), sd, float(np.exp(sd * value)))
        for i, value in enumerate(z)
    ]


def test_costs_are_judged_as_logs_and_accuracy_as_it_is():
    np.testing.assert_allclose(normalised_errors(checks([-1.0, 0.0, 2.5])), [-1.0, 0.0, 2.5], atol=1e-6)
    mean, sd, measured = normal_checks([Check("accuracy", "a", 1, 0.8, 0.7, 0.9, 0.06, 0.85)])
    assert (mean[0], measured[0]) == (pytest.approx(0.8), 0.85)
    assert sd[0] == pytest.approx(0.2 / (2 * 1.6448536))


def test_a_round_is_judged_by_what_its_uncorrected_prediction_would_have_been():
    """The same errors, once seen through no correction, once through one: the same is learned."""
    z, used = np.array([1.5, 2.0, 2.5, 1.0] * 5), Correction(factor=2.0, shift=0.5)
    held = checks(np.zeros(10), r=0)
    plain = learn(held, [(checks(z), {})])["latency_ms"]
    through = learn(held, [(checks((z - used.shift) / used.factor), {"latency_ms": used})])["latency_ms"]
    assert plain.shift > 0.5
    assert (through.shift, through.factor) == pytest.approx((plain.shift, plain.factor), abs=1e-6)


def test_quantities_are_learned_apart_and_seeds_are_random_rows():
    held = checks(np.zeros(9), r=0) + checks(np.full(7, 2.0), r=2) + checks(np.zeros(5), "accuracy", r=0)
    found = learn(held, [(checks(np.full(7, 2.0)), {})])
    assert (found["latency_ms"].n_random, found["latency_ms"].n_proposed) == (9, 7)
    assert found["latency_ms"].shift > 0.4
    assert (found["accuracy"].n_random, found["accuracy"].shift) == (5, 0.0)


def test_designs_of_one_backbone_are_evidence_once():
    """Twelve backbones at three clocks say of accuracy what they say at one, and count as twelve for costs."""

    def same(one, other):
        found = [(c.factor, c.shift, c.n_random, c.n_proposed, c.n_checked) for c in (one, other)]
        return found[0] == pytest.approx(found[1], abs=1e-5)

    z = np.linspace(-3.0, 3.0, 12)
    for quantity in ("accuracy", "latency_ms"):
        once = learn(checks(z, quantity, r=0), [(checks(z + 1, quantity), {})])
        thrice = learn(checks(z, quantity, r=0) * 3, [(checks(z + 1, quantity) * 3, {})])
        assert same(thrice[quantity], once[quantity])
        assert (once[quantity].n_random, once[quantity].n_checked) == (12, 12)
    # Errors of one backbone that differ count together as one, too.
    apart = learn(checks(z, r=0) + checks(-z, r=0), [(checks(z + 2) + checks(z), {})])["latency_ms"]
    assert same(apart, once["latency_ms"])


def test_a_summary_of_clustered_errors_counts_backbones():
    held = checks(np.linspace(-2.5, 2.5, 12)) * 3
    found = CalibrationSummary.of_normal(*normal_checks(held), backbone_groups(held))
    alone = CalibrationSummary.of_normal(*normal_checks(held[:12]))
    assert (found.n, found.n_groups, alone.n_groups) == (36, 12, 12)
    assert found.coverage_band(0.9) == alone.coverage_band(0.9)
    assert found.pit_p == pytest.approx(alone.pit_p)
    assert len(distinct(checks([1.0, 2.0], "accuracy") * 3)) == 2
    assert len(distinct(held)) == 36


class _Normal:
    """Draws of one backbone, or stage, per number asked for."""

    n_draws = 200

    def __init__(self):
        rng = np.random.default_rng(4)
        self.logits, self.logs = rng.normal(1.0, 0.3, (200, 3)), rng.normal(0.0, 0.1, (2, 200, 3))

    def final_accuracy(self, backbones):
        return 1 / (1 + np.exp(-self.logits[:, list(backbones)]))

    def exit_fractions(self, backbones):
        return [self.final_accuracy([b]) for b in backbones]

    def stage_costs(self, stages, settings):
        return np.exp(self.logs[0][:, list(stages)]), np.exp(self.logs[1][:, list(stages)])


def test_a_drawn_world_is_widened_by_each_quantitys_own_factor_whatever_the_batch():
    draws = _Normal()
    wide = WidenedDraws(draws, {"accuracy": 2.0, "latency_ms": 1.5})
    latency, energy = wide.stage_costs([0, 1, 2], [None] * 3)
    np.testing.assert_allclose(np.log(latency).std(axis=0), 1.5 * draws.logs[0].std(axis=0))
    np.testing.assert_allclose(np.log(latency).mean(axis=0), draws.logs[0].mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(np.log(energy), draws.logs[1], atol=1e-12)
    final = wide.final_accuracy([0, 2])
    np.testing.assert_allclose(
        np.log(final / (1 - final)).std(axis=0), 2.0 * draws.logits[:, [0, 2]].std(axis=0)
    )
    np.testing.assert_array_equal(wide.final_accuracy([2])[:, 0], final[:, 1])
    np.testing.assert_array_equal(wide.exit_fractions([1])[0], wide.final_accuracy([1]))


def test_what_is_believed_of_designs_is_shifted_and_widened_where_it_is_predicted():
    rng = np.random.default_rng(5)
    error = np.stack([rng.normal(0.2, 0.01, 300), np.full(300, 0.3)], axis=1)  # the second is measured
    drawn = DesignDraws(error, np.exp(rng.normal(3, 0.1, (300, 2))), np.exp(rng.normal(1, 0.1, (300, 2))))
    known = {"accuracy": Correction(2.0, -0.5), "latency_ms": Correction(1.5, 1.0)}
    found = Worlds(None, None, None, None, known).corrected(drawn)
    sd = error[:, 0].std()
    assert found.error[:, 0].mean() == pytest.approx(error[:, 0].mean() + 0.5 * sd)
    assert found.error[:, 0].std() == pytest.approx(2 * sd)
    np.testing.assert_allclose(found.error[:, 1], 0.3)
    assert np.log(found.latency_ms).std() > 1.4 * np.log(drawn.latency_ms).std()
    assert np.log(found.latency_ms).mean() > np.log(drawn.latency_ms).mean() + 0.08
    np.testing.assert_array_equal(found.energy_mj, drawn.energy_mj)
