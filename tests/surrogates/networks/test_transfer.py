"""A new board, of which few rows are known, on top of many of another."""

import json
from dataclasses import replace

import numpy as np
import pytest

from hadas.errors import ModelError
from hadas.surrogates.models import ModelState
from hadas.surrogates.network_cost import NetworkCostModel
from hadas.surrogates.transfer import TransferredCostModel

FASTER_BY = (3.0, 2.5, 2.0, 1.0)


@pytest.fixture(scope="module")
def old(made_up_rows):
    return made_up_rows(24, seed=3)


@pytest.fixture(scope="module")
def new(made_up_rows, speeds):
    """The same networks, their own factors too, on a board whose resources are faster by different factors."""
    faster = {name: speed / by for (name, speed), by in zip(speeds.items(), FASTER_BY, strict=True)}
    return made_up_rows(24, seed=3, speeds=faster, device="new")


@pytest.fixture(scope="module")
def source(old):
    return NetworkCostModel.fit(old.take(np.arange(72)), "latency_ms", seed=0)


@pytest.fixture(scope="module")
def train():
    return np.random.default_rng(5).permutation(72)[:15]


@pytest.fixture(scope="module")
def model(source, new, train):
    return TransferredCostModel.fit(source, new.take(train), seed=0)


def test_a_few_rows_do_better_than_one_constant_ratio(old, new, train, model):
    test = np.setdiff1d(np.arange(72), train)
    ratio = np.median(new.value[train] / old.value[train])
    constant = np.mean(np.abs(old.value[test] * ratio / new.value[test] - 1))
    median, low, high = model.interval(new.take(test))
    ours = np.mean(np.abs(median / new.value[test] - 1))
    assert ours < 0.7 * constant
    assert np.mean((low <= new.value[test]) & (new.value[test] <= high)) >= 0.8


def test_doubt_is_larger_for_networks_seen_on_neither_board(old, new, train, source, model):
    test, hidden = np.setdiff1d(np.arange(72), train), np.arange(72, 96)
    seen = model.predict(new.take(test)).var_epistemic[:, 0]
    unseen = model.predict(new.take(hidden)).var_epistemic[:, 0]
    # The source's doubt of a network it has not seen is carried over in full.
    assert (unseen > source.predict(old.take(hidden)).var_epistemic[:, 0]).all()
    assert np.median(unseen) > 1.15 * np.median(seen)


def test_a_saved_model_says_the_same_bit_for_bit(new, model):
    state = model.state()
    values = json.loads(json.dumps(dict(state.values)))
    again = TransferredCostModel.from_state(ModelState(values, state.arrays, state.boosters))
    np.testing.assert_array_equal(model.predict(new).mean, again.predict(new).mean)
    np.testing.assert_array_equal(model.predict(new).var_epistemic, again.predict(new).var_epistemic)
    np.testing.assert_array_equal(model.paths(3, 1)(new), again.paths(3, 1)(new))


def test_draws_scatter_around_the_prediction(new, model):
    rows = new.take(np.arange(72, 84))
    draws, found = model.paths(300, 0)(rows)[:, :, 0], model.predict(rows)
    sd = np.sqrt(found.var_epistemic[:, 0])
    assert (np.abs(draws.mean(axis=0) - found.mean[:, 0]) < 0.4 * sd + 0.01).all()
    assert np.median(draws.std(axis=0) / sd) == pytest.approx(1, abs=0.2)


def test_boards_pinned_to_different_clocks_are_compared_as_they_are(old, new, train):
    pinned_old = replace(old, clocks_ghz={"gpu": np.full(len(old), 0.9)})
    pinned_new = replace(new, clocks_ghz={"gpu": np.full(len(new), 1.3)})
    source = NetworkCostModel.fit(pinned_old.take(np.arange(28)), "latency_ms", seed=0)
    model = TransferredCostModel.fit(source, pinned_new.take(train), seed=0)
    assert np.isfinite(model.predict(pinned_new).mean).all()
    with pytest.raises(ModelError, match=r"in training it was always 1.3"):
        model.predict(replace(new, clocks_ghz={"gpu": np.full(len(new), 0.9)}))


def test_what_cannot_be_compared_is_refused(old, new, source, model):
    with pytest.raises(ModelError, match="2 measured rows of the new board; at least 3"):
        TransferredCostModel.fit(source, new.take(np.arange(2)), seed=0)
    with pytest.raises(ModelError, match=r"rows of \['toy'\]; the model was trained on \['new'\]"):
        model.predict(old)
    with pytest.raises(ModelError, match="kind 'network-cost'"):
        TransferredCostModel.from_state(source.state())
    with pytest.raises(ModelError, match="it must be positive"):
        TransferredCostModel.fit(source, replace(new, value=np.zeros(len(new))), seed=0)
