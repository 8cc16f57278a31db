"""Our predictors against scikit-learn's on plain columns, on real Jetson measurements made by others.

    python benchmarks/predictors.py [--json] [--quick] [--task PART_OF_A_NAME]

Every contender gets the same training rows in the same run, and is judged on all other rows (or on the
networks that were left out).  Figures are medians over five seeds.  Intervals are judged on ten seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _checkout import make_importable

make_importable()

from _figures import machine, plain  # noqa: E402
from _plain_models import KINDS  # noqa: E402
from _predictor_runs import OURS, Done, Job, all_tasks, contenders, run_all  # noqa: E402
from _predictor_tasks import DATA, SEEDS, Bound, Score, Split, Task  # noqa: E402

COVERAGE_SEEDS = tuple(range(10))
QUICK_SEEDS = (0,)
COVERAGE = (0.87, 0.93)
NOMINAL = 0.90
FEW_ROWS = 500
HIGHER_IS_BETTER = {"tau": True, "mape": False, "mae": False}


def is_random(task: Task, splits: Sequence[Split]) -> bool:
    """Whether rows were drawn at random: one split, whose test rows are all that were not drawn."""
    return len(splits) == 1 and len(splits[0].train) + len(splits[0].test) == len(task.measured)


def work(task: Task) -> int:
    """Rows that one repetition trains on, in all its splits."""
    return sum(len(split.train) for split in task.splits(0))


def jobs_of(task: Task, quick: bool) -> Iterator[Job]:
    seeds = QUICK_SEEDS if quick else SEEDS
    for contender in contenders(task):
        yield from (Job(task.name, contender, seed) for seed in seeds)
    if not quick:
        if is_random(task, task.splits(0)):
            yield from (Job(task.name, OURS, seed) for seed in COVERAGE_SEEDS if seed not in seeds)
        yield from (Job(task.name, name, None) for name in task.floor)


@dataclass(frozen=True)
class Coverage:
    """Intervals on random rows.

    Attributes:
        share: inside, pooled over the seeds.
        n_rows: judged in all; n_test: in one seed.
        low, high: what counts as right.  Seeds test largely the same rows, and rows of one seed share one
            fit, so pooled rows are no independent draws: below 500 rows *per seed* the binomial 95 % band
            of one seed's rows counts (n_test draws of probability 0.9), else 87-93 %.
    """

    share: float
    n_rows: int
    n_test: int
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.low <= self.share <= self.high


def coverage_of(scores: Sequence[Score]) -> Coverage | None:
    """Pooled coverage of one score per seed; ``None`` where the contender gave no intervals."""
    if not scores or any(np.isnan(s.coverage_90) for s in scores):
        return None
    n_test, n_rows = scores[0].n_test, sum(s.n_test for s in scores)
    low, high = COVERAGE
    if n_test < FEW_ROWS:
        half = 1.96 * float(np.sqrt(NOMINAL * (1 - NOMINAL) / n_test))
        low, high = min(low, NOMINAL - half), max(high, NOMINAL + half)
    return Coverage(sum(s.n_covered for s in scores) / n_rows, n_rows, n_test, low, high)


@dataclass(frozen=True)
class Outcome:
    """A line of the table.

    Attributes:
        figures: by contender, medians over seeds of (medians over splits of) ``mape``, ``mae``, ``tau``.
        coverage: on random rows, all of ten seeds; ``None`` for other splits.
        floors: least errors that can be had, by name.
    """

    task: Task
    n_train: int
    figures: Mapping[str, Mapping[str, float]]
    coverage: Coverage | None
    floors: Mapping[str, float]

    def best_plain(self, figure: str) -> float:
        """The best plain model's figure; NaN without plain models."""
        values = [self.figures[kind][figure] for kind in KINDS if kind in self.figures]
        if not values:
            return float("nan")
        return max(values) if HIGHER_IS_BETTER[figure] else min(values)

    def value(self, bound: Bound) -> float:
        """What the bound is on."""
        if bound.figure == "ratio_to_best_plain":
            return self.figures[OURS]["mape"] / self.best_plain("mape")
        return self.figures[OURS][bound.figure]

    def holds(self, bound: Bound) -> bool:
        value = self.value(bound)
        above = bound.at_least is None or value >= bound.at_least
        return bool(above and (bound.at_most is None or value <= bound.at_most))


def outcome_of(task: Task, done: Sequence[Done], quick: bool) -> Outcome:
    mine = [finished for finished in done if finished.job.task == task.name]
    seeds = QUICK_SEEDS if quick else SEEDS
    figures = {}
    for name in contenders(task):
        by_seed = [d.scores for d in mine if d.job.contender == name and d.job.seed in seeds]
        figures[name] = {
            figure: float(np.median([np.median([getattr(s, figure) for s in scores]) for scores in by_seed]))
            for figure in HIGHER_IS_BETTER
        }
    first = task.splits(0)
    ours = [d.scores[0] for d in mine if d.job.contender == OURS and d.job.seed is not None]
    return Outcome(
        task, len(first[0].train), figures, coverage_of(ours) if is_random(task, first) else None,
        {d.job.contender: d.floor for d in mine if d.job.seed is None},
    )  # fmt: skip


