"""Do intervals hold on the points that a search proposes, before and after some of them are measured?

In each repetition predictors are fitted to random rows of a problem whose truth is known, a search on them proposes
what lies on the predicted front, and 24 of these points are measured.  Predictors are fitted again, with these rows,
and a second search proposes points that nobody has measured.  Judged are the intervals

* "random": of random candidates, by the first predictors;
* "before": of the points of the first search;
* "after": of the points of the second search, measured only to be judged: no predictor was fitted to them;

each as the models give them ("plain") and with the correction that a study makes
(hadas.surrogates.conformal, "corrected").

Wide intervals cover easily, and make any bias small in their own standard deviations.  So the corrected intervals
"after" are right only if all three hold: coverage of 90 % at least 85 %; bias under a quarter of a standard deviation,
of the corrected one and of the plain model's (the larger of the two is judged); CRPS at most 2 % above that of the
plain intervals.  Mean widths stand beside.  Points of one repetition share a fit: the bands of coverage are over
repetitions, each taken as one number.

`holds` in a full run: 240 points of every quantity decide, and none of the three is missed.  `--quick` decides
nothing of this (`decides` is false); it holds if every place has the points it should, all figures are numbers, and
the corrected CRPS is not a quarter above the plain one on average: that is, if the machinery works.

Costs are judged as logs, accuracies as logits, and so are widths: 0.10 of a cost is about 10 %.

    python benchmarks/calibration.py [--json] [--quick] [--problem NAME] [--workers 2] [--seeds 10] [--first-seed 0]
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
from typing import Any

import numpy as np
from _checkout import make_importable
from scipy.stats import t as student_t

make_importable()

from _calibration_problems import PROBLEMS, Problem, fronts  # noqa: E402
from _predictor_tasks import DATA, FloatArray  # noqa: E402

from hadas.surrogates.calibration import CalibrationSummary, central_interval, coverage  # noqa: E402
from hadas.surrogates.conformal import UNCORRECTED, HeldOut, learn_correction  # noqa: E402

N_MEASURED = 24
"""Proposed points measured, and as many judged after that."""

N_RANDOM = 200
N_SEEDS, N_QUICK = 10, 1
AT_LEAST, MAX_BIAS_SD, MAX_CRPS_RATIO, MIN_POINTS = 0.85, 0.25, 1.02, 240
QUICK_CRPS_RATIO = 1.25
"""One repetition's CRPS is mostly chance: this only tells of a correction that is broken."""
PLACES = ("random", "before", "after")
FORMS = ("plain", "corrected")

Key = tuple[str, str, str, str]
"""Problem, quantity, place and form."""


@dataclass(frozen=True)
class Judged:
    """Normal predictions (n,) of one quantity at one place in one repetition, and what was measured.

    Attributes:
        plain_sd: the model's own standard deviations, whatever was done to them.
    """

    problem: str
    quantity: str
    place: str
    form: str
    mean: FloatArray
    sd: FloatArray
    plain_sd: FloatArray
    measured: FloatArray

    @property
    def inside_90(self) -> float:
        """Share of measurements in the central 90 % intervals."""
        return coverage(*central_interval(self.mean, self.sd, 0.9), self.measured)


@dataclass(frozen=True)
class Pooled:
    """Judged predictions of all repetitions.

    Attributes:
        plain_bias_sd: mean of (measured - predicted) / the plain model's standard deviation.
        band_90: 95 % interval of the coverage of 90 % intervals, from its scatter over repetitions (Student's t);
            0 to 1 for a single repetition.
        n_repetitions: how many.
    """

    summary: CalibrationSummary
    plain_bias_sd: float
    band_90: tuple[float, float]
    n_repetitions: int

    @classmethod
    def of(cls, items: Sequence[Judged]) -> Pooled:
        """One item per repetition."""
        mean, sd, plain_sd, measured = (
            np.concatenate([getattr(item, field) for item in items])
            for field in ("mean", "sd", "plain_sd", "measured")
        )
        repetition = np.repeat(np.arange(len(items)), [len(item.mean) for item in items])
        summary = CalibrationSummary.of_normal(mean, sd, measured, repetition)
        return cls(summary, float(np.mean((measured - mean) / plain_sd)), _band(items), len(items))

    @property
    def judged_bias_sd(self) -> float:
        """The larger of the two biases."""
        return max(self.summary.bias_sd, self.plain_bias_sd, key=abs)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return self.summary.to_json() | {
            "plain_bias_sd": self.plain_bias_sd,
            "band_90": list(self.band_90),
            "repetitions": self.n_repetitions,
        }


