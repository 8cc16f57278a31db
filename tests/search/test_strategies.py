import numpy as np
import pytest

from hadas.errors import StudyError
from hadas.search.batch import Prices
from hadas.search.metrics import HypervolumeReference
from hadas.search.strategies import STRATEGIES, BatchProblem, strategy_by_name

REFERENCE = HypervolumeReference(("error", "energy_mj", "latency_ms"), (False, True, True), (0.6, 3.0, 3.0))


def problem(seed=0, n=12, **more):
    rng = np.random.default_rng(seed)
    centre = np.stack([rng.uniform(0.1, 0.5, n), rng.uniform(2, 12, n), rng.uniform(2, 12, n)], axis=1)
    draws = centre * np.exp(0.1 * rng.normal(size=(8, n, 3)))
    measured = np.array([[0.3, 5.0, 6.0], [0.45, 3.0, 4.0]])
    groups = rng.integers(0, 4, n)
    prices = Prices(np.full(n, 20.0), groups, np.array([0.0, 0.0, 100.0, 100.0]))
    return BatchProblem(draws, measured, REFERENCE, prices, **more)


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "qlognehvi"])
def test_every_strategy_chooses_distinct_points_by_its_seed_alone_and_pays_for_a_group_once(name):
    asked = problem()
    found = strategy_by_name(name)(asked, 5, 3)
    rows = [choice.index for choice in found]
    assert len(set(rows)) == len(rows) == 5
    assert strategy_by_name(name)(problem(), 5, 3) == found
    group_s = asked.prices.group_s.copy()
    for choice in found:
        assert choice.cost_s == 20.0 + group_s[asked.prices.group[choice.index]]
        group_s[asked.prices.group[choice.index]] = 0.0
    assert len(strategy_by_name(name)(asked, 50, 3)) == 12


def test_without_costs_ours_and_qlognehvi_choose_alike():
    some = problem(seed=4, n=8)
    feasible = np.ones((8, 8), dtype=bool)
    feasible[:4, 1] = False
    asked = BatchProblem(
        some.pool_draws, some.measured, REFERENCE, Prices.equal(8), some.pool_draws[:, [2]] * 1.02, feasible
    )
    ours, other = (strategy_by_name(name)(asked, 3, 0) for name in ("hvi", "qlognehvi"))
    assert [choice.index for choice in ours] == [choice.index for choice in other]
    assert [c.expected_gain for c in ours] == pytest.approx([c.expected_gain for c in other])


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in ("hvi", "qlognehvi")])
def test_every_strategy_is_named_and_reports_what_all_draws_say_of_its_choice(name):
    feasible = np.random.default_rng(1).random((8, 12)) < 0.8
    asked = problem(feasible=feasible)
    first, second, *_ = strategy_by_name(name)(asked, 3, 3)

    def added(j, before):
        whole = [
            [*asked.measured, *(d[i] for i in before if ok[i])]
            for d, ok in zip(asked.pool_draws, feasible, strict=True)
        ]
        more = [
            [*w, d[j]] if ok[j] else w for w, d, ok in zip(whole, asked.pool_draws, feasible, strict=True)
        ]
        volume = REFERENCE.hypervolume
        return np.array([volume(np.array(b)) - volume(np.array(a)) for a, b in zip(whole, more, strict=True)])

    assert first.why == second.why == name
    assert first.expected_gain == pytest.approx(added(first.index, []).mean())
    assert second.expected_gain == pytest.approx(added(second.index, [first.index]).mean())
    for choice in (first, second):
        assert choice.gain_per_s == choice.expected_gain / choice.cost_s
        # To join the measured front, whatever else is chosen.
        assert choice.probability_of_gain == pytest.approx((added(choice.index, []) > 1e-9).mean())


@pytest.mark.parametrize("name", ["hvi", "mean", "thompson"])
def test_what_meets_no_constraint_is_not_chosen_for_its_gain(name):
    feasible = np.ones((8, 12), dtype=bool)
    without = strategy_by_name(name)(problem(), 1, 0)[0].index
    feasible[:, without] = False
    assert strategy_by_name(name)(problem(feasible=feasible), 1, 0)[0].index != without


def test_mean_trusts_what_varies_and_variance_seeks_it():
    draws = np.tile([[0.3, 5.0, 5.0], [0.31, 5.1, 5.1]], (8, 1, 1))
    draws[::2, 1, 0] = 0.15  # promises more, surely in half of the draws only
    draws[1::2, 1, 0] = 0.49
    asked = BatchProblem(draws, np.array([[0.5, 8.0, 8.0]]), REFERENCE, Prices.equal(2))
    assert [strategy_by_name(name)(asked, 1, 0)[0].index for name in ("mean", "variance")] == [0, 1]


def test_doubt_about_constraints_is_no_variance():
    # Nothing is in doubt but whether the first meets the constraints.
    draws = np.tile([[0.2, 4.0, 4.0], [0.3, 5.0, 5.0]], (8, 1, 1))
    draws[::2, 1, 1] = 5.1
    for share, by_mean in ((0.5, 0), (0.25, 1)):
        feasible = np.ones((8, 2), dtype=bool)
        feasible[int(8 * share) :, 0] = False
        asked = BatchProblem(
            draws, np.array([[0.5, 8.0, 8.0]]), REFERENCE, Prices.equal(2), feasible=feasible
        )
        for name, first in (("mean", by_mean), ("spread", by_mean), ("variance", 1)):
            assert strategy_by_name(name)(asked, 1, 0)[0].index == first


@pytest.mark.parametrize("name", ["hvi", "mean", "thompson"])
def test_pending_points_that_miss_the_constraints_take_nothing_away(name):
    free = strategy_by_name(name)(problem(), 3, 0)
    pending = problem().pool_draws[:, [choice.index for choice in free]]
    refused = problem(pending_draws=pending, pending_feasible=np.zeros((8, 3), dtype=bool))
    assert strategy_by_name(name)(refused, 3, 0) == free
    assert strategy_by_name(name)(problem(pending_draws=pending), 3, 0) != free


def test_spread_fills_the_largest_gap_along_the_second_objective():
    energy = np.array([4.0, 5.0, 9.0, 6.0])
    error = 0.1 + 0.01 * (12 - energy)
    points = np.stack([error, energy, np.full(4, 5.0)], axis=1)
    measured = np.array([[0.5, 3.5, 6.0], [0.05, 18.0, 6.0]])
    asked = BatchProblem(points[None], measured, REFERENCE, Prices.equal(4))
    assert [choice.index for choice in strategy_by_name("spread")(asked, 2, 0)] == [2, 3]


def test_an_unknown_strategy_is_named():
    with pytest.raises(StudyError, match="'best'; known: hvi, qlognehvi"):
        strategy_by_name("best")
