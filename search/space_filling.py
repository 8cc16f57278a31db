"""What to measure before anything is known: points that lie far from each other.

Shapes: n points in the pool, d columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import StudyError
from ..spaces import IntArray
from .tables import FloatArray


def farthest_first(
    columns: FloatArray, n: int, rng: np.random.Generator, first: Sequence[int] = ()
) -> IntArray:
    """Rows of a pool, each as far as can be from those before it.

    Greedy maximin design (Kennard and Stone, Technometrics 1969; Gonzalez, Theoretical Computer Science
    1985: at least half the best least distance).  Every column is scaled to run from 0 to 1, so that its
    ends are reached early: models that learn from the rows have to extrapolate as little as can be.

    Args:
        columns: (N, d) what is known of the points before they are measured: settings, features, or
            objectives that need no measuring.
        n: rows wanted; all of them if there are fewer.
        rng: draws the first row, if none is given, and decides between rows that are equally far.
        first: rows that are taken in any case.

    Returns:
        Rows in the order taken, ``first`` first.

    Raises:
        StudyError: no rows, or columns that are not finite numbers.
    """
    columns = np.asarray(columns, dtype=np.float64)
    if columns.ndim != 2 or not len(columns) or not np.isfinite(columns).all():
        raise StudyError(f"columns of shape {columns.shape}: must be a table of finite numbers")
    low, spread = columns.min(axis=0), np.ptp(columns, axis=0)
    scaled = (columns - low) / np.where(spread > 0, spread, 1.0)
    taken = list(dict.fromkeys(int(i) for i in first)) or [int(rng.integers(len(scaled)))]
    distance = np.min([((scaled - scaled[i]) ** 2).sum(axis=1) for i in taken], axis=0)
    distance[taken] = -1.0
    while len(taken) < min(n, len(scaled)):
        # Distances on a grid are equal but for rounding.
        farthest = np.flatnonzero(distance >= distance.max() - 1e-12)
        taken.append(int(rng.choice(farthest)))
        distance = np.minimum(distance, ((scaled - scaled[taken[-1]]) ** 2).sum(axis=1))
        distance[taken] = -1.0
    return np.array(taken, dtype=np.int64)
