"""Policies on real outcomes that others measured; skipped where the shared data is absent."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hadas.datasets.records import OutcomeMatrix
from hadas.measurement.accuracy.policies import (
    ExitCosts,
    FinalOnly,
    IdealMapping,
    Patience,
    RiskControlled,
    ShareThresholds,
    SingleExit,
    ToleranceThresholds,
    apply_controller,
    expected_cost,
    ideal_mapping,
    leave_bits,
    outcome_at,
    run_policy,
)
from hadas.spaces import space_by_name

from . import policy_loops as loops

SHARED = Path(__file__).parents[3] / "shared" / "data" / "accuracy"
NETWORKS = ("branchynet", "alexnet_all_exits_joint", "alexnet_backbone_then_exits", "alexnet_train_each_exit")
BOTH = np.ones(2, dtype=bool)
NOMINAL = ExitCosts(np.array([1.0, 1.0, 1.0]), np.array([0.05, 0.05]))
"""The networks' costs are not in the data; three equal segments and small heads stand in."""


def shared(name: str) -> pd.DataFrame:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{path}: the shared data is not beside this checkout")
    return pd.read_csv(path)


@pytest.fixture(scope="module")
def persample() -> dict[str, OutcomeMatrix]:
    """CIFAR-10 test images through two exits and the end; margin and entropy were not recorded."""
    matrices = {}
    for run, rows in shared("early_exit_cifar10_persample.csv.gz").groupby("run"):
        columns = {
            name: rows[[f"{name}{i}" for i in range(3)]].to_numpy() for name in ("pred", "conf", "correct")
        }
        missing = np.full((len(rows), 3), np.nan, dtype=np.float16)
        matrices[str(run)] = OutcomeMatrix(
            columns["correct"].astype(bool), columns["conf"].astype(np.float16), missing, missing,
            columns["pred"].astype(np.int16), rows["sample"].to_numpy(dtype=np.int32),
        )  # fmt: skip
    return matrices


def rows_of(matrix: OutcomeMatrix, chosen: slice) -> OutcomeMatrix:
    fields = ("correct", "confidence", "margin", "entropy", "predicted", "group")
    return OutcomeMatrix(*(getattr(matrix, field)[chosen] for field in fields))


def test_branchynet_exits_and_oracle_are_those_published_with_the_data(persample):
    matrix = persample["branchynet"]
    assert matrix.n_samples == 10_000
    assert (100 * matrix.fractions).round(1).tolist() == [68.3, 75.2, 72.8]
    assert round(100 * ideal_mapping(matrix.correct, BOTH).accuracy, 1) == 83.5


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("mask", [(True, True), (False, True)])
def test_every_policy_equals_a_loop_over_images(persample, network, mask):
    # Few calibration images, so that loops in Python can fit on them, and many to judge.
    calibration, judged = (
        rows_of(persample[network], slice(0, 500)),
        rows_of(persample[network], slice(500, None)),
    )
    used = np.flatnonzero(mask).tolist()
    fitted, correct = calibration.confidence.astype(float).tolist(), calibration.correct.tolist()
    scores, right = judged.confidence.astype(float).tolist(), judged.correct.tolist()
    order = np.random.default_rng(0).permutation(500).tolist()

    def by(thresholds: list[float]) -> list[int]:
        return loops.leave_by_thresholds(scores, thresholds, used)

    segment, head = NOMINAL.segment, NOMINAL.head
    expected = [
        (IdealMapping(), loops.leave_when_right(right, used)),
        (FinalOnly(), [2] * len(right)),
        (SingleExit(), [max(used, key=lambda j: sum(row[j] for row in correct))] * len(right)),
        (ToleranceThresholds(tolerance=0.02), by(loops.fit_tolerance(fitted, correct, used, 0.02, 20))),
        (
            ShareThresholds(NOMINAL, tolerance=0.02),
            by(loops.choose_shares(fitted, correct, used, segment, head, 0.02)),
        ),
        (Patience(2), loops.leave_by_agreement(judged.predicted.tolist(), 2, used)),
        (
            RiskControlled(0.05, 0.1),
            by(loops.fit_risk(fitted, correct, range(500), used, 0.05, 0.1, order)),
        ),
    ]
    in_use = np.array(mask)
    for policy, leaves_at in expected:
        outcome = run_policy(policy, calibration, judged, in_use)
        assert outcome.leaves_at.tolist() == leaves_at, policy.name
        assert outcome.accuracy == pytest.approx(loops.accuracy_of(right, leaves_at))
        assert outcome.shares.tolist() == [leaves_at.count(j) / len(right) for j in range(3)]
        evaluated = policy.fit(calibration, in_use).evaluated
        cost = loops.mean_cost(leaves_at, segment, head, np.flatnonzero(evaluated).tolist())
        assert expected_cost(outcome, NOMINAL.cumulative(evaluated)) == pytest.approx(cost)


