"""Do samples go deeper at lower precision, and what do exits save at equal accuracy?

    python benchmarks/edge_exits.py [--json] [--quick] [--data DIR] [--device cpu|cuda] [--seeds 0 1 2] [--directory DIR]

Our own trainings on CIFAR-10, exits D, F, I, K with one fully connected layer each, as in the published comparison of
bits (Zniber et al., arXiv:2512.04705). For every seed one shared start, and from it one network per (backbone, heads)
bits and a static one, the same backbone at 8+8 bits with its final exit alone.

(a) Who leaves where, with one threshold per network: fitted anew for every network, that of the 8+8 network kept for
all, and 0.9 for all. Differences to 8+8 are paired by seed. Depth is the mean share of the backbone's
multiply-accumulates that a sample runs. Either answer is a finding: nothing here is judged.

(b) ET_avg (mean over samples of energy x latency, J x cycles, all earlier heads included; MODELLED) at equal accuracy:
the lowest threshold at which the 8+8 network is at least as good as the static one on the calibration split; judged on
the test split. Two reductions, 1 - ET_avg / ET: against the network run to its end, and against the static network,
which has no heads to pay for. The published 35-48 % are against no exits, too, in the authors' rerun of six networks.

Holds: no training failed, and every network, 4+4 bits included, is better than chance; on the test split the fitted
thresholds lose no more than was allowed where they were fitted; every seed has a threshold that reaches the static
accuracy; over the seeds the mean reduction against the static network is at least 35 %, and the mean loss of accuracy
within 2 standard errors of zero or below. What is lost is paired: each image is judged by both networks. Its error is
that of the sample of images, which all seeds share; how much seeds differ is printed beside it. For single networks
that are compared with a bound, 3 standard errors are allowed, as there are many.
`--quick` (one seed, few steps) judges trainings and fitted thresholds: which of two networks is better, so little
training does not say.
On the CPU: 3,000 images a split, at 16 px, a quarter of the width. On a GPU: all of CIFAR-10 at 32 px and full width.
`--directory` keeps shared starts and images for another run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _checkout import make_importable

make_importable()

from _figures import machine, mean_and_error, plain  # noqa: E402
from _predictor_tasks import FloatArray  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from hadas.datasets.images import ImageData, load_images  # noqa: E402
from hadas.datasets.quantized_records import QuantizedRecord  # noqa: E402
from hadas.datasets.records import OutcomeMatrix, Statistic  # noqa: E402
from hadas.datasets.store import Store  # noqa: E402
from hadas.errors import AcceleratorError  # noqa: E402
from hadas.measurement.accelerator import (  # noqa: E402
    AcceleratorCostModel,
    LayerTable,
    NetworkCosts,
    edge_accelerator,
)
from hadas.measurement.accuracy.policies.outcome import mean_statistic, outcome_at  # noqa: E402
from hadas.measurement.quantized import (  # noqa: E402
    QUANTIZED_RECIPES,
    QuantizedMeter,
    QuantizedOutcome,
    QuantizedRecipe,
    exit_policy,
    leaves_at,
    lowest_threshold,
    outcome_with,
)
from hadas.spaces.quantized import QuantizedExitSpace, QuantizedNetwork, edge_space  # noqa: E402

IMAGES = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "images"
LETTERS = "D,F,I,K"
PAIRS = ((32, 32), (8, 8), (4, 8), (4, 4))
REFERENCE = (8, 8)
FIXED_THRESHOLD = 0.9
"""The middle of the published ones."""
TOLERANCE = 0.01
SEEDS = (0, 1, 2)
MIN_REDUCTION = 0.35
MAX_LOSS_ERRORS = 2.0
MAX_SINGLE_ERRORS = 3.0
"""Of one network, of which a run compares many."""
THRESHOLDS = np.round(np.arange(0.30, 1.0, 0.01), 2)
"""Tried for equal accuracy."""
POLICIES = ("fitted", "of 8+8", f"{FIXED_THRESHOLD}")


@dataclass(frozen=True)
class Plan:
    """What is trained."""

    space: QuantizedExitSpace
    recipe: QuantizedRecipe
    limit: int | None


CPU = Plan(
    edge_space("mobilenetv2-small"),
    QuantizedRecipe(start_steps=600, tune_steps=80, max_shift=1, mirror=True),
    3_000,
)
QUICK = Plan(CPU.space, replace(CPU.recipe, start_steps=60, tune_steps=10), 500)
GPU = Plan(edge_space("mobilenetv2"), QUANTIZED_RECIPES["cifar10"], None)


@dataclass(frozen=True)
class Trained:
    """The networks of one seed: by pair of bits, and the static one."""

    exits: dict[tuple[int, int], QuantizedRecord]
    static: QuantizedRecord

    @property
    def all(self) -> tuple[QuantizedRecord, ...]:
        return (*self.exits.values(), self.static)


@dataclass(frozen=True)
class EqualAccuracy:
    """One seed's 8+8 network at the accuracy of the static one.

    Attributes:
        accuracy: of the early-exit network on the test split.
        lost: (n,) per test sample 1 if the static network alone is right, -1 if the early-exit one alone is, else 0.
        group: (n,) the image of each sample.
        against_full, against_static: reductions of ET.
        met: whether a threshold reached the static accuracy on the calibration split.
    """

    threshold: float
    accuracy: float
    lost: FloatArray
    group: NDArray[np.int32]
    against_full: float
    against_static: float
    met: bool

    @property
    def loss(self) -> Statistic:
        """Static less early-exit accuracy."""
        return mean_statistic(self.lost, self.group)

    def as_json(self) -> dict[str, Any]:
        """Figures without samples."""
        figures = {key: value for key, value in vars(self).items() if key not in ("lost", "group")}
        return {**figures, "accuracy_loss": self.loss.value, "error": self.loss.standard_error}


def network(space: QuantizedExitSpace, letters: str, pair: tuple[int, int]) -> QuantizedNetwork:
    return space.network(letters, bits=pair[0], head_bits=pair[1])


def trained(
    plan: Plan, data: ImageData, seed: int, directory: Path, device: str, n_workers: int | None = None
) -> Trained:
    recipe = replace(plan.recipe, seed=seed)
    meter = QuantizedMeter(plan.space, data, recipe, directory=directory, device=device, n_workers=n_workers)
    networks = [network(plan.space, LETTERS, pair) for pair in PAIRS]
    networks.append(network(plan.space, "K", REFERENCE))
    *exits, static = meter.measure(networks, progress=told(f"seed {seed}"))
    return Trained(dict(zip(PAIRS, exits, strict=True)), static)


def told(name: str) -> Any:
    def progress(what: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{name}: {what} {done} of {total}   ", end="", file=sys.stderr)

    return progress


def outcomes(seed: Trained) -> dict[tuple[int, int], dict[str, QuantizedOutcome]]:
    """By pair of bits and by policy, on the test split."""
    reference = exit_policy(seed.exits[REFERENCE], tolerance=TOLERANCE, split="test").thresholds
    fixed = np.append(np.full(len(reference) - 1, FIXED_THRESHOLD), 0.0)
    found = {}
    for pair, record in seed.exits.items():
        assert record.test is not None
        rules = (
            exit_policy(record, tolerance=TOLERANCE, split="test"),
            *(outcome_with(record.test, t) for t in (reference, fixed)),
        )
        found[pair] = dict(zip(POLICIES, rules, strict=True))
    return found


def depth(space: QuantizedExitSpace, record: QuantizedRecord, outcome: QuantizedOutcome) -> float:
    """Mean share of the backbone's multiply-accumulates that a sample runs."""
    macs = np.array([stage.cumulative_macs for stage in space.stages(record.network)], dtype=np.float64)
    return float((outcome.shares * macs).sum() / macs[-1])


