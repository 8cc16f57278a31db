"""The predictors of a study: found again where nothing changed, else fitted, quantity by quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..datasets.records import AccuracyRecord, CostRecord
from ..errors import ModelError
from .assembly import Assembly, ProgressCallback
from .journal import content_digest

if TYPE_CHECKING:
    from ..surrogates.predictor_set import PredictorSet

PHASE = "fitting the predictors"


def fit_or_load(
    parts: Assembly, r: int, accuracy: Sequence[AccuracyRecord], costs: Sequence[CostRecord], seed: int,
    progress: ProgressCallback,
) -> PredictorSet:  # fmt: skip
    """Predictors of some rows.

    A set is found again by what it was fitted to, not by whose rows these are.  Of a set that has to be
    fitted, only the models are whose own rows have changed since any earlier one of the study: new cost
    rows do not change what is known of accuracies.

    Args:
        r: the latest round, which names the folder.

    Raises:
        ModelError: a folder that is damaged, cannot be written or holds predictors of other rows; or rows that
            do not belong together.
    """
    from ..surrogates.persistence import RELEASE, fitted_below
    from ..surrogates.predictor_set import PredictorSet

    candidates = parts.config.surrogates.candidates
    folder = parts.directory / "models" / parts.config.study
    digest = content_digest(accuracy, costs, seed, candidates)
    directory = folder / f"round-{r}-{digest}-{RELEASE}"
    for place in (folder.parent, folder, directory):
        if place.exists() and not place.is_dir():
            raise ModelError(f"{place}: a file stands where a folder of predictors belongs; move it away")
    if directory.exists():
        target = parts.device_identity.target.target_id
        found = PredictorSet.load(directory, parts.space, parts.table, target_id=target)
        if found.provenance.rows_digest != digest:
            raise ModelError(
                f"{directory}: these predictors were fitted to other rows than study '{parts.config.study}' has "
                f"after round {r}; delete this folder, and they are fitted anew"
            )
        return found
    progress(PHASE, 0, 1)
    predictors = PredictorSet.fit(
        parts.space, parts.table, accuracy, costs, n_classes=parts.data.n_classes, seed=seed,
        candidates=candidates, earlier=fitted_below(folder),
    )  # fmt: skip
    predictors.provenance = replace(predictors.provenance, rows_digest=digest)
    _save(predictors, directory)
    progress(PHASE, 1, 1)
    return predictors


def _save(predictors: PredictorSet, directory: Path) -> None:
    try:
        predictors.save(directory)
    except OSError as error:
        raise ModelError(f"{directory}: cannot write the predictors ({error.strerror})") from error
