"""Policies without thresholds: agreement between exits, single exits, and the oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....datasets.records import OutcomeMatrix
from ....errors import ConfigError
from .outcome import BoolArray, IntArray, checked_mask, first_allowed


@dataclass(frozen=True)
class AgreementRule:
    """Leave where ``patience`` consecutive exits in use agree.

    Attributes:
        patience: exits that must agree, the one left at included.
        in_use: (P,) exits in use.
    """

    patience: int
    in_use: BoolArray

    @property
    def evaluated(self) -> BoolArray:
        """(P,) all exits in use, unless they are too few for anybody to leave."""
        return self.in_use & (int(self.in_use.sum()) >= self.patience)

    def leaves_at(self, matrix: OutcomeMatrix) -> IntArray:
        """(n,) column where each sample leaves."""
        n, e = matrix.predicted.shape
        leaves = np.zeros((n, e), dtype=bool)
        leaves[:, -1] = True
        agreeing, last = np.zeros(n, dtype=np.int64), np.full(n, -1, dtype=np.int16)
        for column in np.flatnonzero(self.in_use):
            agreeing = np.where(matrix.predicted[:, column] == last, agreeing + 1, 1)
            last = matrix.predicted[:, column]
            leaves[:, column] = agreeing >= self.patience
        return first_allowed(leaves, self.in_use)


@dataclass(frozen=True, slots=True)
class Patience:
    """Leave once ``patience`` consecutive exits in use name the same class; nothing is calibrated.

    PABEE (Zhou et al., "BERT Loses Patience", NeurIPS 2020) counts agreements, one less than the
    exits that agree.  The final classifier keeps whoever reaches it.
    """

    patience: int = 2
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ConfigError(f"patience = {self.patience}: at least 1 exit must have spoken")

    @property
    def name(self) -> str:
        """Such as ``patience 2``."""
        return f"patience {self.patience}"

    def fit(self, calibration: OutcomeMatrix, mask: BoolArray) -> AgreementRule:
        """The rule for these exits."""
        return AgreementRule(self.patience, checked_mask(calibration, mask))


@dataclass(frozen=True)
class FixedRule:
    """Everybody leaves at one column, 0 .. P; no other exit is computed."""

    column: int
    n_positions: int

    @property
    def evaluated(self) -> BoolArray:
        """(P,) the one exit; none if it is the final classifier."""
        return np.asarray(np.arange(self.n_positions) == self.column)

    def leaves_at(self, matrix: OutcomeMatrix) -> IntArray:
        """(n,) the column."""
        return np.full(matrix.n_samples, self.column, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class FinalOnly:
    """The network without exits: everybody runs to the end and no head is computed."""

    name: ClassVar[str] = "final only"
    causal: ClassVar[bool] = True

    def fit(self, calibration: OutcomeMatrix, mask: BoolArray) -> FixedRule:
        """The rule for a matrix of this many exits."""
        n_positions = len(checked_mask(calibration, mask))
        return FixedRule(n_positions, n_positions)


@dataclass(frozen=True, slots=True)
class SingleExit:
    """Everybody leaves at one exit in use: a plain network cut off there.

    Attributes:
        column: of the exit; ``None`` = the one most often right on the calibration split, the
            earliest of equals.
    """

    column: int | None = None
    causal: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """``best single exit``, or which exit it is."""
        return "best single exit" if self.column is None else f"only exit {self.column}"

    def fit(self, calibration: OutcomeMatrix, mask: BoolArray) -> FixedRule:
        """Choose the exit.

        Raises:
            ConfigError: no exit is in use, or not the one asked for.
        """
        in_use = np.flatnonzero(checked_mask(calibration, mask))
        if not len(in_use) or (self.column is not None and self.column not in in_use):
            raise ConfigError(f"{self.name}: the exits in use are {in_use.tolist()}; choose among them")
        best = int(in_use[np.argmax(calibration.fractions[in_use])])
        return FixedRule(best if self.column is None else self.column, calibration.n_exits - 1)


@dataclass(frozen=True)
class OracleRule:
    """Leave at the first exit in use that is right."""

    evaluated: BoolArray

    def leaves_at(self, matrix: OutcomeMatrix) -> IntArray:
        """(n,) column where each sample leaves; see :func:`ideal_mapping`."""
        leaves = matrix.correct.copy()
        leaves[:, -1] = True
        return first_allowed(leaves, self.evaluated)


@dataclass(frozen=True, slots=True)
class IdealMapping:
    """The oracle: an upper bound on the accuracy of these exits that no causal policy can reach."""

    name: ClassVar[str] = "oracle"
    causal: ClassVar[bool] = False

    def fit(self, calibration: OutcomeMatrix, mask: BoolArray) -> OracleRule:
        """The rule for these exits."""
        return OracleRule(checked_mask(calibration, mask))