def at_equal_accuracy(seed: Trained, costs: NetworkCosts) -> EqualAccuracy:
    """Args: costs: of the 8+8 network with exits, alone."""
    record, static = seed.exits[REFERENCE], seed.static
    assert record.calibration is not None
    assert record.test is not None
    assert static.calibration is not None
    assert static.test is not None
    if not np.array_equal(record.test.group, static.test.group):
        raise SystemExit("the two networks were not judged on the same images in one order")
    rule, met = lowest_threshold(
        confidences(record.calibration), record.calibration.correct, static.calibration.fractions[-1],
        THRESHOLDS.tolist(),
    )  # fmt: skip
    found = outcome_with(record.test, rule)
    lost = static.test.correct[:, -1].astype(np.float64) - right(record.test, rule)
    et = float(costs.et_average(found.shares[None, :])[0])
    return EqualAccuracy(
        float(rule[0]), found.accuracy.value, lost, record.test.group, float(1 - et / costs.et[0, len(rule) - 1]),
        float(1 - et / costs.static_et[0]), met,
    )  # fmt: skip


def confidences(matrix: OutcomeMatrix) -> FloatArray:
    return np.asarray(matrix.confidence, dtype=np.float64)


def right(matrix: OutcomeMatrix, thresholds: FloatArray) -> NDArray[np.bool_]:
    """(n,) whether each sample is right where it leaves."""
    return outcome_at(matrix.correct, leaves_at(confidences(matrix), thresholds)).correct


