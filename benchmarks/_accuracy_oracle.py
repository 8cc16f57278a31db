"""A frozen oracle of accuracy: the outcomes of any backbone of the mini space, modelled from those that were measured.

What is frozen is a function of the backbone alone, so that it can be asked without end and always gives the same
answer, as a supernet would that takes no time.  Measured backbones keep the outcomes that were measured.  Of every
other one, extremely randomised trees on its genes (no kind of model that predictors of this package can be) say what
fraction each exit gets right, and the measured backbone of the nearest fractions lends its outcomes: as many samples
are right as the trees say, those first that are easy for the lender (see :mod:`hadas.surrogates.dependence`).
Everything that comes of it is modelled, not measured.

It is least to be believed where a search that sees it ends, which is why backbones are measured there before it is
frozen (:mod:`_accuracies_near_the_front`): the eight first ones of the front, of which it had said 91.1 % on average,
were right in 90.0 %, with a root-mean-square difference of 1.5 points.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from _predictor_tasks import FloatArray, IntArray
from scipy.special import expit, logit
from sklearn.ensemble import ExtraTreesRegressor

from hadas.datasets.images import ImageData
from hadas.datasets.records import AccuracyRecord, OutcomeMatrix
from hadas.measurement.accuracy.policies import DEFAULT_CONTROLLER
from hadas.search.outcomes import aligned_columns
from hadas.spaces import Backbone, MBConvSpace
from hadas.surrogates.dependence import ExitDependence

N_TREES = 300
MIN_LEAF = 1
"""Measured backbones that a leaf of the trees of final classifiers holds at least: these are grown to single ones.

