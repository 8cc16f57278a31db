"""The agent as a process: it answers, and it leaves the board as it found it, however it ends."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hadas.measurement.hardware.agent.bundle import bundle_agent

from .fake_board import contents
from .host import Host
from .trees import EMC, GPU, TX2_CLUSTERS, TX2_CPU_HZ, TX2_EMC_HZ, TX2_GPU_HZ, build_tx2

CLOCKS = {"gpu": TX2_GPU_HZ[6], "cpu0": TX2_CPU_HZ[4], "emc": TX2_EMC_HZ[4]}


@pytest.fixture
def tree(memory_path):
    return build_tx2(memory_path / "tx2")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, limit_s: float = 10.0) -> bool:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_session_from_hello_to_quit(tree):
    before = contents(tree)
    with Host(tree) as host:
        hello = host.ask("hello")
        assert (hello["protocol"], hello["pid"], hello["restored"]) == (1, host.process.pid, [])
        assert hello["utc"].endswith("Z")

        result = host.ask("set_clocks", clocks_hz=CLOCKS)
        assert result == {"requested": CLOCKS, "actual": {**CLOCKS, "cpu1": TX2_CPU_HZ[2]}, "flags": []}
        assert contents(tree) != before

        state = host.ask("state")
        assert (state["temperature_c"], state["overcurrent_events"], state["flags"]) == (38.5, None, [])
        assert state["actual"] == result["actual"]
        assert state["monotonic_s"] >= hello["monotonic_s"]

        trace = host.ask("idle", seconds=0.3)["trace"]
        assert 2 <= len(trace["time_s"]) <= 9
        assert trace["power_w"]["VDD_IN"][0] == 3.8

        assert len(host.ask("restore")["restored"]) == 15  # GPU 2, its gate, four cores 2 each, memory 4
        assert contents(tree) == before
        host.ask("set_clocks", clocks_hz=CLOCKS)
        assert host.ask("quit") == {}
        # Restored before the reply, so that a host which hears it may believe it.
        assert contents(tree) == before
        assert host.ended() == 0
    assert not (tree / "var/lib/hadas-agent/journal.json").exists()


def test_what_was_noticed_while_sampling_is_told_once_with_the_next_state(tree):
    """A clock that is held down for three seconds, as the watch sees it once a second."""
    with Host(tree) as host:
        host.ask("set_clocks", clocks_hz={"gpu": TX2_GPU_HZ[6]})
        (tree / GPU / "cur_freq").write_text(f"{TX2_GPU_HZ[2]}\n")
        number = host.post("idle", seconds=2.3)
        assert host.reply(number)["result"]["trace"]["flags"] == ["slow-clock:gpu"]
        (tree / GPU / "cur_freq").write_text(f"{TX2_GPU_HZ[6]}\n")
        assert host.ask("state")["flags"] == ["slow-clock:gpu"]
        assert host.ask("state")["flags"] == []
        host.ask("quit")


def test_bad_requests_are_answered_with_what_would_have_been_right(tree):
    before = contents(tree)
    with Host(tree) as host:
        for clocks_hz, field in (
            ({"gpu": 1e9}, "clocks_hz"),
            ([1], "clocks_hz"),
            ({"npu": 1}, "clocks_hz.npu"),
        ):
            error = host.refused("set_clocks", clocks_hz=clocks_hz)
            assert (error["type"], error["field"]) == ("bad-request", field)
        error = host.refused("set_clocks", clocks_hz={"gpu": 1_134_750_000})
        assert (error["type"], error["value"]) == ("off-table", 1_134_750_000)
        assert error["allowed"] == list(TX2_GPU_HZ)
        assert "set_clocks" in host.refused("set_clock")["allowed"]
        assert host.refused("idle", seconds="long")["field"] == "seconds"
        assert host.refused("idle", seconds=9, deadline_s=1)["type"] == "deadline"
        assert host.refused("loop_start", program="a", runs_per_block=1)["type"] == "workload"
        for line in ("{", "[]", "\u00e4\u00f6"):
            host.send(line)
            assert host.reply(None)["error"]["type"] == "bad-request"
        assert host.ask("hello")["protocol"] == 1
    assert contents(tree) == before


def drop_link(host: Host) -> None:
    host.drop()


def terminate(host: Host) -> None:
    host.process.send_signal(signal.SIGTERM)


def hang_up(host: Host) -> None:
    host.process.send_signal(signal.SIGHUP)


def fall_silent(host: Host) -> None:
    """The watchdog of these agents is short."""


@pytest.mark.parametrize("end", [drop_link, terminate, hang_up, fall_silent])
@pytest.mark.parametrize("busy", [False, True])
def test_however_the_host_goes_the_board_is_restored(tree, end, busy):
    before = contents(tree)
    watchdog = ("--watchdog-s", "1.5") if end is fall_silent else ()
    with Host(tree, agent=("--allow-dvfs", *watchdog)) as host:
        host.ask("set_clocks", clocks_hz=CLOCKS)
        assert contents(tree) != before
        if busy:
            host.post("idle", seconds=60)
            time.sleep(0.1)
        began = time.monotonic()
        end(host)
        assert host.ended() == 0
        assert time.monotonic() - began < 5.0
    assert contents(tree) == before


def test_any_line_keeps_the_watchdog_quiet_even_during_a_long_request(tree):
    with Host(tree, agent=("--watchdog-s", "1.0")) as host:
        number = host.post("idle", seconds=1.6)
        for _ in range(8):
            time.sleep(0.2)
            host.send('{"op": "heartbeat"}')
        assert host.reply(number)["ok"]
        assert host.ask("hello")["protocol"] == 1


def test_a_host_that_no_longer_reads_does_not_keep_the_board(tree):
    """A link that is down without saying so: the pipe fills, and the watchdog must still come."""
    before = contents(tree)
    command = [sys.executable, str(Path(__file__).with_name("serve_fake_board.py")), str(tree)]
    command += ["--", "serve", "--allow-dvfs", "--watchdog-s", "1.5"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"id": 1, "op": "set_clocks", "clocks_hz": {"gpu": %d}}\n' % TX2_GPU_HZ[0])
        process.stdin.flush()
        assert b'"ok":true' in process.stdout.readline()
        process.stdin.write(b'{"id": 2, "op": "no such operation"}\n' * 1000)  # 300 kB of replies
        process.stdin.flush()
        assert process.wait(10) == 0
    assert contents(tree) == before


@pytest.fixture
def full_pipe():
    """A pipe that nobody reads, filled to the brim: standard error behind a link that has stalled."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while os.write(writing, b"." * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(writing, True)
    yield writing
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_a_log_that_nobody_reads_keeps_neither_the_board_nor_the_workload(
    tree, tmp_path, monkeypatch, full_pipe
):
    before = contents(tree)
    noisy = "import sys\nfor _ in range(9):\n    sys.stderr.write('noise ' * 40000 + '\\n')\nraise OSError('libcuda')\n"
    (tmp_path / "onnxruntime.py").write_text(noisy)
    model = tmp_path / "a.onnx"
    model.write_bytes(b"not looked at")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Host(tree, stderr=full_pipe) as host:
        host.ask("set_clocks", clocks_hz=CLOCKS)
        program = {"name": "a", "path": str(model), "format": "onnx", "inputs": [[1]]}
        assert "libcuda" in host.refused("load", engine="onnxruntime", programs=[program])["message"]
        host.drop()
        assert host.ended(8.0) == 0
    assert contents(tree) == before


