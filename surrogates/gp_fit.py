"""Hyper-parameters of the Gaussian process, fitted with GPyTorch and BoTorch's L-BFGS."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from .models import IntArray, KernelPart
from .prediction import FloatArray

MIN_NOISE = 1e-6
"""Smallest noise variance, in units of the target's variance."""


@dataclass(frozen=True)
class HyperParameters:
    """Of one output, in standardised units.

    Attributes:
        length_scale: (c, d) per component and feature; infinite where a component does not
            see a feature.
        signal_variance: (c,) of the components.
        noise_variance: learned, on top of what is known per row.
        constant: prior mean.
    """

    length_scale: FloatArray
    signal_variance: FloatArray
    noise_variance: float
    constant: float

    @classmethod
    def default(cls, n_features: int, parts: tuple[KernelPart, ...]) -> HyperParameters:
        """Smooth in every feature, components of equal weight: what is assumed where data cannot say."""
        length_scale = np.full((len(parts), n_features), np.inf)
        for scales, part in zip(length_scale, parts, strict=True):
            scales[list(part.columns)] = typical_length_scale(len(part.columns))
        share = np.full(len(parts), 1.0 / len(parts))
        return cls(length_scale, share, 1e-3, 0.0)

    def components(self) -> list[tuple[IntArray, FloatArray, float]]:
        """Per component: the columns it sees, their length scales, its signal variance."""
        parts = []
        for scales, variance in zip(self.length_scale, self.signal_variance, strict=True):
            columns = np.flatnonzero(np.isfinite(scales))
            parts.append((columns, scales[columns], float(variance)))
        return parts


def typical_length_scale(n_features: int) -> float:
    """2 sqrt(d): in d standardised features, rows are sqrt(2 d) apart on average."""
    return float(2.0 * np.sqrt(n_features))


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
    from gpytorch.priors import GammaPrior, LogNormalPrior

    kernel: Any = None
    parts = []
    for columns, scales, variance in start.components():
        center = float(np.log(typical_length_scale(len(columns))))
        matern = gpytorch.kernels.MaternKernel(
            nu=2.5, ard_num_dims=len(columns), active_dims=tuple(int(c) for c in columns),
            lengthscale_prior=LogNormalPrior(center, 0.8), lengthscale_constraint=_log_scaled(1e-2),
        )  # fmt: skip
        part = gpytorch.kernels.ScaleKernel(
            matern, outputscale_prior=GammaPrior(2.0, 0.5), outputscale_constraint=_log_scaled(1e-4)
        )
        part = part.double()
        matern.lengthscale = torch.from_numpy(scales)
        part.outputscale = variance
        parts.append((columns, part))
        kernel = part if kernel is None else kernel + part
    likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(
        torch.from_numpy(np.maximum(known, MIN_NOISE)), learn_additional_noise=True,
        noise_constraint=_log_scaled(MIN_NOISE), noise_prior=LogNormalPrior(-6.0, 2.0),
    )  # fmt: skip
    with validate_input_scaling(False), warnings.catch_warnings():
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
    for scales, (columns, part) in zip(length_scale, parts, strict=True):
        scales[columns] = _rounded(part.base_kernel.lengthscale.detach().numpy().reshape(-1))
    return HyperParameters(
        length_scale,
        _rounded(np.array([float(part.outputscale.detach()) for _, part in parts])),
        float(_rounded(likelihood.second_noise.detach().numpy()).item()),
        float(_rounded(model.mean_module.constant.detach().numpy()).item()),
    )


def _log_scaled(lower: float) -> Any:
    """A bound below, searched on the log scale: there all hyper-parameters have gradients of like size."""
    import torch
    from gpytorch.constraints import GreaterThan

    return GreaterThan(lower, transform=torch.exp, inv_transform=torch.log)


def _rounded(values: FloatArray) -> FloatArray:
    """To four significant digits."""
    return np.array([float(f"{v:.4g}") for v in values.reshape(-1)]).reshape(values.shape)
