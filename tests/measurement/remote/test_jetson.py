"""A board behind a real SSH connection: the real agent on a board whose kernel is emulated."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from hadas.errors import (
    ConfigError,
    ConnectionLostError,
    DeviceBusyError,
    DeviceError,
    OffTableFrequencyError,
)
from hadas.measurement.hardware.agent.journal import HOME_PLACE, PLACE
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.measuring.disturbance import judge_states
from hadas.measurement.hardware.measuring.protocol import QUICK
from hadas.measurement.hardware.measuring.runner import MeasuredDevice
from hadas.measurement.hardware.programs import ProgramFile
from hadas.measurement.hardware.remote.boards import board_name, cpu_name, gpu_name, release_name
from hadas.measurement.hardware.remote.client import AgentClient, AgentReplyError
from hadas.measurement.hardware.remote.jetson import JetsonRig, chosen_engine, steered_table
from hadas.measurement.hardware.remote.loops import RemotePrograms
from hadas.measurement.hardware.remote.settings import JetsonSettings
from hadas.measurement.hardware.remote.transport import LocalTransport, SshTransport, Transport
from hadas.spaces import PINNED, ClockTable, Exits, mini_space

from ..agent.fake_board import contents
from ..agent.trees import EMC, GPU, TX2_CPU_HZ, TX2_EMC_HZ, TX2_GPU_HZ, build_tx2
from ..rig_contract import check_rig
from .ssh_server import SshServer

MINI = mini_space()
SCRIPT = Path(__file__).parents[1] / "agent" / "serve_fake_board.py"
SETTINGS = JetsonSettings(
    domains={"cpu": ("cpu0",), "emc": ("emc",)}, pinned={"cpu1": "max", "gpu": TX2_GPU_HZ[3]}, engine="torch",
    processor="cpu", block_s=2.0,
)  # fmt: skip
ONNX = replace(SETTINGS, engine="onnxruntime")
PROTOCOL = replace(QUICK, n_windows=1, window_s=0.4, window_intervals=1, idle_s=0.6)
MODULE_W = 3.8  # what the fake board's VDD_IN shows


@dataclass
class Board:
    """A fake board in a folder, and what its files said before anybody touched them."""

    tree: Path

    def __post_init__(self) -> None:
        build_tx2(self.tree)
        self.before = contents(self.tree)

    @property
    def program(self) -> tuple[str, ...]:
        return (sys.executable, str(SCRIPT), str(self.tree), "--")

    def without_torch(self, folder: Path) -> tuple[str, ...]:
        """A program whose agent finds an empty torch: importing the real one takes seconds."""
        folder.mkdir(exist_ok=True)
        (folder / "torch.py").write_text("__version__ = '0'\n")
        return ("env", f"PYTHONPATH={folder}", *self.program)

    @property
    def is_restored(self) -> bool:
        return contents(self.tree) == self.before

    def await_restored(self, limit_s: float) -> float:
        """How long it took until every file was as before."""
        began = time.monotonic()
        while not self.is_restored:
            assert time.monotonic() < began + limit_s, "the board is not restored"
            time.sleep(0.05)
        return time.monotonic() - began

    def read(self, path: str) -> int:
        return int((self.tree / path).read_text())


def connect(
    board: Board, transport: Transport, watchdog_s: float = 15.0, allow_dvfs: bool = True
) -> AgentClient:
    return AgentClient(transport, allow_dvfs=allow_dvfs, watchdog_s=watchdog_s, program=board.program)


def request_at(table: ClockTable, setting_no: int = -1, positions: tuple[int, ...] = (5,)) -> CostRequest:
    backbone = MINI.presets["m0"]
    exits = Exits.at(positions, first_exit=MINI.first_exit, n_blocks=backbone.n_blocks)
    return CostRequest(backbone, exits, table.settings[setting_no])


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    return Board(tmp_path_factory.mktemp("board") / "tx2")


@pytest.fixture(scope="module")
def rig(board: Board, ssh_server: SshServer) -> Iterator[JetsonRig]:
    with JetsonRig(connect(board, ssh_server.transport()), SETTINGS, space=MINI, n_classes=10) as rig:
        yield rig
    assert board.is_restored
    assert not Path(rig.directory).exists()


def test_the_target_is_what_the_board_says_and_what_is_pinned(rig: JetsonRig, board: Board) -> None:
    assert (rig.target.board, rig.target.processor) == ("jetson-tx2", "a57-cpu")
    assert rig.target.runtime == f"torch {torch.__version__}"
    pinned = dict(rig.target.pinned)
    assert pinned["cpu1_hz"] == str(TX2_CPU_HZ[-1])
    assert pinned["gpu_hz"] == str(TX2_GPU_HZ[3])
    assert pinned["cpu_domains"] == "cpu0"
    assert pinned["online_cores"] == "0,1,2,3,4,5"
    assert board.read(f"{GPU}/min_freq") == board.read(f"{GPU}/max_freq") == TX2_GPU_HZ[3]
    table = rig.clock_table()
    assert [(domain.name, domain.frequencies_hz) for domain in table.domains] == [
        ("cpu", TX2_CPU_HZ), ("emc", TX2_EMC_HZ),
    ]  # fmt: skip
    assert rig.energy is not None
    assert rig.energy.scope == ("VDD_IN",)
    assert "VDD_SYS_GPU" in rig.energy.rails


def test_a_network_is_measured_end_to_end(rig: JetsonRig, board: Board) -> None:
    table = rig.clock_table()
    device = MeasuredDevice(rig, PROTOCOL, space=MINI, n_classes=10)
    rows = list(device.measure(MeasurementPlan("tx2", (request_at(table, 40),))))
    for row in rows[-1:]:
        assert row.valid, row.reason
        assert row.requested == table.settings[40]
        assert row.actual == row.requested
        assert [(stage.kind, stage.position) for stage in row.stages] == [
            ("segment", 5), ("head", 5), ("segment", MINI.presets["m0"].n_blocks),
        ]  # fmt: skip
        assert row.latency_ms is not None
        assert row.energy_mj is not None
        assert row.evidence is not None
        # The fake board draws the same power always, so that energy is power times the mean (not the median) time.
        mean_ms = sum(sum(s.latency.block_ms) / len(s.latency.block_ms) for s in row.evidence.stages)
        assert row.energy_mj.value == pytest.approx(MODULE_W * mean_ms, rel=0.3)
        assert row.evidence.engine == f"torch {torch.__version__} cpu"
        assert row.evidence.clocks_verified
        assert row.evidence.decision_ms is not None
        assert 0 < row.evidence.decision_ms < 5
        assert row.evidence.temperature_c == (38.5, 38.5)
    assert board.read(f"{EMC}/rate") == table.settings[40].hz("emc")


def test_what_the_board_does_not_list_is_refused_before_it_is_touched(rig: JetsonRig, board: Board) -> None:
    now = contents(board.tree)
    with pytest.raises(OffTableFrequencyError, match="nearest is 2035200000 Hz"):
        rig.client.request("set_clocks", clocks_hz={"cpu0": 2_035_200_001, "emc": TX2_EMC_HZ[0]})
    assert contents(board.tree) == now


@contextmanager
def altered(board: Board, texts: Mapping[str, str]) -> Iterator[None]:
    """Files of the board that say something else for a while."""
    before = {path: (board.tree / path).read_text() for path in texts}
    for path, text in texts.items():
        (board.tree / path).write_text(text)
    yield
    for path, text in before.items():
        (board.tree / path).write_text(text)


def test_a_held_clock_that_falls_spoils_the_row(rig: JetsonRig, board: Board) -> None:
    """The Denver cores, which are held, at 242 MHz: only the hardware's own clock shows it."""
    well = rig.state()
    assert well.held_hz == (
        ("cpu1", TX2_CPU_HZ[-1], TX2_CPU_HZ[-1]), ("gpu", TX2_GPU_HZ[3], TX2_GPU_HZ[3])
    )  # fmt: skip
    setting = rig.clock_table().settings[40]
    rig.set_clocks(setting)
    denver = "sys/devices/system/cpu/cpu{}/cpufreq/cpuinfo_cur_freq"
    with altered(board, {denver.format(core): "242000\n" for core in (1, 2)}):
        fallen = rig.state()
    now = rig.state()
    verdict = judge_states([now, fallen, now], [], setting, QUICK)
    assert "cpu1 242 MHz instead of 2035.2 MHz" in verdict.reason
    assert {"throttled", "overcurrent-suspected:cpu1"} <= set(verdict.flags)
    assert verdict.clocks_verified is False
    assert judge_states([now, now], [], setting, QUICK).reason == ""


