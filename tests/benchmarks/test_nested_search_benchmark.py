"""The timing of the nested search: its verdict, its scaling, and the rows it fits predictors to."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from _attentivenas_problem import rows
from _plain_nested import PlainWorld, Slice, measured_slice
from nested_search import Figures, holds, largest_difference, settings_of

from hadas.search.outcomes import OutcomeLibrary
from hadas.search.outer import nested_search, search_settings
from hadas.search.world import MeanView, PredictedWorld
from hadas.surrogates.predictor_set import PredictorSet

FINE = Figures(
    fit_s=9.0, search_s=400.0, search_processor_s=8.0, plain_processor_s=800.0, ratio=100.0, n_static=448,
    n_inner=245_000, n_signatures=900, peak_gb=0.7, hypervolume=(0.4, 0.5), largest_difference=1e-14,
)  # fmt: skip


def test_the_ratio_decides_and_seconds_do_not():
    thorough = settings_of(quick=False)
    assert holds(FINE, thorough, 50.0)
    for change in (
        {"ratio": 49.0}, {"n_inner": 244_999}, {"peak_gb": 2.1}, {"largest_difference": 1e-3},
    ):  # fmt: skip
        assert not holds(dataclasses.replace(FINE, **change), thorough, 50.0)


def test_a_slice_is_scaled_evaluation_by_evaluation():
    part = Slice(n_static=64, n_inner=420, static_s=1.28, inner_s=4.2)
    assert part.scaled_s(448, 245_000) == pytest.approx(448 * 0.02 + 245_000 * 0.01)


@pytest.fixture(scope="module")
def given():
    return rows(8, 6, 300, seed=101)


def test_rows_are_of_the_whole_space_and_said_to_be_modelled(given):
    assert len(given.table) == 143
    assert given.space.cardinality > 4e11
    assert all(record.truth == "simulator" for record in given.costs)
    for record in given.accuracy:
        assert "modelled" in record.weights_id
        fractions = record.calibration.fractions
        assert len(fractions) == record.backbone.n_blocks - given.space.first_exit + 1
        assert fractions[-1] > fractions[0] + 0.05
    again = rows(8, 6, 300, seed=101)
    assert np.array_equal(again.accuracy[3].calibration.correct, given.accuracy[3].calibration.correct)
    assert again.costs[2].latency_ms == given.costs[2].latency_ms


def test_both_ways_say_the_same_of_designs(given):
    predictors = PredictorSet.fit(
        given.space, given.table, given.accuracy, given.costs, n_classes=100, seed=0, candidates=("gp",)
    )
    library = OutcomeLibrary(given.accuracy)
    world = PredictedWorld(
        given.space, given.table, MeanView(given.space, predictors), library, n_classes=100
    )
    small = search_settings("smoke", {"population": 4, "survivors": 2, "generations": 1})
    found = nested_search(given.space, world, small, 0)
    plain = PlainWorld(predictors, library, given.space)
    assert largest_difference(plain, found.front) < 1e-9
    static = world.static(found.population)
    for i, backbone in enumerate(found.population):
        error, energy, latency = plain.static(backbone)
        # Measured accuracies stand in for predicted ones; none of these was measured.
        assert (1 - error, energy, latency) == pytest.approx(
            (static.accuracy[i], static.energy_mj[i], static.latency_ms[i])
        )
    part = measured_slice(plain, 4, 4, found.population[:1], 0, 2)
    assert (part.n_static, part.n_inner) == (4, 8)
