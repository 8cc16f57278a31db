"""Costs under settings: what the features say, what the model recovers, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from hadas.errors import ModelError
from hadas.surrogates.cost_views import SETTING_VIEWS
from hadas.surrogates.models import ModelState
from hadas.surrogates.network_cost import NetworkCostModel
from hadas.surrogates.network_rows import NetworkRows
from hadas.surrogates.setting_features import SettingFeatures


def log(n, seed=0, networks=("a",), noise=0.03):
    """A board whose host and GPU overlap: (host^2 + device^2)^(1/2), per network; a knob without effect."""
    rng = np.random.default_rng([9, seed])
    gpu, cpu = rng.uniform(0.2, 1.3, n), rng.uniform(0.4, 2.0, n)
    cores = rng.integers(1, 5, n).astype(float)
    px = rng.choice([160.0, 224.0, 320.0], n)
    owner = rng.integers(0, len(networks), n)
    device = (1.0 + owner) * (px / 224) ** 2 * 20 / gpu
    latency = np.hypot(device, 15 / (cpu * cores) + 5 / cpu)
    value = latency * np.exp(noise * rng.standard_normal(n))
    clocks = {"gpu": gpu, "cpu": cpu, "emc": np.full(n, 1.6)}
    knobs = {"n_cores": cores, "swappiness": rng.choice([10.0, 60.0], n)}
    rows = NetworkRows(
        np.array(networks)[owner], {"input_px": px}, clocks, knobs, np.full(n, "board"), value, np.zeros(n)
    )
    return rows, latency


@pytest.fixture(scope="module")
def fitted():
    rows, _ = log(40)
    return NetworkCostModel.fit(rows, "latency_ms", seed=0)


def test_what_never_varied_is_no_feature():
    rows, _ = log(20)
    features = SettingFeatures.of(rows)
    assert features.names[:5] == ("log input_px", "log gpu", "log cpu", "1/n_cores^2", "swappiness")
    assert features.fixed == {"emc": 1.6}
    assert not any("emc" in name for name in features.names)
    assert features(rows).shape == (20, len(features.names))


def test_terms_are_times():
    """px^2 over the GPU clock, and cycles over the cores that share them, each in its own resource."""
    rows, _ = log(20)
    features = SettingFeatures.of(rows)
    x, design = features(rows), features.design("latency_ms")
    column = dict(zip(features.names, x.T, strict=True))
    gpu, cpu, cores = rows.clocks_ghz["gpu"], rows.clocks_ghz["cpu"], rows.knobs["n_cores"]
    np.testing.assert_allclose(column["term:px*1/gpu"], (rows.totals["input_px"] / 224) ** 2 / gpu)
    np.testing.assert_allclose(column["term:1/(cpu*cores)^2"], (cpu * cores) ** -2)
    names = [features.names[i] for i in design.terms]
    assert all(name.startswith("term:") for name in names)
    resource = dict(zip(names, design.term_resources, strict=True))
    assert resource["term:1/gpu"] == resource["term:1"] != resource["term:1/cpu"]
    assert design.monotone[features.names.index("log gpu")] == -1
    assert not any(features.design("energy_mj").monotone)


def test_networks_known_by_name_alone_have_terms_of_their_own():
    rows, _ = log(30, networks=("a", "b"))
    features = SettingFeatures.of(rows)
    column = dict(zip(features.names, features(rows).T, strict=True))
    of_b = rows.networks == "b"
    assert (column["term:b:1/gpu"][~of_b] == 0).all()
    np.testing.assert_allclose(column["term:b:1/gpu"][of_b], 1 / rows.clocks_ghz["gpu"][of_b])
    np.testing.assert_array_equal(column["is b"], of_b)


def test_forty_rows_of_a_board_with_overlap_are_enough(fitted):
    rows, latency = log(300, seed=1)
    median, low, high = fitted.interval(rows)
    assert np.mean(np.abs(median / latency - 1)) < 0.03
    assert 0.8 < np.mean((low <= rows.value) & (rows.value <= high)) <= 0.99
    assert sum(fitted.weights.values()) == pytest.approx(1)
    assert set(fitted.weights) <= set(SETTING_VIEWS)


def test_saved_model_is_the_same_model(fitted):
    rows, _ = log(20, seed=2)
    again = NetworkCostModel.from_state(fitted.state())
    np.testing.assert_array_equal(again.predict(rows).mean, fitted.predict(rows).mean)
    np.testing.assert_array_equal(again.predict(rows).sd_total, fitted.predict(rows).sd_total)
    np.testing.assert_array_equal(again.paths(3, 1)(rows), fitted.paths(3, 1)(rows))
    assert fitted.paths(3, 1)(rows).shape == (3, 20, 1)


def test_draws_scatter_as_predicted_widening_included(fitted):
    """Also where what was held out says that intervals have to be wider than the members'."""
    rows, _ = log(30, seed=3)
    wider = NetworkCostModel(
        fitted.quantity, fitted.unit, fitted.views, fitted.stack, sorted(fitted.networks), (2.5, 2.5), {}
    )
    draws, found = wider.paths(600, 0)(rows)[:, :, 0], wider.predict(rows)
    sd = np.sqrt(found.var_epistemic[:, 0])
    assert (np.abs(draws.mean(axis=0) - found.mean[:, 0]) < 0.3 * sd).all()
    assert np.median(draws.std(axis=0) / sd) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"clocks_ghz": {"gpu": 1.0, "cpu": 1.0, "emc": 0.8}}, "'emc' is 0.8; in training it was always 1.6"),
        ({"clocks_ghz": {"gpu": 1.0, "cpu": 1.0}}, "settings are"),
        ({"clocks_ghz": {"gpu": 1.0, "cpu": -1.0, "emc": 1.6}}, "'cpu' is -1.0"),
        ({"devices": "other"}, r"trained on \['board'\]"),
        ({"networks": "other"}, r"networks \['other'\] were not among"),
    ],
)
def test_refuses_rows_it_knows_nothing_of(fitted, change, says):
    rows, _ = log(3)
    name, value = next(iter(change.items()))
    new = {k: np.full(3, v) for k, v in value.items()} if isinstance(value, dict) else np.full(3, value)
    with pytest.raises(ModelError, match=says):
        fitted.predict(replace(rows, **{name: new}))


