"""Measurements that strategies of active learning need to find (nearly) the whole exact front.

    python benchmarks/active_learning.py [--json] [--quick] [--task NAME] [--seeds N] [--strategies A,B] [--workers N]

Tasks: ``clocks`` (settings of a TX2), ``macro`` (NAS-Bench-Macro), ``simulated`` (the whole problem, and a check of it).
Every strategy gets the same seeds' random numbers, ours and the compared ones also the same model and the same draws.
What is finished is kept in ``runs/bench/active_learning``: a run that was killed continues.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time

import numpy as np
from _checkout import make_importable

make_importable()

from _figures import machine  # noqa: E402
from _learning_cells import RESULTS, CellStore, cells_of, code_digest, work_all  # noqa: E402
from _learning_summary import Summary, as_json, draw, printed  # noqa: E402
from _learning_tasks import MODULES, OURS, SEEDS, selected, tasks_of  # noqa: E402
from _predictor_tasks import DATA  # noqa: E402

QUICK_SEEDS = 1
QUICK_STRATEGIES = (OURS, "random")
QUICK_TASKS = ("clocks", "macro")
"""Without ``--task``: the third trains a supernet first, where none is kept."""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one seed, one instance a task, ours and random order; judges no medians;\nwithout --task not 'simulated'",
    )
    parser.add_argument(
        "--task", default="", metavar="NAME", help=f"{', '.join(MODULES)}, or a part of a task's name"
    )
    parser.add_argument(
        "--seeds", type=int, default=len(SEEDS), help="seeds 0 .. N - 1; medians are judged on all 10"
    )
    parser.add_argument("--strategies", default="", metavar="A,B", help="ours and only these, by their names")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    if not DATA.exists():
        raise SystemExit(f"the measurements are not at {DATA}")
    quick_tasks = [task for key in QUICK_TASKS for task in tasks_of(key)]
    tasks = quick_tasks if arguments.quick and not arguments.task else selected(arguments.task)
    began, digest = time.perf_counter(), code_digest()
    n_seeds = QUICK_SEEDS if arguments.quick else min(arguments.seeds, len(SEEDS))
    named = (OURS, *arguments.strategies.split(",")) if arguments.strategies else ()
    strategies = named or (QUICK_STRATEGIES if arguments.quick else ())
    cells = cells_of(tasks, n_seeds, 1 if arguments.quick else None, strategies)
    curves = work_all(cells, CellStore(RESULTS / digest), arguments.workers)
    summaries = [Summary.of(task, curves) for task in tasks]
    judge_bounds = n_seeds == len(SEEDS)
    fails = [line for summary in summaries for line in summary.failures(judge_bounds=judge_bounds)]
    for summary in summaries:
        print("\n".join(printed(summary)))
    plot = RESULTS / "active_learning.png"
    draw(summaries, plot)
    print(f"\ncurves: {plot}")
    judged = "all judged figures hold" if judge_bounds else "seeds are too few for medians; comparisons hold"
    print(judged if not fails else "does not hold:\n  " + "\n  ".join(fails))
    missed = [line for summary in summaries for line in summary.missed_checks()]
    if missed:
        print("checks that miss, not judged:\n  " + "\n  ".join(missed))
    if arguments.json:
        bounds = {
            s.task.name: [
                {"counter": b.counter, "share": b.share, "median_at_most": b.at_most, "judged": b.judged}
                for b in s.task.bounds
            ]
            for s in summaries
        }
        document = {
            "benchmark": "active_learning",
            "figures": {summary.task.name: as_json(summary) for summary in summaries},
            "bounds": bounds,
            "judged_medians": judge_bounds,
            "strategies": list(strategies) or "all",
            "holds": not fails,
            "fails": fails,
            "seeds": n_seeds,
            "code": digest,
            "seconds": round(time.perf_counter() - began, 1),
            "machine": machine(),
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
        }
        print(json.dumps(document))


if __name__ == "__main__":
    main()
