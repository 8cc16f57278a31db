"""The experiments of the HADAS paper (Bouzidi et al., DATE 2023), made anew on the mini space.

The paper's supernet, its exits and its boards are not here.  A mini supernet trained on this machine stands in for the
first, its presets m0..m6 for a0..a6, and the simulator's four devices for the boards.  Accuracies are measured where
it says so and modelled from measured ones elsewhere; every cost is modelled.  ``docs/paper.md`` says what is compared
and why figures differ from the paper's.

    python benchmarks/paper/run.py [--json] [--quick] [--seeds 3] [--first-seed 0] [--workers 2]

`holds` in a full run: on each setting, under the controller and under ideal mapping, the joint search has at least
the hypervolume of either rival at equal inner evaluations (the median over seeds of the ratio), and its front dominates
more of theirs than the reverse.  `--quick` trains and searches far too little for that; it holds if every experiment
runs, and all figures that must be numbers are.

Figures go to runs/bench/paper, as PNG.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _checkout import ROOT, make_importable

make_importable()

from _contenders import (  # noqa: E402
    CONTROLLER,
    GOALS,
    ORACLE,
    PRESETS,
    Comparison,
    Fronts,
    Job,
    compare,
    equal_budgets,
    inner_evaluations,
    summarise,
)
from _dissimilarity import Ablation, ablate  # noqa: E402
from _measured_here import measured  # noqa: E402
from _mini_accuracies import DIRECTORY as MINI_DIRECTORY  # noqa: E402
from _mini_accuracies import N_BACKBONES, MiniAccuracies, mini_records  # noqa: E402
from _networks_table import (  # noqa: E402
    SETTING,
    Chosen,
    Line,
    chosen_ours,
    chosen_presets,
    line,
    preset_designs,
    saved_against,
)
from _outer_fronts import OuterFronts, outer_fronts  # noqa: E402
from _paper_plots import draw_all  # noqa: E402
from _paper_world import SETTINGS, Accuracies  # noqa: E402
from _printing import print_ablation, print_comparisons, print_outer, print_published, print_table  # noqa: E402
from _published_exits import FILE as PUBLISHED_FILE  # noqa: E402
from _published_exits import published_exits  # noqa: E402

from hadas.datasets.records import AccuracyRecord  # noqa: E402
from hadas.search.outer import SEARCH_PRESETS, SearchSettings  # noqa: E402
from hadas.spaces import Backbone  # noqa: E402

Measure = Callable[[Sequence[Backbone]], Mapping[Backbone, AccuracyRecord]]

N_SEEDS = 3
JUDGED = (CONTROLLER, ORACLE)
DRAWN = "m3"
"""Preset whose points figure 7 shows."""


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        n_backbones: measured ones that accuracies are modelled from.
        budget: of the joint search.
        seeds: of the searches.
    """

    n_backbones: int
    budget: SearchSettings
    seeds: tuple[int, ...]
    quick: bool
    directory: Path

    @property
    def mini_directory(self) -> Path:
        """Where the mini set is kept."""
        return MINI_DIRECTORY / "quick" if self.quick else MINI_DIRECTORY


def full(seeds: Sequence[int]) -> Plan:
    """The paper's outer budget, 450 in all, and 3500 inner evaluations per backbone that survives."""
    return Plan(
        N_BACKBONES, SEARCH_PRESETS["thorough"], tuple(seeds), False, ROOT / "runs" / "bench" / "paper"
    )


def quick(seeds: Sequence[int]) -> Plan:
    """Seconds: two generations, one seed."""
    budget = replace(SEARCH_PRESETS["smoke"], generations=2, survivors=7)
    return Plan(14, budget, tuple(seeds[:1]), True, ROOT / "runs" / "bench" / "paper" / "quick")


@cache
def _mini(plan: Plan) -> MiniAccuracies:
    return mini_records(plan.n_backbones, quick=plan.quick, directory=plan.mini_directory, say=_say)


@cache
def _accuracies(plan: Plan) -> Accuracies:
    mini = _mini(plan)
    return Accuracies.fit(mini.space, mini.data.n_classes, mini.records)


