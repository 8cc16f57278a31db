import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.errors import StudyError
from hadas.search.metrics import (
    HypervolumeReference,
    greedy_subset,
    hypervolume_standard_error,
    ratio_of_dominance,
)
from hadas.search.objectives import Column

LINEAR = (Column("a", False), Column("b", False))
ERROR_ENERGY = (Column("error", False), Column("energy_mj", True))

small_sets = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=7).map(
    lambda points: np.array(points, dtype=float)
)


def dominates(p, q):
    return all(x <= y for x, y in zip(p, q, strict=True)) and any(x < y for x, y in zip(p, q, strict=True))


def front_of(points):
    return [p for i, p in enumerate(points) if not any(dominates(q, p) for q in points)
            and not any((points[j] == p).all() for j in range(i))]  # fmt: skip


@given(small_sets)
@settings(max_examples=200, deadline=None)
def test_hypervolume_equals_counting_cells(points):
    reference = HypervolumeReference(("a", "b"), (False, False), (7.0, 7.0))
    cells = sum(any(x <= i and y <= j for x, y in points) for i, j in itertools.product(range(7), range(7)))
    assert reference.hypervolume(points) == pytest.approx(cells)


@given(small_sets, small_sets)
@settings(max_examples=200, deadline=None)
def test_ratio_of_dominance_equals_brute_force(a, b):
    front_a, front_b = front_of(a), front_of(b)
    share = np.mean([any(dominates(p, q) for q in front_b) for p in front_a])
    assert ratio_of_dominance(a, b) == pytest.approx(share)


def test_reference_lies_1_1_ranges_beyond_the_nadir_of_the_front_on_the_log_scale():
    # (0.5, 100) is dominated and must not move the nadir.
    points = np.array([[0.1, 40.0], [0.3, 10.0], [0.5, 100.0]])
    reference = HypervolumeReference.from_front(points, ERROR_ENERGY)
    assert reference.point[0] == pytest.approx(0.3 + 1.1 * 0.2)
    assert np.exp(reference.point[1]) == pytest.approx(40.0 * 4.0**1.1)
    # Scaling all energies moves the reference along and leaves the hypervolume as it was.
    scaled = points * [1.0, 3.0]
    moved = HypervolumeReference.from_front(scaled, ERROR_ENERGY)
    assert moved.hypervolume(scaled) == pytest.approx(reference.hypervolume(points))


def test_a_reference_moves_out_for_a_wider_front_and_never_in():
    narrow = HypervolumeReference.from_front(np.array([[0.1, 40.0], [0.12, 30.0]]), ERROR_ENERGY)
    cheap = np.array([[0.3, 10.0]])
    assert narrow.hypervolume(cheap) == 0.0
    points = np.concatenate([cheap, [[0.1, 40.0], [0.9, 90.0]]])  # the last is dominated and covers nothing
    wide = narrow.covering(points)
    # A tenth of the range beyond the nadir: in error; in energy the narrow one, further out already, stays.
    assert wide.point[0] == pytest.approx(0.3 + 0.1 * 0.2)
    assert wide.point[1] == narrow.point[1]
    assert wide.hypervolume(cheap) > 0.0
    assert wide.covering(np.array([[0.1, 40.0], [0.12, 30.0]])) == wide
    assert narrow.covering(np.zeros((0, 2))) == narrow


def test_dominated_candidates_never_move_a_reference():
    """Also where the front is a single point, whose range all points stand in for when a reference is frozen."""
    narrow = HypervolumeReference.from_front(np.array([[0.1, 40.0], [0.12, 30.0]]), ERROR_ENERGY)
    best, absurd = np.array([[0.09, 25.0]]), np.array([[0.95, 4000.0]])
    assert narrow.covering(np.concatenate([best, absurd])) == narrow.covering(best)


def test_reference_of_one_point_leaves_it_a_volume():
    points = np.array([[0.2, 5.0]])
    assert HypervolumeReference.from_front(points, ERROR_ENERGY).hypervolume(points) > 0


def test_reference_survives_json_and_refuses_what_it_cannot_use():
    reference = HypervolumeReference.from_front(np.array([[0.1, 4.0], [0.3, 1.0]]), ERROR_ENERGY)
    assert HypervolumeReference.from_json(json.loads(json.dumps(reference.to_json()))) == reference
    with pytest.raises(StudyError, match="lacks the field 'log'"):
        HypervolumeReference.from_json({"columns": ["a"], "point": [1.0]})
    with pytest.raises(StudyError, match="at least one measured point"):
        HypervolumeReference.from_front(np.zeros((0, 2)), ERROR_ENERGY)
    with pytest.raises(StudyError, match="must be positive"):
        reference.hypervolume(np.array([[0.1, 0.0]]))


def test_points_beyond_the_reference_count_nothing():
    reference = HypervolumeReference(("a", "b"), (False, False), (1.0, 1.0))
    assert reference.hypervolume(np.array([[0.5, 2.0], [1.0, 0.0]])) == 0.0


def test_hypervolume_error_matches_the_delta_method_for_one_point():
    reference = HypervolumeReference(("error", "energy_mj"), (False, True), (1.0, np.log(10.0)))
    point, errors = np.array([[0.5, 2.0]]), np.array([[0.01, 0.05]])
    # HV = (1 - e) * (log 10 - log E): dHV = log(5) * 0.01 and 0.5 * 0.05 / 2.
    expected = np.hypot(np.log(5.0) * 0.01, 0.5 * 0.025)
    got = hypervolume_standard_error(point, errors, reference, n_bootstrap=4000)
    assert got == pytest.approx(expected, rel=0.06)


@given(small_sets, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_greedy_subset_takes_the_best_next_point_and_stops_when_nothing_gains(points, n):
    reference = HypervolumeReference(("a", "b"), (False, False), (7.0, 7.0))
    chosen = greedy_subset(points, n, reference)
    volumes = [reference.hypervolume(points[chosen[: i + 1]]) for i in range(len(chosen))]
    for i, volume in enumerate(volumes):
        best = max(reference.hypervolume(points[[*chosen[:i], j]]) for j in range(len(points)))
        assert volume == pytest.approx(best)
    if len(chosen) < min(n, len(points)):
        assert reference.hypervolume(points) == pytest.approx(volumes[-1] if volumes else 0.0)


def test_a_front_of_one_point_still_has_a_reference_with_room():
    """The range of all points stands in, so that a better point than the only one counts."""
    columns = (Column("error", False), Column("energy_mj", True))
    points = np.array([[0.2, 4.0], [0.3, 8.0]])
    reference = HypervolumeReference.from_front(points, columns)
    assert reference.point == pytest.approx((0.3 + 1.1 * 0.1, np.log(8.0) + 1.1 * np.log(2.0)))
    assert reference.hypervolume(points) > 0.0
