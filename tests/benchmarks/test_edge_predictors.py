"""Predictors of published early-exit networks are judged on networks that none of them has seen."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from _edge_records import RECORDS_FILE, edge_records  # noqa: E402

if not RECORDS_FILE.is_file():
    pytest.skip("the records of the folder 'shared' are not beside the repository", allow_module_level=True)
from _edge_contenders import CONTENDERS, Records, Said, mean_predictor  # noqa: E402
from _figures import at_least_one  # noqa: E402
from edge_predictors import (  # noqa: E402
    COVERAGE,
    N_TRAIN,
    failures,
    figures_of,
    jointness_of,
    judged,
    print_question,
    split,
)


@pytest.fixture(scope="module")
def records():
    return Records.of(edge_records(), knows_threshold=True)


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_sixty_records_are_seen_and_no_mounting_points_on_both_sides(records, seed):
    train, test = split(records.inputs.placement(), N_TRAIN, seed)
    assert len(train) == N_TRAIN
    assert sorted([*train, *test]) == list(range(len(records.accuracy)))
    assert not {records.positions[row] for row in train} & {records.positions[row] for row in test}


def test_the_truth_has_no_error_and_only_cumulative_costs_are_judged(records):
    found = judged(Said(records.accuracy, records.shares), records)
    assert found.figures == pytest.approx({"accuracy": 0.0, "shares": 0.0, "ET_avg": 0.0})
    drawn = judged(
        Said(records.accuracy, records.shares, records.accuracy[None], records.shares[None]), records
    )
    assert drawn.inside["accuracy"][1] == 96
    assert drawn.inside["shares"][1] == sum(len(record.positions) for record in edge_records())
    assert drawn.inside["ET_avg"][1] == sum(record.is_cumulative for record in edge_records())


def test_errors_are_of_a_networks_exits_first(records):
    """One network of two exits off by 10 points at both, another of four right: half of 10 points."""
    rows = np.array([next(i for i, p in enumerate(records.positions) if len(p) == n) for n in (2, 4)])
    truth = records.take(rows)
    said = truth.shares.copy()
    said[0, :2] += [0.1, -0.1]
    found = judged(Said(truth.accuracy + 0.02, said), truth)
    assert found.figures["shares"] == pytest.approx(5.0)
    assert found.figures["accuracy"] == pytest.approx(2.0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_errors_that_go_together_are_told_from_such_that_do_not(records, sign):
    """Draws and errors shift accuracy, and samples from the first exit to the last, together or against each other."""
    rng = np.random.default_rng(0)
    last = records.inputs.n_exits - 1
    rows = np.arange(len(last))

    def moved(shift):
        shares = np.repeat(records.shares[None], len(shift), axis=0)
        shares[:, rows, 0] -= 0.01 * shift
        shares[:, rows, last] += 0.01 * shift
        return shares

    shift = rng.standard_normal((200, len(rows)))
    found = judged(
        Said(records.accuracy, records.shares, records.accuracy + 0.01 * sign * shift, moved(shift)), records
    )
    error = rng.standard_normal((1, len(rows)))
    told = Said(
        records.accuracy,
        records.shares,
        records.accuracy + 0.01 * sign * error - 0.01 * sign * shift,
        moved(error - shift),
    )
    assert jointness_of([found])["drawn"] == pytest.approx(sign, abs=0.02)
    assert jointness_of([judged(told, records)])["made"] == pytest.approx(sign, abs=0.05)


def test_the_mean_predictor_is_the_mean_of_as_many_exits(records):
    rows = np.array([i for i, p in enumerate(records.positions) if len(p) == 3])
    seen, asked = records.take(rows[:-1]), records.take(rows[-1:])
    said = mean_predictor(seen, asked, 0)
    np.testing.assert_allclose(said.shares[0], seen.shares.mean(axis=0))
    four = records.take(np.array([i for i, p in enumerate(records.positions) if len(p) == 4][:1]))
    assert mean_predictor(seen, four, 0).shares.tolist() == [[0.25] * 4]


def test_ours_errs_less_than_the_others_in_a_split(records, capsys):
    train, test = split(records.inputs.placement(), N_TRAIN, 100)
    seen, asked = records.take(train), records.take(test)
    found = {name: judged(contender(seen, asked, 100), asked) for name, contender in CONTENDERS.items()}
    for figure in ("accuracy", "shares", "ET_avg"):
        assert found["ours"].figures[figure] < min(
            found[n].figures[figure] for n in ("mean", "random forest")
        )
    figures = figures_of({name: [errors, errors] for name, errors in found.items()})
    coverage = {"accuracy": 0.9, "shares": 0.82, "ET_avg": 0.96}
    assert failures("here", figures, coverage, n_seeds=9) == []
    assert failures("here", figures, coverage, n_seeds=10) == [
        "here: 82.0 % of shares inside nominal 90 % intervals",
        "here: 96.0 % of ET_avg inside nominal 90 % intervals",
    ]
    alone = figures_of({name: [errors] for name, errors in found.items()})
    assert alone["accuracy"]["ours"] == (pytest.approx(found["ours"].figures["accuracy"]), None)
    print_question("here", alone, coverage)
    assert "nan" not in capsys.readouterr().out


def test_the_bounds_of_coverage_are_those_of_as_many_values_as_there_are_records():
    low, high = binom.ppf([0.05, 0.95], len(edge_records()), 0.9) / len(edge_records())
    assert COVERAGE[0] <= low <= COVERAGE[0] + 0.01
    assert COVERAGE[1] - 0.01 <= high <= COVERAGE[1]


@pytest.mark.parametrize("count", ["0", "-1", "two", "1.5"])
def test_no_splits_are_refused(count):
    assert at_least_one("1") == 1
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        at_least_one(count)
