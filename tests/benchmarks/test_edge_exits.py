"""The benchmark of exits under quantization: its figures by hand, and one tiny run of all of its trainings."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import edge_exits
from edge_exits import (
    PAIRS,
    REFERENCE,
    Plan,
    Trained,
    at_equal_accuracy,
    depth,
    depth_table,
    failures,
    mean_loss,
    trained,
    training_failures,
)

from hadas.datasets.images import load_images
from hadas.datasets.quantized_records import QuantizedRecord
from hadas.datasets.records import OutcomeMatrix
from hadas.measurement.accelerator import NetworkCosts
from hadas.measurement.quantized import QUANTIZED_RECIPES, outcome_with
from hadas.spaces.quantized import QuantizedExitSpace

TINY = QuantizedExitSpace("tiny", resolution=16, width=0.1)


def matrix(confidence: list[list[float]], correct: list[list[int]]) -> OutcomeMatrix:
    half = np.array(confidence, dtype=np.float16)
    n = len(half)
    return OutcomeMatrix(
        np.array(correct, dtype=bool), half, half, half, np.zeros(half.shape, dtype=np.int16),
        np.arange(n, dtype=np.int32),
    )  # fmt: skip


def record(letters: str, outcomes: OutcomeMatrix) -> QuantizedRecord:
    return QuantizedRecord("s", 0, TINY.network(letters), "r", "d", outcomes, outcomes)


# Four images, exits D, F, I and K: the first is right where it is sure, and the third image where it is not.
SURE = matrix(
    [[0.9, 0.1, 0.1, 0.9], [0.6, 0.1, 0.1, 0.9], [0.5, 0.1, 0.9, 0.9], [0.1, 0.1, 0.1, 0.9]],
    [[1, 0, 0, 1], [1, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]],
)
STATIC = matrix([[0.9]] * 4, [[1], [1], [1], [0]])


def costs() -> NetworkCosts:
    """1 mJ and 100 cycles per segment, heads a tenth of that; the static network is four segments and a head."""
    ones, none = np.ones((1, 4)), np.zeros(1)
    return NetworkCosts(
        accelerator="toy", core_hz=1_000_000, positions=np.array([[3, 5, 8, 10]]), segment_energy_mj=ones,
        segment_cycles=100 * ones, head_energy_mj=0.1 * ones, head_cycles=10 * ones, transfer_energy_mj=none,
        transfer_cycles=none, static_energy_mj=np.array([4.1]), static_cycles=np.array([410.0]),
    )  # fmt: skip


def test_equal_accuracy_takes_the_lowest_threshold_that_reaches_the_static_network() -> None:
    seed = Trained({REFERENCE: record("D,F,I", SURE)}, record("", STATIC))
    found = at_equal_accuracy(seed, costs())
    assert found.met
    assert found.threshold == pytest.approx(0.51)  # up to 0.50 the third image leaves at D, where it is wrong
    assert found.accuracy == 0.75
    assert found.loss.value == 0.0
    assert found.lost.tolist() == [0.0] * 4
    # Two images leave at D, one at I, one at K.
    et = (2 * 1.1 * 110 + 3.3 * 330 + 4.4 * 440) / 4
    assert found.against_full == pytest.approx(1 - et / (4.4 * 440))
    assert found.against_static == pytest.approx(1 - et / (4.1 * 410))


def test_depth_is_the_share_of_multiply_accumulates() -> None:
    network = record("D,F,I", SURE)
    macs = [stage.cumulative_macs for stage in TINY.stages(network.network)]
    outcome = outcome_with(SURE, np.array([0.55, 2.0, 0.55, 0.0]))
    expected = (2 * macs[0] + macs[2] + macs[3]) / (4 * macs[3])
    assert depth(TINY, network, outcome) == pytest.approx(expected)


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Everything that the form for a GPU trains, on the CPU: bfloat16 as there."""
    short = replace(QUANTIZED_RECIPES["smoke"], start_steps=2, tune_steps=1)
    recipe = replace(short, precision=edge_exits.GPU.recipe.precision, mirror=True)
    data = load_images("digits", limit=10)
    return trained(Plan(TINY, recipe, None), data, 0, tmp_path_factory.mktemp("exits"), "cpu", n_workers=1)


def test_a_tiny_run_trains_every_pair_of_bits_and_the_static_network(seed: Trained) -> None:
    assert [each.valid for each in seed.all] == [True] * 5
    assert [each.network.letters for each in seed.all] == ["D,F,I,K"] * 4 + ["K"]
    assert [(each.network.segment_bits[0], each.network.head_bits) for each in seed.exits.values()] == list(
        PAIRS
    )
    rows = depth_table(Plan(TINY, QUANTIZED_RECIPES["smoke"], None), [seed, seed])
    assert [row["bits"] for row in rows] == ["32+32", "8+8", "4+8", "4+4"] * 3
    for row in rows:
        assert sum(row["shares"]) == pytest.approx(1.0)
        if row["bits"] == "8+8":
            assert (row["deeper_than_8+8"], row["seeds_deeper"]) == (0.0, 0)


