"""The GPU-day benchmark's arithmetic on made-up rungs, where the answer is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from hadas.datasets.records import AccuracyRecord, OutcomeMatrix
from hadas.spaces import mini_space

FILE = Path(__file__).parents[2] / "benchmarks" / "_gpu_day_figures.py"
SPACE = mini_space()
N_IMAGES = 1000


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("_gpu_day_figures", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def outcomes(n_right: int) -> OutcomeMatrix:
    """Two exits, both right on the first images; a final classifier that is always right."""
    right = np.arange(N_IMAGES) < n_right
    correct = np.stack([right, right, np.ones(N_IMAGES, dtype=bool)], axis=1)
    blank = np.zeros(correct.shape, dtype=np.float16)
    group = np.arange(N_IMAGES, dtype=np.int32)
    return OutcomeMatrix(correct, blank, blank, blank, blank.astype(np.int16), group)


def rung(figures, name: str, epochs: int, n_right: int, *, epoch_s: float = 2.0, other_s: float = 5.0):
    backbone = SPACE.presets[name]
    record = AccuracyRecord(
        "s", 0, backbone, "w", "r", "d", SPACE.first_exit, outcomes(n_right), outcomes(n_right),
        seconds={"exits": epochs * epoch_s},
    )  # fmt: skip
    return figures.Rung(name, backbone, epochs, other_s + epochs * epoch_s, record)


def test_losses_are_points_of_mean_exit_accuracy_with_a_paired_error(figures):
    rungs = [rung(figures, "m0", 30, 600), rung(figures, "m0", 3, 590), rung(figures, "m3", 3, 100)]
    (row,) = figures.losses(rungs, 30)  # m3 has no reference
    assert row["loss_points"] == pytest.approx(1.0)
    # Ten of a thousand images changed, all one way: the binomial error of 0.01.
    assert row["standard_error_points"] == pytest.approx(100 * np.sqrt(0.01 * 0.99 / 999), rel=1e-6)
    assert row["test_loss_points"] == pytest.approx(1.0)
    assert row["loss_at_most_points"] == pytest.approx(1.0 + 1.645 * row["standard_error_points"])


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        # Images right after 30, 10, 5 epochs of two backbones, of 1000.  Two lost are 0.2 points with an
        # error of 0.14: at most 0.43; three are at most 0.58, more than the 0.5 that are allowed.
        ({"m0": (600, 599, 598), "m3": (700, 699, 698)}, 5),
        ({"m0": (600, 599, 598), "m3": (700, 699, 697)}, 10),
        ({"m0": (600, 597, 599), "m3": (700, 699, 699)}, 30),  # 5 epochs better than 10: luck
        ({"m0": (600, 599, 598), "m3": (None, 699, 100)}, 5),  # without a reference: not judged
        ({"m0": (None, 596, 595), "m3": (None, 699, 100)}, None),
        ({"m0": (600, 599, 598), "m3": (199, 199, 199)}, 30),  # guesses, of ten classes: nothing to lose
    ],
)
def test_sufficient_epochs_hold_for_every_backbone_and_from_there_on(figures, right, expected):
    rungs = [
        rung(figures, name, epochs, n)
        for name, counts in right.items()
        for epochs, n in zip((30, 10, 5), counts, strict=True)
        if n is not None
    ]
    assert figures.sufficient_epochs(rungs, 30, 10) == expected


def test_projection_scales_the_longest_rung_to_the_seeding(figures):
    """Costs exactly proportional to the work: 100 seeds cost what their work says."""
    seeds = figures.seeding(SPACE, seed=1)
    assert len({backbone.arch_id for backbone in seeds}) == 100
    assert set(SPACE.presets.values()) | {SPACE.smallest, SPACE.largest} <= set(seeds)
    works = {name: figures.moved_values(SPACE, SPACE.presets[name], 10) for name in ("m0", "m3", "m6")}
    rungs = [
        rung(figures, name, epochs, 1, epoch_s=factor * work, other_s=3 * work)
        for name, work in works.items()
        for epochs, factor in ((1, 9.0), (4, 2.0))  # the one-epoch rung is dearer per epoch: not used
    ]
    found = figures.projection(rungs, SPACE, seeds, 10, 7)
    per_seed = np.mean([(3 + 7 * 2) * figures.moved_values(SPACE, b, 10) for b in seeds])
    assert found["seconds_per_seed_backbone"] == pytest.approx(per_seed)
    assert found["hours"] == pytest.approx(100 * per_seed / 3600)
    assert found["leave_one_out_error"] == pytest.approx(0, abs=1e-9)
    assert figures.foretold_error(rungs) == pytest.approx((3 + 4 * 9) / (3 + 4 * 2) - 1)
