"""One row: clocks, a cool enough device, the idle power, every program looped, and the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from ....datasets.evidence import EnergyEvidence, Evidence, StageEvidence
from ....datasets.records import CostRecord, Program, StageCost, Statistic
from ....errors import ConnectionLostError, DeviceError, HadasError, RecordError
from ....spaces import Setting
from ..rig import Block, ClockReading, DeviceState, EnergySource, LoadedStage, PowerTrace, Programs, Rig
from .disturbance import Verdict, judge_states
from .loops import LoopResult, loop_energy, run_loop, runs_per_block
from .protocol import MeasuringProtocol, total_statistic
from .queue import Job
from .raw import write_power_readings
from .statistics import (
    WindowEnergy,
    energy_result,
    half_width,
    latency_evidence,
    latency_statistic,
    window_energy,
)

_SHORT_WINDOW = 0.97  # of the energy window that the protocol wants: a shorter one is flagged


@dataclass(frozen=True)
class Clock:
    """Time as the protocol sees it.

    Attributes:
        now: seconds, monotonic.
        sleep: waits so many seconds.
        utc: date and time, ISO 8601.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    utc: Callable[[], str] = lambda: datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class _StageLog:
    """What all loops of one program showed."""

    stage: LoadedStage
    block_runs: int
    blocks: list[Block] = field(default_factory=list)
    loops: list[LoopResult] = field(default_factory=list)
    windows: list[WindowEnergy] = field(default_factory=list)


@dataclass
class _RowLog:
    """What a row has shown so far; the evidence of a row that fails tells how far it came."""

    started_utc: str
    engine: str = ""
    reading: ClockReading | None = None
    stages: list[_StageLog] = field(default_factory=list)
    idle: tuple[WindowEnergy, ...] = ()
    loading_s: float | None = None
    decision_s: float | None = None
    states: list[DeviceState] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    traces: list[tuple[str, PowerTrace]] = field(default_factory=list)


