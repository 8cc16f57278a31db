"""One file, the same from the same sources, that runs where only an old Python is."""

import json
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hadas.measurement.hardware.agent.bundle import bundle_agent, device_sources

from .fake_board import contents
from .host import Host
from .trees import TX2_GPU_HZ, build_tx2


@pytest.fixture
def agent(tmp_path):
    return bundle_agent().write(tmp_path)


@pytest.fixture
def tree(tmp_path):
    return build_tx2(tmp_path / "tx2")


def test_device_sources_need_no_python_above_3_6():
    sources = [str(path) for path in device_sources()]
    assert {"workload.py", "engines.py", "server.py", "sysfs.py"} <= {Path(path).name for path in sources}
    assert not any(path.endswith("bundle.py") for path in sources)
    program = "import sys; from vermin import main; sys.exit(main())"

    def vermin(*paths):
        options = ["--no-tips", "--eval-annotations", "-t=3.6-"]
        return subprocess.run(
            [sys.executable, "-c", program, *options, *paths], capture_output=True, text=True
        )

    done = vermin(*sources)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Minimum required versions: 3.6" in done.stdout
    assert vermin(__file__).returncode == 1  # it does notice


def test_the_bundle_needs_nothing_but_the_standard_library(agent, tree):
    """``-I -S``: no installed packages, no user's packages, no variables."""
    command = [sys.executable, "-I", "-S", str(agent), "restore", "--sysroot", str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(done.stdout) == {"restored": [], "problems": [], "flags": []}


def test_two_bundles_of_one_source_are_one(tmp_path, monkeypatch):
    first = bundle_agent()
    for path in (tmp_path / "a", tmp_path / "b"):
        path.mkdir()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    second = bundle_agent()
    assert first == second
    assert first.write(tmp_path / "a").read_bytes() == second.write(tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a" / "hadas-agent.pyz") as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert names[0] == "__main__.py"
    assert names[1:] == sorted(f"hadas_agent/{path.name}" for path in device_sources())


def test_the_bundle_discovers_and_restores(agent, tree):
    python = sys._base_executable  # without torch, whose import takes seconds

    def run(*arguments):
        done = subprocess.run([python, str(agent), *arguments], capture_output=True, text=True)
        return done.returncode, json.loads(done.stdout)

    before = contents(tree)
    status, found = run("discover", "--sysroot", str(tree))
    assert status == 0
    assert found["domains"][0]["frequencies_hz"] == list(TX2_GPU_HZ)
    assert contents(tree) == before

    command = [python, str(agent), "serve", "--sysroot", str(tree), "--allow-dvfs"]
    with Host.running(command) as host:
        host.ask("set_clocks", clocks_hz={"gpu": TX2_GPU_HZ[3]})
        assert run("restore", "--sysroot", str(tree))[1]["error"]["type"] == "busy"
        host.process.send_signal(signal.SIGKILL)
        host.ended()
    assert contents(tree) != before
    status, report = run("restore", "--sysroot", str(tree))
    assert (status, len(report["restored"]), report["problems"]) == (0, 4, [])
    assert contents(tree) == before
    assert run("restore", "--sysroot", str(tree)) == (0, {"restored": [], "problems": [], "flags": []})


def test_the_bundle_starts_its_own_workload(agent, tree):
    with Host.running([sys.executable, str(agent), "serve", "--sysroot", str(tree)]) as host:
        error = host.refused("load", engine="auto", programs=[])
        assert (error["type"], error["field"]) == ("workload", "programs")
        host.ask("quit")
        assert host.ended() == 0


def old_python() -> str:
    """A Python 3.6, on the path or kept by pyenv."""
    kept = sorted(Path.home().glob(".pyenv/versions/3.6.*/bin/python3.6"))
    for candidate in (shutil.which("python3.6"), *kept):
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return str(candidate)
    pytest.skip("no Python 3.6 on this machine")


def test_the_bundle_works_on_a_real_python_3_6(agent, tree):
    before = contents(tree)
    command = [old_python(), str(agent), "serve", "--sysroot", str(tree), "--allow-dvfs"]
    with Host.running(command) as host:
        assert host.ask("hello")["python"].startswith("3.6.")
        assert host.ask("discover")["scope"] == ["VDD_IN"]
        host.ask("set_clocks", clocks_hz={"gpu": TX2_GPU_HZ[0]})
        assert host.ask("idle", seconds=0.2)["trace"]["power_w"]["VDD_IN"]
        assert host.refused("load", engine="auto", programs=[])["type"] == "workload"
        host.ask("state")
        host.process.send_signal(signal.SIGKILL)
        host.ended()
    assert contents(tree) != before
    with Host.running(command) as host:
        assert host.ask("hello")["restored"]
        host.process.send_signal(signal.SIGTERM)
        assert host.ended() == 0
    assert contents(tree) == before
