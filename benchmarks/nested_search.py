"""How long does the largest nested search take, predictions included, and how long would it one by one?

The `thorough` budget on the full AttentiveNAS space (28 genes, 4.4e11 backbones) with the 143 settings of a TX2: 64
genomes x 7 generations, the inner engine on 10 of them a generation, 3500 designs each, 245,000 in all.  Predictors
are Gaussian processes fitted to a few hundred rows: simulated costs and modelled outcomes of 2,500 samples (see
`_attentivenas_problem.py`; nothing here is measured on a device or trained).  Timed is the search with everything it
asks of the predictors, from the first workload to the last table; fitting them is timed beside.  Both ways work in
one thread and are compared by processor time, which others who use the machine change little.

Against it stands what one would write first (`_plain_nested.py`): pymoo's NSGA-II with one predictor call per
individual.  It is run on a slice of the budget, and its seconds are scaled to the whole.

`holds`: ours is at least 50 times as fast, it evaluated the whole budget, the process never took more than 2 GB, and
both ways say the same of designs on the front.  Seconds depend on the machine and on who else uses it; whether this
run took at most 30 s is said in a line of its own, and not judged.  `--quick` takes a small budget, in which little
is asked twice: it holds if ours is faster at all, and the rest is as above.

    python benchmarks/nested_search.py [--json] [--quick] [--seed 0]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from _checkout import make_importable

make_importable()

from _attentivenas_problem import N_CLASSES, Rows, rows  # noqa: E402
from _plain_nested import PlainWorld, Slice, measured_slice  # noqa: E402
from predictor_speed import machine  # noqa: E402

from hadas.search.outcomes import OutcomeLibrary  # noqa: E402
from hadas.search.outer import SearchResult, SearchSettings, nested_search, search_settings  # noqa: E402
from hadas.search.state import Candidate  # noqa: E402
from hadas.search.world import MeanView, PredictedWorld  # noqa: E402
from hadas.spaces import Backbone  # noqa: E402
from hadas.surrogates.predictor_set import PredictorSet  # noqa: E402

LEAST_RATIO, QUICK_RATIO = 50.0, 1.0
MOST_GB, WANTED_S = 2.0, 30.0
AGREES_WITHIN = 1e-6
"""Largest relative difference of an objective between the two ways."""

N_ACCURACY, N_COSTS, N_SAMPLES = 60, 300, 2500
N_COMPARED = 20
SLICE_BACKBONES, SLICE_GENERATIONS = 3, 2


@dataclasses.dataclass(frozen=True)
class Figures:
    """What was seen.

    Attributes:
        fit_s, search_s: seconds by the clock; the search with all it asks of the predictors.
        search_processor_s: of processor time.
        plain_processor_s: of the plain way, scaled from a slice.
        ratio: plain / ours.
        n_static, n_inner: evaluations of ours.
        n_signatures: distinct blocks and heads, each tabulated once.
        peak_gb: of the process, fit and search.
        hypervolume: of the archive after each generation.
        largest_difference: relative, between the two ways, on designs of the front.
    """

    fit_s: float
    search_s: float
    search_processor_s: float
    plain_processor_s: float
    ratio: float
    n_static: int
    n_inner: int
    n_signatures: int
    peak_gb: float
    hypervolume: tuple[float, ...]
    largest_difference: float


def settings_of(quick: bool) -> SearchSettings:
    """The budget."""
    small = {
        "generations": 2,
        "survivors": 4,
        "population": 16,
        "inner_population": 20,
        "inner_generations": 10,
    }
    return search_settings("thorough", small if quick else {})


def searched(given: Rows, predictors: PredictorSet, library: OutcomeLibrary, settings: SearchSettings,
             seed: int) -> tuple[SearchResult, float, float]:  # fmt: skip
    """The search, its seconds, and those of processor time."""
    began, began_processor = time.perf_counter(), time.process_time()
    view = MeanView(given.space, predictors)
    world = PredictedWorld(given.space, given.table, view, library, n_classes=N_CLASSES)

    def progress(generation: Any) -> None:
        print(
            f"  generation {generation.generation + 1}: {generation.n_inner:,} designs, hypervolume "
            f"{generation.hypervolume:.4f}, {time.perf_counter() - began:.1f} s",
            flush=True,
        )

    found = nested_search(given.space, world, settings, seed, on_generation=progress)
    return found, time.perf_counter() - began, time.process_time() - began_processor


def largest_difference(world: PlainWorld, front: Sequence[Candidate]) -> float:
    """Relative, over the objectives of some designs of the front, between the two ways."""
    some = [front[i] for i in np.unique(np.linspace(0, len(front) - 1, N_COMPARED).astype(int))]
    plain = np.array([world.dynamic(candidate.design) for candidate in some])
    ours = np.array([candidate.objectives for candidate in some])
    return float(np.max(np.abs(ours / plain - 1.0)))


def peak_gb() -> float:
    """Largest resident memory of this process so far."""
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def run(quick: bool, seed: int) -> tuple[Figures, Slice]:
    """Fit, search, and measure a slice of the plain way."""
    shrink = 5 if quick else 1
    given = rows(N_ACCURACY // shrink, N_COSTS // shrink, N_SAMPLES, seed)
    print(
        f"{len(given.accuracy)} backbones with modelled outcomes of {N_SAMPLES} samples, {len(given.costs)} "
        f"simulated cost rows, {len(given.table)} settings",
        flush=True,
    )
    began = time.perf_counter()
    predictors = PredictorSet.fit(
        given.space,
        given.table,
        given.accuracy,
        given.costs,
        n_classes=N_CLASSES,
        seed=seed,
        candidates=("gp",),
    )
    fit_s = time.perf_counter() - began
    print(f"fitted in {fit_s:.1f} s", flush=True)
    settings = settings_of(quick)
    library = OutcomeLibrary(given.accuracy)
    found, search_s, processor_s = searched(given, predictors, library, settings, seed)
    peak = peak_gb()
    plain = PlainWorld(predictors, library, given.space)
    backbones: Sequence[Backbone] = found.population[:SLICE_BACKBONES]
    part = measured_slice(
        plain, settings.population, settings.inner_population, backbones, seed, SLICE_GENERATIONS
    )
    plain_s = part.scaled_s(found.n_static, found.n_inner)
    figures = Figures(
        fit_s, search_s, processor_s, plain_s, plain_s / processor_s, found.n_static, found.n_inner,
        predictors.cost_model.n_registered, peak, found.history, largest_difference(plain, found.front),
    )  # fmt: skip
    return figures, part


def holds(figures: Figures, settings: SearchSettings, least_ratio: float) -> bool:
    """Whether everything that is judged is as it should be."""
    designs = settings.inner_population * settings.inner_generations
    budget = settings.generations * settings.survivors * designs
    return (
        figures.ratio >= least_ratio
        and figures.n_inner == budget
        and figures.peak_gb <= MOST_GB
        and figures.largest_difference <= AGREES_WITHIN
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a small budget and few rows")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    least_ratio = QUICK_RATIO if arguments.quick else LEAST_RATIO
    figures, part = run(arguments.quick, arguments.seed)
    fine = holds(figures, settings_of(arguments.quick), least_ratio)
    print(
        f"ours: {figures.n_static} backbones and {figures.n_inner:,} designs in {figures.search_s:.1f} s "
        f"({figures.search_processor_s:.1f} s of processor time), "
        f"{figures.n_signatures} blocks and heads tabulated, peak {figures.peak_gb:.2f} GB"
    )
    print(
        f"plain: {part.n_static} backbones in {part.static_s:.1f} s and {part.n_inner} designs in {part.inner_s:.1f} s "
        f"({1e3 * part.inner_s / part.n_inner:.1f} ms each), scaled to the same budget {figures.plain_processor_s:,.0f} s"
    )
    print(f"largest relative difference on the front: {figures.largest_difference:.1e}")
    if not arguments.quick:
        reached = "REACHED" if figures.search_s <= WANTED_S else "NOT REACHED"
        print(f"On {machine()}: {figures.search_s:.1f} s in this run, wanted {WANTED_S:g} s: {reached}")
    print(
        f"{figures.ratio:.0f} times as fast, wanted {least_ratio:g}: "
        + ("holds" if fine else "does not hold")
    )
    if arguments.json:
        result = {
            "benchmark": "nested_search", "quick": arguments.quick, "seed": arguments.seed,
            "costs": "simulated", "outcomes": "modelled", "figures": dataclasses.asdict(figures),
            "slice": dataclasses.asdict(part),
            "bounds": {"least_ratio": least_ratio, "most_gb": MOST_GB, "agrees_within": AGREES_WITHIN},
            "reached_30_s": figures.search_s <= WANTED_S, "machine": machine(), "holds": fine,
        }  # fmt: skip
        print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
