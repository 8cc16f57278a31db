"""Trees that look like a board's files: all eight of the recorded facts, and a TX2 of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures" / "jetson"

MHZ = 1_000_000
TX2_GPU_HZ = tuple(
    round(mhz * MHZ)
    for mhz in (114.75, 216.75, 318.75, 420.75, 522.75, 624.75, 726.75, 854.25, 930.75, 1032.75, 1122, 1236.75, 1300.5)
)  # fmt: skip
TX2_CPU_KHZ = tuple(range(345_600, 2_035_201, 153_600))
TX2_EMC_KHZ = (
    40_800,
    68_000,
    102_000,
    204_000,
    408_000,
    665_600,
    800_000,
    1_062_400,
    1_331_200,
    1_600_000,
    1_866_000,
)
TX2_EMC_HZ = tuple(1000 * khz for khz in TX2_EMC_KHZ)
TX2_CPU_HZ = tuple(1000 * khz for khz in TX2_CPU_KHZ)
TX2_CLUSTERS = {"cpu0": (0, 3, 4, 5), "cpu1": (1, 2)}
EMC = "sys/kernel/debug/bpmp/debug/clk/emc"
EMC_CAP = "sys/kernel/nvpmodel_emc_cap/emc_iso_cap"
GPU = "sys/devices/17000000.gp10b/devfreq/17000000.gp10b"


def recorded_trees(folder: Path) -> dict[str, Path]:
    """Build all trees of the facts; skips the test where those are absent."""
    script = FIXTURES / "build_sysfs_trees.py"
    if not script.exists():
        pytest.skip(f"no recorded facts at {script}")
    shutil.copy(script, folder)  # it writes beside itself
    subprocess.run([sys.executable, script.name, "trees"], cwd=folder, check=True)
    return {path.name: path for path in sorted((folder / "trees").iterdir())}


def copy_tree(tree: Path, folder: Path) -> Path:
    """A copy of a tree to write on."""
    target = folder / tree.name
    shutil.copytree(tree, target, symlinks=True)
    return target


def build_tx2(root: Path, emc_cap_hz: int = 0, bus: str = "l4t") -> Path:
    """A TX2 with Denver on, small but with everything that is steered or sensed."""
    for core in range(6):
        name, cores = next((name, cores) for name, cores in TX2_CLUSTERS.items() if core in cores)
        folder = f"sys/devices/system/cpu/cpu{core}"
        _files(root, folder, {"online": 1})
        _files(root, f"{folder}/cpufreq", {
            "scaling_available_frequencies": _line(TX2_CPU_KHZ),
            "scaling_available_governors": "userspace performance schedutil",
            "scaling_governor": "schedutil",
            "scaling_min_freq": TX2_CPU_KHZ[0],
            "scaling_max_freq": TX2_CPU_KHZ[-1],
            "scaling_cur_freq": TX2_CPU_KHZ[2],
            "cpuinfo_cur_freq": TX2_CPU_KHZ[2],
            "related_cpus": _line(TX2_CLUSTERS[name]),
            "affected_cpus": _line(cores),
        })  # fmt: skip
    _files(root, "sys/devices/system/cpu", {"present": "0-5"})
    _files(root, GPU, {
        "available_frequencies": _line(TX2_GPU_HZ),
        "available_governors": "nvhost_podgov userspace performance",
        "governor": "nvhost_podgov",
        "min_freq": TX2_GPU_HZ[0],
        "max_freq": TX2_GPU_HZ[-1],
        "cur_freq": TX2_GPU_HZ[0],
        "target_freq": TX2_GPU_HZ[0],
    })  # fmt: skip
    device = "sys/devices/17000000.gp10b"
    _files(
        root,
        device,
        {"railgate_enable": 1, "of_node/name": "gp10b\0", "of_node/compatible": "nvidia,gp10b\0"},
    )
    _link(root, "sys/class/devfreq/17000000.gp10b", GPU)
    _link(root, f"{GPU}/device", device)
    _link(root, "sys/devices/gpu.0", device)
    _files(root, EMC, {
        "rate": 1_600_000_000, "min_rate": TX2_EMC_HZ[0], "max_rate": TX2_EMC_HZ[-1], "mrq_rate_locked": 0, "state": 1,
    })  # fmt: skip
    _files(root, "sys/kernel/debug/bpmp/debug/emc", {"possible_rates": _line(TX2_EMC_KHZ) + " (kHz)"})
    _files(root, os.path.dirname(EMC_CAP), {os.path.basename(EMC_CAP): emc_cap_hz})
    _rails(root)
    zones = (("GPU-therm", 38_000), ("BCPU-therm", 38_500), ("PMIC-Die", 100_000), ("Tdiode_tegra", -256_000))
    for number, (name, millicelsius) in enumerate(zones):
        _files(root, f"sys/class/thermal/thermal_zone{number}", {"type": name, "temp": millicelsius})
    _files(root, "proc/device-tree", {
        "model": "quill\0", "compatible": "nvidia,quill\0nvidia,tegra186\0", "serial-number": "0324216012345\0",
    })  # fmt: skip
    return root


def _rails(root: Path) -> None:
    chips = {
        "0-0040/iio:device0": (("VDD_SYS_GPU", 19_000, 40), ("NC", 0, 0)),
        "0-0041/iio:device1": (("VDD_IN", 19_000, 200), ("VDD_SYS_DDR", 4_800, 100)),
    }
    for chip, rails in chips.items():
        folder = f"sys/devices/3160000.i2c/i2c-0/{chip}"
        for channel, (label, millivolt, milliampere) in enumerate(rails):
            _files(root, folder, {
                f"rail_name_{channel}": label,
                f"in_voltage{channel}_input": millivolt,
                f"in_current{channel}_input": milliampere,
                f"in_power{channel}_input": millivolt * milliampere // 1000,
            })  # fmt: skip
        device = chip.partition("/")[0]
        _link(root, f"sys/bus/i2c/drivers/ina3221x/{device}", f"sys/devices/3160000.i2c/i2c-0/{device}")


def _line(numbers: tuple[int, ...]) -> str:
    return " ".join(str(number) for number in numbers)


def _files(root: Path, folder: str, texts: dict[str, object]) -> None:
    for name, text in texts.items():
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text) if str(text).endswith("\0") else f"{text}\n")


def _link(root: Path, path: str, target: str) -> None:
    link = root / path
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(root / target, link.parent))
