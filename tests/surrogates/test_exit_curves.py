from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from hadas.datasets.records import OutcomeMatrix
from hadas.errors import ModelError
from hadas.spaces import mini_space
from hadas.surrogates.accuracy import (
    AccuracyScale,
    accuracy_design,
    accuracy_rows,
    repeat_noise,
    usable_accuracy,
)
from hadas.surrogates.exit_curves import curve_rows, drawn_curves, final_slope, predicted_curves
from hadas.surrogates.models import make_model
from hadas.surrogates.prediction import Prediction
from hadas.surrogates.predictor_set import PredictorSet

SPACE = mini_space()


def whole_and_curve(end_matters):
    """Exit models of 12 backbones whose curves follow (or do not) where they end; last column: the final logit."""
    rng = np.random.default_rng(0)
    depth = np.tile(np.linspace(0, 1, 6), 12)
    final = np.repeat(rng.normal(1.0, 0.4, 12), 6)
    y = -1.0 + depth + end_matters * depth * (final - 1.0) + rng.normal(0, 0.01, len(depth))
    x = np.stack([depth, final], axis=1)
    model = make_model("gp", "exits", "logit", seed=0)
    return model.fit(x, y[:, None], groups=np.repeat(np.arange(12), 6)), x


def test_the_slope_is_how_much_of_a_better_end_an_exit_sees():
    model, _ = whole_and_curve(1.0)
    rows = np.array([[0.0, 1.0], [0.5, 1.0], [1.0, 1.0]])
    for sd in (0.0, 0.1):
        assert final_slope(model, rows, np.full(3, sd)) == pytest.approx([0.0, 0.5, 1.0], abs=0.08)


def test_exits_inherit_the_uncertainty_of_the_end():
    model, x = whole_and_curve(1.0)
    rows = x[5:6]
    known, unknown = (predicted_curves(model, rows, np.array([sd])) for sd in (0.0, 0.3))
    assert np.array_equal(known.mean, unknown.mean)
    added = unknown.var_epistemic - known.var_epistemic
    assert np.sqrt(added[0, 0]) == pytest.approx(0.3, rel=0.1)


def test_draws_of_exits_and_end_are_joint():
    """Draws move together where exits follow the end, and hardly at all where they do not."""
    rng = np.random.default_rng(1)
    sd = 0.3
    off = sd * rng.standard_normal((400, 1))
    for end_matters in (1.0, 0.0):
        model, _ = whole_and_curve(end_matters)
        row = np.array([[1.0, 1.0]])
        drawn = drawn_curves(model.paths(400, 0), model, row, np.array([sd]), off)
        if end_matters:
            assert np.corrcoef(drawn[:, 0], off[:, 0])[0, 1] > 0.95
        else:
            assert drawn[:, 0].std() < 0.1 * sd
        marginal = predicted_curves(model, row, np.array([sd]))
        spread = float(np.sqrt(marginal.var_epistemic[0, 0]))
        assert drawn[:, 0].mean() == pytest.approx(marginal.mean[0, 0], abs=4 * spread / 20)
        assert drawn[:, 0].std() == pytest.approx(spread, rel=0.2)


def last_columns(matrix, n):
    kept = {
        name: getattr(matrix, name)[:, -n:]
        for name in ("correct", "confidence", "margin", "entropy", "predicted")
    }
    return OutcomeMatrix(**kept, group=matrix.group)


def test_rows_of_what_was_measured_and_no_others(toy):
    """One backbone measured whole, one at its last two exits, one at its final classifier alone."""
    records = list(toy.accuracy_records[:3])
    for i, n in ((1, 3), (2, 1)):
        record = records[i]
        matrix = last_columns(record.calibration, n)
        first = record.backbone.n_blocks - n + 1
        records[i] = replace(record, first_exit=first, calibration=matrix, test=matrix)
    final, exits = accuracy_rows(SPACE, usable_accuracy(SPACE, records), n_classes=10)
    whole = records[0].calibration.n_exits - 1
    assert len(final.y) == 3
    assert np.bincount(exits.groups, minlength=3)[final.groups].tolist() == [whole, 2, 0]
    partial = records[1]
    workload = SPACE.workload(partial.backbone, n_classes=10)
    np.testing.assert_array_equal(
        exits.x[whole:], curve_rows(SPACE, partial.backbone, workload, final.y[1])[-2:]
    )
    assert exits.y[whole:] == pytest.approx(logit(partial.calibration.fractions[:2]))
    assert (exits.x[:, -1] == final.y[[0] * whole + [1, 1]]).all()


def test_columns_that_cannot_be_a_backbones_exits_are_refused(toy):
    record = toy.accuracy_records[0]
    with pytest.raises(ModelError, match="2 outcome columns from block"):
        usable_accuracy(SPACE, [replace(record, calibration=last_columns(record.calibration, 2))])
    with pytest.raises(ModelError, match="exits from block"):
        usable_accuracy(SPACE, [replace(record, first_exit=SPACE.first_exit - 1)])


