"""The predicted worlds of one round: on the means, and on joint draws.

A world is what a search looks at instead of the device.  This module joins the predictors to
the measured outcomes and to the correction of their intervals; it holds no state of the study.

The correction reaches everything that is believed about proposed designs: predicted intervals and the draws that
suggestions are weighed with are shifted and widened, design by design.  In worlds of one draw, in which a whole
search is made, what single stages cost is widened alike, and nothing is shifted: that all of it is too cheap by the
same share of a standard deviation is known of proposed designs alone.  Designs that a user names were not picked for
what was predicted of them: intervals of theirs are widened, and not shifted (:meth:`Worlds.unshifted`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..datasets.records import AccuracyRecord
from .assembly import Assembly
from .journal import design_to_json

if TYPE_CHECKING:
    from ..search.designs import Design
    from ..search.outcomes import OutcomeLibrary
    from ..search.settings import SearchSettings
    from ..search.tables import SupportsTables
    from ..search.world import DesignDraws, PredictedWorld
    from ..surrogates.conformal import Correction
    from ..surrogates.predictor_set import PredictorDraws, PredictorSet
    from .findings import FloatArray


@dataclass(frozen=True)
class Worlds:
    """Predictors of one round, and the worlds they make.

    Attributes:
        predictors: fitted to all rows measured so far.
        library: measured outcomes, from which unmeasured backbones borrow.
        mean: the world of predictive means.
        corrections: of predictions of designs, by quantity (``accuracy``, ``energy_mj``, ``latency_ms``).
    """

    parts: Assembly
    predictors: PredictorSet
    library: OutcomeLibrary
    mean: PredictedWorld
    corrections: Mapping[str, Correction] = field(default_factory=dict)

    @classmethod
    def build(
        cls, parts: Assembly, predictors: PredictorSet, accuracy: Sequence[AccuracyRecord],
        corrections: Mapping[str, Correction] | None = None,
    ) -> Self:  # fmt: skip
        """Join predictors and measured outcomes."""
        from ..search.outcomes import OutcomeLibrary
        from ..search.world import MeanView, PredictedWorld

        library = OutcomeLibrary(accuracy, parts.controller)
        view = MeanView(parts.space, predictors)
        mean = PredictedWorld(parts.space, parts.table, view, library, n_classes=parts.data.n_classes)
        return cls(parts, predictors, library, mean, corrections or {})

    def drawn(self, draws: PredictorDraws, index: int) -> PredictedWorld:
        """The world of one joint draw."""
        from ..search.world import DrawView, PredictedWorld
        from ..surrogates.widened import WidenedDraws

        n_classes = self.parts.data.n_classes
        factors = {quantity: found.factor for quantity, found in self.corrections.items()}
        view = DrawView(self.parts.space, WidenedDraws(draws, factors), index, n_classes=n_classes)
        return PredictedWorld(self.parts.space, self.parts.table, view, self.library, n_classes=n_classes)

    def searched(self, settings: SearchSettings, seed: int) -> SupportsTables:
        """What a search looks at: the world of means, or those of joint draws, of which it takes a quantile.

        Args:
            seed: of the draws.
        """
        from ..search.robust import EnsembleWorld
        from ..surrogates.widened import WidenedDraws

        if settings.statistic == "mean":
            return self.mean
        factors = {quantity: found.factor for quantity, found in self.corrections.items()}
        draws = WidenedDraws(self.predictors.draws(settings.draws, seed), factors)
        return EnsembleWorld.of_draws(
            self.parts.space, self.parts.table, draws, self.library, n_classes=self.parts.data.n_classes,
            statistic=settings.statistic, quantile=settings.quantile,
        )  # fmt: skip

    def design_draws(self, designs: Sequence[Design], draws: PredictorDraws) -> DesignDraws:
        """What every joint draw says about designs."""
        from ..search.world import design_draws

        n_classes = self.parts.data.n_classes
        drawn = design_draws(designs, draws, self.parts.space, self.library, n_classes=n_classes)
        return self.corrected(drawn)

    def unshifted(self) -> Self:
        """The same, for designs that no search proposed."""
        found = {quantity: replace(one, shift=0.0) for quantity, one in self.corrections.items()}
        return replace(self, corrections=found)

    def corrected(self, drawn: DesignDraws) -> DesignDraws:
        """Draws of designs corrected."""
        return replace(
            drawn,
            error=1.0 - self.corrected_draws("accuracy", 1.0 - drawn.error),
            energy_mj=self.corrected_draws("energy_mj", drawn.energy_mj),
            latency_ms=self.corrected_draws("latency_ms", drawn.latency_ms),
        )

    def corrected_draws(self, quantity: str, draws: FloatArray) -> FloatArray:
        """Draws (s, ...) of one quantity corrected: costs as logs, fractions as they are, as it was learned."""
        found = self.corrections.get(quantity)
        if found is None:
            return draws
        if quantity == "accuracy":
            return np.clip(found.draws(draws), 0.0, 1.0)
        return np.exp(found.draws(np.log(draws)))

    def predictions(self, designs: Sequence[Design], *, n_draws: int, seed: int) -> list[dict[str, Any]]:
        """Predictive mean, deviation and central 90 % interval per design and quantity, as JSON.

        The noise of one new measurement is part of them.  The accuracy of a backbone whose
        outcomes are measured is no prediction and is left out, as is energy without a counter.
        """
        if not designs:
            return []
        draws = self.predictors.draws(n_draws, seed, include_noise=True)
        drawn = self.design_draws(designs, draws)
        found = []
        quantities = (
            ("accuracy", 1.0 - drawn.error),
            ("energy_mj", drawn.energy_mj),
            ("latency_ms", drawn.latency_ms),
        )
        for i, design in enumerate(designs):
            for quantity, values in quantities:
                own = values[:, i]
                measured = self.library.fractions(design.backbone.arch_id) is not None
                if np.isnan(own).any() or (quantity == "accuracy" and measured):
                    continue
                low, high = np.quantile(own, (0.05, 0.95))
                found.append(
                    {
                        "design": design_to_json(design.backbone, design.exits, design.setting),
                        "quantity": quantity,
                        "predicted": float(own.mean()),
                        "sd": float(own.std(ddof=1)),
                        "low_90": float(low),
                        "high_90": float(high),
                    }
                )
        return found
