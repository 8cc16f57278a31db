"""The comparison of predictors: splits, figures and verdicts, against counting by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from _plain_models import KINDS, PlainModel
from _predictor_runs import OURS, Done, Job
from _predictor_tasks import DATA, Answer, Bound, Score, Split, Task, each_group, random_split, score
from predictors import as_json, coverage_of, failures, is_random, jobs_of, outcome_of, printed

TRUTH = np.exp(np.linspace(0.0, 2.0, 60))


def task(**changes):
    settings = {
        "name": "toy", "measured": TRUTH, "splits": random_split(60, 20),
        "ours": lambda train, test, seed: Answer(TRUTH[test]),
        "plain_columns": np.column_stack([np.log(TRUTH), np.ones(60)]), "bounds": (Bound("mape", at_most=5.0),),
    }  # fmt: skip
    return Task(**{**settings, **changes})


def done(a_task, mape, covered, n_test=40, seeds=range(10)):
    """Ours with one error per seed; every plain model three times as wrong."""
    found = []
    for seed in seeds:
        found.append(
            Done(Job("toy", OURS, seed), (Score(mape[seed], 1.0, 0.9, covered / n_test, covered, n_test),))
        )
        for kind in KINDS:
            own = Score(3 * mape[seed], 1.0, 0.8, float("nan"), 0, n_test)
            found.append(Done(Job("toy", kind, seed), (own,)))
    return found


def test_score_counts_as_by_hand():
    truth = np.array([1.0, 2.0, 4.0])
    value = np.array([1.1, 1.8, 4.4])
    found = score(Answer(value, value - 0.15, value + 0.3), truth)
    assert found.mape == pytest.approx(10.0)
    assert found.mae == pytest.approx((0.1 + 0.2 + 0.4) / 3)
    assert found.tau == 1.0
    assert (found.n_covered, found.n_test) == (2, 3)


def test_random_rows_are_told_from_held_out_groups():
    groups = np.repeat(np.arange(3), 20)
    assert is_random(task(), random_split(60, 20)(0))
    held_out = each_group(groups, 10, 20)(0)
    assert len(held_out) == 3
    assert not is_random(task(), held_out)
    assert all(not set(groups[split.train]) & set(groups[split.test]) for split in held_out)


def test_coverage_is_pooled_and_few_rows_get_the_binomial_band():
    few = coverage_of([Score(1, 1, 1, 0.9, 36, 40), Score(1, 1, 1, 1.0, 40, 40)])
    assert few.share == pytest.approx(76 / 80)
    assert (few.low, few.high) == pytest.approx(
        (0.9 - 1.96 * np.sqrt(0.09 / 40), 0.9 + 1.96 * np.sqrt(0.09 / 40))
    )
    many = coverage_of([Score(1, 1, 1, 0.94, 940, 1000)])
    assert (many.low, many.high) == (0.87, 0.93)
    assert few.holds
    assert not many.holds
    assert coverage_of([Score(1, 1, 1, float("nan"), 0, 40)]) is None


def test_a_figure_is_the_median_over_seeds_of_the_median_over_splits():
    mape = [4.0, 8.0, 6.0, 100.0, 1.0, *[50.0] * 5]
    outcome = outcome_of(task(), done(task(), mape, 36), quick=False)
    assert outcome.figures[OURS]["mape"] == 6.0
    assert outcome.best_plain("mape") == 18.0
    assert outcome.value(Bound("ratio_to_best_plain", at_most=0.75)) == pytest.approx(1 / 3)
    assert outcome.coverage.n_rows == 400
    assert outcome.n_train == 20
    families = [Done(Job("toy", OURS, 0), tuple(Score(m, 1, 1, 0.9, 9, 10) for m in (1.0, 2.0, 60.0)))]
    alone = outcome_of(task(plain_columns=None), families, quick=True)
    assert alone.figures[OURS]["mape"] == 2.0


def test_what_fails_is_named_and_decides_holds():
    good = outcome_of(task(), done(task(), [4.0] * 10, 36), quick=False)
    bad = outcome_of(task(), done(task(), [6.0] * 10, 30), quick=False)
    assert failures([good], quick=False) == []
    found = failures([bad], quick=False)
    assert len(found) == 2
    assert "mape 6" in found[0]
    assert "coverage 0.750" in found[1]
    assert not as_json([bad], False, 1.0)["holds"]
    assert as_json([good], False, 1.0)["holds"]
    assert any("MISSED" in line for line in printed(bad))
    illustration = outcome_of(task(judged=False), done(task(), [6.0] * 10, 30), quick=False)
    assert failures([illustration], quick=False) == []


def test_intervals_are_judged_on_ten_seeds_and_scores_on_five():
    jobs = list(jobs_of(task(floor={"repeats": lambda: 1.0}), quick=False))
    assert sorted(job.seed for job in jobs if job.contender == OURS) == list(range(10))
    assert sorted(job.seed for job in jobs if job.contender == "ARD GP") == list(range(5))
    assert [job.contender for job in jobs if job.seed is None] == ["repeats"]
    groups = task(splits=each_group(np.repeat([0, 1], 30), 10, 30))
    assert sorted(job.seed for job in jobs_of(groups, quick=False) if job.contender == OURS) == list(range(5))


@pytest.mark.parametrize("kind", list(KINDS))
def test_plain_models_learn_a_line_and_look_at_training_rows_only(kind):
    split = Split(np.arange(0, 60, 2), np.arange(1, 60, 2))
    one = PlainModel(task(), kind)(split.train, split.test, 0)
    assert np.mean(np.abs(one.value / TRUTH[split.test] - 1)) < 0.06
    spoiled = TRUTH.copy()
    spoiled[split.test] = 1e6
    again = PlainModel(task(measured=spoiled), kind)(split.train, split.test, 0)
    np.testing.assert_array_equal(again.value, one.value)


@pytest.mark.skipif(not DATA.exists(), reason=f"no measurements at {DATA}")
def test_logs_of_settings_are_those_of_the_readme():
    from _dvfs_tasks import repeat_error, sweep, tx1_runs, tx2_runs

    tx2, columns = tx2_runs("time_s")
    assert len(tx2) == 4 * 4 * 12 * 4 * 4
    assert columns.shape == (3072, 5)
    assert np.isnan(repeat_error(tx2))
    tx1, columns = tx1_runs("time_s")
    assert columns.shape == (1604, 13)
    # Three pairs, whose logs differ by 0.0244, 0.0215 and 0.0051.
    assert repeat_error(tx1) == pytest.approx(1.07, abs=0.02)
    rows, columns = sweep()
    assert columns.shape == (208, 6)
    assert len(np.unique(rows.networks)) == 4
