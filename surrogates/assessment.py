"""New cost rows judged by predictors that have not seen them: older ones, and ones of held-out folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..datasets.records import CostRecord
from ..spaces import BackboneSpace, ClockTable, Setting, Stage
from .cost import cost_rows
from .cost_model import CostDraws, CostModel
from .drift import DriftTest, PredictionErrors, drift_test
from .models import IntArray, group_folds
from .prediction import FloatArray

MAX_ROWS = 600
"""New rows that predictions are judged on; of more, a seeded random subset."""

N_DRAWS = 400
"""Joint draws of the predictors behind every interval and test."""

N_FOLDS = 5
"""Groups of networks, each predicted by models that have seen none of its new rows."""

QUANTITIES = ("latency", "energy")


@dataclass(frozen=True)
class Assessment:
    """One quantity of the new rows.

    Attributes:
        quantity: ``latency`` or ``energy``, of the whole network.
        old: errors of the older predictors.
        new: errors of predictors that were given the new rows of other networks; ``None`` for rows of
            one network, which leave nothing to be learnt from.
        drift: whether the older predictors still hold.
    """

    quantity: str
    old: PredictionErrors
    new: PredictionErrors | None
    drift: DriftTest


def assess(
    space: BackboneSpace, older: CostModel, old_rows: Sequence[CostRecord], new_rows: Sequence[CostRecord], *,
    candidates: tuple[str, ...], seed: int,
) -> tuple[Assessment, ...]:  # fmt: skip
    """Judge older predictors on new rows, and what the new rows improve.

    Args:
        older: fitted to ``old_rows``.
        old_rows, new_rows: records of one target; the new ones all usable for training.
        candidates: model kinds that new predictors are chosen from.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(new_rows))[:MAX_ROWS])
    judged = [new_rows[int(i)] for i in chosen]
    networks = network_index(judged)
    old = row_draws(space, older, judged, seed=seed)
    new = _held_out_draws(
        space, older.table, old_rows, new_rows, judged, networks, candidates=candidates, seed=seed, rng=rng
    )
    measured = [
        np.array([row.latency_ms.value if row.latency_ms else np.nan for row in judged]),
        np.array([row.energy_mj.value if row.energy_mj else np.nan for row in judged]),
    ]
    found = []
    for i, quantity in enumerate(QUANTITIES):
        rows = np.isfinite(measured[i]) & np.isfinite(old[i][0])
        if not rows.any():
            continue
        values = measured[i][rows]
        found.append(
            Assessment(
                quantity,
                PredictionErrors.of(values, old[i][:, rows]),
                None if new is None else PredictionErrors.of(values, new[i][:, rows]),
                drift_test(values, old[i][:, rows], networks[rows]),
            )
        )
    return tuple(found)


def network_index(rows: Sequence[CostRecord]) -> IntArray:
    """(n,) index of the network that each row is of: its backbone, whatever its exits and clocks."""
    ids = {arch_id: i for i, arch_id in enumerate(sorted({row.backbone.arch_id for row in rows}))}
    return np.array([ids[row.backbone.arch_id] for row in rows], dtype=np.int64)


def row_draws(
    space: BackboneSpace, model: CostModel, rows: Sequence[CostRecord], *, seed: int, n_draws: int = N_DRAWS
) -> tuple[FloatArray, FloatArray]:
    """Joint draws of whole rows, the noise of a measurement included.

    Returns:
        latency (s, n) in ms, energy (s, n) in mJ; energy NaN without an energy counter.
    """
    stages: list[Stage] = []
    settings: list[Setting] = []
    starts: list[int] = []
    for row in rows:
        parts = space.workload(row.backbone, n_classes=row.n_classes).stages([p for p, _ in row.heads])
        starts.append(len(stages))
        stages += parts
        settings += [row.actual] * len(parts)
    latency_ms, energy_mj = CostDraws(model, n_draws, seed, noise=True)(stages, settings)
    return (
        np.asarray(np.add.reduceat(latency_ms, starts, axis=1), dtype=np.float64),
        np.asarray(np.add.reduceat(energy_mj, starts, axis=1), dtype=np.float64),
    )


def _held_out_draws(
    space: BackboneSpace, table: ClockTable, old_rows: Sequence[CostRecord], new_rows: Sequence[CostRecord],
    judged: Sequence[CostRecord], networks: IntArray, *, candidates: tuple[str, ...], seed: int,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray] | None:  # fmt: skip
    """The draws of :func:`row_draws`, each row's by a model without the new rows of its network."""
    n_networks = len(np.unique(networks))
    if n_networks < 2:
        return None
    folds = group_folds(networks, min(N_FOLDS, n_networks), rng)
    latency_ms, energy_mj = (np.empty((N_DRAWS, len(judged))) for _ in QUANTITIES)
    for fold in np.unique(folds):
        held = np.flatnonzero(folds == fold)
        rows = [judged[int(i)] for i in held]
        unseen = {row.backbone.arch_id for row in rows}
        seen = [row for row in new_rows if row.backbone.arch_id not in unseen]
        training = cost_rows(space, table, [*old_rows, *seen])
        model, _ = CostModel.fit(table, training, candidates=candidates, seed=seed)
        latency_ms[:, held], energy_mj[:, held] = row_draws(space, model, rows, seed=seed)
    return latency_ms, energy_mj
