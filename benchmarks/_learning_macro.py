"""Networks of NAS-Bench-Macro: the best accuracies at all sizes among 6,561 networks, found by training few of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from _accuracy_tasks import macro_features, macro_networks
from _learning_pools import PLAIN_GP, RANDOM, FittedPool, Pool, PoolTask
from _learning_tasks import OURS, SEEDS, Bound
from _predictor_tasks import FloatArray, IntArray
from scipy.special import expit

from hadas.search.objectives import Column
from hadas.surrogates.accuracy import AccuracyScale, accuracy_design, fit_final_accuracy, repeat_noise
from hadas.surrogates.conformal import Correction, factor_on_proposed_rows
from hadas.surrogates.fitting import Fitter
from hadas.surrogates.gp import GaussianProcess
from hadas.surrogates.models import Model
from hadas.surrogates.selection import TrainingRows
from hadas.surrogates.shape_features import N_TOTALS

COLUMNS = (Column("error", log=False), Column("flops", log=True))
N_SEEDS = 10
HORIZON = 100.0

FITTER = Fitter(("gp",), chosen={"final_accuracy": "gp"})
"""Of few networks every one is needed for the fit itself: none is held out to compare models."""

TRUTH = (
    "measured: the mean accuracy of three trainings of every network, noise included; FLOPs are known of every "
    "network before it is trained"
)


@dataclass(frozen=True)
class FittedNetworks:
    """Error of all networks, fitted to some; FLOPs as they are; a :class:`_learning_pools.FittedPool`.

    Attributes:
        features: (N, d); log_flops: (N,).
        model: of accuracy on ``scale``.
        correction: of its spread, from the errors of what was proposed so far, each predicted from what had been
            measured before it.
    """

    features: FloatArray
    log_flops: FloatArray
    model: Model
    scale: AccuracyScale
    correction: Correction

    @classmethod
    def fit(
        cls, rows: TrainingRows, features: FloatArray, log_flops: FloatArray, seed: int
    ) -> FittedNetworks:
        """Fit to rows in the order in which they were measured, the first :data:`N_SEEDS` of them unproposed."""
        fitted, scale = fit_final_accuracy(FITTER, rows, seed=seed)
        model = fitted.model
        assert isinstance(model, GaussianProcess)
        factor = factor_on_proposed_rows(model.successive_errors()[N_SEEDS:])
        return cls(features, log_flops, model, scale, Correction(factor))

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """See :class:`_learning_pools.FittedPool`; spreads by the error one standard deviation better."""
        found = self.model.predict(self.features)
        mean, sd = self.correction.normal(found.mean[:, 0], np.sqrt(found.var_epistemic[:, 0]))
        error = 1.0 - self.scale.fractions(mean)
        spread = np.abs(error - (1.0 - self.scale.fractions(mean + sd)))
        return np.stack([error, self.log_flops], axis=1), np.stack([spread, np.zeros(len(error))], axis=1)

    def draws(self, rows: IntArray, n_draws: int, seed: int) -> FloatArray:
        """See :class:`_learning_pools.FittedPool`."""
        drawn = self.correction.draws(self.model.paths(n_draws, seed)(self.features[rows])[:, :, 0])
        error = 1.0 - self.scale.fractions(drawn)
        return np.stack([error, np.broadcast_to(self.log_flops[rows], error.shape)], axis=2)


@cache
def pool() -> Pool:
    """All networks."""
    choices, trained, flops, _ = macro_networks()
    features, log_flops = macro_features(), np.log(flops)
    totals = tuple(range(features.shape[1] - N_TOTALS, features.shape[1]))

    def fit(measured: IntArray, seed: int) -> FittedPool:
        rows = TrainingRows(
            features[measured], trained[measured].mean(axis=1), repeat_noise(trained[measured]),
            np.arange(len(measured)), np.zeros(len(measured)),
            accuracy_design(len(measured), features.shape[1], totals),
        )  # fmt: skip
        return FittedNetworks.fit(rows, features, log_flops, seed)

    return Pool(
        values=np.stack([1.0 - expit(trained).mean(axis=1), flops], axis=1),
        columns=COLUMNS,
        seed_columns=np.column_stack([log_flops, choices.astype(np.float64)]),
        # The ends of the space are known without a measurement.
        seed_first=(int(np.argmin(flops)), int(np.argmax(flops))),
        plain_columns=choices.astype(np.float64),
        known=(False, True),
        fit=fit,
    )


def tasks() -> tuple[PoolTask, ...]:
    """Task 2: NAS-Bench-Macro."""
    n = len(SEEDS)
    return (
        PoolTask(
            name="NAS-Bench-Macro accuracy and FLOPs",
            truth=TRUTH,
            pools={"": pool},
            n_seeds=N_SEEDS,
            batch=2,
            strategies={
                OURS: n, PLAIN_GP: n, RANDOM: n, "variance": n, "mean": n, "thompson": n, "spread": n,
                "qlognehvi": 2,
            },
            bounds=(Bound(0.99, "measurements", 40), Bound(0.998, "measurements", 65)),
            horizon=HORIZON,
            facts={
                "plain GP with Monte-Carlo hypervolume improvement": "46 and 78",
                "random order": "not yet 97 % after 3,000",
            },
        ),
    )  # fmt: skip
