"""What of the GPU's rig can be tested without a GPU; where there is one, the rig itself."""

from __future__ import annotations

import ast
import stat
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pynvml
import pytest
import torch

from hadas.errors import ConfigError, DeviceError
from hadas.measurement.hardware.device import CostRequest
from hadas.measurement.hardware.local import nvml
from hadas.measurement.hardware.local.cuda import ClockWatch, CudaRig
from hadas.measurement.hardware.local.nvml import (
    POWER_CAP,
    SLOWDOWN,
    NvidiaSmiGpu,
    find_gpu_energy,
    open_gpu,
    power_averaging_s,
)
from hadas.spaces import PINNED, Exits, mini_space

MINI = mini_space()
HAS_GPU = torch.cuda.is_available()


@dataclass
class Card:
    """What a card said, one answer after the other."""

    name: str = "NVIDIA Example"
    driver: str = "570.1"
    via: str = "nvml"
    power_averaging_s: float = 1.0
    energies_j: list[float | None] = field(default_factory=lambda: [None])
    powers_w: list[float | None] = field(default_factory=lambda: [None])
    reasons: list[int | None] = field(default_factory=lambda: [None])
    clocks: list[tuple[int, int] | None] = field(default_factory=lambda: [None])

    def energy_j(self) -> float | None:
        return self.energies_j.pop(0) if len(self.energies_j) > 1 else self.energies_j[0]

    def power_w(self) -> float | None:
        return self.powers_w.pop(0) if len(self.powers_w) > 1 else self.powers_w[0]

    def temperature_c(self) -> float | None:
        return 40.0

    def clocks_hz(self) -> tuple[int, int] | None:
        return self.clocks.pop(0) if len(self.clocks) > 1 else self.clocks[0]

    def clock_reasons(self) -> int | None:
        return self.reasons.pop(0) if len(self.reasons) > 1 else self.reasons[0]

    def close(self) -> None: ...


def _nothing(seconds: float) -> None:
    """The card's answers are written down already."""


def test_the_counter_is_preferred_and_power_is_what_remains() -> None:
    finding = find_gpu_energy(Card(energies_j=[100.0, 180.0], powers_w=[250.0]), _nothing)
    assert finding.meter is not None
    assert finding.meter.source.name == "nvml-energy"
    assert finding.meter.source.averaging_s == 0
    assert finding.meter.poll_s < finding.meter.source.update_s
    dead = find_gpu_energy(Card(energies_j=[100.0], powers_w=[250.0]), _nothing)
    assert dead.meter is not None
    assert dead.meter.source.name == "nvml-power"
    assert dead.meter.source.averaging_s == 1.0
    assert dead.meter.read() == (250.0,)
    assert "stands still" in dead.notes[0]
    absent = find_gpu_energy(Card(), _nothing)
    assert absent.meter is None
    assert len(absent.notes) == 2


@pytest.mark.parametrize(
    ("name", "architecture", "averaging_s"),
    [
        ("Tesla V100-SXM2-32GB", pynvml.NVML_DEVICE_ARCH_VOLTA, 0.1),
        ("NVIDIA A100-SXM4-80GB", pynvml.NVML_DEVICE_ARCH_AMPERE, 0.1),
        ("NVIDIA A10", pynvml.NVML_DEVICE_ARCH_AMPERE, 1.0),
        ("NVIDIA H100 80GB HBM3", pynvml.NVML_DEVICE_ARCH_HOPPER, 1.0),
        ("a card of tomorrow", None, 1.0),
    ],
)
def test_power_is_averaged_over_a_second_on_ampere_and_newer_but_ga100(
    name: str, architecture: int | None, averaging_s: float
) -> None:
    assert power_averaging_s(name, architecture) == averaging_s


def test_bits_of_clock_reasons_are_those_of_nvml() -> None:
    assert pynvml.nvmlClocksEventReasonSwPowerCap == POWER_CAP
    assert (
        pynvml.nvmlClocksEventReasonHwSlowdown | pynvml.nvmlClocksEventReasonSwThermalSlowdown
        | pynvml.nvmlClocksEventReasonHwThermalSlowdown | pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown
    ) == SLOWDOWN  # fmt: skip


def test_every_name_asked_of_nvidia_ml_py_exists_in_it() -> None:
    """Functions are asked for by name, which no type checker sees."""
    tree = ast.parse(Path(nvml.__file__).read_text())
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    asked = {word for word in words if isinstance(word, str) and word.startswith("nvmlDevice")}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    asked |= {name for name in attributes if name.startswith(("nvml", "NVML"))}
    assert {"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceSetGpuLockedClocks", "NVML_CLOCK_SM"} <= asked
    assert [name for name in sorted(asked) if not hasattr(pynvml, name)] == []


