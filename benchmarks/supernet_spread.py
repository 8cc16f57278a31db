"""Is the demo's supernet worth searching in?  Spread between backbones against one measurement's error.

Trains the demo's supernet on the digits, measures the presets and random backbones with all their
exits, and compares the standard deviation of their final accuracy with the clustered standard
error of one measurement.  `--quick` shortens the training; `--json` ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from dataclasses import replace

import torch
from _spread import measured, named_backbones, outcomes_of, spread_figures

from hadas.datasets.images import load_images
from hadas.datasets.records import AccuracyRecord
from hadas.measurement.accuracy.policies.outcome import mean_statistic
from hadas.measurement.accuracy.recipes import DEMO_EXITS, DEMO_SUPERNET
from hadas.measurement.accuracy.supernet_meter import SupernetMeter
from hadas.measurement.accuracy.training import train_supernet
from hadas.spaces import mini_space

REACH = {"spread_over_standard_error": 2.0}
SAMPLING_SEED = 0


def measure(quick: bool) -> tuple[dict[str, AccuracyRecord], float]:
    """Records of presets and random backbones by name, and the seconds that training took."""
    space, data = mini_space(), load_images("digits")
    recipe = replace(DEMO_SUPERNET, steps=DEMO_SUPERNET.steps // 8) if quick else DEMO_SUPERNET
    exits = replace(DEMO_EXITS, epochs=1) if quick else DEMO_EXITS
    backbones = named_backbones(space, 3 if quick else 12, SAMPLING_SEED)
    with tempfile.TemporaryDirectory() as directory:
        trained = train_supernet(space, data, recipe, directory=directory)
        meter = SupernetMeter(space, data, trained, exits)
        records = measured(meter, backbones, "spread", "calibration")
    return records, trained.seconds


def figures_of(records: dict[str, AccuracyRecord], training_seconds: float) -> dict[str, float]:
    """All figures; accuracies on the calibration split, which the search sees."""
    outcomes = [outcomes_of(record, "calibration") for record in records.values()]
    final = [mean_statistic(matrix.correct[:, -1], matrix.group) for matrix in outcomes]
    return {
        "backbones": len(outcomes),
        **spread_figures(final),
        "first_exit_accuracy_median": statistics.median(float(matrix.fractions[0]) for matrix in outcomes),
        "training_s": training_seconds,
        "seconds_per_backbone": statistics.fmean(sum(r.seconds.values()) for r in records.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="an eighth of the training, fewer backbones")
    arguments = parser.parse_args()
    began = time.perf_counter()
    records, training_seconds = measure(arguments.quick)
    figures = figures_of(records, training_seconds)
    for name, value in figures.items():
        print(f"{name:32} {value:.4g}")
    print(f"{time.perf_counter() - began:.0f} s in all")
    if arguments.json:
        result = {
            "benchmark": "supernet_spread",
            "figures": {name: round(value, 5) for name, value in figures.items()},
            "reach": REACH,
            "holds": all(figures[name] >= bound for name, bound in REACH.items()),
            "seed": SAMPLING_SEED,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
