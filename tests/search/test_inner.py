import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.errors import ConfigError, InfeasibleError
from hadas.search.constraints import NO_CONSTRAINTS, Constraints
from hadas.search.ensemble import TablesEnsemble
from hadas.search.evaluation import CodeIndex, Evaluator, choice_codes
from hadas.search.exhaustive import undominated_settings, worthwhile_settings
from hadas.search.hadas_objectives import Hadas2D, HadasCode, HadasEq6
from hadas.search.inner import (
    ArrayNSGA2,
    Exhaustive,
    Hybrid,
    PymooNSGA2,
    n_choices,
)
from hadas.search.metrics import HypervolumeReference
from hadas.search.objectives import Column, Expected, all_masks, evaluate
from hadas.search.ranking import best_first

from .conftest import make_random_tables

OBJECTIVES = [
    Expected(),
    Expected(with_latency=True),
    Hadas2D(),
    HadasCode(),
    HadasEq6(ratio="gain"),
    HadasEq6(ratio="literal", dissimilarity="joint"),
]


def every_choice(objective, tables, backbone):
    p, F = int(tables.n_positions[backbone]), tables.n_settings
    masks = np.zeros((1 << p, tables.max_positions), dtype=bool)
    masks[:, :p] = all_masks(p)
    masks = np.repeat(masks[int(objective.needs_exit) :], F, axis=0)
    return np.full(len(masks), backbone), masks, np.tile(np.arange(F), len(masks) // F)


def n_worthwhile(objective, tables, backbone):
    """Choices at settings that are not dominated at every stage."""
    settings = worthwhile_settings(tables, objective, NO_CONSTRAINTS, backbone)
    return n_choices(tables, backbone, objective) // tables.n_settings * len(settings)


def every_point(objective, tables, backbone):
    return evaluate(objective, tables, *every_choice(objective, tables, backbone))


def naive_front(points):
    keep = [p for p in points if not any((q <= p).all() and (q < p).any() for q in points)]
    return sorted({tuple(np.round(p, 9)) for p in keep})


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(3))
def test_exhaustive_front_is_the_true_front(random_tables, objective, seed):
    tables = random_tables(seed)
    for backbone, front in enumerate(Exhaustive().run(tables, objective)):
        assert naive_front(front.objectives) == naive_front(every_point(objective, tables, backbone))
        assert front.n_evaluated == n_worthwhile(objective, tables, backbone)


@pytest.mark.parametrize("engine", [Exhaustive(), ArrayNSGA2(20, 6), PymooNSGA2(8, 3)])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
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


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_nsga2_enumerates_what_its_budget_covers(random_tables, objective):
    tables = random_tables(2, n_settings=2, n_positions=(3, 2))
    for b, front in enumerate(ArrayNSGA2(10, 9).run(tables, objective, 0)):
        assert front.n_evaluated == n_worthwhile(objective, tables, b)
        assert naive_front(front.objectives) == naive_front(every_point(objective, tables, b))


def test_nsga2_evaluates_its_budget_and_nothing_twice(random_tables, monkeypatch):
    """Just below the number of choices, so that variation has to look for what is new."""
    judged = []
    judge = Evaluator.judge

    def watching(self, backbone, masks, settings):
        judged.extend(zip(backbone.tolist(), map(bytes, masks), settings.tolist(), strict=True))
        return judge(self, backbone, masks, settings)

    monkeypatch.setattr(Evaluator, "judge", watching)
    tables = random_tables(2, n_settings=5, n_positions=(5, 5))
    for objective in (Expected(with_latency=True), HadasEq6(ratio="literal")):
        judged.clear()
        fronts = ArrayNSGA2(15, 10).run(tables, objective, 3)
        assert [front.n_evaluated for front in fronts] == [150, 150]
        assert len(judged) == len(set(judged)) == 300
    # Random draws would look for the last of these for long.
    judged.clear()
    ArrayNSGA2(20, 51).run(random_tables(3, n_backbones=1, n_positions=(10,), n_settings=1), Expected(), 0)
    assert len(judged) == len(set(judged)) == 1020


