"""What the benchmarks of this machine's CPU and GPU share: networks with exits, rigs, one row at a time."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hadas.datasets.records import CostRecord, Program
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.local.cuda import CudaRig
from hadas.measurement.hardware.local.host_cpu import HostCpuRig
from hadas.measurement.hardware.local.torch_rig import Engine
from hadas.measurement.hardware.measuring.protocol import MeasuringProtocol
from hadas.measurement.hardware.measuring.runner import MeasuredDevice
from hadas.spaces import PINNED, Exits, MBConvSpace

N_CLASSES = 100
SEED = 0


def with_exits(space: MBConvSpace, name: str, n_exits: int) -> CostRequest:
    """A preset with exits spread evenly from the first position on."""
    backbone = space.presets[name]
    ends = np.linspace(space.first_exit, backbone.n_blocks, n_exits + 1).astype(int)
    exits = Exits.at(ends[:-1].tolist(), first_exit=space.first_exit, n_blocks=backbone.n_blocks)
    return CostRequest(backbone, exits, PINNED.default)


def open_rig(device: str, space: MBConvSpace, engine: Engine, *, count_energy: bool) -> HostCpuRig | CudaRig:
    """``host`` = one thread of this machine's CPU, ``cuda`` = its first GPU, no setting of it changed."""
    if device == "cuda":
        return CudaRig(space, N_CLASSES, engine=engine, count_energy=count_energy)
    return HostCpuRig(space, N_CLASSES, engine=engine, count_energy=count_energy)


def measure_one(
    rig: HostCpuRig | CudaRig,
    protocol: MeasuringProtocol,
    request: CostRequest,
    program: Program,
    session: str,
) -> CostRecord:
    """One row; if it is not to be believed, the one that the protocol measured in its stead."""
    device = MeasuredDevice(rig, protocol, space=rig.space, n_classes=N_CLASSES, program=program)
    *_, row = device.measure(MeasurementPlan(session, (request,), seed=SEED))
    return row


def cumulative_ms(row: CostRecord, stage_ms: Sequence[float] | None = None) -> dict[int, float]:
    """By position: latency from the image to that exit's scores, or to the end, of a row that has latencies.

    Of stages: all segments and heads up to there.

    Args:
        stage_ms: latency of every stage; their medians, unless given.
    """
    values = [stage.latency_ms.value for stage in row.stages] if stage_ms is None else stage_ms
    found, total = {}, 0.0
    for stage, value in zip(row.stages, values, strict=True):
        total = value if row.program == "prefix" else total + value
        if stage.kind != "segment" or stage is row.stages[-1]:
            found[stage.position] = total
    return found


def fast_stage_ms(row: CostRecord) -> list[float]:
    """The 5 % quantile of every stage's blocks: latency while nothing else held the core.

    Other work makes a block longer, never shorter, and a long program meets it more often than a short one, so
    that on a busy machine medians of stages do not add up to the median of the whole.
    """
    assert row.evidence is not None
    return [float(np.quantile(stage.latency.block_ms, 0.05)) for stage in row.evidence.stages]


def machine_of(device: str) -> str:
    """What the figures are of."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if cpuinfo.exists()
        else []
    )
    model = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{model}, 1 thread"


def versions(rig: HostCpuRig | CudaRig) -> dict[str, Any]:
    """Of what ran the programs."""
    return {
        "python": platform.python_version(), "torch": str(torch.__version__), "cuda": torch.version.cuda,
        "release": rig.target.release, "runtime": rig.target.runtime,
    }  # fmt: skip
