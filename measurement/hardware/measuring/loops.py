"""One loop of one program: until it is warm, until its median is known, until its energy window is full."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ....datasets.evidence import StoppedBy
from ....errors import DeviceError
from ..rig import Block, DeviceState, EnergySource, PowerTrace, Programs, Rig
from .protocol import MeasuringProtocol
from .statistics import (
    WindowEnergy,
    batch_half_width,
    block_means_ms,
    median_interval,
    window_energy,
)

_PROBE_S = 0.05
_PROBE_RUNS = 5
_MOST_PROBE_RUNS = 2000  # of 25 us; a clock that stands still ends here, too
_CHECK_GROWTH = 1.4  # intervals are looked at after 30, 42, 59 ... blocks: looking more often bends them
_PAUSE_S = 0.1  # between two blocks: longer than any look at a device's state; trtexec loads for seconds
_MOST_WINDOWS = 4  # that a loop lasts in search of one without a pause


@dataclass(frozen=True, slots=True)
class LoopResult:
    """What one loop showed.

    Attributes:
        blocks: in order of time, warm-up excluded.
        warm_up_s, settled: how long it warmed up, and whether the medians agreed in the end.
        stopped_by: what ended the search for the median.
        trace: power since the loop began.
        states: of the device, first to last.
    """

    blocks: tuple[Block, ...]
    warm_up_s: float
    settled: bool
    stopped_by: StoppedBy
    trace: PowerTrace | None
    states: tuple[DeviceState, ...]


def runs_per_block(programs: Programs, index: int, block_s: float) -> int:
    """How many runs fill a block, by the fastest of a short loop of single runs: a block is never shorter."""
    run_s: list[float] = []
    with programs.loop(index, 1, _PROBE_S) as running:
        for block in running:
            run_s += block.run_s
            enough = len(run_s) >= _PROBE_RUNS and sum(run_s) >= min(_PROBE_S, block_s)
            if enough or len(run_s) >= _MOST_PROBE_RUNS:
                break
    once_s = min(run_s, default=0.0)
    if once_s <= 0.0:
        raise DeviceError(f"program {index}: a run took {once_s} s; the device's clock does not tell time")
    return max(1, math.ceil(block_s / once_s))


class _Ending:
    """When a loop has shown enough: the rules of the protocol."""

    def __init__(
        self, protocol: MeasuringProtocol, source: EnergySource | None, before: Sequence[Block]
    ) -> None:
        self._protocol = protocol
        self._before = list(before)
        self._source = source
        self._least_blocks = math.ceil(protocol.least_blocks / protocol.n_windows)
        self._next_check = self._least_blocks
        self._n_seen = 0  # blocks, in search of the window
        self._ready_s, self._begins_s = math.inf, math.inf
        self.stopped_by: StoppedBy | None = None

    def reached(self, warm_at_s: float, blocks: Sequence[Block]) -> bool:
        """Whether the loop may end after these blocks."""
        if self.stopped_by is None:
            self.stopped_by = self._median_known(blocks)
        return self.stopped_by is not None and self._window_full(warm_at_s, blocks)

    def _median_known(self, blocks: Sequence[Block]) -> StoppedBy | None:
        n, p = len(blocks), self._protocol
        if n < self._least_blocks:
            return None
        spent_s = blocks[-1].end_s - blocks[0].start_s
        if n >= self._next_check and spent_s >= p.least_span_s / p.n_windows:
            self._next_check = math.ceil(_CHECK_GROWTH * n)
            if len(self._before) + n >= p.least_blocks and is_narrow([*self._before, *blocks], p):
                return "interval"
        if spent_s >= p.latency_limit_s / p.n_windows:
            return "time"
        if sum(len(block.run_s) for block in blocks) >= p.latency_limit_runs / p.n_windows:
            return "count"
        return None

    def _window_full(self, warm_at_s: float, blocks: Sequence[Block]) -> bool:
        if self._source is None:
            return True
        # The window ends with the last block that the readings cover; the last one may be as old as an update.
        spare_s = self._source.update_s + blocks[-1].end_s - blocks[-1].start_s
        wanted_s = self._protocol.energy_window_s(self._source.averaging_s) + spare_s
        while self._n_seen < len(blocks):
            block = blocks[self._n_seen]
            if self._n_seen == 0 or block.start_s - blocks[self._n_seen - 1].end_s > _PAUSE_S:
                self._ready_s, self._begins_s = block.start_s + self._source.averaging_s, math.inf
            if block.start_s >= self._ready_s:
                self._begins_s = min(self._begins_s, block.start_s)
            self._n_seen += 1
        if blocks[-1].end_s - self._begins_s >= wanted_s:
            return True
        return blocks[-1].end_s - warm_at_s >= _MOST_WINDOWS * (wanted_s + self._source.averaging_s)


def is_narrow(blocks: Sequence[Block], protocol: MeasuringProtocol) -> bool:
    """Whether the 95 % interval of the median over blocks is as narrow as the protocol wants it."""
    means = block_means_ms(blocks)
    wanted_ms = protocol.interval * float(np.median(means))
    if batch_half_width(means) > wanted_ms:
        return False
    low, high = median_interval(means, n_resamples=protocol.n_bootstrap)
    return (high - low) / 2 <= wanted_ms


def is_settled(blocks: Sequence[Block], agreement: float, stretch_s: float) -> bool:
    """Whether the medians of the last 3 stretches of so long, each of whole blocks, agree.

    Single blocks would agree too soon where a device settles slowly.
    """
    medians: list[float] = []
    stretch: list[Block] = []
    for block in reversed(blocks):
        stretch.append(block)
        if stretch[0].end_s - block.start_s >= stretch_s:
            medians.append(float(np.median(np.concatenate([b.run_s for b in stretch]))))
            stretch = []
            if len(medians) == 3:
                return max(medians) - min(medians) <= agreement * min(medians)
    return False


def _is_warm(blocks: Sequence[Block], least_s: float, protocol: MeasuringProtocol) -> bool:
    spent_s = blocks[-1].end_s - blocks[0].start_s
    n_runs = sum(len(block.run_s) for block in blocks)
    if spent_s < least_s:
        return False
    if spent_s >= protocol.warm_up_limit_s:
        return True
    return n_runs >= protocol.warm_up_runs and is_settled(blocks, protocol.warm_up_agreement, least_s / 6)


def run_loop(
    rig: Rig, programs: Programs, index: int, block_runs: int, protocol: MeasuringProtocol, *,
    warm_up_s: float, before: Sequence[Block] = (),
) -> LoopResult:  # fmt: skip
    """Run one program until the protocol is satisfied.

    Args:
        block_runs: runs in a block.
        warm_up_s: least warm-up.
        before: blocks of earlier loops of this program in the same row: the median is over all of them.

    Raises:
        DeviceError: the program ended by itself.
    """
    source = rig.energy
    ending = _Ending(protocol, source, before)
    expected_s = warm_up_s + _expected_window_s(protocol, source)
    warming: list[Block] = []
    blocks: list[Block] = []
    is_warm = False
    states = [rig.state()]
    looked_s = -math.inf
    with programs.loop(index, block_runs, expected_s) as running:
        for block in running:
            if not is_warm:
                warming.append(block)
                is_warm = _is_warm(warming, warm_up_s, protocol)
            else:
                blocks.append(block)
                if ending.reached(warming[-1].end_s, blocks):
                    break
            if block.end_s - looked_s >= protocol.state_interval_s:
                looked_s = block.end_s
                states.append(rig.state())
        else:
            n_blocks = len(warming) + len(blocks)
            raise DeviceError(
                f"program {index} ended by itself after {n_blocks} blocks; see the log of its engine"
            )
        states.append(rig.state())
        trace = running.trace()
    assert ending.stopped_by is not None  # the loop is left by a break
    return LoopResult(
        tuple(blocks), warming[-1].end_s - warming[0].start_s, is_settled(warming, protocol.warm_up_agreement, warm_up_s / 6),
        ending.stopped_by, trace, tuple(states),
    )  # fmt: skip


def _expected_window_s(protocol: MeasuringProtocol, source: EnergySource | None) -> float:
    if source is None:
        return protocol.typical_blocks * protocol.block_s / protocol.n_windows
    return protocol.energy_window_s(source.averaging_s) + source.averaging_s + source.update_s


def loop_energy(result: LoopResult, source: EnergySource) -> WindowEnergy:
    """Energy of the longest run of whole blocks that the readings cover, and the inferences in just them.

    A pause between blocks, as where an engine is loaded anew, ends the window: power is drawn in it, and
    nothing is inferred.  A window begins one averaging interval after the warm-up or a pause, when
    the sensor shows the measured runs alone.

    Raises:
        RecordError: the energy source is dead.
    """
    first, last = result.blocks[0], result.blocks[-1]
    times = result.trace.time_s if result.trace is not None else ()
    trace = result.trace or PowerTrace((), tuple(() for _ in source.rails))
    from_s = times[0] if times else first.start_s
    until_s = times[-1] if times else last.end_s
    windows: list[list[Block]] = []
    for stretch in _stretches(result.blocks):
        ready_s = max(stretch[0].start_s + source.averaging_s, from_s)
        windows.append([block for block in stretch if block.start_s >= ready_s and block.end_s <= until_s])
    inside = max(windows, key=lambda window: window[-1].end_s - window[0].start_s if window else 0.0)
    if not inside:
        begins_s = max(first.start_s + source.averaging_s, from_s)
        return window_energy(trace, source, begins_s, max(last.end_s, begins_s + source.update_s))
    return window_energy(trace, source, inside[0].start_s, inside[-1].end_s, inside)


def _stretches(blocks: Sequence[Block]) -> list[list[Block]]:
    """Blocks that follow each other without a pause."""
    found = [[blocks[0]]]
    for before, block in pairwise(blocks):
        if block.start_s - before.end_s > _PAUSE_S:
            found.append([])
        found[-1].append(block)
    return found
