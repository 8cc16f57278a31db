import itertools
import json

import numpy as np
import pytest

from hadas.errors import ConfigError
from hadas.search.constraints import Constraints
from hadas.search.exit_clocks import ClocksPerExit, exit_clock_costs
from hadas.search.hadas_objectives import Hadas2D
from hadas.search.inner import ArrayNSGA2, Exhaustive
from hadas.search.objectives import Expected, all_masks, evaluate
from hadas.search.ranking import front_indices
from hadas.search.tables import Tables
from hadas.spaces import ClockDomain, ClockTable, SwitchingCost, clock_table, mini_space

FREE = SwitchingCost(0.0, 0.0)


def two_setting_toy() -> Tables:
    """One exit position.  The first stretch is cheap at setting 0, the second at setting 1; half the samples go on."""
    segment = np.array([[[1.0, 3.0], [6.0, 2.0]]])
    head = np.zeros((1, 1, 2))
    correct = np.ones((1, 2, 4), dtype=bool)
    leaves = np.array([[[1, 1, 0, 0], [1, 1, 1, 1]]], dtype=bool)
    return Tables(
        (mini_space().smallest,), np.array([1]), segment, segment, head, head, correct, leaves, 1, np.array([True])
    )  # fmt: skip


def loop_cost(tables, kind, b, mask, at, switching):
    """Sample by sample: stages up to where it leaves, changes on the way, and the change back."""
    segment = getattr(tables, f"segment_{kind}")[b]
    head = getattr(tables, f"head_{kind}")[b]
    change, p, P = getattr(switching, kind), int(tables.n_positions[b]), tables.max_positions
    total = 0.0
    for sample in range(tables.n_samples):
        last = at[0]
        for j in [*range(p), P]:
            total += segment[j, at[j]] + change * (at[j] != last)
            last = at[j]
            if j < P and mask[j]:
                total += head[j, at[j]]
                if tables.leaves[b, j, sample]:
                    break
        total += change * (last != at[0])
    return total / tables.n_samples


def every_sequence(tables, b, mask):
    """(c, P + 1) every choice of a setting per stretch."""
    stretch = np.concatenate([[0], np.cumsum(mask)])
    choices = itertools.product(range(tables.n_settings), repeat=int(stretch[-1]) + 1)
    return np.array([np.array(choice)[stretch] for choice in choices])


@pytest.mark.parametrize("switching", [FREE, SwitchingCost(0.3, 1.0)])
def test_costs_equal_a_loop_over_samples(random_tables, switching):
    tables, rng = random_tables(3, n_settings=3, n_samples=20), np.random.default_rng(0)
    for b, p in enumerate(tables.n_positions):
        for _ in range(8):
            mask = np.zeros(4, dtype=bool)
            mask[:p] = rng.random(p) < 0.6
            sequences = every_sequence(tables, b, mask)
            at = sequences[rng.integers(len(sequences))]
            _, costs = exit_clock_costs(
                tables, ("energy_mj", "latency_ms"), b, mask[None], at[None], switching
            )
            for kind, cost in costs.items():
                assert cost[0] == pytest.approx(loop_cost(tables, kind, b, mask, at, switching))