def save_script(module: torch.nn.Module, path: Path) -> ProgramFile:
    torch.jit.script(module).save(str(path))  # type: ignore[no-untyped-call]
    return ProgramFile("segment", 5, path, "torchscript", (1, 3, 4, 4), "fp32", "")


class HangsAtTheTenthRun(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n_runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n_runs += 1
        while self.n_runs >= 10:
            x = x + 1
        return x


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:.torch.jit:FutureWarning")
def test_a_program_that_hangs_is_ended_at_its_deadline(rig: JetsonRig, tmp_path: Path) -> None:
    late = save_script(HangsAtTheTenthRun(), tmp_path / "late.pt")
    fields = {"format": "torchscript", "inputs": [[1, 3, 4, 4]], "dtype": "fp32"}
    load = {"engine": "torch", "processor": "cpu"}
    program = {"name": "segment-5", "path": str(late.path), **fields}
    rig.client.request("load", programs=[program], **load)
    programs = RemotePrograms(rig.client, (late,), "torch", 10, (), 1.0)
    began = time.monotonic()
    with (
        programs.loop(0, 1, 1.0) as loop,
        pytest.raises(DeviceError, match="no result for 1 s and was ended"),
    ):
        list(loop)
    assert time.monotonic() - began < 10

    agent = rig.client.hello["pid"]
    assert Path(f"/proc/{agent}/task/{agent}/children").read_text() == "", "the workload is gone"
    with pytest.raises(AgentReplyError, match="nothing is loaded"):
        rig.client.request("decision", n_classes=10, runs=1)
    assert rig.state().temperature_c == 38.5


def test_a_program_that_does_not_load_says_which_engines_there_are(rig: JetsonRig, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    program = {"name": "x", "path": str(broken), "format": "onnx", "inputs": [[1, 3, 4, 4]]}
    with pytest.raises(AgentReplyError, match="engines on this device: torch, onnxruntime") as caught:
        rig.client.request("load", engine="onnxruntime", programs=[program])
    assert caught.value.kind == "workload"
    with pytest.raises(AgentReplyError, match="'trtexec' is not installed"):
        rig.client.request("load", engine="trtexec", programs=[program])
    with pytest.raises(AgentReplyError, match="cannot run onnx programs"):
        rig.client.request("load", engine="torch", programs=[program])
    with pytest.raises(AgentReplyError, match="no file"):
        rig.client.request("load", engine="torch", programs=[{**program, "path": str(broken) + "x"}])


def test_a_second_client_is_told_that_the_board_is_taken(rig: JetsonRig, board: Board) -> None:
    with pytest.raises(DeviceBusyError):
        connect(board, LocalTransport())
    assert rig.state().actual is not None


def test_a_link_that_drops_ends_the_session_and_the_board_is_restored(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    board = Board(tmp_path / "tx2")
    transport = ssh_server.transport()
    client = AgentClient(transport, allow_dvfs=True, program=board.without_torch(tmp_path / "light"))
    rig = JetsonRig(client, ONNX, space=MINI, n_classes=10)
    device = MeasuredDevice(rig, PROTOCOL, space=MINI, n_classes=10)
    table = rig.clock_table()
    rows = device.measure(MeasurementPlan("tx2", tuple(request_at(table, i, ()) for i in (-1, 40, 20))))
    assert next(rows).latency_ms is not None
    process_id = transport.process_id
    assert process_id is not None
    threading.Timer(0.7, os.kill, (process_id, signal.SIGKILL)).start()
    cut = next(rows)
    assert not cut.valid
    assert "connection" in cut.reason
    with pytest.raises(ConnectionLostError):
        next(rows)
    assert board.await_restored(5.0) < 5.0
    with pytest.raises(ConnectionLostError):
        rig.state()
    rig.close()


HOST = """
import json, sys, time
from hadas.measurement.hardware.remote.client import AgentClient
from hadas.measurement.hardware.remote.transport import SshTransport
given = json.loads(sys.argv[1])
transport = SshTransport(**given["ssh"])
client = AgentClient(transport, allow_dvfs=True, program=given["program"])
client.request("set_clocks", clocks_hz=given["clocks_hz"])
print(transport.process_id, flush=True)
time.sleep(60)
"""


def test_a_host_that_is_killed_leaves_the_board_restored_and_no_connection(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    board = Board(tmp_path / "tx2")
    ssh = {"host": "127.0.0.1", "port": ssh_server.port, "options": ssh_server.options()}
    given = {"ssh": ssh, "program": board.program, "clocks_hz": {"gpu": TX2_GPU_HZ[2], "emc": TX2_EMC_HZ[4]}}
    host = subprocess.Popen([sys.executable, "-c", HOST, json.dumps(given)], stdout=subprocess.PIPE)
    assert host.stdout is not None
    connection = int(host.stdout.readline())
    arguments = Path(f"/proc/{connection}/cmdline").read_text().split("\0")
    socket = Path(next(word for word in arguments if "ControlPath=" in word).partition("=")[2])
    assert not board.is_restored
    host.kill()
    host.wait()
    host.stdout.close()
    board.await_restored(5.0)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{connection}").exists():
        assert time.monotonic() < deadline, "the connection outlives its host"
        time.sleep(0.05)
    shutil.rmtree(socket.parent)  # what a killed process cannot do


@dataclass
class Silence:
    """A link over which nothing passes, though nobody closed it."""

    transport: SshTransport

    def __enter__(self) -> None:
        assert self.transport.process_id is not None
        os.kill(self.transport.process_id, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        assert self.transport.process_id is not None
        os.kill(self.transport.process_id, signal.SIGCONT)


def test_a_link_that_falls_silent_leaves_the_board_restored_by_its_watchdog(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    board = Board(tmp_path / "tx2")
    transport = ssh_server.transport()
    client = connect(board, transport, watchdog_s=1.0)
    time.sleep(1.3)  # longer than the watchdog waits: heartbeats keep the agent
    client.request("set_clocks", clocks_hz={"gpu": TX2_GPU_HZ[2], "emc": TX2_EMC_HZ[4]})
    assert not board.is_restored
    with Silence(transport):
        assert board.await_restored(4.0) > 0.5
    with pytest.raises(ConnectionLostError):
        client.request("state")
    client.close()


@pytest.mark.parametrize("allow_dvfs", [True, False])
def test_a_link_that_is_lost_with_the_last_word_is_told_where_clocks_may_be_left(
    ssh_server: SshServer, tmp_path: Path, allow_dvfs: bool
) -> None:
    board = Board(tmp_path / "tx2")
    transport = ssh_server.transport()
    client = connect(board, transport, allow_dvfs=allow_dvfs)
    assert transport.process_id is not None
    os.kill(transport.process_id, signal.SIGKILL)
    if allow_dvfs:
        with pytest.raises(DeviceError, match="is not known"):
            client.close()
    client.close()
    board.await_restored(5.0)


def test_clocks_that_a_killed_agent_left_are_not_measured_at(tmp_path: Path) -> None:
    board = Board(tmp_path / "tx2")
    program = board.without_torch(tmp_path / "light")
    plain = JetsonSettings(engine="onnxruntime", processor="cpu")
    killed = AgentClient(LocalTransport(), allow_dvfs=True, program=program)
    killed.request("set_clocks", clocks_hz={"gpu": TX2_GPU_HZ[2]})
    os.kill(killed.hello["pid"], signal.SIGKILL)
    # Whether it is the end of the agent or of the pipe that is seen first is up to the system.
    lost = r"left as it was found is not known\. .*(agent ended|pipe to its agent is closed).*hadas-agent"
    with pytest.raises(DeviceError, match=lost):
        killed.close()
    with pytest.raises(DeviceError, match=r"stale-journal: .*allow_dvfs: true"):
        JetsonRig(AgentClient(LocalTransport(), program=program), plain, space=MINI, n_classes=10)
    JetsonRig(
        AgentClient(LocalTransport(), allow_dvfs=True, program=program), plain, space=MINI, n_classes=10
    ).close()
    assert board.is_restored
    with JetsonRig(AgentClient(LocalTransport(), program=program), plain, space=MINI, n_classes=10):
        pass


@pytest.mark.parametrize("allow_dvfs", [True, False])
@pytest.mark.parametrize(
    ("journal", "told"),
    [(PLACE, r"journal-corrupt: .*Reboot it"), (f"root/{HOME_PLACE}", r"other-journal:/root/.*--journal")],
)
def test_a_board_whose_original_clocks_nobody_knows_is_not_measured(
    tmp_path: Path, journal: str, told: str, allow_dvfs: bool
) -> None:
    """At the first start and at the second: nothing that is found may be taken for the user's own."""
    board = Board(tmp_path / "tx2")
    left = board.tree / journal
    program = board.without_torch(tmp_path / "light")
    killed = AgentClient(LocalTransport(), allow_dvfs=True, program=program)
    killed.request("set_clocks", clocks_hz={"gpu": TX2_GPU_HZ[2]})
    os.kill(killed.hello["pid"], signal.SIGKILL)
    with pytest.raises(DeviceError):
        killed.close()
    (board.tree / "etc").mkdir(exist_ok=True)
    (board.tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    left.parent.mkdir(parents=True, exist_ok=True)
    (board.tree / PLACE).rename(left)
    if journal == PLACE:
        left.write_text("[1, 2]")
    found = contents(board.tree)
    for _ in range(2):
        client = AgentClient(LocalTransport(), allow_dvfs=allow_dvfs, program=program)
        with pytest.raises(DeviceError, match=told):
            JetsonRig(client, ONNX, space=MINI, n_classes=10)
        assert contents(board.tree) == found


def test_what_is_odd_about_a_board_is_on_every_row(tmp_path: Path) -> None:
    board = Board(tmp_path / "tx2")
    rails = list(board.tree.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"))
    for number, rail in enumerate(rails):
        rail.write_text(f"VDD_UNKNOWN_{number}\n")
    program = board.without_torch(tmp_path / "light")
    client = AgentClient(LocalTransport(), program=program)
    plain = JetsonSettings(engine="onnxruntime", processor="cpu")
    with JetsonRig(client, plain, space=MINI, n_classes=10) as rig:
        states = [rig.state(), rig.state()]
        verdict = judge_states(states, [], rig.clock_table().default, QUICK)
    assert "scope-unknown" in verdict.flags
    assert verdict.reason == ""


def test_nothing_is_written_unless_it_is_allowed(tmp_path: Path) -> None:
    board = Board(tmp_path / "tx2")
    with connect(board, LocalTransport(), allow_dvfs=False) as client:
        with pytest.raises(AgentReplyError, match="allow_dvfs") as caught:
            client.request("set_clocks", clocks_hz={"gpu": TX2_GPU_HZ[0]})
        assert caught.value.kind == "not-allowed"
        assert client.request("state")["actual"]["gpu"] == TX2_GPU_HZ[0]
    assert board.is_restored


def test_the_agent_of_this_hadas_is_brought_along_once(ssh_server: SshServer, tmp_path: Path) -> None:
    build_tx2(tmp_path / "tx2")
    brought = set()
    for _ in range(2):
        with AgentClient(ssh_server.transport(), sysroot=str(tmp_path / "tx2")) as client:
            assert client.hello["protocol"] == 1
            files = list((ssh_server.folder / "cache" / "hadas-agent").glob("*.pyz"))
        brought |= {(path.name, path.stat().st_mtime_ns) for path in files}
    assert len(brought) == 1
    name, _ = brought.pop()
    assert name.removesuffix(".pyz") in client.hello["agent"]


SKEW = """\
import time
_monotonic, _time = time.monotonic, time.time
time.monotonic = lambda: _monotonic() + 1e6
time.time = lambda: _time() - 3e7
"""


def test_the_rig_keeps_the_contract_though_the_clocks_of_the_device_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Monotonic clocks 12 days apart, calendars a year: nothing compares the host's time with the device's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    board = Board(tmp_path / "tx2")
    program = board.without_torch(tmp_path / "skew")
    (tmp_path / "skew" / "sitecustomize.py").write_text(SKEW)
    client = AgentClient(LocalTransport(), allow_dvfs=True, program=program)
    assert client.hello["monotonic_s"] > time.monotonic() + 9e5
    rig = JetsonRig(client, ONNX, space=MINI, n_classes=10)
    check_rig(rig, request_at(rig.clock_table(), 40), space=MINI, n_classes=10)
    assert board.is_restored


DOMAINS = {"gpu": TX2_GPU_HZ, "cpu0": TX2_CPU_HZ, "cpu1": TX2_CPU_HZ, "emc": TX2_EMC_HZ}
TX2 = {"model": "quill", "compatible": ["nvidia,quill", "nvidia,tegra186"]}


def test_domains_that_move_together_must_share_a_table() -> None:
    both = JetsonSettings(domains={"cpu": ("cpu0", "cpu1")})
    assert steered_table(TX2, DOMAINS, both, "tx2").domains[0].frequencies_hz == TX2_CPU_HZ
    assert steered_table(TX2, DOMAINS, JetsonSettings(), "tx2") is PINNED
    with pytest.raises(ConfigError, match="cpu0, gpu have different tables"):
        steered_table(TX2, DOMAINS, JetsonSettings(domains={"cpu": ("cpu0", "gpu")}), "tx2")
    with pytest.raises(ConfigError, match="'cpu2' is not on this board now"):
        steered_table(TX2, DOMAINS, JetsonSettings(domains={"cpu": ("cpu2",)}), "tx2")
    with pytest.raises(ConfigError, match="'cpu1' is named by 'cpu' and by 'cpu1'"):
        steered_table(TX2, DOMAINS, replace(both, pinned={"cpu1": "max"}), "tx2")
    with pytest.raises(OffTableFrequencyError, match="cpu1_hz"):
        steered_table(TX2, DOMAINS, JetsonSettings(pinned={"cpu1": 2_000_000_000}), "tx2")


def test_the_engine_is_the_first_that_the_device_has() -> None:
    found = [{"name": "trtexec", "version": "8.2.1"}, {"name": "onnxruntime", "version": "1.11.0"}]
    assert chosen_engine(JetsonSettings(), found, "tx2") == ("onnxruntime", "1.11.0")
    assert chosen_engine(JetsonSettings(engine="trtexec"), found, "tx2") == ("trtexec", "8.2.1")
    with pytest.raises(ConfigError, match="it has trtexec, onnxruntime"):
        chosen_engine(JetsonSettings(engine="torch"), found, "tx2")
    with pytest.raises(ConfigError, match="'trtexec' is not on this device for its cpu"):
        chosen_engine(JetsonSettings(engine="trtexec", processor="cpu"), found, "tx2")


@pytest.mark.parametrize(
    ("compatible", "names"),
    [
        ("nvidia,p2597-0000+p3310-1000 nvidia,quill nvidia,tegra186", ("jetson-tx2", "pascal-gpu", "denver-cpu")),
        ("nvidia,p2972-0000 nvidia,tegra194", ("jetson-agx-xavier", "volta-gpu", "carmel-cpu")),
        ("nvidia,p3509-0000+p3668-0000 nvidia,tegra194", ("jetson-xavier-nx", "volta-gpu", "carmel-cpu")),
        ("nvidia,p3450-0000 nvidia,tegra210", ("jetson-nano", "maxwell-gpu", "a57-cpu")),
        ("nvidia,p3737-0000+p3701-0000 nvidia,tegra234", ("jetson-agx-orin", "ampere-gpu", "a78ae-cpu")),
        ("nvidia,p3768-0000+p3767-0005-super nvidia,tegra234", ("jetson-orin-nano", "ampere-gpu", "a78ae-cpu")),
        ("nvidia,p3768-0000+p3767-0000 nvidia,tegra234", ("jetson-orin-nx", "ampere-gpu", "a78ae-cpu")),
        ("acme,board", ("acme-board-3", "gpu", "cpu")),
    ],
)  # fmt: skip
def test_boards_are_named_by_their_device_tree(compatible: str, names: tuple[str, str, str]) -> None:
    board = {"model": "Acme Board 3", "compatible": compatible.split()}
    assert (board_name(board), gpu_name(board), cpu_name(board, ("cpu1",))) == names


def test_releases_are_named_as_nvidia_names_them() -> None:
    text = "# R32 (release), REVISION: 3.1, GCID: 18186506, BOARD: t186ref, EABI: aarch64, DATE: Tue Dec 10"
    assert release_name(text) == "L4T 32.3.1"
    assert release_name("# R36 (release), REVISION: 4.7, GCID: 42132812") == "L4T 36.4.7"
    assert release_name("") == "unknown release"
