"""Is the default distillation the better one?  `kl` against `alpha` in short trainings on the digits.

Trains the mini supernet by both losses, everything else alike, and compares accuracies on the
calibration split, batch norm on the statistics of these images.  Short trainings alone: what a long
one would say is not shown.  Bound: the mean accuracy of the default is at least that of the other.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from dataclasses import replace

import torch

from hadas.datasets.images import ImageData, load_images
from hadas.measurement.accuracy.network import images_to_input
from hadas.measurement.accuracy.recipes import SupernetRecipe
from hadas.measurement.accuracy.training import load_supernet, train_supernet
from hadas.spaces import mini_space

RECIPE = SupernetRecipe(steps=80, learning_rate=0.1)
SEEDS = (0, 1)
LIMIT = 100
BOUNDS = {"kl_minus_alpha_mean": 0.0}


def accuracies(data: ImageData, recipe: SupernetRecipe) -> dict[str, float]:
    """Accuracy of the smallest, a middle and the largest backbone after one training."""
    space = mini_space()
    backbones = {"smallest": space.smallest, "m3": space.presets["m3"], "largest": space.largest}
    with tempfile.TemporaryDirectory() as directory:
        trained = train_supernet(space, data, recipe, directory=directory)
        supernet, _ = load_supernet(trained.path, space, data.n_classes)
    images = images_to_input(torch.from_numpy(data.calibration.images))
    labels = torch.from_numpy(data.calibration.labels)
    with torch.no_grad():
        return {
            name: float((supernet(images, backbone).argmax(1) == labels).float().mean())
            for name, backbone in backbones.items()
        }


def run(seeds: tuple[int, ...], recipe: SupernetRecipe) -> dict[str, float]:
    """Mean accuracy over seeds by loss and backbone, and the mean difference of the losses."""
    data = load_images("digits", limit=LIMIT)
    found: dict[str, list[float]] = {}
    for seed in seeds:
        for loss in ("kl", "alpha"):
            row = accuracies(data, replace(recipe, seed=seed, distillation=loss))
            shown = "  ".join(f"{name} {100 * value:.1f} %" for name, value in row.items())
            print(f"seed {seed}  {loss:6} {shown}", flush=True)
            for name, value in row.items():
                found.setdefault(f"{loss}_{name}", []).append(value)
    figures = {name: statistics.fmean(values) for name, values in found.items()}
    means = {
        loss: statistics.fmean(v for k, v in figures.items() if k.startswith(loss))
        for loss in ("kl", "alpha")
    }
    return {**figures, "kl_minus_alpha_mean": means["kl"] - means["alpha"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="one seed, half the steps")
    arguments = parser.parse_args()
    seeds, steps = (SEEDS[:1], RECIPE.steps // 2) if arguments.quick else (SEEDS, RECIPE.steps)
    figures = run(seeds, replace(RECIPE, steps=steps))
    for name, value in figures.items():
        print(f"{name:24} {value:.4f}")
    if arguments.json:
        result = {
            "benchmark": "distillation",
            "figures": {name: round(value, 5) for name, value in figures.items()},
            "bounds": BOUNDS,
            "holds": all(figures[name] >= bound for name, bound in BOUNDS.items()),
            "seed": seeds,
            "steps": steps,
            "machine": f"{platform.machine()}, {RECIPE.threads} threads",
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
