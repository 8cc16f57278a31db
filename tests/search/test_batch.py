import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.errors import StudyError
from hadas.search.batch import MeasuredErrors, Prices, choose_batch
from hadas.search.improvement import drawn_sets
from hadas.search.metrics import HypervolumeReference


def reference(m):
    return HypervolumeReference(("a", "b", "c", "d")[:m], (False,) * m, (1.1,) * m)


def volume(points):
    inside = points[(points < 1.1).all(axis=1)]
    return moocore.hypervolume(inside, ref=np.full(points.shape[1], 1.1)) if len(inside) else 0.0


@settings(max_examples=40, deadline=None)
@given(m=st.integers(2, 4), q=st.integers(0, 12), seed=st.integers(0, 2**20), coarse=st.booleans())
def test_gains_are_differences_of_hypervolume(m, q, seed, coarse):
    rng = np.random.default_rng(seed)
    measured, points, added = rng.random((q, m)), rng.random((3, 5, m)) * 1.3, rng.random((2, 3, m)) * 1.3
    if coarse:  # equal coordinates and equal points
        measured, points, added = (np.round(values * 4) / 4 for values in (measured, points, added))
    counts = np.array([True, False, True])
    sets = drawn_sets(measured, 3, np.full(m, 1.1))
    sets.add(added[0])
    sets.add(added[1], counts)
    got = sets.gains(points)
    for i in range(3):
        own = np.vstack([measured, added[0, i], *([added[1, i]] if counts[i] else [])])
        expected = [volume(np.vstack([own, point])) - volume(own) for point in points[i]]
        assert got[i] == pytest.approx(expected, abs=1e-12)


def plain_greedy(draws, measured, prices, n, lookahead, feasible):
    """Every gain anew at every step, straight from the definition."""
    counts = np.ones(draws.shape[:2], dtype=bool) if feasible is None else feasible
    sets, group_s, left = [measured] * len(draws), prices.group_s.copy(), list(range(draws.shape[1]))

    def gain(some, j):
        more = [volume(np.vstack([a, d[j]])) - volume(a) for a, d in zip(some, draws, strict=True)]
        return np.mean(np.array(more) * counts[:, j])

    def with_point(some, j):
        return [np.vstack([a, draws[i, j]]) if counts[i, j] else a for i, a in enumerate(some)]

    def together(group):
        """(ratio of the best first few, the first)."""
        some, own, total, cost, ratios, first = (
            sets,
            list(group),
            0.0,
            group_s[prices.group[group[0]]],
            [],
            None,
        )
        for _ in range(min(lookahead, len(group))):
            j = max(own, key=lambda j: (gain(some, j) / prices.item_s[j], -j))
            total, cost = total + gain(some, j), cost + prices.item_s[j]
            ratios.append(total / cost)
            some, first = with_point(some, j), j if first is None else first
            own.remove(j)
        return max(ratios), -first

    chosen = []
    for _ in range(n):
        moves = [(gain(sets, j) / prices.item_s[j], -j) for j in left if group_s[prices.group[j]] == 0]
        groups = [[j for j in left if prices.group[j] == g] for g in np.flatnonzero(group_s)]
        ratio, j = max(moves + [together(group) for group in groups if group])
        chosen.append((-j, ratio))
        group_s[prices.group[-j]] = 0
        sets = with_point(sets, -j)
        left.remove(-j)
    return chosen


@pytest.mark.parametrize("lookahead", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_the_lazy_choice_equals_plain_greedy(seed, lookahead):
    rng, m = np.random.default_rng(seed), 2 + seed % 2
    draws = rng.uniform(0.2, 1, (20, m)) + 0.15 * rng.normal(size=(6, 20, m))
    draws[:, 7] = draws[:, 3]  # a tie
    measured = rng.uniform(0.4, 1, (6, m))
    prices = Prices(rng.choice([1.0, 2.0], 20), rng.integers(0, 5, 20), np.array([0, 0, 5.0, 10, 20]))
    feasible = rng.random((6, 20)) < 0.7 if seed < 2 else None
    got = choose_batch(
        draws, measured, reference(m), batch=6, prices=prices, information_share=0.0, feasible=feasible,
        lookahead=lookahead,
    )  # fmt: skip
    expected = plain_greedy(draws, measured, prices, 6, lookahead, feasible)
    assert [choice.index for choice in got] == [j for j, _ in expected]
    assert [choice.gain_per_s for choice in got] == pytest.approx([ratio for _, ratio in expected])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), m=st.integers(2, 3), n=st.integers(1, 12), more=st.integers(0, 8))
