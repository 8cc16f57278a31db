"""Choice of a model per quantity by cross-validation, as cheap as the choice is worth.

Folds keep all rows of one backbone together, so that a model is judged on backbones it has
not seen.  Score of a candidate = mean minus standard deviation over folds of -log RMSE
(in the style of the adaptive switching of Lu et al., NSGANetV2, 2020); ties go to the
first candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from ..errors import ModelError
from .calibration import central_interval, coverage
from .models import IntArray, Model, group_folds, make_model
from .prediction import FloatArray

MAX_FOLDS = 5
MAX_CV_ROWS = 400
"""Rows that candidates are compared on; of more, a seeded random subset."""

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
        score: what the choice was made by.
    """

    model: str
    rmse: float
    kendall_tau: float
    coverage_90: float
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


def cross_validate(
    kind: str,
    x: FloatArray,
    y: FloatArray,
    noise_variance: FloatArray,
    groups: IntArray,
    folds: IntArray,
    *,
    seed: int,
) -> CandidateScore:
    """Score a candidate on held-out folds.

    Args:
        x: (n, d); y, noise_variance, groups, folds: (n,).
    """
    mean, sd = np.empty_like(y), np.empty_like(y)
    log_rmse = []
    for fold in np.unique(folds):
        held = folds == fold
        model = make_model(kind, "y", "", seed=seed, quick=True)
        model.fit(x[~held], y[~held, None], noise_variance[~held, None], groups=groups[~held])
        prediction = model.predict(x[held])
        mean[held], sd[held] = prediction.mean[:, 0], prediction.sd_total[:, 0]
        log_rmse.append(0.5 * np.log(np.mean((mean[held] - y[held]) ** 2) + 1e-18))
    tau = float(kendalltau(mean, y).statistic)
    return CandidateScore(
        kind,
        float(np.sqrt(np.mean((mean - y) ** 2))),
        tau if np.isfinite(tau) else 0.0,
        coverage(*central_interval(mean, sd, 0.9), y),
        float(-np.mean(log_rmse) - np.std(log_rmse)),
    )


def select_model(
    quantity: str, unit: str, x: FloatArray, y: FloatArray, noise_variance: FloatArray, groups: IntArray,
    *, candidates: Sequence[str], seed: int,
) -> tuple[Model, ModelSummary]:  # fmt: skip
    """Choose and fit a model.

    Args:
        x: (n, d) features; y, noise_variance: (n,), no NaN; groups: (n,) index of the backbone.
        candidates: kinds, the preferred one first.

    Raises:
        ModelError: no candidate, an unknown one, or no row.
    """
    if not candidates:
        raise ModelError(f"'{quantity}': no candidate models to choose from")
    if len(y) == 0:
        raise ModelError(f"'{quantity}': not one valid measurement to train on; measure some first")
    scores: list[CandidateScore] = []
    n_groups = len(np.unique(groups))
    if n_groups >= 4:
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permutation(len(y))[:MAX_CV_ROWS])
        folds = group_folds(groups[rows], min(MAX_FOLDS, n_groups), rng)
        scores = [
            cross_validate(kind, x[rows], y[rows], noise_variance[rows], groups[rows], folds, seed=seed)
            for kind in candidates
        ]
    chosen = candidates[0]
    if scores:
        best = max(scores, key=lambda candidate: candidate.score)
        if best.score > scores[0].score + TIE:
            chosen = best.model
    model = make_model(chosen, quantity, unit, seed=seed)
    model.fit(x, y[:, None], noise_variance[:, None], groups=groups)
    return model, ModelSummary(quantity, unit, chosen, len(y), n_groups, tuple(scores))
