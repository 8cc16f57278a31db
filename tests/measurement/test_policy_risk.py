"""Risk control keeps its promise, and does not keep it by never leaving early."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from hadas.datasets.records import OutcomeMatrix
from hadas.errors import ConfigError
from hadas.measurement.accuracy.policies import MAX_SOFTMAX, RiskControlled, ThresholdRule
from hadas.measurement.accuracy.policies.risk import (
    THRESHOLD_GRID,
    betting_excludes,
    early_losses,
    hoeffding_bentkus_excludes,
)

from .policy_loops import betting_wins

BOUNDS = ("betting", "hoeffding-bentkus")
MASK = np.ones(2, dtype=bool)


def population(n: int, copies: int = 1) -> OutcomeMatrix:
    """Two exits and the end; an exit is right with the probability it claims, less a little."""
    rng = np.random.default_rng(1)
    difficulty = np.repeat(rng.random(n // copies), copies)[:, None]
    confidence = np.clip(1 - difficulty * np.array([0.9, 0.6, 0.3]) + 0.05 * rng.normal(size=(n, 3)), 0.1, 1)
    # One number for all exits, and for all copies of an image, so that their mistakes go together.
    luck = np.repeat(rng.random(n // copies), copies)[:, None]
    correct = luck < confidence - 0.03
    same = confidence.astype(np.float16)
    group = np.arange(n, dtype=np.int32) // copies
    return OutcomeMatrix(correct, same, same, same, np.zeros((n, 3), dtype=np.int16), group)


def drawn(whole: OutcomeMatrix, images: np.ndarray, copies: int) -> OutcomeMatrix:
    rows = (images[:, None] * copies + np.arange(copies)).ravel()
    parts = (whole.confidence[rows], whole.margin[rows], whole.entropy[rows], whole.predicted[rows])
    return OutcomeMatrix(
        whole.correct[rows], *parts, np.repeat(np.arange(len(images), dtype=np.int32), copies)
    )


@pytest.mark.parametrize(("bound", "copies"), [("betting", 1), ("betting", 3), ("hoeffding-bentkus", 1)])
def test_the_risk_exceeds_epsilon_no_more_often_than_delta(bound, copies):
    epsilon, delta, n_draws, n_images = 0.05, 0.2, 150, 400
    whole = population(30_000, copies)
    truth = {t: truly(whole, t) for t in THRESHOLD_GRID}
    policy = RiskControlled(epsilon, delta, bound=bound)
    rng = np.random.default_rng(2)
    found = []
    for _ in range(n_draws):
        images = rng.integers(0, 30_000 // copies, n_images)
        found.append(truth[policy.fit(drawn(whole, images, copies), MASK).thresholds[0]])
    violations = sum(risk > epsilon for risk, _ in found)
    # Three standard deviations of a binomial count above what delta allows.
    assert violations <= delta * n_draws + 3 * math.sqrt(n_draws * delta * (1 - delta))
    # Not vacuous: nearly as many leave early as if the true risks were known.
    attainable = max(early for risk, early in truth.values() if risk <= epsilon)
    assert np.mean([early for _, early in found]) > 0.75 * attainable


def truly(whole: OutcomeMatrix, threshold: float) -> tuple[float, float]:
    """Risk of a threshold, and share of samples that leave early."""
    leaves_at = ThresholdRule(MAX_SOFTMAX, np.array([threshold, threshold, 0.0])).leaves_at(whole)
    return float(early_losses(whole, leaves_at).mean()), float((leaves_at < 2).mean())


def test_thresholds_that_are_merely_fitted_break_the_promise():
    """The test above can fail: the smallest threshold of empirical risk epsilon is too small half the time."""
    epsilon, n_draws = 0.05, 100
    whole, rng, violations = population(30_000), np.random.default_rng(3), 0
    for _ in range(n_draws):
        calibration = drawn(whole, rng.integers(0, 30_000, 400), 1)
        chosen = next(t for t in THRESHOLD_GRID[::-1] if truly(calibration, t)[0] <= epsilon)
        violations += truly(whole, chosen)[0] > epsilon
    assert violations > 35


def test_more_images_exclude_more_risks_but_never_the_mean():
    few, many = ((np.arange(n) % 50 == 0).astype(float) for n in (200, 2000))
    for excludes in (betting_excludes, hoeffding_bentkus_excludes):
        assert [excludes(few, risk, 0.1) for risk in (0.02, 0.028, 0.08)] == [False, False, True]
        assert [excludes(many, risk, 0.1) for risk in (0.02, 0.028, 0.08)] == [False, True, True]


def test_the_threshold_is_the_last_whose_risks_above_epsilon_are_excluded():
    whole = population(4000)
    chosen = RiskControlled(0.05, 0.1).fit(whole, MASK).thresholds[0]
    order = np.random.default_rng(0).permutation(whole.n_samples)

    def is_safe(threshold: float) -> bool:
        rule = ThresholdRule(MAX_SOFTMAX, np.array([threshold, threshold, 0.0]))
        return betting_excludes(early_losses(whole, rule.leaves_at(whole))[order], 0.05, 0.1)

    place = int(np.flatnonzero(chosen == THRESHOLD_GRID)[0])
    assert is_safe(THRESHOLD_GRID[place])
    assert not is_safe(THRESHOLD_GRID[place + 1])


def test_too_few_images_to_promise_anything_let_nobody_leave():
    few = drawn(population(4000), np.arange(20), 1)
    assert not RiskControlled(0.05, 0.1).fit(few, MASK).evaluated.any()


@given(st.integers(1, 80), st.integers(0, 10**6), st.floats(0.001, 0.999), st.floats(0.01, 0.6))
@settings(max_examples=200, deadline=None)
def test_betting_equals_a_gamblers_ledger(n, seed, risk, delta):
    rng = np.random.default_rng(seed)
    losses = rng.choice([0.0, 0.0, 0.5, 1.0], n)
    assert betting_excludes(losses, risk, delta) == betting_wins(losses.tolist(), risk, delta)


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0.001, 0.999), st.floats(0.001, 0.6))
@settings(max_examples=200, deadline=None)
def test_hoeffding_bentkus_equals_its_formula(n, share, risk, delta):
    losses = (np.arange(n) < round(share * n)).astype(float)
    mean = losses.mean()
    low = min(mean, risk)
    divergence = sum(a * math.log(a / b) for a, b in ((low, risk), (1 - low, 1 - risk)) if a > 0)
    p_value = min(math.exp(-n * divergence), math.e * binom.cdf(losses.sum(), n, risk))
    if abs(p_value - delta) > 1e-9:
        assert hoeffding_bentkus_excludes(losses, risk, delta) == (p_value <= delta)


@given(st.integers(1, 60), st.integers(0, 10**6), st.sampled_from(BOUNDS))
@example(26, 438, "betting")
@settings(max_examples=50, deadline=None)
def test_where_a_risk_is_excluded_so_is_every_larger_one(n, seed, bound):
    losses = (np.random.default_rng(seed).random(n) < 0.2).astype(float)
    excludes = {"betting": betting_excludes, "hoeffding-bentkus": hoeffding_bentkus_excludes}[bound]
    # Betting takes the losses in their order, so it may exclude a mean that only late losses raise.
    if bound == "hoeffding-bentkus" and 0 < losses.mean() < 1:
        assert not excludes(losses, float(losses.mean()), 0.1)
    excluded = [excludes(losses, float(risk), 0.1) for risk in np.linspace(0.001, 0.999, 60)]
    assert excluded == sorted(excluded)


def test_copies_of_an_image_count_as_one_image():
    """Forty copies of every image promise no more than the images themselves do."""
    whole = population(300)
    images = np.arange(300)
    copied = OutcomeMatrix(
        *(
            getattr(whole, f)[images.repeat(40)]
            for f in ("correct", "confidence", "margin", "entropy", "predicted")
        ),
        images.repeat(40).astype(np.int32),
    )
    policy = RiskControlled(0.1, 0.1)
    thresholds = policy.fit(copied, MASK).thresholds
    assert (thresholds == policy.fit(whole, MASK).thresholds).all()
    alone = OutcomeMatrix(
        copied.correct,
        copied.confidence,
        copied.margin,
        copied.entropy,
        copied.predicted,
        np.arange(12_000, dtype=np.int32),
    )
    assert policy.fit(alone, MASK).thresholds[0] < thresholds[0]


@pytest.mark.parametrize("wrong", [{"epsilon": 0.0}, {"delta": 1.0}, {"bound": "markov"}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RiskControlled(**wrong)
