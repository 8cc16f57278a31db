"""Boards of later releases, whose power sensor is faster than it is read: a row counts its energy there, too."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.measuring.protocol import QUICK
from hadas.measurement.hardware.measuring.runner import MeasuredDevice
from hadas.measurement.hardware.remote.client import AgentClient
from hadas.measurement.hardware.remote.jetson import JetsonRig
from hadas.measurement.hardware.remote.settings import JetsonSettings
from hadas.measurement.hardware.remote.transport import LocalTransport
from hadas.spaces import Exits, mini_space

from ..agent.fake_board import contents
from ..agent.trees import recorded_trees

MINI = mini_space()
SCRIPT = Path(__file__).parents[1] / "agent" / "serve_fake_board.py"
SETTINGS = JetsonSettings(
    domains={"cpu": ("cpu0",), "emc": ("emc",)}, pinned={"gpu": "max"}, engine="onnxruntime", processor="cpu",
    block_s=5.0,
)  # fmt: skip
PROTOCOL = replace(QUICK, n_windows=1, window_s=0.5)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return recorded_trees(tmp_path_factory.mktemp("recorded"))


def open_rig(tree: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> JetsonRig:
    """A rig on the real agent, which finds an empty torch: importing the real one takes seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    (folder / "torch.py").write_text("__version__ = '0'\n")
    program = (
        "env",
        f"PYTHONPATH={folder}",
        sys.executable,
        str(SCRIPT),
        str(tree),
        "--flavour",
        "5.x",
        "--",
    )
    client = AgentClient(LocalTransport(), allow_dvfs=True, program=program)
    return JetsonRig(client, SETTINGS, space=MINI, n_classes=10)


def power_w(tree: Path, n_rails: int) -> float:
    """What the first rails of a recorded board draw: volt times ampere, by the kernel's own files."""
    found = []
    for chip in sorted((tree / "sys/bus/i2c/drivers/ina3221").iterdir()):
        (monitor,) = (chip / "hwmon").iterdir()
        for channel in (1, 2, 3):
            millivolt, milliampere = (
                int((monitor / f"{kind}{channel}_input").read_text()) for kind in ("in", "curr")
            )
            found.append(millivolt * milliampere / 1e6)
    return sum(found[:n_rails])


@pytest.mark.parametrize(("name", "n_rails"), [("agx_xavier_l4t35", 6), ("orin_nano_l4t36", 1)])
def test_a_row_of_a_mainline_board_is_valid_and_counts_its_energy(
    name: str, n_rails: int, trees: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = trees[name]
    before, module_w = contents(tree), power_w(tree, n_rails)
    rig = open_rig(tree, tmp_path, monkeypatch)
    backbone = MINI.presets["m0"]
    exits = Exits.at((5,), first_exit=MINI.first_exit, n_blocks=backbone.n_blocks)
    request = CostRequest(backbone, exits, rig.clock_table().settings[3])
    source = rig.energy
    assert source is not None
    assert source.averaging_s < source.update_s == pytest.approx(0.05)
    with rig:
        device = MeasuredDevice(rig, PROTOCOL, space=MINI, n_classes=10)
        (row,) = device.measure(MeasurementPlan(name, (request,)))
    assert row.valid, row.reason
    assert row.actual == row.requested
    assert row.energy_mj is not None
    assert row.evidence is not None
    for stage in row.evidence.stages:
        assert stage.energy is not None
        assert len(stage.energy.rails_mj) == (6 if n_rails == 6 else 3)
        # The recorded board draws the same power always.
        mean_ms = sum(stage.latency.block_ms) / len(stage.latency.block_ms)
        assert stage.energy.gross_mj == pytest.approx(module_w * mean_ms, rel=0.3)
        assert stage.energy.n_samples > 0.5 * stage.energy.window_s / 0.05
    assert contents(tree) == before
