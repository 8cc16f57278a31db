"""The boosted ensemble: intervals that cover, and the parts they are made of."""

import numpy as np
import pytest

from hadas.errors import ModelError
from hadas.surrogates.error_variance import fit_variance, gamma_test
from hadas.surrogates.models import Design, group_folds, model_from_state
from hadas.surrogates.xgb import KFoldXGBoost


def task(n, seed, noise=0.1):
    rng = np.random.default_rng([8, seed])
    x = rng.uniform(-1, 1, size=(n, 5))
    y = np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] + noise * rng.standard_normal(n)
    return x, y[:, None]


def test_intervals_cover_what_was_held_out():
    """Nominal 90 %; the spread of the members alone covers far less."""
    inside, raw = [], []
    for seed in range(3):
        x, y = task(200, seed)
        unseen, measured = task(400, seed + 100)
        model = KFoldXGBoost(seed=seed).fit(x, y)
        prediction = model.predict(unseen)
        error = np.abs(prediction.mean - measured)
        inside.append(np.mean(error < 1.645 * prediction.sd_total))
        members = np.stack([b.inplace_predict(unseen).reshape(-1) for b in model._outputs[0].boosters])
        raw.append(np.mean(error[:, 0] < 1.645 * members.std(axis=0) * model._outputs[0].y_scale))
    assert 0.80 <= np.mean(inside) <= 0.98
    assert np.mean(raw) < np.mean(inside) - 0.15


def test_noise_and_misfit_are_told_apart():
    """Noisy data: most of the variance is noise; precise data: most is the function's."""
    for noise, check in (
        (0.5, lambda p: p.var_noise > p.var_epistemic),
        (0.0, lambda p: p.var_noise < p.var_epistemic),
    ):
        x, y = task(300, 1, noise)
        prediction = KFoldXGBoost(n_rounds=100).fit(x, y).predict(task(50, 2)[0])
        assert np.mean(check(prediction)) > 0.8


