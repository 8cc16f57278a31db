"""What does training all exits at once save against training them one by one?

Same backbone (17 blocks, 12 exits: AttentiveNAS a0 at a quarter of its widths), same images, epochs,
optimizer and machine.  The named alternative, one by one, is what HADAS's released code does: every
exit is trained in a training of its own, whose every step runs the whole frozen backbone, because the
final classifier's softmax is its teacher.  All at once is `train_exits` with its defaults: one frozen
pass, kept in memory, for all heads.

Two further cells show where the saving comes from: all at once with a frozen pass per step, and one by
one with kept features.  Every training ends with the calibration of its heads' batch norm, which costs a
streamed one another pass.  Seconds are of CPU time on one thread.

`holds` is decided by their ratio and by accuracies on test images, all at once less one by one, three
seeds on each side, no two trainings with the same initial weights or order of images:

- per exit, the difference of the two means is within 2 standard errors for all exits but two at most;
  the error comes from the spread between seeds, pooled over exits and both sides.  Of 12 exits that
  differ by chance alone, each is beyond with a chance of 5 % (Student's t, 48 degrees of freedom), and
  three or more with one of 3 % (simulated: independent exits, whose pooled error is the same);
- the mean difference over all exits is within 2 standard errors of zero, taking the exits' chance
  differences for independent, which makes this the stricter test.

`--quick` takes fewer images and epochs; `--json` ends with one JSON line.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hadas.datasets.images import ImageData, load_images
from hadas.measurement.accuracy.evaluation import (
    evaluate,
    fixed_threads,
    recalibrate_batch_norm,
)
from hadas.measurement.accuracy.exits import train_exits
from hadas.measurement.accuracy.inputs import SplitInputs
from hadas.measurement.accuracy.network import EarlyExitNetwork
from hadas.measurement.accuracy.recipes import ExitRecipe, SupernetRecipe
from hadas.measurement.accuracy.training import load_supernet, train_supernet
from hadas.spaces import MBConvSpace, attentivenas_space

BOUNDS = {
    "ratio": {"at_least": 5.0},
    "exits_beyond_two_errors": {"at_most": 2},
    "mean_difference_in_errors": {"at_most": 2.0},
}
SEEDS = (0, 1, 2)
IMAGES = Path(__file__).resolve().parents[2] / "shared" / "data" / "images"


def quarter_a0() -> MBConvSpace:
    """A space of one backbone: AttentiveNAS a0 at a quarter of its widths, for images of 128 pixels."""
    space = attentivenas_space()
    macro, a0 = space.macro, space.presets["a0"]
    widths = [width // 4 for width in a0.width]
    stages = tuple(
        replace(stage, widths=(width,), depths=(depth,), kernels=(kernel,), expands=(expand,))
        for stage, width, depth, kernel, expand in zip(
            macro.stages, widths[1:-1], a0.depth, a0.kernel, a0.expand, strict=True
        )
    )
    shrunk = replace(
        macro, resolutions=(128,), stem_widths=(widths[0],), stages=stages, tail_widths=(widths[-1],),
        head_width=macro.head_width // 4,
    )  # fmt: skip
    return MBConvSpace("quarter-a0", shrunk)


@dataclass(frozen=True)
class Plan:
    """How much is trained and measured."""

    supernet: SupernetRecipe
    exits: ExitRecipe
    n_images: int


FULL = Plan(
    SupernetRecipe(steps=80, batch_size=64, sampled=0, learning_rate=0.1, threads=2),
    ExitRecipe(
        calibration_batches=6, calibration_batch_size=64, train_images=384, epochs=5, batch_size=64,
        learning_rate=5e-3,
    ),
    1500,
)  # fmt: skip
QUICK = Plan(
    replace(FULL.supernet, steps=10),
    replace(FULL.exits, train_images=128, epochs=2, calibration_batches=2),
    400,
)


class OneExit(EarlyExitNetwork):
    """A network seen with a single exit: the whole backbone runs, one head reads."""

    index: int

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        seen, final = super().features(images)
        return [seen[self.index]], final


def one_exit(network: EarlyExitNetwork, space: MBConvSpace, index: int) -> OneExit:
    """A copy of ``network`` with the exit of the given index alone."""
    single = OneExit(space.macro, network.backbone, network.n_classes, network.normalization)
    single.load_state_dict(network.state_dict())
    single.index = index
    single.heads = nn.ModuleList([single.heads[index]])
    return single.requires_grad_(False)


def images_for(data: Path, n_images: int) -> ImageData:
    """CIFAR-10 if it is there, else the bundled digits; about as many images of either."""
    if data.is_dir():
        return load_images("cifar10", path=data, limit=n_images)
    return load_images("digits", limit=n_images // 6)  # six distorted copies of each


def calibrated_backbone(
    space: MBConvSpace, data: ImageData, plan: Plan, rows: np.ndarray
) -> EarlyExitNetwork:
    """The backbone, trained a little, so that its exits have something to read and to imitate."""
    with tempfile.TemporaryDirectory() as directory:
        trained = train_supernet(space, data, plan.supernet, directory=directory)
        supernet, _ = load_supernet(trained.path, space, data.n_classes)
    network = supernet.extract(space.largest).requires_grad_(False)
    inputs = SplitInputs(data.train, network.device)
    batches = inputs.batches(plan.exits.calibration_batch_size, network.normalization, rows)
    recalibrate_batch_norm(network, network.final_logits, batches)
    return network


def all_at_once(
    network: EarlyExitNetwork, data: ImageData, rows: np.ndarray, recipe: ExitRecipe, seed: int
) -> float:
    """Train all heads of ``network``; returns seconds of CPU time.

    On one thread that is the time it takes on a quiet machine, and others' load hardly changes it.
    """
    network.heads.requires_grad_(True)
    began = time.process_time()
    train_exits(network, data.train, rows, recipe, seed)
    return time.process_time() - began


def one_by_one(
    network: EarlyExitNetwork, space: MBConvSpace, data: ImageData, rows: np.ndarray, recipe: ExitRecipe, seed: int
) -> float:  # fmt: skip
    """Train every head in a training of its own and put them into ``network``; seconds of CPU time."""
    seconds = 0.0
    for index in range(len(network.heads)):
        single = one_exit(network, space, index)
        seconds += all_at_once(single, data, rows, recipe, 1000 * (index + 1) + seed)
        network.heads[index] = single.heads[0]
    return seconds


@dataclass(frozen=True)
class Cell:
    """One way to train all exits, once per seed.

    Attributes:
        seconds: (seeds,) of CPU time per backbone.
        accuracy: (seeds, exits) on the test split.
    """

    seconds: tuple[float, ...]
    accuracy: np.ndarray


def measure(plan: Plan, space: MBConvSpace, data: ImageData) -> dict[str, Cell]:
    """All four cells; seeds in the outer loop, so that slow minutes of the machine fall on all alike."""
    rows = np.random.default_rng(0).choice(len(data.train), plan.exits.train_images, replace=False)
    backbone = calibrated_backbone(space, data, plan, rows)
    cached, streamed = plan.exits, replace(plan.exits, cache_features=False)
    cells: dict[str, Callable[[EarlyExitNetwork, int], float]] = {
        "all at once": lambda network, seed: all_at_once(network, data, rows, cached, seed),
        "all at once, streamed": lambda network, seed: all_at_once(network, data, rows, streamed, seed),
        "one by one": lambda network, seed: one_by_one(network, space, data, rows, streamed, seed),
        "one by one, kept": lambda network, seed: one_by_one(network, space, data, rows, cached, seed),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cells}
    accuracy: dict[str, list[np.ndarray]] = {name: [] for name in cells}
    all_at_once(copy.deepcopy(backbone), data, rows[:128], replace(cached, epochs=1), 0)  # warm-up
    for seed in SEEDS:
        for name, train in cells.items():
            network = copy.deepcopy(backbone)
            seconds[name].append(train(network, seed))
            accuracy[name].append(evaluate(network, data.test, 128).fractions)
            print(
                f"seed {seed}  {name:22}{seconds[name][-1]:8.2f} s   mean exit accuracy "
                f"{100 * accuracy[name][-1][:-1].mean():.2f} %   final {100 * accuracy[name][-1][-1]:.2f} %",
                flush=True,
            )
    return {name: Cell(tuple(seconds[name]), np.stack(accuracy[name])[:, :-1]) for name in cells}


def compare(one: Cell, other: Cell) -> dict[str, float]:
    """Differences of mean accuracies, ``one`` less ``other``, in standard errors.

    Between the seeds of one exit and one side, accuracy varies by chance alone; that variance,
    pooled over exits and both sides, gives the standard error of every difference.
    """
    n_seeds, n_exits = one.accuracy.shape
    difference = one.accuracy.mean(axis=0) - other.accuracy.mean(axis=0)
    variance = np.mean([cell.accuracy.var(axis=0, ddof=1) for cell in (one, other)])
    error = float(np.sqrt(2.0 * variance / n_seeds))
    print("\nexit   all at once   one by one   difference, % (standard error " + f"{100 * error:.2f})")
    for i, (a, b) in enumerate(zip(one.accuracy.mean(axis=0), other.accuracy.mean(axis=0), strict=True)):
        print(f"{i:4} {100 * a:13.2f} {100 * b:12.2f} {100 * (a - b):+12.2f}")
    return {
        "accuracy_difference_standard_error": error,
        "exits_beyond_two_errors": float((np.abs(difference) > 2 * error).sum()),
        "mean_accuracy_difference": float(difference.mean()),
        "mean_difference_in_errors": float(abs(difference.mean()) / (error / np.sqrt(n_exits))),
    }


def figures_of(cells: dict[str, Cell]) -> dict[str, float]:
    """CPU seconds per backbone (median over seeds), their ratios, and the comparison of accuracies."""
    seconds = {name: statistics.median(cell.seconds) for name, cell in cells.items()}
    whole, streamed = seconds["all at once"], seconds["all at once, streamed"]
    return {
        "all_at_once_s": whole,
        "all_at_once_streamed_s": streamed,
        "one_by_one_s": seconds["one by one"],
        "one_by_one_kept_s": seconds["one by one, kept"],
        "ratio": seconds["one by one"] / whole,
        "ratio_both_streamed": seconds["one by one"] / streamed,
        "ratio_both_kept": seconds["one by one, kept"] / whole,
        "mean_exit_accuracy": float(cells["all at once"].accuracy.mean()),
        **compare(cells["all at once"], cells["one by one"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer images and epochs")
    parser.add_argument("--data", type=Path, default=IMAGES, help="folder with CIFAR-10; digits if absent")
    arguments = parser.parse_args()
    began = time.perf_counter()
    plan, space = (QUICK if arguments.quick else FULL), quarter_a0()
    data = images_for(arguments.data, plan.n_images)
    work = space.workload(space.largest, n_classes=data.n_classes)
    print(
        f"{data.name}: {plan.exits.train_images} images, {plan.exits.epochs} epochs, {len(data.test)} test images; "
        f"{len(work.blocks)} blocks, {work.n_positions} exits, {work.macs / 1e6:.1f} M MACs and "
        f"{sum(head.macs for head in work.heads) / 1e6:.1f} M in all heads"
    )
    with fixed_threads(1):  # as the accuracy meter measures a backbone
        figures = figures_of(measure(plan, space, data))
    print()
    for name, value in figures.items():
        print(f"{name:36} {value:.4g}")
    print(f"{time.perf_counter() - began:.0f} s in all")
    if arguments.json:
        result = {
            "benchmark": "exit_training",
            "data": data.name,
            "figures": {name: round(value, 5) for name, value in figures.items()},
            "bounds": BOUNDS,
            "holds": all(
                bound.get("at_least", -np.inf) <= figures[name] <= bound.get("at_most", np.inf)
                for name, bound in BOUNDS.items()
            ),
            "seed": SEEDS,
            "machine": f"{platform.machine()}, 1 thread",
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