class RowMeter:
    """Measures the rows of one session on one rig.

    Args:
        warmest_c: temperature that the warmest row so far ended at; ``None`` if none is measured yet.
        raw_directory: where the power readings of every row are kept; ``None`` = nowhere.
    """

    def __init__(
        self, rig: Rig, protocol: MeasuringProtocol, program: Program, n_classes: int, clock: Clock, session: str,
        *, warmest_c: float | None = None, raw_directory: Path | None = None,
    ) -> None:  # fmt: skip
        self._rig, self._protocol, self._program = rig, protocol, program
        self._n_classes, self._clock, self._session = n_classes, clock, session
        self._warmest_c = warmest_c
        self._raw_directory = raw_directory
        self._idle: dict[Setting, tuple[WindowEnergy, ...]] = {}
        self._setting: Setting | None = None
        self.lost: ConnectionLostError | None = None
        """Why nothing more can be measured, if so."""

    def begin_batch(self) -> None:
        """Read the idle device anew from here on."""
        self._idle.clear()

    def measure(self, job: Job, row_no: int) -> CostRecord:
        """Measure one row; whatever the device does, it ends in a record."""
        started_s, log = self._clock.now(), _RowLog(self._clock.utc())
        try:
            self._run(job, log)
            return self._record(job, row_no, log, self._clock.now() - started_s).check("measurement")
        except HadasError as error:
            self.lost = error if isinstance(error, ConnectionLostError) else None
            self._setting = None
            evidence = self._evidence(job, log, (), self._judge(job, log), ("", ""))
            return CostRecord(
                session=self._session, row_no=row_no, backbone=job.request.backbone, n_classes=self._n_classes,
                heads=job.request.exits.heads, requested=job.request.setting, actual=_actual(job, log),
                target=self._rig.target, truth=self._rig.truth, stages=(), latency_ms=None, energy_mj=None,
                device_seconds=self._clock.now() - started_s, program=self._program, valid=False,
                reason=str(error) or type(error).__name__, evidence=evidence,
            )  # fmt: skip

    # -- running -----------------------------------------------------------------------------------

    def _run(self, job: Job, log: _RowLog) -> None:
        """Everything that touches the device."""
        setting = job.request.setting
        self._set_clocks(setting, log)
        began_s = self._clock.now()
        with self._rig.load(job.request, self._program) as programs:
            log.loading_s = self._clock.now() - began_s
            log.engine = programs.engine
            log.states.append(self._rig.state())
            self._wait_until_cool(log)
            log.idle = self._idle.get(setting) or self._read_idle("idle", log)
            for index, stage in enumerate(programs.stages):
                log.stages.append(_StageLog(stage, runs_per_block(programs, index, self._protocol.block_s)))
            for _ in range(self._protocol.n_windows):
                for index in range(len(log.stages)):
                    self._loop(programs, index, log)
            if log.idle and setting not in self._idle:
                log.idle += self._read_idle("idle after", log)
                self._idle[setting] = log.idle
            log.decision_s = programs.decision_s()
            log.states.append(self._rig.state())
        ended_c = log.states[-1].temperature_c
        if ended_c is not None and "hot" not in log.flags:
            self._warmest_c = max(ended_c, self._warmest_c or ended_c)

    def _set_clocks(self, setting: Setting, log: _RowLog) -> None:
        log.reading = reading = self._rig.set_clocks(setting)
        log.flags += reading.flags
        if setting.clocks_hz and not reading.verified:
            why = f" ({', '.join(reading.flags)})" if reading.flags else ""
            raise DeviceError(
                f"clocks not verified: asked for {setting}, read back {reading.actual}{why}. Free the device of "
                "whatever else steers its clocks, or leave this setting out"
            )
        if setting.clocks_hz and setting != self._setting:
            self._clock.sleep(self._protocol.settle_s)
        self._setting = setting

    def _wait_until_cool(self, log: _RowLog) -> None:
        """The thermal gate: wait for the reference's temperature, or for a steady one."""
        p = self._protocol
        reference_c = self._warmest_c if p.gate_reference_c is None else p.gate_reference_c
        began_s = self._clock.now()
        seen: list[tuple[float, float]] = []
        while reference_c is not None:
            temperature_c, now_s = self._rig.state().temperature_c, self._clock.now()
            if temperature_c is None or temperature_c <= reference_c + p.gate_warmer_c:
                return
            before = [old_c for old_s, old_c in seen if now_s - old_s >= 10.0]
            if before and abs(temperature_c - before[-1]) < p.gate_slope_c:
                return
            if now_s - began_s >= p.gate_limit_s:
                log.flags.append("hot")
                return
            seen.append((now_s, temperature_c))
            self._clock.sleep(1.0)

    def _read_idle(self, phase: str, log: _RowLog) -> tuple[WindowEnergy, ...]:
        """Power of the idle device, before and after the first row of a batch at a setting; one reading, or none."""
        source = self._rig.energy
        if source is None or not self._protocol.idle_s:
            return ()
        # The first averaging interval of a reading is not counted.
        trace = self._rig.idle(max(self._protocol.idle_s / 2, 3 * source.averaging_s))
        try:
            window = _idle_window(trace, source)
        except RecordError:
            if not log.idle:
                log.flags.append("no-idle")  # gross energies stand without it
            return ()
        if trace is not None:
            log.traces.append((phase, trace))
        return (window,)

    def _loop(self, programs: Programs, index: int, log: _RowLog) -> None:
        p, stage = self._protocol, log.stages[index]
        is_first = not any(other.loops for other in log.stages)
        warm_up_s = p.warm_up_s if is_first else p.stage_warm_up_s
        result = run_loop(
            self._rig, programs, index, stage.block_runs, p, warm_up_s=warm_up_s, before=stage.blocks
        )
        log.states += result.states
        stage.blocks += result.blocks
        stage.loops.append(result)
        if self._rig.energy is not None:
            if result.trace is not None:
                log.traces.append((f"{stage.stage.kind}@{stage.stage.position}", result.trace))
            window = loop_energy(result, self._rig.energy)
            stage.windows.append(window)
            if window.duration_s < _SHORT_WINDOW * p.energy_window_s(self._rig.energy.averaging_s):
                log.flags.append("short-window")

    # -- summing up ----------------------------------------------------------------------------------

    def _judge(self, job: Job, log: _RowLog) -> Verdict:
        loops = [(loop.states[0], loop.states[-1]) for stage in log.stages for loop in stage.loops]
        return judge_states(log.states, loops, job.request.setting, self._protocol)

    def _record(self, job: Job, row_no: int, log: _RowLog, seconds: float) -> CostRecord:
        costs, evidence = [], []
        for stage in log.stages:
            latency = latency_evidence(
                stage.blocks, stage.loops[-1].stopped_by, sum(loop.warm_up_s for loop in stage.loops),
                n_bootstrap=self._protocol.n_bootstrap,
            )  # fmt: skip
            energy: tuple[Statistic, EnergyEvidence] | None = None
            if self._rig.energy is not None:
                energy = energy_result(stage.windows, self._rig.energy, log.idle)
            costs.append(
                StageCost(
                    stage.stage.kind, stage.stage.position, latency_statistic(latency),
                    None if energy is None else energy[0],
                )
            )  # fmt: skip
            evidence.append(StageEvidence(latency, None if energy is None else energy[1]))
        if not all(loop.settled for stage in log.stages for loop in stage.loops):
            log.flags.append("unsettled")
        if self._program == "prefix" and not _is_monotone(costs):
            log.flags.append("not-monotone")
        verdict = self._judge(job, log)
        latency_ms, energy_mj = _totals(costs, self._program)
        return CostRecord(
            session=self._session, row_no=row_no, backbone=job.request.backbone, n_classes=self._n_classes,
            heads=job.request.exits.heads, requested=job.request.setting, actual=_actual(job, log),
            target=self._rig.target, truth=self._rig.truth, stages=tuple(costs), latency_ms=latency_ms,
            energy_mj=energy_mj, device_seconds=seconds, program=self._program, valid=not verdict.reason,
            reason=verdict.reason,
            evidence=self._evidence(job, log, tuple(evidence), verdict, self._keep_readings(row_no, log)),
        )  # fmt: skip

    def _evidence(
        self,
        job: Job,
        log: _RowLog,
        stages: tuple[StageEvidence, ...],
        verdict: Verdict,
        raw: tuple[str, str],
    ) -> Evidence:
        loading = () if log.loading_s is None else (("loading_s", log.loading_s),)
        return Evidence(
            engine=log.engine, protocol=self._protocol.protocol_id, started_utc=log.started_utc, stages=stages,
            decision_ms=None if log.decision_s is None else 1e3 * log.decision_s,
            clocks_verified=_clocks_verified(job, log, verdict), temperature_c=verdict.temperature_c,
            overcurrent_events=verdict.overcurrent_events, anchor=job.anchor, attempt=job.attempt,
            flags=tuple(dict.fromkeys((*log.flags, *verdict.flags))), machine=(*verdict.machine, *loading), raw_file=raw[0],
            raw_sha256=raw[1],
        )  # fmt: skip

    def _keep_readings(self, row_no: int, log: _RowLog) -> tuple[str, str]:
        source = self._rig.energy
        if self._raw_directory is None or source is None:
            return "", ""
        return write_power_readings(self._raw_directory, self._session, row_no, source.rails, log.traces)


