"""Tests that every predictor must pass, for anyone who writes one.

Inherit in a test module and say how to make the predictor::

    class TestMine(PredictorContract):
        def make(self, n_outputs: int, seed: int) -> Predictor:
            return MyPredictor(n_outputs, seed=seed)

Only ``pytest`` collects it; nothing else in the package imports this module.
"""

from __future__ import annotations

import json
import unittest

import numpy as np
from threadpoolctl import threadpool_limits

from .models import ModelState, model_from_state
from .prediction import FloatArray, Predictor

Data = tuple[FloatArray, FloatArray, FloatArray]


class PredictorContract:
    """Shapes, masks, degenerate data, determinism, paths that are functions, noise, units and saved state.

    Attributes:
        n_rows, n_features: of the synthetic task; two smooth outputs with noise of known variance.
        same_row_tolerance: largest difference, in standard deviations, between the values of one
            row in two batches.
        path_draws: draws whose moments are compared with ``predict``.
        path_mean_tolerance: in predicted standard deviations, mean over rows.
        path_variance_tolerance: relative, median over rows.
        unit_tolerance: in predicted standard deviations, of the same data in another unit.
        logarithmic: whether targets are logarithms by nature.
        few_rows_rms_z: largest root mean square, over rows not seen, of errors in predicted deviations where
            hardly any rows were seen; few_rows_seeds: drawings of these rows.
        outputs_are_independent: whether a gap in one output leaves the others as they are.
    """

    n_rows = 60
    n_features = 4
    same_row_tolerance = 1e-6
    path_draws = 2000
    path_mean_tolerance = 0.1
    path_variance_tolerance = 0.15
    unit_tolerance = 0.1
    logarithmic = False
    few_rows_rms_z = 5.0
    few_rows_seeds = 4
    outputs_are_independent = True

    def make(self, n_outputs: int, seed: int) -> Predictor:
        """A fresh, unfitted predictor."""
        raise NotImplementedError("a contract test says how to make its predictor")

    def reload(self, fitted: Predictor) -> Predictor:
        """The predictor after it was saved and loaded; override for one that is saved in another way.

        By default through its ``state()``, if it has one, as JSON, arrays and bytes.
        """
        state_of = getattr(fitted, "state", None)
        if state_of is None:
            raise unittest.SkipTest(f"{type(fitted).__name__} has no state() to save")
        state = state_of()
        values = json.loads(json.dumps(dict(state.values), allow_nan=False))
        arrays = {
            name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in state.arrays.items()
        }
        return model_from_state(ModelState(values, arrays, dict(state.boosters)))

    def data(self, n: int, seed: int = 0) -> Data:
        """Rows (n, d), targets (n, 2) and known noise variances (n, 2)."""
        rng = np.random.default_rng([20, seed])
        x = rng.uniform(-2.0, 2.0, size=(n, self.n_features))
        smooth = np.stack([np.sin(x[:, 0]) + 0.5 * x[:, 1], x[:, 2] * x[:, 0] - 3.0], axis=1)
        noise = np.full_like(smooth, 0.05**2)
        return x, smooth + 0.05 * rng.standard_normal(smooth.shape), noise

    def test_shapes_dtype_and_variances(self) -> None:
        """(n, m) float64 throughout, finite, variances positive."""
        x, y, noise = self.data(self.n_rows)
        prediction = self.make(2, 0).fit(x, y, noise).predict(x[:7])
        for values in (prediction.mean, prediction.var_epistemic, prediction.var_noise):
            assert values.shape == (7, 2)
            assert values.dtype == np.float64
            assert np.isfinite(values).all()
        assert (prediction.var_epistemic > 0).all()
        assert (prediction.var_noise > 0).all()
        assert len(prediction.names) == len(prediction.units) == 2

    def test_paths_have_draws_rows_outputs(self) -> None:
        """paths(x) is (s, n, m) float64."""
        x, y, noise = self.data(self.n_rows)
        values = self.make(2, 0).fit(x, y, noise).paths(5, 1)(x[:7])
        assert values.shape == (5, 7, 2)
        assert values.dtype == np.float64

    def test_learns_a_smooth_function(self) -> None:
        """Beats the mean of the training targets by far on rows it has not seen."""
        x, y, noise = self.data(4 * self.n_rows)
        unseen_x, unseen_y, _ = self.data(self.n_rows, seed=1)
        error = self.make(2, 0).fit(x, y, noise).predict(unseen_x).mean - unseen_y
        assert (np.sqrt((error**2).mean(axis=0)) < 0.5 * y.std(axis=0)).all()

    def test_missing_targets_are_masked(self) -> None:
        """NaN in one output changes nothing about another, and counts as not measured."""
        x, y, noise = self.data(self.n_rows)
        masked = y.copy()
        masked[::2, 1] = np.nan
        full, part = self.make(2, 0).fit(x, y, noise), self.make(2, 0).fit(x, masked, noise)
        unseen, _, _ = self.data(self.n_rows, seed=1)
        if self.outputs_are_independent:
            np.testing.assert_allclose(
                part.predict(unseen).mean[:, 0], full.predict(unseen).mean[:, 0], rtol=1e-9
            )
        assert np.isfinite(part.predict(unseen).mean).all()
        assert np.abs(part.predict(unseen).mean[:, 1] - full.predict(unseen).mean[:, 1]).max() > 1e-6

    def test_one_row(self) -> None:
        """One measurement: its value there, and finite variances elsewhere."""
        x, y, noise = self.data(1)
        prediction = self.make(2, 0).fit(x, y, noise).predict(np.vstack([x, x + 1.0]))
        assert np.isfinite(prediction.mean).all()
        np.testing.assert_allclose(prediction.mean[0], y[0], atol=0.1)
        assert (prediction.var_epistemic[1] > 0).all()

    def test_few_rows_are_not_sure(self) -> None:
        """Two rows, three, and a few: what was not measured lies within a few predicted deviations."""
        unseen_x, unseen_y, _ = self.data(40, seed=1)
        for n in (2, 3, 5):
            squares = []
            for seed in range(10, 10 + self.few_rows_seeds):
                x, y, noise = self.data(n, seed)
                found = self.make(2, 0).fit(x, y, noise).predict(unseen_x)
                squares.append(((found.mean - unseen_y) / found.sd_total) ** 2)
            rms = np.sqrt(np.mean(squares))
            assert rms < self.few_rows_rms_z, f"{n} rows: rms z {rms:.3g}"

    def test_constant_target(self) -> None:
        """A target that never varies is predicted as such."""
        x, y, _ = self.data(self.n_rows)
        prediction = self.make(2, 0).fit(x, np.full_like(y, 7.5)).predict(x[:5])
        np.testing.assert_allclose(prediction.mean, 7.5, atol=0.05)
        assert np.isfinite(prediction.sd_total).all()

    def test_duplicate_rows(self) -> None:
        """Repeats of a row with different values are averaged, not choked on."""
        x, y, _ = self.data(self.n_rows)
        up, down = y + 0.1, y - 0.1
        model = self.make(2, 0).fit(np.vstack([x, x]), np.vstack([up, down]))
        prediction = model.predict(x)
        assert np.isfinite(prediction.mean).all()
        assert np.sqrt(((prediction.mean - y) ** 2).mean()) < 0.5

    def test_same_seed_same_model(self) -> None:
        """Two models of the same data and seed agree bit for bit, and so do their draws."""
        x, y, noise = self.data(self.n_rows)
        one, two = self.make(2, 3).fit(x, y, noise), self.make(2, 3).fit(x, y, noise)
        np.testing.assert_array_equal(one.predict(x).mean, two.predict(x).mean)
        np.testing.assert_array_equal(one.predict(x).sd_total, two.predict(x).sd_total)
        np.testing.assert_array_equal(one.paths(4, 9)(x), two.paths(4, 9)(x))
        assert not np.array_equal(one.paths(4, 9)(x), one.paths(4, 10)(x))

    def test_thread_count_changes_nothing(self) -> None:
        """Results are the same whatever the caller's thread limits, which are left as found."""
        x, y, noise = self.data(self.n_rows)
        results = []
        for threads in (1, 2):
            with threadpool_limits(limits=threads):
                model = self.make(2, 3).fit(x, y, noise)
                results.append((model.predict(x).mean, model.paths(4, 9)(x)))
        np.testing.assert_array_equal(results[0][0], results[1][0])
        np.testing.assert_array_equal(results[0][1], results[1][1])

    def test_paths_are_functions(self) -> None:
        """The same row has the same value alone, among others, and asked again."""
        x, y, noise = self.data(self.n_rows)
        model = self.make(2, 0).fit(x, y, noise)
        paths = model.paths(6, 2)
        rows, _, _ = self.data(40, seed=1)
        together = paths(rows)
        sd = np.sqrt(model.predict(rows).var_epistemic).max()
        order = np.random.default_rng(0).permutation(40)
        assert np.abs(paths(rows[order]) - together[:, order]).max() < self.same_row_tolerance * sd
        assert np.abs(paths(rows[17:18]) - together[:, 17:18]).max() < self.same_row_tolerance * sd

    def test_moments_of_paths_are_those_predicted(self) -> None:
        """Mean and variance of many draws match ``predict`` without its noise."""
        x, y, noise = self.data(self.n_rows)
        model = self.make(2, 0).fit(x, y, noise)
        rows, _, _ = self.data(80, seed=1)
        draws, prediction = model.paths(self.path_draws, 4)(rows), model.predict(rows)
        sd = np.sqrt(prediction.var_epistemic)
        assert (np.abs(draws.mean(axis=0) - prediction.mean) / sd).mean() < self.path_mean_tolerance
        ratio = draws.var(axis=0) / prediction.var_epistemic
        assert abs(float(np.median(ratio)) - 1.0) < self.path_variance_tolerance
        assert ratio.min() > 0.5
        assert ratio.max() < 2.0

    def test_paths_are_joint_over_rows(self) -> None:
        """Draws of two almost equal rows rise and fall together."""
        x, y, noise = self.data(self.n_rows)
        paths = self.make(2, 0).fit(x, y, noise).paths(400, 4)
        row, _, _ = self.data(1, seed=1)
        draws = paths(np.vstack([row, row + 1e-3]))[:, :, 0]
        assert np.corrcoef(draws[:, 0], draws[:, 1])[0, 1] > 0.95

    def test_rows_far_away_get_finite_answers(self) -> None:
        """A thousand spreads from all that was measured: finite means, positive variances, finite draws."""
        x, y, noise = self.data(self.n_rows)
        model = self.make(2, 0).fit(x, y, noise)
        far = 1e3 * np.vstack([np.ones(self.n_features), -np.ones(self.n_features)])
        prediction = model.predict(far)
        assert np.isfinite(prediction.mean).all()
        assert np.isfinite(prediction.sd_total).all()
        assert (prediction.var_epistemic > 0).all()
        assert np.isfinite(model.paths(3, 0)(far)).all()

    def test_far_from_the_data_is_not_surer(self) -> None:
        """Doubt does not shrink with the distance from what was measured."""
        x, y, noise = self.data(self.n_rows)
        model = self.make(2, 0).fit(x, y, noise)
        near = np.median(model.predict(x).var_epistemic, axis=0)
        assert (model.predict(np.full((1, self.n_features), 8.0)).var_epistemic[0] > 0.5 * near).all()

    def test_another_unit_is_another_number(self) -> None:
        """Thousandths of a unit: means and deviations a thousand times as large.

        Logarithms grow by log 1000 instead, and their deviations stay.
        """
        x, y, noise = self.data(self.n_rows)
        unseen, _, _ = self.data(self.n_rows, seed=1)
        factor, shift = (1.0, np.log(1e3)) if self.logarithmic else (1e3, 0.0)
        one = self.make(2, 0).fit(x, y, noise).predict(unseen)
        other = self.make(2, 0).fit(x, factor * y + shift, factor**2 * noise).predict(unseen)
        off = (other.mean - shift) / factor - one.mean
        assert (np.abs(off) < self.unit_tolerance * one.sd_total).all()
        np.testing.assert_allclose(other.sd_total / factor, one.sd_total, rtol=self.unit_tolerance)

    def test_a_value_known_to_be_vague_hardly_counts(self) -> None:
        """One wild value moves the fit where it claims to be precise, and not where it admits its noise."""
        x, y, noise = self.data(self.n_rows)
        spread = y.std(axis=0)
        wild, vague = y.copy(), noise.copy()
        wild[7] += 30.0 * spread
        vague[7] = (100.0 * spread) ** 2
        around = x[7] + 0.05 * np.random.default_rng(0).standard_normal((8, self.n_features))

        rest = np.arange(len(x)) != 7
        without = self.make(2, 0).fit(x[rest], y[rest], noise[rest]).predict(around).mean

        def moved(stated_noise: FloatArray) -> FloatArray:
            model = self.make(2, 0).fit(x, wild, stated_noise)
            return np.asarray(np.abs(model.predict(around).mean - without).max(axis=0) / spread)

        assert (moved(vague) < 1.0).all()
        assert (moved(noise) > 1.5 * moved(vague)).all()

    def test_saved_and_loaded_is_the_same(self) -> None:
        """Means, deviations and draws of a reloaded predictor are the same bit for bit."""
        x, y, noise = self.data(self.n_rows)
        # One output: a model of several is as many of them.
        model = self.make(1, 3).fit(x, y[:, :1], noise[:, :1])
        loaded = self.reload(model)
        unseen, _, _ = self.data(self.n_rows, seed=1)
        before, after = model.predict(unseen), loaded.predict(unseen)
        np.testing.assert_array_equal(after.mean, before.mean)
        np.testing.assert_array_equal(after.sd_total, before.sd_total)
        np.testing.assert_array_equal(loaded.paths(3, 2)(unseen), model.paths(3, 2)(unseen))
        assert (after.names, after.units) == (before.names, before.units)
