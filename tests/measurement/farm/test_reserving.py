"""From a device's name to its lease, its rig and its health, on a board that is emulated and on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hadas.datasets.leases import Leases
from hadas.datasets.store import Store
from hadas.errors import DeviceBusyError, DeviceError
from hadas.measurement.farm.devices import HostCpuConfig, JetsonConfig
from hadas.measurement.farm.reserving import check_up, owner_name, reserve
from hadas.measurement.hardware.protocol import QUICK
from hadas.spaces import PINNED, mini_space

from ..agent.fake_board import contents
from ..agent.trees import build_tx2

SCRIPT = Path(__file__).parents[1] / "agent" / "serve_fake_board.py"


@pytest.fixture
def leases(tmp_path: Path) -> Iterator[Leases]:
    store = Store(str(tmp_path / "store.sqlite"))
    yield Leases(store)
    store.close()


def board(tree: Path, *faults: str) -> JetsonConfig:
    arguments = [word for fault in faults for word in ("--fault", fault)]
    return JetsonConfig(kind="jetson", agent=(sys.executable, str(SCRIPT), str(tree), *arguments, "--"))


def test_a_check_up_tells_what_a_board_has_and_writes_nothing(
    leases: Leases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = build_tx2(tmp_path / "tx2")
    before = contents(tree)
    # An empty torch: importing the real one takes seconds.
    (tmp_path / "light").mkdir()
    (tmp_path / "light" / "torch.py").write_text("__version__ = '1.10.0'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "light"))
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


def test_an_owner_is_told_from_others() -> None:
    assert owner_name("study tx2").endswith("(study tx2)")
    assert "@" in owner_name()
