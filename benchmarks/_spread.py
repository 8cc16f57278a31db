"""What the benchmarks of a supernet share: records of named backbones, and their spread against its error."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

import numpy as np

from hadas.datasets.records import AccuracyRecord, OutcomeMatrix, Statistic
from hadas.measurement.accuracy.supernet_meter import SupernetMeter
from hadas.spaces import Backbone, MBConvSpace

Split = Literal["calibration", "test"]


def named_backbones(space: MBConvSpace, n_random: int, seed: int) -> dict[str, Backbone]:
    """The presets and random backbones of a space."""
    genomes = space.sample(n_random, np.random.default_rng(seed))
    return {**space.presets, **{f"random {i}": space.decode(g) for i, g in enumerate(genomes)}}


def outcomes_of(record: AccuracyRecord, split: Split) -> OutcomeMatrix:
    """Outcomes of a valid record on one split."""
    outcomes = record.calibration if split == "calibration" else record.test
    assert outcomes is not None
    return outcomes


def measured(
    meter: SupernetMeter, backbones: dict[str, Backbone], session: str, split: Split
) -> dict[str, AccuracyRecord]:
    """One valid record per backbone, each printed; stops at the first that failed, with its reason."""
    records = {}
    stream = meter.measure(list(backbones.values()), session=session)
    for (name, backbone), record in zip(backbones.items(), stream, strict=True):
        if not record.valid:
            raise SystemExit(f"{name} ({backbone.arch_id}): {record.reason}")
        records[name] = record
        shown = " ".join(f"{100 * f:.1f}" for f in outcomes_of(record, split).fractions)
        print(f"{name:10} {sum(record.seconds.values()):5.1f} s   % right by exit: {shown}", flush=True)
    return records


def spread_figures(final: Sequence[Statistic], *, seed_error: float = 0.0) -> dict[str, float]:
    """Standard deviation of final accuracy between backbones, and the standard error of one measurement.

    Args:
        final: accuracy of each backbone's final classifier, with the error of the sample of images.
        seed_error: what the seed of a measurement adds to that, as a standard deviation.
    """
    values = [accuracy.value for accuracy in final]
    sample_error = statistics.median(accuracy.standard_error for accuracy in final)
    error = math.hypot(sample_error, seed_error)
    return {
        "final_accuracy_sd": statistics.stdev(values),
        "sample_error": sample_error,
        "measurement_error": error,
        "spread_over_standard_error": statistics.stdev(values) / error,
        "final_accuracy_best": max(values),
        "final_accuracy_worst": min(values),
    }
