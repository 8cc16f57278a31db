"""New rows of a device that moved, and of one that did not, judged by predictors of old rows."""

from __future__ import annotations

import numpy as np
import pytest

from hadas.surrogates import assessment
from hadas.surrogates.assessment import Assessment, assess, at_level, row_draws

KINDS = {"log_latency": "gp", "log_power": "gp"}


@pytest.fixture(autouse=True)
def two_folds(monkeypatch):
    """Each fold fits models of its own; two of them show the same as five, sooner."""
    monkeypatch.setattr(assessment, "N_FOLDS", 2)


def scaled(record, latency=1.0, energy=1.0):
    """The record of a device that takes other time and energy for the same."""
    return at_level(record, {"latency": latency, "energy": energy})


def judged(toy, fitted, rows):
    found = assess(toy.space, fitted.cost_model, toy.cost_records, rows, chosen=KINDS, seed=0)
    assert [item.quantity for item in found] == ["latency", "energy"]
    return found


@pytest.fixture(scope="module")
def rows(toy):
    return toy.costs([*toy.unseen, *toy.measured[:3]], 9, 3, session="log:new")


def test_a_level_moves_totals_stages_and_their_errors_alike(toy):
    row = toy.cost_records[0]
    moved = at_level(row, {"latency": 2.0, "energy": 3.0})
    assert moved.latency_ms.value == pytest.approx(2 * row.latency_ms.value)
    assert moved.energy_mj.standard_error == pytest.approx(3 * row.energy_mj.standard_error)
    assert sum(s.energy_mj.value for s in moved.stages) == pytest.approx(moved.energy_mj.value)
    assert sum(s.latency_ms.value for s in moved.stages) == pytest.approx(moved.latency_ms.value)
    assert moved.stages[0].latency_ms.n == row.stages[0].latency_ms.n
    assert at_level(row, {}) is row
    bare = toy.costs(toy.unseen[:1], 12, 1, energy=False)[0]
    assert at_level(bare, {"latency": 1.0, "energy": 3.0}).energy_mj is None


def test_whole_rows_are_predicted_with_the_errors_that_they_show(toy, fitted, rows):
    latency_ms, energy_mj = row_draws(toy.space, fitted.cost_model, rows, seed=0, n_draws=200)
    assert latency_ms.shape == energy_mj.shape == (200, len(rows))
    for draws, name in ((latency_ms, "latency_ms"), (energy_mj, "energy_mj")):
        measured = np.array([getattr(row, name).value for row in rows])
        z = (np.log(measured) - np.log(draws).mean(axis=0)) / np.log(draws).std(axis=0)
        assert 0.3 < np.sqrt(np.mean(z**2)) < 2.0


def test_a_moved_device_shows_its_drift_and_new_predictors_follow_it(toy, fitted, rows):
    latency, energy = judged(toy, fitted, [scaled(row, energy=1.25) for row in rows])
    assert not latency.drift.drifted
    assert energy.drift.drifted
    assert energy.drift.low_percent < 25 < energy.drift.high_percent
    assert energy.drift.shift_percent == pytest.approx(25, abs=6)
    assert energy.drift.verdict("energy").startswith("drift: energy +2")
    assert energy.old.bias == pytest.approx(25, abs=6)
    assert energy.new is not None
    assert abs(energy.new.bias) < 0.6 * energy.old.bias
    assert (energy.drift.n_rows, energy.drift.n_networks) == (24, 8)
    assert Assessment.from_json(energy.to_json()) == energy


def test_no_row_is_predicted_by_a_model_that_has_seen_its_network(toy, fitted):
    """Every network has a factor of its own, which only its own rows could tell."""
    rng = np.random.default_rng(2)
    factors = {backbone: float(np.exp(rng.choice([-0.5, 0.5]))) for backbone in toy.unseen}
    fresh = [
        scaled(row, factors[row.backbone], factors[row.backbone]) for row in toy.costs(toy.unseen, 11, 4)
    ]
    latency, _ = judged(toy, fitted, fresh)
    assert latency.new is not None
    assert latency.new.mape > 25


def test_older_rows_of_a_held_out_network_are_no_help(toy, fitted):
    """The same networks again: each has a factor that its older rows have, too, and no other network can tell."""
    rng = np.random.default_rng(2)
    own = list(dict.fromkeys(row.backbone for row in toy.cost_records))
    factors = {backbone: float(np.exp(rng.choice([-0.5, 0.5]))) for backbone in own}
    older, fresh = (
        [scaled(row, factors[row.backbone], factors[row.backbone]) for row in rows]
        for rows in (toy.cost_records, toy.costs(own[:6], 11, 3))
    )
    latency = assess(toy.space, fitted.cost_model, older, fresh, chosen=KINDS, seed=0)[0]
    assert latency.new is not None
    assert latency.old_unseen is not None
    assert min(latency.new.mape, latency.old_unseen.mape) > 20
    assert Assessment.from_json(latency.to_json()) == latency


def test_rows_of_one_network_are_judged_by_old_predictors_alone(toy, fitted):
    latency, _ = judged(toy, fitted, toy.costs(toy.unseen[:1], 12, 3))
    assert latency.new is None
    assert latency.drift.verdict("latency").startswith("cannot tell")


def test_without_energy_only_latency_is_judged(toy, fitted):
    found = assess(
        toy.space, fitted.cost_model, toy.cost_records, toy.costs(toy.unseen[:1], 12, 3, energy=False),
        chosen=KINDS, seed=0,
    )  # fmt: skip
    assert [item.quantity for item in found] == ["latency"]