@pytest.mark.parametrize("seed", range(4))
def test_no_member_of_a_front_is_dominated_but_for_rounding(random_tables, seed):
    tables = random_tables(seed, n_backbones=1, n_positions=(6,), n_settings=1)
    # Few different costs, so that means over different exits tie; shares of them are no round numbers.
    tied = dataclasses.replace(
        tables,
        segment_energy_mj=0.7 * np.rint(tables.segment_latency_ms),
        head_energy_mj=0.7 * np.ones_like(tables.head_latency_ms),
    )
    points = Exhaustive().run(tied, Hadas2D(gamma=0.0))[0].objectives
    assert (np.diff(points, axis=0)[:, 0] > 1e-9).all()
    assert (np.diff(points, axis=0)[:, 1] < -1e-9).all()


@pytest.mark.parametrize("objective", [Expected(), Hadas2D()])
def test_nsga2_lists_what_its_budget_covers_however_many_the_positions(random_tables, objective):
    many = random_tables(3, n_backbones=1, n_positions=(17,), n_settings=1)
    n = (1 << 17) - int(objective.needs_exit)
    found = ArrayNSGA2(4000, 33).run(many, objective, 0)[0]
    assert found.n_evaluated == n
    # No search finds anything better.
    for point in ArrayNSGA2(500, 4).run(many, objective, 0)[0].objectives:
        assert (found.objectives <= point).all(axis=1).any()


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
    assert fronts[1].n_evaluated == n_worthwhile(Expected(), tables, 1)


def test_many_positions_are_refused_by_enumeration_and_searched_by_the_hybrid(random_tables):
    tables = random_tables(3, n_backbones=1, n_positions=(17,), n_settings=1)
    with pytest.raises(ConfigError, match="17 exit positions"):
        Exhaustive().run(tables, Expected())
    assert Hybrid(10**9, ArrayNSGA2(8, 2)).run(tables, Expected(), 0)[0].n_evaluated == 16


def test_a_setting_is_left_out_only_if_another_is_no_dearer_everywhere():
    costs = np.array([[1.0, 2.0, 1.0, 3.0, 0.5], [2.0, 1.0, 2.0, 3.0, 9.0]])
    # Column 2 repeats column 0; column 3 is dearer than 0 at both stages.
    assert undominated_settings(costs).tolist() == [0, 1, 4]


@pytest.mark.parametrize("objective", [Expected(with_latency=True), HadasEq6()])
def test_more_generations_of_the_same_run_never_lose_anything(random_tables, objective):
    tables = random_tables(7, n_positions=(9, 7), n_settings=6)
    few, more = (ArrayNSGA2(10, n).run(tables, objective, 4) for n in (3, 8))
    for a, b in zip(few, more, strict=True):
        for point in a.objectives:
            assert (b.objectives <= point).all(axis=1).any()


def naive_crowding(points):
    """Deb et al., one objective after the other, one point after the other."""
    distance = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        for place, row in enumerate(order):
            if place in (0, len(points) - 1):
                distance[row] = np.inf
            elif span > 0:
                distance[row] += (column[order[place + 1]] - column[order[place - 1]]) / span
    return distance


@given(
    st.lists(
        st.tuples(*[st.integers(0, 4)] * 3, st.sampled_from([0.0, 0.0, 0.5, 1.0])), min_size=1, max_size=12
    )
)
@settings(max_examples=100, deadline=None)
def test_order_of_candidates_is_violation_then_rank_then_crowding(rows):
    values = np.array(rows, dtype=float)
    points, violation = values[:, :3], values[:, 3]
    order = best_first(points, violation).tolist()
    assert sorted(order) == list(range(len(rows)))
    keys = {}
    for feasible in (True, False):
        group = np.flatnonzero((violation == 0) == feasible)
        ranks, left, depth = {}, list(group), 0
        while left:
            front = [
                i
                for i in left
                if not any((points[j] <= points[i]).all() and (points[j] < points[i]).any() for j in left)
            ]
            ranks |= {i: (depth, -c) for i, c in zip(front, naive_crowding(points[front]), strict=True)}
            left, depth = [i for i in left if i not in front], depth + 1
        keys |= {int(i): (violation[i], *ranks[i], i) for i in group}
    assert order == sorted(order, key=keys.__getitem__)


