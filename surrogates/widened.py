"""Joint draws whose spread was corrected: what a search in one drawn world looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from scipy.special import expit, logit

from ..spaces import Backbone, Setting, Stage
from .prediction import FloatArray

_EDGE = 1e-9
"""Fractions are kept this far from 0 and 1, whose logits are infinite."""


class Draws(Protocol):
    """Joint draws, one plausible world each: what a :class:`.predictor_set.PredictorDraws` is, widened or not."""

    @property
    def n_draws(self) -> int: ...
    def final_accuracy(self, backbones: Sequence[Backbone]) -> FloatArray: ...
    def exit_fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]: ...
    def stage_costs(
        self, stages: Sequence[Stage], settings: Sequence[Setting]
    ) -> tuple[FloatArray, FloatArray]: ...


class WidenedDraws:
    """Draws further from, or nearer to, their mean by a factor per quantity; a :class:`Draws` itself.

    On the scale on which the predictors are normal: logits of fractions, logs of costs.  The mean is that over the
    draws of the same row, so that a row still has the same value in every batch.

    Args:
        factors: by quantity: ``accuracy`` (of final and exit fractions), ``energy_mj``, ``latency_ms``; 1 if missing.
    """

    def __init__(self, draws: Draws, factors: Mapping[str, float]) -> None:
        self._draws, self.n_draws = draws, draws.n_draws
        self._accuracy, self._energy, self._latency = (
            factors.get(quantity, 1.0) for quantity in ("accuracy", "energy_mj", "latency_ms")
        )

    def final_accuracy(self, backbones: Sequence[Backbone]) -> FloatArray:
        """Fractions correct (s, k) of the final classifiers."""
        return self._fractions(self._draws.final_accuracy(backbones))

    def exit_fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        """Fractions correct at the exit positions: k arrays (s, P_b)."""
        return [self._fractions(own) for own in self._draws.exit_fractions(backbones)]

    def stage_costs(
        self, stages: Sequence[Stage], settings: Sequence[Setting]
    ) -> tuple[FloatArray, FloatArray]:
        """Latency (s, n) in ms and energy (s, n) in mJ of n (stage, setting) pairs."""
        latency_ms, energy_mj = self._draws.stage_costs(stages, settings)
        return _widened_costs(latency_ms, self._latency), _widened_costs(energy_mj, self._energy)

    def _fractions(self, drawn: FloatArray) -> FloatArray:
        if self._accuracy == 1.0:
            return drawn
        logits = logit(np.clip(drawn, _EDGE, 1.0 - _EDGE))
        return np.asarray(expit(_widened(logits, self._accuracy)))


def _widened_costs(draws: FloatArray, factor: float) -> FloatArray:
    return draws if factor == 1.0 else np.exp(_widened(np.log(draws), factor))


def _widened(draws: FloatArray, factor: float) -> FloatArray:
    mean = draws.mean(axis=0)
    return np.asarray(mean + factor * (draws - mean))
