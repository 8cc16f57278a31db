"""From a device's name to its lease, its rig and its health, on a board that is emulated and on this machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hadas.datasets.leases import Leases
from hadas.datasets.store import Store
from hadas.errors import ConnectionLostError, DeviceBusyError, DeviceError, HotDeviceError
from hadas.measurement.farm.devices import HostCpuConfig, JetsonConfig
from hadas.measurement.farm.parallel import measure_in_parallel
from hadas.measurement.farm.reserving import ReservedDevice, check_up, open_client, owner_name, reserve
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.measuring.protocol import QUICK
from hadas.measurement.hardware.remote import steering
from hadas.measurement.hardware.remote.jetson import JetsonRig
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


@pytest.mark.usefixtures("light_torch")
def test_a_board_that_is_busy_is_well(leases: Leases, tmp_path: Path) -> None:
    """Somebody else's agent holds it, and whoever asks three times must not lock it away."""
    taken = board(build_tx2(tmp_path / "tx2"), engine="onnxruntime", processor="gpu")
    with open_client(taken, may_write=False):
        for _ in range(3):
            with (
                pytest.raises(DeviceBusyError),
                reserve("tx2", taken, leases, QUICK, space=mini_space(), n_classes=10),
            ):
                pass
    assert leases.health("tx2").failures == 0


@pytest.mark.usefixtures("light_torch")
def test_a_board_that_starts_hot_is_waited_for_and_is_well(
    leases: Leases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = build_tx2(tmp_path / "tx2")
    state = tree / "sys/class/thermal/cooling_device0/cur_state"
    state.parent.mkdir()
    (state.parent / "type").write_text("thermal-cpufreq-0\n")
    state.write_text("2\n")
    before = contents(tree)
    config = board(
        tree, "cooling", engine="onnxruntime", processor="cpu", allow_dvfs=True, pinned={"cpu1": "min"},
        domains={"cpu": ("cpu0",)},
    )  # fmt: skip
    with monkeypatch.context() as hurry:
        hurry.setattr(steering, "_COOLING_S", 0.0)
        for _ in range(3):
            with (
                pytest.raises(HotDeviceError, match=r"is being cooled .thermal-cpufreq-0.*let it cool down"),
                reserve("tx2", config, leases, QUICK, space=mini_space(), n_classes=10),
            ):
                pass
    assert contents(tree) == before
    assert (leases.health("tx2").failures, leases.health("tx2").quarantined) == (0, False)

    times: list[float] = []

    def cool_down(seconds: float) -> None:
        times.append(seconds)
        if len(times) % 2 == 0:
            state.write_text("0\n")

    monkeypatch.setattr(steering, "time", SimpleNamespace(monotonic=time.monotonic, sleep=cool_down))
    with reserve("tx2", config, leases, QUICK, space=mini_space(), n_classes=10) as held:
        assert len(times) == 2, "for the pinned clock, at the opening"
        rig = held.device.rig
        state.write_text("2\n")
        setting = rig.clock_table().settings[0]
        assert rig.set_clocks(setting).actual == setting
        assert len(times) == 4, "for a clock that is set for the first time"
    state.write_text("2\n")
    assert contents(tree) == before


def test_an_error_of_another_device_is_not_counted_against_this_one(leases: Leases) -> None:
    desk = HostCpuConfig(kind="host-cpu")
    away = JetsonConfig(kind="jetson", agent=("no-such-agent",))
    with (
        pytest.raises(DeviceError, match="no-such-agent"),
        reserve("desk", desk, leases, QUICK, space=mini_space(), n_classes=10),
        reserve("tx2", away, leases, QUICK, space=mini_space(), n_classes=10),
    ):
        pass
    assert (leases.health("desk").failures, leases.health("tx2").failures) == (0, 1)


def check_without_agent(held: ReservedDevice) -> None:
    assert isinstance(held.device.rig, JetsonRig)
    os.kill(held.device.rig.client.hello["pid"], signal.SIGKILL)
    held.check()


@pytest.mark.usefixtures("light_torch")
def test_a_board_that_does_not_answer_any_more_has_failed_a_check(leases: Leases, tmp_path: Path) -> None:
    config = board(build_tx2(tmp_path / "tx2"), engine="onnxruntime", processor="gpu")
    with (
        pytest.raises(DeviceError),
        reserve("tx2", config, leases, QUICK, space=mini_space(), n_classes=10) as held,
    ):
        check_without_agent(held)
    assert leases.health("tx2").failures == 1


def take_offline(tree: Path, *cores: int) -> None:
    for core in cores:
        folder = tree / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.rename(folder.with_name("offline"))


@pytest.mark.usefixtures("light_torch")
def test_a_board_that_is_not_left_as_it_was_found_has_failed_a_check(leases: Leases, tmp_path: Path) -> None:
    """The Denver cores go offline in mid-session, and their limits cannot be put back."""
    tree = build_tx2(tmp_path / "tx2")
    config = board(tree, engine="onnxruntime", processor="gpu", allow_dvfs=True, pinned={"cpu1": "min"})
    with (
        pytest.raises(DeviceError, match=r"not left as it was found\. .*cpu1/cpufreq.*hadas-agent"),
        reserve("tx2", config, leases, QUICK, space=mini_space(), n_classes=10),
    ):
        take_offline(tree, 1, 2)
    health = leases.health("tx2")
    assert (health.failures, "not left as it was found" in health.reason) == (1, True)


def test_the_agent_runs_under_the_interpreter_that_the_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    python = tmp_path / "python-of-the-lab"
    python.write_text('#!/bin/sh\ntest "$1" = -c && exec echo 3 8\necho I was chosen >&2\nexit 9\n')
    python.chmod(0o755)
    with pytest.raises(ConnectionLostError, match="I was chosen"):
        open_client(JetsonConfig(kind="jetson", python=str(python)), may_write=False)


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
