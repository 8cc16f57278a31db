"""Do networks whose exits were never measured together get the oracle and the controller that they turn out to have?

Four published early-exit networks, 10,000 CIFAR-10 images each, all answers stored.  Each is left out in
turn: given nothing but the fractions that its exits get right, the outcomes of its samples are borrowed
from the other three, and the oracle's and a controller's accuracy and shares follow, for every choice of
exits.  Beside ours: the nearest network's outcomes, its least sure samples flipped first (a tilt without
a model of dependence), samples that are right independently of exits and scores, and samples whose
difficulty alone decides.

Bounds: the oracle's accuracy at most 0.8 x the error of the tilt, and at most a quarter of that under
independence and under one difficulty; the shares of the controller at most the error of the tilt.
`--quick` takes 2,500 images, with bounds as of 1 in place of 0.8 and a half in place of a quarter.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hadas.datasets.records import AccuracyRecord, OutcomeMatrix
from hadas.measurement.accuracy.policies import (
    DEFAULT_CONTROLLER,
    CrossFitter,
    PolicyOutcome,
    apply_controller,
    ideal_mapping,
)
from hadas.search.objectives import all_masks
from hadas.search.outcomes import OutcomeLibrary
from hadas.spaces import Backbone

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Borrow = Callable[[Sequence[AccuracyRecord], FloatArray], tuple[BoolArray, BoolArray]]

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "accuracy"
FILE = "early_exit_cifar10_persample.csv.gz"
SEED = 0


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors over left-out networks and choices of exits, in points (%).

    Attributes:
        oracle, oracle_bias: accuracy of the oracle, and its signed error.
        controller: accuracy of the controller.
        oracle_shares, controller_shares: samples that leave elsewhere than predicted (total variation).
    """

    oracle: float
    oracle_bias: float
    controller: float
    oracle_shares: float
    controller_shares: float


def load(path: Path, n_samples: int | None) -> list[AccuracyRecord]:
    """One record per network; what is not stored (margins, entropies) is left at zero and not used."""
    table = pd.read_csv(path)
    records: list[AccuracyRecord] = []
    for name, rows in table.groupby("run", sort=False):
        rows = rows.sort_values("sample").iloc[:n_samples]
        n_exits = sum(str(column).startswith("correct") for column in rows)
        correct, confidence, predicted = (
            rows[[f"{kind}{i}" for i in range(n_exits)]].to_numpy() for kind in ("correct", "conf", "pred")
        )
        unknown = np.zeros(correct.shape, dtype=np.float16)
        matrix = OutcomeMatrix(
            correct.astype(bool), confidence.astype(np.float16), unknown, unknown,
            predicted.astype(np.int16), np.arange(len(rows), dtype=np.int32),
        )  # fmt: skip
        # A chain of as many blocks as exits stands in for the network, of which only outcomes are known.
        network = Backbone(str(name), 32, (), (n_exits - 1,), (), ())
        records.append(AccuracyRecord(FILE, len(records), network, "", "", "test", 0, matrix, None))
    return records


def outcomes(record: AccuracyRecord) -> OutcomeMatrix:
    """The stored outcomes of a record."""
    assert record.calibration is not None
    return record.calibration


def leave_bits(correct: BoolArray, scores: FloatArray) -> BoolArray:
    """Who the controller lets leave, thresholds cross-fitted by halves of the images."""
    group = np.arange(len(correct), dtype=np.int32)
    fitter = CrossFitter(scores, group, min_samples=DEFAULT_CONTROLLER.min_samples)
    return fitter.leaves(correct, DEFAULT_CONTROLLER.tolerance)


def modelled(donors: Sequence[AccuracyRecord], fractions: FloatArray) -> tuple[BoolArray, BoolArray]:
    """What the search sees of an unmeasured backbone."""
    borrowed = OutcomeLibrary(donors).borrowed(fractions)
    return borrowed.correct.T, borrowed.leaves.T


def tilted(donors: Sequence[AccuracyRecord], fractions: FloatArray) -> tuple[BoolArray, BoolArray]:
    """The nearest network: right samples turn wrong by falling doubt, wrong ones right by how many networks are."""
    nearest = min(donors, key=lambda donor: float(np.abs(outcomes(donor).fractions - fractions).mean()))
    correct = outcomes(nearest).correct
    scores = outcomes(nearest).confidence.astype(np.float64)
    easiness = np.mean([outcomes(donor).correct for donor in donors], axis=0)
    order = np.lexsort((np.where(correct, -scores, -easiness), ~correct), axis=0)
    bits = np.zeros_like(correct)
    for exit_, n_right in enumerate(np.rint(fractions * len(correct)).astype(int)):
        bits[order[:n_right, exit_], exit_] = True
    return bits, leave_bits(bits, scores)