def _idle_window(trace: PowerTrace | None, source: EnergySource) -> WindowEnergy:
    """Power of the idle device, without the first averaging interval, which still shows the load before.

    Raises:
        RecordError: the energy source is dead, or there is no reading.
    """
    found = trace or PowerTrace((), tuple(() for _ in source.rails))
    begins_s = found.time_s[0] + source.averaging_s if found.time_s else 0.0
    ends_s = max(found.time_s[-1] if found.time_s else 0.0, begins_s + source.update_s)
    return window_energy(found, source, begins_s, ends_s)


def _totals(costs: list[StageCost], program: Program) -> tuple[Statistic, Statistic | None]:
    """Latency and energy of the full pass, without the decisions, whose cost stands in the evidence.

    Stages add up; the last prefix program is the full pass.
    """
    counted = costs[-1:] if program == "prefix" else costs
    energies = [cost.energy_mj for cost in counted if cost.energy_mj is not None]
    energy = total_statistic(energies, independent=False) if len(energies) == len(counted) else None
    return total_statistic([cost.latency_ms for cost in counted], independent=False), energy


def _is_monotone(costs: list[StageCost]) -> bool:
    """Whether no later prefix is faster than an earlier one beyond their 95 % intervals."""
    for earlier, later in pairwise(costs):
        reach = half_width(earlier.latency_ms) + half_width(later.latency_ms)
        if later.latency_ms.value < earlier.latency_ms.value - reach:
            return False
    return True


def _actual(job: Job, log: _RowLog) -> Setting:
    """Clocks read back; those asked for where clocks are not controlled or were never read."""
    if log.reading is None or not job.request.setting.clocks_hz:
        return job.request.setting
    return log.reading.actual


def _clocks_verified(job: Job, log: _RowLog, verdict: Verdict) -> bool | None:
    if not job.request.setting.clocks_hz:
        return None
    return log.reading is not None and log.reading.verified and verdict.clocks_verified is not False