def test_the_best_gain_never_falls_when_the_pool_grows(seed, m, n, more):
    rng = np.random.default_rng(seed)
    draws, measured = rng.random((5, n + more, m)), rng.uniform(0.3, 1, (4, m))

    def best(k):
        found = choose_batch(
            draws[:, :k], measured, reference(m), batch=1, prices=Prices.equal(k), information_share=0.0
        )
        return found[0].expected_gain

    assert best(n + more) >= best(n)


def test_a_new_group_is_weighed_with_the_points_that_would_share_its_cost():
    # Point 0 is paid for and gains 0.09 for 1 s.  Point 2 gains 0.35 for 4 s; with 1 and 3, 0.62 for 6 s.
    draws = np.array([[[0.9, 0.6], [0.8, 0.05], [0.5, 0.5], [0.05, 0.8]]])
    measured, prices = (
        np.array([[1.0, 1.0]]),
        Prices(np.ones(4), np.array([0, 1, 1, 1]), np.array([0.0, 3.0])),
    )
    alone, shared = (
        choose_batch(
            draws, measured, reference(2), batch=1, prices=prices, information_share=0.0, lookahead=lookahead
        )[0]
        for lookahead in (1, 3)
    )
    assert (alone.index, alone.n_sharing, alone.cost_s) == (0, 1, 1.0)
    joint = volume(np.vstack([measured, draws[0, 1:]])) - volume(measured)
    assert (shared.index, shared.n_sharing, shared.cost_s) == (2, 3, 4.0)
    assert shared.gain_per_s == pytest.approx(joint / 6)
    assert shared.runner_up == (0, pytest.approx(alone.gain_per_s))


def test_what_cannot_be_met_gains_nothing():
    draws = np.tile([[0.2, 0.2], [0.6, 0.6]], (4, 1, 1))
    measured, n = np.array([[0.9, 0.9]]), Prices.equal(2)
    feasible = np.array([[False, True]] * 3 + [[True, True]])
    found = choose_batch(
        draws, measured, reference(2), batch=2, prices=n, information_share=0.0, feasible=feasible
    )
    by_index = {choice.index: choice for choice in found}
    assert by_index[0].probability_of_gain == 0.25
    # 0.81 - 0.04 in one draw of four: less than 0.25 - 0.04 in each.
    first = choose_batch(
        draws, measured, reference(2), batch=1, prices=n, information_share=0.0, feasible=feasible
    )[0]
    assert first.index == 1
    assert first.expected_gain == pytest.approx(0.21)


def test_information_is_what_tells_most_about_the_points_near_the_front():
    rng = np.random.default_rng(5)
    common, s = rng.normal(size=400), 400
    draws = np.empty((s, 8, 2))
    for j in range(5):  # five points near the front that stand or fall together
        draws[:, j] = [0.45, 0.45] + 0.05 * common[:, None] + 0.01 * rng.normal(size=(s, 2))
    draws[:, 5] = [0.45, 0.45] + 0.08 * rng.normal(size=(s, 2))  # one that knows of no other
    for j in (6, 7):  # far away, and all but unknown
        draws[:, j] = [4.0, 4.0] + 0.5 * rng.normal(size=(s, 2))
    found = choose_batch(
        draws, np.array([[0.5, 0.5]]), reference(2), batch=3, prices=Prices.equal(8), information_share=1.0
    )
    assert [choice.why for choice in found] == ["information"] * 3
    assert found[0].index < 5
    assert found[1].index == 5  # what the first point tells of its kind need not be asked again
    assert found[0].gain_per_s > found[1].gain_per_s > 0


