import numpy as np
import pytest

from hadas.errors import ConfigError
from hadas.search.exhaustive import undominated_settings
from hadas.search.hadas_objectives import Hadas2D
from hadas.search.inner import (
    ArrayNSGA2,
    Exhaustive,
    Hybrid,
    PymooNSGA2,
    n_choices,
)
from hadas.search.metrics import HypervolumeReference
from hadas.search.objectives import Expected, all_masks, evaluate

OBJECTIVES = [Expected(), Expected(with_latency=True), Hadas2D()]


def every_point(objective, tables, backbone):
    p, F = int(tables.n_positions[backbone]), tables.n_settings
    masks = np.zeros((1 << p, tables.max_positions), dtype=bool)
    masks[:, :p] = all_masks(p)
    masks = np.repeat(masks[int(objective.needs_exit) :], F, axis=0)
    settings = np.tile(np.arange(F), len(masks) // F)
    return evaluate(objective, tables, np.full(len(masks), backbone), masks, settings)


def naive_front(points):
    keep = [p for p in points if not any((q <= p).all() and (q < p).any() for q in points)]
    return sorted({tuple(np.round(p, 9)) for p in keep})


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(3))
def test_exhaustive_front_is_the_true_front(random_tables, objective, seed):
    tables = random_tables(seed)
    for backbone, front in enumerate(Exhaustive().run(tables, objective)):
        assert naive_front(front.objectives) == naive_front(every_point(objective, tables, backbone))
        assert front.n_evaluated == n_choices(tables, backbone, objective)


@pytest.mark.parametrize("engine", [Exhaustive(), ArrayNSGA2(20, 6), PymooNSGA2(20, 6)])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_reported_point_is_what_its_design_costs(random_tables, engine, objective):
    tables = random_tables(11)
    for backbone, front in enumerate(engine.run(tables, objective, 3)):
        again = evaluate(
            objective, tables, np.full(len(front.settings), backbone), front.masks, front.settings
        )
        assert np.array_equal(front.objectives, again)
        assert not front.masks[:, tables.n_positions[backbone] :].any()
        assert front.masks.any(axis=1).all() or not objective.needs_exit
        assert len(naive_front(front.objectives)) == len(front.objectives)


def relative_hypervolumes(engine, tables, objective, seed):
    columns = objective.columns(tables.has_energy)
    shares = []
    for exact, found in zip(
        Exhaustive().run(tables, objective), engine.run(tables, objective, seed), strict=True
    ):
        reference = HypervolumeReference.from_front(exact.objectives, columns)
        shares.append(reference.hypervolume(found.objectives) / reference.hypervolume(exact.objectives))
    return shares


@pytest.mark.parametrize("objective", [Expected(), Hadas2D()])
@pytest.mark.parametrize("engine", [ArrayNSGA2(40, 20), PymooNSGA2(40, 20)])
def test_nsga2_reaches_nearly_all_of_the_exact_hypervolume(synthetic_world, objective, engine):
    space = synthetic_world.space
    tables = synthetic_world.tables([space.presets["m0"], space.presets["m2"]])
    shares = relative_hypervolumes(engine, tables, objective, 1)
    assert min(shares) >= 0.95
    assert max(shares) <= 1 + 1e-9


@pytest.mark.parametrize("engine", [ArrayNSGA2(12, 5), PymooNSGA2(12, 5)])
def test_nsga2_is_fixed_by_the_seed_and_blind_to_its_neighbours(random_tables, engine):
    tables = random_tables(4, n_backbones=3, n_positions=(5, 6, 6))
    together = engine.run(tables, Expected(), 9)
    alone = engine.run(tables.take([1]), Expected(), 9)[0]
    assert np.array_equal(together[1].objectives, alone.objectives)
    assert np.array_equal(together[1].masks, alone.masks)
    other = engine.run(tables, Expected(), 10)
    assert any(not np.array_equal(a.objectives, b.objectives) for a, b in zip(together, other, strict=True))


def test_nsga2_never_evaluates_a_candidate_twice_and_can_exhaust_a_small_space(random_tables):
    tables = random_tables(2, n_settings=2, n_positions=(3, 2))
    for objective, n_exits_choices in ((Expected(), (8, 4)), (Hadas2D(), (7, 3))):
        fronts = ArrayNSGA2(10, 9).run(tables, objective, 0)
        exact = Exhaustive().run(tables, objective)
        for front, truth, n in zip(fronts, exact, n_exits_choices, strict=True):
            assert front.n_evaluated == 2 * n
            assert naive_front(front.objectives) == naive_front(truth.objectives)


@pytest.mark.parametrize("objective", [Expected(), Hadas2D()])
@pytest.mark.parametrize("engine", [ArrayNSGA2(1, 3), PymooNSGA2(1, 3), ArrayNSGA2(6, 3), PymooNSGA2(6, 3)])
def test_nsga2_copes_with_one_parent_and_with_a_space_smaller_than_its_population(
    random_tables, engine, objective
):
    tables = random_tables(0, n_settings=1, n_positions=(1, 1))
    for front in engine.run(tables, objective, 0):
        assert 1 <= len(front.settings) <= 2
        assert front.masks.any(axis=1).all() or not objective.needs_exit


def test_hybrid_enumerates_what_is_small_and_searches_the_rest(random_tables):
    tables = random_tables(6, n_positions=(6, 3))
    fronts = Hybrid(n_choices(tables, 1, Expected()), ArrayNSGA2(8, 2)).run(tables, Expected(), 0)
    assert fronts[0].n_evaluated == 16
    assert fronts[1].n_evaluated == n_choices(tables, 1, Expected())


def test_many_positions_are_refused_by_enumeration_and_searched_by_the_hybrid(random_tables):
    tables = random_tables(3, n_backbones=1, n_positions=(17,), n_settings=1)
    with pytest.raises(ConfigError, match="17 exit positions"):
        Exhaustive().run(tables, Expected())
    assert Hybrid(10**9, ArrayNSGA2(8, 2)).run(tables, Expected(), 0)[0].n_evaluated == 16


def test_a_setting_is_left_out_only_if_another_is_no_dearer_everywhere():
    costs = np.array([[1.0, 2.0, 1.0, 3.0, 0.5], [2.0, 1.0, 2.0, 3.0, 9.0]])
    # Column 2 repeats column 0; column 3 is dearer than 0 at both stages.
    assert undominated_settings(costs).tolist() == [0, 1, 4]
