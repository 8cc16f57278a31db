"""How good are the fronts of exits and clocks that the inner engine finds with 3500 evaluations, and how fast?

Two questions, each on 50 random tables (143 settings, as a TX2 has; half of them with clocks that act as on a board,
half with numbers in no order at all, which leaves an engine nothing to go by):

- `small`: 8 to 12 exit positions, so every choice can be computed.  Which share of the exact front's hypervolume does
  the engine reach?
- `large`: 20 to 32 positions.  Is its hypervolume at least that of pymoo's NSGA-II at equal evaluations, by a paired
  test?  Of both engines everything that they evaluated counts, not their last populations alone.

Hypervolumes are to the reference of the studies, 1.1 x the range of the exact (or both engines') front beyond its
nadir.  That counts much what all fronts have in common, so the least ratios to a reference at only 0.1 x the range are
printed beside, not judged.

Both are asked for error and energy (`expected`, the default), for error, energy and latency, and for `hadas-2d`.
`holds`: at least 99.5 % of the exact hypervolume on every small table; on the large ones, on average at least
pymoo's hypervolume, and not significantly less.

Then the time of 70 backbones x 3500 evaluations over 10,000 samples in one thread: printed, not judged.

`--quick` takes 6 tables of each; `--json` ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Literal

from _checkout import make_importable

make_importable()

import numpy as np  # noqa: E402
from _figures import machine  # noqa: E402
from _inner_tables import FloatArray, ordered_tables, unordered_tables  # noqa: E402
from scipy.stats import wilcoxon  # noqa: E402

from hadas.search.hadas_objectives import Hadas2D  # noqa: E402
from hadas.search.inner import ArrayNSGA2, Exhaustive, PymooNSGA2  # noqa: E402
from hadas.search.metrics import REFERENCE_MARGIN, HypervolumeReference  # noqa: E402
from hadas.search.objectives import Expected, Objective  # noqa: E402
from hadas.search.tables import Tables  # noqa: E402
from hadas.spaces import CLOCK_TABLES, attentivenas_space  # noqa: E402
from hadas.surrogates.threads import single_thread  # noqa: E402

Size = Literal["small", "large"]

POPULATION, GENERATIONS = 70, 50
N_TABLES, QUICK_TABLES = 50, 6
POSITIONS: dict[Size, tuple[int, int]] = {"small": (8, 12), "large": (20, 32)}
N_SAMPLES, SPEED_SAMPLES, SPEED_BACKBONES = 1000, 10_000, 70
LEAST_SHARE = 0.995
NEAR_MARGIN = 0.1
"""Of the reference that is not judged by, beyond the nadir, in ranges of the front."""
SIGNIFICANT = 0.05
OBJECTIVES: dict[str, Objective] = {
    "error, energy": Expected(),
    "error, energy, latency": Expected(with_latency=True),
    "hadas-2d": Hadas2D(),
}


@dataclass(frozen=True)
class Share:
    """Hypervolume of an engine's front over that of the yardstick, on one table.

    Attributes:
        ratio: to the exact front's (small) or to pymoo's (large).
        near_ratio: the same to the near reference.
        n_evaluated: candidates that the engine looked at; the other NSGA-II looks at as many.
    """

    size: Size
    objective: str
    ordered: bool
    ratio: float
    near_ratio: float
    n_evaluated: int


def table_of(size: Size, number: int) -> tuple[Tables, bool]:
    """One random table, and whether its clocks act as on a board."""
    low, high = POSITIONS[size]
    n_positions = (int(np.random.default_rng([73, number]).integers(low, high + 1)),)
    space, clocks, ordered = attentivenas_space(), CLOCK_TABLES["tx2-pascal-gpu"], number % 2 == 0
    if ordered:
        return ordered_tables(space, clocks, n_positions, N_SAMPLES, number), ordered
    return unordered_tables(space, len(clocks), n_positions, N_SAMPLES, number), ordered


def shares_on(size: Size, number: int) -> list[Share]:
    """All objectives on one table."""
    found = []
    with single_thread():
        tables, ordered = table_of(size, number)
        for name, objective in OBJECTIVES.items():
            ours = ArrayNSGA2(POPULATION, GENERATIONS).run(tables, objective, number)[0]
            other = (
                Exhaustive().run(tables, objective)[0]
                if size == "small"
                else PymooNSGA2(POPULATION, GENERATIONS).run(tables, objective, number)[0]
            )
            ratio, near_ratio = (
                hypervolume_ratio(ours.objectives, other.objectives, objective, margin)
                for margin in (REFERENCE_MARGIN, NEAR_MARGIN)
            )
            found.append(Share(size, name, ordered, ratio, near_ratio, ours.n_evaluated))
    return found


def hypervolume_ratio(ours: FloatArray, other: FloatArray, objective: Objective, margin: float) -> float:
    """Hypervolume of one front over another's, to a reference that both fronts together fix."""
    both = np.concatenate([other, ours])
    reference = HypervolumeReference.from_front(both, objective.columns(True), margin)
    return reference.hypervolume(ours) / reference.hypervolume(other)


