"""What the benchmarks of this machine's CPU and GPU share: networks with exits, rigs, one row at a time."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hadas.datasets.records import CostRecord, Program
from hadas.measurement.hardware.cuda import CudaRig
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.host_cpu import HostCpuRig
from hadas.measurement.hardware.protocol import MeasuringProtocol
from hadas.measurement.hardware.runner import MeasuredDevice
from hadas.measurement.hardware.torch_rig import Engine
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


def cumulative_ms(row: CostRecord) -> tuple[tuple[int, float], ...]:
    """(position, latency from the image to that exit's decision or to the end) of a valid row.

    Of stages: all segments and heads up to there.
    """
    if row.program == "prefix":
        return tuple((stage.position, stage.latency_ms.value) for stage in row.stages)
    found, total = [], 0.0
    for stage in row.stages:
        total += stage.latency_ms.value
        if stage.kind == "head" or stage is row.stages[-1]:
            found.append((stage.position, total))
    return tuple(found)


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