# Constraints


class Limited(NamedTuple):
    """A limit that some share of all choices keeps to."""

    constraints: Constraints
    expected: np.ndarray  # (q, 3) error, energy, latency of every choice
    n_exits: np.ndarray


def limited(tables, objective, backbone, shares):
    """Constraints at quantiles of what all choices on a backbone are worth; ``None`` = no such limit."""
    rows, masks, settings = every_choice(objective, tables, backbone)
    expected = evaluate(Expected(with_latency=True), tables, rows, masks, settings)
    n_exits = masks.sum(axis=1)
    columns = (expected[:, 2], expected[:, 1], -expected[:, 0], n_exits)
    # Limits are values of designs, so that designs exactly at their limit are common.
    found = [
        None if q is None else float(np.quantile(c, q, method="nearest"))
        for c, q in zip(columns, shares, strict=True)
    ]
    return Limited(
        Constraints(found[0], found[1], None if found[2] is None else 1.0 + found[2],
                    None if found[3] is None else int(found[3])),
        expected, n_exits,
    )  # fmt: skip


@given(
    seed=st.integers(0, 50),
    which=st.sampled_from(OBJECTIVES),
    shares=st.tuples(*[st.one_of(st.none(), st.floats(0.0, 1.0))] * 4),
)
@settings(max_examples=60, deadline=None)
def test_constrained_fronts_equal_brute_force(seed, which, shares):
    tables = make_random_tables(seed, n_backbones=1, n_positions=(3,), n_settings=4, n_samples=30)
    limit = limited(tables, which, 0, shares)
    violation = np.zeros(len(limit.n_exits))
    for value, bound, sign in (
        (limit.expected[:, 2], limit.constraints.max_latency_ms, 1),
        (limit.expected[:, 1], limit.constraints.max_energy_mj, 1),
        (1 - limit.expected[:, 0], limit.constraints.min_accuracy, -1),
        (limit.n_exits, limit.constraints.max_exits, 1),
    ):
        if bound is not None:
            violation += np.maximum(0.0, sign * (value - bound)) / (bound or 1.0)
    points = every_point(which, tables, 0)
    best = points[violation == violation.min()]
    for engine in (Exhaustive(), ArrayNSGA2(4, 20), Hybrid(10**6, ArrayNSGA2(2, 2))):
        front = engine.run(tables, which, 0, limit.constraints)[0]
        assert naive_front(front.objectives) == naive_front(best)
        assert front.violation == pytest.approx(violation.min())
        assert (front.violation == 0).all() == (violation == 0).any()


@pytest.mark.parametrize("engine", [ArrayNSGA2(20, 12), PymooNSGA2(20, 12)])
@pytest.mark.parametrize("objective", [Expected(), HadasEq6()])
def test_nsga2_finds_the_feasible_corner(random_tables, engine, objective):
    """A fiftieth of all choices is feasible; the front found keeps to it and is near the exact one."""
    tables = random_tables(3, n_backbones=1, n_positions=(8,), n_settings=6)
    limit = limited(tables, objective, 0, (0.1, None, 0.3, 0.4)).constraints
    exact = Exhaustive().run(tables, objective, 0, limit)[0]
    found = engine.run(tables, objective, 1, limit)[0]
    assert (exact.violation == 0).all()
    assert (found.violation == 0).all()
    both = np.concatenate([exact.objectives, found.objectives])
    reference = HypervolumeReference.from_front(
        both, [Column(c.name, False) for c in objective.columns(True)]
    )
    share = reference.hypervolume(found.objectives) / reference.hypervolume(exact.objectives)
    assert 0.9 <= share <= 1.0 + 1e-9


