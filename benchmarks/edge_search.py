"""The archive search on early-exit networks in a world that is known whole, against mean-only and random choice.

The world: all networks of a subspace of the MobileNetV2 space (INT8+8, heads of one layer; any of the exits A..J:
1,024 networks, few enough for every search to look through them; --large: exits B..I each absent, of one layer or of
two: 6,561, which NSGA-II searches).  Accuracy and shares come from
an ORACLE, a joint draw of the toolkit's predictor fitted to the 96 published records, not from training; each seed has
its own.  Costs are MODELLED by the toolkit's cost model.  See ``_edge_world``.

What is counted are evaluations (each stands for a training) until the evaluated networks reach 95 and 99 % of the
exact hypervolume of (error, ET_avg, share of heads).  All contenders of a seed begin with the same seeds:

* ours: searches on the mean and on joint draws of the predictor, batches by expected hypervolume improvement, a share
  of each for information;
* mean: search on the mean alone, batches by improvement of the mean, as if predictions were certain;
* random: any other networks of the subspace;
* knows all: always the network that adds most in truth.  Nobody has that; what it needs, no better model saves.

`holds`: to both shares ours needs at most half of what random choice needs (median over seeds), and not more than
mean-only beyond chance (paired by seed; Student's t at 97.5 %, as standard errors of few seeds say little).  Where
a contender does not get there within its rounds it counts as needing one evaluation more than it made; random choice
may evaluate all.

    python benchmarks/edge_search.py [--json] [--quick] [--large] [--workers 2] [--seeds 10] [--first-seed 0]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from _checkout import make_importable

make_importable()

from _edge_records import RECORDS_FILE  # noqa: E402
from _edge_world import THRESHOLD, KnownWorld, described  # noqa: E402
from _figures import at_least_one, machine, plain  # noqa: E402
from _predictor_tasks import FloatArray, IntArray  # noqa: E402
from scipy.stats import t as student_t  # noqa: E402

from hadas.errors import AcceleratorError  # noqa: E402
from hadas.search.archive import ArchiveRound, ArchiveSettings, archive_search, seed_genomes  # noqa: E402
from hadas.search.improvement import drawn_sets  # noqa: E402
from hadas.search.metrics import HypervolumeReference  # noqa: E402
from hadas.surrogates.threads import single_thread  # noqa: E402

SHARES = (0.95, 0.99)
N_SEEDS, N_QUICK = 10, 2
SMALL: tuple[str, tuple[int, ...]] = ("ABCDEFGHIJ", (0, 1))
LARGE: tuple[str, tuple[int, ...]] = ("BCDEFGHI", (0, 1, 2))
SETTINGS = ArchiveSettings(seeds=16, rounds=14, batch=8, stop_gain=0.0)
CONTENDERS: Mapping[str, ArchiveSettings] = {
    "ours": SETTINGS,
    "mean": replace(SETTINGS, strategy="mean", searched_draws=0),
}
AT_MOST_OF_RANDOM = 0.5
CONFIDENCE = 0.975


@dataclass(frozen=True)
class Run:
    """What a contender reached.

    Attributes:
        share: (k,) of the exact hypervolume after each evaluation, from the last seed on.
        n_seeds: evaluations before the first of these but one.
        coverage: share of new accuracies within the 90 % interval believed before; NaN of random choice.
        seconds: of the whole run.
    """

    share: FloatArray
    n_seeds: int
    coverage: float
    seconds: float

    def needed(self, share: float) -> int:
        """Evaluations until a share was reached; one more than were made if it was not."""
        reached = np.flatnonzero(self.share >= share)
        return self.n_seeds + (int(reached[0]) if len(reached) else len(self.share))

    @property
    def best(self) -> float:
        """Largest share reached."""
        return float(self.share[-1])


def shares_reached(
    points: FloatArray, n_seeds: int, reference: HypervolumeReference, exact: float
) -> FloatArray:
    """(k - n_seeds + 1,) share of the exact hypervolume of the first n_seeds, n_seeds + 1, ... of (k, m) points."""
    front = points[:n_seeds]
    found = [reference.hypervolume(front) / exact]
    for point in points[n_seeds:]:
        if not (front <= point).all(axis=1).any():
            front = np.concatenate([front[~(point <= front).all(axis=1)], point[None]])
            found.append(reference.hypervolume(front) / exact)
        else:
            found.append(found[-1])
        if found[-1] >= SHARES[-1]:
            break
    return np.array(found)


def run_contender(
    world: KnownWorld, settings: ArchiveSettings, seed: int
) -> tuple[Run, HypervolumeReference]:
    """One archive search, ended when the largest share is reached."""
    began, points = time.perf_counter(), list[tuple[float, ...]]()
    scale: list[tuple[HypervolumeReference, float]] = []

    def look(one: ArchiveRound) -> str | None:
        points.extend(e.points for e in one.evaluations)
        if not scale:
            reference = HypervolumeReference.from_front(np.array(points), world.columns)
            scale.append((reference, reference.hypervolume(world.points)))
        return "far enough" if one.hypervolume >= SHARES[-1] * scale[0][1] else None

    result = archive_search(world.networks.space, world, settings, seed, on_round=look)
    reference, exact = scale[0]
    share = shares_reached(np.array(points), settings.seeds, reference, exact)
    return Run(share, settings.seeds, result.coverage_90()[0], time.perf_counter() - began), reference


def run_random(points: FloatArray, rows: IntArray, reference: HypervolumeReference, seed: int) -> Run:
    """Random choice among a world's points (N, m) after the seeds, its rows (n,), which are not evaluated again."""
    began = time.perf_counter()
    others = np.setdiff1d(np.arange(len(points)), rows)
    order = np.concatenate([rows, np.random.default_rng([seed, 77]).permutation(others)])
    share = shares_reached(points[order], len(rows), reference, reference.hypervolume(points))
    return Run(share, len(rows), float("nan"), time.perf_counter() - began)