@pytest.mark.parametrize("write", [1, 4, 12])
def test_the_next_agent_restores_first_and_says_so(tree, write):
    before = contents(tree)
    with Host(tree, ("--kill-at-write", str(write))) as host:
        host.post("set_clocks", clocks_hz=CLOCKS)
        assert host.ended() == -signal.SIGKILL
    # One that may not write leaves all as it is, and says that, too.
    left = contents(tree)
    with Host(tree, agent=()) as host:
        assert host.ask("hello")["restored"] == []
        assert "stale-journal" in host.ask("discover", deadline_s=0)["flags"]
        host.ask("quit")
    assert contents(tree) == left
    with Host(tree) as host:
        restored = host.ask("hello")["restored"]
        assert contents(tree) == before
        assert f"/{GPU}/min_freq" in restored
        assert f"/{EMC}/rate" in restored
        host.ask("quit")
        assert host.ended() == 0


def test_nothing_is_written_without_permission(tree):
    def touched():
        return {
            str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(tree.rglob("*"))
        }

    agent = bundle_agent().write(tree.parent)
    before = touched()
    # A plain folder takes every write, and the real agent runs on it.
    with Host.running([sys.executable, str(agent), "serve", "--sysroot", str(tree)]) as host:
        assert host.ask("hello")["agent"].endswith(bundle_agent().sha256)
        found = host.ask("discover", deadline_s=0)
        assert (found["allow_dvfs"], found["writable"]) == (False, True)
        error = host.refused("set_clocks", clocks_hz=CLOCKS)
        assert error["type"] == "not-allowed"
        assert "allow_dvfs" in error["remedy"]
        host.ask("state")
        host.ask("idle", seconds=0.1)
        assert host.ask("restore") == {"restored": []}
        host.ask("quit")
        assert host.ended() == 0
    assert touched() == before