def test_what_cannot_be_met_is_named_with_the_best_that_was_found(random_tables):
    tables = random_tables(1)
    limit = Constraints(max_latency_ms=0.5, min_accuracy=0.2, max_exits=3)
    front = Exhaustive().run(tables, Expected(), 0, limit)[1]
    least = min(evaluate(Expected(True), tables, *every_choice(Expected(), tables, 1))[:, 2])
    assert front.extremes.latency_ms == pytest.approx(least)
    with pytest.raises(InfeasibleError) as caught:
        raise limit.infeasible(front.extremes)
    assert caught.value.constraints == ("latency at most 0.5 ms",)
    assert f"latency at most 0.5 ms (best found: {least:.4g} ms)" in str(caught.value)
    assert "accuracy" not in str(caught.value)


def test_an_energy_limit_without_an_energy_counter_is_refused(random_tables):
    tables = random_tables(0, energy=False)
    for engine in (Exhaustive(), ArrayNSGA2(4, 2), PymooNSGA2(4, 2), Hybrid(10, ArrayNSGA2(4, 2))):
        with pytest.raises(ConfigError, match="counts no energy"):
            engine.run(tables, Expected(), 0, Constraints(max_energy_mj=5.0))


# Ensembles


@pytest.mark.parametrize("objective", [Expected(with_latency=True), HadasEq6(), Hadas2D()])
@pytest.mark.parametrize("kwargs", [{}, {"statistic": "quantile", "quantile": 0.8}])
def test_an_ensemble_is_judged_by_the_statistic_of_its_members(random_tables, objective, kwargs):
    first = random_tables(0, n_positions=(4, 3))
    members = tuple(dataclasses.replace(random_tables(seed), backbones=first.backbones) for seed in range(4))
    ensemble = TablesEnsemble(members, **kwargs)
    limit = Constraints(max_latency_ms=9.0)

    def summary(values):
        return np.mean(values, axis=0) if not kwargs else np.quantile(values, 0.8, axis=0)

    for b, front in enumerate(Exhaustive().run(ensemble, objective, 0, limit)):
        choices = every_choice(objective, first, b)
        points = summary([evaluate(objective, member, *choices) for member in members])
        latency = summary([evaluate(Expected(True), member, *choices)[:, 2] for member in members])
        assert (latency <= 9.0).any()
        assert naive_front(front.objectives) == naive_front(points[latency <= 9.0])
        judged = Evaluator(ensemble, objective, limit).judge(*choices)
        assert judged.points == pytest.approx(points)
        assert np.array_equal(judged.violation == 0, latency <= 9.0)


def test_an_ensemble_of_one_is_its_member_and_odd_members_are_refused(random_tables):
    tables = random_tables(5, n_positions=(6, 5))
    alone = ArrayNSGA2(8, 4).run(tables, Expected(), 2)
    for front, same in zip(
        alone, ArrayNSGA2(8, 4).run(TablesEnsemble((tables,)), Expected(), 2), strict=True
    ):
        assert np.array_equal(front.objectives, same.objectives)
    with pytest.raises(ConfigError, match="same backbones"):
        TablesEnsemble((tables, random_tables(6, n_positions=(6, 5))))
    with pytest.raises(ConfigError, match="must lie between 0 and 1"):
        TablesEnsemble((tables,), "quantile", 1.2)


# Hashing


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**60), st.integers(0, 40)), max_size=80))
@settings(max_examples=60, deadline=None)
def test_a_code_index_knows_what_was_added_and_nothing_else(rows):
    """Against a dict, with exits that fill one word and, padded to 70 positions, two."""
    for n_positions in (20, 70):
        masks = np.array([[(m >> j % 60) & 1 for j in range(n_positions)] for _, m, _ in rows], dtype=bool)
        masks = masks.reshape(len(rows), n_positions)
        group, setting = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 2))
        codes = choice_codes(group, masks, setting, 4, 41)
        names = [(g, mask.tobytes(), s) for g, mask, s in zip(group, masks, setting, strict=True)]
        assert len(set(codes.tolist())) == len(set(names))
        index, half = CodeIndex(), len(rows) // 2
        index.add(np.unique(codes[:half]))
        found = index.find(codes)
        known = set(names[:half])
        assert [number >= 0 for number in found] == [name in known for name in names]
        numbers = {name: number for name, number in zip(names, found.tolist(), strict=True) if number >= 0}
        assert len(set(numbers.values())) == len(known) == len(index)
