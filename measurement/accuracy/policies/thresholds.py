"""Scores that say how sure an exit is, and the policies that compare them with thresholds.

A sample leaves at the first exit in use whose score reaches the exit's threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ....datasets.records import OutcomeMatrix
from ....errors import ConfigError
from .controller import DEFAULT_TOLERANCE, MIN_SAMPLES, ThresholdFitter, reaching
from .outcome import BoolArray, FloatArray, IntArray, checked_mask, first_allowed

ScoreName = Literal["max-softmax", "margin", "entropy"]


@dataclass(frozen=True, slots=True)
class Score:
    """How sure an exit is of a sample, from 0 (not at all) to 1.

    * ``max-softmax``: the largest probability (MSDNet, Huang et al., ICLR 2018).
    * ``margin``: the largest less the second largest.
    * ``entropy``: 1 - H / log C for C classes, with H in nats, so that a sample of *low*
      entropy leaves (BranchyNet, Teerapittayanon et al., ICPR 2016); an entropy threshold tau
      on H / log C is a threshold 1 - tau here.

    Temperatures need no care: they are already in the probabilities that a matrix was made of.

    Attributes:
        n_classes: C, for ``entropy`` only.
    """

    name: ScoreName
    n_classes: int | None = None

    def __post_init__(self) -> None:
        if self.name not in ("max-softmax", "margin", "entropy"):
            raise ConfigError(f"no score '{self.name}'; known: max-softmax, margin, entropy")
        if self.name == "entropy" and (self.n_classes is None or self.n_classes < 2):
            raise ConfigError(
                f"score 'entropy' is normalised by the logarithm of the number of classes; n_classes = {self.n_classes}: "
                "give a number of at least 2"
            )

    def values(self, matrix: OutcomeMatrix) -> FloatArray:
        """(n, e) scores; higher is surer."""
        if self.name == "max-softmax":
            return np.asarray(matrix.confidence, dtype=np.float64)
        if self.name == "margin":
            return np.asarray(matrix.margin, dtype=np.float64)
        assert self.n_classes is not None
        # A stored entropy is rounded and may exceed the logarithm a little.
        return np.clip(
            1.0 - np.asarray(matrix.entropy, dtype=np.float64) / math.log(self.n_classes), 0.0, 1.0
        )


MAX_SOFTMAX = Score("max-softmax")
MARGIN = Score("margin")


@dataclass(frozen=True)
class ThresholdRule:
    """Leave at the first exit in use whose score reaches its threshold.

    Attributes:
        score: what is compared.
        thresholds: (e,) in the score's unit; infinity where nobody may leave, and at exits not
            in use; the last entry is not looked at.
    """

    score: Score
    thresholds: FloatArray

    @property
    def evaluated(self) -> BoolArray:
        """(P,) exits of finite threshold: a head that lets nobody leave need not run."""
        return np.isfinite(self.thresholds[:-1])

    def leaves_at(self, matrix: OutcomeMatrix) -> IntArray:
        """(n,) column where each sample leaves."""
        return first_allowed(reaching(self.score.values(matrix), self.thresholds), self.evaluated)


def restricted(thresholds: FloatArray, mask: BoolArray) -> FloatArray:
    """(e,) thresholds with infinity at the exits that ``mask`` (P,) leaves out."""
    return np.append(np.where(mask, thresholds[:-1], np.inf), 0.0)


@dataclass(frozen=True, slots=True)
class ToleranceThresholds:
    """Thresholds fitted exit by exit, for any score; see :func:`fit_thresholds`, its ``max-softmax`` form.

    Attributes:
        tolerance: accuracy, as a fraction, that an exit may lose against the final classifier on
            the calibration samples that reach its threshold.
        min_samples: fewest samples that must reach a threshold.
    """

    score: Score = MAX_SOFTMAX
    tolerance: float = DEFAULT_TOLERANCE
    min_samples: int = MIN_SAMPLES
    causal: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """That of the score."""
        return self.score.name

    def fit(self, calibration: OutcomeMatrix, mask: BoolArray) -> ThresholdRule:
        """The smallest thresholds that keep within the tolerance."""
        used = checked_mask(calibration, mask)
        fitter = ThresholdFitter(self.score.values(calibration), min_samples=self.min_samples)
        return ThresholdRule(self.score, restricted(fitter.fit(calibration.correct, self.tolerance), used))


DEFAULT_CONTROLLER = ToleranceThresholds()
"""The controller that the search counts on unless a study says otherwise."""
