"""A killed run continues to the same front as one that was never interrupted."""

import json
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
import botorch.fit, gpytorch, pymoo.algorithms.moo.nsga2, sklearn.datasets, torch._dynamo, xgboost  # once for all
from hadas.cli import main
from hadas.datasets.store import Store
import hadas.study, hadas.search.outer, hadas.surrogates.predictor_set

def killed(kill_at, study):
    written, original = 0, Store._write

    def write(self, statements):
        nonlocal written
        original(self, statements)
        written += 1
        if written == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    Store._write = write
    sys.argv = ["hadas", "run", study]
    main()

for kill_at, study in zip(map(int, sys.argv[1::2]), sys.argv[2::2]):
    child = os.fork()
    if not child:
        killed(kill_at, study)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        sys.exit(f"{study}: not killed at write {kill_at}, status {status}")
"""


def kill_studies(moments: dict[Path, int]) -> None:
    """Run every study in a process of its own that is killed right after so many writes."""
    arguments = [str(part) for path, kill_at in moments.items() for part in (kill_at, path / "study.yaml")]
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, timeout=280
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


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


@pytest.fixture(scope="module")
def killed(uninterrupted, tmp_path_factory):
    """Studies that were killed after their first, their middle and their last write, by the moment's name."""
    _, writes, _ = uninterrupted
    base = tmp_path_factory.mktemp("killed")
    moments = {"first": 1, "middle": writes // 2, "last": writes}
    kill_studies({new_study(base / moment): kill_at for moment, kill_at in moments.items()})
    return base


@pytest.mark.parametrize("moment", ["first", "middle", "last"])
def test_killed_and_started_again_ends_with_the_same_front(moment, uninterrupted, killed):
    run_study(killed / moment)
    assert result(killed / moment) == uninterrupted[0]


def test_running_a_finished_study_again_writes_nothing(uninterrupted):
    assert run_study(uninterrupted[2]) == 0
