"""The predictors of a study: found again where nothing changed, else fitted, quantity by quantity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..datasets.records import AccuracyRecord, CostRecord
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
        ModelError: a folder that is damaged, or rows that do not belong together.
    """
    from ..surrogates.persistence import RELEASE, fitted_below
    from ..surrogates.predictor_set import PredictorSet

    candidates = parts.config.surrogates.candidates
    folder = parts.directory / "models" / parts.config.study
    directory = folder / f"round-{r}-{content_digest(accuracy, costs, seed, candidates)}-{RELEASE}"
    if directory.exists():
        target = parts.device_identity.target.target_id
        return PredictorSet.load(directory, parts.space, parts.table, target_id=target)
    progress(PHASE, 0, 1)
    predictors = PredictorSet.fit(
        parts.space, parts.table, accuracy, costs, n_classes=parts.data.n_classes, seed=seed,
        candidates=candidates, earlier=fitted_below(folder),
    )  # fmt: skip
    predictors.save(directory)
    progress(PHASE, 1, 1)
    return predictors