def test_few_rows_get_a_function_of_coarse_features_of_its_own():
    few, many = accuracy_design(30, 20, (0, 18, 19)), accuracy_design(40, 20, (0, 18, 19))
    assert [part.columns for part in few.parts] == [(0, 18, 19), tuple(range(20))]
    assert many.parts == ()


def test_noise_of_repeats_is_drawn_towards_what_all_rows_say():
    rng = np.random.default_rng(2)
    repeats = rng.normal(0, 0.3, (2000, 3)) + rng.normal(0, 1, (2000, 1))
    noise = repeat_noise(repeats)
    assert noise.mean() == pytest.approx(0.3**2 / 3, rel=0.05)
    own = repeats.var(axis=1, ddof=1) / 3
    assert np.corrcoef(noise, own)[0, 1] > 0.999
    assert noise.std() < 0.3 * own.std()
    with pytest.raises(ModelError, match="at least 2 repeats"):
        repeat_noise(repeats[:, :1])


def test_few_networks_far_below_are_modelled_by_odds_and_come_back_as_fractions():
    rng = np.random.default_rng(3)
    even = rng.normal(2.3, 0.1, 200)
    tailed = np.append(even, [1.0, 0.5, 0.0, -0.2])
    assert not AccuracyScale.of(even).odds
    scale = AccuracyScale.of(tailed)
    assert scale.odds
    values, noise = scale.values(tailed, np.full(204, 1e-4))
    assert scale.fractions(values) == pytest.approx(expit(tailed))
    # A step of one standard deviation in logits is one of the transformed deviation in odds.
    assert np.exp(tailed + 0.01) - values == pytest.approx(np.sqrt(noise), rel=0.01)
    assert scale.fractions(np.array([-0.1])) == pytest.approx(0.001, rel=0.01)
    # A tail of a few backbones may be chance, and one to the right is no reason.
    assert not AccuracyScale.of(np.array([2.0, 2.1, 2.2, 2.3, 1.9])).odds
    assert not AccuracyScale.of(-tailed).odds
    assert not AccuracyScale.of(np.full(20, 2.2)).odds


def test_a_prediction_of_odds_says_in_logits_what_its_draws_say():
    rng = np.random.default_rng(4)
    odds = Prediction(
        np.array([[9.0], [-0.5]]), np.full((2, 1), 0.16), np.full((2, 1), 0.04), ("f",), ("odds",)
    )
    scale = AccuracyScale(odds=True)
    found = scale.in_logits(odds)
    drawn = logit(scale.fractions(9.0 + 0.4 * rng.standard_normal(20000)))
    assert found.mean[0, 0] == pytest.approx(drawn.mean(), abs=0.01)
    assert found.var_epistemic[0, 0] == pytest.approx(drawn.var(), rel=0.05)
    assert found.var_noise[0, 0] == pytest.approx(found.var_epistemic[0, 0] / 4)
    assert found.units == ("logit",)
    assert np.isfinite(found.mean).all()
    assert AccuracyScale().in_logits(odds) is odds


def test_a_set_fitted_to_a_few_far_worse_networks_predicts_by_odds_and_says_it_in_logits(toy, tmp_path):
    """Its answers keep the interface's scale, draws agree with means, and a file keeps the scale."""
    records, last = list(toy.accuracy_records), toy.accuracy_records[-1]
    correct = last.calibration.correct.copy()
    correct[len(correct) // 20 :, -1] = False
    records[-1] = replace(last, calibration=replace(last.calibration, correct=correct))
    fitted = PredictorSet.fit(
        toy.space, toy.table, records, [], n_classes=10, seed=0, candidates=("gp",)
    )  # fmt: skip
    assert fitted.final_scale.odds
    prediction = fitted.final_accuracy(toy.unseen)
    assert prediction.units == ("logit",)
    means = expit(prediction.mean[:, 0])
    assert ((means > 0.05) & (means < 0.999)).all()
    drawn = fitted.draws(400, 0).final_accuracy(toy.unseen)
    assert np.median(drawn, axis=0) == pytest.approx(means, abs=0.05)
    exits = fitted.draws(3, 0).exit_fractions(toy.unseen)
    assert all(((own > 0) & (own < 1)).all() for own in exits)
    fitted.save(tmp_path / "set")
    loaded = PredictorSet.load(tmp_path / "set", toy.space, toy.table)
    assert loaded.final_scale == fitted.final_scale
    np.testing.assert_array_equal(loaded.final_accuracy(toy.unseen).mean, prediction.mean)
    np.testing.assert_array_equal(loaded.draws(400, 0).final_accuracy(toy.unseen), drawn)