def run_knowing(world: KnownWorld, seeds: FloatArray, reference: HypervolumeReference) -> Run:
    """Who knows the truth: after the seeds' points (n, m), always the network that adds most."""
    began = time.perf_counter()
    points = reference.transform(world.points)
    exact = reference.hypervolume(world.points)
    share = [reference.hypervolume(seeds) / exact]
    sets = drawn_sets(reference.transform(seeds), 1, np.array(reference.point))
    while share[-1] < SHARES[-1]:
        gains = sets.gains(points[None])[0]
        share.append(share[-1] + float(gains.max()) / exact)
        sets.add(points[[int(gains.argmax())]])
    return Run(np.array(share), len(seeds), float("nan"), time.perf_counter() - began)


def repetition(letters: str, head_types: tuple[int, ...], seed: int) -> dict[str, Run]:
    """All contenders in the world of a seed."""
    with single_thread():
        world = KnownWorld.of(described(letters, head_types), seed)
        runs: dict[str, Run] = {}
        for name, settings in CONTENDERS.items():
            runs[name], reference = run_contender(world, settings, seed)
            print(f"seed {seed}, {name}: {runs[name].best:.4f} of the exact hypervolume after "
                  f"{runs[name].needed(2.0) - 1} evaluations, {runs[name].seconds:.0f} s", file=sys.stderr, flush=True)  # fmt: skip
        rows = world.networks.space.rows(seed_genomes(world.networks.space, SETTINGS.seeds, seed))
        runs["random"] = run_random(world.points, rows, reference, seed)
        runs["knows all"] = run_knowing(world, world.points[rows], reference)
        return runs


