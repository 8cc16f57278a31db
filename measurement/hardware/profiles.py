"""Parameters of the simulated devices: the four settings of the HADAS paper, value by value.

Each value carries its tag in a comment: *fit* (fitted to public raw device data), *data* (read
off public device logs or documents) or *guess*.  None of it was measured by this project, so a
simulated cost is a plausible cost, never a device's.

All four profiles model fp32 and one compiled engine per stage (TensorRT-like launch costs, 8 to
15 us per layer).  Eager PyTorch costs about 80 us per layer on a TX2: every network of both
spaces would then be bound by launches alone, and neither multiply-accumulates, memory traffic
nor clocks would matter to the search.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from ...errors import ConfigError

Curve = tuple[tuple[int, float], ...]
"""(frequency in Hz, value) pairs, ascending, one per step of a clock."""


@dataclass(frozen=True, slots=True)
class Rail:
    """One supply rail other than the compute unit's own.

    Attributes:
        name: label on the board.
        base_w: W without traffic, per memory clock step.
        w_per_gb_s: W per GB/s of memory traffic.
    """

    name: str
    base_w: Curve
    w_per_gb_s: float = 0.0


@dataclass(frozen=True)
class HardwareProfile:
    """Everything the simulator knows of one processor on one board.

    Attributes:
        name: key in :data:`PROFILES` and in :data:`hadas.spaces.CLOCK_TABLES`.
        board, processor: as in :class:`~hadas.datasets.records.Target`.
        compute_clock: the clock domain that the arithmetic runs on.
        flop_per_cycle: peak fp32 FLOP per cycle of all cores together.
        efficiency_dense, efficiency_depthwise: share of the peak that large layers reach.
        saturation_outputs: output elements at which a layer reaches half of that share; smaller
            layers leave cores idle.
        efficiency_memory: share of ``bandwidth_gb_s`` that layers reach.
        norm_exponent: q of the p-norm that joins arithmetic and memory time.
        launch_ms: shortest time of a layer, at the CPU's top clock.
        offset_ms: fixed time per inference, booked once, in the first segment.
        bandwidth_gb_s: peak memory bandwidth per memory clock step.
        compute_rail: label of the compute unit's rail.
        energy_pj_per_flop: dynamic energy at the lowest voltage.
        active_w: W while running, at the top clock, whatever runs; scales with f * V^2(f).
        static_w: W of the compute rail without any switching.
        voltage_squared: V^2(f) relative to the lowest voltage, per step of the compute clock.
        rails: the other rails.
        module_gain, module_offset_w: module total = gain * sum of rails + offset.
        meter_total_only: whether the board meters the module total as one rail (else all rails).
        meter_lsb_w: resolution of one metered rail, W.
        pinned: clocks that are held fixed, (name, value) pairs.
    """

    name: str
    board: str
    processor: str
    compute_clock: Literal["gpu", "cpu"]
    flop_per_cycle: float
    efficiency_dense: float
    efficiency_depthwise: float
    saturation_outputs: float
    efficiency_memory: float
    norm_exponent: float
    launch_ms: float
    offset_ms: float
    bandwidth_gb_s: Curve
    compute_rail: str
    energy_pj_per_flop: float
    active_w: float
    static_w: float
    voltage_squared: Curve
    rails: tuple[Rail, ...]
    module_gain: float
    module_offset_w: float
    meter_total_only: bool
    meter_lsb_w: float
    pinned: tuple[tuple[str, str], ...]

    @property
    def top_compute_hz(self) -> int:
        """Highest frequency of the compute clock."""
        return self.voltage_squared[-1][0]

    def parameter_hash(self) -> str:
        """12 hex digits over every parameter: costs of different parameter sets never mix."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def _mhz(values: Mapping[float, float]) -> Curve:
    return tuple((round(mhz * 1e6), value) for mhz, value in values.items())


def _bandwidth(bytes_per_cycle: int, emc_mhz: tuple[float, ...]) -> Curve:
    return tuple((round(mhz * 1e6), bytes_per_cycle * mhz / 1000) for mhz in emc_mhz)


def _constant(emc_mhz: tuple[float, ...], watts: float) -> Curve:
    return tuple((round(mhz * 1e6), watts) for mhz in emc_mhz)


