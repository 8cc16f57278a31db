"""Seed accuracies on real photographs: one supernet, every exit of at least twelve backbones, real error bars.

Trains the supernet of a small space on a subset of CIFAR, measures presets and random backbones with
all their exits, and prints for each the final classifier, the best single exit, a controller and the
oracle side by side, on the test split, with 95 % intervals.  Then it measures some backbones again
with other seeds: what batch-norm calibration and exit training add to the error of a measurement.

Bounds: at least twelve backbones, every exit of each, no policy above the oracle; and the standard
deviation of final accuracy between backbones is at least twice the standard error of one measurement
(test sample and calibration seed together).  `--quick` trains far too little for backbones to differ:
it is judged on all but that last one.  Minutes are printed beside the 30 that two cores are meant to
take; a busy machine takes longer, so they decide nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from _spread import measured, named_backbones, outcomes_of, spread_figures

from hadas.datasets.images import ImageData, load_images
from hadas.datasets.records import AccuracyRecord, Statistic
from hadas.measurement.accuracy.policies import (
    DEFAULT_CONTROLLER,
    FinalOnly,
    IdealMapping,
    Policy,
    SingleExit,
    interval_95,
    run_policy,
)
from hadas.measurement.accuracy.recipes import ExitRecipe, SupernetRecipe
from hadas.measurement.accuracy.supernet_meter import SupernetMeter
from hadas.measurement.accuracy.training import TrainedSupernet, train_supernet
from hadas.spaces import Backbone, MBConvSpace, space_by_name

QUICK_BOUNDS = {"backbones": 12.0, "share_of_exits_measured": 1.0, "oracle_over_best_policy": 0.0}
BOUNDS = {"spread_over_standard_error": 2.0, **QUICK_BOUNDS}
"""What figures must at least be."""
MEANT_MINUTES_ON_2_CORES = 30
SEED = 0
POLICIES: dict[str, Policy] = {
    "final only": FinalOnly(),
    "best single exit": SingleExit(),
    "controller": DEFAULT_CONTROLLER,
    "oracle": IdealMapping(),
}
SUPERNET = SupernetRecipe(steps=2500, batch_size=64, learning_rate=0.05, mirror=True, max_shift=2)
EXITS = ExitRecipe(calibration_batches=32, train_images=8000, epochs=5)
QUICK_SUPERNET = replace(SUPERNET, steps=60)
QUICK_EXITS = replace(EXITS, calibration_batches=4, train_images=1000, epochs=1)


@dataclass(frozen=True)
class Plan:
    """How much is measured: images per split, backbones, those measured again, and with how many seeds."""

    images: int
    random_backbones: int
    repeated_backbones: int
    repeats: int
    supernet: SupernetRecipe
    exits: ExitRecipe


FULL = Plan(10_000, 7, 4, 3, SUPERNET, EXITS)
QUICK = Plan(1_000, 5, 2, 2, QUICK_SUPERNET, QUICK_EXITS)


def policy_accuracies(record: AccuracyRecord) -> dict[str, Statistic]:
    """Test accuracy of each policy, all exits in use; whatever is fitted is fitted on the calibration split."""
    calibration, test = outcomes_of(record, "calibration"), outcomes_of(record, "test")
    everywhere = np.ones(test.n_exits - 1, dtype=bool)
    return {
        name: run_policy(policy, calibration, test, everywhere).accuracy_statistic(test.group)
        for name, policy in POLICIES.items()
    }


def repeated(
    space: MBConvSpace, data: ImageData, trained: TrainedSupernet, plan: Plan, backbones: dict[str, Backbone],
    first: dict[str, AccuracyRecord],
) -> np.ndarray:  # fmt: skip
    """Standard deviation over seeds of each column's test accuracy, one row per repeated backbone.

    Rows are (first exit, final classifier, controller).
    """
    spreads = []
    for name in list(backbones)[: plan.repeated_backbones]:
        values = []
        for seed in range(plan.repeats):
            record = first[name]
            if seed:
                meter = SupernetMeter(space, data, trained, replace(plan.exits, seed=seed))
                record = next(meter.measure([backbones[name]], session=f"seed {seed}"))
            fractions = outcomes_of(record, "test").fractions
            values.append((fractions[0], fractions[-1], policy_accuracies(record)["controller"].value))
        spreads.append(np.std(values, axis=0, ddof=1))
    return np.array(spreads)


def run(space: MBConvSpace, data: ImageData, plan: Plan) -> tuple[dict[str, float], dict[str, object]]:
    """All figures, and the rows behind them."""
    backbones = named_backbones(space, plan.random_backbones, SEED)
    with tempfile.TemporaryDirectory() as directory:
        print(f"training the supernet: {plan.supernet.steps} steps of {plan.supernet.batch_size}", flush=True)
        trained = train_supernet(space, data, plan.supernet, directory=directory, progress=_say)
        meter = SupernetMeter(space, data, trained, plan.exits)
        records = measured(meter, backbones, "accuracy_seed", "test")
        seeds = repeated(space, data, trained, plan, backbones, records)
    policies = {name: policy_accuracies(record) for name, record in records.items()}
    print("\ntest accuracy, %, all exits in use, with 95 % intervals (test sample)")
    print(f"{'':10} " + " ".join(f"{column:>17}" for column in next(iter(policies.values()))))
    for name, row in policies.items():
        print(f"{name:10} " + " ".join(f"{shown(value):>17}" for value in row.values()))
    first_seed, final_seed, controller_seed = np.sqrt(np.mean(seeds**2, axis=0))
    final = [row["final only"] for row in policies.values()]
    n_exits = {name: outcomes_of(record, "test").n_exits for name, record in records.items()}
    figures = {
        "backbones": float(len(records)),
        "exits_measured": float(sum(n_exits.values())),
        "share_of_exits_measured": sum(n_exits.values())
        / sum(b.n_blocks - space.first_exit + 1 for b in backbones.values()),
        **spread_figures(final, seed_error=float(final_seed)),
        "oracle_over_best_policy": min(
            row["oracle"].value - max(accuracy.value for name, accuracy in row.items() if name != "oracle")
            for row in policies.values()
        ),
        "calibration_seed_error": float(final_seed),
        "first_exit_seed_error": float(first_seed),
        "controller_seed_error": float(controller_seed),
        **{
            f"{column.replace(' ', '_')}_mean": float(
                np.mean([row[column].value for row in policies.values()])
            )
            for column in next(iter(policies.values()))
        },
        "training_s": trained.seconds,
        "seconds_per_backbone": float(np.mean([sum(r.seconds.values()) for r in records.values()])),
    }
    rows: dict[str, object] = {
        name: {
            "fractions": [round(float(f), 4) for f in outcomes_of(record, "test").fractions],
            **{
                policy: [round(a.value, 4), round(a.standard_error, 4)]
                for policy, a in policies[name].items()
            },
        }
        for name, record in records.items()
    }
    return figures, rows


def shown(accuracy: Statistic) -> str:
    """An accuracy in % with half its 95 % interval."""
    return f"{100 * accuracy.value:5.1f} ±{100 * (interval_95(accuracy)[1] - accuracy.value):4.1f}"


def _say(done: int, total: int, loss: float) -> None:
    if done % max(1, total // 10) == 0:
        print(f"  {done} of {total} steps, loss {loss:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="mini", help="mini or attentivenas (default: mini)")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/images"), help="folder of the images"
    )
    parser.add_argument("--dataset", default="cifar10", help="cifar10, cifar100, digits (default: cifar10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a minute: little training, few images")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    dataset = arguments.dataset
    if arguments.quick and dataset != "digits" and not arguments.data.is_dir():
        print(f"no folder {arguments.data}: the digits that scikit-learn bundles instead of {dataset}")
        dataset = "digits"
    began = time.perf_counter()
    data = load_images(dataset, path=arguments.data, limit=plan.images)
    figures, rows = run(space_by_name(arguments.space), data, plan)
    figures["minutes"] = (time.perf_counter() - began) / 60
    print()
    for name, value in figures.items():
        print(f"{name:32} {value:.4g}")
    print(f"(two cores of their own are meant to take {MEANT_MINUTES_ON_2_CORES} minutes at most)")
    bounds = QUICK_BOUNDS if arguments.quick else BOUNDS
    if arguments.quick:
        print(
            "the quick form: not judged on the spread between backbones, which it trains too little to show"
        )
    if arguments.json:
        result = {
            "benchmark": "accuracy_seed",
            "dataset": f"{data.split_id}, {len(data.train)} / {len(data.calibration)} / {len(data.test)} images",
            "figures": {name: round(value, 5) for name, value in figures.items()},
            "form": "quick: not judged on the spread between backbones" if arguments.quick else "full",
            "bounds": bounds,
            "holds": all(figures[name] >= bound for name, bound in bounds.items()),
            "backbones": rows,
            "seed": SEED,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
