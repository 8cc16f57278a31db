"""The exits of a backbone and its final classifier, jointly: a curve that ends somewhere.

The final accuracy comes first; the exits are predicted given it, as functions of where they stand, of what the
backbone is, and of where its curve ends.  So a joint draw of both keeps them consistent, a backbone whose
final accuracy was measured has exits that agree with it, and one that was measured at some exits has
those among the rows that all others are conditioned on.

Where the final accuracy is itself predicted, exits inherit its uncertainty to first order: the exits' mean
moves with the final logit by a slope, a difference quotient one standard deviation to either side.

Shapes: n rows (exit positions, backbone by backbone), s draws, d features.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..spaces import Backbone, BackboneSpace, Workload
from .features import exit_features
from .models import Design, KernelPart, Model
from .prediction import FloatArray, Paths, Prediction
from .shape_features import coarse_columns, n_shape_features

_MIN_STEP = 1e-3
"""Least step, in logits, of a difference quotient: a final accuracy known exactly still has a slope."""


def curve_rows(
    space: BackboneSpace, backbone: Backbone, workload: Workload, final_logit: float
) -> FloatArray:
    """Features (P, d) of a backbone's exit positions: what it is, where they stand, and where its curve ends."""
    where = exit_features(space, backbone, workload)
    return np.hstack([where, np.full((len(where), 1), final_logit)])


def curve_design(space: BackboneSpace, n_features: int) -> Design:
    """A curve over positions that all backbones share, how coarse features and the final accuracy bend it,
    and what is particular to a backbone.

    Without the first, a process that tells backbones apart would forget the curve between them.
    """
    n_backbone = len(space.variables) + n_shape_features(space)
    where, final = tuple(range(n_backbone, n_features - 1)), n_features - 1
    return Design(
        (
            KernelPart(where),
            KernelPart((*coarse_columns(space), *where, final)),
            KernelPart(tuple(range(n_features))),
        )
    )


def final_slope(model: Model, rows: FloatArray, final_sd: FloatArray) -> FloatArray:
    """(n,) change of the exits' mean logit per change of the final logit.

    Args:
        final_sd: (n,) standard deviation of the final logit of each row's backbone.
    """
    step = np.maximum(final_sd, _MIN_STEP)
    ahead, behind = rows.copy(), rows.copy()
    ahead[:, -1] += step
    behind[:, -1] -= step
    return np.asarray((model.mean(ahead) - model.mean(behind))[:, 0] / (2.0 * step))


def predicted_curves(model: Model, rows: FloatArray, final_sd: FloatArray) -> Prediction:
    """Marginal prediction (n, 1) of exits whose final accuracy is uncertain.

    Args:
        rows: (n, d) at the mean of the final logits; final_sd: (n,) their standard deviations.
    """
    prediction = model.predict(rows)
    inherited = (final_slope(model, rows, final_sd) * final_sd) ** 2
    return replace(prediction, var_epistemic=prediction.var_epistemic + inherited[:, None])


def drawn_curves(
    paths: Paths, model: Model, rows: FloatArray, final_sd: FloatArray, final_off: FloatArray
) -> FloatArray:
    """Logits (s, n) of joint draws of exits, given draws of the final accuracy.

    Args:
        paths: draws of the exits' function.
        rows, final_sd: as for :func:`predicted_curves`.
        final_off: (s, n) drawn minus mean final logit of each row's backbone.
    """
    return np.asarray(paths(rows)[:, :, 0] + final_slope(model, rows, final_sd) * final_off)
