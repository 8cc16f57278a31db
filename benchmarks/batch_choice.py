"""Our choice of a batch against BoTorch's qLogNEHVI: the same pool, the same draws, the same run.

A problem with three objectives, each one draw of a Gaussian process over six inputs.  40 points are measured; the
pool are the 200 of 600 further points that lie best by the posterior mean (by Pareto rank, then at random).  Both get
64 joint draws of the posterior at the pool and choose 8 points.  Then the points are "measured": the truth is one
more joint draw, and because a single one says little of an expectation, so are 200 others; hypervolume of measured
and chosen points together is the mean over these 201, and for the first alone it is printed beside.  What the plainer
strategies of hadas.search.strategies reach is printed, too.

Seconds are CPU seconds of one thread, so that a busy machine favours neither: of ours from arrays to choices; of
qLogNEHVI with and without building the acquisition function (what it compiles and imports on first use is paid before,
on a toy).

`holds`: ours is at least 20 times faster, the building of qLogNEHVI not counted; and over the seeds its hypervolume
is on average at least qLogNEHVI's.

    python benchmarks/batch_choice.py [--json] [--quick] [--workers 2] [--seeds 10] [--first-seed 0]
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from _checkout import make_importable
from numpy.typing import NDArray
from scipy.stats import t as student_t

make_importable()

from hadas.search.batch import Prices, choose_batch  # noqa: E402
from hadas.search.improvement import without_dominated  # noqa: E402
from hadas.search.metrics import HypervolumeReference  # noqa: E402
from hadas.search.ranking import pareto_ranks  # noqa: E402
from hadas.search.strategies import STRATEGIES, BatchProblem  # noqa: E402
from hadas.surrogates.threads import single_thread  # noqa: E402

FloatArray = NDArray[np.float64]

N_OBJECTIVES, N_INPUTS, LENGTH_SCALE = 3, 6, 0.7
N_MEASURED, N_FURTHER, N_POOL = 40, 600, 200
N_DRAWS, BATCH, N_TRUTHS = 64, 8, 201
N_SEEDS, N_QUICK = 10, 2
AT_LEAST_FASTER = 20.0


@dataclass(frozen=True)
class Problem:
    """A pool, what is believed of it, and what it may turn out to be.

    Attributes:
        measured: (q, m) measured points.
        draws: (s, n, m) what both contenders see.
        truths: (t, n, m) further joint draws; the first is "the" truth.
        reference: of all hypervolumes.
    """

    measured: FloatArray
    draws: FloatArray
    truths: FloatArray
    reference: HypervolumeReference


def matern(a: FloatArray, b: FloatArray) -> FloatArray:
    """Matern-5/2 covariance with unit variance."""
    distance = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2)) * (np.sqrt(5.0) / LENGTH_SCALE)
    return np.asarray((1.0 + distance + distance**2 / 3.0) * np.exp(-distance))


def joint_draws(
    x: FloatArray, known: FloatArray, y: FloatArray, n: int, rng: np.random.Generator
) -> FloatArray:
    """(n, len(x), m) draws of Gaussian processes that are known (q, m) at some points."""
    jitter = 1e-8
    solved = np.linalg.solve(matern(known, known) + jitter * np.eye(len(known)), matern(known, x))
    covariance = matern(x, x) - matern(x, known) @ solved + 10 * jitter * np.eye(len(x))
    factor = np.linalg.cholesky((covariance + covariance.T) / 2)
    noise = rng.standard_normal((n, len(x), y.shape[1]))
    return np.asarray(solved.T @ y + np.einsum("ij,sjm->sim", factor, noise, optimize=True))


def problem_of(seed: int) -> Problem:
    """The problem of a seed."""
    rng = np.random.default_rng([7, seed])
    known, further = rng.random((N_MEASURED, N_INPUTS)), rng.random((N_FURTHER, N_INPUTS))
    start = np.linalg.cholesky(matern(known, known) + 1e-8 * np.eye(N_MEASURED))
    measured = start @ rng.standard_normal((N_MEASURED, N_OBJECTIVES))
    mean = matern(further, known) @ np.linalg.solve(
        matern(known, known) + 1e-8 * np.eye(N_MEASURED), measured
    )
    order = np.lexsort((rng.random(N_FURTHER), pareto_ranks(mean)))
    drawn = joint_draws(further[order[:N_POOL]], known, measured, N_DRAWS + N_TRUTHS, rng)
    front = measured[pareto_ranks(measured) == 0]
    point = front.max(axis=0) + 0.1 * np.ptp(front, axis=0)
    names = tuple(f"objective {k}" for k in range(N_OBJECTIVES))
    reference = HypervolumeReference(names, (False,) * N_OBJECTIVES, tuple(float(v) for v in point))
    return Problem(measured, drawn[:N_DRAWS], drawn[N_DRAWS:], reference)


@dataclass(frozen=True)
class Outcome:
    """What came of one seed; seconds, chosen rows, and (t,) hypervolume under each truth."""

    seconds: float
    seconds_built: float
    chosen: tuple[int, ...]
    hypervolume: FloatArray

    @property
    def expected(self) -> float:
        """Mean over truths."""
        return float(self.hypervolume.mean())


@dataclass(frozen=True)
class Repetition:
    """What came of one seed: ours, qLogNEHVI, and expected hypervolume of plainer strategies by name."""

    ours: Outcome
    qlognehvi: Outcome
    others: Mapping[str, float]


def after_measuring(problem: Problem, chosen: Sequence[int]) -> FloatArray:
    """(t,) hypervolume of measured and chosen points under each truth."""
    return np.array(
        [
            # In order of the pool, so that equal choices come to equal figures to the last digit.
            problem.reference.hypervolume(np.concatenate([problem.measured, truth[sorted(chosen)]]))
            for truth in problem.truths
        ]
    )


def ours(problem: Problem, batch: int = BATCH) -> Outcome:
    """:func:`hadas.search.batch.choose_batch`, every point for its gain, all of equal cost."""
    began = time.process_time()
    prices = Prices.equal(problem.draws.shape[1])
    found = choose_batch(
        problem.draws, problem.measured, problem.reference, batch=batch, prices=prices, information_share=0.0
    )
    seconds = time.process_time() - began
    chosen = tuple(choice.index for choice in found)
    return Outcome(seconds, seconds, chosen, after_measuring(problem, chosen))


def qlognehvi(problem: Problem, batch: int = BATCH) -> Outcome:
    """BoTorch's, on the same draws."""
    from hadas.search.botorch_batch import choose_by_qlognehvi, qlognehvi_of

    began = time.process_time()
    reference = np.array(problem.reference.point)
    front = without_dominated(problem.measured, reference)
    acquisition = qlognehvi_of(problem.draws, front, reference)
    built = time.process_time()
    found, _ = choose_by_qlognehvi(acquisition, problem.draws.shape[1], batch)
    ended = time.process_time()
    return Outcome(ended - built, ended - began, tuple(found), after_measuring(problem, found))


