"""The correction of intervals: it restores coverage where it was lost, and does nothing without evidence."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from hadas.errors import ModelError
from hadas.surrogates.calibration import CalibrationSummary
from hadas.surrogates.conformal import (
    MAX_FACTOR,
    MAX_SHIFT,
    UNCORRECTED,
    Correction,
    HeldOut,
    factor_on_proposed_rows,
    factor_on_random_rows,
    learn_correction,
)


def held_out(random=(), proposed=()):
    z = np.concatenate([np.asarray(random, float), np.asarray(proposed, float)])
    return HeldOut(z, np.arange(len(z)) >= len(random))


def quantiles(n, scale=1.0):
    """n errors that are spread exactly as those of a normal."""
    return scale * norm.ppf((np.arange(n) + 0.5) / n)


def test_nothing_known_nothing_done():
    assert learn_correction(held_out()) == UNCORRECTED
    mean, sd = UNCORRECTED.normal(np.array([1.0]), np.array([2.0]))
    assert (mean[0], sd[0]) == (1.0, 2.0)


def test_right_predictions_are_left_nearly_as_they_are():
    found = learn_correction(held_out(quantiles(200), quantiles(100)), [quantiles(100)])
    assert found.factor == pytest.approx(1.0, abs=0.06)
    assert found.shift == pytest.approx(0.0, abs=1e-6)
    assert (found.n_random, found.n_proposed, found.n_checked) == (200, 100, 100)


def test_proposed_rows_decide_over_many_random_ones():
    """300 random rows with right intervals, 60 proposed ones that err twice as much."""
    found = learn_correction(held_out(quantiles(300), quantiles(60, 2.0)))
    assert found.factor > 1.7
    assert learn_correction(held_out(quantiles(300), ())).factor < 1.15


def test_few_rows_move_little_and_none_moves_beyond_the_bounds():
    few, many = (learn_correction(held_out(proposed=np.full(n, 2.5)), [np.full(n, 2.5)]) for n in (2, 60))
    assert 0.0 < few.shift < 0.7
    assert few.shift < many.shift <= MAX_SHIFT
    wild = learn_correction(held_out(quantiles(20, 50.0), quantiles(20, 50.0)), [np.full(20, 1e6)])
    assert wild.factor == MAX_FACTOR
    assert wild.shift <= MAX_SHIFT


def test_one_outlier_is_no_bias():
    clean = learn_correction(held_out(), [np.zeros(24)])
    outlier = learn_correction(held_out(), [np.append(np.zeros(23), -1e9)])
    assert clean.shift == 0.0
    assert -0.11 < outlier.shift < 0.0


def test_later_rounds_count_more():
    ones, none = np.ones(12), np.zeros(12)
    assert (
        learn_correction(held_out(), [none, ones]).shift
        > learn_correction(held_out(), [ones, none]).shift
        > 0
    )


@given(st.lists(st.floats(-8, 8), max_size=30), st.lists(st.floats(-8, 8), max_size=30), st.floats(1.0, 2.0))
def test_larger_errors_never_make_a_smaller_factor(random, proposed, grown):
    before = learn_correction(held_out(np.array(random), proposed))
    # Random rows have no shift taken off, so that only their size changes here.
    after = learn_correction(held_out(grown * np.array(random), proposed))
    assert after.factor >= before.factor - 1e-5


def test_coverage_lost_by_an_optimistic_search_is_restored_on_new_proposals():
    """A search proposes, of many candidates, what an over-sure predictor holds best; 24 are measured, then 24 others."""
    raw, corrected = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=400)
        predicted = truth + 0.6 * rng.standard_normal(400)
        sd = np.full(400, 0.4)
        best = np.argsort(predicted)[:60]  # the smallest, as if it were a cost
        z = (truth - predicted) / sd
        first, then = rng.permutation(best)[:24], rng.permutation(best)[24:48]
        random = rng.permutation(np.setdiff1d(np.arange(400), best))[:80]
        rows = np.concatenate([random, first])
        correction = learn_correction(HeldOut(z[rows], np.arange(len(rows)) >= 80), [z[first]])
        raw.append((predicted[then], sd[then], truth[then]))
        corrected.append((*correction.normal(predicted[then], sd[then]), truth[then]))
    before, after = (
        CalibrationSummary.of_normal(*map(np.concatenate, zip(*rows, strict=True)))
        for rows in (raw, corrected)
    )
    assert before.coverage[0.9] < 0.7
    assert before.bias_sd > 0.7
    assert 0.86 < after.coverage[0.9] < 0.95
    assert abs(after.bias_sd) < 0.25
    assert after.crps < before.crps


def test_draws_are_corrected_as_the_normal_they_come_from_and_keep_their_ranks():
    correction = Correction(factor=1.7, shift=-0.4)
    draws = np.random.default_rng(0).normal(3.0, 0.5, (500, 4))
    found = correction.draws(draws)
    mean, sd = correction.normal(draws.mean(axis=0), draws.std(axis=0))
    np.testing.assert_allclose(found.mean(axis=0), mean)
    np.testing.assert_allclose(found.std(axis=0), sd)
    np.testing.assert_array_equal(np.argsort(found, axis=0), np.argsort(draws, axis=0))


def test_errors_of_corrected_predictions_are_turned_back():
    correction = Correction(factor=1.5, shift=0.3)
    measured, mean, sd = np.array([2.0, -1.0]), np.zeros(2), np.ones(2)
    corrected_mean, corrected_sd = correction.normal(mean, sd)
    np.testing.assert_allclose(correction.raw((measured - corrected_mean) / corrected_sd), measured)


def test_a_correction_survives_the_journal():
    correction = learn_correction(held_out(quantiles(30), quantiles(10, 1.3)), [np.ones(6)])
    assert Correction.from_json(json.loads(json.dumps(correction.to_json()))) == correction


@pytest.mark.parametrize(
    ("n", "level", "rank"),
    [(9, 0.9, 9), (99, 0.9, 90), (109, 0.9, 99), (199, 0.9, 180), (99, 0.8, 80), (40, 0.95, 39)],
)
def test_the_factor_on_random_rows_is_the_conformal_rank(n, level, rank):
    """Of errors 1, 2, .. n in any order, the ceil((n + 1) level)-th is the half width."""
    z = np.random.default_rng(n).permutation(np.arange(1.0, n + 1)) * np.where(np.arange(n) % 2, 1, -1)
    half_width = factor_on_random_rows(z, level) * norm.ppf(0.5 + level / 2)
    assert half_width == pytest.approx(rank)
    assert factor_on_random_rows(2 * z, level) == pytest.approx(2 * factor_on_random_rows(z, level))


def test_the_factor_on_random_rows_makes_intervals_hold_on_rows_to_come():
    rng = np.random.default_rng(5)
    held, to_come = 1.7 * rng.standard_normal((2, 4000))
    inside = np.abs(to_come) <= factor_on_random_rows(held, 0.8) * norm.ppf(0.9)
    assert np.mean(inside) == pytest.approx(0.8, abs=0.02)
    assert factor_on_random_rows(held) == pytest.approx(1.7, rel=0.05)


def test_too_few_errors_say_nothing_at_a_level():
    assert factor_on_random_rows(np.arange(9.0)) > 0
    with pytest.raises(ModelError, match="8 held-out errors are too few for 90 % intervals"):
        factor_on_random_rows(np.arange(8.0))
    with pytest.raises(ModelError, match="too few"):
        factor_on_random_rows(np.zeros(0))


def test_the_factor_on_proposed_rows_is_their_root_mean_square_with_evidence():
    """None says nothing; many halve what is twice too wide; one outlier does not blow it up."""
    assert factor_on_proposed_rows(np.zeros(0)) == 1.0
    assert factor_on_proposed_rows(quantiles(400, 0.5)) == pytest.approx(0.5, abs=0.02)
    assert 0.5 < factor_on_proposed_rows(quantiles(4, 0.5)) < 1.0
    calm = np.zeros(20)
    assert factor_on_proposed_rows(np.append(calm, 3.0)) == factor_on_proposed_rows(np.append(calm, 300.0))