def independent(donors: Sequence[AccuracyRecord], fractions: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Every exit is right on samples of its own; scores know nothing of it."""
    rng = np.random.default_rng(SEED)
    scores = outcomes(donors[0]).confidence.astype(np.float64)
    bits = rng.random(scores.shape) < fractions
    return bits, leave_bits(bits, scores)


def one_difficulty(donors: Sequence[AccuracyRecord], fractions: FloatArray) -> tuple[BoolArray, BoolArray]:
    """A sample that an exit gets right, every better exit gets right; scores know nothing of it."""
    rng = np.random.default_rng(SEED)
    scores = outcomes(donors[0]).confidence.astype(np.float64)
    bits = rng.random((len(scores), 1)) < fractions
    return bits, leave_bits(bits, scores)


CONTENDERS: dict[str, Borrow] = {
    "modelled": modelled,
    "tilted": tilted,
    "independent": independent,
    "one difficulty": one_difficulty,
}


def judge(borrow: Borrow, records: Sequence[AccuracyRecord]) -> Errors:
    """Errors of one contender, every network left out once."""
    rows = []
    for left_out in records:
        own = outcomes(left_out)
        true = own.correct, leave_bits(own.correct, own.confidence.astype(np.float64))
        guessed = borrow([record for record in records if record is not left_out], own.fractions)
        for mask in all_masks(own.n_exits - 1)[1:]:
            (oracle, controller), (oracle_true, controller_true) = (
                policies(*guessed, mask),
                policies(*true, mask),
            )
            rows.append(
                (
                    abs(oracle.accuracy - oracle_true.accuracy),
                    oracle.accuracy - oracle_true.accuracy,
                    abs(controller.accuracy - controller_true.accuracy),
                    np.abs(oracle.shares - oracle_true.shares).sum() / 2,
                    np.abs(controller.shares - controller_true.shares).sum() / 2,
                )
            )
    return Errors(*(100 * float(value) for value in np.mean(rows, axis=0)))


def policies(correct: BoolArray, leaves: BoolArray, mask: BoolArray) -> tuple[PolicyOutcome, PolicyOutcome]:
    """The oracle and the controller with the exits of a mask in use."""
    return ideal_mapping(correct, mask), apply_controller(correct, leaves, mask)


def bounded(errors: dict[str, Errors], *, quick: bool) -> dict[str, tuple[float, float]]:
    """Figures, and what each may at most be."""
    ours, others = errors["modelled"], (1.0, 0.5) if quick else (0.8, 0.25)
    return {
        "oracle_error_over_tilted": (ours.oracle / errors["tilted"].oracle, others[0]),
        "oracle_error_over_independent": (ours.oracle / errors["independent"].oracle, others[1]),
        "oracle_error_over_one_difficulty": (ours.oracle / errors["one difficulty"].oracle, others[1]),
        "controller_shares_error_over_tilted": (
            ours.controller_shares / errors["tilted"].controller_shares, 1.0,
        ),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the stored outcomes")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="seconds: a quarter of the images")
    arguments = parser.parse_args()
    if not (arguments.data / FILE).is_file():
        raise SystemExit(f"no file {arguments.data / FILE}: --data must name the folder that holds {FILE}")
    records = load(arguments.data / FILE, 2500 if arguments.quick else None)
    errors = {name: judge(borrow, records) for name, borrow in CONTENDERS.items()}
    n = outcomes(records[0]).n_samples
    print(
        f"{len(records)} networks left out in turn, {n} images, true fractions given; mean errors in points"
    )
    columns = list(Errors.__dataclass_fields__)
    print(f"{'':16}" + "".join(f"{column:>19}" for column in columns))
    for name, row in errors.items():
        print(f"{name:16}" + "".join(f"{getattr(row, column):19.2f}" for column in columns))
    figures = bounded(errors, quick=arguments.quick)
    print()
    for name, (value, bound) in figures.items():
        print(f"{name:38} {value:.3f}   (at most {bound})")
    if arguments.json:
        result = {
            "benchmark": "exit_dependence",
            "form": "quick: a quarter of the images" if arguments.quick else "full",
            "figures": {name: round(value, 5) for name, (value, _) in figures.items()},
            "bounds": {name: bound for name, (_, bound) in figures.items()},
            "holds": all(value <= bound for value, bound in figures.values()),
            "errors": {name: vars(row) for name, row in errors.items()},
            "networks": len(records),
            "images": n,
            "seed": SEED,
            "machine": platform.machine(),
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
