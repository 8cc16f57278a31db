"""Both models keep the contract that is shipped for models of others."""

from hadas.surrogates.contract import PredictorContract
from hadas.surrogates.gp import GaussianProcess
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