def _job(plan: Plan, job: Job) -> Fronts:
    return compare(_accuracies(plan), plan.budget, job)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def all_fronts(plan: Plan, workers: int) -> list[Fronts]:
    """Every comparison; what they say depends on the seeds alone."""
    jobs = [Job(setting, goal, seed) for goal in GOALS for setting in SETTINGS for seed in plan.seeds]
    found = []
    if workers == 1:
        results = map(_job, [plan] * len(jobs), jobs)
        return [_told(job, fronts) for job, fronts in zip(jobs, results, strict=True)]
    # Each worker has its own copy of every library, and one thread.
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for job, fronts in zip(jobs, pool.map(_job, [plan] * len(jobs), jobs), strict=True):
            found.append(_told(job, fronts))
    return found


def _told(job: Job, fronts: Fronts) -> Fronts:
    _say(f"{job.setting}, {job.goal}, seed {job.seed}: done")
    return fronts


@dataclass(frozen=True)
class Table:
    """Table III by goal: the presets' lines, ours, and what ours save against all designs of all presets."""

    presets: Mapping[str, tuple[Line, ...]]
    ours: Mapping[str, tuple[Line, ...]]
    saved: Mapping[str, tuple[float, ...]]


def networks_table(plan: Plan, fronts: Sequence[Fronts], accuracies: Accuracies, measure: Measure) -> Table:
    """Choose networks in the modelled world, measure them, and compare."""
    seed = plan.seeds[0]
    rivals, beside, ours = {}, {}, {}
    for goal in (CONTROLLER, ORACLE):
        rivals[goal] = preset_designs(
            accuracies, equal_budgets(plan.budget, len(accuracies.space.presets))[PRESETS], goal, seed
        )
        beside[goal] = chosen_presets(accuracies, rivals[goal])
        found = next(f for f in fronts if f.job == Job(SETTING, goal, seed))
        first, last = (one.modelled[0] for one in beside[goal])
        ours[goal] = chosen_ours(found, (first, last))
    backbones = [one.design.backbone for chosen in (*beside.values(), *ours.values()) for one in chosen]
    backbones += accuracies.space.presets.values()
    records = measure(backbones)

    def lines(goal: str, chosen: Iterable[Chosen]) -> tuple[Line, ...]:
        return tuple(line(one, accuracies, records[one.design.backbone]) for one in chosen)

    all_rivals = {goal: lines(goal, [d for front in rivals[goal].values() for d in front]) for goal in rivals}
    own = {goal: lines(goal, ours[goal]) for goal in ours}
    return Table(
        presets={goal: lines(goal, beside[goal]) for goal in beside},
        ours=own,
        saved={goal: tuple(saved_against(all_rivals[goal], one, goal) for one in own[goal]) for goal in own},
    )


def misses(comparisons: Sequence[Comparison]) -> list[str]:
    """What keeps the judged figures from being reached."""
    return [missed for one in comparisons if one.goal in JUDGED for missed in one.misses]


def broken(
    plan: Plan, fronts: Sequence[Fronts], comparisons: Sequence[Comparison], table: Table
) -> list[str]:
    """What even a quick run shows to be wrong with the machinery."""
    wrong = []
    for found in fronts:
        where = f"{found.job.setting}, {found.job.goal}, seed {found.job.seed}"
        wrong += [
            f"{where}: {name} found nothing" for name, points in found.points.items() if not len(points)
        ]
    for one in comparisons:
        numbers = [*one.hypervolume.values(), *one.gain.values(), *one.dominates.values()]
        if not np.isfinite(numbers).all():
            wrong.append(f"{one.setting}, {one.goal}: figures that are no numbers")
    for goal, lines in table.ours.items():
        # No policy is right where no exit in use is.
        wrong += [
            f"table, {goal}, {one.chosen.name}: the controller is above the oracle"
            for one in lines
            if one.accuracy[CONTROLLER][0] > one.accuracy[ORACLE][0]
        ]
    return wrong


