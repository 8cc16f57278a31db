"""All models keep the contract that is shipped for models of others."""

import numpy as np

from hadas.surrogates.average import Average
from hadas.surrogates.contract import PredictorContract
from hadas.surrogates.gp import GaussianProcess
from hadas.surrogates.models import Design, make_model
from hadas.surrogates.prediction import Prediction
from hadas.surrogates.ridge import BayesianRidge
from hadas.surrogates.xgb import KFoldXGBoost


class TestGaussianProcess(PredictorContract):
    def make(self, n_outputs, seed):
        names = tuple(f"y{i}" for i in range(n_outputs))
        return GaussianProcess(names, ("",) * n_outputs, seed=seed, max_iterations=20)


class TestKFoldXGBoost(PredictorContract):
    # Trees cut between rows, so 1 in 1,000 can fall on either side of a cut; float32 inputs round.
    def make(self, n_outputs, seed):
        names = tuple(f"y{i}" for i in range(n_outputs))
        return KFoldXGBoost(names, ("",) * n_outputs, seed=seed, n_members=5, n_rounds=100)


class Straight(PredictorContract):
    """The contract on straight lines, for models that know no others."""

    def data(self, n, seed=0):
        x, y, noise = super().data(n, seed)
        straight = np.stack([x[:, 0] + 0.5 * x[:, 1], x[:, 2] - 0.3 * x[:, 0] - 3.0], axis=1)
        return x, straight + 0.05 * np.random.default_rng([21, seed]).standard_normal(y.shape), noise


class TestBayesianRidge(Straight):
    def make(self, n_outputs, seed):
        names = tuple(f"y{i}" for i in range(n_outputs))
        return BayesianRidge(names, ("",) * n_outputs, seed=seed)


class OnePerOutput:
    """A single-output model for each of several outputs, as a quantity of several columns has it."""

    def __init__(self, models):
        self.models = models

    def fit(self, x, y, noise_variance=None):
        noise = np.zeros_like(y) if noise_variance is None else noise_variance
        for column, model in enumerate(self.models):
            model.fit(x, y[:, [column]], noise[:, [column]])
        return self

    def predict(self, x):
        found = [model.predict(x) for model in self.models]
        parts = [
            np.hstack([getattr(p, what) for p in found]) for what in ("mean", "var_epistemic", "var_noise")
        ]
        return Prediction(
            *parts, *(sum((getattr(p, what) for p in found), ()) for what in ("names", "units"))
        )

    def paths(self, n_draws, seed):
        paths = [model.paths(n_draws, seed) for model in self.models]
        return lambda x: np.concatenate([draw(x) for draw in paths], axis=2)


class TestAverage(Straight):
    """The first output is an average; the others are not, as they would be so at the same cost again."""

    n_rows = 40

    def make(self, n_outputs, seed):
        average = Average("y0", "", seed=seed, quick=True, members=("ridge", "xgb"))
        others = [make_model("ridge", f"y{i}", "", seed=seed) for i in range(1, n_outputs)]
        return OnePerOutput([average, *others])

    def reload(self, fitted):
        return OnePerOutput([super(TestAverage, self).reload(model) for model in fitted.models])


class TestSparseProcess(PredictorContract):
    def make(self, n_outputs, seed):
        names = tuple(f"y{i}" for i in range(n_outputs))
        return GaussianProcess(
            names, ("",) * n_outputs, seed=seed, max_exact_rows=20, n_inducing=40, max_iterations=8
        )


class TestSharedTrees(PredictorContract):
    outputs_are_independent = False

    def make(self, n_outputs, seed):
        names = tuple(f"y{i}" for i in range(n_outputs))
        return KFoldXGBoost(names, ("",) * n_outputs, seed=seed, n_members=4, n_rounds=50, shared_trees=True)


class TestTrendedModel(PredictorContract):
    """On logarithms of a time that grows with a term, and a constant."""

    logarithmic = True

    def make(self, n_outputs, seed):
        design = Design(terms=(0, 1))
        return OnePerOutput(
            [make_model("trend+ridge", f"y{i}", "log ms", seed=seed, design=design) for i in range(n_outputs)]
        )

    def reload(self, fitted):
        return OnePerOutput([super(TestTrendedModel, self).reload(model) for model in fitted.models])

    def data(self, n, seed=0):
        x, _, noise = super().data(n, seed)
        x[:, 0], x[:, 1] = np.exp(0.5 * x[:, 0]), 1.0
        times = np.stack([x[:, 0] + 2.0, 3.0 * x[:, 0] + 0.5], axis=1)
        y = np.log(times) + 0.2 * x[:, 2:3]
        return x, y + 0.05 * np.random.default_rng([21, seed]).standard_normal(y.shape), noise