def _linear_voltage(low_mhz: float, high_mhz: float, step_mhz: float, knee_mhz: float, top: float) -> Curve:
    """V^2 rising linearly from 1 at the knee to ``top`` at the highest frequency, 1 below the knee."""
    n_steps = round((high_mhz - low_mhz) / step_mhz)
    grid = [low_mhz + i * step_mhz for i in range(n_steps + 1)]
    slope = (top - 1.0) / (high_mhz - knee_mhz)
    return tuple((round(mhz * 1e6), 1.0 + slope * max(0.0, mhz - knee_mhz)) for mhz in grid)


_TX2_EMC_MHZ = (40.8, 68, 102, 204, 408, 665.6, 800, 1062.4, 1331.2, 1600, 1866)
_AGX_EMC_MHZ = (204, 408, 665.6, 800, 1065.6, 1331.2, 1600, 1866, 2133)

# data: 128-bit LPDDR4, 32 bytes per cycle, 59.7 GB/s at the top; one entry per step, so that a
# step measured to deviate can be changed alone.
_TX2_BANDWIDTH = _bandwidth(32, _TX2_EMC_MHZ)
# data: 256-bit LPDDR4x, 64 bytes per cycle, 137 GB/s at the top.
_AGX_BANDWIDTH = _bandwidth(64, _AGX_EMC_MHZ)

_TX2_DDR = Rail(
    "VDD_SYS_DDR",
    _mhz({
        # guess: falling on towards a floor of refresh and standby
        40.8: 0.45, 68: 0.46, 102: 0.48, 204: 0.52, 408: 0.58, 665.6: 0.64, 800: 0.68,
        1062.4: 0.788, 1331.2: 0.718, 1600: 0.858, 1866: 1.326,  # fit: vgg19 plateaus
    }),
    w_per_gb_s=0.0795,  # fit: vgg19 plateaus
)  # fmt: skip
_TX2_SOC = Rail(
    "VDD_SYS_SOC",
    _mhz({
        40.8: 0.32, 68: 0.33, 102: 0.34, 204: 0.36, 408: 0.40, 665.6: 0.44, 800: 0.46,  # guess
        1062.4: 0.507, 1331.2: 0.563, 1600: 0.612, 1866: 1.007,  # fit: vgg19 plateaus
    }),
    w_per_gb_s=0.022,  # fit: vgg19 plateaus
)  # fmt: skip

# Bases of the three AGX memory-side rails: data at 1331.2, 1600 and 2133 MHz (YOLOv3 in several
# power modes); guess at the other steps (between and below those).
_AGX_VDDRQ = Rail(
    "VDDRQ",
    _mhz({
        204: 0.55, 408: 0.65, 665.6: 0.80, 800: 0.88, 1065.6: 1.05, 1331.2: 1.40, 1600: 1.90, 1866: 2.15, 2133: 2.45,
    }),
    w_per_gb_s=0.05,  # guess: two thirds of the TX2's, for LPDDR4x
)  # fmt: skip
_AGX_SOC = Rail(
    "SOC",
    _mhz({
        204: 0.95, 408: 1.05, 665.6: 1.20, 800: 1.30, 1065.6: 1.55, 1331.2: 2.10, 1600: 2.70, 1866: 3.50, 2133: 4.40,
    }),
    w_per_gb_s=0.02,  # guess: as on the TX2
)  # fmt: skip
_AGX_SYS5V = Rail(
    "SYS5V",
    _mhz({
        204: 2.80, 408: 2.85, 665.6: 2.95, 800: 3.00, 1065.6: 3.20, 1331.2: 3.60, 1600: 4.00, 1866: 4.30, 2133: 4.60,
    }),
)  # fmt: skip

