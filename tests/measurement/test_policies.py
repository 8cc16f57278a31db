import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.datasets.records import OutcomeMatrix
from hadas.measurement.accuracy.policies import (
    apply_controller,
    cross_fitted_leaves,
    fit_thresholds,
    ideal_mapping,
    leave_bits,
)


def matrix_of(correct, confidence, group=None) -> OutcomeMatrix:
    correct = np.asarray(correct, dtype=bool)
    confidence = np.asarray(confidence, dtype=np.float16)
    n = len(correct)
    return OutcomeMatrix(
        correct,
        confidence,
        confidence,
        confidence,
        np.zeros(correct.shape, dtype=np.int16),
        np.arange(n, dtype=np.int32) if group is None else np.asarray(group, dtype=np.int32),
    )


@st.composite
def matrices(draw, max_samples=12):
    n, e = draw(st.integers(1, max_samples)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    # Few distinct confidences, so that ties are common.
    return matrix_of(rng.random((n, e)) < 0.6, rng.integers(1, 6, (n, e)) / 8, rng.integers(0, 5, n))


def brute_force_threshold(matrix, exit_index, tolerance, min_samples):
    confidence = matrix.confidence[:, exit_index].astype(float)
    for threshold in sorted(set(confidence)):
        above = confidence >= threshold
        if above.sum() < min_samples:
            continue
        exit_right = sum(matrix.correct[i, exit_index] for i in np.flatnonzero(above))
        final_right = sum(matrix.correct[i, -1] for i in np.flatnonzero(above))
        if exit_right >= final_right - tolerance * above.sum() - 1e-9:
            return threshold
    return math.inf


@given(matrices(), st.sampled_from([0.0, 0.1, 0.3]), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_thresholds_equal_brute_force(matrix, tolerance, min_samples):
    thresholds = fit_thresholds(matrix, tolerance, min_samples=min_samples)
    expected = [brute_force_threshold(matrix, i, tolerance, min_samples) for i in range(matrix.n_exits - 1)]
    assert thresholds.tolist() == [*expected, 0.0]


@given(matrices(), st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_policies_equal_a_loop_over_samples(matrix, mask_bits):
    n, e = matrix.correct.shape
    mask = np.array([(mask_bits >> j) & 1 == 1 for j in range(e - 1)], dtype=bool)
    leaves = leave_bits(matrix, fit_thresholds(matrix, 0.1, min_samples=1))
    for outcome, lets in (
        (apply_controller(matrix.correct, leaves, mask), leaves),
        (ideal_mapping(matrix.correct, mask), matrix.correct),
    ):
        counts, right = np.zeros(e), []
        for i in range(n):
            at = next((j for j in range(e - 1) if mask[j] and lets[i, j]), e - 1)
            counts[at] += 1
            right.append(matrix.correct[i, at])
        assert outcome.shares.tolist() == (counts / n).tolist()
        assert outcome.correct.tolist() == right
        assert outcome.accuracy == pytest.approx(np.mean(right))


@given(matrices(), st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_no_controller_beats_the_oracle(matrix, mask_bits):
    mask = np.array([(mask_bits >> j) & 1 == 1 for j in range(matrix.n_exits - 1)], dtype=bool)
    leaves = leave_bits(matrix, fit_thresholds(matrix, 0.0, min_samples=1))
    oracle = ideal_mapping(matrix.correct, mask).accuracy
    assert apply_controller(matrix.correct, leaves, mask).accuracy <= oracle
    assert oracle == matrix.correct[:, [*np.flatnonzero(mask), -1]].any(axis=1).mean()


def test_each_half_is_judged_by_the_other_halfs_threshold():
    # Even images: exit right from confidence 0.5 on. Odd images: right from 0.75 on.
    rng = np.random.default_rng(0)
    n = 400
    group = np.arange(n)
    confidence = np.stack([rng.integers(1, 9, n) / 8, np.ones(n)], axis=1)
    right_from = np.where(group % 2 == 0, 0.5, 0.75)
    correct = np.stack([confidence[:, 0] >= right_from, np.ones(n, dtype=bool)], axis=1)
    leaves = cross_fitted_leaves(matrix_of(correct, confidence, group), 0.0)
    assert (leaves[group % 2 == 0, 0] == (confidence[group % 2 == 0, 0] >= 0.75)).all()
    assert (leaves[group % 2 == 1, 0] == (confidence[group % 2 == 1, 0] >= 0.5)).all()
    assert leaves[:, 1].all()


def test_an_exit_that_is_never_good_enough_is_never_taken():
    correct = np.stack([np.zeros(50, dtype=bool), np.ones(50, dtype=bool)], axis=1)
    matrix = matrix_of(correct, np.full((50, 2), 0.9))
    thresholds = fit_thresholds(matrix, 0.05)
    assert thresholds[0] == math.inf
    assert not leave_bits(matrix, thresholds)[:, 0].any()


def test_copies_of_one_image_never_straddle_the_folds():
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(40), 5)
    matrix = matrix_of(rng.random((200, 3)) < 0.7, rng.random((200, 3)), group)
    leaves = cross_fitted_leaves(matrix, 0.02)
    # Changing odd images' outcomes may change the leaving of even images only.
    changed = matrix.correct.copy()
    changed[group % 2 == 1, 0] = True
    moved = cross_fitted_leaves(matrix_of(changed, matrix.confidence, group), 0.02) != leaves
    assert moved.any()
    assert not moved[group % 2 == 1].any()
