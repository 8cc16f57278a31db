"""What anybody would try first: scikit-learn's regressors on the logged columns as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from _predictor_tasks import Answer, FloatArray, IntArray, Task
from numpy.typing import NDArray
from scipy.stats import norm

GP_FIT_ROWS = 250
"""Rows that the Gaussian process's length scales are fitted to (it is then given all of them): the fit's
cost grows with the cube of the rows, and past this many the scales hardly move."""

Z_90 = float(norm.ppf(0.95))


@dataclass(frozen=True)
class PlainModel:
    """A contender that sees ``task.plain_columns`` and nothing else.

    Attributes:
        kind: a key of :data:`KINDS`.
    """

    task: Task
    kind: str

    def __call__(self, train: IntArray, test: IntArray, seed: int) -> Answer:
        """Fit the training rows, answer for the test rows; the Gaussian process with 90 % intervals."""
        assert self.task.plain_columns is not None
        columns, target = _filled(self.task.plain_columns, train), self.task.measured
        if self.task.plain_log_target:
            target = np.log(target)
        mean, sd = KINDS[self.kind](columns[train], target[train], columns[test], seed)
        back = np.exp if self.task.plain_log_target else np.asarray
        if sd is None:
            return Answer(back(mean))
        return Answer(back(mean), back(mean - Z_90 * sd), back(mean + Z_90 * sd))


def _filled(columns: FloatArray, train: IntArray) -> FloatArray:
    """Values that were not logged become the median of the training rows (0 where they lack it, too)."""
    known = np.isfinite(columns[train])
    medians = [
        float(np.median(column[has])) if has.any() else 0.0
        for column, has in zip(columns[train].T, known.T, strict=True)
    ]
    return np.where(np.isfinite(columns), columns, np.array(medians))


def _random_forest(x: FloatArray, y: FloatArray, rows: FloatArray, seed: int) -> tuple[FloatArray, None]:
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(n_estimators=300, random_state=seed, n_jobs=1).fit(x, y)
    return np.asarray(model.predict(rows)), None


def _gradient_boosting(x: FloatArray, y: FloatArray, rows: FloatArray, seed: int) -> tuple[FloatArray, None]:
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=500, learning_rate=0.05, max_depth=4, subsample=0.8, random_state=seed
    ).fit(x, y)
    return np.asarray(model.predict(rows)), None


@dataclass(frozen=True)
class FittedGaussianProcess:
    """ARD Matern-5/2 and white noise on standardised inputs, scales by maximum likelihood.

    Attributes:
        model: scikit-learn's, fitted.
        mean, scale, varies: of the training columns; those that never vary are left out.
    """

    model: Any
    mean: FloatArray
    scale: FloatArray
    varies: NDArray[np.bool_]

    @classmethod
    def fit(cls, x: FloatArray, y: FloatArray, seed: int) -> FittedGaussianProcess:
        """Fit to rows (n, d) and values (n,)."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        mean, scale = x.mean(axis=0), x.std(axis=0)
        varies = scale > 1e-9 * np.maximum(1.0, np.abs(mean))
        x = (x - mean)[:, varies] / scale[varies]
        kernel: Any = ConstantKernel(1.0, (1e-2, 1e3)) * Matern(
            np.full(x.shape[1], 2.0), (1e-1, 1e3), nu=2.5
        ) + WhiteKernel(1e-2, (1e-6, 1.0))
        model = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=0, random_state=seed)
        with warnings.catch_warnings():
            # Scales at their bounds (columns without influence) are what ARD is for.
            warnings.simplefilter("ignore", ConvergenceWarning)
            chosen = np.random.default_rng(seed).permutation(len(x))[:GP_FIT_ROWS]
            model.fit(x[chosen], y[chosen])
            if len(chosen) < len(x):
                model = GaussianProcessRegressor(model.kernel_, optimizer=None, normalize_y=True).fit(x, y)
        return cls(model, mean, scale, varies)

    def predict(self, rows: FloatArray, **asked: bool) -> tuple[FloatArray, FloatArray]:
        """Means (n,), and what else is asked of scikit-learn: ``return_std`` or ``return_cov``."""
        found, spread = self.model.predict(
            (rows - self.mean)[:, self.varies] / self.scale[self.varies], **asked
        )
        return np.asarray(found), np.asarray(spread)


def _gaussian_process(
    x: FloatArray, y: FloatArray, rows: FloatArray, seed: int
) -> tuple[FloatArray, FloatArray]:
    return FittedGaussianProcess.fit(x, y, seed).predict(rows, return_std=True)


KINDS: Mapping[str, Any] = {
    "random forest": _random_forest,
    "gradient boosting": _gradient_boosting,
    "ARD GP": _gaussian_process,
}