def drawn(seed: int, final: float, early: float = 0.95, n: int = 400) -> OutcomeMatrix:
    """Half of the samples are sure at D and right there with probability ``early``; all at K with ``final``."""
    rng = np.random.default_rng(seed)
    sure = rng.random((n, 4)) < 0.5
    correct = rng.random((n, 4)) < np.array([early, early, early, final])
    return matrix(np.where(sure, 0.9, 0.1).tolist(), correct.tolist())


def network(calibration: OutcomeMatrix, test: OutcomeMatrix, letters: str = "D,F,I") -> QuantizedRecord:
    return QuantizedRecord("s", 0, TINY.network(letters), "r", "d", calibration, test)


def seed_of(record: QuantizedRecord) -> Trained:
    last = [final_alone(outcomes) for outcomes in (record.calibration, record.test)]
    return Trained({REFERENCE: record}, network(*last, letters=""))


def final_alone(outcomes: OutcomeMatrix | None) -> OutcomeMatrix:
    """Of the final exit alone."""
    assert outcomes is not None
    return matrix(outcomes.confidence[:, -1:].tolist(), outcomes.correct[:, -1:].tolist())


GOOD = seed_of(network(drawn(0, 0.9), drawn(1, 0.9)))


def test_networks_no_better_than_chance_or_thresholds_that_do_not_hold_fail_even_the_quick_form() -> None:
    assert training_failures(GOOD, 10) == []
    blind = seed_of(network(drawn(2, 0.12), drawn(3, 0.12)))
    assert ["which chance may explain" in said for said in training_failures(blind, 10)] == [True, True]
    # Right where it was sure when thresholds were fitted, and wrong there ever after.
    misled = seed_of(network(drawn(4, 0.9), drawn(5, 0.9, early=0.5)))
    (said,) = failures([misled], [], 10, quick=True)
    assert said.startswith("D,F,I,K 8+8: fitted thresholds lose ")


def equal(lost: list[float], against_static: float = 0.45, met: bool = True) -> edge_exits.EqualAccuracy:
    group = np.arange(len(lost), dtype=np.int32)
    return edge_exits.EqualAccuracy(0.8, 0.7, np.array(lost), group, 0.5, against_static, met)


def test_what_is_lost_is_paired_by_image_and_seeds_share_the_images() -> None:
    seeds = [equal([1.0, 0.0, -1.0, 1.0]), equal([1.0, 0.0, 0.0, 0.0])]
    found, of_images = mean_loss(seeds), np.array([1.0, 0.0, -0.5, 0.5])
    assert found.value == of_images.mean()
    assert found.standard_error == pytest.approx(of_images.std(ddof=1) / np.sqrt(4))
    # Seeds that do the same to every image tell nothing that one of them does not.
    assert mean_loss(seeds[:1] * 3).standard_error == pytest.approx(mean_loss(seeds[:1]).standard_error)
    # Right and wrong on the same images: nothing is lost, and that is certain, whatever the accuracy.
    static = matrix([[0.9]] * 4, SURE.correct[:, -1:].tolist())
    same = at_equal_accuracy(Trained({REFERENCE: record("D,F,I", SURE)}, record("", static)), costs())
    assert (same.loss.value, same.loss.standard_error) == (0.0, 0.0)


def test_an_accuracy_that_no_threshold_reaches_is_said() -> None:
    better = matrix([[0.9]] * 4, [[1]] * 4)
    found = at_equal_accuracy(Trained({REFERENCE: record("D,F,I", SURE)}, record("", better)), costs())
    assert not found.met
    assert found.threshold == edge_exits.THRESHOLDS[-1]
    (said,) = failures([GOOD], [equal([0.0] * 4), equal([0.0] * 4, met=False)], 10, quick=False)
    assert said == "1 of 2 seeds: no threshold reached the accuracy of the static network"


def test_a_small_reduction_or_a_loss_fails() -> None:
    little = [0.0] * 960 + [1.0] * 22 + [-1.0] * 18
    assert failures([GOOD], [equal(little)] * 3, 10, quick=False) == []
    (said,) = failures([GOOD], [equal(little, against_static=0.2)] * 3, 10, quick=False)
    assert "20.0%, at least 35%" in said
    (said,) = failures([GOOD], [equal([0.0] * 980 + [1.0] * 15 + [-1.0] * 5)] * 3, 10, quick=False)
    assert said.startswith("loss of accuracy 1.00%, at most 2 standard errors of 0.4")
