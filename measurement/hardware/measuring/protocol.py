"""How a row is measured and summarised, whatever the device."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ....datasets.records import Statistic
from ....errors import ConfigError, SpaceError
from ....spaces import BackboneSpace, ClockTable
from ..device import CostRequest, MeasurementPlan
from ..simulation.sensors import SENSOR_AVERAGING_S

FloatArray = NDArray[np.float64]

_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_MEDIAN_OVER_MEAN = 1.2533  # sqrt(pi / 2): standard error of a normal sample's median over its mean's


@dataclass(frozen=True)
class MeasuringProtocol:
    """How rows are measured, every number of it.

    One loop of a program serves latency and energy: it warms up, then its blocks are timed while the
    sensor is read.  With one window per stage a network of two exits (five stages) on a board whose
    sensor averages over 0.42 s takes 60 s, or 65 s when its clocks are new to the session and the idle
    device is read first: 1,340 to 1,440 rows a day.  Three windows per stage (``n_windows=3``) would take three times that; they are for
    absolute claims about one network.  What they would show, how much a window differs from the next, is seen
    all the same: within a window by its parts, between windows by the anchor that comes every 20 rows.

    A stage that is looped alone may find its weights in the caches, where a whole pass would not.  It is
    suspected, not established, that sums of stages are somewhat below the same network run whole for that reason:
    so it looked on one CPU (``benchmarks/program_gap.py``).

    Attributes:
        name: of the set of values.
        settle_s: after new clocks are set and read back.
        gate_reference_c: temperature at which rows may start; ``None`` = the warmest that a row of the session
            has ended at.  A board that works warms up for minutes: waiting for it to cool down to where it
            began would take longer than measuring, and anchors tell whether its warmth matters.
        gate_warmer_c, gate_slope_c, gate_limit_s: a row starts when the device is at most so much warmer than
            the reference, or its temperature moved less than ``gate_slope_c`` in 10 s; after the limit it
            starts hot, and says so.
        warm_up_s, warm_up_runs: least running before anything counts, of the first program of a row.
        stage_warm_up_s: the same of its other programs: the device is warm already, only the program is not.
        warm_up_agreement, warm_up_limit_s: warm means that the medians of the last 3 stretches agree so well,
            each of whole blocks and a sixth of the least warm-up long; or that so much time has passed,
            which is flagged if they still differ.
        block_s: least duration of a latency block.
        least_blocks, typical_blocks: fewest blocks that a median is taken over, and how many it often takes.
        least_span_s: of one stage, before its interval may end it: blocks of a moment are alike for more reasons
            than that the program is steady.
        interval: relative half-width of the median's 95 % interval that is good enough.
        latency_limit_s, latency_limit_runs: time and runs of one stage after which the interval is taken as
            it is.
        window_s, window_intervals: energy window: the longer of the two, the second in averaging intervals of
            the sensor.
        n_windows: loops of a stage, taken in turns over all stages of the network.
        idle_s: reading of the idle device: half of it before a row's programs run, half after.
        state_interval_s: between two looks at clocks, temperature and machine while a program runs.
        clock_tolerance: relative distance at which a clock that was read back is another one.
        hottest_c: a row above it is throttled, or will be; ``None`` = no limit.
        most_steal, most_pressure: share of time stolen by the hypervisor, and percent of time in which
            some task waited for a core, above which a row is noisy.
        least_cpu_share: processor time over wall time of a CPU row below which it is not believed.
        anchor_every: rows between two anchors; 0 = no anchors.
        drift: relative move of an anchor that is drift.
        n_bootstrap: resamples of an interval.
    """

    name: str = "full"
    settle_s: float = 0.5
    gate_reference_c: float | None = None
    gate_warmer_c: float = 2.0
    gate_slope_c: float = 0.2
    gate_limit_s: float = 120.0
    warm_up_s: float = 3.0
    warm_up_runs: int = 20
    stage_warm_up_s: float = 0.3
    warm_up_agreement: float = 0.02
    warm_up_limit_s: float = 15.0
    block_s: float = 0.1
    least_blocks: int = 12
    typical_blocks: int = 34
    least_span_s: float = 3.0
    interval: float = 0.01
    latency_limit_s: float = 30.0
    latency_limit_runs: int = 2000
    window_s: float = 10.0
    window_intervals: int = 25
    n_windows: int = 1
    idle_s: float = 5.0
    state_interval_s: float = 1.0
    clock_tolerance: float = 0.02
    hottest_c: float | None = 95.0
    most_steal: float = 0.01
    most_pressure: float = 10.0
    least_cpu_share: float = 0.5
    anchor_every: int = 20
    drift: float = 0.03
    n_bootstrap: int = 1000

    def __post_init__(self) -> None:
        least = {
            "least_blocks": 3,
            "n_windows": 1,
            "typical_blocks": 1,
            "n_bootstrap": 100,
            "anchor_every": 0,
        }
        for field, bound in least.items():
            if getattr(self, field) < bound:
                raise ConfigError(f"measuring protocol '{self.name}': {field} must be at least {bound}")
        for field, value in asdict(self).items():
            if isinstance(value, float) and not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"measuring protocol '{self.name}': {field} = {value} must not be negative")
        if not (self.block_s > 0 and self.window_s > 0):
            raise ConfigError(f"measuring protocol '{self.name}': block_s and window_s must be positive")

    @cached_property
    def protocol_id(self) -> str:
        """Name, and 8 hex digits over all values."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:8]}"

    def energy_window_s(self, averaging_s: float) -> float:
        """Length of an energy window with a sensor that averages over so long (0 = a counter)."""
        return max(self.window_s, self.window_intervals * averaging_s)

    def expected_seconds(
        self, n_stages: int, counts_energy: bool, *, averaging_s: float = SENSOR_AVERAGING_S
    ) -> float:
        """Device time of one row at clocks that the session has not seen yet, without loading its programs
        (``loading_s`` among a row's machine measures says what that took; ``device_seconds`` counts it).

        Settling, the idle device before and after, warm-up, and per stage its windows, each after an interval
        that fills the sensor's average.  Without energy: the blocks that a median often takes.
        """
        n_loops = n_stages * self.n_windows
        ready_s = self.settle_s + self.warm_up_s + (n_loops - 1) * self.stage_warm_up_s
        if not counts_energy:
            return ready_s + n_stages * self.typical_blocks * self.block_s
        return ready_s + self.idle_s + n_loops * (averaging_s + self.energy_window_s(averaging_s))


