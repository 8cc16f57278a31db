"""A killed run continues to the same front as one that was never interrupted."""

import json
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
    """Every measured point, prediction and front, to the last digit; no wall-clock times."""
    from hadas.study import BASELINES, Study

    findings = Study.open(directory / "study.yaml").findings
    outcomes = [
        p.outcome
        for label in (*range(findings.n_measured_rounds), *BASELINES)
        for p in findings.points(label)
    ]
    front = [(p.round, p.outcome) for p in findings.front(findings.loop_points())]
    searches = [findings.event(f"search:{r}") for r in range(findings.n_measured_rounds)]
    volumes = [summary.hypervolume for summary in findings.summaries()]
    return repr([outcomes, front, findings.checks(), json.dumps(searches), volumes])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = new_study(tmp_path_factory.mktemp("resume") / "whole")
    done = run_study(directory, kill_at=0)
    assert done.returncode == 0, done.stdout + done.stderr
    writes = int(done.stdout.rsplit("writes: ", 1)[1])
    return result(directory), writes, directory


@pytest.mark.parametrize("moment", ["first", "middle", "last"])
def test_killed_and_started_again_ends_with_the_same_front(moment, uninterrupted, tmp_path):
    expected, writes, _ = uninterrupted
    kill_at = {"first": 1, "middle": writes // 2, "last": writes}[moment]
    directory = new_study(tmp_path / moment)
    killed = run_study(directory, kill_at)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    again = run_study(directory, kill_at=0)
    assert again.returncode == 0, again.stdout + again.stderr
    assert result(directory) == expected


def test_running_a_finished_study_again_writes_nothing(uninterrupted):
    done = run_study(uninterrupted[2], kill_at=0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rsplit("writes: ", 1)[1].strip() == "0"