@dataclass(frozen=True)
class Figure:
    """What the tables of one size say about one objective.

    Attributes:
        least, median, mean: ratios of hypervolumes.
        ordered_least, unordered_least: least ratio of each half.
        near_least, near_mean: ratios to the near reference.
        n_below: tables below the bound (small) or below pymoo (large).
        p_worse, p_better: one-sided Wilcoxon signed-rank tests on the large tables that the engine's
            hypervolume is smaller, or larger, than pymoo's.
    """

    size: Size
    objective: str
    n_tables: int
    least: float
    median: float
    mean: float
    ordered_least: float
    unordered_least: float
    near_least: float
    near_mean: float
    n_below: int
    p_worse: float | None
    p_better: float | None

    @property
    def holds(self) -> bool:
        if self.size == "small":
            return self.least >= LEAST_SHARE
        assert self.p_worse is not None
        return self.mean >= 1.0 and self.p_worse > SIGNIFICANT


def figure_of(size: Size, objective: str, shares: Sequence[Share]) -> Figure:
    mine = [s for s in shares if s.size == size and s.objective == objective]
    ratios = np.array([s.ratio for s in mine])
    near = np.array([s.near_ratio for s in mine])
    ordered = np.array([s.ordered for s in mine])
    p_worse = p_better = None
    if size == "large":
        differences = np.log(ratios)
        if (differences == 0).all():
            p_worse = p_better = 1.0
        else:
            p_worse, p_better = (
                float(wilcoxon(differences, alternative=a).pvalue) for a in ("less", "greater")
            )
    return Figure(
        size, objective, len(mine), float(ratios.min()), float(np.median(ratios)), float(ratios.mean()),
        float(ratios[ordered].min()), float(ratios[~ordered].min()), float(near.min()), float(near.mean()),
        int((ratios < (LEAST_SHARE if size == "small" else 1.0)).sum()), p_worse, p_better,
    )  # fmt: skip


def seconds_in_one_thread(n_backbones: int) -> float:
    """Time of the thorough inner budget on many large backbones."""
    rng = np.random.default_rng(74)
    n_positions = tuple(int(p) for p in rng.integers(17, 33, n_backbones))
    tables = ordered_tables(
        attentivenas_space(), CLOCK_TABLES["tx2-pascal-gpu"], n_positions, SPEED_SAMPLES, seed=0
    )
    with single_thread():
        began = time.perf_counter()
        ArrayNSGA2(POPULATION, GENERATIONS).run(tables, Expected(), 0)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TABLES} tables of each size")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    arguments = parser.parse_args()
    n_tables = QUICK_TABLES if arguments.quick else N_TABLES
    n_backbones = SPEED_BACKBONES // 10 if arguments.quick else SPEED_BACKBONES
    seconds = seconds_in_one_thread(n_backbones)
    jobs = [(size, number) for size in POSITIONS for number in range(n_tables)]
    with ProcessPoolExecutor(arguments.workers) as pool:
        shares = [share for part in pool.map(shares_on, *zip(*jobs, strict=True)) for share in part]
    figures = [figure_of(size, name, shares) for size in POSITIONS for name in OBJECTIVES]
    print(f"{n_tables} tables of each size, {POPULATION * GENERATIONS} evaluations on each")
    print(
        f"{'size':6} {'objectives':24} {'least':>8} {'median':>8} {'mean':>8} {'below':>6}  p worse p better "
        f"{'near: least':>14} {'mean':>8}"
    )
    for f in figures:
        tests = "" if f.p_worse is None else f"{f.p_worse:8.2g} {f.p_better:8.2g}"
        verdict = "holds" if f.holds else "DOES NOT HOLD"
        print(
            f"{f.size:6} {f.objective:24} {f.least:8.5f} {f.median:8.5f} {f.mean:8.5f} {f.n_below:6} {tests:17} "
            f"{f.near_least:14.5f} {f.near_mean:8.5f} {verdict}"
        )
    print(
        f"hypervolume to {REFERENCE_MARGIN} x the range of the front beyond its nadir; near: to {NEAR_MARGIN} x (not judged)"
    )
    print(
        f"{n_backbones} backbones x {POPULATION * GENERATIONS} evaluations over {SPEED_SAMPLES} samples: "
        f"{seconds:.1f} s in one thread on {machine()} (not judged)"
    )
    holds = all(f.holds for f in figures)
    print(
        f"small: at least {LEAST_SHARE:.1%} of the exact hypervolume on every table; large: on average at least "
        f"pymoo's, and not significantly less: {'holds' if holds else 'does not hold'}"
    )
    if arguments.json:
        result = {
            "benchmark": "inner_fronts", "quick": arguments.quick, "figures": [asdict(f) for f in figures],
            "evaluations": POPULATION * GENERATIONS,
            "most_evaluated": max(share.n_evaluated for share in shares),
            "reference_margins": {"judged": REFERENCE_MARGIN, "near": NEAR_MARGIN},
            "bounds": {"least_share": LEAST_SHARE, "mean_ratio_to_pymoo": 1.0, "p_worse_above": SIGNIFICANT},
            "seconds": round(seconds, 2), "speed_backbones": n_backbones, "machine": machine(), "holds": holds,
        }  # fmt: skip
        print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