def mean_loss(equal: Sequence[EqualAccuracy]) -> Statistic:
    """Over seeds, which all judge the same images: an image that is hard for one is hard for the others."""
    return mean_statistic(
        np.concatenate([each.lost for each in equal]), np.concatenate([each.group for each in equal])
    )


def name(pair: tuple[int, int]) -> str:
    return f"{pair[0]}+{pair[1]}"


def depth_table(plan: Plan, seeds: Sequence[Trained]) -> list[dict[str, Any]]:
    """A row per policy and pair of bits."""
    found = [outcomes(seed) for seed in seeds]
    rows = []
    for policy in POLICIES:
        depths = {
            pair: [
                depth(plan.space, seed.exits[pair], each[pair][policy])
                for seed, each in zip(seeds, found, strict=True)
            ]
            for pair in PAIRS
        }
        for pair in PAIRS:
            shares = np.mean([each[pair][policy].shares for each in found], axis=0)
            paired = [a - b for a, b in zip(depths[pair], depths[REFERENCE], strict=True)]
            difference, error = mean_and_error(paired)
            rows.append(
                {
                    "policy": policy,
                    "bits": name(pair),
                    "accuracy": float(np.mean([each[pair][policy].accuracy.value for each in found])),
                    "final_accuracy": float(
                        np.mean([each[pair][policy].final_accuracy.value for each in found])
                    ),
                    "threshold": float(np.mean([each[pair][policy].thresholds[0] for each in found])),
                    "shares": [float(share) for share in shares],
                    "depth": float(np.mean(depths[pair])),
                    "deeper_than_8+8": difference,
                    "error": error,
                    "seeds_deeper": int(sum(value > 0 for value in paired)),
                }
            )
    return rows


def modelled_costs(space: QuantizedExitSpace, folder: Path) -> NetworkCosts:
    """Of the 8+8 network, and of its backbone alone."""
    store = Store(str(folder / "costs.db"))
    model = AcceleratorCostModel(space, edge_accelerator("quad-edge-tpu"), LayerTable(store))
    costs = model.costs([network(space, LETTERS, REFERENCE)])
    store.close()
    return costs


def training_failures(seed: Trained, n_classes: int) -> list[str]:
    """Networks of a seed no better than chance, or whose fitted thresholds do not keep what they promise."""
    fails = []
    for record in seed.all:
        assert record.calibration is not None
        assert record.test is not None
        bits = f"{record.network.letters} {record.network.segment_bits[0]}+{record.network.head_bits}"
        chance, final = 1.0 / n_classes, mean_statistic(record.test.correct[:, -1], record.test.group)
        if final.value < chance + MAX_SINGLE_ERRORS * np.sqrt(chance * (1.0 - chance) / final.n):
            fails.append(f"{bits}: {final.value:.1%} right at the end, which chance may explain")
        rule = exit_policy(record, tolerance=TOLERANCE).thresholds
        loss = loss_by(rule, record.test)
        # That of the images that thresholds were fitted to counts, too: on these, they lose what was allowed.
        error = float(np.hypot(loss.standard_error, loss_by(rule, record.calibration).standard_error))
        if loss.value > TOLERANCE + MAX_SINGLE_ERRORS * error:
            fails.append(
                f"{bits}: fitted thresholds lose {loss.value:.2%} +- {error:.2%}, {TOLERANCE:.0%} allowed"
            )
    return fails


def loss_by(thresholds: FloatArray, matrix: OutcomeMatrix) -> Statistic:
    """What leaving early costs in accuracy, paired by image."""
    lost = matrix.correct[:, -1].astype(np.float64) - right(matrix, thresholds)
    return mean_statistic(lost, matrix.group)


def failures(
    seeds: Sequence[Trained], equal: Sequence[EqualAccuracy], n_classes: int, quick: bool
) -> list[str]:
    fails = [failed for seed in seeds for failed in training_failures(seed, n_classes)]
    if quick:
        return fails
    if missed := sum(not each.met for each in equal):
        fails.append(
            f"{missed} of {len(equal)} seeds: no threshold reached the accuracy of the static network"
        )
    reduction = float(np.mean([each.against_static for each in equal]))
    loss = mean_loss(equal)
    if reduction < MIN_REDUCTION:
        fails.append(
            f"reduction of ET_avg against the static network {reduction:.1%}, at least {MIN_REDUCTION:.0%}"
        )
    if loss.value > MAX_LOSS_ERRORS * loss.standard_error:
        fails.append(
            f"loss of accuracy {loss.value:.2%}, at most {MAX_LOSS_ERRORS:g} standard errors of {loss.standard_error:.2%}"
        )
    return fails