def _band(items: Sequence[Judged]) -> tuple[float, float]:
    shares = np.array([item.inside_90 for item in items])
    if len(shares) < 2:
        return 0.0, 1.0
    half = float(student_t.ppf(0.975, len(shares) - 1) * shares.std(ddof=1) / np.sqrt(len(shares)))
    return max(0.0, float(shares.mean()) - half), min(1.0, float(shares.mean()) + half)


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
                    found.append(Judged(name, quantity, where, form, *normal, sd[points], truth[points]))
            checked[quantity].append((truth[new] - mean[new]) / sd[new])
        rows, proposed = np.append(rows, new), np.append(proposed, np.ones(len(new), dtype=bool))
    return found


def summaries(judged: Sequence[Judged]) -> dict[Key, Pooled]:
    """Pooled over repetitions, by problem, quantity, place and form."""
    parts: dict[Key, list[Judged]] = {}
    for item in judged:
        parts.setdefault((item.problem, item.quantity, item.place, item.form), []).append(item)
    return {key: Pooled.of(items) for key, items in parts.items()}


HEADER = (
    "quantity  where   intervals      n     50    80    90    95   90 over reps     bias  in plain sd     sd"
    "  width90     CRPS   PIT"
)


def line(key: Key, pooled: Pooled) -> str:
    """One line of the table."""
    _, quantity, place, form = key
    found, (low, high) = pooled.summary, pooled.band_90
    shares = " ".join(f"{100 * share:5.1f}" for share in found.coverage.values())
    return (
        f"{quantity:9} {place:7} {form:10} {found.n:5d}  {shares}  {100 * low:5.1f} - {100 * high:5.1f}"
        f"    {found.bias_sd:+5.2f}        {pooled.plain_bias_sd:+5.2f}  {found.spread_sd:5.2f}"
        f"  {found.mean_width_90:7.4f}  {found.crps:7.4f}  {found.pit_distance:.2f}"
    )


def crps_ratio(found: Mapping[Key, Pooled], problem: str, quantity: str) -> float:
    """CRPS of the corrected intervals of points "after" / that of the plain ones."""
    plain, corrected = (found[problem, quantity, "after", form].summary.crps for form in FORMS)
    return corrected / plain


def judged_keys(found: Mapping[Key, Pooled]) -> list[tuple[str, str]]:
    """(problem, quantity) of everything judged."""
    return list(dict.fromkeys((problem, quantity) for problem, quantity, _, _ in found))


def misses(found: Mapping[Key, Pooled]) -> list[str]:
    """What keeps the figures from being reached."""
    missed = []
    for problem, quantity in judged_keys(found):
        where, pooled = f"{problem}, {quantity}", found[problem, quantity, "after", "corrected"]
        if pooled.summary.coverage[0.9] < AT_LEAST:
            missed.append(f"{where}: coverage {100 * pooled.summary.coverage[0.9]:.1f} %")
        if abs(pooled.judged_bias_sd) >= MAX_BIAS_SD:
            missed.append(f"{where}: bias {pooled.judged_bias_sd:+.2f} sd")
        if crps_ratio(found, problem, quantity) > MAX_CRPS_RATIO:
            missed.append(f"{where}: CRPS {crps_ratio(found, problem, quantity):.3f} x the plain one's")
    return missed


def decides(found: Mapping[Key, Pooled]) -> bool:
    """Whether there are points enough of every quantity."""
    return all(
        found[problem, quantity, "after", "corrected"].summary.n >= MIN_POINTS
        for problem, quantity in judged_keys(found)
    )