_TX2_PASCAL = HardwareProfile(
    name="tx2-pascal-gpu",
    board="jetson-tx2",
    processor="pascal-gpu",
    compute_clock="gpu",
    flop_per_cycle=512,  # data: 256 cores, one fused multiply-add each; 666 GFLOP/s at 1300.5 MHz
    efficiency_dense=0.55,  # fit 0.38 (resnet50) to 0.68 (vgg19); its small layers are modelled apart here
    efficiency_depthwise=0.08,  # guess
    saturation_outputs=32768,  # guess: 2 multiprocessors x 2048 threads x 8 outputs each
    efficiency_memory=0.19,  # fit: resnet50 0.186, vgg19 0.194
    norm_exponent=3.0,  # fit: 2.7 to 3.8 over four networks
    launch_ms=0.008,  # guess: 8 to 15 us for a compiled engine
    offset_ms=0.3,  # guess: below the fitted 0.6 ms of tiny-yolov3, since launches are booked per layer here
    bandwidth_gb_s=_TX2_BANDWIDTH,
    compute_rail="VDD_SYS_GPU",
    # The fit of vgg19's GPU rail (7.6 pJ per fp16 FLOP) cannot tell energy per FLOP from energy per
    # cycle: both follow V^2.  Guess: 2.5 W of it belongs to cycles, the rest (5.7 pJ) to FLOP,
    # twice that in fp32.  The split is chosen so that clocks save about what public TX2 logs show;
    # the power column of a public CNN zoo (its rail is not stated) reads about half.
    energy_pj_per_flop=11.4,
    active_w=2.5,
    static_w=0.23,  # fit
    voltage_squared=_mhz({
        114.75: 1.0, 216.75: 1.0, 318.75: 1.0, 420.75: 1.0, 522.75: 1.0, 624.75: 1.0, 726.75: 1.05, 854.25: 1.19,
        930.75: 1.27, 1032.75: 1.44, 1122: 1.65, 1236.75: 1.94, 1300.5: 2.11,
    }),  # fit: vgg19 GPU rail, flat below the knee
    rails=(
        Rail("VDD_SYS_CPU", _constant(_TX2_EMC_MHZ, 1.2)),  # data: plateau while one core launches at 2.03 GHz
        _TX2_DDR,
        _TX2_SOC,
    ),
    module_gain=1.044,  # fit
    module_offset_w=1.04,  # fit
    meter_total_only=True,  # data: VDD_IN is a metered rail
    meter_lsb_w=0.152,  # data: 40 uV over 5 mOhm at 19 V
    pinned=(("cpu_hz", "2035200000"),),
)  # fmt: skip

_TX2_DENVER = HardwareProfile(
    name="tx2-denver-cpu",
    board="jetson-tx2",
    processor="denver-cpu",
    compute_clock="cpu",
    flop_per_cycle=16,  # guess: 2 cores x 4 lanes x fused multiply-add; 33 GFLOP/s at 2035.2 MHz
    efficiency_dense=0.35,  # guess
    efficiency_depthwise=0.10,  # guess
    saturation_outputs=512,  # guess: two cores fill with little work
    efficiency_memory=0.25,  # guess
    norm_exponent=3.0,  # guess
    launch_ms=0.005,  # guess: dispatch of one operator in a compiled CPU runtime
    offset_ms=0.1,  # guess
    bandwidth_gb_s=_TX2_BANDWIDTH,
    compute_rail="VDD_SYS_CPU",
    energy_pj_per_flop=0.0,  # folded into active_w: cores draw much the same whatever they compute
    active_w=3.0,  # guess: 1.5 W per core at the top clock
    static_w=0.2,  # guess
    voltage_squared=_linear_voltage(345.6, 2035.2, 153.6, 345.6, 1.6),  # guess
    rails=(Rail("VDD_SYS_GPU", _constant(_TX2_EMC_MHZ, 0.23)), _TX2_DDR, _TX2_SOC),  # fit: idle GPU
    module_gain=1.044,  # fit
    module_offset_w=1.04,  # fit
    meter_total_only=True,
    meter_lsb_w=0.152,
    pinned=(("gpu_hz", "114750000"),),
)

