"""The Gaussian process: its posterior against the textbook formula, and against real measurements."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import gamma, kv
from scipy.stats import kendalltau

from hadas.errors import ModelError
from hadas.surrogates.gp import GaussianProcess
from hadas.surrogates.kernels import matern52
from hadas.surrogates.models import Design, KernelPart

MEASUREMENTS = Path(__file__).parents[3] / "shared" / "data" / "measurements"


def smooth_task(n, seed=0):
    rng = np.random.default_rng([3, seed])
    x = rng.uniform(-2, 2, size=(n, 3))
    return x, (np.sin(2 * x[:, 0]) + x[:, 1])[:, None] + 0.1 * rng.standard_normal((n, 1))


def test_matern52_is_the_bessel_form():
    """Rasmussen & Williams, eq. 4.14, at nu = 5/2; 1 at distance 0."""
    b = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    root = np.sqrt(5.0) * np.linalg.norm(b, axis=1)
    bessel = 2**-1.5 / gamma(2.5) * root**2.5 * kv(2.5, root)
    np.testing.assert_allclose(matern52(np.zeros((1, 2)), b)[0], bessel, rtol=1e-12)
    assert matern52(b, b)[1, 1] == 1.0


def kernel_by_loops(kernel, a, b, scales):
    """The three kernels, row by row as their formulas say."""
    seen = np.isfinite(scales)
    total = np.empty((len(a), len(b)))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            if kernel == "categorical":
                total[i, j] = np.exp(-np.sum((one != other)[seen] / scales[seen]))
            elif kernel == "linear":
                total[i, j] = np.sum((one * other / scales**2)[seen])
            else:
                total[i, j] = matern52((one / scales)[None], (other / scales)[None])[0, 0]
    return total


def mixed_task(n, seed=0):
    """Two continuous columns, two of categories whose numbers mean nothing, and a target of all."""
    rng = np.random.default_rng([4, seed])
    continuous, categories = rng.uniform(-2, 2, size=(n, 2)), rng.integers(0, 4, size=(n, 2))
    of_category = np.array([0.7, -1.2, 0.1, 1.0])
    y = np.sin(continuous[:, 0]) + 0.8 * continuous[:, 1] + of_category[categories[:, 0]]
    y += 0.5 * of_category[categories[:, 1]] + 0.05 * rng.standard_normal(n)
    return np.hstack([continuous, categories]), y[:, None]


MIXED = (KernelPart((0,)), KernelPart((2, 3), "categorical"), KernelPart((0, 1), "linear"))


@pytest.mark.parametrize(
    "parts", [(), (KernelPart((0, 1, 2, 3)), KernelPart((1,))), MIXED, (KernelPart((2,), "categorical"),)]
)
def test_posterior_is_the_textbook_formula(parts):
    """Rasmussen & Williams, eq. 2.25 and 2.26, with explicit inverses; kernels of components add up."""
    x, y = mixed_task(25)
    known = np.linspace(0.001, 0.05, 25)
    model = GaussianProcess(design=Design(parts)).fit(x, y, known[:, None])
    saved = model.state()
    state = saved.arrays
    noise, constant, y_mean, y_scale, _ = state["0.scalars"]

    def kernel(a, b):
        a, b = ((rows - state["input_mean"]) / state["input_scale"] for rows in (a, b))
        return sum(
            signal * kernel_by_loops(name, a, b, scales)
            for name, scales, signal in zip(
                saved.values["kernels"][0], state["0.length_scale"], state["0.signal_variance"], strict=True
            )
        )

    rows = mixed_task(10, seed=1)[0]
    rows[0, 2] = 7.0  # a category that was never seen
    cross = kernel(rows, x)
    inverse = np.linalg.inv(kernel(x, x) + np.diag(noise + known / y_scale**2))
    mean = y_mean + y_scale * (constant + cross @ inverse @ ((y[:, 0] - y_mean) / y_scale - constant))
    variance = y_scale**2 * (np.diag(kernel(rows, rows)) - np.diag(cross @ inverse @ cross.T))
    prediction = model.predict(rows)
    np.testing.assert_allclose(prediction.mean[:, 0], mean, rtol=1e-7)
    np.testing.assert_allclose(prediction.var_epistemic[:, 0], variance, rtol=1e-6)
    np.testing.assert_allclose(model.mean(rows), prediction.mean, rtol=1e-12)


def test_kernels_of_the_design_learn_what_one_smooth_function_cannot():
    """Categories in no order and a trend that goes on: nearer the truth than one Matern, also outside."""
    x, y = mixed_task(80)
    rows, measured = mixed_task(200, seed=1)
    rows[:, 1] *= 2.0
    measured[:, 0] += 0.4 * rows[:, 1]
    errors = [
        np.sqrt(np.mean((GaussianProcess(design=Design(parts)).fit(x, y).mean(rows) - measured) ** 2))
        for parts in (MIXED, ())
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("parts", [(KernelPart((0,)), KernelPart((0, 1, 2))), MIXED])
def test_draws_of_components_match_the_posterior(parts):
    x, y = mixed_task(40)
    model = GaussianProcess(design=Design(parts)).fit(x, y)
    rows = mixed_task(60, seed=1)[0]
    rows[:5, 2] = 9.0
    draws, prediction = model.paths(2000, 1)(rows)[:, :, 0], model.predict(rows)
    ratio = draws.var(axis=0) / prediction.var_epistemic[:, 0]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert ratio.min() > 0.5
    assert ratio.max() < 2.0
    off = np.abs(draws.mean(axis=0) - prediction.mean[:, 0]) / np.sqrt(prediction.var_epistemic[:, 0])
    assert off.mean() < 0.1


@pytest.mark.parametrize("limit", [2000, 30])
def test_joint_draws_covary_as_the_posterior(limit):
    """Exact, against the posterior's covariance and against many paths; also past the limit of exact rows."""
    x, y = smooth_task(40)
    model = GaussianProcess(max_exact_rows=limit, n_inducing=25).fit(x, y)
    rows = np.vstack([smooth_task(6, seed=1)[0], x[:2], x[:1]])
    prediction = model.predict(rows)
    drawn = model.joint_draws(rows, 40_000, 3)[:, :, 0]
    sd = np.sqrt(prediction.var_epistemic[:, 0])
    np.testing.assert_allclose(drawn.mean(axis=0), prediction.mean[:, 0], atol=0.03 * sd.max())
    np.testing.assert_allclose(drawn.std(axis=0), sd, rtol=0.03)
    assert np.abs(drawn[:, 6] - drawn[:, 8]).max() < 1e-2 * sd.max()  # the same row, asked twice
    paths = np.concatenate([model.paths(500, seed)(rows)[:, :, 0] for seed in range(8)])
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(paths.T), atol=0.12)
    np.testing.assert_array_equal(model.joint_draws(rows, 5, 3), model.joint_draws(rows, 5, 3))


