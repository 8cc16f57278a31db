"""Points that lie far from each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas.errors import StudyError
from hadas.search.space_filling import farthest_first


def rng(seed=0):
    return np.random.default_rng(seed)


def test_ends_of_a_line_come_first() -> None:
    """Then its middle."""
    line = np.arange(11.0)[:, None]
    assert farthest_first(line, 3, rng(), first=[0]).tolist() == [0, 10, 5]


def test_columns_count_alike_whatever_their_units() -> None:
    x = rng(1).uniform(size=(40, 2))
    one, other = (farthest_first(x * scale, 8, rng()) for scale in (np.ones(2), np.array([1e9, 1e-6])))
    np.testing.assert_array_equal(one, other)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 5))
def test_rows_are_distinct_and_as_far_as_a_scan_says(n_rows, n, seed) -> None:
    """Each row is as far from those before it as any row is; all rows if more are wanted."""
    x = rng(seed).uniform(size=(n_rows, 2))
    taken = farthest_first(x, n, rng(seed))
    assert len(set(taken.tolist())) == len(taken) == min(n, n_rows)
    spread = np.ptp(x, axis=0)
    scaled = x / np.where(spread > 0, spread, 1.0)
    for k in range(1, len(taken)):
        distance = np.linalg.norm(scaled[:, None] - scaled[taken[:k]][None], axis=2).min(axis=1)
        assert distance[taken[k]] >= distance.max() - 1e-6


def test_half_the_best_least_distance_at_least() -> None:
    """The guarantee of the greedy: against all triples of a small pool."""
    from itertools import combinations

    x = rng(3).uniform(size=(9, 2))
    scaled = (x - x.min(axis=0)) / np.ptp(x, axis=0)

    def least(rows):
        return min(float(np.linalg.norm(scaled[a] - scaled[b])) for a, b in combinations(rows, 2))

    best = max(least(rows) for rows in combinations(range(9), 3))
    assert least(farthest_first(x, 3, rng()).tolist()) >= 0.5 * best


@pytest.mark.parametrize("columns", [np.zeros((0, 2)), np.array([[np.nan]]), np.zeros(3)])
def test_what_is_no_table_is_refused(columns) -> None:
    with pytest.raises(StudyError, match="finite"):
        farthest_first(columns, 2, rng())
