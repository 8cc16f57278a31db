"""Training rows of the accuracy predictors: final accuracy and exit fractions, on the logit scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit

from ..datasets.records import AccuracyRecord, OutcomeMatrix
from ..errors import ModelError
from ..spaces import BackboneSpace
from .features import backbone_features, exit_features
from .models import Design, KernelPart
from .prediction import FloatArray
from .selection import TrainingRows
from .shape_features import N_TOTALS, n_shape_features


def logits_of(outcomes: OutcomeMatrix) -> tuple[FloatArray, FloatArray]:
    """Logits (e,) of the fractions correct and their noise variances (e,).

    Fractions are clipped half a sample away from 0 and 1.  Noise by the delta method:
    variance of logit p = (standard error of p / (p (1 - p)))^2, where the standard error is
    clustered by image, and binomial where clustering says 0 or nothing.
    """
    n = outcomes.n_samples
    p = np.clip(outcomes.fractions, 0.5 / n, 1 - 0.5 / n)
    error = outcomes.standard_errors()
    error = np.where(np.isfinite(error) & (error > 0), error, np.sqrt(p * (1 - p) / n))
    return np.asarray(logit(p)), (error / (p * (1 - p))) ** 2


REPEAT_PRIOR = 8.0
"""Degrees of freedom that the pooled variance of repeats counts for beside a row's own."""


def repeat_noise(repeats: FloatArray) -> FloatArray:
    """Noise variances (k,) of the means of repeated measurements.

    A variance from two or three repeats is itself off by as much as its size, so each is drawn towards
    what all rows say together (the posterior mean's form for a scaled inverse chi-squared prior).

    Args:
        repeats: (k, r) repeats of k rows, r at least 2, on the model's own scale.

    Raises:
        ModelError: fewer than two repeats.
    """
    repeats = np.asarray(repeats, dtype=np.float64)
    if repeats.ndim != 2 or repeats.shape[1] < 2:
        raise ModelError(f"repeats {repeats.shape}: expected (rows, repeats) with at least 2 repeats a row")
    n_repeats = repeats.shape[1]
    own = repeats.var(axis=1, ddof=1)
    pooled = ((n_repeats - 1) * own + REPEAT_PRIOR * own.mean()) / (n_repeats - 1 + REPEAT_PRIOR)
    return np.asarray(pooled / n_repeats)


def usable_accuracy(space: BackboneSpace, records: Sequence[AccuracyRecord]) -> list[AccuracyRecord]:
    """The valid records, checked to belong together.

    Raises:
        ModelError: another space's backbone, columns that do not fit it, or weights, recipes
            or splits mixed.
    """
    usable = [record for record in records if record.valid and record.calibration is not None]
    for record in usable:
        where = f"accuracy record {record.session} row {record.row_no}"
        if record.backbone.space != space.name:
            raise ModelError(
                f"{where}: backbone of space '{record.backbone.space}'; the predictors are for '{space.name}'"
            )
        assert record.calibration is not None
        expected = record.backbone.n_blocks - space.first_exit + 1
        if record.calibration.n_exits != expected or record.first_exit != space.first_exit:
            raise ModelError(
                f"{where}: {record.calibration.n_exits} outcome columns from block {record.first_exit} on; "
                f"its backbone has {expected} from block {space.first_exit} on"
            )
    for field in ("weights_id", "recipe_id", "split_id"):
        known = sorted({str(getattr(record, field)) for record in usable})
        if len(known) > 1:
            raise ModelError(f"accuracy records mix {len(known)} values of {field}: {known}; train on one")
    return usable


MIN_ROWS_PER_FEATURE = 2
"""With fewer rows, one function of all features cannot find out which of them matter."""


def coarse_columns(space: BackboneSpace) -> tuple[int, ...]:
    """Columns of :func:`.features.backbone_features` that alone say most: input resolution, and the
    network's totals (blocks, MACs, parameters, receptive field)."""
    n_features = len(space.variables) + n_shape_features(space)
    resolution = [i for i, variable in enumerate(space.variables) if variable.name == "resolution"]
    return (*resolution, *range(n_features - N_TOTALS, n_features))


def accuracy_design(n_rows: int, n_features: int, coarse: tuple[int, ...]) -> Design:
    """Final accuracy: one function of all features; where rows are few, a function of the coarse ones too.

    Among tens of genes, a few dozen backbones do not tell the ones that matter.  What the totals say is
    then a function of its own, and the genes are left with what it misses.
    """
    if n_rows >= MIN_ROWS_PER_FEATURE * n_features:
        return Design()
    return Design((KernelPart(coarse), KernelPart(tuple(range(n_features)))))


def exit_design(space: BackboneSpace, n_features: int) -> Design:
    """Exit fractions: a curve over positions that all backbones share, how the coarse features bend it, and
    what is particular to a backbone.

    Without the first, a process that tells backbones apart would forget the curve between them.
    """
    n_shared = len(space.variables) + n_shape_features(space)
    where = tuple(range(n_shared, n_features))
    return Design(
        (
            KernelPart(where),
            KernelPart((*coarse_columns(space), *where)),
            KernelPart(tuple(range(n_features))),
        )
    )


def accuracy_rows(
    space: BackboneSpace, records: Sequence[AccuracyRecord], *, n_classes: int
) -> tuple[TrainingRows, TrainingRows]:
    """Rows of final accuracy (one per record) and of exit fractions (one per record and position)."""
    final: list[tuple[FloatArray, float, float]] = []
    exits: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    for record in records:
        assert record.calibration is not None
        workload = space.workload(record.backbone, n_classes=n_classes)
        logits, noise = logits_of(record.calibration)
        final.append((backbone_features(space, record.backbone, workload), logits[-1], noise[-1]))
        exits.append((exit_features(space, record.backbone, workload), logits[:-1], noise[:-1]))
    if not records:
        raise ModelError("no valid accuracy record to train on; measure some backbones first")
    ids = sorted({record.backbone.arch_id for record in records})
    group = np.array([ids.index(record.backbone.arch_id) for record in records], dtype=np.int64)
    final_logits = np.array([row[1] for row in final])
    final_rows = TrainingRows(
        np.stack([row[0] for row in final]),
        final_logits,
        np.array([row[2] for row in final]),
        group,
        np.zeros_like(final_logits),
        design=accuracy_design(len(final), len(final[0][0]), coarse_columns(space)),
    )
    exit_logits = np.concatenate([row[1] for row in exits])
    n_features = exits[0][0].shape[1]
    exit_rows = TrainingRows(
        np.vstack([row[0] for row in exits]),
        exit_logits,
        np.concatenate([row[2] for row in exits]),
        np.repeat(group, [len(row[1]) for row in exits]),
        np.zeros_like(exit_logits),
        design=exit_design(space, n_features),
    )
    return final_rows, exit_rows


def fractions(logits: FloatArray) -> FloatArray:
    """Fractions correct from logits."""
    return np.asarray(expit(logits))
