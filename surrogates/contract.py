"""Tests that every predictor must pass, for anyone who writes one.

Inherit in a test module and say how to make the predictor::

    class TestMine(PredictorContract):
        def make(self, n_outputs: int, seed: int) -> Predictor:
            return MyPredictor(n_outputs, seed=seed)

Only ``pytest`` collects it; nothing else in the package imports this module.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from .prediction import FloatArray, Predictor

Data = tuple[FloatArray, FloatArray, FloatArray]


class PredictorContract:
    """Shapes, masks, degenerate data, determinism, and paths that are functions.

    Attributes:
        n_rows, n_features: of the synthetic task; two smooth outputs with noise of known variance.
        same_row_tolerance: largest difference, in standard deviations, between the values of one
            row in two batches.
        path_draws: draws whose moments are compared with ``predict``.
        path_mean_tolerance: in predicted standard deviations, mean over rows.
        path_variance_tolerance: relative, median over rows.
    """

    n_rows = 60
    n_features = 4
    same_row_tolerance = 1e-6
    path_draws = 2000
    path_mean_tolerance = 0.1
    path_variance_tolerance = 0.15

    def make(self, n_outputs: int, seed: int) -> Predictor:
        """A fresh, unfitted predictor."""
        raise NotImplementedError("a contract test says how to make its predictor")

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
