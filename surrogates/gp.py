"""Gaussian-process regression.

Kernel: Matern-5/2 with one length scale per feature, or the sum of the design's parts (see
``kernels``).  Inputs and outputs are standardised, outputs are independent of each other.
Prediction uses cached factors (``gp_posterior``), several times faster than a GPyTorch posterior;
past :data:`MAX_EXACT_ROWS` rows all of them speak through inducing ones (``gp_sparse``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self, get_args

import numpy as np

from ..errors import ModelError
from .checks import Scaling, checked_data, checked_rows, target_scaling
from .gp_fit import fit_hyper_parameters
from .gp_posterior import Posterior, condition
from .gp_sparse import condition_on_inducing, inducing_rows
from .kernels import HyperParameters
from .left_out import left_out_spread
from .models import Design, IntArray, KernelKind, KernelPart, ModelState
from .prediction import DrawsBesideMean, FloatArray, Prediction
from .slopes import at_own_rows
from .threads import single_thread

MAX_EXACT_ROWS = 2000
"""Rows of one output up to which its posterior is exact."""

CANDIDATES_PER_INDUCING = 8
"""Rows that an inducing row is chosen from, at most."""


class GaussianProcess:
    """Gaussian-process regression; a :class:`hadas.surrogates.prediction.Predictor`.

    Args:
        names, units: of the m outputs.
        seed: chooses rows where there are more than a step of the fit bears.
        max_exact_rows: rows of an output up to which its posterior is exact.
        n_inducing: inducing rows of an output that has more.
        fit_rows: rows that the hyper-parameters are fitted to; of more, a random subset
            (the first ``fit_rows`` of a seeded permutation, kept in the given order).
        max_iterations: L-BFGS iterations of that fit.
        design: the functions that add up, each with its kernel.
    """

    kind = "gp"

    def __init__(
        self, names: tuple[str, ...] = ("y",), units: tuple[str, ...] = ("",), *, seed: int = 0,
        max_exact_rows: int = MAX_EXACT_ROWS, n_inducing: int = 800, fit_rows: int = 400,
        max_iterations: int = 60, design: Design | None = None,
    ) -> None:  # fmt: skip
        self.names, self.units, self.seed = names, units, seed
        self.max_exact_rows, self.n_inducing = max_exact_rows, n_inducing
        self.fit_rows, self.max_iterations = fit_rows, max_iterations
        self.design = design or Design()
        self._scaling: Scaling | None = None
        self._outputs: tuple[Posterior, ...] = ()

    def fit(
        self, x: FloatArray, y: FloatArray, noise_variance: FloatArray | None = None,
        *, groups: IntArray | None = None,
    ) -> Self:  # fmt: skip
        """Fit to ``x`` (n, d), ``y`` (n, m); NaN in ``y`` = not measured.

        Args:
            noise_variance: (n, m) known variance of each value; a learned one is added to it.
            groups: not needed by this model, which holds nothing out.

        Raises:
            ModelError: bad shapes or values, or an output without data.
        """
        x, y, noise = checked_data(x, y, noise_variance, self.names)
        with single_thread():
            self._scaling = Scaling.of_inputs(x)
            scaled = self._scaling(x)
            outputs = []
            for column in range(y.shape[1]):
                rows = np.isfinite(y[:, column])
                outputs.append(self._fit_output(scaled[rows], y[rows, column], noise[rows, column]))
            self._outputs = tuple(outputs)
        return self

    def _fit_output(self, x: FloatArray, y: FloatArray, noise: FloatArray) -> Posterior:
        y_mean, y_scale, varies = target_scaling(y, noise)
        target, known = (y - y_mean) / y_scale, noise / y_scale**2
        hyper = HyperParameters.default(
            x.shape[1], self.design.parts or (KernelPart(tuple(range(x.shape[1]))),)
        )
        if varies and len(y) >= 3:
            rows = self._subset(len(y), self.fit_rows)
            hyper = fit_hyper_parameters(x[rows], target[rows], known[rows], hyper, self.max_iterations)
        if len(y) <= self.max_exact_rows:
            return condition(x, target, known, hyper, y_mean, y_scale)
        # The choice among more rows would cost more than it brings.
        rows = self._subset(len(y), CANDIDATES_PER_INDUCING * self.n_inducing)
        inducing = rows[inducing_rows(hyper, x[rows], self.n_inducing)]
        return condition_on_inducing(x, target, known, hyper, y_mean, y_scale, inducing)

    def _subset(self, n_rows: int, limit: int) -> IntArray:
        return np.sort(np.random.default_rng(self.seed).permutation(n_rows)[:limit])

    def with_slopes(self, x: FloatArray, slopes: FloatArray) -> GaussianProcess:
        """The same process of one output, with slopes (n, k) at the rows (n, d) that it was fitted to."""
        (output,) = self._outputs
        return self._with(replace(output, slopes=at_own_rows(output.x, self._scaled(x), slopes)))

    def without(self, x: FloatArray, known: FloatArray) -> GaussianProcess:
        """The same process of what is left when a known part (n,) is taken off its rows (n, d)."""
        (output,) = self._outputs
        return self._with(replace(output, taken_off=at_own_rows(output.x, self._scaled(x), known)))

    def _with(self, output: Posterior) -> GaussianProcess:
        found = GaussianProcess(self.names, self.units, seed=self.seed, design=self.design)
        found._scaling, found._outputs = self._scaling, (output,)
        return found

    def successive_errors(self) -> FloatArray:
        """(n,) errors of the rows of its one output in the order given, in predicted standard deviations.

        Each row is predicted from those before it, with the hyper-parameters of all.

        Raises:
            ModelError: it speaks through inducing rows, which have no order.
        """
        (output,) = self._outputs
        if output.inducing:
            raise ModelError(
                f"'{self.names[0]}': past {self.max_exact_rows} rows there are no successive errors"
            )
        with single_thread():
            return np.asarray(output.successive_errors)

    @property
    def told(self) -> FloatArray:
        """(k, k) what the rows tell of deviations along the slopes, beside the prior's I."""
        (output,) = self._outputs
        with single_thread():
            return output.told

    @property
    def pull(self) -> FloatArray:
        """(k,) where they pull these deviations."""
        (output,) = self._outputs
        return output.pull

    def left_out_spread(self, size: FloatArray, groups: IntArray, records: IntArray) -> float:
        """Errors of totals of networks left out, in standard deviations (see :mod:`.left_out`).

        Args:
            size, groups, records: (n,) of the rows that it was fitted to.  Past :data:`MAX_EXACT_ROWS` rows none can
                be left out of what speaks for all, and 1 is returned.
        """
        (output,) = self._outputs
        if output.inducing:
            return 1.0
        with single_thread():
            inverse = output.whitening.T @ output.whitening
            return left_out_spread(inverse, output.alpha, size, groups, records)

    @property
    def _fitted_scaling(self) -> Scaling:
        if self._scaling is None:
            raise ModelError("the Gaussian process has not been fitted; call fit first")
        return self._scaling

    def _scaled(self, x: FloatArray) -> FloatArray:
        scaling = self._fitted_scaling
        return scaling(checked_rows(x, len(scaling.mean)))

    def predict(self, x: FloatArray) -> Prediction:
        """Marginal posterior at rows ``x`` (n, d): means and variances (n, m)."""
        scaled = self._scaled(x)
        shape = (len(scaled), len(self._outputs))
        mean, variance, noise = np.empty(shape), np.empty(shape), np.empty(shape)
        with single_thread():
            for column, output in enumerate(self._outputs):
                noise[:, column] = output.typical_noise
                mean[:, column], variance[:, column] = output.moments(scaled)
        return Prediction(mean, variance, noise, self.names, self.units)

    def mean(self, x: FloatArray) -> FloatArray:
        """Posterior means (n, m) alone: several times faster than :meth:`predict`."""
        scaled = self._scaled(x)
        with single_thread():
            return np.stack([output.mean(scaled) for output in self._outputs], axis=1)

    def paths(self, n_draws: int, seed: int) -> GaussianProcessPaths:
        """Joint draws of the noise-free functions, as functions of the row."""
        return GaussianProcessPaths(self._outputs, self._fitted_scaling, n_draws, seed)

    def joint_draws(self, x: FloatArray, n_draws: int, seed: int) -> FloatArray:
        """Joint draws (s, n, m) of the noise-free functions at rows ``x`` (n, d), without approximation.

        For a pool of up to a thousand rows or so that is asked once, and there several times quicker than
        :meth:`paths`, which answer for any rows.
        """
        scaled = self._scaled(x)
        drawn = np.empty((n_draws, len(scaled), len(self._outputs)))
        with single_thread():
            for column, output in enumerate(self._outputs):
                rng = np.random.default_rng([seed, column])
                drawn[:, :, column] = output.joint_draws(scaled, n_draws, rng)
        return drawn

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit."""
        scaling = self._fitted_scaling
        arrays = {"input_mean": scaling.mean, "input_scale": scaling.scale}
        for i, output in enumerate(self._outputs):
            hyper = output.hyper
            arrays |= {
                f"{i}.x": output.x, f"{i}.alpha": output.alpha, f"{i}.whitening": output.whitening,
                f"{i}.left_over": output.left_over, f"{i}.length_scale": hyper.length_scale,
                f"{i}.signal_variance": hyper.signal_variance,
                f"{i}.scalars": np.array([
                    hyper.noise_variance, hyper.constant, output.y_mean, output.y_scale, output.typical_noise,
                ]),
                f"{i}.slopes": output.slopes, f"{i}.taken_off": output.taken_off,
            }  # fmt: skip
        values = {
            "kind": self.kind, "names": list(self.names), "units": list(self.units), "seed": self.seed,
            "kernels": [list(output.hyper.kernels) for output in self._outputs],
            "inducing": [output.inducing for output in self._outputs],
        }  # fmt: skip
        return ModelState(values, arrays)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The inverse of :meth:`state`.

        Raises:
            KeyError, ValueError, TypeError: the state is not one (the persistence layer says which file).
        """
        arrays = state.arrays
        names, units, seed = state.values["names"], state.values["units"], state.values["seed"]
        if not isinstance(names, list) or not isinstance(units, list) or not isinstance(seed, int):
            raise TypeError("'names' and 'units' must be lists, 'seed' an integer")
        model = cls(tuple(names), tuple(units), seed=seed)
        kernels = _saved_kernels(state.values["kernels"], len(names))
        model._scaling = Scaling(arrays["input_mean"], arrays["input_scale"])
        inducing = state.values["inducing"]
        if not isinstance(inducing, list) or not all(isinstance(flag, bool) for flag in inducing):
            raise TypeError("'inducing' must list true or false for every output")
        outputs = []
        for i, (names_of_kernels, is_inducing) in enumerate(zip(kernels, inducing, strict=True)):
            noise, constant, y_mean, y_scale, typical = (float(v) for v in arrays[f"{i}.scalars"])
            k = len(arrays[f"{i}.x"])
            if arrays[f"{i}.whitening"].shape != (k, k):
                raise ValueError(
                    f"'{i}.whitening' has shape {arrays[f'{i}.whitening'].shape}; {k} rows need ({k}, {k})"
                )
            slopes, taken_off = arrays[f"{i}.slopes"], arrays[f"{i}.taken_off"]
            if len(slopes) != k or slopes.ndim != 2 or taken_off.shape != (k,):
                raise ValueError(f"'{i}.slopes' and '{i}.taken_off' must be of {k} rows")
            hyper = HyperParameters(
                names_of_kernels, arrays[f"{i}.length_scale"], arrays[f"{i}.signal_variance"], noise, constant
            )
            outputs.append(
                Posterior(
                    arrays[f"{i}.x"], arrays[f"{i}.alpha"], arrays[f"{i}.whitening"],
                    arrays[f"{i}.left_over"], is_inducing, hyper, y_mean, y_scale, typical, slopes,
                    taken_off,
                )
            )  # fmt: skip
        model._outputs = tuple(outputs)
        return model


