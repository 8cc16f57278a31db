"""Cost models of a handful of rows: how unsure they are, when the baseline has as many coefficients as there are rows."""

from dataclasses import replace

import numpy as np
import pytest

from hadas.surrogates.assessment import row_draws
from hadas.surrogates.cost import cost_rows
from hadas.surrogates.cost_model import CostDraws, CostModel
from hadas.surrogates.fitting import Fitter
from hadas.surrogates.physics import BaselineDoubt, LatencyBaseline
from hadas.surrogates.predictor_set import PredictorSet


def random_costs(toy, seed, n):
    """Rows of n random networks at random clocks."""
    backbones = [toy.space.decode(g) for g in toy.space.sample(n, np.random.default_rng(seed))]
    return toy.costs(backbones, seed + 1, per_backbone=1)


def intervals(toy, model, rows):
    """Share of latencies and energies in nominal 90 % intervals, and the median ratio of their ends."""
    found = []
    drawn = row_draws(toy.space, model, rows, seed=1, n_draws=200)
    for draws, quantity in zip(drawn, ("latency_ms", "energy_mj"), strict=True):
        measured = np.array([getattr(row, quantity).value for row in rows])
        low, high = np.quantile(draws, (0.05, 0.95), axis=0)
        found.append((np.mean((low <= measured) & (measured <= high)), np.median(high / low)))
    return np.array(found)


@pytest.mark.parametrize(("n_rows", "whole"), [(2, True), (1, False), (3, False)])
def test_a_model_of_a_few_rows_knows_that_it_knows_little(toy, n_rows, whole):
    found = []
    for seed in (40, 50, 60):
        rows = random_costs(toy, seed, n_rows)
        if whole:
            rows = [replace(row, stages=()) for row in rows]
        model, _ = CostModel.fit(
            toy.table, cost_rows(toy.space, toy.table, rows), fitter=Fitter(("gp",)), seed=0
        )
        found.append(intervals(toy, model, random_costs(toy, seed + 5, 25)))
    (latency_covered, _), (energy_covered, energy_width) = np.mean(found, axis=0)
    assert latency_covered > 0.7
    assert energy_covered > 0.7
    assert energy_width < 200


def test_many_rows_leave_no_doubt_about_coefficients():
    """And clear rows say more than noisy ones: the fit passes by values that are known not to be known."""
    rng = np.random.default_rng(0)
    terms = rng.uniform(0.1, 1.0, (400, 7))
    y = np.log(terms @ np.arange(1.0, 8.0))
    noise = np.where(np.arange(400) % 2, 1e-6, 0.5)
    y += np.sqrt(noise) * rng.standard_normal(400)
    baseline = LatencyBaseline.fit(terms, y, noise)
    np.testing.assert_allclose(baseline.coefficients, np.arange(1.0, 8.0), rtol=0.02)

    def sd(n):
        baseline = LatencyBaseline.fit(terms[:n], y[:n], noise[:n])
        doubt = BaselineDoubt.of(baseline, terms[:n], y[:n], noise[:n], n_records=n)
        return doubt.moved(terms[200:], 300, 0).std(), doubt.widening

    few, many = sd(8), sd(400)
    assert few[0] > 5 * many[0]
    assert few[1] > 1.5 > 1.05 > many[1]
    assert many[0] < 0.1


def test_the_doubt_is_kept_in_files(toy, tmp_path):
    rows = random_costs(toy, 40, 2)
    predictors = PredictorSet.fit(toy.space, toy.table, [], rows, n_classes=10, seed=0, candidates=("gp",))
    predictors.save(tmp_path / "set")
    loaded = PredictorSet.load(tmp_path / "set", toy.space, toy.table)
    stages = predictors.workload(toy.unseen[0]).unit_stages()[:3]
    at = [toy.table.settings[5]] * 3
    one, two = (CostDraws(p.cost_model, 5, 1, noise=True)(stages, at) for p in (predictors, loaded))
    np.testing.assert_array_equal(one, two)