FULL = MeasuringProtocol()
"""For boards and GPUs."""

QUICK = MeasuringProtocol(
    name="quick", settle_s=0.05, gate_limit_s=10.0, warm_up_s=0.05, warm_up_runs=3, stage_warm_up_s=0.05,
    warm_up_limit_s=0.15, block_s=0.005, least_blocks=15, typical_blocks=40, least_span_s=0.12, latency_limit_s=0.24,
    latency_limit_runs=100_000, window_s=1.0, window_intervals=3, n_windows=3, idle_s=1.0, state_interval_s=0.25, hottest_c=None,
)  # fmt: skip
"""For tests and small studies on this machine: about a second per row, without energy worth the name.
Stages take turns, three times, so that a slow phase of the machine falls on all alike."""

PROTOCOLS = {protocol.name: protocol for protocol in (FULL, QUICK)}

SIMULATED = MeasuringProtocol(
    name="simulated", stage_warm_up_s=0.0, idle_s=0.0, window_intervals=0, typical_blocks=24
)
"""Of the simulated device: 24 blocks, windows of 10 s, whatever the sensor; idle power is not read."""


def block_statistic(block_ms: FloatArray) -> Statistic:
    """Median over blocks, its standard error from the median absolute deviation.

    Args:
        block_ms: (n_blocks,) mean latency of each block, ms.
    """
    median = float(np.median(block_ms))
    deviation = float(np.median(np.abs(block_ms - median)))
    error = _MEDIAN_OVER_MEAN * _MAD_TO_SIGMA * deviation / math.sqrt(len(block_ms))
    return Statistic(median, error, len(block_ms))


def total_statistic(parts: Sequence[Statistic], *, independent: bool) -> Statistic:
    """Of stages run one after another.

    Args:
        independent: whether nothing but chance made each of them err, as in a simulation: then errors add up in
            quadrature.  On a device what slows one stage down slows its neighbours, too, and errors add up.
    """
    errors = [part.standard_error for part in parts]
    error = math.sqrt(sum(each**2 for each in errors)) if independent else sum(errors)
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