@pytest.mark.parametrize("change_mj", [0.0, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_front_equals_brute_force(random_tables, seed, change_mj):
    tables = random_tables(seed, n_positions=(4, 2), n_settings=3)
    switching = SwitchingCost(0.1, change_mj)
    fronts = ClocksPerExit(Exhaustive(), switching).run(tables, Expected(), 0)
    for b, front in enumerate(fronts):
        p, points = int(tables.n_positions[b]), []
        for choice in all_masks(p):
            mask = np.zeros(4, dtype=bool)
            mask[:p] = choice
            at = every_sequence(tables, b, mask)
            error, costs = exit_clock_costs(
                tables, ("energy_mj",), b, np.repeat(mask[None], len(at), axis=0), at, switching
            )
            points.append(np.stack([error, costs["energy_mj"]], axis=1))
        truth = np.concatenate(points)
        truth = truth[front_indices(truth)]
        assert np.sort(front.per_exit.objectives, axis=0) == pytest.approx(np.sort(truth, axis=0))


def test_the_cost_of_a_change_decides():
    tables = two_setting_toy()
    # One exit: 1 + 0.5 * 2 = 2 with a change, which half the samples make twice (there and back): +1 change.
    # Setting 0 throughout: 1 + 0.5 * 6 = 4; setting 1 throughout: 3 + 0.5 * 2 = 4.  So a change may cost 2 mJ.
    for change_mj, expected_mj, n_settings in ((0.0, 2.0, 2), (1.9, 3.9, 2), (2.1, 4.0, 1)):
        engine = ClocksPerExit(Exhaustive(), SwitchingCost(0.0, change_mj))
        front = engine.run(tables, Expected(), 0)[0].per_exit
        assert front.objectives[:, 1].min() == pytest.approx(expected_mj)
        best = int(np.argmin(front.objectives[:, 1]))
        assert front.masks[best].tolist() == [True]
        assert len(set(front.settings[best].tolist())) == n_settings


def test_many_positions_are_never_worse_than_one_setting_and_pay_what_they_say(random_tables):
    tables = random_tables(5, n_positions=(11, 9), n_settings=4)
    limits = Constraints(max_latency_ms=18.0, max_exits=3)
    for objective in (Expected(), Expected(with_latency=True)):
        for b, front in enumerate(
            ClocksPerExit(ArrayNSGA2(12, 5), SwitchingCost(0.05, 0.2)).run(tables, objective, 0, limits)
        ):
            own, single = front.per_exit, front.objectives
            for point in single:
                assert (own.objectives <= point + 1e-9).all(axis=1).any()
            assert (own.violation == 0).all()
            assert own.masks.sum(axis=1).max() <= 3
            error, costs = exit_clock_costs(
                tables, ("energy_mj", "latency_ms"), b, own.masks, own.settings, SwitchingCost(0.05, 0.2)
            )
            assert own.objectives[:, :2] == pytest.approx(np.stack([error, costs["energy_mj"]], axis=1))
            assert costs["latency_ms"].max() <= 18.0
            assert (own.settings[:, int(tables.n_positions[b]) : -1] == -1).all()


def test_one_setting_throughout_costs_what_evaluate_says(random_tables):
    tables = random_tables(1)
    masks = np.array([[True, False, True, False]])
    at = np.full((1, 5), 2)
    _, costs = exit_clock_costs(tables, ("energy_mj",), 0, masks, at, SwitchingCost(9.0, 9.0))
    point = evaluate(Expected(), tables, np.array([0]), masks, np.array([2]))[0]
    assert costs["energy_mj"][0] == pytest.approx(point[1])


def test_other_objectives_are_refused(random_tables):
    with pytest.raises(ConfigError, match="need the objective 'expected'"):
        ClocksPerExit(Exhaustive(), FREE).run(random_tables(0), Hadas2D(), 0)


def test_the_cost_of_a_change_is_read_from_a_clock_table_and_survives_narrowing(tmp_path):
    def written(switching):
        path = tmp_path / "clocks.json"
        fields = {"domains": {"gpu": [400_000_000, 800_000_000]}, "switching": switching}
        path.write_text(json.dumps(fields))
        return str(path)

    table = clock_table(written({"latency_ms": 0.3, "energy_mj": 1}))
    assert table.switching == SwitchingCost(0.3, 1.0)
    narrow = ClockTable("narrow", (ClockDomain("gpu", (400_000_000,)),))
    assert table.narrowed(narrow).switching == table.switching
    for bad, message in (
        ({"latency_ms": 0.3}, "'switching' must map"),
        ({"latency_ms": "0.3", "energy_mj": 1}, "switching.latency_ms"),
        ({"latency_ms": -1, "energy_mj": 1}, "'latency_ms' = -1.0 ms: finite and not negative"),
    ):
        with pytest.raises(ConfigError, match=message):
            clock_table(written(bad))
