"""Seed accuracies on real photographs: one supernet, every exit of at least twelve backbones, real error bars.

Trains the supernet of a small space on a subset of CIFAR, measures presets and random backbones with
all their exits, and prints for each the final classifier, the best single exit, a controller and the
oracle side by side, on the test split, with 95 % intervals.  Then it measures some backbones again
with other seeds: what batch-norm calibration and exit training add to the error of a measurement.

Bound: the standard deviation of final accuracy between backbones is at least twice the standard error
of one measurement (test sample and calibration seed together).
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hadas.datasets.images import ImageData, load_images
from hadas.datasets.records import AccuracyRecord, OutcomeMatrix, clustered_standard_error
from hadas.measurement.accuracy.policies import apply_controller, fit_thresholds, ideal_mapping, leave_bits
from hadas.measurement.accuracy.recipes import ExitRecipe, SupernetRecipe
from hadas.measurement.accuracy.supernet_meter import SupernetMeter
from hadas.measurement.accuracy.training import TrainedSupernet, train_supernet
from hadas.spaces import Backbone, MBConvSpace, space_by_name

BOUNDS = {"spread_over_standard_error": 2.0, "backbones": 12, "minutes_on_2_cores": 30}
SEED = 0
Z95 = 1.96
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


@dataclass(frozen=True)
class Estimate:
    """An accuracy and its standard error (test sample alone)."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{100 * self.value:5.1f} ±{100 * Z95 * self.error:4.1f}"


def estimate(correct: np.ndarray, matrix: OutcomeMatrix) -> Estimate:
    return Estimate(float(correct.mean()), clustered_standard_error(correct, matrix.group))


def policy_accuracies(record: AccuracyRecord) -> dict[str, Estimate]:
    """Test accuracy of each policy, all exits in use; whatever is fitted is fitted on the calibration split."""
    calibration, test = record.calibration, record.test
    assert calibration is not None
    assert test is not None
    everywhere = np.ones(test.n_exits - 1, dtype=bool)
    best = int(np.argmax(calibration.fractions[:-1]))
    controller = apply_controller(test.correct, leave_bits(test, fit_thresholds(calibration)), everywhere)
    return {
        "final only": estimate(test.correct[:, -1], test),
        "best single exit": estimate(test.correct[:, best], test),
        "controller": estimate(controller.correct, test),
        "oracle": estimate(ideal_mapping(test.correct, everywhere).correct, test),
    }


def measured(meter: SupernetMeter, backbones: dict[str, Backbone]) -> dict[str, AccuracyRecord]:
    """One valid record per backbone; stops at the first that failed, with its reason."""
    records = {}
    stream = meter.measure(list(backbones.values()), session="accuracy_seed")
    for name, record in zip(backbones, stream, strict=True):
        if record.test is None:
            raise SystemExit(f"{name}: {record.reason}")
        records[name] = record
        shown = " ".join(f"{100 * f:.0f}" for f in record.test.fractions)
        print(f"{name:10} {sum(record.seconds.values()):5.1f} s   % right by exit: {shown}", flush=True)
    return records


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
            assert record.test is not None
            fractions = record.test.fractions
            values.append((fractions[0], fractions[-1], policy_accuracies(record)["controller"].value))
        spreads.append(np.std(values, axis=0, ddof=1))
    return np.array(spreads)


def run(space: MBConvSpace, data: ImageData, plan: Plan) -> tuple[dict[str, float], dict[str, object]]:
    """All figures, and the rows behind them."""
    genomes = space.sample(plan.random_backbones, np.random.default_rng(SEED))
    backbones = {**space.presets, **{f"random {i}": space.decode(g) for i, g in enumerate(genomes)}}
    with tempfile.TemporaryDirectory() as directory:
        print(f"training the supernet: {plan.supernet.steps} steps of {plan.supernet.batch_size}", flush=True)
        trained = train_supernet(space, data, plan.supernet, directory=directory, progress=_say)
        meter = SupernetMeter(space, data, trained, plan.exits)
        records = measured(meter, backbones)
        seeds = repeated(space, data, trained, plan, backbones, records)
    policies = {name: policy_accuracies(record) for name, record in records.items()}
    print("\ntest accuracy, %, all exits in use, with 95 % intervals (test sample)")
    print(f"{'':10} " + " ".join(f"{column:>17}" for column in next(iter(policies.values()))))
    for name, row in policies.items():
        print(f"{name:10} " + " ".join(f"{value!s:>17}" for value in row.values()))
    final = np.array([row["final only"].value for row in policies.values()])
    sample_error = float(np.median([row["final only"].error for row in policies.values()]))
    first_seed, final_seed, controller_seed = np.sqrt(np.mean(seeds**2, axis=0))
    error = math.hypot(sample_error, float(final_seed))
    figures = {
        "backbones": float(len(records)),
        "exits_measured": float(sum(r.test.n_exits for r in records.values() if r.test is not None)),
        "final_accuracy_sd": float(np.std(final, ddof=1)),
        "test_sample_error": sample_error,
        "calibration_seed_error": float(final_seed),
        "measurement_error": error,
        "spread_over_standard_error": float(np.std(final, ddof=1)) / error,
        "first_exit_seed_error": float(first_seed),
        "controller_seed_error": float(controller_seed),
        "final_accuracy_best": float(final.max()),
        "final_accuracy_worst": float(final.min()),
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
            "fractions": [round(float(f), 4) for f in record.test.fractions],
            **{policy: [round(e.value, 4), round(e.error, 4)] for policy, e in policies[name].items()},
        }
        for name, record in records.items()
        if record.test is not None
    }
    return figures, rows


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
    if arguments.json:
        reached = {name: figures[name] for name in ("spread_over_standard_error", "backbones")}
        result = {
            "benchmark": "accuracy_seed",
            "dataset": f"{data.split_id}, {len(data.train)} / {len(data.calibration)} / {len(data.test)} images",
            "figures": {name: round(value, 5) for name, value in figures.items()},
            "bounds": BOUNDS,
            "holds": all(value >= BOUNDS[name] for name, value in reached.items()),
            "backbones": rows,
            "seed": SEED,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
