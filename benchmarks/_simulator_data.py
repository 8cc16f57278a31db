"""Public measurements of Jetson boards as arrays: what ``simulator_fit.py`` checks the simulator against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

FILES = ("tx2_trt_gpu_emc_sweep.csv.gz", "jetson_dvfs_runs.csv.gz", "jetson_cnn_latency_power.csv.gz")
ARCHITECTURES = {"resnet": "resnet50", "vgg19": "vgg19"}
"""Networks of the TX2 sweep whose layers are known, by their name in the file."""


@dataclass(frozen=True)
class Sweep:
    """One network at every GPU and memory clock of a sweep: (n,) arrays.

    Attributes:
        power_w: module power; NaN where it was not measured cleanly.
    """

    network: str
    gpu_ghz: FloatArray
    emc_ghz: FloatArray
    latency_ms: FloatArray
    power_w: FloatArray

    def take(self, rows: NDArray[np.bool_]) -> Sweep:
        """Some of the points."""
        return Sweep(
            self.network, self.gpu_ghz[rows], self.emc_ghz[rows], self.latency_ms[rows], self.power_w[rows]
        )


@dataclass(frozen=True)
class Runs:
    """Runs of one workload over CPU, GPU and memory clocks: (n,) arrays."""

    name: str
    cpu_ghz: FloatArray
    gpu_ghz: FloatArray
    emc_ghz: FloatArray
    seconds: FloatArray


@dataclass(frozen=True)
class Zoo:
    """Convolutional networks on one board at maximum clocks: (n,) arrays.

    Attributes:
        gigabytes: weights once and activations twice, single precision.
    """

    board: str
    gflop: FloatArray
    gigabytes: FloatArray
    n_conv: FloatArray
    latency_ms: FloatArray


def missing(directory: Path) -> list[str]:
    """Files of the public sets that are not there."""
    return [name for name in FILES if not (directory / name).exists()]


def tx2_sweeps(directory: Path) -> list[Sweep]:
    """The four TensorRT networks; power of vgg19's 13 clean rows alone."""
    table = pd.read_csv(directory / FILES[0]).sort_values(["model", "emc_mhz", "gpu_mhz"])
    clean = table["power_source"] == "fixed_emc_sweep"
    table["power_w"] = table["vdd_in_mw"].where(clean) / 1e3
    return [
        Sweep(
            ARCHITECTURES.get(str(name), str(name)),
            rows["gpu_mhz"].to_numpy() / 1e3, rows["emc_mhz"].to_numpy() / 1e3,
            rows["latency_ms"].to_numpy(), rows["power_w"].to_numpy(),
        )
        for name, rows in table.groupby("model")
    ]  # fmt: skip


def dvfs_runs(directory: Path) -> list[Runs]:
    """InceptionV3 on a TX2 by image size and cores, and image recognition on a TX1 by cores."""
    table = pd.read_csv(directory / FILES[1])
    table = table[table["quality"] == "measured"] if "quality" in table else table
    return [
        Runs(
            f"{board} {px if px > 0 else ''} {cores} cores".replace("  ", " "),
            rows["cpu_mhz"].to_numpy() / 1e3, rows["gpu_mhz"].to_numpy() / 1e3,
            rows["emc_mhz"].to_numpy() / 1e3, rows["time_s"].to_numpy(),
        )
        for (board, px, cores), rows in table.assign(input_px=table["input_px"].fillna(0).astype(int)).groupby(
            ["board", "input_px", "n_cores"]
        )
    ]  # fmt: skip


def cnn_zoos(directory: Path) -> list[Zoo]:
    """The CNN zoo of each board."""
    table = pd.read_csv(directory / FILES[2])
    table = table[table["latency_ms"] > 0]
    weights = table["params_conv"] + table["params_bn"] + table["params_fc"]
    table["gigabytes"] = 4e-9 * (weights + 2 * table["sum_activations"])
    return [
        Zoo(
            str(board), rows["flops"].to_numpy() / 1e9, rows["gigabytes"].to_numpy(),
            rows["n_conv"].to_numpy(dtype=np.float64), rows["latency_ms"].to_numpy(),
        )
        for board, rows in table.groupby("board")
    ]  # fmt: skip