def test_a_board_has_one_agent_at_a_time(tree):
    with Host(tree) as first:
        first.ask("set_clocks", clocks_hz=CLOCKS)
        held = contents(tree)
        with Host(tree) as second:
            error = second.refused("hello")
            assert error["type"] == "busy"
            assert second.ended() == 3
        assert contents(tree) == held
        assert first.ask("state")["actual"]["gpu"] == CLOCKS["gpu"]
        first.ask("quit")
        first.ended()
        with Host(tree) as third:
            assert third.ask("hello")["restored"] == []


def test_engines_are_those_that_can_be_imported(tree, tmp_path, monkeypatch):
    modules = {
        "torch": "__version__ = '1.10.0'\nprint('a banner')\n",
        "onnxruntime": "raise OSError('libcudart')\n",
    }
    for name, source in modules.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with Host(tree, agent=()) as host:
        # One that has not answered in time may still be there.
        assert "engines-unknown" in host.ask("discover", deadline_s=0)["flags"]
        found = host.ask("discover")
        assert found["engines"] == [{"name": "torch", "version": "1.10.0"}]
        assert found["flags"] == []
        host.ask("quit")


def test_a_user_may_measure_but_not_steer(tree):
    with Host(tree, ("--fault", "user")) as host:
        found = host.ask("discover", deadline_s=0)
        assert (found["allow_dvfs"], found["writable"]) == (True, False)
        assert [domain["name"] for domain in found["domains"]] == ["gpu", "cpu0", "cpu1"]
        assert host.refused("set_clocks", clocks_hz={"gpu": TX2_GPU_HZ[0]})["type"] == "not-writable"
        state = host.ask("state")
        assert state["flags"] == ["unverified:cpu0", "unverified:cpu1"]
        assert host.ask("idle", seconds=0.1)["trace"]["power_w"]["VDD_IN"]


def test_a_gated_gpu_appears_to_an_agent_that_may_power_it(tree):
    with Host(tree, ("--fault", "late-devfreq"), agent=()) as host:
        assert "gpu-railgated" in host.ask("discover", deadline_s=0)["flags"]
        host.ask("quit")
        host.ended()
    with Host(tree, ("--fault", "late-devfreq")) as host:
        found = host.ask("discover", deadline_s=0)
        assert found["domains"][0] == {"name": "gpu", "frequencies_hz": list(TX2_GPU_HZ)}
        assert (tree / "sys/devices/17000000.gp10b/railgate_enable").read_text() == "0\n"
        assert [d.get("cores") for d in found["domains"][1:3]] == [
            list(cores) for cores in TX2_CLUSTERS.values()
        ]
        host.ask("quit")
    assert (tree / "sys/devices/17000000.gp10b/railgate_enable").read_text() == "1\n"