_AGX_VOLTA = HardwareProfile(
    name="agx-volta-gpu",
    board="jetson-agx-xavier",
    processor="volta-gpu",
    compute_clock="gpu",
    flop_per_cycle=1024,  # data: 512 cores; 1410 GFLOP/s at 1377 MHz
    efficiency_dense=0.45,  # guess: 0.35 to 0.55
    efficiency_depthwise=0.08,  # guess
    saturation_outputs=32768,  # guess: as on the TX2; more cores, hidden by more registers
    efficiency_memory=0.30,  # guess: the CNN zoo bounds it at 85 GB/s
    norm_exponent=2.5,  # fit: 2 to 3 (training steps)
    launch_ms=0.005,  # guess: 5 to 10 us for a compiled engine
    offset_ms=0.2,  # guess
    bandwidth_gb_s=_AGX_BANDWIDTH,
    compute_rail="GPU",
    # Two-point fit of the GPU rail under YOLOv3 (5.1 W at 675 MHz, 18.5 W at 1377 MHz, of which this
    # split gives 16 W): rests on the network being YOLOv3-416, so a guess.
    # Clocks save about 10 % here where public logs show 24 to 28 %: those also lowered the CPU's
    # clock, which this setting pins, and left the SOC rail out.
    energy_pj_per_flop=9.8,
    active_w=6.0,
    static_w=0.5,  # guess
    voltage_squared=_mhz({
        114.75: 1.0, 216.75: 1.0, 318.75: 1.0, 420.75: 1.0, 522.75: 1.0, 624.75: 1.0, 675.75: 1.0, 828.75: 1.03,
        905.25: 1.09, 1032.75: 1.19, 1198.5: 1.37, 1236.75: 1.41, 1338.75: 1.60, 1377: 1.67,
    }),  # fit: three training workloads, checked against a YOLOv3 log
    rails=(
        Rail("CPU", _constant(_AGX_EMC_MHZ, 2.3)),  # data: YOLOv3 at full clocks
        _AGX_SOC,
        _AGX_VDDRQ,
        _AGX_SYS5V,
        Rail("CV", _constant(_AGX_EMC_MHZ, 0.1)),  # guess: accelerators idle
    ),
    module_gain=1.0,  # data: no total rail; the module total is the sum of the six
    module_offset_w=0.0,
    meter_total_only=False,
    meter_lsb_w=0.152,  # guess: the TX2's
    pinned=(("cpu_hz", "2265600000"),),
)  # fmt: skip

_AGX_CARMEL = HardwareProfile(
    name="agx-carmel-cpu",
    board="jetson-agx-xavier",
    processor="carmel-cpu",
    compute_clock="cpu",
    flop_per_cycle=64,  # guess: 8 cores x 4 lanes x fused multiply-add; 145 GFLOP/s at 2265.6 MHz
    efficiency_dense=0.35,  # guess
    efficiency_depthwise=0.10,  # guess
    saturation_outputs=2048,  # guess: eight cores need four times the work of two
    efficiency_memory=0.25,  # guess
    norm_exponent=3.0,  # guess
    launch_ms=0.006,  # guess: dispatch and the barrier of eight threads
    offset_ms=0.1,  # guess
    bandwidth_gb_s=_AGX_BANDWIDTH,
    compute_rail="CPU",
    energy_pj_per_flop=0.0,  # folded into active_w, as on the Denver
    active_w=14.48,  # fit (two points, +-30 %): 1.81 W per busy core at the top clock
    static_w=1.06,  # fit: base of the CPU rail
    voltage_squared=_linear_voltage(115.2, 2265.6, 76.8, 1190.4, 1.2),  # fit: 0.79 W per core at 1.19 GHz
    rails=(
        Rail("GPU", _constant(_AGX_EMC_MHZ, 0.5)),  # guess: idle GPU
        _AGX_SOC,
        _AGX_VDDRQ,
        _AGX_SYS5V,
        Rail("CV", _constant(_AGX_EMC_MHZ, 0.1)),  # guess
    ),
    module_gain=1.0,
    module_offset_w=0.0,
    meter_total_only=False,
    meter_lsb_w=0.152,
    pinned=(("gpu_hz", "114750000"),),
)

PROFILES: Mapping[str, HardwareProfile] = {
    profile.name: profile for profile in (_TX2_PASCAL, _TX2_DENVER, _AGX_VOLTA, _AGX_CARMEL)
}
"""The four settings of the HADAS paper."""


def hardware_profile(name: str) -> HardwareProfile:
    """A built-in profile.

    Raises:
        ConfigError: no profile of that name.
    """
    if name not in PROFILES:
        raise ConfigError(f"no simulated device '{name}'; known: {sorted(PROFILES)}")
    return PROFILES[name]
