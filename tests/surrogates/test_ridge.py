"""Bayesian ridge: its posterior and its evidence against explicit inverses, and what it makes of categories."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from hadas.errors import ModelError
from hadas.surrogates.checks import target_scaling
from hadas.surrogates.models import Design, KernelPart
from hadas.surrogates.ridge import BayesianRidge, _most_evident


def linear_task(n, seed=0, noise=0.1):
    rng = np.random.default_rng([5, seed])
    x = rng.uniform(-2, 2, size=(n, 3)) * [1.0, 10.0, 0.01]
    return x, (2.0 + x @ [1.0, -0.2, 50.0] + noise * rng.standard_normal(n))[:, None]


def test_posterior_is_that_of_a_gaussian_process_with_a_linear_kernel():
    """Rasmussen & Williams (2006), section 2.1: the two views of one model."""
    x, y = linear_task(30)
    known = np.linspace(0.001, 0.5, 30)
    model = BayesianRidge().fit(x, y, known[:, None])
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    phi = np.hstack([np.ones((30, 1)), scaled])
    y_mean, y_scale, _ = target_scaling(y[:, 0], known)
    target, known = (y[:, 0] - y_mean) / y_scale, known / y_scale**2
    weight_variance, learned = _most_evident(phi, target, known)
    prior = np.diag([10.0, *[weight_variance] * 3])
    inverse = np.linalg.inv(phi @ prior @ phi.T + np.diag(known + learned))
    prediction = model.predict(x)
    mean = phi @ prior @ phi.T @ inverse @ target
    np.testing.assert_allclose(prediction.mean[:, 0], y_mean + y_scale * mean, rtol=1e-8)
    left = phi @ prior @ phi.T - phi @ prior @ phi.T @ inverse @ phi @ prior @ phi.T
    np.testing.assert_allclose(prediction.var_epistemic[:, 0], y_scale**2 * np.diag(left), rtol=1e-6)
    np.testing.assert_allclose(model.mean(x), prediction.mean, rtol=1e-12)


def test_hyper_parameters_maximise_the_evidence():
    """Brute force over a grid of the density of the data finds none better."""
    rng = np.random.default_rng(0)
    phi = np.hstack([np.ones((40, 1)), rng.standard_normal((40, 5))])
    target = phi @ [0.0, 0.8, 0.0, 0.3, 0.0, -0.5] + 0.3 * rng.standard_normal(40)
    known = np.linspace(0.0, 0.2, 40)

    def evidence(weight_variance, learned):
        covariance = phi @ np.diag([10.0, *[weight_variance] * 5]) @ phi.T + np.diag(known + learned)
        return multivariate_normal.logpdf(target, np.zeros(40), covariance)

    found = evidence(*_most_evident(phi, target, known))
    grid = [evidence(w, s) for w in np.geomspace(1e-3, 10, 25) for s in np.geomspace(1e-4, 1, 25)]
    assert max(grid) <= found + 1e-4
    assert found - np.median(grid) > 5.0


def test_extrapolates_a_straight_line_and_knows_how_surely():
    x, y = linear_task(40)
    far = linear_task(200, seed=1, noise=0.1)
    model = BayesianRidge().fit(x, y)
    prediction = model.predict(3 * far[0])
    truth = 2.0 + 3 * far[0] @ [1.0, -0.2, 50.0]
    assert (
        np.mean(np.abs(prediction.mean[:, 0] - truth) < 1.645 * np.sqrt(prediction.var_epistemic[:, 0])) > 0.7
    )
    assert np.sqrt(prediction.var_noise[0, 0]) == pytest.approx(0.1, rel=0.35)
    assert prediction.var_epistemic.mean() > 3 * model.predict(far[0]).var_epistemic.mean()


def test_categories_have_a_weight_each_and_a_new_one_the_prior():
    rng = np.random.default_rng(1)
    level = rng.integers(0, 3, size=60).astype(float)
    x = np.stack([level, rng.standard_normal(60)], axis=1)
    y = (np.array([1.0, -2.0, 1.5])[level.astype(int)] + 0.5 * x[:, 1])[:, None]
    design = Design((KernelPart((0,), "categorical"), KernelPart((1,), "linear")))
    model = BayesianRidge(design=design).fit(x, y)
    assert np.abs(model.mean(x) - y).max() < 0.05
    assert np.abs(BayesianRidge().fit(x, y).mean(x) - y).max() > 0.5
    known, new = model.predict(np.array([[1.0, 0.0], [8.0, 0.0]])).var_epistemic[:, 0]
    assert new > 100 * known
    draws = model.paths(500, 0)(np.array([[8.0, 0.0]]))[:, 0, 0]
    assert draws.var() == pytest.approx(new, rel=0.2)


def test_unfitted_and_bad_rows_say_so():
    x, y = linear_task(10)
    with pytest.raises(ModelError, match="not been fitted"):
        BayesianRidge().predict(x)
    with pytest.raises(ModelError, match=r"trained on \(n, 3\)"):
        BayesianRidge().fit(x, y).predict(x[:, :2])
