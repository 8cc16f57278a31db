"""Non-dominated ranks, crowding and fronts on arrays of points to be minimised."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray

from .tables import FloatArray

IntArray = NDArray[np.int64]


def pareto_ranks(points: FloatArray) -> IntArray:
    """(q,) non-domination rank of each of (q, m) points, 0 = best; equal points share a rank."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    if points.shape[1] == 1:
        return np.unique(points[:, 0], return_inverse=True)[1].astype(np.int64)
    return np.asarray(moocore.pareto_rank(np.ascontiguousarray(points)), dtype=np.int64)


def front_indices(points: FloatArray) -> IntArray:
    """Indices, ascending, of the non-dominated points; of equal points only the first."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    if points.shape[1] == 1:
        return np.array([np.argmin(points[:, 0])], dtype=np.int64)
    return np.flatnonzero(moocore.is_nondominated(np.ascontiguousarray(points))).astype(np.int64)


def crowding_distances(points: FloatArray, groups: IntArray) -> FloatArray:
    """(q,) crowding distance within each group; infinite at its extremes (Deb et al., 2002).

    Args:
        points: (q, m).
        groups: (q,) which group a point is of, e.g. its rank.
    """
    distance = np.zeros(len(points))
    if not len(points):
        return distance
    for column in points.T:
        order = np.lexsort((column, groups))
        value, group = column[order], groups[order]
        first = np.append(True, group[1:] != group[:-1])
        last = np.append(first[1:], True)
        starts = np.flatnonzero(first)
        spread = np.repeat(value[last] - value[starts], np.diff(np.append(starts, len(value))))
        between = np.zeros(len(value))
        between[1:-1] = value[2:] - value[:-2]
        inner = np.divide(between, spread, out=np.zeros(len(value)), where=spread > 0)
        distance[order] += np.where(first | last, np.inf, inner)
    return distance


def constrained_ranks(points: FloatArray, violation: FloatArray) -> IntArray:
    """(q,) ranks among the feasible points, and from there on among the infeasible ones.

    Args:
        points: (q, m), minimised.
        violation: (q,) of constraints, 0 = feasible.
    """
    feasible = violation <= 0
    if feasible.all():
        return pareto_ranks(points)
    ranks = np.empty(len(points), dtype=np.int64)
    ranks[feasible] = pareto_ranks(points[feasible])
    ranks[~feasible] = len(points) + pareto_ranks(points[~feasible])
    return ranks


def best_first(points: FloatArray, violation: FloatArray | None = None) -> IntArray:
    """(q,) indices by violation, then rank, then falling crowding distance, then position.

    Args:
        points: (q, m), minimised.
        violation: (q,) of constraints, 0 = feasible; ``None`` = all feasible.  What is infeasible
            dominates nothing that is feasible.
    """
    missed = np.zeros(len(points)) if violation is None else violation
    ranks = constrained_ranks(points, missed)
    return np.lexsort((-crowding_distances(points, ranks), ranks, missed)).astype(np.int64)