def test_learns_the_noise_it_is_not_told():
    x, y = smooth_task(200)
    model = GaussianProcess().fit(x, y)
    assert 0.07 < np.sqrt(model.predict(x[:1]).var_noise[0, 0]) < 0.14


def test_known_noise_weighs_rows():
    """At one place, a precise and a vague value: the prediction sides with the precise one."""
    x = np.vstack([np.linspace(-1, 1, 9)[:, None]] * 2)
    y = np.concatenate([np.zeros(9), np.ones(9)])[:, None]
    vague = np.concatenate([np.full(9, 1e-4), np.full(9, 1.0)])[:, None]
    assert np.abs(GaussianProcess().fit(x, y, vague).predict(x[:9]).mean).max() < 0.1


def test_chunks_do_not_show():
    x, y = smooth_task(50)
    model = GaussianProcess().fit(x, y)
    rows = smooth_task(2500, seed=1)[0]
    np.testing.assert_allclose(model.predict(rows).mean[2000:], model.predict(rows[2000:]).mean, rtol=1e-9)


def test_paths_pass_through_precise_measurements():
    x, y = smooth_task(20)
    model = GaussianProcess().fit(x, y)
    # The learned noise stays; draws at training rows lie within it.
    spread = model.paths(50, 0)(x)[:, :, 0] - y[:, 0]
    assert np.abs(spread).max() < 6 * np.sqrt(model.predict(x).var_noise.max() + 1e-6)


