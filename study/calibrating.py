"""What measured points say of the predictors: errors of predictions made beforehand and of held-out ones.

After each round every measured design is predicted once more by predictors that have seen nothing of its
backbone.  These errors and those of the predictions that came with the plans give the correction of all intervals
that are predicted next (see :mod:`hadas.surrogates.conformal`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from ..datasets.records import CostRecord
from ..spaces import Backbone
from .assembly import ProgressCallback
from .journal import Check, MeasuredPoint, checks_of
from .worlds import Worlds

if TYPE_CHECKING:
    from ..surrogates.conformal import Correction
    from ..surrogates.predictor_set import PredictorSet
    from .findings import FloatArray
    from .loop import Study

MIN_BACKBONES = 8
"""With fewer measured backbones none are held out: what predictors of so few others say shows little of these."""

N_FOLDS = 3

N_DRAWS = 256
"""Joint draws behind every held-out prediction."""

_Z_90 = float(norm.ppf(0.95))


def normal_scale(quantity: str, values: Sequence[float]) -> FloatArray:
    """Values on the scale on which errors are near normal: costs as logs, accuracy as it is."""
    found = np.asarray(values, dtype=np.float64)
    return found if quantity == "accuracy" else np.log(found)


def normal_checks(checks: Sequence[Check]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Means, standard deviations and measurements (n,) of checks of one quantity, on :func:`normal_scale`.

    The normal is the one that has the predicted 90 % interval.
    """
    quantity = checks[0].quantity if checks else "accuracy"
    low, high = (normal_scale(quantity, [getattr(c, end) for c in checks]) for end in ("low_90", "high_90"))
    sd = np.maximum((high - low) / (2 * _Z_90), 1e-12)
    return (low + high) / 2, sd, normal_scale(quantity, [check.measured for check in checks])


def normalised_errors(checks: Sequence[Check]) -> FloatArray:
    """(measured - predicted) / sd (n,) of checks of one quantity, on :func:`normal_scale`."""
    mean, sd, measured = normal_checks(checks)
    return np.asarray((measured - mean) / sd)


def by_quantity(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """Checks apart by what they are of, in the order of the names."""
    found: dict[str, list[Check]] = {}
    for check in checks:
        found.setdefault(check.quantity, []).append(check)
    return dict(sorted(found.items()))


def distinct(checks: Sequence[Check]) -> list[Check]:
    """Checks without repetitions: accuracy does not depend on clocks, and is one measurement at all of them."""
    found: dict[tuple[object, ...], Check] = {}
    for i, check in enumerate(checks):
        same = (check.arch_id, check.round, check.measured) if check.quantity == "accuracy" else (i,)
        found.setdefault(same, check)
    return list(found.values())


def backbone_groups(checks: Sequence[Check]) -> NDArray[np.int64]:
    """(n,) which checks are of one backbone: 0, 1, .. in no particular order."""
    return np.unique([check.arch_id for check in checks], return_inverse=True)[1].astype(np.int64)


def _backbone_errors(checks: Sequence[Check]) -> FloatArray:
    """Mean normalised error (k,) of each of k backbones, of checks of one quantity."""
    some = distinct(checks)
    groups = backbone_groups(some)
    return np.asarray(np.bincount(groups, normalised_errors(some)) / np.bincount(groups))


def corrections(study: Study, predictors: PredictorSet, progress: ProgressCallback) -> dict[str, Correction]:
    """What intervals of today's predictors are corrected by, per quantity; worked out once and journalled.

    Args:
        predictors: of the latest round, whose kinds of models held-out ones share.
    """
    findings, r = study.findings, study.latest_round()
    key = f"calibration:{findings.fit_label(r)}"
    if findings.event(key) is None:
        held_out = held_out_checks(study, predictors, progress)
        rounds = [(findings.round_checks(k), findings.corrections(f"plan:{k}")) for k in range(1, r + 1)]
        learned = learn(held_out, rounds)
        study.journal(
            key,
            {
                "corrections": {quantity: found.to_json() for quantity, found in learned.items()},
                "held_out": [asdict(check) for check in held_out],
            },
        )
    return findings.corrections(key)


def learn(
    held_out: Sequence[Check], rounds: Sequence[tuple[Sequence[Check], Mapping[str, Correction]]]
) -> dict[str, Correction]:
    """Corrections per quantity; designs of one backbone, which err alike, count together as one.

    Args:
        held_out: predictions of predictors that had seen nothing of the backbone; those of round 0, the seeds,
            count as measured at random.
        rounds: predictions that came with the plan of each round, and what they had been corrected by.
    """
    from ..surrogates.conformal import UNCORRECTED, HeldOut, learn_correction

    found = {}
    for quantity, repeated in by_quantity(held_out).items():
        checks = distinct(repeated)
        proposed = np.array([check.round > 0 for check in checks])
        errors = [
            used.get(quantity, UNCORRECTED).raw(_backbone_errors(by_quantity(checked).get(quantity, [])))
            for checked, used in rounds
        ]
        seen = HeldOut(normalised_errors(checks), proposed, backbone_groups(checks))
        found[quantity] = learn_correction(seen, errors)
    return found


def held_out_checks(study: Study, predictors: PredictorSet, progress: ProgressCallback) -> list[Check]:
    """Every measured design against what predictors say of it that have seen no row of its backbone.

    None for fewer than :data:`MIN_BACKBONES` backbones.
    """
    points = study.findings.loop_points()
    backbones = list(dict.fromkeys(point.design.backbone for point in points))
    if len(backbones) < MIN_BACKBONES:
        return []
    order = np.random.default_rng(study.seed_for(9, study.latest_round())).permutation(len(backbones))
    checks: list[Check] = []
    for fold in range(N_FOLDS):
        progress("intervals on held-out backbones", fold, N_FOLDS)
        held = {backbones[int(i)] for i in order[fold::N_FOLDS]}
        checks += _fold_checks(study, predictors, held, [p for p in points if p.design.backbone in held])
    progress("intervals on held-out backbones", N_FOLDS, N_FOLDS)
    return checks


def _fold_checks(
    study: Study, predictors: PredictorSet, held: set[Backbone], points: Sequence[MeasuredPoint]
) -> list[Check]:
    from ..surrogates.predictor_set import PredictorSet

    n_rounds, parts = study.latest_round() + 1, study.parts

    def others(rows: Sequence[CostRecord]) -> list[CostRecord]:
        return [row for row in rows if row.backbone not in held]

    accuracy = [row for row in study.findings.training_accuracy(n_rounds) if row.backbone not in held]
    fitted = PredictorSet.fit(
        parts.space, parts.table, accuracy, others(study.findings.cost_records(n_rounds)),
        n_classes=parts.data.n_classes, seed=predictors.provenance.seed,
        chosen={summary.quantity: summary.chosen for summary in predictors.summary},
    )  # fmt: skip
    worlds = Worlds.build(parts, fitted, accuracy)
    predicted = worlds.predictions(
        [point.design for point in points], n_draws=N_DRAWS, seed=study.seed_for(10, n_rounds - 1)
    )
    return checks_of(predicted, points)