@pytest.mark.parametrize("network", NETWORKS)
def test_promises_hold_on_the_half_that_thresholds_have_not_seen(persample, network):
    """Tolerance and risk, on 5,000 images after 5,000 others; three standard errors of slack."""
    calibration, judged = (
        rows_of(persample[network], slice(0, 5000)),
        rows_of(persample[network], slice(5000, None)),
    )
    slack = 3 * math.sqrt(0.25 / 5000)
    full = judged.fractions[-1]
    tolerant = run_policy(ToleranceThresholds(tolerance=0.01), calibration, judged, BOTH)
    assert tolerant.accuracy >= full - 0.01 - slack
    controlled = run_policy(RiskControlled(0.02, 0.1), calibration, judged, BOTH)
    lost = (judged.correct[:, -1] & ~controlled.correct).mean()
    assert lost <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / 5000)
    assert controlled.shares[:-1].sum() > 0.1


# -- AttentiveNAS on CIFAR-100, from the history of HADAS ------------------------------------------------


@pytest.fixture(scope="module")
def exit_accuracy() -> pd.DataFrame:
    return shared("hadas_exit_accuracy_cifar100.csv")


@pytest.mark.parametrize("name", ["a0", "a1", "a2", "a3", "a4", "a5"])
def test_exits_stand_where_the_published_table_has_them(exit_accuracy, name):
    space = space_by_name("attentivenas")
    work = space.workload(space.presets[name], n_classes=100)
    table = exit_accuracy[exit_accuracy.backbone == name]
    n_blocks = len(work.blocks)
    assert table.block_index_0based.tolist() == list(range(space.first_exit, n_blocks + 1))
    assert table.is_final.tolist() == [0] * work.n_positions + [1]
    # Accuracy jumps where a stage begins: more than over the block before, and most into mb6.
    gains = dict(zip(table.block_index_0based[1:], np.diff(table.top1), strict=True))
    starts = [i for i, b in enumerate(work.blocks) if b.index_in_stage == 0 and i - 1 in gains]
    assert len(starts) >= 4
    assert all(gains[i] > gains[i - 1] for i in starts)
    assert work.blocks[max(gains, key=lambda i: gains[i])].name == "mb6.0"


def test_stages_of_a0_hold_the_published_accuracies(exit_accuracy):
    """a0 has 17 blocks and 12 exits; its first is after block 5, counted from 0."""
    space = space_by_name("attentivenas")
    work = space.workload(space.presets["a0"], n_classes=100)
    table = exit_accuracy[exit_accuracy.backbone == "a0"].set_index("block_index_0based").top1
    assert (len(work.blocks), work.n_positions, space.first_exit) == (17, 12, 5)
    by_stage = {
        stage: [table[i] for i, b in enumerate(work.blocks) if b.stage == stage and i >= 5]
        for stage in (5, 6)
    }
    assert max(by_stage[5]) == pytest.approx(59.0, abs=0.1)
    assert min(by_stage[6]) == pytest.approx(74.7, abs=0.1)


def matrix_of_histogram(table: pd.DataFrame) -> OutcomeMatrix:
    """Samples at the centres of their bins; the last classifier stands twice, as an exit and as the end.

    Up to 5 of 49,984 samples are in no bin of an exit; they never leave there.
    """
    n, columns = int(table.groupby("exit_row0").samples.sum().max()), []
    for _, bins in table.groupby("exit_row0"):
        right, centre = [], []
        for samples, accuracy, upper in zip(bins.samples, bins.accuracy, bins.bin_upper, strict=True):
            n_right = round(samples * accuracy)
            right += [True] * n_right + [False] * (samples - n_right)
            centre += [upper - 0.1] * samples
        outside = n - len(right)
        columns.append((right + [False] * outside, centre + [0.0] * outside))
    columns.append(columns[-1])
    correct, confidence = (np.array([column[i] for column in columns]).T for i in (0, 1))
    same = confidence.astype(np.float16)
    return OutcomeMatrix(
        correct, same, same, same, np.zeros(same.shape, np.int16), np.arange(n, dtype=np.int32)
    )


@pytest.mark.parametrize(
    ("exit_index", "share", "accuracy", "rounded_to"),
    [
        (0, 0.000, 0.88, 0.01),
        (5, 0.022, 0.96, 0.01),
        (8, 0.237, 0.977, 0.001),
        (10, 0.351, 0.982, 0.001),
        (11, 0.554, 0.980, 0.001),
        (12, 0.610, 0.989, 0.001),
    ],
)
def test_a_threshold_of_0_8_gives_the_published_shares_of_a0(
    a0_histogram, exit_index, share, accuracy, rounded_to
):
    leaves = leave_bits(a0_histogram, np.full(a0_histogram.n_exits, 0.8))
    alone = np.arange(a0_histogram.n_exits - 1) == exit_index
    outcome = apply_controller(a0_histogram.correct, leaves, alone)
    assert outcome.shares[exit_index] == pytest.approx(share, abs=0.0005)
    gone = outcome.leaves_at == exit_index
    left = outcome_at(a0_histogram.correct[gone], outcome.leaves_at[gone])
    assert left.accuracy == pytest.approx(accuracy, abs=0.51 * rounded_to)


@pytest.fixture(scope="module")
def a0_histogram() -> OutcomeMatrix:
    table = shared("hadas_exit_confidence_cifar100.csv")
    matrix = matrix_of_histogram(table[(table.backbone == "a0") & (table.temp == 1)])
    assert matrix.correct.shape == (49_984, 14)
    return matrix