def _saved_kernels(saved: object, n_outputs: int) -> list[tuple[KernelKind, ...]]:
    if not isinstance(saved, list) or len(saved) != n_outputs:
        raise TypeError(f"'kernels' must list those of {n_outputs} outputs")
    unknown = {kernel for kernels in saved for kernel in kernels} - set(get_args(KernelKind))
    if unknown:
        raise ValueError(f"no kernel {sorted(map(str, unknown))}; known: {list(get_args(KernelKind))}")
    return [tuple(kernels) for kernels in saved]


class GaussianProcessPaths:
    """Joint draws of all outputs, each from its own posterior."""

    N_FEATURES = 1024

    def __init__(self, outputs: tuple[Posterior, ...], scaling: Scaling, n_draws: int, seed: int) -> None:
        self._scaling, self.n_draws = scaling, n_draws
        with single_thread():
            self._draws = [
                output.draws(self.N_FEATURES, n_draws, np.random.default_rng([seed, column]))
                for column, output in enumerate(outputs)
            ]

    def beside_mean(self, x: FloatArray) -> DrawsBesideMean:
        """Of one output: every draw, the mean, and what the rows take up of the slopes, at rows ``x`` (n, d)."""
        (draw,) = self._draws
        with single_thread():
            return draw.beside_mean(self._scaling(checked_rows(x, len(self._scaling.mean))))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate every draw at rows ``x`` (n, d); returns (s, n, m)."""
        scaled = self._scaling(checked_rows(x, len(self._scaling.mean)))
        values = np.empty((self.n_draws, len(scaled), len(self._draws)))
        with single_thread():
            for column, draw in enumerate(self._draws):
                values[:, :, column] = draw(scaled).T
        return values