# --- the workload's process


def hanging_trtexec(folder: Path) -> Path:
    """Folder of a ``trtexec`` that starts a child of its own and never ends."""
    tool = folder / "bin" / "trtexec"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\nsleep 600 &\necho $! $$ > {folder}/pids\nwait\n")
    tool.chmod(0o755)
    return tool.parent


def load_that_hangs(host: Host, folder: Path, **fields) -> list[int]:
    """Start to load; processes of the tool that hangs."""
    model = folder / "a.onnx"
    model.write_bytes(b"not looked at")
    program = {"name": "a", "path": str(model), "format": "onnx", "inputs": [[1, 3, 8, 8]], "dtype": "fp32"}
    host.post("load", engine="trtexec", programs=[program], **fields)
    pids = folder / "pids"
    assert wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    return [int(pid) for pid in pids.read_text().split()]


@pytest.fixture
def hanging(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{hanging_trtexec(tmp_path)}:{os.environ['PATH']}")
    before = contents(tree)
    with Host(tree) as host:
        host.ask("set_clocks", clocks_hz=CLOCKS)
        yield host, tmp_path
    assert contents(tree) == before


def test_a_hung_workload_is_ended_with_its_children_at_the_deadline(hanging):
    host, folder = hanging
    began = time.monotonic()
    pids = load_that_hangs(host, folder, deadline_s=1.0)
    error = host.reply(host.number)["error"]
    assert error["type"] == "deadline"
    assert 0.9 < time.monotonic() - began < 8.0
    assert not any(is_running(pid) for pid in pids)
    assert "deadline" in host.events[0]["reason"]
    assert host.events[0]["event"] == "workload-ended"
    assert children(host.process.pid) == []
    # The agent is as good as new.
    assert host.ask("state")["actual"]["gpu"] == CLOCKS["gpu"]
    assert "deadline" in host.refused("loop_stop")["message"]
    host.ask("quit")
    assert host.ended() == 0


def test_a_lost_link_ends_a_busy_workload_with_its_children(hanging):
    host, folder = hanging
    pids = load_that_hangs(host, folder)
    host.drop()
    assert host.ended() == 0
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))


def test_a_workload_that_dies_is_reported_while_the_host_waits(hanging):
    host, folder = hanging
    load_that_hangs(host, folder)
    (worker,) = children(host.process.pid)
    os.kill(worker, signal.SIGKILL)
    error = host.reply(host.number)["error"]
    assert error["type"] == "workload"
    assert "signal 9" in error["message"]
    assert "signal 9" in host.events[0]["reason"]
    host.ask("quit")
    host.ended()


def test_a_workload_does_not_outlive_an_agent_that_is_killed(tree):
    with Host(tree) as host:
        assert host.refused("load", engine="auto", programs=[])["type"] == "workload"
        (worker,) = children(host.process.pid)
        os.kill(worker, signal.SIGSTOP)  # so that it cannot notice by itself
        host.process.kill()
        host.ended()
        gone = wait_until(lambda: not is_running(worker))
        if not gone:
            os.kill(worker, signal.SIGKILL)
        assert gone


