"""A killed run continues to the same front as one that was never interrupted."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import os, signal, sys
from hadas.datasets.store import Store

kill_at, study = int(sys.argv[1]), sys.argv[2]
written, original = 0, Store._write

def write(self, statements):
    global written
    original(self, statements)
    written += 1
    if written == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

Store._write = write
sys.argv = ["hadas", "run", study]
from hadas.cli import main
try:
    main()
finally:
    print(f"writes: {written}")
"""


def run_study(directory: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(kill_at), str(directory / "study.yaml")],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def new_study(directory: Path) -> Path:
    from hadas.study.config import template

    directory.mkdir()
    (directory / "study.yaml").write_text(template("study.yaml", "smoke"))
    return directory


def result(directory: Path) -> str:
    """Everything measured and the front, to the last digit."""
    from hadas.study import Study

    study = Study.open(directory / "study.yaml")
    return json.dumps([[row for row in study.front_rows()], study.result_json()], sort_keys=True)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = new_study(tmp_path_factory.mktemp("resume") / "whole")
    done = run_study(directory, kill_at=0)
    assert done.returncode == 0, done.stdout + done.stderr
    writes = int(done.stdout.rsplit("writes: ", 1)[1])
    return result(directory), writes


@pytest.mark.parametrize("moment", ["first", "middle", "last"])
def test_killed_and_started_again_ends_with_the_same_front(moment, uninterrupted, tmp_path):
    expected, writes = uninterrupted
    kill_at = {"first": 1, "middle": writes // 2, "last": writes}[moment]
    directory = new_study(tmp_path / moment)
    killed = run_study(directory, kill_at)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    again = run_study(directory, kill_at=0)
    assert again.returncode == 0, again.stdout + again.stderr
    assert result(directory) == expected


def test_running_a_finished_study_again_writes_nothing(uninterrupted, tmp_path_factory):
    directory = Path(os.fspath(tmp_path_factory.getbasetemp())) / "resume0" / "whole"
    done = run_study(directory, kill_at=0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rsplit("writes: ", 1)[1].strip() == "0"
