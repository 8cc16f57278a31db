"""Training rows of the accuracy predictors: final accuracy and exit fractions, on the logit scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, logit

from ..datasets.records import AccuracyRecord, OutcomeMatrix, clustered_standard_error
from ..errors import ModelError
from ..spaces import BackboneSpace
from .exit_curves import curve_design, curve_rows
from .features import backbone_features
from .fitting import FittedQuantity, Fitter
from .models import Design, KernelPart
from .prediction import FloatArray, Prediction
from .selection import TrainingRows
from .shape_features import coarse_columns


def logits_of(outcomes: OutcomeMatrix, ease: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
    """Logits (e,) of the fractions correct and their noise variances (e,).

    Fractions are clipped half a sample away from 0 and 1.  Noise by the delta method:
    variance of logit p = (standard error of p / (p (1 - p)))^2, where the standard error is
    clustered by image, and binomial where clustering says 0 or nothing.

    Args:
        ease: (n, 2) how often other networks get each sample right (:func:`eases`).  A split of hard samples is hard
            for all networks, so that what ease explains of a network's outcomes is no noise between them: the
            standard error is then that of what a linear function of it leaves (control variates).
    """
    n = outcomes.n_samples
    p = np.clip(outcomes.fractions, 0.5 / n, 1 - 0.5 / n)
    error = outcomes.standard_errors() if ease is None else _own_errors(outcomes, ease)
    error = np.where(np.isfinite(error) & (error > 0), error, np.sqrt(p * (1 - p) / n))
    return np.asarray(logit(p)), (error / (p * (1 - p))) ** 2


def eases(outcomes: Sequence[OutcomeMatrix]) -> list[FloatArray | None]:
    """Of k networks, how often the others get each sample right, (n, 2): on average over exits, and at the end.

    Only networks that were asked about the same samples count as others; ``None`` where there are none.
    """
    right = [np.stack([matrix.correct.mean(axis=1), matrix.correct[:, -1]], axis=1) for matrix in outcomes]
    asked = [matrix.group.tobytes() for matrix in outcomes]
    total = {samples: np.zeros_like(own) for samples, own in zip(asked, right, strict=True)}
    for samples, own in zip(asked, right, strict=True):
        total[samples] += own
    others = {samples: asked.count(samples) - 1 for samples in total}
    return [
        (total[samples] - own) / others[samples] if others[samples] else None
        for samples, own in zip(asked, right, strict=True)
    ]


def _own_errors(outcomes: OutcomeMatrix, ease: FloatArray) -> FloatArray:
    """(e,) clustered standard errors of what a linear function of ease leaves of each exit's outcomes."""
    centred, correct = ease - ease.mean(axis=0), outcomes.correct.astype(np.float64)
    slopes = np.linalg.lstsq(centred, correct, rcond=None)[0]
    left = correct - centred @ slopes
    return np.array([clustered_standard_error(column, outcomes.group) for column in left.T])


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
        expected = record.backbone.n_blocks - record.first_exit + 1
        if record.calibration.n_exits != expected or record.first_exit < space.first_exit:
            raise ModelError(
                f"{where}: {record.calibration.n_exits} outcome columns from block {record.first_exit} on; "
                f"its backbone has {expected} from there on, and exits from block {space.first_exit} on"
            )
    for field in ("weights_id", "recipe_id", "split_id"):
        known = sorted({str(getattr(record, field)) for record in usable})
        if len(known) > 1:
            raise ModelError(f"accuracy records mix {len(known)} values of {field}: {known}; train on one")
    return usable


LEAST_ODDS = 1e-3
"""A normal prediction of odds may fall below 0, where nothing is: it ends here."""

SIGNIFICANT_SKEW = 2.0
"""Standard errors by which measured logits must be skewed before they are left for odds."""