@pytest.mark.skipif(HAS_GPU, reason="a GPU is here")
def test_without_a_gpu_every_way_to_one_is_named() -> None:
    sensors, notes = open_gpu("GPU-00000000-0000-0000-0000-000000000000")
    assert sensors is None
    assert any("NVML" in note for note in notes)
    assert any("nvidia-smi" in note for note in notes)
    with pytest.raises(ConfigError, match="no CUDA GPU 0"):
        CudaRig(MINI, 10)


def test_engines_that_do_not_run_on_cuda_are_refused() -> None:
    with pytest.raises(ConfigError, match="eager or torchscript"):
        CudaRig(MINI, 10, engine="onnxruntime")


def test_slowdowns_count_once_each_and_in_every_loop_that_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    heat, cap = 0x20, POWER_CAP
    card = Card(
        reasons=[heat, 0, heat, heat, cap, heat, heat | cap, cap],
        clocks=[(1_000_000_000, 2_000_000_000), (1_500_000_000, 2_000_000_000)],
    )
    watch = ClockWatch(card)
    assert watch.slowdowns == 0
    watch.begin()
    for _ in range(5):  # 0, heat, heat, cap, heat
        watch.look()
    assert watch.slowdowns == 2
    assert dict(watch.measures()) == {
        "gpu_sm_hz": 1_500_000_000, "gpu_memory_hz": 2_000_000_000, "gpu_power_cap_share": 0.2,
    }  # fmt: skip
    watch.begin()
    assert watch.measures() == ()
    watch.look()  # hot since before this loop
    watch.look()
    assert watch.slowdowns == 3
    assert dict(watch.measures())["gpu_power_cap_share"] == 1.0


def test_a_card_that_tells_no_reasons_counts_no_slowdowns() -> None:
    watch = ClockWatch(Card())
    watch.look()
    assert watch.slowdowns is None
    assert watch.measures() == ()
    assert ClockWatch(None).slowdowns is None


_NVIDIA_SMI = """#!/bin/sh
for word in "$@"; do
  case "$word" in
    {refused}*) echo 'Field is not a valid field to query.'; exit 2 ;;
    --loop-ms=*) loop=yes ;;
  esac
done
line='NVIDIA H100 80GB HBM3, 535.104.05, 123.45, 41, 1980, 2619, 0x0000000000000004'
echo "$line"
[ -z "$loop" ] || while sleep 0.05; do echo 'NVIDIA H100 80GB HBM3, 535.104.05, [N/A], 43, 1755, 2619, 0x0'; done
"""


def _program(directory: Path, text: str) -> str:
    """A program that prints lines as nvidia-smi does."""
    file = directory / "nvidia-smi"
    file.write_text(text)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def test_lines_of_nvidia_smi_are_read_as_they_come(tmp_path: Path) -> None:
    # An older driver, which knows the reasons by their older name.
    gpu = NvidiaSmiGpu("GPU-1", _program(tmp_path, _NVIDIA_SMI.format(refused="--query-gpu=*clocks_event")))
    try:
        assert (gpu.name, gpu.driver, gpu.energy_j()) == ("NVIDIA H100 80GB HBM3", "535.104.05", None)
        assert gpu.clocks_hz() in ((1_980_000_000, 2_619_000_000), (1_755_000_000, 2_619_000_000))
        end = time.monotonic() + 5
        while gpu.temperature_c() != 43.0 and time.monotonic() < end:
            time.sleep(0.01)
        assert gpu.temperature_c() == 43.0
        assert gpu.power_w() is None  # [N/A]
        assert gpu.clock_reasons() == 0
        assert "clocks_throttle_reasons.active" in " ".join(gpu._command)
    finally:
        gpu.close()
    assert gpu._process.returncode is not None
    assert gpu.temperature_c() is None  # what was last said is not true for ever


def test_an_nvidia_smi_that_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="not a valid field"):
        NvidiaSmiGpu("GPU-1", _program(tmp_path, _NVIDIA_SMI.format(refused="--query-gpu=")))
    with pytest.raises(DeviceError, match="not installed"):
        NvidiaSmiGpu("GPU-1", str(tmp_path / "missing"))


@pytest.mark.skipif(not HAS_GPU, reason="torch finds no CUDA GPU here")
@pytest.mark.parametrize("engine", ["eager", "torchscript"])
def test_a_gpu_runs_and_is_left_as_it_was(engine: str) -> None:
    rig = CudaRig(MINI, 10, engine=engine)  # type: ignore[arg-type]
    assert rig.clock_table() is PINNED
    backbone = MINI.presets["m0"]
    exits = Exits.at((5, 8), first_exit=MINI.first_exit, n_blocks=backbone.n_blocks)
    with rig.load(CostRequest(backbone, exits, PINNED.default), "stages") as programs:
        for index in range(len(programs.stages)):
            with programs.loop(index, 20, 0.1) as loop:
                blocks = list(islice(loop, 3))
            for block in blocks:
                assert len(block.run_s) == 20
                assert 0 < sum(block.run_s) <= 1.05 * (block.end_s - block.start_s)
        assert 0 < (programs.decision_s() or 0) < 0.1
    assert rig.state().actual is None
    rig.close()
