"""Hyper-parameters of the Gaussian process: the density that is climbed is GPyTorch's, and so is its slope."""

import numpy as np
import pytest

from hadas.surrogates.gp_fit import MIN_NOISE, PosteriorDensity, fit_hyper_parameters
from hadas.surrogates.kernels import HyperParameters
from hadas.surrogates.models import KernelPart

PARTS = (KernelPart((0, 1, 2)), KernelPart((2, 3, 4), "categorical"), KernelPart((0, 5), "linear"))


def data(n=24, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    x[:, 2:5] = rng.integers(0, 3, (n, 3))
    y = np.sin(x[:, 0]) + 0.3 * x[:, 3] + 0.1 * rng.normal(size=n)
    return x, (y - y.mean()) / y.std(), rng.choice([1e-4, 1e-3], n)


def above(lower):
    import torch
    from gpytorch.constraints import GreaterThan

    return GreaterThan(lower, transform=torch.exp, inv_transform=torch.log)


def gpytorch_loss(x, y, known, free):
    """Minus the log posterior density per row and its gradient, by GPyTorch's kernels, likelihood and priors."""
    import gpytorch
    import torch
    from botorch.models.kernels import CategoricalKernel
    from gpytorch.priors import GammaPrior, LogNormalPrior

    likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(
        torch.from_numpy(known), learn_additional_noise=True,
        noise_constraint=above(MIN_NOISE), noise_prior=LogNormalPrior(-6.0, 2.0),
    )  # fmt: skip
    raw, at = [(likelihood.second_noise_covar, "raw_noise", free[:1])], 2
    kernels = []
    for part in PARTS:
        n = len(part.columns)
        if part.kernel == "linear":
            inner = gpytorch.kernels.LinearKernel(active_dims=part.columns)
            inner.variance = 1.0 / n
        else:
            # BoTorch's mean over columns, where ours is a sum, makes its length scales ours / n.
            is_category, center = part.kernel == "categorical", np.log(2.0) + 0.5 * np.log(n)
            make = CategoricalKernel if is_category else gpytorch.kernels.MaternKernel
            inner = make(
                ard_num_dims=n, active_dims=part.columns, lengthscale_constraint=above(1e-2),
                lengthscale_prior=LogNormalPrior(np.log(2.0) if is_category else center, 0.8),
            )  # fmt: skip
            own = free[at + 1 : at + 1 + n] - (np.log(n) if is_category else 0.0)
            raw.append((inner, "raw_lengthscale", own))
        kernel = gpytorch.kernels.ScaleKernel(
            inner, outputscale_prior=GammaPrior(2.0, 0.5), outputscale_constraint=above(1e-4)
        )
        raw.insert(len(raw) - (part.kernel != "linear"), (kernel, "raw_outputscale", free[at : at + 1]))
        at += 1 if part.kernel == "linear" else 1 + n
        kernels.append(kernel)

    class Model(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(torch.from_numpy(x), torch.from_numpy(y), likelihood)
            self.mean_module, self.covar_module = gpytorch.means.ConstantMean(), sum(kernels[1:], kernels[0])

        def forward(self, rows):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(rows), self.covar_module(rows))

    model = Model().double()
    raw.insert(1, (model.mean_module, "raw_constant", free[1:2]))
    for module, name, values in raw:
        parameter = getattr(module, name)
        parameter.data = torch.from_numpy(np.array(values)).reshape(parameter.shape)
    loss = -gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)(
        model(*model.train_inputs), model.train_targets
    )
    loss.backward()
    return float(loss.detach()), np.concatenate(
        [getattr(m, name).grad.numpy().reshape(-1) for m, name, _ in raw]
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_density_and_slope_are_those_of_gpytorch(seed):
    x, y, known = data(seed=seed)
    density = PosteriorDensity.of(x, y, known, HyperParameters.default(6, PARTS))
    rng = np.random.default_rng(seed)
    free = density.start(HyperParameters.default(6, PARTS))
    free += 0.3 * rng.standard_normal(len(free))
    value, gradient = density(free)
    expected, slope = gpytorch_loss(x, y, known, free)
    # Its categorical length scales are a third of ours, and so is the unit of their density; its priors have single
    # precision.
    assert value - 3 * np.log(3) / len(y) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


def test_the_search_goes_up_and_comes_out_at_a_maximum():
    x, y, known = data(40, 3)
    start = HyperParameters.default(6, PARTS)
    density = PosteriorDensity.of(x, y, known, start)
    found = fit_hyper_parameters(x, y, known, start, 200)
    at = density.start(found)
    at[1] = found.constant
    value, gradient = density(at)
    assert value < density(density.start(start))[0]
    assert np.abs(gradient).max() < 1e-3
    # What a component does not see, or does not learn, is as it was.
    np.testing.assert_array_equal(np.isfinite(found.length_scale), np.isfinite(start.length_scale))
    np.testing.assert_allclose(found.length_scale[2], start.length_scale[2], rtol=1e-3)


def test_rows_that_repeat_and_know_their_noise_are_no_obstacle():
    """A covariance that is singular to rounding, and a search that begins on its bounds."""
    x = np.repeat(data(4)[0], 10, axis=0)
    start = HyperParameters.default(6, PARTS[:1])
    edge = HyperParameters(start.kernels, start.length_scale, np.array([1e-4]), MIN_NOISE, 0.0)
    for one in (start, edge):
        found = fit_hyper_parameters(x, np.repeat([1.0, -1.0, 0.5, -0.5], 10), np.zeros(40), one, 60)
        assert np.isfinite(found.length_scale[0, :3]).all()
        assert found.noise_variance < 1e-3


def test_a_step_too_far_turns_back_instead_of_ending_the_fit():
    """Where the covariance is singular but for rounding it is made a little less so; where there is none, all is worst."""
    x = np.repeat(data(4)[0], 3, axis=0)
    start = HyperParameters.default(6, PARTS[:1])
    density = PosteriorDensity.of(x, np.linspace(-1.5, 1.5, 12), np.zeros(12), start)
    free = density.start(start)
    far, gone = free.copy(), free.copy()
    far[[0, 2]] = -60.0, 60.0
    gone[2] = 800.0
    for at in (far, gone):
        value, slopes = density(at)
        assert np.isfinite(value)
        assert np.isfinite(slopes).all()
        assert value > density(free)[0]
