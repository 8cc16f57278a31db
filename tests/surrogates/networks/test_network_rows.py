"""Rows of whole networks: what repeats say of the noise of single runs, and what a model makes of knowing it."""

from dataclasses import replace

import numpy as np
import pytest

from hadas.errors import ModelError
from hadas.surrogates.cost_views import views_for
from hadas.surrogates.network_cost import VIEWS
from hadas.surrogates.network_inputs import Columns
from hadas.surrogates.network_rows import NetworkRows


def runs(value, *, clock, px=None, device=None):
    """Runs of one network, by clock."""
    n = len(value)
    return NetworkRows(
        np.full(n, "a"), {"input_px": np.full(n, np.nan) if px is None else np.array(px)},
        {"gpu": np.array(clock)}, {}, np.full(n, "board") if device is None else np.array(device),
        np.array(value), np.zeros(n),
    )  # fmt: skip


def test_noise_of_single_runs_is_pooled_over_equal_settings():
    """Deviations from means of +-0.1 (two runs), and of 0.3, 0 and -0.3 (three): 0.02 + 0.18 over 1 + 2."""
    log_value = [1.1, 2.3, 0.9, 2.0, 1.7, 5.0]
    rows = runs(np.exp(log_value), clock=[0.5, 0.8, 0.5, 0.8, 0.8, 1.0])
    assert rows.repeat_noise() == pytest.approx(np.sqrt(0.2 / 3))


def test_runs_of_other_sizes_and_devices_are_no_repeats():
    value, clock = np.array([1.0, 1.1, 5.0, 9.0]), [0.5] * 4
    rows = runs(value, clock=clock, px=[224.0, 224.0, 320.0, 224.0], device=["b", "b", "b", "c"])
    assert rows.repeat_noise() == pytest.approx(np.log(1.1) / np.sqrt(2))
    unmeasured = replace(rows, value=np.array([1.0, np.nan, 5.0, 9.0]))
    with pytest.raises(ModelError, match="run twice"):
        unmeasured.repeat_noise()


def test_known_noise_is_kept_where_it_is_larger():
    rows = replace(runs(np.ones(3), clock=[0.5, 0.8, 1.0]), relative_noise=np.array([0.0, 0.05, 0.01]))
    np.testing.assert_array_equal(rows.with_noise(0.02).relative_noise, [0.02, 0.05, 0.02])
    with pytest.raises(ModelError, match="relative noise -1"):
        rows.with_noise(-1.0)
    with pytest.raises(ModelError, match="relative noise nan"):
        rows.with_noise(float("nan"))


def test_a_model_that_knows_the_noise_does_not_follow_it():
    """A time of one over the clock, run once: what chance made of a run is no function of the clock."""
    rng = np.random.default_rng(5)
    clock = np.linspace(0.3, 1.3, 12)
    rows = runs(20 / clock * np.exp(0.05 * rng.standard_normal(12)), clock=clock)

    def missed(known):
        views = views_for(known, Columns.of(known), VIEWS)
        model = views.training(known, "latency_ms", "log", 0).fit("roofline", quick=True)
        prediction = model.predict(views.inputs(known))
        error = prediction.mean[:, 0] - np.log(20 / clock)
        return float(np.sqrt(np.mean(error**2))), float(np.sqrt(prediction.var_noise.min()))

    error, noise = missed(rows)
    error_knowing, noise_knowing = missed(rows.with_noise(0.05))
    assert error_knowing < error
    assert noise_knowing >= 0.05 > noise
