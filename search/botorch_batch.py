"""BoTorch's qLogNEHVI on a pool's own draws: the reference that our batch choice is judged by.

It is given exactly what :func:`.batch.choose_batch` is given:

* a model whose posterior at a pool point are the point's s joint draws, at a measured point its
  measured value in every draw, and at a pending point its draws; a point is named by its row, so
  the model is a table (``EnsembleModel``, one member per draw, equal weights);
* a sampler that takes every member once, the same for all points, so that draws stay joint;
* ``X_baseline``: the measured points on the front below the reference (what BoTorch's own pruning
  of a baseline would leave), and the pending points as ``X_pending``;
* the same reference point, on the same scale; negated, since BoTorch maximises.

Points are chosen one after another over the whole pool (``optimize_acqf_discrete``).  A draw in which
a point meets no constraints has it at the reference, where it gains nothing.  Costs are not looked
at: qLogNEHVI knows none.

Daulton, Balandat, Bakshy, NeurIPS 2021; Ament et al., NeurIPS 2023.
"""

from __future__ import annotations

import numpy as np
import torch
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.models.ensemble import EnsembleModel
from botorch.optim.optimize import optimize_acqf_discrete
from botorch.sampling.base import MCSampler
from torch import Tensor

from .improvement import without_dominated
from .tables import FloatArray


class _TableOfDraws(EnsembleModel):  # type: ignore[misc]
    """Draws (s, r, m) of r points, asked for by row number."""

    def __init__(self, draws: Tensor) -> None:
        super().__init__()
        self._draws = draws
        self._num_outputs = draws.shape[-1]

    def forward(self, X: Tensor) -> Tensor:
        """(..., q, 1) rows to (..., s, q, m) draws."""
        return self._draws[:, X[..., 0].round().long()].movedim(0, -3)


class _EveryMemberOnce(MCSampler):  # type: ignore[misc]
    """All draws in their order, for every set of points alike."""

    def forward(self, posterior: object) -> Tensor:
        values: Tensor = posterior.values  # type: ignore[attr-defined]
        return values.movedim(-3, 0)

    def _update_base_samples(self, posterior: object, base_sampler: object) -> None:
        """There are none: draws are given."""


def qlognehvi_of(
    drawn: FloatArray, measured: FloatArray, reference: FloatArray, pending: FloatArray | None = None
) -> qLogNoisyExpectedHypervolumeImprovement:
    """The acquisition function on a pool's draws.

    Args:
        drawn: (s, n, m), minimised, on the scale of the reference.
        measured: (q, m).
        reference: (m,).
        pending: (s, p, m).
    """
    n_draws, n, _ = drawn.shape
    front = without_dominated(measured, reference)
    parts = [drawn, np.broadcast_to(front, (n_draws, *front.shape))] + ([] if pending is None else [pending])
    table = torch.from_numpy(-np.concatenate(parts, axis=1))
    rows = _rows(table.shape[1])
    waiting = rows[n + len(front) :]
    return qLogNoisyExpectedHypervolumeImprovement(
        model=_TableOfDraws(table),
        ref_point=torch.from_numpy(-reference),
        X_baseline=rows[n : n + len(front)],
        X_pending=waiting if len(waiting) else None,
        sampler=_EveryMemberOnce(sample_shape=torch.Size([n_draws])),
        cache_root=False,
        prune_baseline=False,
    )


def choose_by_qlognehvi(
    acquisition: qLogNoisyExpectedHypervolumeImprovement, n: int, batch: int
) -> tuple[list[int], FloatArray]:
    """Up to ``batch`` of the n rows of the pool in the order chosen, and the logarithmic value of each."""
    found, values = optimize_acqf_discrete(acquisition, q=min(batch, n), choices=_rows(n))
    return found[:, 0].round().long().tolist(), values.numpy().reshape(-1)


def _rows(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64)[:, None]
