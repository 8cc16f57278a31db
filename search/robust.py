"""Searching under uncertainty: many plausible worlds at once.

A world of one joint draw is as plausible as the predictors allow.  A search that looks at several of them together
and minimises a quantile of every objective finds designs that are good in most of them, not only on average.

Shapes: s draws, k backbones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..spaces import Backbone, BackboneSpace, ClockTable, Setting, Stage
from ..surrogates.widened import Draws
from .ensemble import Statistic, TablesEnsemble
from .outcomes import OutcomeLibrary
from .tables import FloatArray, StaticFitness
from .world import DrawView, PredictedWorld


class EnsembleWorld:
    """The worlds of all joint draws at once; ``SupportsTables``.

    A design is judged in every world through the exact objective, and by a statistic over what they say.
    """

    def __init__(self, members: Sequence[PredictedWorld], statistic: Statistic, quantile: float) -> None:
        """Args:
        members: worlds of the same space and clocks.
        statistic, quantile: as in :class:`.ensemble.TablesEnsemble`; the quantile is that of errors and costs.

        Raises:
            ConfigError: no world.
        """
        if not members:
            raise ConfigError("a search over joint draws needs at least one draw")
        self._members, self._statistic, self._quantile = tuple(members), statistic, quantile

    @classmethod
    def of_draws(
        cls, space: BackboneSpace, clock_table: ClockTable, draws: Draws, library: OutcomeLibrary, *,
        n_classes: int, statistic: Statistic, quantile: float,
    ) -> EnsembleWorld:  # fmt: skip
        """One world per joint draw."""
        shared = _Shared(draws)
        views = [DrawView(space, shared, i, n_classes=n_classes) for i in range(draws.n_draws)]
        worlds = [PredictedWorld(space, clock_table, view, library, n_classes=n_classes) for view in views]
        return cls(worlds, statistic, quantile)

    @property
    def clock_table(self) -> ClockTable:
        """The settings of all members."""
        return self._members[0].clock_table

    @property
    def digest(self) -> str:
        """Of all members."""
        return " ".join(member.digest for member in self._members)

    def static(self, backbones: Sequence[Backbone]) -> StaticFitness:
        """The statistic of each static value over the draws."""
        found = [member.static(backbones) for member in self._members]
        return StaticFitness(
            1.0 - self._summarised([1.0 - static.accuracy for static in found]),
            self._summarised([static.latency_ms for static in found]),
            self._summarised([static.energy_mj for static in found]),
        )

    def tables(self, backbones: Sequence[Backbone]) -> TablesEnsemble:
        """Tables of all draws."""
        members = tuple(member.tables(backbones) for member in self._members)
        return TablesEnsemble(members, self._statistic, self._quantile)

    def _summarised(self, values: Sequence[FloatArray]) -> FloatArray:
        stacked = np.stack(values)
        if self._statistic == "mean":
            return np.asarray(stacked.mean(axis=0))
        return np.asarray(np.quantile(stacked, self._quantile, axis=0))


class _Shared:
    """Joint draws that remember their last answer: the views of all draws ask for the same in turn."""

    def __init__(self, draws: Draws) -> None:
        self._draws, self.n_draws = draws, draws.n_draws
        self._stages: dict[tuple[Any, ...], tuple[FloatArray, FloatArray]] = {}
        self._last: dict[str, tuple[tuple[Backbone, ...], Any]] = {}

    def final_accuracy(self, backbones: Sequence[Backbone]) -> FloatArray:
        """(s, k), as :class:`.widened.Draws` has it."""
        found: FloatArray = self._remembered("final", backbones, self._draws.final_accuracy)
        return found

    def exit_fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        """k arrays (s, p), likewise."""
        found: list[FloatArray] = self._remembered("exits", backbones, self._draws.exit_fractions)
        return found

    def stage_costs(
        self, stages: Sequence[Stage], settings: Sequence[Setting]
    ) -> tuple[FloatArray, FloatArray]:
        """(s, n) latency and energy of one stage, which is how views ask (see :class:`DrawView`)."""
        assert all(stage is stages[0] for stage in stages)
        key = (stages[0].kind, stages[0].layers, tuple(settings))
        if key not in self._stages:
            self._stages[key] = self._draws.stage_costs(stages, settings)
        return self._stages[key]

    def _remembered(
        self, what: str, backbones: Sequence[Backbone], ask: Callable[[Sequence[Backbone]], Any]
    ) -> Any:
        asked = tuple(backbones)
        if what not in self._last or self._last[what][0] != asked:
            self._last[what] = (asked, ask(backbones))
        return self._last[what][1]
