"""A rig made of arithmetic: a virtual clock, a true power trace, an averaging sensor, faults on demand.

Nothing sleeps.  What the protocol should find is known exactly: latencies and powers are given, and the sensor
is a moving average of the true power, read at intervals and rounded.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import numpy as np

from hadas.datasets.records import Program, Target, Truth
from hadas.errors import ConnectionLostError, DeviceError
from hadas.measurement.hardware.device import CostRequest
from hadas.measurement.hardware.measuring.row import Clock
from hadas.measurement.hardware.rig import (
    Block,
    ClockReading,
    DeviceState,
    EnergySource,
    LoadedStage,
    PowerTrace,
)
from hadas.spaces import ClockDomain, ClockTable, Exits, MBConvSpace, Setting, mini_space

TABLE = ClockTable(
    "virtual",
    (
        ClockDomain("gpu", (100_000_000, 200_000_000, 400_000_000)),
        ClockDomain("emc", (500_000_000, 800_000_000)),
    ),
)
JETSON_SENSOR = EnergySource("ina3221", ("GPU", "SYS", "DDR"), ("GPU", "SYS"), 0.4224, 0.0528)
COUNTER = EnergySource("counter", ("package",), ("package",), 0.0, 0.1)


@dataclass
class Faults:
    """What goes wrong, and when; times on the virtual clock, rows counted by loads."""

    slower: Callable[[float], float] = lambda now: 1.0
    temperature_c: Callable[[float], float | None] = lambda now: 50.0
    throttle_at_s: tuple[float, ...] = ()
    steal_share: float = 0.0
    pressure_percent: float = 0.0
    cpu_share: float = 0.97
    unverified: tuple[Setting, ...] = ()
    dead_sensor_from_s: float = np.inf
    fail_on_load: Callable[[int], Exception | None] = lambda row: None
    fail_in_loop: Callable[[int], Exception | None] = lambda row: None
    not_monotone: bool = False
    ends_after_blocks: int | None = None
    pauses: tuple[float, float] | None = None
    """Seconds that a program runs at a time, and of the pause at idle power until it runs again."""


class VirtualRig:
    """See the module.

    Args:
        noise: relative scatter of a block's latency.
        stage_ms: true latency of stage i at the highest GPU clock; slower clocks take proportionally longer.
        stage_w: true power per rail while it runs.
    """

    def __init__(
        self,
        *,
        energy: EnergySource | None = JETSON_SENSOR,
        table: ClockTable = TABLE,
        space: MBConvSpace | None = None,
        noise: float = 0.002,
        lsb_w: float = 0.0,
        stage_ms: Callable[[int], float] = lambda i: 4.0 + 3.0 * i,
        stage_w: Callable[[int], tuple[float, ...]] = lambda i: (3.0 + i, 2.0, 0.7),
        idle_w: tuple[float, ...] = (0.4, 1.1, 0.2),
        faults: Faults | None = None,
        seed: int = 0,
    ) -> None:
        self.now = 1000.0
        self._energy = energy
        self._table = table
        self.space = mini_space() if space is None else space
        self.noise, self.lsb_w = noise, lsb_w
        self.stage_ms, self.stage_w, self.idle_w = stage_ms, stage_w, idle_w
        self.faults = Faults() if faults is None else faults
        self.setting = table.default
        self.n_loads = 0
        self.closed = 0
        self.log: list[str] = []
        self._rng = np.random.default_rng(seed)
        self._times = [0.0, self.now]
        rails = len(energy.rails) if energy is not None else 0
        self._joules = [np.zeros(rails), self.now * np.array(idle_w[:rails])]

    # -- time and power ----------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """Virtual time: sleeping costs nothing but passes it."""
        return Clock(lambda: self.now, lambda s: self.advance(s), lambda: "2026-01-01T00:00:00+00:00")

    def advance(self, seconds: float, power_w: tuple[float, ...] | None = None) -> None:
        """Let time pass at some power."""
        if seconds <= 0:
            return
        rails = len(self._joules[0])
        self.now += seconds
        self._times.append(self.now)
        power = np.array((self.idle_w if power_w is None else power_w)[:rails])
        self._joules.append(self._joules[-1] + seconds * power)

    def true_energy_j(self, start_s: float, end_s: float) -> np.ndarray:
        """(rails,) of what was really drawn."""
        return self._drawn(np.array([end_s]))[:, 0] - self._drawn(np.array([start_s]))[:, 0]

    def _drawn(self, at: np.ndarray) -> np.ndarray:
        first = max(0, bisect_right(self._times, float(at.min())) - 1)
        last = bisect_left(self._times, float(at.max())) + 1
        joules = np.array(self._joules[first:last]).T
        return np.array([np.interp(at, self._times[first:last], rail) for rail in joules])

    def _trace(self, start_s: float) -> PowerTrace | None:
        source = self._energy
        if source is None:
            return None
        n = int((self.now - start_s) / source.update_s)
        times = start_s + source.update_s * np.arange(n + 1)
        before = source.averaging_s or source.update_s
        shown = (self._drawn(times) - self._drawn(times - before)) / before
        if self.lsb_w:
            shown = np.round(shown / self.lsb_w) * self.lsb_w
        shown = np.where(times >= self.faults.dead_sensor_from_s, 0.0, shown)
        return PowerTrace(tuple(times.tolist()), tuple(tuple(rail.tolist()) for rail in shown))

    # -- Rig ----------------------------------------------------------------------------------------

    @property
    def target(self) -> Target:
        return Target("virtual", "arithmetic", "1", "none")

    @property
    def truth(self) -> Truth:
        return Truth.DEVICE

    @property
    def energy(self) -> EnergySource | None:
        return self._energy

    def clock_table(self) -> ClockTable:
        return self._table

    def set_clocks(self, setting: Setting) -> ClockReading:
        self._table.check(setting)
        self.log.append(f"set {setting}")
        if setting in self.faults.unverified:
            lower = tuple((name, hz // 2) for name, hz in setting.clocks_hz)
            return ClockReading(setting, Setting(lower), ("clamped",))
        self.setting = setting
        return ClockReading(setting, setting)

    @contextmanager
    def load(self, request: CostRequest, program: Program) -> Iterator[VirtualPrograms]:
        row = self.n_loads
        self.n_loads += 1
        self.advance(1.0)
        error = self.faults.fail_on_load(row)
        if error is not None:
            raise error
        self.log.append(f"load {request.backbone.arch_id} {request.exits}")
        yield VirtualPrograms(self, request, program, self.faults.fail_in_loop(row))

    def idle(self, seconds: float) -> PowerTrace | None:
        start_s = self.now
        self.log.append("idle")
        self.advance(seconds)
        return self._trace(start_s)

    def state(self) -> DeviceState:
        self.advance(0.001)
        faults, now = self.faults, self.now
        events = sum(now >= at for at in faults.throttle_at_s)
        machine = (
            ("wall_s", now), ("process_cpu_s", faults.cpu_share * now), ("cpu_total_s", 2 * now),
            ("cpu_steal_s", 2 * now * faults.steal_share), ("cpu_pressure_percent", faults.pressure_percent),
            ("load_1min", 0.5),
        )  # fmt: skip
        return DeviceState(faults.temperature_c(now), events, self.setting, machine)

    def close(self) -> None:
        self.closed += 1


class VirtualPrograms:
    """Stages, or prefixes that take as long as the stages up to them together."""

    def __init__(
        self, rig: VirtualRig, request: CostRequest, program: Program, error: Exception | None
    ) -> None:
        self._rig, self._request, self._error = rig, request, error
        workload = rig.space.workload(request.backbone, n_classes=10)
        parts = workload.stages(request.exits.positions)
        each_ms = [rig.stage_ms(i) for i in range(len(parts))]
        if program == "stages":
            self.stages = tuple(LoadedStage(stage.kind, stage.position) for stage in parts)
            self._ms, self._w = each_ms, [rig.stage_w(i) for i in range(len(parts))]
        else:
            ends = [i for i, stage in enumerate(parts) if stage.kind == "head"] + [len(parts) - 1]
            self.stages = tuple(LoadedStage("prefix", parts[i].position) for i in ends)
            self._ms = [sum(each_ms[: i + 1]) for i in ends]
            if rig.faults.not_monotone:
                self._ms[-1] = self._ms[0] / 2
            self._w = [rig.stage_w(i) for i in ends]

    @property
    def engine(self) -> str:
        return "arithmetic 1"

    @contextmanager
    def loop(self, index: int, runs_per_block: int, expected_s: float) -> Iterator[VirtualLoop]:
        self._rig.log.append(f"loop {index}")
        yield VirtualLoop(self._rig, self._ms[index], self._w[index], runs_per_block, self._error)

    def decision_s(self) -> float | None:
        return 25e-6 if self._request.exits.positions else None


class VirtualLoop:
    def __init__(
        self, rig: VirtualRig, ms: float, power_w: tuple[float, ...], n_runs: int, error: Exception | None
    ) -> None:
        self._rig, self._ms, self._power_w, self._n_runs, self._error = rig, ms, power_w, n_runs, error
        self._start_s = rig.now

    def __iter__(self) -> Iterator[Block]:
        rig, top_hz = self._rig, None
        if rig.setting.clocks_hz:
            domain = rig.clock_table().domains[0]
            top_hz = domain.frequencies_hz[-1] / rig.setting.hz(domain.name)
        blocks = count() if rig.faults.ends_after_blocks is None else range(rig.faults.ends_after_blocks)
        began_s = rig.now
        for _ in blocks:
            if rig.faults.pauses is not None and rig.now - began_s >= rig.faults.pauses[0]:
                rig.advance(rig.faults.pauses[1])
                began_s = rig.now
            run_s = self._ms / 1e3 * (top_hz or 1.0) * rig.faults.slower(rig.now)
            block_factor = np.exp(rig.noise * rig._rng.standard_normal())
            runs = run_s * block_factor * np.exp(rig.noise * rig._rng.standard_normal(self._n_runs))
            start_s = rig.now
            rig.advance(float(runs.sum()), self._power_w)
            if self._error is not None:
                raise self._error
            yield Block(start_s, rig.now, tuple(runs.tolist()))

    def trace(self) -> PowerTrace | None:
        return self._rig._trace(self._start_s)


def a_request(preset: str = "m0", setting_no: int = -1, positions: tuple[int, ...] = (5, 8)) -> CostRequest:
    """A network of the mini space at a setting of :data:`TABLE`."""
    space = mini_space()
    backbone = space.presets[preset]
    exits = Exits.at(positions, first_exit=space.first_exit, n_blocks=backbone.n_blocks)
    return CostRequest(backbone, exits, TABLE.settings[setting_no])


LOST = ConnectionLostError("the link to 'virtual' broke")
BROKEN = DeviceError("the engine does not load the program")
