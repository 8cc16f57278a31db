"""How a row is measured and summarised, whatever the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...datasets.records import Statistic
from ...errors import SpaceError
from ...spaces import BackboneSpace, ClockTable
from .device import CostRequest, MeasurementPlan
from .sensors import SENSOR_AVERAGING_S

FloatArray = NDArray[np.float64]

_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_MEDIAN_OVER_MEAN = 1.2533  # sqrt(pi / 2): standard error of a normal sample's median over its mean's


@dataclass(frozen=True, slots=True)
class EnergyProtocol:
    """How one row is measured on a board with power rails.

    Attributes:
        settle_s: after setting the clocks.
        warm_up_s: running before anything counts.
        n_blocks: latency blocks per stage, spread over the stage's energy window.
        window_s: energy window per stage, one continuous loop of the stage.
    """

    settle_s: float = 0.5
    warm_up_s: float = 3.0
    n_blocks: int = 24
    window_s: float = 10.0

    def device_seconds(self, n_stages: int) -> float:
        """Device time of one row: settle + warm-up + per stage its window and, before it, the
        interval that fills the sensor's average.  Latency blocks are timed inside the window and
        add nothing.
        """
        return self.settle_s + self.warm_up_s + n_stages * (self.window_s + SENSOR_AVERAGING_S)


def block_statistic(block_ms: FloatArray) -> Statistic:
    """Median over blocks, its standard error from the median absolute deviation.

    Args:
        block_ms: (n_blocks,) mean latency of each block, ms.
    """
    median = float(np.median(block_ms))
    deviation = float(np.median(np.abs(block_ms - median)))
    error = _MEDIAN_OVER_MEAN * _MAD_TO_SIGMA * deviation / math.sqrt(len(block_ms))
    return Statistic(median, error, len(block_ms))


def total_statistic(parts: list[Statistic]) -> Statistic:
    """Of stages run one after another; their errors are independent."""
    error = math.sqrt(sum(part.standard_error**2 for part in parts))
    return Statistic(sum(part.value for part in parts), error, min(part.n for part in parts))


def check_plan(plan: MeasurementPlan, table: ClockTable, space: BackboneSpace) -> None:
    """Refuse a plan before anything of it is measured.

    Raises:
        OffTableFrequencyError: a request whose clocks the table does not list.
        SpaceError: a request whose network is not in the space.
    """
    for request in plan.requests:
        table.check(request.setting)
        _check_network(request, space)


def _check_network(request: CostRequest, space: BackboneSpace) -> None:
    backbone, exits = request.backbone, request.exits
    space.encode(backbone)
    n_positions = backbone.n_blocks - space.first_exit
    if exits.first_exit != space.first_exit or len(exits.types) != n_positions:
        raise SpaceError(
            f"{backbone.arch_id}: exits cover {len(exits.types)} positions from {exits.first_exit}; the "
            f"backbone has {n_positions} from {space.first_exit}"
        )
    for position, head in exits.heads:
        if head != 1:
            raise SpaceError(f"{backbone.arch_id}: exit {position} has head type {head}; the only type is 1")
