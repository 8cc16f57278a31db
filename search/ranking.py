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
    return np.asarray(moocore.pareto_rank(np.ascontiguousarray(points)), dtype=np.int64)


def front_indices(points: FloatArray) -> IntArray:
    """Indices, ascending, of the non-dominated points; of equal points only the first."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(moocore.is_nondominated(np.ascontiguousarray(points))).astype(np.int64)


def crowding_distances(points: FloatArray, ranks: IntArray) -> FloatArray:
    """(q,) crowding distance within each rank; infinite at its extremes (Deb et al., 2002)."""
    distance = np.zeros(len(points))
    for rank in np.unique(ranks):
        rows = np.flatnonzero(ranks == rank)
        for column in points[rows].T:
            order = np.argsort(column, kind="stable")
            spread = column[order[-1]] - column[order[0]]
            distance[rows[order[[0, -1]]]] = np.inf
            if spread > 0 and len(rows) > 2:
                distance[rows[order[1:-1]]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance


def best_first(points: FloatArray, violation: FloatArray | None = None) -> IntArray:
    """(q,) indices by violation, then rank, then falling crowding distance, then position.

    Args:
        points: (q, m), minimised.
        violation: (q,) of constraints, 0 = feasible; ``None`` = all feasible.  Ranks are taken among the
            points of the same violation, so what is infeasible dominates nothing.
    """
    missed = np.zeros(len(points)) if violation is None else violation
    order: list[IntArray] = []
    for value in np.unique(missed):
        rows = np.flatnonzero(missed == value)
        ranks = pareto_ranks(points[rows])
        order.append(rows[np.lexsort((-crowding_distances(points[rows], ranks), ranks))])
    return np.concatenate(order).astype(np.int64) if order else np.zeros(0, dtype=np.int64)
