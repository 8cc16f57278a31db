"""Thresholds per network and per exit, and what they do."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas.datasets.quantized_records import QuantizedRecord
from hadas.datasets.records import OutcomeMatrix
from hadas.errors import ConfigError
from hadas.measurement.accuracy.policies import fit_thresholds
from hadas.measurement.quantized import NETWORK_THRESHOLDS, exit_policy, outcome_with
from hadas.spaces.quantized import edge_space

NETWORK = edge_space("mobilenetv2").network("D,I")


def matrix(seed: int, n: int = 240, copies: int = 2) -> OutcomeMatrix:
    """Three exits, deeper ones better, confidence that tells something about being right."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=(n, 1))
    correct = ease + np.array([0.3, 0.7, 1.0]) + 0.7 * rng.normal(size=(n, 3)) > 0
    score = 1 / (1 + np.exp(-1.5 * ease - 0.8 - 0.5 * rng.normal(size=(n, 3))))
    half = score.astype(np.float16)
    return OutcomeMatrix(
        correct=correct, confidence=half, margin=half, entropy=half,
        predicted=np.zeros((n, 3), dtype=np.int16), group=np.repeat(np.arange(n // copies), copies).astype(np.int32),
    )  # fmt: skip


def record(seed: int) -> QuantizedRecord:
    return QuantizedRecord("s", 0, NETWORK, "r", "d", matrix(seed), matrix(seed + 1000))


def walked(judged: OutcomeMatrix, thresholds: np.ndarray) -> tuple[float, list[float], list[float]]:
    """Sample by sample."""
    left: list[list[bool]] = [[], [], []]
    for confidence, correct in zip(judged.confidence, judged.correct, strict=True):
        at = next((i for i in range(2) if float(confidence[i]) >= thresholds[i]), 2)
        left[at].append(bool(correct[at]))
    n = judged.n_samples
    return (
        sum(map(sum, left)) / n,
        [len(at) / n for at in left],
        [sum(at) / len(at) if at else 0.0 for at in left],
    )


def test_thresholds_act_sample_by_sample() -> None:
    judged = matrix(5)
    thresholds = np.array([0.8, 0.6, 0.0])
    found = outcome_with(judged, thresholds)
    accuracy, shares, branches = walked(judged, thresholds)
    assert found.accuracy.value == pytest.approx(accuracy)
    assert found.shares.tolist() == pytest.approx(shares)
    assert found.branch_accuracy.tolist() == pytest.approx(branches)
    assert found.final_accuracy.value == judged.correct[:, 2].mean()
    # Copies of an image are no independent samples.
    alone = dataclasses.replace(judged, group=np.arange(240, dtype=np.int32))
    assert found.accuracy.n == 120
    assert outcome_with(alone, thresholds).accuracy.n == 240


def test_a_network_gets_the_lowest_threshold_within_the_tolerance() -> None:
    for seed in range(5):
        drawn = record(seed)
        calibration = drawn.calibration
        assert calibration is not None
        final = calibration.correct[:, 2].mean()
        able = [
            t for t in NETWORK_THRESHOLDS if walked(calibration, np.array([t, t, 0.0]))[0] >= final - 0.02
        ]
        chosen = exit_policy(drawn, tolerance=0.02).thresholds
        assert chosen.tolist() == [able[0] if able else NETWORK_THRESHOLDS[-1]] * 2 + [0.0]


def test_each_exit_gets_its_own_threshold_on_request() -> None:
    drawn = record(3)
    assert drawn.calibration is not None
    found = exit_policy(drawn, kind="exit", tolerance=0.03, split="test")
    assert found.thresholds.tolist() == fit_thresholds(drawn.calibration, 0.03).tolist()
    assert found.thresholds[0] != found.thresholds[1]
    assert drawn.test is not None
    assert found.accuracy.value == pytest.approx(walked(drawn.test, found.thresholds)[0])


@given(st.integers(0, 10_000), st.sampled_from(["network", "exit"]), st.sampled_from(["calibration", "test"]))
def test_shares_and_branches_make_the_accuracy(seed: int, kind: str, split: str) -> None:
    found = exit_policy(record(seed), kind=kind, split=split)  # type: ignore[arg-type]
    assert found.shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert (found.shares * found.branch_accuracy).sum() == pytest.approx(found.accuracy.value, abs=1e-12)
    assert found.branch_counts.sum() == 240


def test_each_half_of_the_calibration_split_is_judged_by_the_other() -> None:
    drawn = record(11)
    calibration = drawn.calibration
    assert calibration is not None
    found = exit_policy(drawn, kind="exit", tolerance=0.01)
    right = 0.0
    odd = calibration.group % 2 == 1
    for fitted, judged in ((odd, ~odd), (~odd, odd)):
        part, other = (
            dataclasses.replace(
                calibration, correct=calibration.correct[rows], confidence=calibration.confidence[rows],
                group=calibration.group[rows],
            )
            for rows in (fitted, judged)
        )  # fmt: skip
        right += walked(other, fit_thresholds(part, 0.01))[0] * judged.sum()
    assert found.accuracy.value == pytest.approx(right / calibration.n_samples)


def test_what_has_no_outcomes_is_refused() -> None:
    failed = QuantizedRecord("s", 0, NETWORK, "r", "d", None, None, valid=False, reason="loss nan")
    with pytest.raises(ConfigError, match=r"D1I1K1.*training failed \(loss nan\)"):
        exit_policy(failed)
    with pytest.raises(ConfigError, match="give network or exit"):
        exit_policy(record(0), kind="oracle")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"tolerance = 1\.5"):
        exit_policy(record(0), tolerance=1.5)
