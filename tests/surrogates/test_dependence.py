import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from hadas.errors import ModelError
from hadas.surrogates.dependence import ExitDependence, normal_scores, tetrachoric

N = 4000


def network(seed, fractions, correlation=0.8, n=N):
    """Bits (n, e) and scores of exits whose eases correlate by correlation^|i - j|."""
    rng = np.random.default_rng(seed)
    ease = [rng.standard_normal(n)]
    for _ in fractions[1:]:
        ease.append(correlation * ease[-1] + np.sqrt(1 - correlation**2) * rng.standard_normal(n))
    ease = np.stack(ease, axis=1)
    scores = norm.cdf(0.7 * ease + 0.7 * rng.standard_normal(ease.shape))
    return ease > norm.ppf(1 - np.array(fractions)), scores


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.4, 0.9])
def test_tetrachoric_correlations_solve_the_bivariate_normal(correlation):
    """Put the found correlation into the distribution function: out come the shares right at both."""
    bits, _ = network(1, (0.3, 0.6, 0.85), correlation)
    found = tetrachoric(bits)
    for one, two in ((0, 1), (1, 2), (0, 2)):
        upper = norm.ppf(bits[:, [one, two]].mean(axis=0))
        covariance = [[1.0, found[one, two]], [found[one, two], 1.0]]
        both = multivariate_normal(cov=covariance).cdf(upper)
        assert both == pytest.approx((bits[:, one] & bits[:, two]).mean(), abs=2e-4)
        assert found[one, two] == pytest.approx(correlation ** (two - one), abs=0.08)


def test_columns_that_agree_always_are_as_close_as_may_be_and_stay_usable():
    bits = np.repeat(network(2, (0.5,))[0], 3, axis=1)
    assert tetrachoric(bits)[0, 1] == 0.995
    ease = ExitDependence.fit(bits, np.random.default_rng(0).random(bits.shape), seed=0).ease
    assert np.isfinite(ease).all()


@pytest.mark.parametrize("constant", [False, True])
def test_an_exit_that_is_always_right_or_always_wrong_depends_on_nothing(constant):
    bits, scores = network(9, (0.5, 0.6, 0.7), n=200)
    bits[:, 1] = constant
    found = tetrachoric(bits)
    assert found[1].tolist() == [0.0, 1.0, 0.0]
    assert found[0, 2] == pytest.approx(0.64, abs=0.2)
    correlation = ExitDependence.fit(bits, scores, seed=0).correlation
    assert abs(correlation[1, [0, 2]]).max() < 1e-9


def test_an_empty_corner_of_a_small_table_is_not_taken_for_certainty():
    """Half a sample in each cell: 6 of 20 right at both, none at the first alone."""
    bits = np.zeros((20, 2), dtype=bool)
    bits[:6], bits[6:13, 1] = True, True
    cells = np.array([6.5, 0.5, 7.5, 7.5]) / 22
    found = tetrachoric(bits)[0, 1]
    upper = norm.ppf([cells[0] + cells[1], cells[0] + cells[2]])
    assert multivariate_normal(cov=[[1, found], [found, 1]]).cdf(upper) == pytest.approx(cells[0], abs=2e-4)
    assert 0.5 < found < 0.95


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5),
    st.floats(-0.6, 0.99),
    st.integers(2, 60),
    st.integers(0, 10**6),
)
def test_the_right_samples_are_those_of_largest_ease(fractions, correlation, n, seed):
    bits, scores = network(seed, fractions, correlation, n)
    ease = ExitDependence.fit(bits, scores, seed=seed).ease
    for column in range(bits.shape[1]):
        n_right = int(bits[:, column].sum())
        largest = np.argsort(-ease[:, column], kind="stable")[:n_right]
        assert bits[largest, column].all()


def test_eases_have_the_dependence_they_were_drawn_by():
    bits, scores = network(3, (0.3, 0.5, 0.7, 0.9))
    found = ExitDependence.fit(bits, scores, seed=0)
    lag = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    assert found.correlation[:4, :4] == pytest.approx(0.8**lag, abs=0.06)
    drawn = np.corrcoef(np.hstack([found.ease, normal_scores(scores)]).T)
    assert drawn == pytest.approx(found.correlation, abs=0.05)


def test_the_oracle_of_a_network_never_measured_is_predicted():
    """Same dependence, other fractions: its oracle, within the error of the sample; independence is far off."""
    wanted = np.array([0.45, 0.6, 0.8])
    truth = network(5, wanted)[0].any(axis=1).mean()
    ease = ExitDependence.fit(*network(4, (0.3, 0.5, 0.9)), seed=0).ease
    moved = np.stack([e > np.quantile(e, 1 - w) for e, w in zip(ease.T, wanted, strict=True)], axis=1)
    assert moved.any(axis=1).mean() == pytest.approx(truth, abs=0.012)
    assert abs(1 - np.prod(1 - wanted) - truth) > 0.05
    assert abs(wanted.max() - truth) > 0.03


def test_better_exits_are_right_where_scores_are_high():
    """Samples that turn right have higher scores than those that stay wrong, and lower than those right before."""
    bits, scores = network(6, (0.4, 0.7))
    ease = ExitDependence.fit(bits, scores, seed=0).ease[:, 0]
    turned = (ease > np.quantile(ease, 0.5)) & ~bits[:, 0]
    still = ~bits[:, 0] & ~turned
    assert scores[still, 0].mean() + 0.05 < scores[turned, 0].mean() < scores[bits[:, 0], 0].mean() - 0.02


def test_only_the_order_of_scores_counts_and_the_seed_decides():
    bits, scores = network(7, (0.4, 0.7), n=300)
    one = ExitDependence.fit(bits, scores, seed=1)
    assert np.array_equal(one.ease, ExitDependence.fit(bits, scores**3, seed=1).ease)
    assert not np.array_equal(one.ease, ExitDependence.fit(bits, scores, seed=2).ease)


def test_bad_input_is_refused():
    bits, scores = network(8, (0.4, 0.7), n=30)
    with pytest.raises(ModelError, match="same shape"):
        ExitDependence.fit(bits, scores[:, :1], seed=0)
    scores[3, 1] = np.nan
    with pytest.raises(ModelError, match="exit 1"):
        ExitDependence.fit(bits, scores, seed=0)
