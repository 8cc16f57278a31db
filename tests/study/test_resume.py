"""A killed run continues to the same front as one that was never interrupted."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hadas.datasets.store import Store
from hadas.study import BASELINES, Study
from hadas.study.config import template

from .running import hadas

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
main()
"""


def kill_study(directory: Path, kill_at: int) -> None:
    """Run the study in a process that is killed right after so many writes."""
    killed = subprocess.run(
        [sys.executable, "-c", CHILD, str(kill_at), str(directory / "study.yaml")],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr


def run_study(directory: Path) -> int:
    """Run the study to its end in this process; returns how often it wrote."""
    written, original = 0, Store._write

    def write(self: Store, statements: Sequence[Any]) -> None:
        nonlocal written
        original(self, statements)
        written += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "_write", write)
        done = hadas("run", directory / "study.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return written


def new_study(directory: Path) -> Path:
    directory.mkdir()
    text = template("study.yaml", "smoke").replace("supernet: {}", "supernet: {steps: 4}")
    (directory / "study.yaml").write_text(text)
    return directory


def result(directory: Path) -> str:
    """Every measured point, prediction and front, to the last digit; no wall-clock times."""
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
    writes = run_study(directory)
    return result(directory), writes, directory


@pytest.mark.parametrize("moment", ["first", "middle", "last"])
def test_killed_and_started_again_ends_with_the_same_front(moment, uninterrupted, tmp_path):
    expected, writes, _ = uninterrupted
    kill_at = {"first": 1, "middle": writes // 2, "last": writes}[moment]
    directory = new_study(tmp_path / moment)
    kill_study(directory, kill_at)
    run_study(directory)
    assert result(directory) == expected


def test_running_a_finished_study_again_writes_nothing(uninterrupted):
    assert run_study(uninterrupted[2]) == 0
