"""Searches under uncertainty, and how sure their fronts are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.errors import ConfigError, StudyError
from hadas.search.constraints import NO_CONSTRAINTS, Constraints
from hadas.search.evaluation import Evaluator
from hadas.search.front_confidence import probability_non_dominated
from hadas.search.objectives import Expected, evaluate
from hadas.search.outcomes import OutcomeLibrary
from hadas.search.outer import nested_search, search_settings
from hadas.search.robust import EnsembleWorld
from hadas.search.world import DrawView, PredictedWorld

N_DRAWS = 5


@pytest.fixture(scope="module")
def library(synthetic_world):
    presets = synthetic_world.space.presets
    return OutcomeLibrary([synthetic_world.accuracy_record(presets[name]) for name in ("m0", "m3", "m6")])


def world_of(synthetic_world, predictors, library, statistic="quantile", quantile=0.8):
    return EnsembleWorld.of_draws(
        synthetic_world.space, synthetic_world.clock_table, predictors.draws(N_DRAWS, 2), library, n_classes=10,
        statistic=statistic, quantile=quantile,
    )  # fmt: skip


def test_every_member_is_the_world_of_its_draw(synthetic_world, formula_predictors, library):
    space, table = synthetic_world.space, synthetic_world.clock_table
    backbones = [space.presets["m1"], space.presets["m6"]]
    world = world_of(synthetic_world, formula_predictors, library, "mean")
    members = world.tables(backbones).members
    draws, static = formula_predictors.draws(N_DRAWS, 2), []
    for i, member in enumerate(members):
        view = DrawView(space, draws, i, n_classes=10)
        alone = PredictedWorld(space, table, view, library, n_classes=10)
        tables = alone.tables(backbones)
        for name in ("segment_energy_mj", "head_latency_ms", "correct", "leaves"):
            assert np.array_equal(getattr(member, name), getattr(tables, name))
        static.append(alone.static(backbones))
    found = world.static(backbones)
    assert found.accuracy == pytest.approx(np.mean([s.accuracy for s in static], axis=0))
    assert found.energy_mj == pytest.approx(np.mean([s.energy_mj for s in static], axis=0))


def test_a_cautious_search_reports_quantiles_of_the_exact_objectives(
    synthetic_world, formula_predictors, library
):
    world = world_of(synthetic_world, formula_predictors, library)
    small = search_settings("smoke", {"statistic": "quantile", "population": 6})
    result = nested_search(synthetic_world.space, world, small, seed=0)
    for candidate in result.front[:3]:
        design = candidate.design
        setting = np.array([world.clock_table.index(design.setting)])
        values = [
            evaluate(Expected(), member, np.array([0]), design.mask[None], setting)[0]
            for member in world.tables([design.backbone]).members
        ]
        assert candidate.objectives == pytest.approx(np.quantile(values, 0.8, axis=0))
    # A higher quantile is never better: the same designs look worse.
    bolder = world_of(synthetic_world, formula_predictors, library, quantile=0.2)
    backbones = [candidate.design.backbone for candidate in result.front]
    rows = np.arange(len(backbones))
    P = max(b.n_blocks for b in backbones) - synthetic_world.space.first_exit
    masks = np.array([[*c.design.mask, *[False] * (P - len(c.design.mask))] for c in result.front])
    settings_ = np.array([world.clock_table.index(c.design.setting) for c in result.front])
    points = [
        Evaluator(w.tables(backbones), Expected(), NO_CONSTRAINTS).judge(rows, masks, settings_).points
        for w in (bolder, world)
    ]
    assert (points[0] <= points[1]).all()
    assert (points[0] < points[1]).any()


def test_constraints_hold_in_the_quantile(synthetic_world, formula_predictors, library):
    world = world_of(synthetic_world, formula_predictors, library)
    space = synthetic_world.space
    free = nested_search(space, world, search_settings("smoke", {"statistic": "quantile"}), seed=0)
    energies = sorted(candidate.objectives[1] for candidate in free.front)
    limit = energies[len(energies) // 2]
    limited = search_settings(
        "smoke", {"statistic": "quantile", "constraints": Constraints(max_energy_mj=limit)}
    )
    found = nested_search(space, world, limited, seed=0)
    assert max(candidate.objectives[1] for candidate in found.front) <= limit


def test_an_ensemble_needs_a_member():
    with pytest.raises(ConfigError, match="at least one draw"):
        EnsembleWorld((), "quantile", 0.5)


def test_probability_of_belonging_to_the_front_on_a_toy():
    # Two draws of three points: the second is dominated by the first in one draw, the third in both.
    draws = np.array([[[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]], [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
    assert probability_non_dominated(draws).tolist() == [1.0, 0.5, 0.0]
    # A competitor that beats everything in the first draw, and nothing in the second.
    others = np.array([[[0.0, 0.0]], [[9.0, 9.0]]])
    assert probability_non_dominated(draws, others).tolist() == [0.5, 0.0, 0.0]


def test_what_misses_a_constraint_belongs_nowhere():
    missed = np.full((1, 3, 2), np.inf)
    assert probability_non_dominated(missed).tolist() == [0.0, 0.0, 0.0]
    one_draw = np.concatenate([missed[:, :2], [[[1.0, 2.0], [2.0, 1.0]]]])
    assert probability_non_dominated(one_draw).tolist() == [0.5, 0.5]
    # What misses the constraints is no competitor either.
    assert probability_non_dominated(one_draw, missed[[0, 0], :1]).tolist() == [0.5, 0.5]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_probability_equals_counting_and_falls_with_competition(seed):
    rng = np.random.default_rng(seed)
    draws, others = rng.integers(0, 4, (7, 5, 2)).astype(float), rng.integers(0, 4, (7, 3, 2)).astype(float)
    counted = np.zeros(5)
    for points in draws:
        for i, point in enumerate(points):
            dominated = ((points <= point).all(axis=1) & (points < point).any(axis=1)).any()
            counted[i] += not dominated
    alone = probability_non_dominated(draws)
    assert alone == pytest.approx(counted / 7)
    assert (probability_non_dominated(draws, others) <= alone).all()


def test_draws_that_do_not_belong_together_are_refused():
    draws = np.zeros((4, 3, 2))
    for others in (np.zeros((5, 3, 2)), np.zeros((4, 3, 3)), np.zeros((4, 3))):
        with pytest.raises(StudyError, match="under the same draws"):
            probability_non_dominated(draws, others)
    with pytest.raises(StudyError, match="at least one draw"):
        probability_non_dominated(np.zeros((0, 3, 2)))
