"""Which model is chosen, and on what evidence."""

import numpy as np
import pytest

from hadas.errors import ModelError
from hadas.surrogates.models import Design
from hadas.surrogates.selection import MIN_CV_GROUPS, TrainingRows, cross_validate, select_model


def rows(y_of, n=120, n_groups=12):
    rng = np.random.default_rng(4)
    x = rng.uniform(-1, 1, size=(n, 3))
    y = y_of(x) + 0.02 * rng.standard_normal(n)
    return TrainingRows(x, y, np.zeros(n), np.arange(n) % n_groups, np.zeros(n))


def test_a_smooth_target_takes_the_gaussian_process():
    model, summary = select_model(
        "q", "", rows(lambda x: np.sin(2 * x[:, 0]) + x[:, 1]), candidates=("xgb", "gp"), seed=0
    )
    assert model.kind == summary.chosen == "gp"
    tree, process = summary.scores
    assert process.rmse < 0.5 * tree.rmse
    assert process.kendall_tau > tree.kendall_tau
    assert 0.75 <= process.coverage_90 <= 1.0


def test_a_target_of_steps_takes_the_trees():
    model, summary = select_model(
        "q",
        "",
        rows(lambda x: 1.0 * (x[:, 0] > 0.3) + 2.0 * (x[:, 1] > -0.2), n=300),
        candidates=("gp", "xgb"),
        seed=0,
    )
    assert model.kind == summary.chosen == "xgb"


def test_a_straight_line_takes_the_ridge_regression():
    model, summary = select_model(
        "q", "", rows(lambda x: x @ [1.0, -2.0, 0.5], n=40), candidates=("xgb", "ridge"), seed=0
    )
    assert model.kind == summary.chosen == "ridge"
    tree, line = summary.scores
    assert line.rmse == pytest.approx(0.02, rel=0.3)
    # Of a normal prediction that is right about itself, the score is 1 / sqrt(pi) of its deviation.
    assert line.crps == pytest.approx(line.rmse / np.sqrt(np.pi), rel=0.15)
    assert line.crps < 0.5 * tree.crps


def test_a_physical_sum_takes_the_trend_which_is_fitted_without_the_held_out():
    """Times that add up, asked beyond what was measured; garbled times of one group are not learned."""
    rng = np.random.default_rng(5)
    terms = np.exp(rng.uniform(-2, 2, size=(60, 2)))
    y = np.log(terms @ [3.0, 0.5]) + 0.02 * rng.standard_normal(60)
    groups = np.arange(60) % 6
    x = np.hstack([terms, np.log(terms)])
    design = Design(terms=(0, 1))
    data = TrainingRows(x, y, np.zeros(60), groups, np.zeros(60), design)
    model, summary = select_model("q", "log ms", data, candidates=("ridge", "trend+ridge"), seed=0)
    assert model.kind == summary.chosen == "trend+ridge"
    assert summary.scores[1].rmse < 0.2 * summary.scores[0].rmse
    # A group whose values only the group itself could tell: no candidate predicts them.
    odd = TrainingRows(x, y + 3.0 * (groups == 2), np.zeros(60), groups, np.zeros(60), design)
    score = cross_validate("trend+ridge", odd, groups, seed=0)
    assert score.rmse > 2.5 * np.sqrt(1 / 6)


def test_an_average_is_a_candidate():
    data = rows(lambda x: np.sin(2 * x[:, 0]) + x[:, 1], n=60)
    model, summary = select_model("q", "", data, candidates=("average",), seed=0, score=False)
    assert model.kind == summary.chosen == "average"
    assert np.sqrt(np.mean((model.mean(data.x)[:, 0] - data.y) ** 2)) < 0.2


def test_the_offset_counts_for_the_rank_correlation_alone():
    data = rows(lambda x: 0.05 * x[:, 0])
    shifted = TrainingRows(data.x, data.y, data.noise_variance, data.groups, 10.0 * data.x[:, 2])
    plain = select_model("q", "", data, candidates=("gp",), seed=0)[1].scores[0]
    whole = select_model("q", "", shifted, candidates=("gp",), seed=0)[1].scores[0]
    assert whole.rmse == plain.rmse
    assert whole.kendall_tau > 0.99 > plain.kendall_tau


def test_too_few_backbones_take_the_first_candidate_unscored():
    data = rows(lambda x: x[:, 0], n=30, n_groups=MIN_CV_GROUPS - 1)
    model, summary = select_model("q", "", data, candidates=("xgb", "gp"), seed=0)
    assert model.kind == "xgb"
    assert summary.scores == ()
    assert (summary.n_rows, summary.n_groups) == (30, MIN_CV_GROUPS - 1)


def test_nothing_to_choose_from_is_an_error():
    data = rows(lambda x: x[:, 0])
    with pytest.raises(ModelError, match="no candidate models"):
        select_model("latency", "", data, candidates=(), seed=0)
    with pytest.raises(ModelError, match="'latency': not one valid measurement"):
        select_model("latency", "", data.take(np.array([], dtype=np.int64)), candidates=("gp",), seed=0)
