"""A simulated device: a p-norm roofline per layer, rails, and a noisy measurement of both.

Model.  A layer of F FLOP, B bytes and n outputs takes
``t = max(launch, ((F (1 + n_half / n) / (eff_c peak(f)))^q + (B / (eff_m BW(emc)))^q)^(1/q))``;
layers add up, and a fixed offset is booked once, in the first segment.  Power is the sum of the
rails: dynamic energy per FLOP and clock tree (both with V^2(f)), static, processor, memory and
system; energy is power times latency, gross.  The p-norm joins arithmetic and memory time better
than a sum does: 0.3 to 0.6 % against 1.5 to 5 % mean error on a public TX2 clock sweep.

The measurement is not skipped: block times are drawn, power traces pass through the board's
averaging and quantizing sensor, and a record holds what a summary of those shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from ....datasets.evidence import Evidence
from ....datasets.records import CostRecord, StageCost, Statistic, Target, Truth
from ....errors import ConfigError, OffTableFrequencyError
from ....spaces import CLOCK_TABLES, BackboneSpace, ClockTable, Layer, Setting, Stage
from ..device import CostRequest, MeasurementPlan
from ..measuring.protocol import SIMULATED, block_statistic, check_plan, total_statistic
from .parameters import Curve, HardwareProfile
from .profiles import hardware_profile
from .sensors import SENSOR_AVERAGING_S, PowerSensor

FloatArray = NDArray[np.float64]

_MODEL_VERSION = 1  # of the equations: raise it with any change, so that old and new costs never mix
_BLOCK_SIGMA = 0.01  # lognormal scatter of a block's latency
_POWER_SIGMA = 0.03  # relative scatter of a rail between two sensor reads
_DRIFT = 0.003  # amplitude of the slow drift of latency and of power over the rows of a session
_DRIFT_PERIODS = (37.0, 101.0)  # rows; incommensurate, so that the drift does not repeat

EXTRAPOLATED = "extrapolated"
"""Flag of rows at clocks below every step that public data support (see the profile)."""


class SimulatedDevice:
    """One of the four settings of the HADAS paper, simulated (see the module).

    Args:
        profile: parameters.
        table: clocks on offer, a subset of the built-in table's.
        space: where backbones come from.
        n_classes: outputs of each classifier.
        noise: whether measurements scatter; without noise they equal :meth:`true_stage_cost`.
    """

    def __init__(
        self, profile: HardwareProfile, table: ClockTable, *, space: BackboneSpace, n_classes: int,
        noise: bool = True,
    ) -> None:  # fmt: skip
        _check_table(table, profile.name)
        self.profile = profile
        self.space = space
        self.n_classes = n_classes
        self.noise = noise
        self.protocol = SIMULATED
        self._table = table
        self._sensor = PowerSensor(profile.meter_lsb_w if noise else 0.0)

    @property
    def target(self) -> Target:
        """What the costs belong to; the release is the model version and the hash of the parameter set."""
        pinned = self.profile.pinned if self.noise else (*self.profile.pinned, ("noise", "off"))
        return Target(
            board=self.profile.board,
            processor=self.profile.processor,
            release=f"simulator-{_MODEL_VERSION}-{self.profile.parameter_hash()}",
            runtime="simulated engine per stage",
            pinned=tuple(sorted(pinned)),
        )

    @property
    def truth(self) -> Truth:
        """Always :attr:`Truth.SIMULATOR`."""
        return Truth.SIMULATOR

    @property
    def counts_energy(self) -> bool:
        """Always."""
        return True

    def clock_table(self) -> ClockTable:
        """The clocks on offer."""
        return self._table

    def extrapolated(self, setting: Setting) -> tuple[str, ...]:
        """Clock domains of a setting for which no data stand behind the model: they lie too low.

        Rows at such a setting carry the flag :data:`EXTRAPOLATED` in their evidence.
        """
        return self.profile.extrapolated(setting)

    def _evidence(self, setting: Setting) -> Evidence | None:
        """``None`` within the range that data support; else evidence that holds the flag alone."""
        if not self.extrapolated(setting):
            return None
        return Evidence(
            engine=self.target.runtime, protocol="simulated", started_utc="", stages=(), flags=(EXTRAPOLATED,)
        )

    def true_stage_cost(self, stage: Stage, setting: Setting) -> tuple[float, float]:
        """Noise-free cost of one stage: (latency_ms, energy_mj)."""
        self._table.check(setting)
        latency_ms, energy_mj = self.true_costs((stage,), (setting,))
        return float(latency_ms[0, 0]), float(energy_mj[0, 0])

    def true_costs(
        self, stages: Sequence[Stage], settings: Sequence[Setting]
    ) -> tuple[FloatArray, FloatArray]:
        """Noise-free costs of s stages at f settings.

        Returns:
            latency_ms (s, f) and energy_mj (s, f).
        """
        latency_ms, rails_w = _stage_model(self.profile, stages, settings)
        return latency_ms, self._module_power(rails_w) * latency_ms

    def _module_power(self, rails_w: FloatArray) -> FloatArray:
        total: FloatArray = self.profile.module_gain * rails_w.sum(axis=0) + self.profile.module_offset_w
        return total

    def measure(self, plan: MeasurementPlan) -> Iterator[CostRecord]:
        """Yield one record per request from ``plan.first_row`` on.

        All randomness is a function of (seed, session, row, request), so a resumed plan gives the
        rows that an uninterrupted one would have given.

        Raises:
            OffTableFrequencyError: before anything is measured, if any request is off the table.
            SpaceError: before anything is measured, if a network is not in the device's space.
        """
        check_plan(plan, self._table, self.space)
        return self._rows(plan)

    def _rows(self, plan: MeasurementPlan) -> Iterator[CostRecord]:
        for row_no in range(plan.first_row, len(plan.requests)):
            yield self._measure_row(plan, row_no, plan.requests[row_no])

    def _measure_row(self, plan: MeasurementPlan, row_no: int, request: CostRequest) -> CostRecord:
        workload = self.space.workload(request.backbone, n_classes=self.n_classes)
        stages = workload.stages(request.exits.positions)
        latency_ms, rails_w = _stage_model(self.profile, stages, (request.setting,))
        rng = np.random.default_rng(_row_entropy(plan, row_no, request))
        latency_drift, power_drift = _drift(plan, row_no) if self.noise else (1.0, 1.0)
        latency = self._time_blocks(latency_ms[:, 0] * latency_drift, rng)
        energy = self._integrate(rails_w[:, :, 0] * power_drift, latency, rng)
        costs = tuple(
            StageCost(stage.kind, stage.position, block_statistic(blocks), energy_mj)
            for stage, blocks, energy_mj in zip(stages, latency, energy, strict=True)
        )
        return CostRecord(
            session=plan.session, row_no=row_no, backbone=request.backbone, n_classes=self.n_classes,
            heads=request.exits.heads, requested=request.setting, actual=request.setting, target=self.target,
            truth=self.truth, stages=costs, latency_ms=total_statistic([cost.latency_ms for cost in costs], independent=True),
            energy_mj=total_statistic(energy, independent=True),
            device_seconds=self.protocol.expected_seconds(len(stages), True),
            evidence=self._evidence(request.setting),
        ).check("simulated measurement")  # fmt: skip

    def _time_blocks(self, latency_ms: FloatArray, rng: np.random.Generator) -> FloatArray:
        """(s, n_blocks) block latencies of stages that truly take (s,) ms."""
        scatter = rng.standard_normal((len(latency_ms), self.protocol.typical_blocks)) * _BLOCK_SIGMA
        return latency_ms[:, None] * np.exp(scatter if self.noise else 0.0 * scatter)

    def _integrate(
        self, rails_w: FloatArray, block_ms: FloatArray, rng: np.random.Generator
    ) -> list[Statistic]:
        """Energy per inference of each stage: mean power over the window times the latency in it.

        Args:
            rails_w: (rails, s) true power.
            block_ms: (s, n_blocks) latencies seen in the window.
        """
        metered = self._module_power(rails_w)[:, None] if self.profile.meter_total_only else rails_w.T
        n_reads = self._sensor.n_reads(self.protocol.energy_window_s(SENSOR_AVERAGING_S))
        scatter = rng.standard_normal((*metered.shape, n_reads)) * (_POWER_SIGMA if self.noise else 0.0)
        # The stage starts from a device that idled at roughly half the power.
        readings = self._sensor.read(metered[..., None] * (1.0 + scatter), metered / 2)
        power_w, error_w, n_intervals = self._sensor.mean_power(readings)
        mean_ms = block_ms.mean(axis=1)
        error_ms = block_ms.std(axis=1, ddof=1) / np.sqrt(block_ms.shape[1])
        errors = np.hypot(error_w * mean_ms, power_w * error_ms)
        return [
            Statistic(float(value), float(error), n_intervals)
            for value, error in zip(power_w * mean_ms, errors, strict=True)
        ]


def simulated_device(
    name: str, *, space: BackboneSpace, n_classes: int, noise: bool = True, table: ClockTable | None = None
) -> SimulatedDevice:
    """A simulated device by the name of its setting (a key of :data:`hadas.spaces.CLOCK_TABLES`).

    Args:
        table: clocks on offer if not all of the built-in table's.

    Raises:
        ConfigError: an unknown name, or a table with other clock domains.
        OffTableFrequencyError: a frequency that the device does not have.
    """
    profile = hardware_profile(name)
    return SimulatedDevice(
        profile, CLOCK_TABLES[name] if table is None else table, space=space, n_classes=n_classes, noise=noise
    )


def _check_table(table: ClockTable, name: str) -> None:
    known = {domain.name: domain.frequencies_hz for domain in CLOCK_TABLES[name].domains}
    offered = [domain.name for domain in table.domains]
    if offered != list(known):
        raise ConfigError(f"clock table '{table.name}' has domains {offered}; '{name}' has {list(known)}")
    for domain in table.domains:
        for hz in domain.frequencies_hz:
            if hz not in known[domain.name]:
                raise OffTableFrequencyError(domain.name, hz, known[domain.name])


def _stage_model(
    profile: HardwareProfile, stages: Sequence[Stage], settings: Sequence[Setting]
) -> tuple[FloatArray, FloatArray]:
    """Noise-free latency and power of s stages at f settings.

    Returns:
        latency_ms (s, f), and W of each rail (1 + other rails, s, f), the compute unit's first.
    """
    layers = [stage.layers for stage in stages]
    starts = list(accumulate((len(group) for group in layers[:-1]), initial=0))
    work = _layer_work([layer for group in layers for layer in group])
    latency_ms = np.add.reduceat(_layer_latency(profile, work, settings), starts, axis=0)
    is_first = np.array([stage.units[0].stage == 0 for stage in stages])
    latency_ms += np.where(is_first, profile.offset_ms, 0.0)[:, None]
    flops, bytes_moved = np.add.reduceat(work[:2], starts, axis=1)[:, :, None]
    return latency_ms, _rail_power(profile, flops, bytes_moved, latency_ms, settings)


def _layer_work(layers: Sequence[Layer]) -> FloatArray:
    """(4, layers): FLOP, bytes moved, output elements, whether depthwise."""
    rows = [
        (2.0 * layer.macs, layer.bytes_moved, float(np.prod(layer.out_shape)), layer.kind == "depthwise")
        for layer in layers
    ]
    return np.array(rows, dtype=np.float64).T


def _layer_latency(profile: HardwareProfile, work: FloatArray, settings: Sequence[Setting]) -> FloatArray:
    """(layers, f) ms."""
    flops, bytes_moved, outputs, depthwise = work[:, :, None]
    compute_hz = _compute_hz(profile, settings)
    efficiency = np.where(depthwise, profile.efficiency_depthwise, profile.efficiency_dense)
    # The FLOP that fully busy cores would do in the same time.
    effective = flops * (1.0 + profile.saturation_outputs / outputs) / efficiency
    bandwidth = _at(profile.bandwidth_gb_s, [s.hz("emc") for s in settings]) * 1e9 * profile.efficiency_memory
    q = profile.norm_exponent
    arithmetic_s = effective / (profile.flop_per_cycle * compute_hz)
    roofline_ms = 1e3 * (arithmetic_s**q + (bytes_moved / bandwidth) ** q) ** (1.0 / q)
    # Layers are launched by the CPU; on a GPU setting its clock is pinned at the top.
    slower = profile.top_compute_hz / compute_hz if profile.compute_clock == "cpu" else 1.0
    latency_ms: FloatArray = np.maximum(roofline_ms, profile.launch_ms * slower)
    return latency_ms


def _rail_power(
    profile: HardwareProfile, flops: FloatArray, bytes_moved: FloatArray, latency_ms: FloatArray,
    settings: Sequence[Setting],
) -> FloatArray:  # fmt: skip
    """(rails, s, f) W from FLOP (s, 1) and bytes (s, 1) done in (s, f) ms."""
    compute_hz = _compute_hz(profile, settings)
    emc_hz = [setting.hz("emc") for setting in settings]
    v_squared = _at(profile.voltage_squared, [int(hz) for hz in compute_hz])
    top_hz, top_v_squared = profile.voltage_squared[-1]
    dynamic_w = flops * profile.energy_pj_per_flop * 1e-9 * v_squared / latency_ms
    active_w = profile.active_w * (compute_hz * v_squared) / (top_hz * top_v_squared)
    traffic_gb_s = bytes_moved / latency_ms / 1e6
    rails = [dynamic_w + active_w + profile.static_w]
    rails += [_at(rail.base_w, emc_hz) + rail.w_per_gb_s * traffic_gb_s for rail in profile.rails]
    return np.stack(rails)


def _compute_hz(profile: HardwareProfile, settings: Sequence[Setting]) -> FloatArray:
    return np.array([setting.hz(profile.compute_clock) for setting in settings], dtype=np.float64)


def _at(curve: Curve, frequencies_hz: Sequence[int]) -> FloatArray:
    values = dict(curve)
    return np.array([values[hz] for hz in frequencies_hz])


def _row_entropy(plan: MeasurementPlan, row_no: int, request: CostRequest) -> int:
    text = repr((plan.seed, plan.session, row_no, request))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def _drift(plan: MeasurementPlan, row_no: int) -> tuple[float, float]:
    """Slow factors on latency and on power at a row of a session, a few parts per thousand."""
    digest = hashlib.sha256(repr((plan.seed, plan.session)).encode()).digest()
    phases = np.frombuffer(digest[:16], dtype=">u4").astype(np.float64).reshape(2, 2) / 2**32
    waves = np.sin(2 * np.pi * (row_no / np.array(_DRIFT_PERIODS) + phases)).mean(axis=1)
    return 1.0 + _DRIFT * float(waves[0]), 1.0 + _DRIFT * float(waves[1])
