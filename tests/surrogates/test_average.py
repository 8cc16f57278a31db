"""The average: what members are worth, and a mixture whose draws match its moments."""

import numpy as np
import pytest

from hadas.errors import ModelError
from hadas.surrogates.average import Average, stacking_weights
from hadas.surrogates.models import Design, make_model, model_from_state


def task(y_of, n, seed=0):
    rng = np.random.default_rng([6, seed])
    x = rng.uniform(-1, 1, size=(n, 3))
    return x, (y_of(x) + 0.05 * rng.standard_normal(n))[:, None]


def straight(x):
    return x @ [1.0, -0.5, 0.2]


def steps(x):
    return 1.0 * (x[:, 0] > 0.3) + 2.0 * (x[:, 1] > -0.2)


def test_weights_are_those_of_least_error():
    """Independent errors of variance 1 and 4: by theory 4/5 and 1/5; a useless third gets nothing."""
    rng = np.random.default_rng(0)
    error = rng.standard_normal((4000, 3)) * [1.0, 2.0, 1.0]
    error[:, 2] = 3.0 * error[:, 0] + 1.0
    weights = stacking_weights(error, np.zeros(4000))
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weights, [0.8, 0.2, 0.0], atol=0.03)


def test_rows_of_much_known_noise_do_not_choose():
    error = np.vstack([np.tile([0.1, 1.0], (50, 1)), [[100.0, 0.0]]])
    known = np.append(np.zeros(50), 1e5)
    assert stacking_weights(error, known)[0] > 0.9 > 0.5 > stacking_weights(error, np.zeros(51))[0]


def test_few_rows_leave_members_equal():
    assert stacking_weights(np.array([[1.0, 1.1]]), np.zeros(1)) == pytest.approx([0.5, 0.5], abs=0.1)
    x, y = task(straight, 3)
    model = Average("y", "", seed=0, quick=True, members=("gp", "ridge")).fit(x, y)
    np.testing.assert_array_equal(model.weights, [0.5, 0.5])


@pytest.mark.parametrize(("y_of", "better"), [(straight, 0), (steps, 1)])
def test_the_better_member_weighs_more_and_the_average_is_no_worse(y_of, better):
    x, y = task(y_of, 150)
    unseen, measured = task(y_of, 300, seed=1)
    model = Average("y", "", seed=0, quick=True, members=("ridge", "xgb")).fit(x, y)
    assert model.weights[better] > 0.7

    def rmse(fitted):
        return np.sqrt(np.mean((fitted.mean(unseen) - measured) ** 2))

    alone = [rmse(make_model(kind, "y", "", seed=0, quick=True).fit(x, y)) for kind in ("ridge", "xgb")]
    assert rmse(model) < 1.1 * min(alone)


def test_members_who_disagree_widen_the_interval_and_draws_show_both():
    x, y = task(steps, 80)
    model = Average("y", "", seed=0, quick=True, members=("ridge", "xgb")).fit(x, y)
    far = np.array([[4.0, 4.0, 0.0]])
    prediction = model.predict(far)
    parts = [member.predict(far) for member in model._models]
    means = np.array([part.mean[0, 0] for part in parts])
    within = np.array([part.var_epistemic[0, 0] for part in parts])
    mean = model.weights @ means
    total = model.weights @ within + model.weights @ (means - mean) ** 2
    assert prediction.mean[0, 0] == pytest.approx(mean)
    assert prediction.var_epistemic[0, 0] == pytest.approx(total)
    assert total > 1.05 * model.weights @ within
    draws = model.paths(4000, 3)(far)[:, 0, 0]
    assert draws.mean() == pytest.approx(mean, abs=0.1 * np.sqrt(total))
    assert draws.var() == pytest.approx(total, rel=0.1)


def test_default_members_and_a_saved_one_with_a_trend():
    rng = np.random.default_rng(2)
    terms = rng.uniform(0.5, 2.0, size=(60, 2))
    x = np.hstack([terms, np.log(terms)])
    y = np.log(terms @ [3.0, 1.0] + 0.2)[:, None] + 0.01 * rng.standard_normal((60, 1))
    model = Average("y", "log ms", seed=0, quick=True, design=Design(terms=(0, 1))).fit(x, y)
    assert model.members == ("trend+gp", "xgb")
    assert model.weights[0] > 0.8
    loaded = model_from_state(model.state())
    np.testing.assert_array_equal(loaded.predict(x).sd_total, model.predict(x).sd_total)
    np.testing.assert_array_equal(loaded.paths(3, 1)(x), model.paths(3, 1)(x))


def test_misuse_is_named():
    with pytest.raises(ModelError, match="member of itself"):
        Average("y", "", seed=0, members=("gp", "average"))
    with pytest.raises(ModelError, match="not been fitted"):
        Average("y", "", seed=0).predict(np.zeros((1, 2)))
    with pytest.raises(ModelError, match="no predictor 'forest'"):
        make_model("forest", "y", "", seed=0)
