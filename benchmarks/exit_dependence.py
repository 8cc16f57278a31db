"""Do networks whose exits were never measured together get the oracle and the controller that they turn out to have?

Four published early-exit networks, 10,000 CIFAR-10 images each, all answers stored.  Each is left out in
turn: given nothing but the fractions that its exits get right, the outcomes of its samples are borrowed
from the other three, and the oracle's and a controller's accuracy and shares follow, for every choice of
exits.  Beside ours, which takes a mosaic of donors (image by image another one's) and a copula of exits
and scores:

- the tilt, without a model of dependence: the donors' own bits, of which the right ones turn wrong by
  falling score and the wrong ones right by how many donors are; from the same mosaic, and from the nearest;
- the copula with one and two donors, so that it shows what the mosaic brings and what the copula does;
- samples right independently of exits and scores, and samples whose difficulty alone decides.

Eases and mosaics are drawn, so everything is done with several seeds, and figures are medians over them.

Bounds: the oracle's accuracy errs at most as much as with the tilt of the same donors, and at most a
quarter as much as under independence and under one difficulty.  What a controller does follows from
thresholds on scores, which the copula knows no better than the tilt does: its accuracy and its shares are
only held to at most 1.25 x the error of the tilt.  `--quick` takes 2,500 images, with half in place of a
quarter.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping, Sequence
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
from hadas.surrogates.dependence import normal_scores

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Bits = tuple[BoolArray, BoolArray]
Borrow = Callable[[Sequence[AccuracyRecord], FloatArray, int], Bits]

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "accuracy"
FILE = "early_exit_cifar10_persample.csv.gz"
SEEDS = range(7)


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


def leave_bits(correct: BoolArray, scores: FloatArray, group: IntArray | None = None) -> BoolArray:
    """Who the controller lets leave, thresholds cross-fitted by halves of the images."""
    images = np.arange(len(correct)) if group is None else group
    fitter = CrossFitter(scores, images.astype(np.int32), min_samples=DEFAULT_CONTROLLER.min_samples)
    return fitter.leaves(correct, DEFAULT_CONTROLLER.tolerance)


def modelled(n_donors: int) -> Borrow:
    """What the search sees of an unmeasured backbone, from a mosaic of so many donors."""

    def borrow(donors: Sequence[AccuracyRecord], fractions: FloatArray, seed: int) -> Bits:
        borrowed = OutcomeLibrary(donors, seed=seed).borrowed(fractions, n_donors=n_donors)
        return borrowed.correct.T, borrowed.leaves.T

    return borrow


def tilt(correct: BoolArray, scores: FloatArray, easiness: FloatArray, fractions: FloatArray) -> BoolArray:
    """Bits (n, e) with other fractions right."""
    order = np.lexsort((np.where(correct, -scores, -easiness), ~correct), axis=0)
    bits = np.zeros_like(correct)
    for exit_, n_right in enumerate(np.rint(fractions * len(correct)).astype(int)):
        bits[order[:n_right, exit_], exit_] = True
    return bits


def tilted(n_donors: int) -> Borrow:
    """The nearest networks' own bits, image by image another one's.

    Right samples turn wrong by falling score, wrong ones right by how many of all networks are.
    """

    def borrow(donors: Sequence[AccuracyRecord], fractions: FloatArray, seed: int) -> Bits:
        nearest = sorted(
            donors, key=lambda donor: float(np.abs(outcomes(donor).fractions - fractions).mean())
        )
        nearest = nearest[:n_donors]
        n = outcomes(nearest[0]).n_samples
        pairs = np.arange(n) // 2
        turn = np.random.default_rng(seed).permutation(n // 2 + 1)[pairs] % len(nearest)
        image = np.arange(n)
        correct = np.vstack([outcomes(donor).correct for donor in nearest])
        scores = np.vstack(
            [normal_scores(outcomes(donor).confidence.astype(np.float64)) for donor in nearest]
        )
        easiness = np.mean([outcomes(donor).correct for donor in donors], axis=0)
        easiness = np.tile(easiness, (len(nearest), 1))
        # As ours does: bits are the mosaic's, thresholds those of all donors' images.
        picked = turn * n + image
        bits = tilt(correct[picked], scores[picked], easiness[picked], fractions)
        pooled = tilt(correct, scores, easiness, fractions)
        return bits, leave_bits(pooled, scores, np.tile(image, len(nearest)))[picked]

    return borrow


def independent(donors: Sequence[AccuracyRecord], fractions: FloatArray, seed: int) -> Bits:
    """Every exit is right on samples of its own; scores know nothing of it."""
    rng = np.random.default_rng(seed)
    scores = outcomes(donors[0]).confidence.astype(np.float64)
    bits = rng.random(scores.shape) < fractions
    return bits, leave_bits(bits, scores)


def one_difficulty(donors: Sequence[AccuracyRecord], fractions: FloatArray, seed: int) -> Bits:
    """A sample that an exit gets right, every better exit gets right; scores know nothing of it."""
    rng = np.random.default_rng(seed)
    scores = outcomes(donors[0]).confidence.astype(np.float64)
    bits = rng.random((len(scores), 1)) < fractions
    return bits, leave_bits(bits, scores)


OURS, TILT = "copula, 3 donors", "tilt, 3 donors"
CONTENDERS: dict[str, Borrow] = {
    OURS: modelled(3),
    "copula, 2 donors": modelled(2),
    "copula, 1 donor": modelled(1),
    TILT: tilted(3),
    "tilt, 1 donor": tilted(1),
    "independent": independent,
    "one difficulty": one_difficulty,
}


def judge(borrow: Borrow, records: Sequence[AccuracyRecord], seed: int) -> Errors:
    """Errors of one contender, every network left out once."""
    rows = []
    for left_out in records:
        own = outcomes(left_out)
        true = own.correct, leave_bits(own.correct, own.confidence.astype(np.float64))
        guessed = borrow([record for record in records if record is not left_out], own.fractions, seed)
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


def ratio(by_seed: Mapping[str, Sequence[Errors]], field: str, one: str, other: str) -> FloatArray:
    """(s,) error of one contender over that of another, seed by seed."""
    return np.array(
        [getattr(a, field) / getattr(b, field) for a, b in zip(by_seed[one], by_seed[other], strict=True)]
    )


def bounded(by_seed: Mapping[str, Sequence[Errors]], *, quick: bool) -> dict[str, tuple[FloatArray, float]]:
    """Figures seed by seed, and what the median of each may at most be."""
    naive, controller = 0.5 if quick else 0.25, 1.25
    return {
        "oracle_error_over_tilt": (ratio(by_seed, "oracle", OURS, TILT), 1.0),
        "controller_error_over_tilt": (ratio(by_seed, "controller", OURS, TILT), controller),
        "controller_shares_error_over_tilt": (ratio(by_seed, "controller_shares", OURS, TILT), controller),
        "oracle_error_over_independent": (ratio(by_seed, "oracle", OURS, "independent"), naive),
        "oracle_error_over_one_difficulty": (ratio(by_seed, "oracle", OURS, "one difficulty"), naive),
    }


def shown(by_seed: Mapping[str, Sequence[Errors]]) -> dict[str, FloatArray]:
    """What the mosaic and what the copula brings, each with the other held fixed; seed by seed, not bounded."""
    pairs = {
        "mosaic_of_3_over_1_donor_with_copula": (OURS, "copula, 1 donor"),
        "mosaic_of_3_over_1_donor_with_tilt": (TILT, "tilt, 1 donor"),
        "copula_over_tilt_with_1_donor": ("copula, 1 donor", "tilt, 1 donor"),
    }
    return {
        f"{field}_error, {name}": ratio(by_seed, field, *pair)
        for name, pair in pairs.items()
        for field in ("oracle", "controller_shares")
    }


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
    by_seed = {name: [judge(borrow, records, seed) for seed in SEEDS] for name, borrow in CONTENDERS.items()}
    n, columns = outcomes(records[0]).n_samples, list(Errors.__dataclass_fields__)
    errors = {
        name: {column: float(np.median([getattr(row, column) for row in rows])) for column in columns}
        for name, rows in by_seed.items()
    }
    print(
        f"{len(records)} networks left out in turn, {n} images, true fractions given; "
        f"mean errors in points, medians over {len(SEEDS)} seeds"
    )
    print(f"{'':18}" + "".join(f"{column:>19}" for column in columns))
    for name, row in errors.items():
        print(f"{name:18}" + "".join(f"{value:19.2f}" for value in row.values()))
    figures, parts = bounded(by_seed, quick=arguments.quick), shown(by_seed)
    print("\nratios of errors: median over seeds (least to largest)")
    for name, (values, bound) in figures.items():
        print(f"{name:62} {_spread(values)}   (at most {bound})")
    for name, values in parts.items():
        print(f"{name:62} {_spread(values)}")
    if arguments.json:
        medians = {name: float(np.median(values)) for name, (values, _) in figures.items()}
        result = {
            "benchmark": "exit_dependence",
            "form": "quick: a quarter of the images" if arguments.quick else "full",
            "figures": {name: round(value, 5) for name, value in medians.items()},
            "bounds": {name: bound for name, (_, bound) in figures.items()},
            "holds": all(medians[name] <= bound for name, (_, bound) in figures.items()),
            "largest": {name: round(float(values.max()), 5) for name, (values, _) in figures.items()},
            "parts": {name: round(float(np.median(values)), 5) for name, values in parts.items()},
            "errors": errors,
            "networks": len(records),
            "images": n,
            "seeds": list(SEEDS),
            "machine": platform.machine(),
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
        }
        print(json.dumps(result))


def _spread(values: FloatArray) -> str:
    return f"{np.median(values):.3f}   ({values.min():.3f} to {values.max():.3f})"


if __name__ == "__main__":
    main()
