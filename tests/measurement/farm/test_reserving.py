"""From a device's name to its lease, its rig and its health, on a board that is emulated and on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hadas.datasets.leases import Leases
from hadas.datasets.store import Store
from hadas.errors import DeviceBusyError, DeviceError
from hadas.measurement.farm.devices import HostCpuConfig, JetsonConfig
from hadas.measurement.farm.parallel import measure_in_parallel
from hadas.measurement.farm.reserving import check_up, owner_name, reserve
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.measuring.protocol import QUICK
from hadas.spaces import PINNED, Exits, mini_space

from ..agent.fake_board import contents
from ..agent.trees import build_tx2

SCRIPT = Path(__file__).parents[1] / "agent" / "serve_fake_board.py"


@pytest.fixture
def leases(tmp_path: Path) -> Iterator[Leases]:
    store = Store(str(tmp_path / "store.sqlite"))
    yield Leases(store)
    store.close()


@pytest.fixture
def light_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents find an empty torch: importing the real one, to see its version, takes seconds."""
    (tmp_path / "light").mkdir()
    (tmp_path / "light" / "torch.py").write_text("__version__ = '1.10.0'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "light"))


def board(tree: Path, *faults: str, **fields: Any) -> JetsonConfig:
    arguments = [word for fault in faults for word in ("--fault", fault)]
    agent = (sys.executable, str(SCRIPT), str(tree), *arguments, "--")
    return JetsonConfig(kind="jetson", agent=agent, **fields)


@pytest.mark.usefixtures("light_torch")
def test_a_check_up_tells_what_a_board_has_and_writes_nothing(leases: Leases, tmp_path: Path) -> None:
    tree = build_tx2(tmp_path / "tx2")
    before = contents(tree)
    found = check_up("tx2", board(tree), leases)
    assert found.failure == ""
    facts = dict(found.facts)
    assert facts["board"] == "jetson-tx2 (quill)"
    assert facts["clock gpu"] == "13 steps, 114.75 to 1300.5 MHz, 114.75 MHz now"
    assert facts["clock emc"] == "11 steps, 40.8 to 1866 MHz, 1600 MHz now"
    assert facts["power sensor"] == "ina3221x: VDD_IN = 3.80 W"
    assert facts["engines"].startswith("torch 1.10.0, ")
    assert contents(tree) == before
    assert leases.active() == ()


def test_a_device_that_is_never_well_ends_in_quarantine(leases: Leases) -> None:
    away = JetsonConfig(kind="jetson", agent=("no-such-agent",))
    for _ in range(3):
        found = check_up("tx2", away, leases)
        assert "no-such-agent" in found.failure
    health = leases.health("tx2")
    assert health.quarantined
    with (
        pytest.raises(DeviceError, match="in quarantine"),
        reserve("tx2", away, leases, QUICK, space=mini_space(), n_classes=10),
    ):
        pass
    assert check_up("tx2", HostCpuConfig(kind="host-cpu"), leases).failure == "", (
        "one in quarantine is still looked at"
    )
    leases.end_quarantine("tx2")
    with (
        pytest.raises(DeviceError, match="no-such-agent"),
        reserve("tx2", away, leases, QUICK, space=mini_space(), n_classes=10),
    ):
        pass
    assert leases.health("tx2").failures == 1, "a device that does not open has failed a check"
    assert leases.active() == ()


def test_two_clients_and_one_lease(leases: Leases) -> None:
    desk = HostCpuConfig(kind="host-cpu")
    with reserve("desk", desk, leases, QUICK, space=mini_space(), n_classes=10, purpose="study one") as mine:
        mine.check()
        assert mine.device.clock_table() is PINNED
        with (
            pytest.raises(DeviceBusyError, match=r"\(study one\) until"),
            reserve("desk", desk, leases, QUICK, space=mini_space(), n_classes=10),
        ):
            pass
        with pytest.raises(DeviceBusyError, match="study one"):
            check_up("desk", desk, leases)
    with reserve("desk", desk, leases, QUICK, space=mini_space(), n_classes=10):
        pass
    assert leases.health("desk").failures == 0


SHORT = replace(QUICK, n_windows=1, window_s=0.3, window_intervals=1, idle_s=0.6, anchor_every=0)


@pytest.mark.usefixtures("light_torch")
def test_two_boards_are_measured_side_by_side(
    leases: Leases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both export their first network at the same time, which torch's exporters would not bear."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    space, trees = mini_space(), [build_tx2(tmp_path / name) for name in ("left", "right")]
    before = [contents(tree) for tree in trees]
    settings = {
        "allow_dvfs": True,
        "processor": "cpu",
        "engine": "onnxruntime",
        "domains": {"cpu": ("cpu0",)},
    }
    with ExitStack() as held:
        boards = [
            held.enter_context(
                reserve(tree.name, board(tree, **settings), leases, SHORT, space=space, n_classes=10)
            )
            for tree in trees
        ]
        fastest = boards[0].device.clock_table().default
        networks = [space.presets[name] for name in ("m0", "m1", "m2")]
        requests = tuple(
            CostRequest(b, Exits.at((), first_exit=space.first_exit, n_blocks=b.n_blocks), fastest)
            for b in networks
        )
        rows = list(measure_in_parallel(boards, MeasurementPlan("lab", requests), on_death=leases.quarantine))
    valid = [row for row in rows if row.valid]
    assert {row.backbone for row in valid} == set(networks), [row.reason for row in rows]
    assert {row.session for row in rows} == {"lab@left", "lab@right"}
    assert all(row.energy_mj is not None for row in valid)
    assert [contents(tree) for tree in trees] == before
    assert leases.active() == ()


def test_an_owner_is_told_from_others() -> None:
    assert owner_name("study tx2").endswith("(study tx2)")
    assert "@" in owner_name()
