"""All models keep the contract that is shipped for models of others."""

import numpy as np

from hadas.surrogates.contract import PredictorContract
from hadas.surrogates.gp import GaussianProcess
from hadas.surrogates.ridge import BayesianRidge
from hadas.surrogates.xgb import KFoldXGBoost


class TestGaussianProcess(PredictorContract):
    def make(self, n_outputs, seed):
        names = tuple(f"y{i}" for i in range(n_outputs))
        return GaussianProcess(names, ("",) * n_outputs, seed=seed)


class TestKFoldXGBoost(PredictorContract):
    # Trees cut between rows, so 1 in 1,000 can fall on either side of a cut; float32 inputs round.
    def make(self, n_outputs, seed):
        names = tuple(f"y{i}" for i in range(n_outputs))
        return KFoldXGBoost(names, ("",) * n_outputs, seed=seed, n_rounds=100)


class TestBayesianRidge(PredictorContract):
    def make(self, n_outputs, seed):
        names = tuple(f"y{i}" for i in range(n_outputs))
        return BayesianRidge(names, ("",) * n_outputs, seed=seed)

    def data(self, n, seed=0):
        x, y, noise = super().data(n, seed)
        straight = np.stack([x[:, 0] + 0.5 * x[:, 1], x[:, 2] - 0.3 * x[:, 0] - 3.0], axis=1)
        return x, straight + 0.05 * np.random.default_rng([21, seed]).standard_normal(y.shape), noise
