"""The arithmetic of gpu_day: what rungs say about epochs, and what a seeding costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hadas.datasets.records import AccuracyRecord, OutcomeMatrix
from hadas.spaces import Backbone, MBConvSpace
from hadas.spaces.workload import Unit

SEEDING = 100
"""Backbones of a seeding."""
ALLOWED_LOSS_POINTS = 0.5
"""Of mean exit accuracy, against the reference number of epochs."""
Z95_ONE_SIDED = 1.645
ABOVE_GUESSING = 2.0
"""How many times better than guessing exits must be after the reference for its losses to say anything."""


@dataclass(frozen=True)
class Rung:
    """One backbone measured with one number of epochs: what it cost, and what its exits get right."""

    name: str
    backbone: Backbone
    epochs: int
    wall_s: float
    record: AccuracyRecord

    @property
    def exits_s(self) -> float:
        return self.record.seconds["exits"]

    @property
    def epoch_s(self) -> float:
        """Upper estimate: the exits' fixed part counts with the epochs."""
        return self.exits_s / self.epochs

    @property
    def other_s(self) -> float:
        """All but training exits: extraction, calibration, evaluation."""
        return self.wall_s - self.exits_s

    def mean_exit_accuracy(self, split: str = "calibration") -> float:
        return float(self._outcomes(split).fractions[:-1].mean())

    def per_image(self) -> np.ndarray:
        """(n,) share of the exits that are right about each image of the calibration split."""
        return np.asarray(self._outcomes("calibration").correct[:, :-1].mean(axis=1))

    def _outcomes(self, split: str) -> OutcomeMatrix:
        outcomes = self.record.calibration if split == "calibration" else self.record.test
        assert outcomes is not None
        return outcomes


def losses(rungs: list[Rung], reference_epochs: int) -> list[dict[str, Any]]:
    """Every rung of a backbone whose reference was reached, against it, in points of mean exit accuracy.

    The standard error is paired: both numbers of epochs answer the same images.  With 95 % confidence
    the loss is at most ``loss_at_most_points``.
    """
    references = {rung.name: rung for rung in rungs if rung.epochs == reference_epochs}
    rows = []
    for rung in rungs:
        if rung.name not in references or rung.epochs == reference_epochs:
            continue
        reference = references[rung.name]
        change = reference.per_image() - rung.per_image()
        loss, error = 100 * float(change.mean()), 100 * float(change.std(ddof=1)) / len(change) ** 0.5
        rows.append(
            {
                "backbone": rung.name,
                "epochs": rung.epochs,
                "loss_points": loss,
                "standard_error_points": error,
                "loss_at_most_points": loss + Z95_ONE_SIDED * error,
                "test_loss_points": 100
                * (reference.mean_exit_accuracy("test") - rung.mean_exit_accuracy("test")),
            }
        )
    return rows


def sufficient_epochs(rungs: list[Rung], reference: int, n_classes: int) -> int | None:
    """Fewest epochs from which on no backbone loses more than allowed; the reference at the latest.

    A loss is within what is allowed where that is so with 95 % confidence, not by its estimate alone.
    A number of epochs counts where two backbones were trained for it (one, if only one has a
    reference).  Where exits are hardly better than guessing even after the reference, there is nothing
    to lose, and the reference stands.
    """
    references = [rung for rung in rungs if rung.epochs == reference]
    n_climbed = len({rung.name for rung in references})
    if not n_climbed:
        return None
    if min(rung.mean_exit_accuracy() for rung in references) < ABOVE_GUESSING / n_classes:
        return reference
    rows = losses(rungs, reference)
    sufficient = reference
    for epochs in sorted({row["epochs"] for row in rows}, reverse=True):
        found = [row["loss_at_most_points"] for row in rows if row["epochs"] == epochs]
        if max(found) > ALLOWED_LOSS_POINTS:
            break
        if len(found) >= min(2, n_climbed):
            sufficient = int(epochs)
    return sufficient


def moved_values(space: MBConvSpace, backbone: Backbone, n_classes: int) -> float:
    """Activations read and written per image and epoch, heads three times (forward, and backward twice).

    Networks of depthwise convolutions wait for memory more than for arithmetic.
    """
    work = space.workload(backbone, n_classes=n_classes, dtype_bytes=1)

    def moved(*units: Unit) -> int:
        return sum(layer.bytes_moved - layer.params for unit in units for layer in unit.layers)

    return float(moved(work.stem, *work.blocks, work.tail) + 3 * moved(*work.heads))


def seeding(space: MBConvSpace, seed: int) -> list[Backbone]:
    """What a study would seed with: both ends, the presets, random backbones."""
    named = [space.smallest, space.largest, *space.presets.values()]
    genomes = space.sample(SEEDING - len(named), np.random.default_rng(seed))
    return [*named, *(space.decode(genome) for genome in genomes)]


def projection(
    rungs: list[Rung], space: MBConvSpace, seeds: list[Backbone], n_classes: int, epochs: int
) -> dict[str, float]:
    """Seconds per backbone and hours for the seeding, from the longest rung of every measured backbone.

    Costs are scaled by :func:`moved_values` from measured backbones to those of the seeding; each
    measured backbone predicted from the others says how well that works.
    """
    longest = {rung.name: rung for rung in sorted(rungs, key=lambda rung: rung.epochs)}.values()
    work = np.array([moved_values(space, rung.backbone, n_classes) for rung in longest])
    seconds = np.array([rung.other_s + epochs * rung.epoch_s for rung in longest])
    others = np.array(
        [np.delete(seconds, i).sum() / np.delete(work, i).sum() * work[i] for i in range(len(work))]
    )
    seed_work = np.mean([moved_values(space, backbone, n_classes) for backbone in seeds])
    mean_s = float(seconds.sum() / work.sum() * seed_work)
    return {
        "epochs": epochs,
        "seconds_per_measured_backbone": float(seconds.mean()),
        "seconds_per_seed_backbone": mean_s,
        "seed_work_over_measured_work": float(seed_work / work.mean()),
        "leave_one_out_error": float(np.abs(others / seconds - 1).max()) if len(work) > 1 else float("nan"),
        "hours": mean_s * len(seeds) / 3600,
    }


def foretold_error(rungs: list[Rung]) -> float | None:
    """Largest relative error of foretelling a longer rung's wall time from the one-epoch rung."""
    units = {rung.name: rung for rung in rungs if rung.epochs == 1}
    errors = [
        abs((units[r.name].other_s + r.epochs * units[r.name].epoch_s) / r.wall_s - 1)
        for r in rungs
        if r.epochs > 1 and r.name in units
    ]
    return max(errors, default=None)
