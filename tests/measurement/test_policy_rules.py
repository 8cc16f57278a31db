"""Policies on outcome matrices: against loops over samples, and what must hold for any data."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.datasets.records import OutcomeMatrix
from hadas.errors import ConfigError
from hadas.measurement.accuracy.policies import (
    MARGIN,
    MAX_SOFTMAX,
    ExitCosts,
    FinalOnly,
    IdealMapping,
    Patience,
    RiskControlled,
    Score,
    ShareThresholds,
    SingleExit,
    ThresholdRule,
    ToleranceThresholds,
    expected_cost,
    expected_cost_statistic,
    fit_thresholds,
    interval_95,
    outcome_at,
    run_policy,
    standard_policies,
    target_shares,
)

from . import policy_loops as loops

N_CLASSES = 3
ENTROPY = Score("entropy", N_CLASSES)
SCORES = (MAX_SOFTMAX, MARGIN, ENTROPY)


def matrix_from(seed: int, n: int, e: int, copies: int = 1) -> OutcomeMatrix:
    """Softmax outputs of exits that get surer and better with depth, rounded so that ties are common."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, N_CLASSES, n)
    logits = rng.normal(size=(n, e, N_CLASSES))
    logits[np.arange(n), :, labels] += np.linspace(0.5, 2.5, e) * rng.random((n, 1)) * 2
    logits = np.round(logits * 2) / 2
    p = np.exp(logits - logits.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    ordered = np.sort(p, axis=2)
    predicted = p.argmax(axis=2)
    return OutcomeMatrix(
        predicted == labels[:, None],
        ordered[..., -1].astype(np.float16),
        (ordered[..., -1] - ordered[..., -2]).astype(np.float16),
        -(p * np.log(p)).sum(axis=2).astype(np.float16),
        predicted.astype(np.int16),
        (np.arange(n) // copies).astype(np.int32),
    )


@st.composite
def problems(draw, max_samples=40):
    """A calibration matrix, a matrix to judge, a mask and costs."""
    e, seed = draw(st.integers(1, 5)), draw(st.integers(0, 10**6))
    copies = draw(st.integers(1, 3))
    calibration, judged = (
        matrix_from(seed + i, draw(st.integers(1, max_samples)), e, copies) for i in (0, 1)
    )
    rng = np.random.default_rng(seed)
    costs = ExitCosts(rng.random(e) + 0.1, rng.random(e - 1) * 0.1)
    return calibration, judged, rng.random(e - 1) < 0.7, costs


def rows(array):
    return np.asarray(array).tolist()


def lineup(costs, mask, tolerance=0.05):
    policies = standard_policies(
        n_classes=N_CLASSES, costs=costs, tolerance=tolerance, epsilon=0.2, delta=0.3
    )
    return [p for p in policies if mask.any() or not isinstance(p, SingleExit)]


@given(problems(), st.sampled_from(SCORES), st.sampled_from([0.0, 0.1]), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_tolerance_thresholds_equal_a_loop(problem, score, tolerance, min_samples):
    calibration, judged, mask, _ = problem
    used = np.flatnonzero(mask).tolist()
    rule = ToleranceThresholds(score, tolerance, min_samples).fit(calibration, mask)
    scores = rows(score.values(calibration))
    expected = loops.fit_tolerance(scores, rows(calibration.correct), used, tolerance, min_samples)
    assert rule.thresholds.tolist() == expected
    assert rows(rule.leaves_at(judged)) == loops.leave_by_thresholds(
        rows(score.values(judged)), expected, used
    )


@given(problems(), st.sampled_from(SCORES), st.sampled_from([0.0, 0.1]))
@settings(max_examples=100, deadline=None)
def test_share_thresholds_equal_a_loop(problem, score, tolerance):
    calibration, _, mask, costs = problem
    used = np.flatnonzero(mask).tolist()
    policy = ShareThresholds(costs, score, tolerance)
    scores, correct = rows(score.values(calibration)), rows(calibration.correct)
    curve = policy.curve(calibration, mask)
    for point in (0, 19, 39):
        expected = loops.fit_shares(scores, used, float(curve.ratio[point]))
        assert curve.thresholds[point].tolist() == expected
        leaves_at = loops.leave_by_thresholds(scores, expected, used)
        assert curve.accuracy[point] == pytest.approx(loops.accuracy_of(correct, leaves_at))
        evaluated = [j for j in used if math.isfinite(expected[j])]
        cost = loops.mean_cost(leaves_at, costs.segment, costs.head, evaluated)
        assert curve.cost[point] == pytest.approx(cost)
    chosen = policy.fit(calibration, mask)
    wanted = loops.choose_shares(scores, correct, used, costs.segment, costs.head, tolerance)
    found, expected = (
        loops.leave_by_thresholds(scores, thresholds, used) for thresholds in (chosen.thresholds, wanted)
    )
    assert found == expected


@given(problems(), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_patience_and_references_equal_loops(problem, patience):
    calibration, judged, mask, _ = problem
    used = np.flatnonzero(mask).tolist()
    rule = Patience(patience).fit(calibration, mask)
    assert rows(rule.leaves_at(judged)) == loops.leave_by_agreement(rows(judged.predicted), patience, used)
    oracle = IdealMapping().fit(calibration, mask)
    assert rows(oracle.leaves_at(judged)) == loops.leave_when_right(rows(judged.correct), used)
    assert run_policy(FinalOnly(), calibration, judged, mask).accuracy == judged.correct[:, -1].mean()
    if used:
        best = max(used, key=lambda j: (calibration.correct[:, j].sum(), -j))
        assert (run_policy(SingleExit(), calibration, judged, mask).leaves_at == best).all()


@given(problems(max_samples=60), st.sampled_from([0.1, 0.3]))
@settings(max_examples=40, deadline=None)
def test_risk_controlled_threshold_equals_a_loop(problem, epsilon):
    calibration, _, mask, _ = problem
    n_images = len(np.unique(calibration.group))
    order = np.random.default_rng(0).permutation(n_images).tolist()
    used = np.flatnonzero(mask).tolist()
    rule = RiskControlled(epsilon, 0.3).fit(calibration, mask)
    expected = loops.fit_risk(
        rows(calibration.confidence.astype(float)), rows(calibration.correct), rows(calibration.group), used,
        epsilon, 0.3, order,
    )  # fmt: skip
    assert rule.thresholds.tolist() == pytest.approx(expected)


# -- what must hold for any data -----------------------------------------------------------------------


@given(problems())
@settings(max_examples=60, deadline=None)
def test_no_causal_policy_beats_the_oracle_and_shares_sum_to_one(problem):
    calibration, judged, mask, costs = problem
    oracle = run_policy(IdealMapping(), calibration, judged, mask)
    for policy in lineup(costs, mask):
        outcome = run_policy(policy, calibration, judged, mask)
        assert outcome.shares.sum() == pytest.approx(1.0)
        assert (outcome.shares[:-1][~mask] == 0).all()
        assert outcome.accuracy <= oracle.accuracy
        assert policy.causal == (policy.name != "oracle")


@given(problems())
@settings(max_examples=60, deadline=None)
def test_causal_policies_ignore_which_answers_are_right(problem):
    calibration, judged, mask, costs = problem
    flipped = OutcomeMatrix(
        ~judged.correct, judged.confidence, judged.margin, judged.entropy, judged.predicted, judged.group
    )
    for policy in lineup(costs, mask):
        if policy.causal:
            rule = policy.fit(calibration, mask)
            assert rows(rule.leaves_at(judged)) == rows(rule.leaves_at(flipped))


@given(problems())
@settings(max_examples=60, deadline=None)
def test_nobody_leaves_at_an_exit_whose_head_is_not_computed(problem):
    calibration, judged, mask, costs = problem
    for policy in lineup(costs, mask):
        rule = policy.fit(calibration, mask)
        evaluated = np.append(rule.evaluated, True)
        assert not (rule.evaluated & ~mask).any()
        assert evaluated[rule.leaves_at(judged)].all()


@given(problems(), st.sampled_from(SCORES))
@settings(max_examples=60, deadline=None)
def test_limits(problem, score):
    """Infinite thresholds are the network without exits; patience 1 is its first exit."""
    calibration, judged, mask, _ = problem
    never = ThresholdRule(score, np.append(np.full(len(mask), np.inf), 0.0))
    assert (never.leaves_at(judged) == len(mask)).all()
    assert not never.evaluated.any()
    first = np.append(np.flatnonzero(mask), len(mask))[0]
    assert (Patience(1).fit(calibration, mask).leaves_at(judged) == first).all()
    too_patient = Patience(int(mask.sum()) + 1).fit(calibration, mask)
    assert (too_patient.leaves_at(judged) == len(mask)).all()
    assert not too_patient.evaluated.any()


@given(problems(), st.sampled_from(SCORES), st.floats(0, 0.3), st.floats(0, 0.3))
@settings(max_examples=100, deadline=None)
def test_more_tolerance_never_lets_samples_go_deeper(problem, score, one, other):
    calibration, judged, mask, _ = problem
    strict, lax = (
        ToleranceThresholds(score, tolerance, 2).fit(calibration, mask).leaves_at(judged)
        for tolerance in sorted((one, other))
    )
    assert (lax <= strict).all()


@given(problems(), st.floats(0, 0.2))
@settings(max_examples=60, deadline=None)
def test_max_softmax_at_a_tolerance_is_the_tabulated_controller(problem, tolerance):
    calibration, _, mask, _ = problem
    rule = ToleranceThresholds(tolerance=tolerance).fit(calibration, mask)
    assert (rule.thresholds[:-1][mask] == fit_thresholds(calibration, tolerance)[:-1][mask]).all()


# -- shares, scores and costs in numbers ----------------------------------------------------------------


def test_shares_fall_by_q_and_a_budget_buys_the_most_accurate_point():
    assert target_shares(0.5, 3) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    calibration, mask = matrix_from(3, 2000, 4), np.ones(3, dtype=bool)
    costs = ExitCosts(np.ones(4), np.full(3, 0.1))
    whole = ShareThresholds(costs).curve(calibration, mask)
    assert whole.cost[-1] == 4.0
    assert whole.cost[0] < 1.2
    budget = 2.5
    rule = ShareThresholds(costs, tolerance=None, budget=budget).fit(calibration, mask)
    outcome = outcome_at(calibration.correct, rule.leaves_at(calibration))
    assert expected_cost(outcome, costs.cumulative(rule.evaluated)) <= budget
    assert outcome.accuracy == whole.accuracy[whole.cost <= budget].max()
    with pytest.raises(ConfigError, match=r"budget = 0\.5 .*cheapest shares cost 1\.1"):
        ShareThresholds(costs, tolerance=None, budget=0.5).fit(calibration, mask)
    with pytest.raises(ConfigError, match="one of the two"):
        ShareThresholds(costs, budget=1.0)


def test_shares_of_the_curve_are_the_targets_where_no_scores_are_equal():
    n, rng = 1000, np.random.default_rng(0)
    confidence = np.stack([rng.permutation(n) / 1024 for _ in range(3)], axis=1)
    blank = np.zeros((n, 3), dtype=np.int16)
    matrix = OutcomeMatrix(
        blank > 0, confidence.astype(np.float16), confidence, confidence, blank, np.arange(n, dtype=np.int32)
    )
    curve = ShareThresholds(ExitCosts(np.ones(3), np.zeros(2))).curve(matrix, np.ones(2, dtype=bool))
    for q, thresholds in zip(curve.ratio[:-1], curve.thresholds[:-1], strict=True):
        leaves_at = ThresholdRule(MAX_SOFTMAX, thresholds).leaves_at(matrix)
        shares = np.bincount(leaves_at, minlength=3) / n
        assert shares == pytest.approx(target_shares(q, 3), abs=2 / n)


def test_entropy_of_a_coin_is_no_certainty_and_of_a_sure_answer_is_all():
    zeros = np.zeros((1, 2), dtype=np.float16)
    entropy = np.array([[math.log(3), 0.0]], dtype=np.float16)
    matrix = OutcomeMatrix(zeros > 0, zeros, zeros, entropy, zeros.astype(np.int16), np.zeros(1, np.int32))
    assert ENTROPY.values(matrix)[0] == pytest.approx([0.0, 1.0], abs=1e-3)
    with pytest.raises(ConfigError, match="n_classes = None"):
        Score("entropy")


def test_cumulative_costs_count_only_heads_that_run():
    mask = np.array([True, False, True])
    costs = ExitCosts.of_stages([10.0, 1.0, 20.0, 2.0, 30.0], mask)
    assert costs.cumulative(mask).tolist() == [11.0, 11.0, 33.0, 63.0]
    assert costs.cumulative(np.array([False, False, True])).tolist() == [10.0, 10.0, 32.0, 62.0]
    assert costs.cumulative(np.zeros(3, dtype=bool))[-1] == 60.0
    outcome = outcome_at(np.ones((4, 4), dtype=bool), np.array([0, 0, 2, 3]))
    assert expected_cost(outcome, costs.cumulative(mask)) == (11 + 11 + 33 + 63) / 4
    with pytest.raises(ConfigError, match="2 exits need 5 stage costs, not 3"):
        ExitCosts.of_stages([1.0, 2.0, 3.0], mask)


def test_copies_of_one_image_widen_the_interval():
    matrix = matrix_from(5, 600, 3)
    outcome = run_policy(Patience(2), matrix, matrix, np.ones(2, dtype=bool))
    alone = outcome.accuracy_statistic(np.arange(600, dtype=np.int32))
    # Six equal copies of every sample say no more than the samples themselves.
    tripled = outcome_at(np.repeat(matrix.correct, 6, axis=0), np.repeat(outcome.leaves_at, 6))
    copied = tripled.accuracy_statistic(np.repeat(np.arange(600, dtype=np.int32), 6))
    assert (copied.value, copied.n) == (pytest.approx(alone.value), 600)
    assert copied.standard_error == pytest.approx(alone.standard_error)
    assert alone.standard_error == pytest.approx(math.sqrt(alone.value * (1 - alone.value) / 599))
    low, high = interval_95(alone)
    assert high - low == pytest.approx(2 * 1.96 * alone.standard_error, rel=1e-3)
    cost = expected_cost_statistic(outcome, np.array([1.0, 2.0, 3.0]), np.arange(600, dtype=np.int32))
    assert cost.value == pytest.approx(1 + outcome.leaves_at.mean())


@pytest.mark.parametrize("policy", [IdealMapping(), FinalOnly(), Patience(), RiskControlled()])
def test_a_mask_of_another_length_is_refused(policy):
    with pytest.raises(ConfigError, match="matrix has 2 exit positions"):
        policy.fit(matrix_from(0, 5, 3), np.ones(3, dtype=bool))


def test_a_single_exit_must_be_in_use():
    matrix = matrix_from(0, 50, 3)
    assert (SingleExit(1).fit(matrix, np.array([False, True])).leaves_at(matrix) == 1).all()
    with pytest.raises(ConfigError, match=r"only exit 0: the exits in use are \[1\]"):
        SingleExit(0).fit(matrix, np.array([False, True]))