def judgement(
    results: Sequence[Mapping[str, Run]], subspace: str, seeds: Sequence[int], *, quick: bool
) -> dict[str, Any]:
    """Print the table and what follows from it; a JSON-ready mapping of the same."""
    names = list(results[0])
    needed = {
        name: {share: np.array([r[name].needed(share) for r in results], dtype=float) for share in SHARES}
        for name in names
    }
    heads = "".join(f"{f'to {100 * share:g} %: median (range), got there':>38}" for share in SHARES)
    print(f"\n{'evaluations':12}{heads}{'best share':>12}{'coverage':>10}")
    for name in names:
        cells = ""
        for share in SHARES:
            own, reached = needed[name][share], sum(bool((r[name].share >= share).any()) for r in results)
            cells += f"{f'{np.median(own):g} ({own.min():g}-{own.max():g}), {reached} of {len(own)}':>38}"
        best = np.median([r[name].best for r in results])
        coverage = np.mean([r[name].coverage for r in results])
        print(f"{name:12}{cells}{best:12.4f}" + ("" if np.isnan(coverage) else f"{coverage:10.2f}"))
    fails, figures = [], dict[str, Any]()
    for share in SHARES:
        ours, label = needed["ours"][share], f"{100 * share:g} %"
        ratio = float(np.median(ours / needed["random"][share]))
        ahead = needed["mean"][share] - ours
        error = float(ahead.std(ddof=1) / np.sqrt(len(ahead))) if len(ahead) > 1 else float("inf")
        print(f"to {label}: ours needs {ratio:.3f} of random's (median; at most {AT_MOST_OF_RANDOM:g} asked for), and "
              f"{ahead.mean():+.1f} +- {error:.1f} fewer than mean-only (mean, standard error, paired)")  # fmt: skip
        if not ratio <= AT_MOST_OF_RANDOM:
            fails.append(f"to {label}: {ratio:.3f} of random's")
        if len(ahead) > 1 and -ahead.mean() > student_t.ppf(CONFIDENCE, len(ahead) - 1) * error:
            fails.append(f"to {label}: mean-only needs fewer")
        figures[label] = {
            "median_needed": {name: float(np.median(needed[name][share])) for name in names},
            "needed": {name: needed[name][share].tolist() for name in names},
            "ratio_to_random": ratio,
            "ahead_of_mean_only": float(ahead.mean()),
            "ahead_of_mean_only_standard_error": error if np.isfinite(error) else None,
        }
    return {
        "benchmark": "edge_search",
        "quick": quick,
        "subspace": subspace,
        "seeds": list(seeds),
        "truth": "oracle (predictor fitted to 96 published records, one joint draw per seed); costs MODELLED",
        "figures": {
            "evaluations": figures,
            "accuracy_coverage_90": {
                name: plain(float(np.mean([r[name].coverage for r in results]))) for name in CONTENDERS
            },
            "seconds": {name: float(np.mean([r[name].seconds for r in results])) for name in names},
        },
        "bounds": {
            "ratio_to_random_at_most": AT_MOST_OF_RANDOM,
            "mean_only_not_ahead_with_confidence": CONFIDENCE,
        },
        "holds": not fails,
        "fails": fails,
        "machine": machine(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help=f"{N_QUICK} seeds, not {N_SEEDS}")
    parser.add_argument("--large", action="store_true", help="the larger subspace")
    parser.add_argument("--seeds", type=at_least_one, default=N_SEEDS)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes of one thread each"
    )
    arguments = parser.parse_args()
    if not RECORDS_FILE.exists():
        raise SystemExit(
            f"{RECORDS_FILE} is not there: the oracle of this benchmark is fitted to published records"
        )
    n_seeds = N_QUICK if arguments.quick else arguments.seeds
    seeds = range(arguments.first_seed, arguments.first_seed + n_seeds)
    subspace = LARGE if arguments.large else SMALL
    try:
        space = described(*subspace).space  # fills the table of layers once, for all processes
    except AcceleratorError as error:  # without zigzag-dse, among others
        raise SystemExit(str(error)) from error
    print(f"{space.name}: {len(space.genomes):,} networks, threshold {THRESHOLD:g}; {SETTINGS.seeds} seeds, rounds of "
          f"{SETTINGS.batch}; accuracy and shares from an oracle, costs MODELLED; {machine()}")  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
        results = list(pool.map(partial(repetition, *subspace), seeds))
    result = judgement(results, space.name, seeds, quick=arguments.quick)
    print("holds" if result["holds"] else "does not hold:\n  " + "\n  ".join(result["fails"]))
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