def test_a_pool_smaller_than_the_batch_is_shared_as_it_is():
    draws = np.random.default_rng(2).uniform(0.2, 0.4, (16, 2, 2))
    errors = MeasuredErrors(np.full((1, 2), 0.1), np.ones(1))
    found = choose_batch(
        draws, np.array([[0.5, 0.5]]), reference(2), batch=8, prices=Prices.equal(2), errors=errors
    )
    assert [choice.why for choice in found] == ["improvement"] * 2


def test_information_is_sought_near_the_front_that_the_batch_makes():
    rng = np.random.default_rng(6)
    draws = np.empty((64, 5, 2))
    draws[:, 0] = [0.2, 0.2]  # surely better than 1 to 3, whatever these come to
    draws[:, 1:4] = 0.45 + 0.03 * rng.normal(size=(64, 1, 1)) + 0.01 * rng.normal(size=(64, 3, 2))
    draws[:, 4] = [0.1, 0.6] + 0.005 * rng.normal(size=(64, 2))
    measured = np.array([[0.5, 0.5]])
    arguments = {"batch": 2, "prices": Prices.equal(5)}
    alone = choose_batch(draws, measured, reference(2), information_share=1.0, **arguments)
    assert alone[0].index in (1, 2, 3)
    after = choose_batch(draws, measured, reference(2), information_share=0.5, **arguments)
    assert [(choice.index, choice.why) for choice in after] == [(0, "improvement"), (4, "information")]


def test_a_measured_point_is_repeated_only_if_its_place_is_open():
    measured = np.array([[0.2, 0.5], [0.5, 0.2], [0.21, 0.51], [0.9, 0.9]])
    draws = 0.95 + 0.001 * np.random.default_rng(0).normal(size=(16, 3, 2))
    arguments = {"batch": 2, "prices": Prices.equal(3, 10.0), "information_share": 1.0}

    def repeated(standard_error):
        errors = MeasuredErrors(np.full((4, 2), standard_error), np.full(4, 10.0))
        found = choose_batch(draws, measured, reference(2), errors=errors, **arguments)
        return [choice.index for choice in found if choice.why == "repeat"]

    assert repeated(0.02) == [0, 2] or repeated(0.02) == [2, 0]
    assert repeated(1e-4) == []
    assert {c.why for c in choose_batch(draws, measured, reference(2), **arguments)} == {"information"}


def test_pending_points_count_as_drawn():
    rng = np.random.default_rng(3)
    draws, measured = rng.random((8, 6, 3)), rng.uniform(0.5, 1, (3, 3))
    pending = draws[:, [2]]
    arguments = {"batch": 1, "prices": Prices.equal(6), "information_share": 0.0}
    found = choose_batch(draws, measured, reference(3), pending_draws=pending, **arguments)[0]
    gains = [
        np.mean(
            [volume(np.vstack([measured, d[2], d[j]])) - volume(np.vstack([measured, d[2]])) for d in draws]
        )
        for j in range(6)
    ]
    assert found.index == int(np.argmax(gains))
    assert found.expected_gain == pytest.approx(max(gains))
    refused = np.zeros((8, 1), dtype=bool)
    free = choose_batch(
        draws, measured, reference(3), pending_draws=pending, pending_feasible=refused, **arguments
    )[0]
    assert free == choose_batch(draws, measured, reference(3), **arguments)[0]


def test_what_does_not_fit_together_is_named():
    draws, measured = np.ones((2, 3, 2)), np.ones((1, 2))
    with pytest.raises(StudyError, match="prices of 4 points, draws of 3"):
        choose_batch(draws, measured, reference(2), batch=1, prices=Prices.equal(4))
    with pytest.raises(StudyError, match="do not fit a reference with 3 objectives"):
        choose_batch(draws, measured, reference(3), batch=1, prices=Prices.equal(3))
    with pytest.raises(StudyError, match="finite"):
        choose_batch(draws * np.nan, measured, reference(2), batch=1, prices=Prices.equal(3))
    with pytest.raises(StudyError, match="beyond the 1"):
        Prices(np.ones(2), np.array([0, 1]), np.zeros(1))
    with pytest.raises(StudyError, match="costs nothing"):
        Prices(np.array([0.0]), np.zeros(1, dtype=int), np.zeros(1))