@dataclass(frozen=True)
class AccuracyScale:
    """The scale on which accuracies are modelled: logits, or odds (right per wrong).

    Where a few networks are far worse than all others, logits stretch them out further still, and a
    model that tries to follow them tells the good ones apart less well; odds draw them in.

    Attributes:
        odds: whether it is odds.
    """

    odds: bool = False

    @classmethod
    def of(cls, logits: FloatArray) -> AccuracyScale:
        """Odds where measured logits (k,) are skewed to the left, beyond chance, and their odds less; else logits.

        The standard error of the skewness of k normal values is about sqrt(6 / k): of a dozen backbones it
        takes far outliers to tell.
        """
        lean = _skewness(logits)
        significant = lean < -SIGNIFICANT_SKEW * math.sqrt(6.0 / len(logits))
        return cls(significant and abs(_skewness(np.exp(logits))) < -lean)

    @property
    def unit(self) -> str:
        """Of values on this scale."""
        return "odds" if self.odds else "logit"

    def values(self, logits: FloatArray, noise_variance: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values and their noise variances on this scale (delta method)."""
        if not self.odds:
            return logits, noise_variance
        values = np.exp(logits)
        return values, noise_variance * values**2

    def rows(self, rows: TrainingRows) -> TrainingRows:
        """Training rows on the logit scale as rows on this one."""
        y, noise_variance = self.values(rows.y, rows.noise_variance)
        return replace(rows, y=y, noise_variance=noise_variance)

    def logits(self, values: FloatArray) -> FloatArray:
        """Logits of values on this scale."""
        return np.log(np.maximum(values, LEAST_ODDS)) if self.odds else values

    def fractions(self, values: FloatArray) -> FloatArray:
        """Fractions right of values on this scale."""
        return fractions(self.logits(values))

    def in_logits(self, prediction: Prediction) -> Prediction:
        """A prediction on this scale as one of logits: of its mean, with variances by the delta method."""
        if not self.odds:
            return prediction
        slope = 1.0 / np.maximum(prediction.mean, LEAST_ODDS)
        return replace(
            prediction,
            mean=self.logits(prediction.mean),
            var_epistemic=prediction.var_epistemic * slope**2,
            var_noise=prediction.var_noise * slope**2,
            units=tuple(AccuracyScale().unit for _ in prediction.units),
        )


def fit_final_accuracy(
    fitter: Fitter, rows: TrainingRows, *, seed: int
) -> tuple[FittedQuantity, AccuracyScale]:
    """The model of final accuracy, and the scale that it predicts on, chosen by the training rows.

    Args:
        rows: on the logit scale, as :func:`accuracy_rows` makes them.

    Raises:
        ModelError: no candidate, an unknown one, or no row.
    """
    scale = AccuracyScale.of(rows.y)
    return fitter.fit("final_accuracy", scale.unit, scale.rows(rows), seed=seed), scale


def _skewness(values: FloatArray) -> float:
    """Third standardised moment; 0 of values that are all (nearly) the same."""
    centred = values - values.mean()
    spread = math.sqrt(float(np.mean(centred**2)))
    return float(np.mean((centred / spread) ** 3)) if spread > 1e-9 else 0.0


MIN_ROWS_PER_FEATURE = 2
"""With fewer rows, one function of all features cannot find out which of them matter."""


def accuracy_design(n_rows: int, n_features: int, coarse: tuple[int, ...]) -> Design:
    """Final accuracy: one function of all features; where rows are few, a function of the coarse ones too.

    Among tens of genes, a few dozen backbones do not tell the ones that matter.  What the totals say is
    then a function of its own, and the genes are left with what it misses.
    """
    if n_rows >= MIN_ROWS_PER_FEATURE * n_features:
        return Design()
    return Design((KernelPart(coarse), KernelPart(tuple(range(n_features)))))


def accuracy_rows(
    space: BackboneSpace, records: Sequence[AccuracyRecord], *, n_classes: int
) -> tuple[TrainingRows, TrainingRows]:
    """Rows of final accuracy (one per record) and of exit fractions (one per record and measured position).

    Raises:
        ModelError: no record.
    """
    if not records:
        raise ModelError("no valid accuracy record to train on; measure some backbones first")
    ids = sorted({record.backbone.arch_id for record in records})
    group = np.array([ids.index(record.backbone.arch_id) for record in records], dtype=np.int64)
    final, exits, targets, noises = [], [], [], []
    measured = [record.calibration for record in records if record.calibration is not None]
    for record, outcomes, ease in zip(records, measured, eases(measured), strict=True):
        workload = space.workload(record.backbone, n_classes=n_classes)
        logits, noise = logits_of(outcomes, ease)
        final.append(backbone_features(space, record.backbone, workload))
        curve = curve_rows(space, record.backbone, workload, float(logits[-1]))
        # Where only the last exits were measured, or none, the others are not rows.
        exits.append(curve[record.first_exit - space.first_exit :])
        targets.append(logits)
        noises.append(noise)
    features, positions = np.stack(final), np.vstack(exits)
    final_rows = TrainingRows(
        features,
        np.array([logits[-1] for logits in targets]),
        np.array([noise[-1] for noise in noises]),
        group,
        np.zeros(len(records)),
        design=accuracy_design(len(features), features.shape[1], coarse_columns(space)),
    )
    exit_rows = TrainingRows(
        positions,
        np.concatenate([logits[:-1] for logits in targets]),
        np.concatenate([noise[:-1] for noise in noises]),
        np.repeat(group, [len(logits) - 1 for logits in targets]),
        np.zeros(len(positions)),
        design=curve_design(space, positions.shape[1]),
    )
    return final_rows, exit_rows


def fractions(logits: FloatArray) -> FloatArray:
    """Fractions correct from logits."""
    return np.asarray(expit(logits))
