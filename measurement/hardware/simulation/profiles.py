"""Parameters of the simulated devices: the four settings of the HADAS paper, value by value.

Every value carries its tag: *fit* (fitted to public raw device data), *source* (read off public
device logs or documents) or *guess*; :func:`parameter_table` lists them, and
``benchmarks/simulator_fit.py`` refits what public sweeps can check.  None of it was measured by this
project, so a simulated cost is a plausible cost, never a device's.

All four profiles model fp32 and one compiled engine per stage (TensorRT-like launch costs, 8 to
15 us per layer).  Eager PyTorch costs about 80 us per layer on a TX2: every network of both
spaces would then be bound by launches alone, and neither multiply-accumulates, memory traffic
nor clocks would matter to the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....errors import ConfigError
from .parameters import (
    Curve,
    HardwareProfile,
    Tag,
    Tagged,
    TagKind,
    curve,
    fit,
    guess,
    rail,
    rails,
    source,
    tagged_profile,
)


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

# One entry per step, so that a step measured to deviate can be changed alone.
_TX2_BANDWIDTH = source(
    _bandwidth(32, _TX2_EMC_MHZ), "128-bit LPDDR4, 32 bytes per cycle, 59.7 GB/s at the top"
)
_AGX_BANDWIDTH = source(
    _bandwidth(64, _AGX_EMC_MHZ), "256-bit LPDDR4x, 64 bytes per cycle, 137 GB/s at the top"
)

_PLATEAUS = "TensorRT vgg19, plateaus of the rails at each memory clock"
_TRAFFIC = (
    "TensorRT vgg19 against the memory controller's own counter, which shows about 6 bytes for every byte "
    "that the layers need: here it meets the bytes of layers, so for such a network it reads low"
)
_TX2_DDR = rail(
    "VDD_SYS_DDR",
    curve(
        guess(
            {40.8: 0.45, 68: 0.46, 102: 0.48, 204: 0.52, 408: 0.58, 665.6: 0.64, 800: 0.68},
            "falling on towards a floor of refresh and standby",
        ),
        fit({1062.4: 0.788, 1331.2: 0.718, 1600: 0.858, 1866: 1.326}, _PLATEAUS),
    ),
    fit(0.0795, _TRAFFIC),
)
_TX2_SOC = rail(
    "VDD_SYS_SOC",
    curve(
        guess(
            {40.8: 0.32, 68: 0.33, 102: 0.34, 204: 0.36, 408: 0.40, 665.6: 0.44, 800: 0.46},
            "falling on, as the memory rail's",
        ),
        fit({1062.4: 0.507, 1331.2: 0.563, 1600: 0.612, 1866: 1.007}, _PLATEAUS),
    ),
    fit(0.022, _TRAFFIC),
)

_YOLO = "YOLOv3 in several power modes"
_BELOW = "falling on below the steps that were logged"
_AGX_VDDRQ = rail(
    "VDDRQ",
    curve(
        guess({204: 0.55, 408: 0.65, 665.6: 0.80, 800: 0.88, 1065.6: 1.05}, _BELOW),
        source({1331.2: 1.40, 1600: 1.90}, _YOLO),
        guess({1866: 2.15}, "between its neighbours"),
        source({2133: 2.45}, _YOLO),
    ),
    guess(0.05, "two thirds of the TX2's, for LPDDR4x"),
)
_AGX_SOC = rail(
    "SOC",
    curve(
        guess({204: 0.95, 408: 1.05, 665.6: 1.20, 800: 1.30, 1065.6: 1.55}, _BELOW),
        source({1331.2: 2.10, 1600: 2.70}, _YOLO),
        guess({1866: 3.50}, "between its neighbours"),
        source({2133: 4.40}, _YOLO),
    ),
    guess(0.02, "as on the TX2"),
)
_AGX_SYS5V = rail(
    "SYS5V",
    curve(
        guess({204: 2.80, 408: 2.85, 665.6: 2.95, 800: 3.00, 1065.6: 3.20}, _BELOW),
        source({1331.2: 3.60, 1600: 4.00}, _YOLO),
        guess({1866: 4.30}, "between its neighbours"),
        source({2133: 4.60}, _YOLO),
    ),
)

_TX2_MODULE: Mapping[str, Tagged[Any]] = {
    "module_gain": fit(1.044, "TensorRT vgg19: VDD_IN over the sum of the rails"),
    "module_offset_w": fit(1.04, "TensorRT vgg19: VDD_IN less that"),
    "meter_total_only": source(True, "VDD_IN is a metered rail"),
    "meter_lsb_w": source(0.152, "40 uV over 5 mOhm at 19 V"),
}
_AGX_MODULE: Mapping[str, Tagged[Any]] = {
    "module_gain": source(1.0, "no total rail; the module total is the sum of the six"),
    "module_offset_w": source(0.0, "no total rail"),
    "meter_total_only": source(False, "no total rail"),
    "meter_lsb_w": guess(0.152, "the TX2's"),
}

_TX2_PASCAL = tagged_profile(
    name="tx2-pascal-gpu",
    board="jetson-tx2",
    processor="pascal-gpu",
    compute_clock="gpu",
    compute_rail="VDD_SYS_GPU",
    pinned=(("cpu_hz", "2035200000"),),
    supported_from_mhz={"emc": 1062.4},
    flop_per_cycle=source(512, "256 cores, one fused multiply-add each; 666 GFLOP/s at 1300.5 MHz"),
    efficiency_dense=fit(
        0.55, "between 0.38 (TensorRT resnet50) and 0.68 (vgg19); small layers are modelled apart here"
    ),
    efficiency_depthwise=guess(0.08, "no sweep of a depthwise network is public"),
    saturation_outputs=guess(32768, "2 multiprocessors x 2048 threads x 8 outputs each"),
    efficiency_memory=fit(0.19, "TensorRT resnet50 0.16, vgg19 0.19"),
    norm_exponent=fit(3.0, "2.7 to 3.9 over four TensorRT networks"),
    launch_ms=guess(0.008, "8 to 15 us for a compiled engine"),
    offset_ms=guess(0.3, "below the fitted 0.6 ms of tiny-yolov3, since launches are booked per layer here"),
    bandwidth_gb_s=_TX2_BANDWIDTH,
    # The split between FLOP and cycles decides how much clocks save.
    energy_pj_per_flop=fit(
        11.4,
        "TensorRT vgg19's GPU rail: 4.8 pJ per fp16 FLOP if cycles are told apart, 7.2 if not; 5.7 taken, fp32 "
        "guessed at twice that; the power column of a public CNN zoo (its rail is not stated) reads about half",
    ),
    active_w=fit(2.5, "TensorRT vgg19's GPU rail: 2.9 beside 4.8 pJ per fp16 FLOP"),
    static_w=fit(0.23, "TensorRT vgg19's GPU rail: 0.2 to 0.6 by what else is fitted"),
    voltage_squared=curve(
        fit(
            {
                114.75: 1.0, 216.75: 1.0, 318.75: 1.0, 420.75: 1.0, 522.75: 1.0, 624.75: 1.0, 726.75: 1.05,
                854.25: 1.19, 930.75: 1.27, 1032.75: 1.44, 1122: 1.65, 1236.75: 1.94, 1300.5: 2.11,
            },
            "TensorRT vgg19's GPU rail, flat below the knee",
        )
    ),
    rails=rails(
        rail("VDD_SYS_CPU", source(_constant(_TX2_EMC_MHZ, 1.2), "plateau while one core launches at 2.03 GHz")),
        _TX2_DDR,
        _TX2_SOC,
    ),
    **_TX2_MODULE,
)  # fmt: skip

_TX2_DENVER = tagged_profile(
    name="tx2-denver-cpu",
    board="jetson-tx2",
    processor="denver-cpu",
    compute_clock="cpu",
    compute_rail="VDD_SYS_CPU",
    pinned=(("gpu_hz", "114750000"),),
    supported_from_mhz={"emc": 1062.4},
    flop_per_cycle=guess(16, "2 cores x 4 lanes x fused multiply-add; 33 GFLOP/s at 2035.2 MHz"),
    efficiency_dense=guess(0.35, "no network on the Denver cores alone is public"),
    efficiency_depthwise=guess(0.10, "no network on the Denver cores alone is public"),
    saturation_outputs=guess(512, "two cores fill with little work"),
    efficiency_memory=guess(0.25, "no network on the Denver cores alone is public"),
    norm_exponent=guess(3.0, "as on the GPU"),
    launch_ms=guess(0.005, "dispatch of one operator in a compiled CPU runtime"),
    offset_ms=guess(0.1, "little to set up"),
    bandwidth_gb_s=_TX2_BANDWIDTH,
    energy_pj_per_flop=guess(0.0, "folded into active_w: cores draw much the same whatever they compute"),
    active_w=guess(3.0, "1.5 W per core at the top clock"),
    static_w=guess(0.2, "the rail's share of an idle board"),
    voltage_squared=guess(_linear_voltage(345.6, 2035.2, 153.6, 345.6, 1.6), "linear over the whole range"),
    rails=rails(
        rail("VDD_SYS_GPU", fit(_constant(_TX2_EMC_MHZ, 0.23), "static power of the GPU, idle here")),
        _TX2_DDR,
        _TX2_SOC,
    ),
    **_TX2_MODULE,
)

_AGX_VOLTA = tagged_profile(
    name="agx-volta-gpu",
    board="jetson-agx-xavier",
    processor="volta-gpu",
    compute_clock="gpu",
    compute_rail="GPU",
    pinned=(("cpu_hz", "2265600000"),),
    supported_from_mhz={"emc": 1331.2},
    flop_per_cycle=source(1024, "512 cores; 1410 GFLOP/s at 1377 MHz"),
    efficiency_dense=guess(0.45, "0.35 to 0.55"),
    efficiency_depthwise=guess(0.08, "as on the TX2"),
    saturation_outputs=guess(32768, "as on the TX2; more cores, hidden by more registers"),
    efficiency_memory=guess(0.30, "a CNN zoo bounds it at 85 GB/s"),
    norm_exponent=fit(2.5, "2 to 3 over training steps of three workloads"),
    launch_ms=guess(0.005, "5 to 10 us for a compiled engine"),
    offset_ms=guess(0.2, "below the TX2's"),
    bandwidth_gb_s=_AGX_BANDWIDTH,
    energy_pj_per_flop=guess(
        9.8,
        "two points of the GPU rail under YOLOv3 (5.1 W at 675 MHz, 18.5 W at 1377 MHz, of which this split gives "
        "16 W), if the network was YOLOv3-416",
    ),
    # Clocks save about 10 % here where public logs show 24 to 28 %: those also lowered the CPU's
    # clock, which this setting pins, and left the SOC rail out.
    active_w=guess(6.0, "the same two points"),
    static_w=guess(0.5, "about twice the TX2's"),
    voltage_squared=curve(
        fit(
            {
                114.75: 1.0, 216.75: 1.0, 318.75: 1.0, 420.75: 1.0, 522.75: 1.0, 624.75: 1.0, 675.75: 1.0,
                828.75: 1.03, 905.25: 1.09, 1032.75: 1.19, 1198.5: 1.37, 1236.75: 1.41, 1338.75: 1.60, 1377: 1.67,
            },
            "three training workloads, checked against a YOLOv3 log",
        )
    ),
    rails=rails(
        rail("CPU", source(_constant(_AGX_EMC_MHZ, 2.3), "YOLOv3 at full clocks")),
        _AGX_SOC,
        _AGX_VDDRQ,
        _AGX_SYS5V,
        rail("CV", guess(_constant(_AGX_EMC_MHZ, 0.1), "accelerators idle")),
    ),
    **_AGX_MODULE,
)  # fmt: skip

_AGX_CARMEL = tagged_profile(
    name="agx-carmel-cpu",
    board="jetson-agx-xavier",
    processor="carmel-cpu",
    compute_clock="cpu",
    compute_rail="CPU",
    pinned=(("gpu_hz", "114750000"),),
    supported_from_mhz={"cpu": 1190.4, "emc": 1331.2},
    flop_per_cycle=guess(64, "8 cores x 4 lanes x fused multiply-add; 145 GFLOP/s at 2265.6 MHz"),
    efficiency_dense=guess(0.35, "as on the Denver cores"),
    efficiency_depthwise=guess(0.10, "as on the Denver cores"),
    saturation_outputs=guess(2048, "eight cores need four times the work of two"),
    efficiency_memory=guess(0.25, "as on the Denver cores"),
    norm_exponent=guess(3.0, "as on the GPU of the TX2"),
    launch_ms=guess(0.006, "dispatch and the barrier of eight threads"),
    offset_ms=guess(0.1, "little to set up"),
    bandwidth_gb_s=_AGX_BANDWIDTH,
    energy_pj_per_flop=guess(0.0, "folded into active_w, as on the Denver cores"),
    active_w=fit(14.48, "two points, +-30 %: 1.81 W per busy core at the top clock"),
    static_w=fit(1.06, "base of the CPU rail, same two points"),
    voltage_squared=fit(
        _linear_voltage(115.2, 2265.6, 76.8, 1190.4, 1.2),
        "0.79 W per core at 1.19 GHz, the lower of two points; flat below it is a guess",
    ),
    rails=rails(
        rail("GPU", guess(_constant(_AGX_EMC_MHZ, 0.5), "idle GPU")),
        _AGX_SOC,
        _AGX_VDDRQ,
        _AGX_SYS5V,
        rail("CV", guess(_constant(_AGX_EMC_MHZ, 0.1), "accelerators idle")),
    ),
    **_AGX_MODULE,
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


@dataclass(frozen=True, slots=True)
class ParameterRow:
    """One tagged value for people.

    Attributes:
        parameter: field of :class:`HardwareProfile`, and which part of it.
        value: as text, in the unit that the field's name says.
        kind, note: its tag; a value that differs from the built-in profile's is a guess of whoever
            changed it.
    """

    parameter: str
    value: str
    kind: TagKind
    note: str


def parameter_table(profile: HardwareProfile) -> tuple[ParameterRow, ...]:
    """Every parameter of a profile with its tag, one row per tag."""
    built_in = PROFILES.get(profile.name)
    rows = []
    for parameter, tag in profile.tags:
        value = getattr(profile, parameter)
        if built_in is not None and value != getattr(built_in, parameter):
            tag = Tag("guess", "differs from the built-in profile", tag.part)
        rows.append(
            ParameterRow(f"{parameter} {tag.part}".strip(), _value_text(value, tag.part), tag.kind, tag.note)
        )
    return tuple(rows)


def _value_text(value: object, part: str) -> str:
    """A value, or the named part of it."""
    if not isinstance(value, tuple):
        return f"{value:g}" if isinstance(value, float) else str(value)
    steps = value
    if value and not isinstance(value[0], tuple):  # rails: the part begins with a rail's name
        name, _, part = part.partition(" ")
        member = next(item for item in value if item.name == name)
        if part.startswith("per GB/s"):
            return f"{member.w_per_gb_s:g}"
        steps, part = member.base_w, part.removeprefix("base").strip()
    if part:
        low, _, high = part.removesuffix(" MHz").partition(" to ")
        bounds = float(low) * 1e6 - 1, float(high or low) * 1e6 + 1
        steps = tuple(step for step in steps if bounds[0] <= step[0] <= bounds[1])
    values = [step[1] for step in steps]
    return f"{values[0]:g}" if len(set(values)) == 1 else f"{values[0]:g} .. {values[-1]:g}"
