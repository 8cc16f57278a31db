"""The part of a measured point's error that measuring its cost again would reduce.

A device point is measured anew; the outcomes of the samples are not.  So the error of accuracy stays,
and of an expected cost the part that comes from the sample of images; what a repeat reduces is the
error of the stages' costs, each weighted by the share of samples that reach the stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..datasets.records import CostRecord, Statistic
from .designs import DesignOutcome, stage_statistics
from .tables import FloatArray


def repeatable_errors(
    outcomes: Sequence[DesignOutcome], costs: Sequence[CostRecord], columns: Sequence[str]
) -> FloatArray:
    """(q, m) standard errors, of measured cost alone, of objectives under the controller.

    Args:
        outcomes, costs: of q points; each cost row belongs to the outcome's design.
        columns: the m objectives; those that are no cost have no such error.

    Raises:
        RecordError: a row of another design.
    """
    found = np.zeros((len(outcomes), len(columns)))
    for i, (outcome, cost) in enumerate(zip(outcomes, costs, strict=True)):
        latency, energy = stage_statistics(outcome.design, cost)
        reach = np.cumsum(outcome.controller.shares[::-1])[::-1]
        for k, column in enumerate(columns):
            stages = {"latency_ms": latency, "energy_mj": energy}.get(column)
            if stages is not None:
                found[i, k] = _error(stages, reach)
    return found


def _error(stages: Sequence[Statistic], reach: FloatArray) -> float:
    """Of segment, head, segment, head, ..., final segment; a head runs as often as its segment."""
    weights = np.repeat(reach, 2)[: len(stages)]
    errors = np.array([stage.standard_error for stage in stages])
    return math.sqrt(float(((weights * errors) ** 2).sum()))