def test_the_tool_that_a_workload_runs_does_not_outlive_an_agent_that_is_killed(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{hanging_trtexec(tmp_path)}:{os.environ['PATH']}")
    with Host(tree) as host:
        child, tool = load_that_hangs(host, tmp_path)
        host.process.kill()
        host.ended()
        assert wait_until(lambda: not is_running(tool))
        os.kill(child, signal.SIGKILL)  # a child of the tool's own, which TensorRT's has not


def test_a_process_is_kept_for_the_next_row_while_its_programs_are_the_same(tree, tmp_path, monkeypatch):
    stand_in = Path(__file__).parents[1] / "remote"  # of TensorRT's command
    monkeypatch.setenv("PATH", f"{stand_in}:{os.environ['PATH']}")
    model = tmp_path / "a.onnx"
    model.write_bytes(b"a network")
    program = {"name": "a", "path": str(model), "format": "onnx", "inputs": [[1]], "dtype": "fp32"}
    load = {"engine": "trtexec", "programs": [program]}
    loop = {"program": "a", "runs_per_block": 1, "expected_s": 60}

    def worker_of(host: Host, **changes) -> int:
        assert host.ask("load", **{**load, **changes})["engine"].startswith("trtexec")
        (worker,) = children(host.process.pid)
        return worker

    with Host(tree) as host:
        first = worker_of(host)
        host.ask("loop_start", **loop)
        host.ask("loop_stop")
        host.ask("unload")
        assert "nothing is loaded" in host.refused("decision", n_classes=10, runs=1)["message"]
        host.ask("set_clocks", clocks_hz=CLOCKS)
        assert worker_of(host) == first
        assert host.ask("decision", n_classes=10, runs=1)["seconds"] >= 0
        host.ask("unload")
        second = worker_of(host, programs=[{**program, "dtype": "fp16"}])
        assert second != first
        host.ask("unload")
        model.write_bytes(b"another network")
        third = worker_of(host, programs=[{**program, "dtype": "fp16"}])
        assert third != second
        # One that was not told to stop its loop may still be in it.
        host.ask("loop_start", **loop)
        host.ask("unload")
        assert children(host.process.pid) == []
        assert host.refused("load", engine="torch", programs=[])["type"] == "workload"
        host.ask("unload")
        assert children(host.process.pid) == []
        host.ask("quit")
        assert host.ended() == 0


PTRACE_SEIZE, WAIT_ALL = 0x4206, 0x40000000


@pytest.fixture
def undead():
    """Makes a process that stays when it is killed, as one that waits in a driver: its tracer holds it back."""
    held = []

    def hold(pid: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        libc.ptrace.restype = ctypes.c_long
        if libc.ptrace(PTRACE_SEIZE, pid, None, None) != 0:
            pytest.skip(f"no process may be traced here: {os.strerror(ctypes.get_errno())}")
        held.append(pid)

    yield hold
    for pid in held:
        os.waitpid(pid, WAIT_ALL)


def test_a_workload_that_cannot_be_killed_does_not_keep_the_board(tree, undead):
    before = contents(tree)
    with Host(tree) as host:
        host.ask("set_clocks", clocks_hz=CLOCKS)
        host.refused("load", engine="auto", programs=[])
        (worker,) = children(host.process.pid)
        undead(worker)
        host.drop()
        assert host.ended(10.0) == 1
        assert contents(tree) == before
        assert f"process {worker}) was killed and does not end" in host.stderr()
    with Host(tree) as host:  # nobody else is kept from the board
        assert host.ask("hello")["restored"] == []


def test_nothing_is_measured_beside_a_workload_that_cannot_be_killed(tree, undead):
    before = contents(tree)
    with Host(tree) as host:
        host.ask("set_clocks", clocks_hz=CLOCKS)
        host.refused("load", engine="auto", programs=[])
        (worker,) = children(host.process.pid)
        undead(worker)
        error = host.refused("load", engine="auto", programs=[])
        assert (error["type"], f"process {worker}" in error["message"]) == ("workload", True)
        assert "reboot" in error["remedy"]
        assert "does not end" in host.refused("quit")["message"]
        assert contents(tree) == before
        assert host.ended() == 1


def test_a_workload_that_dies_in_between_is_an_event(tree):
    with Host(tree) as host:
        host.refused("load", engine="auto", programs=[])
        (worker,) = children(host.process.pid)
        os.kill(worker, signal.SIGKILL)
        assert "signal 9" in host.await_event("workload-ended")["reason"]
        assert "signal 9" in host.refused("decision", n_classes=10, runs=1)["message"]
        host.ask("unload")
        host.ask("quit")
        assert host.ended() == 0