def printed(rows: Sequence[dict[str, Any]], equal: Sequence[EqualAccuracy], n_seeds: int) -> list[str]:
    lines = [
        f"{'threshold':9} {'bits':>6} {'accuracy':>9} {'at end':>7} {'value':>6}  {'shares D/F/I/K':24} {'depth':>6}  "
        "deeper than 8+8"
    ]
    for row in rows:
        shares = "/".join(f"{share:.3f}" for share in row["shares"])
        error = "" if row["error"] is None else f" +- {row['error']:.3f}"
        lines.append(
            f"{row['policy']:9} {row['bits']:>6} {row['accuracy']:9.2%} {row['final_accuracy']:7.2%} "
            f"{row['threshold']:6.2f}  {shares:24} {row['depth']:6.3f}  {row['deeper_than_8+8']:+.3f}{error} "
            f"({row['seeds_deeper']} of {n_seeds} seeds)"
        )
    lines.append("at the static network's accuracy, 8+8 bits, MODELLED on quad-edge-tpu:")
    lines += [
        f"  threshold {each.threshold:.2f}{'' if each.met else ' (not reached)'}: accuracy {each.accuracy:.2%}, "
        f"{-each.loss.value:+.2%} +- {each.loss.standard_error:.2%} against static; ET_avg {each.against_full:.1%} below the full "
        f"path, {each.against_static:.1%} below the static network"
        for each in equal
    ]
    loss, (_, of_seeds) = mean_loss(equal), mean_and_error([each.loss.value for each in equal])
    lines.append(
        f"  over seeds {-loss.value:+.2%} +- {loss.standard_error:.2%} against static (standard error of {loss.n:,} images"
        f"{'' if of_seeds is None else f'; of the seeds {of_seeds:.2%}'})"
    )
    return lines


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="one seed, few images and steps")
    parser.add_argument("--data", type=Path, default=IMAGES, help="folder of CIFAR-10")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--directory", type=Path, help="keeps shared starts, images and layer costs")
    return parser.parse_args()


def run(plan: Plan, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        costs = modelled_costs(plan.space, folder)
    except AcceleratorError as error:  # without zigzag-dse, among others
        raise SystemExit(str(error)) from error
    data = load_images("cifar10", path=arguments.data, limit=plan.limit)
    seeds = []
    for seed in arguments.seeds[: 1 if arguments.quick else None]:
        done = trained(plan, data, seed, folder, arguments.device)
        if failed := [record for record in done.all if not record.valid]:
            raise SystemExit(f"{failed[0].network}: {failed[0].reason}")
        seeds.append(done)
    equal = [at_equal_accuracy(seed, costs) for seed in seeds]
    rows, loss = depth_table(plan, seeds), mean_loss(equal)
    fails = failures(seeds, equal, data.n_classes, arguments.quick)
    print("\n".join(printed(rows, equal, len(seeds))))
    where = f"{machine()}, {seeds[0].static.hardware}"
    print(f"{time.perf_counter() - began:.0f} s ({where})")
    print("all judged figures hold" if not fails else "does not hold:\n  " + "\n  ".join(fails))
    return {
        "benchmark": "edge_exits",
        "quick": arguments.quick,
        "seeds": len(seeds),
        "figures": {
            "depth": rows,
            "equal_accuracy": [each.as_json() for each in equal],
            "mean_accuracy_loss": loss.value,
            "mean_accuracy_loss_error": plain(loss.standard_error),
            "truth_of_et": "modelled",
        },
        "bounds": {
            "final_accuracy_above_chance_in_errors": {"at_least": MAX_SINGLE_ERRORS},
            "loss_by_fitted_thresholds": {"at_most": TOLERANCE, "and_errors": MAX_SINGLE_ERRORS},
            "met": {"at_least_of_seeds": 1.0},
            "against_static": {"at_least": MIN_REDUCTION},
            "accuracy_loss_in_errors": {"at_most": MAX_LOSS_ERRORS},
        },
        "holds": not fails,
        "fails": fails,
        "machine": where,
    }


def main() -> None:
    arguments = parse()
    if not arguments.data.exists():
        raise SystemExit(f"CIFAR-10 is not at {arguments.data}; name its folder with --data")
    plan = QUICK if arguments.quick else GPU if arguments.device.startswith("cuda") else CPU
    with tempfile.TemporaryDirectory() as folder:
        result = run(plan, arguments, arguments.directory or Path(folder))
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