def judgement(
    plan: Plan,
    outer: Sequence[OuterFronts],
    fronts: Sequence[Fronts],
    comparisons: Sequence[Comparison],
    ablation: Ablation,
    table: Table,
) -> dict[str, Any]:
    """Print all tables and what follows from them; a JSON-ready mapping of the same."""
    print_outer(outer)
    print_comparisons(comparisons)
    print_ablation(ablation)
    print_table(table.presets, table.ours, table.saved)
    published = published_exits() if PUBLISHED_FILE.exists() else []
    if published:
        print_published(published)
    else:
        print(f"\na0..a5 with published accuracies: left out, {PUBLISHED_FILE} is not there")
    missed, wrong = misses(comparisons), broken(plan, fronts, comparisons, table)
    print("\njoint search at least as good as both rivals: " + ("; ".join(missed) or "everywhere"))
    if plan.quick:
        print("that decides nothing: a run without --quick does")
    print("machinery: " + ("; ".join(wrong) or "all figures numbers, no controller above its oracle"))
    found = {
        "benchmark": "paper",
        "quick": plan.quick,
        "modelled": ["costs (simulator)", "accuracies in outer, comparisons and dissimilarity"],
        "measured": ["accuracies in table (mini supernet, test split)"],
        "outer": [asdict(one) for one in outer],
        "comparisons": [asdict(one) for one in comparisons],
        "dissimilarity": {
            some: {g: asdict(e) for g, e in goals.items()} for some, goals in ablation.effects.items()
        },
        "table": {
            goal: {
                "presets": [_line_json(one) for one in table.presets[goal]],
                "ours": [
                    _line_json(one) | {"saved_at_equal_accuracy": saved}
                    for one, saved in zip(table.ours[goal], table.saved[goal], strict=True)
                ],
            }
            for goal in table.ours
        },
        "published_exits": [asdict(one) for one in published],
        "exits_per_design_by_gamma": {str(gamma): n for gamma, n in ablation.n_exits.items()},
        "inner_evaluations": inner_evaluations(plan.budget),
        "seeds": list(plan.seeds),
        "reach": {
            "hypervolume_gain_at_least": 0.0,
            "dominates_more_than_reverse": True,
            "goals": list(JUDGED),
        },
        "missed": missed,
        "broken": wrong,
        "decides": not plan.quick,
        "holds": not wrong and (plan.quick or not missed),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    ready: dict[str, Any] = json_ready(found)
    return ready


def json_ready(value: Any) -> Any:
    """Lists for tuples, and null for what is no number: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: json_ready(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _line_json(one: Line) -> dict[str, Any]:
    chosen = one.chosen
    rest = {name: value for name, value in asdict(one).items() if name != "chosen"}
    return {"name": chosen.name, "design": str(chosen.design), "modelled": list(chosen.modelled)} | rest


def experiments(
    plan: Plan, fronts: Sequence[Fronts], accuracies: Accuracies, measure: Measure
) -> dict[str, Any]:
    """What follows from the fronts, printed and drawn; a JSON-ready mapping of the same.

    Args:
        fronts: of every setting and goal that is looked at, the table's among them.
        measure: gives a valid accuracy row of each backbone.
    """
    groups: dict[tuple[str, str], list[Fronts]] = {}
    for found in fronts:
        groups.setdefault((found.job.setting, found.job.goal), []).append(found)
    comparisons = [summarise(group) for group in groups.values()]
    outer = [
        outer_fronts(accuracies, setting, [found.explored for found in group])
        for (setting, goal), group in groups.items()
        if goal == CONTROLLER
    ]
    _say("dissimilarity")
    ablation = ablate(accuracies, plan.budget, plan.seeds, DRAWN)
    table = networks_table(plan, fronts, accuracies, measure)
    for path in draw_all(plan.directory, outer, fronts, comparisons, ablation):
        _say(f"drawn: {path}")
    return judgement(plan, outer, fronts, comparisons, ablation, table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="one seed, little training and search: a minute")
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="searches of each problem")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    plan = quick(seeds) if arguments.quick else full(seeds)
    began = time.perf_counter()
    mini = _mini(plan)

    def measure(backbones: Sequence[Backbone]) -> dict[Backbone, AccuracyRecord]:
        return measured(mini, backbones, quick=plan.quick, directory=plan.directory, say=_say)

    result = experiments(plan, all_fronts(plan, arguments.workers), _accuracies(plan), measure)
    seconds = time.perf_counter() - began
    print(f"{seconds:.0f} s on {os.cpu_count()} cores")
    if arguments.json:
        print(json.dumps(result | {"seconds": seconds}))


if __name__ == "__main__":
    main()
