"""Hyper-parameters of the Gaussian process, fitted with GPyTorch and BoTorch's L-BFGS."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .kernels import Component, HyperParameters, typical_length_scale
from .prediction import FloatArray
from .threads import single_thread

MIN_NOISE = 1e-6
"""Smallest noise variance, in units of the target's variance."""


def fit_hyper_parameters(
    x: FloatArray, target: FloatArray, known: FloatArray, start: HyperParameters, max_iterations: int
) -> HyperParameters:
    """Maximise the posterior density of the hyper-parameters (BoTorch's L-BFGS on GPyTorch's likelihood).

    Priors, for standardised data: length scales log-normal around 2 sqrt(d) with scale 0.8, so
    that features without influence fade as their number grows (in the manner of Hvarfner et
    al. 2024, but tighter: with few backbones a gene seen at few values must not explain all);
    noise log-normal around exp(-6) of the variance, wide; signal variances gamma(2, 0.5).

    Args:
        x: (n, d) standardised rows; target, known: (n,) target and known noise variance.
        start: where the search begins; its finite length scales say what each component sees.
    """
    import gpytorch
    import torch
    from botorch.models import SingleTaskGP
    from botorch.optim.fit import fit_gpytorch_mll_scipy
    from botorch.settings import validate_input_scaling
    from gpytorch.priors import LogNormalPrior

    parts = [(part, _gpytorch_kernel(part)) for part in start.components()]
    kernel = parts[0][1]
    for _, part_kernel in parts[1:]:
        kernel = kernel + part_kernel
    likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(
        torch.from_numpy(np.maximum(known, MIN_NOISE)), learn_additional_noise=True,
        noise_constraint=_log_scaled(MIN_NOISE), noise_prior=LogNormalPrior(-6.0, 2.0),
    )  # fmt: skip
    # Entered again, as torch may have been imported only now.
    with single_thread(), validate_input_scaling(False), warnings.catch_warnings():
        # Reaching the iteration limit is expected here, and other warnings name nothing a user can act on.
        warnings.simplefilter("ignore")
        model = SingleTaskGP(
            torch.from_numpy(x.copy()), torch.from_numpy(target[:, None].copy()), likelihood=likelihood,
            covar_module=kernel, outcome_transform=None,
        )  # fmt: skip
        likelihood.second_noise = start.noise_variance
        fit_gpytorch_mll_scipy(
            gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model), options={"maxiter": max_iterations}
        )
    # Torch's linear algebra varies in the last bits with memory alignment; rounding keeps that
    # from reaching predictions, so that the same data and seed give the same model.
    length_scale = np.full(start.length_scale.shape, np.inf)
    for scales, (part, part_kernel) in zip(length_scale, parts, strict=True):
        scales[part.columns] = _rounded(_fitted_scales(part, part_kernel))
    return HyperParameters(
        start.kernels, length_scale,
        _rounded(np.array([float(part_kernel.outputscale.detach()) for _, part_kernel in parts])),
        float(_rounded(likelihood.second_noise.detach().numpy()).item()),
        float(_rounded(model.mean_module.constant.detach().numpy()).item()),
    )  # fmt: skip


def _gpytorch_kernel(part: Component) -> Any:
    """GPyTorch's form of a component, with priors, starting at the component's own values."""
    import gpytorch
    import torch
    from botorch.models.kernels import CategoricalKernel
    from gpytorch.priors import GammaPrior, LogNormalPrior

    n_columns = len(part.columns)
    seen = tuple(int(column) for column in part.columns)
    center = float(np.log(typical_length_scale(part.kernel, n_columns)))
    inner: Any
    if part.kernel == "linear":
        # All columns' weights share one variance, which the scale kernel learns.
        inner = gpytorch.kernels.LinearKernel(active_dims=seen)
        inner.raw_variance.requires_grad_(False)
    elif part.kernel == "categorical":
        # BoTorch takes the mean over columns where ours takes the sum: its scales are ours / n.
        inner = CategoricalKernel(
            ard_num_dims=n_columns, active_dims=seen,
            lengthscale_prior=LogNormalPrior(center - float(np.log(n_columns)), 0.8),
            lengthscale_constraint=_log_scaled(1e-2),
        )  # fmt: skip
    else:
        inner = gpytorch.kernels.MaternKernel(
            nu=2.5, ard_num_dims=n_columns, active_dims=seen,
            lengthscale_prior=LogNormalPrior(center, 0.8), lengthscale_constraint=_log_scaled(1e-2),
        )  # fmt: skip
    kernel = gpytorch.kernels.ScaleKernel(
        inner, outputscale_prior=GammaPrior(2.0, 0.5), outputscale_constraint=_log_scaled(1e-4)
    ).double()
    if part.kernel == "linear":
        inner.variance = float(part.scales[0]) ** -2
    else:
        inner.lengthscale = torch.from_numpy(
            part.scales / n_columns if part.kernel == "categorical" else part.scales.copy()
        )
    kernel.outputscale = part.variance
    return kernel


def _fitted_scales(part: Component, kernel: Any) -> FloatArray:
    """(k,) length scales of a component after the fit, in our form."""
    if part.kernel == "linear":
        return part.scales
    fitted: FloatArray = kernel.base_kernel.lengthscale.detach().numpy().reshape(-1)
    return fitted * len(part.columns) if part.kernel == "categorical" else fitted


def _log_scaled(lower: float) -> Any:
    """A bound below, searched on the log scale: there all hyper-parameters have gradients of like size."""
    import torch
    from gpytorch.constraints import GreaterThan

    return GreaterThan(lower, transform=torch.exp, inv_transform=torch.log)


def _rounded(values: FloatArray) -> FloatArray:
    """To four significant digits."""
    return np.array([float(f"{v:.4g}") for v in values.reshape(-1)]).reshape(values.shape)
