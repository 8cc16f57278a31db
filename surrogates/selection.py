"""Choice of a model per quantity by cross-validation, as cheap as the choice is worth.

Folds keep all rows of one backbone together, so that a model is judged on backbones it has
not seen.  Score of a candidate = mean minus standard deviation over folds of -log RMSE
(in the style of the adaptive switching of Lu et al., NSGANetV2, 2020); ties go to the
first candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import kendalltau

from ..errors import ModelError
from .calibration import central_interval, coverage, crps_normal
from .models import KINDS, Design, IntArray, Model, group_folds, make_model
from .prediction import FloatArray

MAX_FOLDS = 5
MAX_CV_ROWS = 300
"""Rows that candidates are compared on; of more, a seeded random subset."""

MIN_CV_GROUPS = 4
"""Fewer backbones than this are not cross-validated; the first candidate is taken."""

TIE = 0.02
"""A later candidate must beat the first by this much: about 2 % in RMSE."""


@dataclass(frozen=True)
class CandidateScore:
    """How a candidate fared on held-out backbones.

    Attributes:
        model: its kind.
        rmse: on the model's own scale (log or logit).
        kendall_tau: rank correlation of predicted and measured.
        coverage_90: share of measurements inside nominal 90 % intervals.
        crps: continuous ranked probability score, mean over rows, in the unit of ``rmse``: what the
            error and the width of the intervals cost together; less is better.
        score: what the choice was made by.
    """

    model: str
    rmse: float
    kendall_tau: float
    coverage_90: float
    crps: float
    score: float


@dataclass(frozen=True)
class ModelSummary:
    """The model chosen for one quantity, and why.

    Attributes:
        quantity, unit: what is predicted, on the model's own scale.
        chosen: kind of the model in use.
        n_rows, n_groups: training rows, and backbones among them.
        scores: of all candidates; empty where there were too few backbones to hold any out.
    """

    quantity: str
    unit: str
    chosen: str
    n_rows: int
    n_groups: int
    scores: tuple[CandidateScore, ...]


@dataclass(frozen=True)
class TrainingRows:
    """What a quantity is trained on.

    Attributes:
        x: (n, d) features.
        y: (n,) targets, no NaN.
        noise_variance: (n,) known variances of the targets.
        groups: (n,) index of the backbone.
        offset: (n,) part of the quantity that is known and not modelled; rank correlations
            are those of the whole.
        design: what is known of the feature columns.
    """

    x: FloatArray
    y: FloatArray
    noise_variance: FloatArray
    groups: IntArray
    offset: FloatArray
    design: Design = field(default_factory=Design)

    def take(self, rows: IntArray) -> TrainingRows:
        """Some of the rows."""
        return replace(
            self, x=self.x[rows], y=self.y[rows], noise_variance=self.noise_variance[rows],
            groups=self.groups[rows], offset=self.offset[rows],
        )  # fmt: skip

    def fit(self, model: Model) -> Model:
        """Fit a single-output model to all rows."""
        return model.fit(self.x, self.y[:, None], self.noise_variance[:, None], groups=self.groups)


def cross_validate(kind: str, data: TrainingRows, folds: IntArray, *, seed: int) -> CandidateScore:
    """Score a candidate on held-out folds (n,).

    All of a candidate, a physical trend and the weights of an average included, is fitted anew
    without the fold, so that nothing of a held-out backbone reaches its prediction.
    """
    mean, sd = np.empty_like(data.y), np.empty_like(data.y)
    log_rmse = []
    for fold in np.unique(folds):
        held = np.flatnonzero(folds == fold)
        fresh = make_model(kind, "y", "", seed=seed, quick=True, design=data.design)
        model = data.take(np.flatnonzero(folds != fold)).fit(fresh)
        prediction = model.predict(data.x[held])
        mean[held], sd[held] = prediction.mean[:, 0], prediction.sd_total[:, 0]
        # The floor keeps a perfect fold from an infinite score.
        log_rmse.append(0.5 * np.log(np.mean((mean[held] - data.y[held]) ** 2) + 1e-18))
    tau = float(kendalltau(mean + data.offset, data.y + data.offset).statistic)
    return CandidateScore(
        kind,
        float(np.sqrt(np.mean((mean - data.y) ** 2))),
        tau if np.isfinite(tau) else 0.0,
        coverage(*central_interval(mean, sd, 0.9), data.y),
        float(crps_normal(mean, sd, data.y).mean()),
        float(-np.mean(log_rmse) - np.std(log_rmse)),
    )


def select_model(
    quantity: str, unit: str, data: TrainingRows, *, candidates: Sequence[str], seed: int, score: bool = True
) -> tuple[Model, ModelSummary]:
    """Choose and fit a model.

    Args:
        candidates: kinds, the preferred one first.
        score: cross-validate the candidates; else the first one is taken.

    Raises:
        ModelError: no candidate, an unknown one, or no row.
    """
    if not candidates:
        raise ModelError(f"'{quantity}': no candidate models to choose from; known: {list(KINDS)}")
    if len(data.y) == 0:
        raise ModelError(f"'{quantity}': not one valid measurement to train on; measure some first")
    rng = np.random.default_rng(seed)
    sample = data.take(np.sort(rng.permutation(len(data.y))[:MAX_CV_ROWS]))
    n_sampled_groups = len(np.unique(sample.groups))
    scores: list[CandidateScore] = []
    if score and n_sampled_groups >= MIN_CV_GROUPS:
        folds = group_folds(sample.groups, min(MAX_FOLDS, n_sampled_groups), rng)
        scores = [cross_validate(kind, sample, folds, seed=seed) for kind in candidates]
    chosen = candidates[0]
    if scores:
        best = max(scores, key=lambda candidate: candidate.score)
        if best.score > scores[0].score + TIE:
            chosen = best.model
    model = data.fit(make_model(chosen, quantity, unit, seed=seed, design=data.design))
    n_groups = len(np.unique(data.groups))
    return model, ModelSummary(quantity, unit, chosen, len(data.y), n_groups, tuple(scores))
