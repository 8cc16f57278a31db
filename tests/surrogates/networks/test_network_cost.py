"""The cost of whole networks, learned from a log."""

import json
from dataclasses import replace

import numpy as np
import pytest

from hadas.datasets.logs.tables import ForeignCost
from hadas.datasets.records import Target, Truth
from hadas.errors import ModelError
from hadas.surrogates.cost_views import views_for
from hadas.surrogates.log_rows import network_rows_of
from hadas.surrogates.models import ModelState
from hadas.surrogates.network_cost import VIEWS, NetworkCostModel
from hadas.surrogates.network_inputs import Columns, network_codes


@pytest.fixture(scope="module")
def rows(made_up_rows):
    return made_up_rows(n_networks=24)


@pytest.fixture(scope="module")
def split(rows):
    """Training rows: three of four sizes of two thirds of the networks."""
    index = np.arange(len(rows))
    trained = (index // 4 < 16) & (index % 4 != 2)
    return np.flatnonzero(trained), np.flatnonzero(~trained)


@pytest.fixture(scope="module")
def model(rows, split):
    return NetworkCostModel.fit(rows.take(split[0]), "latency_ms", seed=0)


def test_networks_never_seen_are_predicted_within_what_tells_networks_apart(rows, split, model):
    test = rows.take(split[1])
    median, low, high = model.interval(test, 0.9)
    off = np.abs(np.log(median / test.value))
    # Each network has a factor of its own, 5 % on average, which no feature tells.
    assert np.median(off) < 0.07
    assert 0.75 <= np.mean((low <= test.value) & (test.value <= high)) <= 1.0


def test_doubt_is_smaller_where_the_network_was_measured_at_other_sizes(rows, split, model):
    test = rows.take(split[1])
    sd = model.predict(test).sd_total[:, 0]
    known = np.isin(test.networks, rows.networks[split[0]])
    assert np.median(sd[known]) < 0.8 * np.median(sd[~known])


def test_networks_far_larger_than_any_in_training_follow_the_roofline(rows, split, model, speeds):
    huge = rows.take(split[1][:4])
    huge = replace(huge, totals={
        name: column * (1 if name == "n_layers" else 20) for name, column in huge.totals.items()
    })  # fmt: skip
    truth = sum(speed * huge.totals[name] for name, speed in speeds.items())
    median, low, high = model.interval(huge)
    assert (np.abs(np.log(median / truth)) < 0.3).all()
    # At least the factor of its own that every network has here, 5 % on average.
    assert (np.log(high / low) > 2 * 0.05).all()


def test_a_saved_model_says_the_same_bit_for_bit(rows, split, model):
    state = model.state()
    values = json.loads(json.dumps(dict(state.values)))
    again = NetworkCostModel.from_state(ModelState(values, state.arrays, state.boosters))
    test = rows.take(split[1])
    ours, theirs = model.predict(test), again.predict(test)
    np.testing.assert_array_equal(ours.mean, theirs.mean)
    np.testing.assert_array_equal(ours.var_epistemic, theirs.var_epistemic)
    np.testing.assert_array_equal(model.paths(3, 1)(test), again.paths(3, 1)(test))
    assert again.columns == model.columns


def test_a_state_of_other_features_or_of_another_model_is_refused(model):
    state = model.state()
    views = {**state.values["views"], "version": 999}
    with pytest.raises(ModelError, match=r"version 999 of the network features.*fit it again"):
        NetworkCostModel.from_state(replace(state, values={**state.values, "views": views}))
    with pytest.raises(ModelError, match="kind 'gp'"):
        NetworkCostModel.from_state(replace(state, values={**state.values, "kind": "gp"}))


def test_draws_scatter_as_the_prediction_says(rows, split, model):
    test = rows.take(split[1][:6])
    draws = model.paths(400, 0)(test)[:, :, 0]
    found = model.predict(test)
    sd = np.sqrt(found.var_epistemic[:, 0])
    assert (np.abs(draws.mean(axis=0) - found.mean[:, 0]) < 0.35 * sd + 0.01).all()
    # Random features stand for the kernel, so single rows scatter a little less or more.
    assert (np.abs(np.log(draws.std(axis=0) / sd)) < 0.5).all()
    assert np.median(draws.std(axis=0) / sd) == pytest.approx(1, abs=0.2)


def test_the_same_rows_and_seed_give_the_same_model_and_values_are_not_looked_at(rows, split, model):
    again = NetworkCostModel.fit(rows.take(split[0]), "latency_ms", seed=0)
    test = rows.take(split[1])
    blind = replace(test, value=np.full(len(test), np.nan))
    np.testing.assert_array_equal(again.predict(test).mean, model.predict(blind).mean)


def test_rows_the_model_was_not_made_for_are_refused(rows, model):
    with pytest.raises(ModelError, match=r"known by .* trained on"):
        model.predict(replace(rows, totals={"macs": rows.totals["macs"]}))
    with pytest.raises(ModelError, match=r"settings are \['gpu'\]"):
        model.predict(replace(rows, clocks_ghz={"gpu": np.ones(len(rows))}))
    with pytest.raises(ModelError, match=r"rows of \['other'\]; the model was trained on \['toy'\]"):
        model.predict(replace(rows, devices=np.full(len(rows), "other")))


def test_a_clock_that_never_changed_must_not_change(rows):
    pinned = replace(rows, clocks_ghz={"gpu": np.full(len(rows), 1.3)}).take(np.arange(24))
    model = NetworkCostModel.fit(pinned, "latency_ms", seed=0)
    assert np.isfinite(model.predict(pinned).mean).all()
    with pytest.raises(ModelError, match=r"'gpu' is 0.8; in training it was always 1.3"):
        model.predict(replace(pinned, clocks_ghz={"gpu": np.full(24, 0.8)}))


def test_clocks_that_changed_are_learned_by_the_resource_they_drive(made_up_rows, speeds):
    one = {"roofline": VIEWS["all on a roofline"]}
    at_1_ghz = made_up_rows(n_networks=12, noise=0.0)
    n = len(at_1_ghz)
    twice = at_1_ghz.take(np.tile(np.arange(n), 2))
    gpu = np.repeat([0.5, 1.0], n)
    work = speeds["macs"] * twice.totals["macs"]
    share = work / sum(speed * twice.totals[name] for name, speed in speeds.items())
    both = replace(twice, clocks_ghz={"gpu": gpu}, value=twice.value * (share / gpu + 1 - share))
    index = np.arange(len(both))
    test = np.flatnonzero((index < n) & (index // 4 % 3 == 0))
    model = NetworkCostModel.fit(both.take(np.setdiff1d(index, test)), "latency_ms", seed=0, views=one)
    median, _, _ = model.interval(both.take(test))
    assert np.median(np.abs(np.log(median / both.value[test]))) < 0.03


TRAINED = np.arange(40) % 3 != 1


@pytest.fixture(scope="module")
def few_under_many_clocks(made_up_rows, speeds):
    """Four networks, one size each, at ten GPU clocks; work alone follows the clock."""
    one = made_up_rows(n_networks=4, sizes=(224,), noise=0.0, seed=5)
    rows = one.take(np.tile(np.arange(4), 10))
    gpu = np.repeat(np.linspace(0.2, 1.3, 10), 4)
    work = speeds["macs"] * rows.totals["macs"]
    share = work / sum(speed * rows.totals[name] for name, speed in speeds.items())
    noise = np.exp(0.01 * np.random.default_rng(6).standard_normal(40))
    return replace(rows, clocks_ghz={"gpu": gpu}, value=rows.value * (share / gpu + 1 - share) * noise)


@pytest.fixture(scope="module")
def fitted_to_both(few_under_many_clocks):
    return NetworkCostModel.fit(few_under_many_clocks.take(np.flatnonzero(TRAINED)), "latency_ms", seed=0)


def test_few_networks_with_totals_under_many_clocks_are_judged_on_rows(few_under_many_clocks, fitted_to_both):
    test = few_under_many_clocks.take(np.flatnonzero(~TRAINED))
    median, low, high = fitted_to_both.interval(test)
    assert np.mean(np.abs(median / test.value - 1)) < 0.03
    assert np.mean((low <= test.value) & (test.value <= high)) > 0.7
    assert fitted_to_both.views.by_rows
    assert set(fitted_to_both.weights) <= set(VIEWS)


def test_doubt_on_other_networks_is_never_narrowed_by_rows_of_the_same(few_under_many_clocks, fitted_to_both):
    known, others = fitted_to_both.widening
    assert others >= max(known, 1.0)
    test = few_under_many_clocks.take(np.arange(4))
    sd = [fitted_to_both.predict(rows).sd_total for rows in (test, replace(test, networks=np.full(4, "new")))]
    assert (sd[1] > sd[0]).all()


def test_views_are_chosen_by_what_is_known_of_the_rows(rows, few_under_many_clocks):
    def kind(rows):
        return views_for(rows, Columns.of(rows), VIEWS).kind

    named = {"input_px": few_under_many_clocks.totals["input_px"]}
    assert kind(rows) == kind(few_under_many_clocks) == "network"
    assert kind(replace(few_under_many_clocks, totals=named)) == "setting"
    assert kind(replace(few_under_many_clocks, totals={})) == "setting"
    # Without a setting that varies there is nothing but the networks to look at, and so with too many names.
    assert kind(replace(rows, totals={"input_px": rows.totals["input_px"]})) == "network"
    many = np.array([f"net{i}" for i in range(40)])
    assert kind(replace(few_under_many_clocks, totals={}, networks=many)) == "network"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"value": np.array([1.0, -1.0, 2.0])}, "row 1: 'latency_ms' is -1"),
        ({"value": np.full(3, np.nan)}, "not one measured row"),
        ({"devices": np.array(["a", "b", "a"])}, "several devices"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_refused(rows, change, told):
    with pytest.raises(ModelError, match=told):
        NetworkCostModel.fit(replace(rows.take(np.arange(3)), **change), "latency_ms", seed=0)


def test_codes_are_those_of_names_whatever_else_is_there():
    codes = network_codes(np.array(["b", "a", "b"]))
    assert codes[0] == codes[2] != codes[1]
    assert network_codes(np.array(["c", "b"]))[1] == codes[0]


def foreign(network, flops, latency_ms, energy_mj, *, error_ms=None, clocks=(("gpu", 1_300_000_000),)):
    return ForeignCost(
        series="log", line_no=1, source="log.csv", truth=Truth.DEVICE, target=Target("tx2", "gpu", "r", "t"),
        network=network, features={"flops": flops}, clocks_hz=clocks, latency_ms=latency_ms,
        latency_error_ms=error_ms, energy_mj=energy_mj, energy_error_mj=None, power_mw=None, runs=None, kept={},
    )  # fmt: skip


def test_imported_logs_become_rows():
    costs = [foreign("a", 2e9, 10.0, 50.0, error_ms=0.5), foreign("b", 4e9, 20.0, None)]
    latency, energy = network_rows_of(costs, "latency_ms"), network_rows_of(costs, "energy_mj")
    assert latency.totals["macs"].tolist() == [1e9, 2e9]
    assert latency.value.tolist() == [10.0, 20.0]
    assert latency.relative_noise.tolist() == [0.05, 0.0]
    assert latency.clocks_ghz["gpu"].tolist() == [1.3, 1.3]
    assert energy.value[0] == 50.0
    assert np.isnan(energy.value[1])
    with pytest.raises(ModelError, match="no quantity 'speed'"):
        network_rows_of(costs, "speed")
    with pytest.raises(ModelError, match="different clocks"):
        network_rows_of([costs[0], foreign("c", 1e9, 5.0, None, clocks=())], "latency_ms")