def test_refuses_an_unknown_network_and_many_networks():
    rows, _ = log(30, networks=("a", "b"))
    features = SettingFeatures.of(rows)
    with pytest.raises(ModelError, match=r"networks \['c'\] were not among"):
        features(replace(rows, networks=np.full(30, "c")))
    with pytest.raises(ModelError, match="30 networks"):
        SettingFeatures.of(replace(rows, networks=np.array([f"n{i}" for i in range(30)])))


def test_refuses_bad_values_and_another_models_state(fitted):
    rows, _ = log(5)
    with pytest.raises(ModelError, match="row 0: 'latency_ms' is -1"):
        NetworkCostModel.fit(replace(rows, value=np.full(5, -1.0)), "latency_ms", seed=0)
    with pytest.raises(ModelError, match="not one measured row"):
        NetworkCostModel.fit(replace(rows, value=np.full(5, np.nan)), "latency_ms", seed=0)
    state = fitted.state()
    with pytest.raises(ModelError, match="of kind 'gp'"):
        NetworkCostModel.from_state(ModelState({**state.values, "kind": "gp"}, state.arrays))
    views = {**state.values["views"], "version": 0}
    with pytest.raises(ModelError, match="version 0 of the setting features"):
        NetworkCostModel.from_state(ModelState({**state.values, "views": views}, state.arrays))


def test_refuses_another_input_size_than_the_only_one_it_knows():
    rows, _ = log(11)
    small = replace(rows, totals={"input_px": np.full(11, 224.0)})
    model = NetworkCostModel.fit(small, "latency_ms", seed=0)
    assert np.isfinite(model.predict(small).mean).all()
    with pytest.raises(ModelError, match="row 0: 'input_px' is 320; in training it was always 224"):
        model.predict(replace(small, totals={"input_px": np.full(11, 320.0)}))