def warmed_up() -> None:
    """Pay what is imported and compiled on first use, in every process."""
    warnings.filterwarnings("ignore", module="torch")
    importlib.import_module("hadas.search.botorch_batch")  # before its threads are limited
    toy = problem_of(0)
    with single_thread():
        qlognehvi(Problem(toy.measured[:5], toy.draws[:4, :6], toy.truths[:1, :6], toy.reference), batch=2)
        ours(toy, batch=1)


def others(problem: Problem, seed: int) -> dict[str, float]:
    """Expected hypervolume after measuring what each of the plainer strategies chooses."""
    asked = BatchProblem(
        problem.draws, problem.measured, problem.reference, Prices.equal(problem.draws.shape[1])
    )
    plain = {name: strategy for name, strategy in STRATEGIES.items() if name not in ("hvi", "qlognehvi")}
    return {
        name: float(after_measuring(problem, [c.index for c in strategy(asked, BATCH, seed)]).mean())
        for name, strategy in plain.items()
    }


def repetition(seed: int) -> Repetition:
    """All contenders on the problem of a seed."""
    with single_thread():
        problem = problem_of(seed)
        return Repetition(ours(problem), qlognehvi(problem), others(problem, seed))


def judgement(
    results: Sequence[tuple[Outcome, Outcome]], seeds: Sequence[int], *, quick: bool
) -> dict[str, Any]:
    """Print the table and what follows from it; a JSON-ready mapping of the same."""
    print(
        "seed   ours s   qLogNEHVI s (built)   times faster   same points   hypervolume: ours   qLogNEHVI    ratio"
    )
    for seed, result in zip(seeds, results, strict=True):
        own, other = result.ours, result.qlognehvi
        same = len(set(own.chosen) & set(other.chosen))
        print(
            f"{seed:4d}  {own.seconds:7.3f}   {other.seconds:11.2f} ({other.seconds_built:5.2f})"
            f"   {other.seconds / own.seconds:12.1f}   {same:6d} of {BATCH}   {own.expected:17.4f}"
            f"   {other.expected:9.4f}   {own.expected / other.expected:.5f}"
        )
    total, theirs, built = (
        sum(values)
        for values in zip(
            *((r.ours.seconds, r.qlognehvi.seconds, r.qlognehvi.seconds_built) for r in results), strict=True
        )
    )
    relative = np.array([r.ours.expected / r.qlognehvi.expected - 1.0 for r in results])
    single = np.array([r.ours.hypervolume[0] / r.qlognehvi.hypervolume[0] - 1.0 for r in results])
    half = _half_band(relative)
    print(
        f"\n{theirs / total:.0f} times faster ({built / total:.0f} with building qLogNEHVI); at least "
        f"{AT_LEAST_FASTER:g} asked for"
    )
    print(
        f"hypervolume after measuring, ours against qLogNEHVI's: {100 * relative.mean():+.4f} % +- {100 * half:.4f} % "
        f"expected, {100 * single.mean():+.4f} % +- {100 * _half_band(single):.4f} % under one truth a seed "
        "(95 % bands, paired over seeds)"
    )
    plain = {
        name: np.array([r.ours.expected / r.others[name] - 1.0 for r in results])
        for name in results[0].others
    }
    for name, gain in plain.items():
        print(f"ours against '{name}': {100 * gain.mean():+.2f} % +- {100 * _half_band(gain):.2f} % expected")
    return {
        "benchmark": "batch_choice",
        "quick": quick,
        "seeds": list(seeds),
        "figures": {
            "times_faster": theirs / total,
            "times_faster_with_build": built / total,
            "seconds_ours": total / len(results),
            "seconds_qlognehvi": theirs / len(results),
            "hypervolume_gain": float(relative.mean()),
            "hypervolume_gain_band_95": [float(relative.mean() - half), float(relative.mean() + half)],
            "hypervolume_gain_one_truth": float(single.mean()),
            "same_choices": sum(set(r.ours.chosen) == set(r.qlognehvi.chosen) for r in results),
            "hypervolume_gain_over": {name: float(gain.mean()) for name, gain in plain.items()},
        },
        "bounds": {"times_faster_at_least": AT_LEAST_FASTER, "hypervolume_gain_at_least": 0.0},
        "holds": bool(theirs / total >= AT_LEAST_FASTER and relative.mean() >= 0.0),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }


def _half_band(values: FloatArray) -> float:
    """Half the 95 % interval of a mean (Student's t); 0 of a single value."""
    if len(values) < 2:
        return 0.0
    return float(student_t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help=f"{N_QUICK} seeds, not {N_SEEDS}")
    parser.add_argument("--seeds", type=int, default=N_SEEDS)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    arguments = parser.parse_args()
    n_seeds = N_QUICK if arguments.quick else arguments.seeds
    seeds = range(arguments.first_seed, arguments.first_seed + n_seeds)
    print(f"{N_POOL} candidates x {N_DRAWS} draws, {N_OBJECTIVES} objectives, batches of {BATCH}; CPU seconds "
          f"of one thread, {os.cpu_count()} cores")  # fmt: skip
    results = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context, initializer=warmed_up) as pool:
        for seed, result in zip(seeds, pool.map(repetition, seeds), strict=True):
            results.append(result)
            print(f"seed {seed}: done", file=sys.stderr, flush=True)
    result = judgement(results, seeds, quick=arguments.quick)
    print("holds" if result["holds"] else "does not hold")
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
