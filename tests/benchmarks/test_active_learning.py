"""The comparison of strategies of active learning: curves, cells that are kept, verdicts, and pools."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from _learning_cells import Cell, CellStore, cells_of, code_digest
from _learning_pools import MEASUREMENTS, PLAIN_GP, RANDOM, Pool, PoolTask
from _learning_summary import Summary, as_json, draw, printed
from _learning_tasks import MODULES, NEVER, OURS, RANDOM_SEEDS, SCALES, Bound, Curve, selected
from _predictor_tasks import DATA
from hypothesis import given
from hypothesis import strategies as st

from hadas.search.objectives import Column
from hadas.search.strategies import STRATEGIES

SHARES = (0.2, 0.5, 0.99, 0.999)


def curve(shares=SHARES, counts=(1, 2, 3, 4), notes=None):
    return Curve(tuple(shares), {MEASUREMENTS: tuple(map(float, counts))}, notes or {})


class TestCurve:
    """What was needed, and what was reached by when."""

    def test_needed_is_what_was_spent_when_the_share_was_first_reached(self) -> None:
        assert curve().needed(0.5, MEASUREMENTS) == 2
        assert curve().needed(0.51, MEASUREMENTS) == 3
        assert curve().needed(1.0, MEASUREMENTS) == NEVER

    def test_shares_at_amounts(self) -> None:
        """Nothing before the first point, the last share for ever after."""
        found = curve(counts=(10, 20, 30, 40)).at(MEASUREMENTS, np.array([9.9, 10.0, 29.0, 1e6]))
        np.testing.assert_array_equal(found, [0.0, 0.2, 0.5, 0.999])

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_json_and_back(self, shares) -> None:
        one = curve(sorted(shares), range(1, len(shares) + 1), {"note": math.inf})
        assert Curve.from_json(json.loads(json.dumps(one.to_json()))) == one


class TestCellStore:
    """A killed benchmark continues, and takes nothing that is not its own."""

    def test_kept_cells_are_found_again(self, tmp_path) -> None:
        store, cell = CellStore(tmp_path / "code"), Cell("task", "200 px", OURS, 3)
        assert store.find(cell) is None
        store.keep(cell, curve(), 1.0)
        assert store.find(cell) == curve()
        for other in (Cell("task", "200 px", OURS, 4), Cell("task", "200_px", OURS, 3)):
            assert store.find(other) is None

    def test_a_torn_file_counts_as_none(self, tmp_path) -> None:
        store, cell = CellStore(tmp_path), Cell("task", "", OURS, 0)
        store.keep(cell, curve(), 1.0)
        (tmp_path / cell.file_name).write_text((tmp_path / cell.file_name).read_text()[:40])
        assert store.find(cell) is None

    def test_other_code_has_another_digest(self, tmp_path) -> None:
        (tmp_path / "search").mkdir()
        (tmp_path / "search" / "a.py").write_text("x = 1\n")
        before = code_digest(tmp_path)
        assert code_digest(tmp_path) == before
        (tmp_path / "search" / "a.py").write_text("x = 2\n")
        assert code_digest(tmp_path) != before


def toy_pool() -> Pool:
    """49 points of which 7 are the front: y falls with x along it, and rises away from it."""
    x, away = (a.reshape(-1).astype(float) for a in np.meshgrid(np.arange(7), np.arange(7)))
    values = np.stack([1.0 + x + 0.5 * away, np.exp(-x / 3) * (1.0 + away)], axis=1)
    columns = (Column("time", log=True), Column("energy", log=True))

    class Knows:
        def moments(self):
            return np.log(values), np.full(values.shape, 0.05)

        def draws(self, rows, n_draws, seed):
            noise = np.random.default_rng(seed).standard_normal((n_draws, len(rows), 2))
            return np.log(values)[rows] + 0.05 * noise

    grid = np.stack([x, away], axis=1)
    return Pool(values, columns, grid, (), grid, (False, False), lambda measured, seed: Knows())


def toy_task(**changes) -> PoolTask:
    settings = {
        "name": "toy", "truth": "made up", "pools": {"": toy_pool}, "n_seeds": 4, "batch": 2,
        "strategies": {OURS: 2, PLAIN_GP: 2, RANDOM: 2, "mean": 1}, "bounds": (Bound(0.999, MEASUREMENTS, 14),),
        "horizon": 30.0, "facts": {},
    }  # fmt: skip
    return PoolTask(**{**settings, **changes})


class TestPools:
    """Strategies on a pool of which all is known."""

    def test_a_model_that_knows_finds_the_front_and_random_order_does_not(self) -> None:
        ours, random = (toy_task().run("", strategy, 0) for strategy in (OURS, RANDOM))
        assert ours.needed(0.999, MEASUREMENTS) <= 14 < random.needed(0.999, MEASUREMENTS)

    @pytest.mark.parametrize(
        "strategy", [OURS, PLAIN_GP, RANDOM, *sorted(set(STRATEGIES) - {"qlognehvi", "hvi", RANDOM})]
    )
    def test_shares_never_fall_and_a_seed_says_all(self, strategy) -> None:
        one, again = (toy_task(horizon=10.0).run("", strategy, 1) for _ in range(2))
        assert one == again
        assert (np.diff(one.share) >= 0).all()
        assert one.spent[MEASUREMENTS] == tuple(range(1, len(one.share) + 1))

    def test_random_order_ends_with_the_whole_hypervolume(self) -> None:
        assert toy_task(bounds=(Bound(1.0, MEASUREMENTS, 9),)).run("", RANDOM, 0).share[-1] == pytest.approx(
            1.0
        )

    def test_who_knows_all_others_was_never_told_of_the_point_itself(self) -> None:
        class Told:
            def __init__(self, rows) -> None:
                self.mean = np.isin(np.arange(49), rows)[:, None] + np.zeros((49, 2))

            def moments(self):
                return self.mean, np.full((49, 2), len(np.flatnonzero(self.mean[:, 0])))

        folded = replace(toy_pool(), fit=lambda measured, seed: Told(measured)).fitted_to_others
        assert (folded.mean == 0.0).all()
        assert folded.sd.min() >= 47  # of 49 points, no fold is larger than two
        drawn = folded.draws(np.arange(49), 400, 1)
        np.testing.assert_allclose(drawn.std(axis=0), folded.sd, rtol=0.2)

    @pytest.mark.skipif(not DATA.exists(), reason="the measurements are not there")
    def test_time_and_energy_are_drawn_apart(self) -> None:
        from _learning_dvfs import pool

        some = pool(400)
        fitted = some.fit(np.random.default_rng(1).permutation(768)[:30], 0)
        drawn = fitted.draws(np.arange(0, 768, 16), 400, 5)
        together = [np.corrcoef(drawn[:, i].T)[0, 1] for i in range(drawn.shape[1])]
        assert abs(np.median(together)) < 0.08

    def test_the_exact_reference_lies_a_tenth_beyond_the_nadir(self) -> None:
        """1.1 x the range from the best values of the front."""
        pool = toy_pool()
        front = np.log(pool.values[:7])
        expected = front.min(axis=0) + 1.1 * np.ptp(front, axis=0)
        np.testing.assert_allclose(pool.exact_reference().point, expected)


FIRST = Bound(0.99, MEASUREMENTS, 10)


def summary(needed, ours_seeds=(0, 1, 2, 3)) -> Summary:
    """One curve per strategy and seed that reaches 0.99 when said."""
    curves = {
        Cell("toy", "", strategy, seed): curve((0.5, 0.99), (1, n)) for strategy, ns in needed.items()
        for seed, n in zip(ours_seeds, ns, strict=True)
    }  # fmt: skip
    return Summary.of(toy_task(bounds=(FIRST,)), curves)


class TestSummary:
    """Medians, pairs and what holds."""

    def test_the_median_decides(self) -> None:
        assert summary({OURS: (9, 10, 10, 30)}).failures(judge_bounds=True) == []
        (line,) = summary({OURS: (9, 10, 11, 12)}).failures(judge_bounds=True)
        assert "10.5 > 10" in line
        assert summary({OURS: (9, 10, 11, 12)}).failures(judge_bounds=False) == []

    def test_pairs_are_compared_by_cell(self) -> None:
        found = summary({OURS: (5, 6, 7, 8), "mean": (7, 8, 9, 11)}).compared("mean", FIRST)
        assert (found.ahead, found.n_cells) == (pytest.approx(2.25), 4)
        assert found.error == pytest.approx(np.std([2, 2, 2, 3], ddof=1) / 2)
        assert not found.ours_is_worse

    def test_a_strategy_that_needs_less_beyond_chance_fails(self) -> None:
        assert summary({OURS: (7, 8, 9, 10), "mean": (5, 6, 7, 9)}).compared("mean", FIRST).ours_is_worse
        assert (
            not summary({OURS: (7, 8, 9, 10), "mean": (1, 14, 3, 20)}).compared("mean", FIRST).ours_is_worse
        )

    def test_every_share_is_judged(self) -> None:
        curves = {
            Cell("toy", "", strategy, seed): curve((0.5, 0.99, 0.998), (1, 5, n + seed))
            for strategy, n in ((OURS, 12), ("mean", 8)) for seed in range(4)
        }  # fmt: skip
        found = Summary.of(toy_task(bounds=(FIRST, Bound(0.998, MEASUREMENTS, 20))), curves)
        assert found.failures(judge_bounds=True) == ["toy: 'mean' needs less than ours to 99.8 %"]

    def test_scales_are_not_judged_against(self) -> None:
        for scale in SCALES:
            assert summary({OURS: (7, 8, 9, 10), scale: (5, 6, 7, 8)}).failures(judge_bounds=True) == []

    def test_a_check_is_said_and_not_judged(self) -> None:
        found = summary({OURS: (12, 13, 14, 15), "mean": (5, 6, 7, 8)})
        check = Summary(toy_task(bounds=(replace(FIRST, judged=False),)), found.curves)
        assert found.missed_checks() == []
        assert len(found.failures(judge_bounds=True)) == 2
        assert check.failures(judge_bounds=True) == []
        assert check.missed_checks() == [
            "toy: measurements to 99 %: 13.5 > 10 (of 4)",
            "toy: 'mean' needs less than ours to 99 %",
        ]
        assert "checks, not judged" in printed(check)[-1]

    def test_a_check_says_whether_our_seeds_are_better_than_random_ones(self) -> None:
        def said(gains) -> list[str]:
            curves = {
                Cell("toy", "", strategy, seed): curve((0.5, 0.99 - gain * (strategy != OURS)), (1, 5))
                for strategy in (OURS, RANDOM_SEEDS) for seed, gain in enumerate(gains)
            }  # fmt: skip
            found = Summary.of(toy_task(bounds=(replace(FIRST, judged=False),)), curves)
            assert found.at_the_end(RANDOM_SEEDS).mean == pytest.approx(np.mean(gains))
            assert found.at_the_end(RANDOM_SEEDS).n_cells == len(gains)
            return found.missed_checks()

        assert said((0.010, 0.012, 0.011)) == []
        # No less, within chance, by no seed more, and of one seed, which says nothing.
        assert "-0.33 ± 0.88 points of share (3 cells)" in said((-0.02, 0.01, 0.0))[0]
        assert len(said((0.0, 0.0, 0.0))) == len(said((0.01,))) == 1

    def test_what_was_never_reached_counts_as_the_horizon(self) -> None:
        curves = {
            Cell("toy", "", OURS, 0): curve((0.5, 0.99), (1, 20)),
            Cell("toy", "", "mean", 0): curve((0.5, 0.6), (1, 30)),
        }
        found = Summary.of(toy_task(bounds=(FIRST,)), curves).compared("mean", FIRST)
        assert found.ahead == 10.0

    def test_json_knows_no_infinity(self) -> None:
        document = as_json(summary({OURS: (5, 6, 7, 8), "mean": (7, 8, 9, math.inf)}))
        text = json.dumps(document, allow_nan=False)
        assert json.loads(text)["strategies"]["mean"]["reached"] == {"99 %": 3}

    def test_table_and_plot(self, tmp_path) -> None:
        found = summary({OURS: (5, 6, 7, 8), "mean": (7, 8, 9, 11)})
        lines = printed(found)
        mean_share = summary({"mean": (7, 8, 9, 11)}).mean_curve("mean").mean()
        assert f"| mean | 8.5 | {mean_share:.4f} | +2.2 ± 0.2 | 4 |" in lines
        (row,) = (line for line in printed(summary({OURS: (5, 6, math.inf, math.inf)})) if OURS in line[:7])
        assert "| not reached (2 of 4 got there) |" in row
        draw([found], tmp_path / "curves.png")
        assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_cells_come_seed_by_seed_and_slow_strategies_on_fewer() -> None:
    cells = cells_of([toy_task()], 10, None, ())
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert {s: sum(c.strategy == s for c in cells) for s in toy_task().strategies} == dict(
        toy_task().strategies
    )


class TestSelection:
    """What --task selects."""

    @pytest.mark.parametrize("part", ["clocks", "macro", "TX2 Inc", "bench-macro", "another supernet"])
    def test_keys_and_parts_of_names_each_select_one_task(self, part) -> None:
        assert len(selected(part)) == 1

    @pytest.mark.parametrize("part", ["simulated", "whole"])
    def test_the_whole_problem_comes_with_its_check(self, part) -> None:
        assert [all(b.judged for b in task.bounds) for task in selected(part)] == [True, False]

    def test_all_and_none(self) -> None:
        names = [task.name for task in selected("")]
        assert len(set(names)) == len(names) == len(MODULES) + 1  # one of them is the check
        with pytest.raises(SystemExit, match="clocks"):
            selected("no such task")


@pytest.mark.skipif(not DATA.exists(), reason="needs the measurements beside the checkout")
class TestRealPools:
    """What the pools of the two tasks are made of."""

    def test_settings(self) -> None:
        from _learning_dvfs import pool

        found = pool(400)
        assert found.values.shape == (768, 2)
        assert len(np.unique(found.seed_columns, axis=0)) == 768
        some = np.random.default_rng(0).permutation(768)[:14]
        fitted = found.fit(some, 0)
        mean, sd = fitted.moments()
        draws = fitted.draws(np.arange(40), 200, 0)
        assert np.abs(draws.mean(axis=0) - mean[:40]).max() < 0.5 * sd[:40].max()
        assert np.abs(np.median(mean - np.log(found.values), axis=0)).max() < 0.2

    def test_networks(self) -> None:
        from _learning_macro import pool

        found = pool()
        assert found.values.shape == (6561, 2)
        assert found.values[found.seed_first[0], 1] == found.values[:, 1].min()
        fitted = found.fit(np.random.default_rng(0).permutation(6561)[:12], 0)
        rows = np.arange(0, 6561, 500)
        np.testing.assert_allclose(
            np.exp(fitted.draws(rows, 4, 0)[:, :, 1]), found.values[None, rows, 1].repeat(4, 0)
        )
        errors = fitted.draws(rows, 4, 0)[:, :, 0]
        assert ((errors > 0) & (errors < 1)).all()