def test_groups_are_held_out_whole():
    """A target that is one constant per group: errors on unseen groups are those that count."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(15), 10)
    x = np.hstack([rng.normal(size=(15, 3))[groups], rng.normal(size=(150, 1))])
    y = rng.normal(size=15)[groups][:, None]
    told = KFoldXGBoost(n_rounds=60).fit(x, y, groups=groups).predict(x).sd_total.mean()
    untold = KFoldXGBoost(n_rounds=60).fit(x, y).predict(x).sd_total.mean()
    assert told > 2 * untold


def test_fit_variance_finds_what_made_the_errors():
    rng = np.random.default_rng(2)
    spread = rng.uniform(0.0, 1.0, 4000)
    known = np.full(4000, 0.05)
    errors = rng.standard_normal(4000) * np.sqrt(3 * spread + 0.2 + known)
    factor, variance = fit_variance(errors, spread, known, 6.0)
    assert factor == 3.0
    assert variance == pytest.approx(0.2, abs=0.05)


def test_gamma_test_measures_noise_of_smooth_and_of_repeated_rows():
    rng = np.random.default_rng(3)
    x = rng.uniform(size=(2000, 2))
    noise, _ = gamma_test(x, np.sin(x[:, 0]) + 0.2 * rng.standard_normal(2000))
    assert noise == pytest.approx(0.04, rel=0.15)
    repeats = np.repeat(rng.uniform(size=(500, 2)), 2, axis=0)
    noise, length = gamma_test(repeats, 0.3 * rng.standard_normal(1000))
    assert noise == pytest.approx(0.09, rel=0.15)
    assert length > 0


def test_gamma_test_leaves_out_the_noise_that_is_known():
    rng = np.random.default_rng(4)
    x = rng.uniform(size=(2000, 2))
    known = np.where(rng.uniform(size=2000) < 0.3, 4.0, 0.02)
    values = np.sin(x[:, 0]) + np.sqrt(known + 0.04) * rng.standard_normal(2000)
    assert gamma_test(x, values, known)[0] == pytest.approx(0.04, abs=0.015)


def test_monotone_signs_hold_everywhere():
    """A rising and a falling feature under noise that plain trees follow up and down."""
    rng = np.random.default_rng(6)
    x = rng.uniform(-1, 1, size=(80, 3))
    y = (x[:, 0] - 0.7 * x[:, 1] + np.sin(4 * x[:, 2]) + 0.5 * rng.standard_normal(80))[:, None]
    rows, line = np.repeat(rng.uniform(-1, 1, size=(20, 3)), 30, axis=0), np.tile(np.linspace(-1, 1, 30), 20)

    def wrong_way(model, column, sign):
        moved = rows.copy()
        moved[:, column] = line
        steps = sign * np.diff(model.mean(moved)[:, 0].reshape(20, 30), axis=1)
        return -min(0.0, float(steps.min()))

    plain = KFoldXGBoost(n_rounds=60).fit(x, y)
    signed = KFoldXGBoost(n_rounds=60, design=Design(monotone=(1, -1, 0))).fit(x, y)
    for column, sign in ((0, 1), (1, -1)):
        assert wrong_way(signed, column, sign) < 1e-6
        assert wrong_way(plain, column, sign) > 0.05
    assert wrong_way(signed, 2, 1) > 0.05
    with pytest.raises(ModelError, match="3 monotone signs for 2 features"):
        KFoldXGBoost(design=Design(monotone=(1, -1, 0))).fit(x[:, :2], y)


def curves(n, seed):
    """Eight outputs of one shape, as exits of a backbone have it."""
    x, y = task(n, seed, 0.0)
    depth = np.linspace(0.3, 1.0, 8)
    return x, y * depth + 0.2 * depth**2 + 0.05 * np.random.default_rng(seed).standard_normal((n, 8))


def test_shared_trees_know_all_outputs_at_once():
    """One booster per member; about as good as trees of their own; intervals that cover."""
    x, y = curves(250, 0)
    unseen, measured = curves(400, 1)
    names = tuple(f"exit_{i}" for i in range(8))
    shared = KFoldXGBoost(names, ("",) * 8, n_members=5, n_rounds=80, shared_trees=True).fit(x, y)
    alone = KFoldXGBoost(names, ("",) * 8, n_members=5, n_rounds=80).fit(x, y)
    assert (len(shared.state().boosters), len(alone.state().boosters)) == (5, 40)
    prediction = shared.predict(unseen)
    rmse = [np.sqrt(np.mean((model.mean(unseen) - measured) ** 2)) for model in (shared, alone)]
    assert rmse[0] < 1.1 * rmse[1]
    assert 0.82 < np.mean(np.abs(prediction.mean - measured) < 1.645 * prediction.sd_total) < 0.97
    loaded = model_from_state(shared.state())
    np.testing.assert_array_equal(loaded.predict(unseen).sd_total, prediction.sd_total)
    np.testing.assert_array_equal(loaded.paths(3, 0)(unseen), shared.paths(3, 0)(unseen))


def test_a_gap_gives_every_output_trees_of_its_own():
    x, y = curves(60, 0)
    y[3, 5] = np.nan
    names = tuple(f"exit_{i}" for i in range(8))
    model = KFoldXGBoost(names, ("",) * 8, n_members=2, n_rounds=10, shared_trees=True).fit(x, y)
    assert len(model.state().boosters) == 16


def test_folds_keep_groups_together_and_balanced():
    groups = np.repeat(np.arange(23), 4)
    folds = group_folds(groups, 5, np.random.default_rng(0))
    assert all(len(set(folds[groups == g])) == 1 for g in range(23))
    per_fold = [len(set(groups[folds == k])) for k in range(5)]
    assert max(per_fold) - min(per_fold) <= 1


def test_unfitted_says_so():
    with pytest.raises(ModelError, match="not been fitted"):
        KFoldXGBoost().predict(np.zeros((1, 2)))
    with pytest.raises(ModelError, match="not been fitted"):
        KFoldXGBoost().state()