def broken(found: Mapping[Key, Pooled], n_seeds: int) -> list[str]:
    """What even a single repetition shows to be wrong with the machinery."""
    wrong = []
    for key, pooled in found.items():
        some = pooled.summary
        counted = some.n == N_MEASURED * n_seeds if key[2] != "random" else 0 < some.n <= N_RANDOM * n_seeds
        numbers = (*some.coverage.values(), some.bias_sd, some.spread_sd, some.mean_width_90, some.crps)
        if not counted:
            wrong.append(f"{', '.join(key)}: {some.n} points")
        if not np.isfinite(numbers).all():
            wrong.append(f"{', '.join(key)}: figures that are no numbers")
    ratios = [crps_ratio(found, problem, quantity) for problem, quantity in judged_keys(found)]
    average = float(np.exp(np.mean(np.log(ratios))))
    if not average <= QUICK_CRPS_RATIO:
        wrong.append(f"corrected CRPS {average:.2f} x the plain one's on average")
    return wrong


def repetitions(seeds: Sequence[int], workers: int, problem: str = "") -> list[Judged]:
    """All repetitions of the problems with this in their names; what they say depends on the seeds alone."""
    jobs = [(name, seed) for name in PROBLEMS if problem in name for seed in seeds]
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
    parser.add_argument(
        "--problem", default="", help="only problems whose name has this in it; decides nothing"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    if not DATA.exists():
        sys.exit(f"{DATA} is not there: this benchmark reads public measurements from it")
    n_seeds = N_QUICK if arguments.quick else arguments.seeds
    seeds = range(arguments.first_seed, arguments.first_seed + n_seeds)
    began = time.perf_counter()
    if not any(arguments.problem in name for name in PROBLEMS):
        parser.error(f"no problem has '{arguments.problem}' in its name; there are: {', '.join(PROBLEMS)}")
    found = summaries(repetitions(seeds, arguments.workers, arguments.problem))
    # Some of the problems decide as little as a quick run.
    result = judgement(found, seeds, quick=arguments.quick or bool(arguments.problem))
    print(f"{time.perf_counter() - began:.0f} s in all")
    if arguments.json:
        print(json.dumps(result))


def judgement(found: Mapping[Key, Pooled], seeds: Sequence[int], *, quick: bool) -> dict[str, Any]:
    """Print the tables and what follows from them; a JSON-ready mapping of the same."""
    print(f"{len(seeds)} repetitions; coverage in percent at nominal 50, 80, 90, 95")
    for problem in dict.fromkeys(key[0] for key in found):
        print(f"\n{problem}\n{HEADER}")
        for key in sorted(found, key=lambda key: (key[1], PLACES.index(key[2]), FORMS.index(key[3]))):
            if key[0] == problem:
                print(line(key, found[key]))
    print("\nafter, corrected against plain: CRPS and mean width of 90 % intervals")
    for problem, quantity in judged_keys(found):
        plain, corrected = (found[problem, quantity, "after", form].summary for form in FORMS)
        print(
            f"  {problem}, {quantity}: CRPS x {corrected.crps / plain.crps:.3f}, "
            f"width x {corrected.mean_width_90 / plain.mean_width_90:.2f}"
        )
    missed, wrong, enough = misses(found), broken(found, len(seeds)), decides(found) and not quick
    print(
        f"\nafter, corrected: coverage of 90 % at least {100 * AT_LEAST:g} %, bias under {MAX_BIAS_SD:g} sd in both "
        f"units, CRPS at most {MAX_CRPS_RATIO:g} x the plain one's: " + ("; ".join(missed) or "all reached")
    )
    if not enough:
        print(
            f"that decides nothing: {MIN_POINTS} points of each quantity of all problems do, in a run without --quick"
        )
    print("machinery: " + ("; ".join(wrong) or "points as many as should be, all figures numbers, CRPS kept"))
    return {
        "benchmark": "calibration",
        "quick": quick,
        "figures": {"/".join(key): pooled.to_json() for key, pooled in found.items()},
        "crps_ratio": {"/".join(key): crps_ratio(found, *key) for key in judged_keys(found)},
        "seeds": list(seeds),
        "reach": {
            "coverage_90_at_least": AT_LEAST, "bias_sd_below": MAX_BIAS_SD, "crps_ratio_at_most": MAX_CRPS_RATIO,
            "points": MIN_POINTS,
        },
        "missed": missed,
        "broken": wrong,
        "decides": enough,
        "holds": not wrong and (quick or (enough and not missed)),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }  # fmt: skip


if __name__ == "__main__":
    main()
