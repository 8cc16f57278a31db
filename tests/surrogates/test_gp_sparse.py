"""The sparse Gaussian process: what it approximates, what it beats, and intervals that hold."""

import numpy as np
import pytest

from hadas.surrogates.gp import GaussianProcess
from hadas.surrogates.gp_posterior import condition
from hadas.surrogates.gp_sparse import condition_on_inducing, inducing_rows
from hadas.surrogates.kernels import HyperParameters, covariance
from hadas.surrogates.models import Design, KernelPart, model_from_state


def task(n, seed, noise=0.1, d=6):
    rng = np.random.default_rng([9, seed])
    x = rng.uniform(-1, 1, size=(n, d))
    y = np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.5 * np.cos(4 * x[:, 3]) * x[:, 0]
    return x, (y + noise * rng.standard_normal(n))[:, None]


HYPER = HyperParameters(("matern",), np.full((1, 6), 1.5), np.array([1.0]), 0.02, 0.1)


def test_all_rows_inducing_is_the_exact_posterior():
    x, y = task(120, 0)
    known = np.linspace(0.0, 0.1, 120)
    exact = condition(x, y[:, 0], known, HYPER, 1.0, 2.0)
    sparse = condition_on_inducing(x, y[:, 0], known, HYPER, 1.0, 2.0, np.arange(120))
    rows = task(50, 1)[0]
    np.testing.assert_allclose(sparse.moments(rows)[0], exact.moments(rows)[0], atol=1e-5)
    np.testing.assert_allclose(sparse.moments(rows)[1], exact.moments(rows)[1], rtol=1e-4)
    assert sparse.typical_noise == exact.typical_noise


def test_posterior_is_the_formula_of_fitc():
    """Quinonero-Candela & Rasmussen (2005), eq. 24, with explicit inverses."""
    x, y = task(60, 0)
    known = np.linspace(0.0, 0.1, 60)
    inducing = np.arange(0, 60, 5)
    found = condition_on_inducing(x, y[:, 0], known, HYPER, 0.0, 1.0, inducing)
    z, rows = x[inducing], task(20, 1)[0]
    k_uu = covariance(HYPER, z, z) + 1e-8 * np.eye(len(z))
    k_fu, k_su = covariance(HYPER, x, z), covariance(HYPER, rows, z)
    told = k_fu @ np.linalg.inv(k_uu) @ k_fu.T
    noise = 1.0 - np.diag(told) + 0.02 + known
    sigma = np.linalg.inv(k_uu + (k_fu.T / noise) @ k_fu)
    mean = 0.1 + k_su @ sigma @ k_fu.T @ ((y[:, 0] - 0.1) / noise)
    variance = 1.0 - np.einsum("ij,jk,ik->i", k_su, np.linalg.inv(k_uu) - sigma, k_su)
    np.testing.assert_allclose(found.moments(rows)[0], mean, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found.moments(rows)[1], variance, rtol=1e-5)


def test_inducing_rows_cover_and_repeats_are_not_chosen_twice():
    x, _ = task(300, 0)
    twice = np.vstack([x, x])
    chosen = inducing_rows(HYPER, twice, 600)
    assert len(chosen) == len({row % 300 for row in chosen}) <= 300
    few = inducing_rows(HYPER, x, 20)
    distance = np.linalg.norm(x[few][:, None] - x[few], axis=2) + 1e9 * np.eye(20)
    random = x[np.random.default_rng(0).permutation(300)[:20]]
    between = np.linalg.norm(random[:, None] - random, axis=2) + 1e9 * np.eye(20)
    assert distance.min() > between.min()


@pytest.fixture(scope="module")
def four_thousand():
    x, y = task(4000, 2)
    return x, y, GaussianProcess(n_inducing=400, fit_rows=200, max_iterations=25).fit(x, y)


def test_hearing_all_rows_beats_an_exact_process_on_some(four_thousand):
    x, y, sparse = four_thousand
    unseen, measured = task(1500, 3)
    some = np.random.default_rng(0).permutation(4000)[:1500]
    exact = GaussianProcess(fit_rows=200, max_iterations=25).fit(x[some], y[some])

    def rmse(model):
        return np.sqrt(np.mean((model.mean(unseen) - task(1500, 3, 0.0)[1]) ** 2))

    assert sparse.state().arrays["0.x"].shape == (400, 6)
    assert rmse(sparse) < rmse(exact)
    prediction = sparse.predict(unseen)
    inside = np.mean(np.abs(measured - prediction.mean) < 1.645 * prediction.sd_total)
    assert 0.87 < inside < 0.95


def test_draws_match_the_posterior_and_the_saved_one(four_thousand):
    _, _, sparse = four_thousand
    rows = task(80, 4)[0]
    draws, prediction = sparse.paths(2000, 1)(rows)[:, :, 0], sparse.predict(rows)
    sd = np.sqrt(prediction.var_epistemic[:, 0])
    ratio = draws.std(axis=0) / sd
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert 0.7 < ratio.min() < ratio.max() < 1.5
    assert (np.abs(draws.mean(axis=0) - prediction.mean[:, 0]) / sd).mean() < 0.1
    loaded = model_from_state(sparse.state())
    np.testing.assert_array_equal(loaded.predict(rows).sd_total, prediction.sd_total)
    np.testing.assert_array_equal(loaded.paths(3, 1)(rows)[:, :, 0], sparse.paths(3, 1)(rows)[:, :, 0])


def test_known_noise_and_all_kernels_reach_the_inducing_rows():
    rng = np.random.default_rng(5)
    x = np.hstack([rng.uniform(-1, 1, size=(400, 1)), rng.integers(0, 3, size=(400, 1))])
    true = x[:, 0] + np.array([1.0, -1.0, 0.5])[x[:, 1].astype(int)]
    known = np.where(rng.uniform(size=400) < 0.5, 1e-4, 25.0)
    y = (true + np.sqrt(known) * rng.standard_normal(400))[:, None]
    design = Design((KernelPart((0,), "linear"), KernelPart((1,), "categorical")))
    model = GaussianProcess(design=design, max_exact_rows=100, n_inducing=30).fit(x, y, known[:, None])
    assert len(model.state().arrays["0.x"]) < 30  # a line and three categories have four directions
    assert np.abs(model.mean(x)[:, 0] - true).max() < 0.1
