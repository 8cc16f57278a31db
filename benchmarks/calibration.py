"""Do intervals hold on the points that a search proposes, before and after some of them are measured?

In each repetition predictors are fitted to random rows of a problem whose truth is known, a search on them proposes
what lies on the predicted front, and 24 of these points are measured.  Predictors are fitted again, with these rows,
and a second search proposes points that nobody has measured.  Judged are the intervals

* "random": of random candidates, by the first predictors;
* "before": of the points of the first search;
* "after": of the points of the second search, measured only to be judged: no predictor was fitted to them;

each as the models give them ("plain") and with the correction that a study makes
(hadas.surrogates.conformal, "corrected").  Wide intervals cover easily, so the mean width stands beside.

Costs are judged as logs, accuracies as logits, and so are widths: 0.10 of a cost is about 10 %.

    python benchmarks/calibration.py [--json] [--quick] [--workers 2] [--seeds 10] [--first-seed 0]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from _checkout import make_importable

make_importable()

from _calibration_problems import PROBLEMS, Problem, fronts  # noqa: E402
from _predictor_tasks import DATA, FloatArray  # noqa: E402

from hadas.surrogates.calibration import CalibrationSummary  # noqa: E402
from hadas.surrogates.conformal import UNCORRECTED, HeldOut, learn_correction  # noqa: E402

N_MEASURED = 24
"""Proposed points measured, and as many judged after that."""

N_RANDOM = 200
N_SEEDS, N_QUICK = 10, 1
AT_LEAST, MAX_BIAS_SD, MIN_POINTS = 0.85, 0.25, 240
PLACES = ("random", "before", "after")
FORMS = ("plain", "corrected")

Key = tuple[str, str, str, str]
"""Problem, quantity, place and form."""


@dataclass(frozen=True)
class Judged:
    """Normal predictions (n,) of one quantity at one place, and what was measured."""

    problem: str
    quantity: str
    place: str
    form: str
    mean: FloatArray
    sd: FloatArray
    measured: FloatArray


def repetition(name: str, seed: int) -> list[Judged]:
    """Search, measure, fit, search again."""
    problem: Problem = PROBLEMS[name](seed)
    rng = np.random.default_rng([82, seed])
    order = rng.permutation(len(problem.strata))
    rows, random = order[: problem.n_train], order[-N_RANDOM:]
    proposed = np.zeros(len(rows), dtype=bool)
    checked: dict[str, list[FloatArray]] = {quantity: [] for quantity in problem.measured}
    found: list[Judged] = []
    for place in ("before", "after"):
        predicted = problem.predict(rows, seed)
        some = rng.permutation(fronts(problem.objectives(predicted.mean), problem.strata, rows, N_MEASURED))
        new = np.sort(some[:N_MEASURED])
        for quantity, truth in problem.measured.items():
            mean, sd = predicted.mean[quantity], predicted.sd[quantity]
            held_out = HeldOut(predicted.held_out[quantity], proposed)
            correction = learn_correction(held_out, checked[quantity])
            places = {place: new} | ({"random": np.setdiff1d(random, rows)} if place == "before" else {})
            for where, points in places.items():
                for form, used in zip(FORMS, (UNCORRECTED, correction), strict=True):
                    normal = used.normal(mean[points], sd[points])
                    found.append(Judged(name, quantity, where, form, *normal, truth[points]))
            checked[quantity].append((truth[new] - mean[new]) / sd[new])
        rows, proposed = np.append(rows, new), np.append(proposed, np.ones(len(new), dtype=bool))
    return found


def summaries(judged: Sequence[Judged]) -> dict[Key, CalibrationSummary]:
    """Pooled over repetitions, by problem, quantity, place and form."""
    parts: dict[Key, list[Judged]] = {}
    for item in judged:
        parts.setdefault((item.problem, item.quantity, item.place, item.form), []).append(item)
    return {
        key: CalibrationSummary.of_normal(
            *(
                np.concatenate([getattr(item, field) for item in items])
                for field in ("mean", "sd", "measured")
            )
        )
        for key, items in parts.items()
    }


def line(key: Key, found: CalibrationSummary) -> str:
    """One line of the table."""
    _, quantity, place, form = key
    shares = " ".join(f"{100 * share:5.1f}" for share in found.coverage.values())
    return (
        f"{quantity:9} {place:7} {form:10} {found.n:5d}  {shares}  {found.bias_sd:+5.2f}  {found.spread_sd:5.2f}"
        f"  {found.mean_width_90:7.4f}  {found.crps:7.4f}  {found.pit_distance:.2f}"
    )


def misses(found: Mapping[Key, CalibrationSummary]) -> list[str]:
    """What keeps the figures from being reached.

    Fewer points than are asked for decide less: their coverage may then be as much lower as chance makes that of
    intervals which reach it (95 % of cases), and their bias is not judged.
    """
    missed = []
    for (problem, quantity, place, form), summary in found.items():
        if (place, form) != ("after", "corrected"):
            continue
        where, decides = f"{problem}, {quantity}", summary.n >= MIN_POINTS
        if summary.coverage[0.9] < (AT_LEAST if decides else summary.coverage_band(AT_LEAST)[0]):
            missed.append(f"{where}: coverage {100 * summary.coverage[0.9]:.1f} %")
        if decides and abs(summary.bias_sd) >= MAX_BIAS_SD:
            missed.append(f"{where}: bias {summary.bias_sd:+.2f} sd")
    return missed


def repetitions(seeds: Sequence[int], workers: int) -> list[Judged]:
    """All repetitions of all problems; what they say depends on the seeds alone."""
    jobs = [(name, seed) for name in PROBLEMS for seed in seeds]
    if workers == 1:
        return _collected(jobs, map(repetition, *zip(*jobs, strict=True)))
    # Each worker has its own copy of every library, and one thread.
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return _collected(jobs, pool.map(repetition, *zip(*jobs, strict=True)))


def _collected(jobs: Sequence[tuple[str, int]], results: Iterable[list[Judged]]) -> list[Judged]:
    found: list[Judged] = []
    for (name, seed), items in zip(jobs, results, strict=True):
        print(f"{name}, seed {seed}: done", file=sys.stderr)
        found += items
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument(
        "--quick", action="store_true", help=f"{N_QUICK} repetition of each problem, not {N_SEEDS}"
    )
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="repetitions of each problem")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    if not DATA.exists():
        sys.exit(f"{DATA} is not there: this benchmark reads public measurements from it")
    n_seeds = N_QUICK if arguments.quick else arguments.seeds
    seeds = range(arguments.first_seed, arguments.first_seed + n_seeds)
    began = time.perf_counter()
    found = summaries(repetitions(seeds, arguments.workers))
    print(f"{n_seeds} repetitions; coverage in percent at nominal 50, 80, 90, 95")
    for problem in PROBLEMS:
        print(f"\n{problem}")
        print(
            "quantity  where   intervals      n     50    80    90    95   bias     sd  width90     CRPS   PIT"
        )
        for key in sorted(found, key=lambda key: (key[1], PLACES.index(key[2]), FORMS.index(key[3]))):
            if key[0] == problem:
                print(line(key, found[key]))
    missed = misses(found)
    enough = N_MEASURED * n_seeds >= MIN_POINTS
    print(
        f"\nafter, corrected: coverage of 90 % at least {100 * AT_LEAST:g} %, bias under {MAX_BIAS_SD:g} sd: "
        + ("; ".join(missed) or "all reached")
        + ("" if enough else f" (few points: {MIN_POINTS} of each decide)")
    )
    print(f"{time.perf_counter() - began:.0f} s in all")
    if arguments.json:
        result = {
            "benchmark": "calibration",
            "figures": {"/".join(key): summary.to_json() for key, summary in found.items()},
            "seeds": list(seeds),
            "reach": {"coverage_90_at_least": AT_LEAST, "bias_sd_below": MAX_BIAS_SD, "points": MIN_POINTS},
            "missed": missed,
            "decides": enough,
            "holds": not missed,
            "machine": platform.machine(),
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