def test_torch_threads_are_left_as_found():
    import torch

    before = torch.get_num_threads()
    x, y = smooth_task(20)
    GaussianProcess().fit(x, y).predict(x)
    assert torch.get_num_threads() == before


def test_bad_data_is_named():
    x, y = smooth_task(5)
    with pytest.raises(ModelError, match="training row 2: feature 1 is nan"):
        GaussianProcess().fit(np.where(np.arange(15).reshape(5, 3) == 7, np.nan, x), y)
    with pytest.raises(ModelError, match=r"'latency'.*not one measured row"):
        GaussianProcess(("latency",), ("ms",)).fit(x, np.full((5, 1), np.nan))
    with pytest.raises(ModelError, match="not been fitted"):
        GaussianProcess().predict(x)
    with pytest.raises(ModelError, match=r"trained on \(n, 3\)"):
        GaussianProcess().fit(x, y).predict(x[:, :2])
    with pytest.raises(ModelError, match="noise variances"):
        GaussianProcess().fit(x, y, -np.ones_like(y))


def random_splits(x, y, n_train, n_splits):
    """Mean Kendall tau on the rest over random splits."""
    taus = []
    for seed in range(n_splits):
        order = np.random.default_rng(seed).permutation(len(x))
        train, rest = order[:n_train], order[n_train:]
        model = GaussianProcess().fit(x[train], y[train, None])
        taus.append(kendalltau(model.mean(x[rest])[:, 0], y[rest]).statistic)
    return float(np.mean(taus))


@pytest.mark.skipif(not MEASUREMENTS.exists(), reason="the shared measurements are not beside the repository")
def test_real_cnn_latency():
    """1,530 CNNs on a TX2; the reference at 100 training rows is tau 0.958."""
    data = pd.read_csv(MEASUREMENTS / "jetson_cnn_latency_power.csv.gz")
    data = data[(data.board == "tx2") & data.latency_ms.notna()]
    columns = [
        "input_px", "input_size", "params_conv", "params_bn", "params_fc", "flops", "n_layers", "n_conv",
        "n_bn", "n_fc", "sum_activations", "weighted_sum_neurons",
    ]  # fmt: skip
    x = np.log1p(data[columns].to_numpy(dtype=float))
    assert random_splits(x, np.log(data.latency_ms.to_numpy()), 100, 3) > 0.95


@pytest.mark.skipif(not MEASUREMENTS.exists(), reason="the shared measurements are not beside the repository")
def test_real_latency_under_gpu_and_memory_clocks():
    """Four networks x 52 settings on a TX2; the reference at 100 training rows is tau 0.994."""
    data = pd.read_csv(MEASUREMENTS / "tx2_trt_gpu_emc_sweep.csv.gz")
    data = data[data.latency_ms.notna()]
    clocks = data[["gpu_mhz", "emc_mhz"]].to_numpy(dtype=float)
    x = np.hstack([pd.get_dummies(data.model).to_numpy(dtype=float), np.log(clocks), 1e3 / clocks])
    assert random_splits(x, np.log(data.latency_ms.to_numpy()), 100, 3) > 0.985


def test_successive_errors_are_those_of_each_row_given_the_rows_before_it():
    """By the textbook formula, row by row, with the covariance that the posterior was written in."""
    x, y = smooth_task(12)
    noise = np.full((12, 1), 0.02)
    model = GaussianProcess().fit(x, y, noise)
    (output,) = model._outputs
    total = np.linalg.inv(output.whitening.T @ output.whitening)
    target = (y[:, 0] - output.y_mean) / output.y_scale - output.hyper.constant
    for i, error in enumerate(model.successive_errors()):
        weights = np.linalg.solve(total[:i, :i], total[:i, i])
        sd = np.sqrt(total[i, i] - total[i, :i] @ weights)
        assert error == pytest.approx((target[i] - weights @ target[:i]) / sd, rel=1e-6)


def test_rows_that_speak_through_inducing_ones_have_no_successive_errors():
    x, y = smooth_task(60)
    model = GaussianProcess(max_exact_rows=40, n_inducing=20).fit(x, y)
    with pytest.raises(ModelError, match="past 40 rows"):
        model.successive_errors()
