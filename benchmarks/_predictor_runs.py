"""Jobs of the comparison of predictors, for worker processes: one contender in one repetition each."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from _plain_models import KINDS, PlainModel
from _predictor_tasks import Contender, Score, Task, score

MODULES = ("_dvfs_tasks", "_cnn_tasks", "_accuracy_tasks")
OURS = "ours"


@cache
def all_tasks() -> Mapping[str, Task]:
    """Every task by its name."""
    found: dict[str, Task] = {}
    for module in MODULES:
        if (Path(__file__).resolve().parent / f"{module}.py").exists():
            for task in importlib.import_module(module).tasks():
                if task.name in found:
                    raise SystemExit(f"two tasks are named '{task.name}'")
                found[task.name] = task
    return found


def contenders(task: Task) -> dict[str, Contender]:
    """Ours, the plain models, and what else the task wants printed beside them."""
    plain = {} if task.plain_columns is None else {kind: PlainModel(task, kind) for kind in KINDS}
    return {OURS: task.ours, **plain, **task.alternatives}


@dataclass(frozen=True)
class Job:
    """One contender in one repetition; or, without a seed, the noise floor of that name."""

    task: str
    contender: str
    seed: int | None


@dataclass(frozen=True)
class Done:
    """What came of a job: one score per split, or the floor."""

    job: Job
    scores: tuple[Score, ...] = ()
    floor: float = float("nan")
    seconds: float = 0.0


def run(job: Job) -> Done:
    """Work on one job; tasks hold functions, so a worker makes its own."""
    began = time.perf_counter()
    task = all_tasks()[job.task]
    if job.seed is None:
        return Done(job, floor=float(task.floor[job.contender]()), seconds=time.perf_counter() - began)
    contender = contenders(task)[job.contender]
    scores = []
    for split in task.splits(job.seed):
        answer = contender(split.train, split.test, job.seed)
        scores.append(score(answer, task.measured[split.test]))
    return Done(job, tuple(scores), seconds=time.perf_counter() - began)


def run_all(jobs: Sequence[Job], n_workers: int) -> list[Done]:
    """All jobs, over processes of one thread each; what came of them in the order of the jobs."""
    from joblib import Parallel, delayed, parallel_config

    done: list[Done] = []
    with parallel_config(backend="loky", n_jobs=n_workers, inner_max_num_threads=1):
        for finished in Parallel(return_as="generator_unordered")(delayed(run)(job) for job in jobs):
            done.append(finished)
            job = finished.job
            what = "floor" if job.seed is None else f"seed {job.seed}"
            print(
                f"[{len(done)}/{len(jobs)}] {job.task}: {job.contender}, {what}: {finished.seconds:.1f} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    order = {job: i for i, job in enumerate(jobs)}
    return sorted(done, key=lambda finished: order[finished.job])