def failures(outcomes: Sequence[Outcome], quick: bool) -> list[str]:
    """Judged bounds and coverages that do not hold; one seed is too little to judge a coverage."""
    found = []
    for outcome in outcomes:
        if not outcome.task.judged:
            continue
        for bound in outcome.task.bounds:
            if not outcome.holds(bound):
                found.append(
                    f"{outcome.task.name}: {bound.figure} {outcome.value(bound):.4g}, {reach(bound)}"
                )
        if outcome.coverage is not None and not outcome.coverage.holds and not quick:
            c = outcome.coverage
            found.append(f"{outcome.task.name}: coverage {c.share:.3f}, reach {c.low:.3f} to {c.high:.3f}")
    return found


def reach(bound: Bound) -> str:
    """A bound in words."""
    if bound.at_most is not None:
        return f"reach at most {bound.at_most:g}"
    return f"reach at least {bound.at_least:g}"


def printed(outcome: Outcome) -> list[str]:
    """The table's lines of a task."""
    task, lines = outcome.task, []
    bounds = task.bounds or (Bound("mape"),)
    for i, bound in enumerate(bounds):
        plain_figure = "mape" if bound.figure == "ratio_to_best_plain" else bound.figure
        wanted = "-" if bound.at_most is bound.at_least is None else reach(bound).removeprefix("reach ")
        verdict = "" if wanted == "-" else ("ok" if outcome.holds(bound) else "MISSED")
        first = (task.name, str(outcome.n_train)) if i == 0 else ("", "")
        lines.append(
            f"{first[0]:44.44} {first[1]:>5} {bound.figure:20} {outcome.best_plain(plain_figure):>9.4g} "
            f"{outcome.value(bound):>9.4g}  {wanted:15} {verdict:6}{'' if task.judged else ' (not judged)'}"
        )
    floors = [f"{name} {value:.3g}" for name, value in outcome.floors.items()]
    if floors:
        lines.append(f"{'':6}floor: {'; '.join(floors)}")
    if outcome.coverage is not None:
        c = outcome.coverage
        lines.append(
            f"{'':6}nominal 90 % intervals hold {100 * c.share:.1f} % of {c.n_rows} random rows "
            f"(right: {100 * c.low:.1f}-{100 * c.high:.1f} %)"
        )
    for name in task.alternatives:
        figures = outcome.figures[name]
        lines.append(f"{'':6}{name}: " + ", ".join(f"{f} {figures[f]:.4g}" for f in figures))
    return lines


def as_json(outcomes: Sequence[Outcome], quick: bool, seconds: float) -> dict[str, Any]:
    """The result, with nothing that is not a number where JSON has none for it."""
    fails = failures(outcomes, quick)
    return {
        "benchmark": "predictors",
        "figures": {
            o.task.name: {
                "n_train": o.n_train,
                "models": {m: {f: plain(v) for f, v in fs.items()} for m, fs in o.figures.items()},
                "ratio_to_best_plain": plain(o.figures[OURS]["mape"] / o.best_plain("mape")),
                "floor": {name: plain(value) for name, value in o.floors.items()},
                "coverage_90": None if o.coverage is None else plain(o.coverage.share),
                "coverage_rows": 0 if o.coverage is None else o.coverage.n_rows,
            }
            for o in outcomes
        },
        "bounds": {
            o.task.name: {
                "judged": o.task.judged,
                "coverage_90": None if o.coverage is None else [plain(o.coverage.low), plain(o.coverage.high)],
                **{
                    b.figure: {"at_most": b.at_most, "at_least": b.at_least, "holds": o.holds(b)}
                    for b in o.task.bounds
                },
            }
            for o in outcomes
        },
        "holds": not fails,
        "fails": fails,
        "seeds": list(QUICK_SEEDS if quick else SEEDS),
        "coverage_seeds": list(QUICK_SEEDS if quick else COVERAGE_SEEDS),
        "seconds": round(seconds, 1),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="one seed, and the quick tasks alone")
    parser.add_argument("--task", default="", metavar="PART_OF_A_NAME", help="tasks whose names hold this")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    arguments = parser.parse_args()
    if not DATA.exists():
        raise SystemExit(f"the measurements are not at {DATA}")
    tasks = [
        task for name, task in all_tasks().items()
        if arguments.task.lower() in name.lower() and not (arguments.quick and task.full_only)
    ]  # fmt: skip
    if not tasks:
        raise SystemExit(f"no task has '{arguments.task}' in its name; there are: {list(all_tasks())}")
    began = time.perf_counter()
    # The longest first, so that no worker ends up alone with one.
    jobs = [job for task in sorted(tasks, key=work, reverse=True) for job in jobs_of(task, arguments.quick)]
    done = run_all(jobs, arguments.workers)
    outcomes = [outcome_of(task, done, arguments.quick) for task in tasks]
    print(f"{'task':44} {'N':>5} {'figure':20} {'plain':>9} {'ours':>9}  bound")
    for outcome in outcomes:
        print("\n".join(printed(outcome)))
    fails = failures(outcomes, arguments.quick)
    print("all judged figures hold" if not fails else "does not hold:\n  " + "\n  ".join(fails))
    if arguments.json:
        print(json.dumps(as_json(outcomes, arguments.quick, time.perf_counter() - began)))


if __name__ == "__main__":
    main()