Leaves of three err as much on backbones left out, and more at the ends of the space: one-gene neighbours of the ends
(``python benchmarks/_accuracies_near_the_front.py`` measures and compares).
"""

EXITS_MIN_LEAF = 3
"""Rows, one an exit, that a leaf of the trees of exits holds at least."""

MAX_FEATURES = 0.5
N_FOLDS = 5
SEED = 41
MAX_KEPT = 200
"""Modelled rows that are kept for the next time; one is most of a megabyte."""


class AccuracyOracle:
    """Accuracy records of any backbone: measured ones as they are, all others modelled."""

    def __init__(
        self, space: MBConvSpace, data: ImageData, records: Sequence[AccuracyRecord], min_leaf: int = MIN_LEAF
    ) -> None:
        """Args:
        records: valid rows of one split, every exit measured.
        min_leaf: of the trees of final classifiers.
        """
        self.space, self.data, self._min_leaf = space, data, min_leaf
        self._donors = tuple(sorted(records, key=lambda record: record.backbone.arch_id))
        self._known = {record.backbone.arch_id: record for record in self._donors}
        self._eases: dict[int, FloatArray] = {}
        self._made: dict[Backbone, AccuracyRecord] = {}

    @cached_property
    def _trees(self) -> _Trees:
        return _Trees.fit(self.space, self._donors, self._min_leaf)

    @property
    def measured(self) -> tuple[AccuracyRecord, ...]:
        """Rows that were measured, by ``arch_id``."""
        return self._donors

    @cached_property
    def digest(self) -> str:
        """12 hex digits over the rows that it was made of and over how it was."""
        made = (
            SEED,
            N_TREES,
            (self._min_leaf, EXITS_MIN_LEAF),
            MAX_FEATURES,
            [r.backbone.arch_id for r in self._donors],
        )
        found = hashlib.sha256(repr(made).encode())
        for record in self._donors:
            found.update(np.packbits(_outcomes(record).correct).tobytes())
        return found.hexdigest()[:12]

    def fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        """(e,) fraction right per exit and, last, of the final classifier, of each backbone."""
        modelled = iter(self._trees.fractions([b for b in backbones if b.arch_id not in self._known]))
        return [
            _outcomes(self._known[b.arch_id]).fractions if b.arch_id in self._known else next(modelled)
            for b in backbones
        ]

    def record(self, backbone: Backbone) -> AccuracyRecord:
        """The row that measuring a backbone gives."""
        if backbone.arch_id in self._known:
            return self._known[backbone.arch_id]
        if backbone not in self._made:
            if len(self._made) >= MAX_KEPT:
                self._made.clear()
            self._made[backbone] = self._modelled(backbone, self.fractions([backbone])[0])
        return self._made[backbone]

    def _modelled(self, backbone: Backbone, fractions: FloatArray) -> AccuracyRecord:
        donor = self._nearest(fractions)
        lender = self._donors[donor]
        matrix = _outcomes(lender)
        columns = aligned_columns(len(fractions) - 1, matrix.n_exits - 1)
        correct = _easiest(self._ease(donor)[:, columns], fractions)
        labels = self.data.calibration.labels.astype(matrix.predicted.dtype)[:, None]
        wrong = matrix.predicted[:, columns]
        wrong = np.where(wrong == labels, (labels + 1) % self.data.n_classes, wrong)
        outcomes = OutcomeMatrix(
            correct, matrix.confidence[:, columns], matrix.margin[:, columns], matrix.entropy[:, columns],
            np.where(correct, labels, wrong).astype(matrix.predicted.dtype), matrix.group,
            matrix.temperature[columns],
        )  # fmt: skip
        return replace(
            lender, session="modelled", row_no=0, backbone=backbone, calibration=outcomes, test=outcomes,
            seconds={}, hardware="modelled",
        )  # fmt: skip

    def _nearest(self, fractions: FloatArray) -> int:
        """The donor of the least mean absolute difference, by relative depth; of equal ones the first."""
        apart = []
        for record in self._donors:
            own = _outcomes(record).fractions
            apart.append(np.abs(own[aligned_columns(len(fractions) - 1, len(own) - 1)] - fractions).mean())
        return int(np.argmin(apart))

    def _ease(self, donor: int) -> FloatArray:
        if donor not in self._eases:
            matrix = _outcomes(self._donors[donor])
            scores = np.asarray(DEFAULT_CONTROLLER.score.values(matrix), dtype=np.float64)
            self._eases[donor] = ExitDependence.fit(matrix.correct, scores, seed=SEED).ease
        return self._eases[donor]

    def cross_validated(self) -> dict[str, float]:
        """Error of the trees on measured backbones that were left out: what the modelling of this truth is worth.

        Root-mean-square errors of fractions right of final classifiers and of exits, and the standard deviation
        of final fractions between backbones, for scale.
        """
        turn = np.random.default_rng(SEED).permutation(len(self._donors)) % N_FOLDS
        final, exits = [], []
        for fold in range(N_FOLDS):
            told = [r for r, t in zip(self._donors, turn, strict=True) if t != fold]
            trees = _Trees.fit(self.space, told, self._min_leaf)
            left_out = [r for r, t in zip(self._donors, turn, strict=True) if t == fold]
            for record, guess in zip(left_out, trees.fractions([r.backbone for r in left_out]), strict=True):
                errors = guess - _outcomes(record).fractions
                final.append(errors[-1])
                exits.append(errors[:-1])
        spread = np.std([_outcomes(record).fractions[-1] for record in self._donors])
        return {
            "final_rmse": float(np.sqrt(np.mean(np.square(final)))),
            "exits_rmse": float(np.sqrt(np.mean(np.square(np.concatenate(exits))))),
            "final_sd": float(spread),
        }


class _Trees:
    """Extremely randomised trees on genes: final logits, and exits' logits below them."""

    def __init__(self, space: MBConvSpace, final: ExtraTreesRegressor, exits: ExtraTreesRegressor) -> None:
        self._space, self._final, self._exits = space, final, exits

    @classmethod
    def fit(cls, space: MBConvSpace, records: Sequence[AccuracyRecord], min_leaf: int) -> _Trees:
        logits = [logit(np.clip(_outcomes(record).fractions, 1e-3, 1 - 1e-3)) for record in records]
        backbones = [record.backbone for record in records]
        final, exits = (
            ExtraTreesRegressor(
                N_TREES, min_samples_leaf=leaf, max_features=MAX_FEATURES, random_state=SEED + i, n_jobs=1
            )
            for i, leaf in enumerate((min_leaf, EXITS_MIN_LEAF))
        )
        final.fit(_genes(space, backbones), [own[-1] for own in logits])
        rows, _ = _exit_rows(space, backbones)
        exits.fit(rows, np.concatenate([own[:-1] - own[-1] for own in logits]))
        return cls(space, final, exits)

    def fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        """(e,) of each backbone."""
        if not backbones:
            return []
        final = self._final.predict(_genes(self._space, backbones))
        rows, owner = _exit_rows(self._space, backbones)
        exits = final[owner] + self._exits.predict(rows)
        return [
            np.asarray(expit(np.append(exits[owner == i], end)), dtype=np.float64)
            for i, end in enumerate(final)
        ]


def _genes(space: MBConvSpace, backbones: Sequence[Backbone]) -> FloatArray:
    """(k, g) values of the genes, each by the place of its choice among the variable's own, from 0 to 1."""
    highest = np.array([max(1, len(variable.choices) - 1) for variable in space.variables])
    return np.stack([space.encode(backbone) for backbone in backbones]) / highest


def _exit_rows(space: MBConvSpace, backbones: Sequence[Backbone]) -> tuple[FloatArray, IntArray]:
    """(n, g + 3) features of all exit positions, and (n,) whose they are: genes, stage, place in it, relative depth."""
    genes, rows, owner = _genes(space, backbones), [], []
    for i, backbone in enumerate(backbones):
        stages = [(s, k) for s, depth in enumerate(backbone.depth) for k in range(depth)][space.first_exit :]
        for place, (stage, index) in enumerate(stages):
            rows.append([*genes[i], stage, index, place / max(1, len(stages) - 1)])
            owner.append(i)
    return np.array(rows, dtype=np.float64), np.array(owner, dtype=np.int64)


def _easiest(ease: FloatArray, fractions: FloatArray) -> np.ndarray:
    """(n, e) bool: per column, as many samples of the largest ease as the fraction says."""
    order = np.argsort(-ease, axis=0, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(len(ease))[:, None], axis=0)
    return np.asarray(place < np.rint(fractions * len(ease)))


def _outcomes(record: AccuracyRecord) -> OutcomeMatrix:
    assert record.calibration is not None
    return record.calibration
