"""Accuracy and shares of early-exit networks not seen, predicted from 60 of the 96 published records.

    python benchmarks/edge_predictors.py [--json] [--quick] [--seeds 10] [--first-seed 0]

Every seed draws 60 records to learn from and judges on the other 36; networks with the same mounting points are kept
together.  Two questions are asked: with the threshold of each network known, as the records tell it, and without,
as it is where thresholds are calibrated after training.  Contenders see the same records:

* ours: the toolkit's joint model of accuracy and shares;
* mean: the mean accuracy, and per exit the mean share among networks seen with as many exits;
* random forest: 300 trees on plain columns; shares exit by exit, then brought to sum to one.

Figures are mean absolute errors: of accuracy in percentage points, of shares (mean over a network's exits, then over
networks) in percentage points, and of ET_avg = sum of share x published cost up to the exit in percent, on records
whose published costs are cumulative.  Standard errors are over seeds, whose test records overlap.

`holds`: ours errs less than either other contender in all three, in both questions, and its nominal 90 % intervals
hold between 84 and 95 % of what was measured, all seeds together.  However many seeds there are, they share 96 records:
of 96 independent values, a right interval holds 84.4 % or more in 19 of 20 cases, and 94.8 % or less.  Values of one
network are not independent of each other, and predictions of one split are not, so a right interval may be found wrong
more often.  Fewer than ten seeds leave records out, and judge no coverage.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _checkout import make_importable

make_importable()

from _edge_contenders import CONTENDERS, Records, Said  # noqa: E402
from _edge_records import N_TEST, RECORDS_FILE, edge_records  # noqa: E402
from _figures import at_least_one, machine, mean_and_error, with_error  # noqa: E402
from _predictor_tasks import FloatArray, IntArray  # noqa: E402

from hadas.spaces.quantized import edge_space  # noqa: E402
from hadas.study.edge.beliefs import exit_inputs  # noqa: E402
from hadas.surrogates.joint_exits import JointExitModel  # noqa: E402

N_SEEDS, N_QUICK = 10, 2
N_TRAIN, FEWER = 60, (12, 25)
QUESTIONS = {"threshold known": True, "threshold not known": False}
FIGURES = {"accuracy": "points", "shares": "points", "ET_avg": "%"}
COVERAGE = (0.84, 0.95)
"""The 5 and 95 % quantiles of a binomial share of 96 at 0.9, which lie at 0.844 and 0.948, rounded outwards."""
OTHERS = ("mean", "random forest")
N_CANDIDATES, N_DRAWS = 5000, 64


def split(groups: IntArray, n_train: int, seed: int) -> tuple[IntArray, IntArray]:
    """Exactly ``n_train`` records to learn from, and all others; groups stay whole."""
    chosen = np.zeros(len(groups), dtype=np.bool_)
    for group in np.random.default_rng([96, seed]).permutation(np.unique(groups)):
        members = groups == group
        if chosen.sum() + members.sum() <= n_train:
            chosen |= members
    if chosen.sum() != n_train:
        raise SystemExit(f"groups of records do not add up to {n_train}")
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


@dataclass(frozen=True)
class Errors:
    """Of one contender in one split.

    Attributes:
        figures: mean absolute errors by name, in the units of :data:`FIGURES`.
        inside: by name, how many measured values lay in 90 % intervals, and of how many; empty without intervals.
        off: (2, k) errors of accuracy and of log ET_avg of the k records with cumulative costs, in standard
            deviations of the draws; ``None`` without draws.
        drawn_correlation: of both in draws, mean over these records.
    """

    figures: Mapping[str, float]
    inside: Mapping[str, tuple[int, int]]
    off: FloatArray | None = None
    drawn_correlation: float = float("nan")


def judged(said: Said, truth: Records) -> Errors:
    """What was said against what was measured."""
    used = np.arange(truth.shares.shape[1]) < truth.inputs.n_exits[:, None]
    off = np.abs(said.shares - truth.shares).sum(axis=1) / truth.inputs.n_exits
    mean_cost = (truth.shares * truth.cost).sum(axis=1)
    priced = np.isfinite(mean_cost)
    cost_off = np.abs((said.shares * truth.cost).sum(axis=1) / mean_cost - 1.0)[priced]
    figures = {
        "accuracy": 100.0 * float(np.abs(said.accuracy - truth.accuracy).mean()),
        "shares": 100.0 * float(off.mean()),
        "ET_avg": 100.0 * float(cost_off.mean()),
    }
    if said.accuracy_draws is None or said.shares_draws is None:
        return Errors(figures, {})
    cost_draws = (said.shares_draws * truth.cost).sum(axis=2)[:, priced]
    drawn = np.stack([said.accuracy_draws[:, priced], np.log(cost_draws)])
    real = np.stack([truth.accuracy[priced], np.log(mean_cost[priced])])
    off = drawn - drawn.mean(axis=1, keepdims=True)
    spread = off.std(axis=1)
    together = (off[0] * off[1]).mean(axis=0) / np.maximum(spread[0] * spread[1], 1e-30)
    return Errors(
        figures,
        {
            "accuracy": _inside(said.accuracy_draws, truth.accuracy),
            "shares": _inside(said.shares_draws[:, used], truth.shares[used]),
            "ET_avg": _inside(cost_draws, mean_cost[priced]),
        },
        (real - drawn.mean(axis=1)) / np.maximum(spread, 1e-30),
        float(together.mean()),
    )


def _inside(draws: FloatArray, measured: FloatArray) -> tuple[int, int]:
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return int(((low <= measured) & (measured <= high)).sum()), len(measured)


def repetitions(records: Records, n_train: int, seeds: Sequence[int]) -> dict[str, list[Errors]]:
    """By contender, one entry per seed."""
    groups = records.inputs.placement()
    found: dict[str, list[Errors]] = {name: [] for name in CONTENDERS}
    for seed in seeds:
        train, test = split(groups, n_train, seed)
        seen, asked = records.take(train), records.take(test)
        for name, contender in CONTENDERS.items():
            found[name].append(judged(contender(seen, asked, seed), asked))
    return found


def figures_of(found: Mapping[str, Sequence[Errors]]) -> dict[str, dict[str, tuple[float, float | None]]]:
    """By figure and contender: mean over seeds and standard error, which one seed has none of."""
    return {
        figure: {name: mean_and_error([e.figures[figure] for e in errors]) for name, errors in found.items()}
        for figure in FIGURES
    }


def coverage_of(errors: Sequence[Errors]) -> dict[str, float]:
    """By figure, share of measured values inside nominal 90 % intervals, over all seeds."""
    pooled = {figure: np.sum([e.inside[figure] for e in errors], axis=0) for figure in FIGURES}
    return {figure: float(inside / total) for figure, (inside, total) in pooled.items()}


def jointness_of(errors: Sequence[Errors]) -> dict[str, float]:
    """Correlation of the errors of accuracy and log ET_avg that were made, over all seeds, and that was drawn."""
    off = np.hstack([e.off for e in errors if e.off is not None])
    drawn = float(np.mean([e.drawn_correlation for e in errors]))
    return {"made": float(np.corrcoef(off[0], off[1])[0, 1]), "drawn": drawn}


def speed(records: Records) -> dict[str, float]:
    """CPU seconds of a fit to 60 records, and of 64 draws and of the mean of 5,000 candidates."""
    seen, space = records.take(np.arange(N_TRAIN)), edge_space("mobilenetv2")
    genomes = space.sample(N_CANDIDATES, np.random.default_rng(0))
    asked = exit_inputs(space, [space.decode(genome) for genome in genomes])
    began = time.process_time()
    model = JointExitModel(seed=0).fit(seen.inputs, seen.accuracy, seen.shares, np.full(N_TRAIN, N_TEST))
    fitted = time.process_time()
    model.draws(asked, N_DRAWS, 0)
    drawn = time.process_time()
    model.mean(asked)
    return {"fit": fitted - began, "draws": drawn - fitted, "mean": time.process_time() - drawn}


def print_question(question: str, figures: Any, coverage: Mapping[str, float]) -> None:
    print(f"\n{question}: {N_TRAIN} records seen")
    print(
        f"  {'mean absolute error':22}" + "".join(f"{name:>18}" for name in CONTENDERS) + f"{'in 90 %':>10}"
    )
    for figure, unit in FIGURES.items():
        cells = [with_error(mean, error) for mean, error in figures[figure].values()]
        print(
            f"  {f'{figure} [{unit}]':22}"
            + "".join(f"{c:>18}" for c in cells)
            + f"{100 * coverage[figure]:>9.1f}%"
        )


def failures(question: str, figures: Any, coverage: Mapping[str, float], n_seeds: int) -> list[str]:
    """What does not hold."""
    missed = [
        f"{question}: {figure} errs {figures[figure]['ours'][0]:.3g}, {other} {figures[figure][other][0]:.3g}"
        for figure in FIGURES
        for other in OTHERS
        if figures[figure]["ours"][0] >= figures[figure][other][0]
    ]
    if n_seeds >= N_SEEDS:
        missed += [
            f"{question}: {100 * share:.1f} % of {figure} inside nominal 90 % intervals"
            for figure, share in coverage.items()
            if not COVERAGE[0] <= share <= COVERAGE[1]
        ]
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="two seeds, and 60 records alone")
    parser.add_argument("--seeds", type=at_least_one, default=N_SEEDS, help="number of splits")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    arguments = parser.parse_args()
    if not RECORDS_FILE.exists():
        sys.exit(f"{RECORDS_FILE} is not there: this benchmark reads published records from it")
    n_seeds = N_QUICK if arguments.quick else arguments.seeds
    seeds = range(arguments.first_seed, arguments.first_seed + n_seeds)
    result: dict[str, Any] = {}
    missed: list[str] = []
    for question, knows_threshold in QUESTIONS.items():
        records = Records.of(edge_records(), knows_threshold=knows_threshold)
        found = repetitions(records, N_TRAIN, seeds)
        figures, coverage, joint = figures_of(found), coverage_of(found["ours"]), jointness_of(found["ours"])
        print_question(question, figures, coverage)
        print(
            f"  errors of accuracy and log ET_avg go together with correlation {joint['made']:.2f}, in ours' draws "
            f"with {joint['drawn']:.2f}"
        )
        missed += failures(question, figures, coverage, n_seeds)
        result[question] = {"errors": figures, "coverage_90": coverage, "correlation": joint}
    fewer = {}
    for n_train in () if arguments.quick else FEWER:
        fewer[n_train] = figures_of(repetitions(records, n_train, seeds))
        for figure, unit in FIGURES.items():
            cells = ", ".join(f"{name} {mean:.3g}" for name, (mean, _) in fewer[n_train][figure].items())
            print(f"  {n_train} records seen, {question}: {figure} [{unit}]: {cells}")
    seconds = speed(records)
    print(
        f"\nCPU seconds ({machine()}), of {N_CANDIDATES} candidates: {N_DRAWS} joint draws {seconds['draws']:.1f}, "
        f"means {seconds['mean']:.2f}; a fit to {N_TRAIN} records {seconds['fit']:.1f}"
    )
    print("holds" if not missed else "does not hold:\n  " + "\n  ".join(missed))
    if arguments.json:
        bounds = {"ours_below": OTHERS, "coverage_90": COVERAGE, "coverage_judged": n_seeds >= N_SEEDS}
        print(
            json.dumps({
                "benchmark": "edge_predictors", "figures": result, "fewer_records": fewer, "units": FIGURES,
                "bounds": bounds, "holds": not missed, "fails": missed, "seeds": list(seeds),
                "cpu_seconds": seconds, "machine": machine(),
                "versions": {"python": platform.python_version(), "numpy": np.__version__},
            })
        )  # fmt: skip


if __name__ == "__main__":
    main()
