"""How sure it is that a member of a front belongs there.

A front of predicted points is the front of one opinion.  Joint draws are many: in each of them some members are
dominated by others, or by points that were left out.  The share of draws in which a member is not dominated is
the probability that it truly belongs, as far as the predictors know how unsure they are.  Where a member misses a
constraint it does not belong, whatever else there is.

Shapes: s draws, n points, p others, m objectives.
"""

from __future__ import annotations

import numpy as np

from ..errors import StudyError
from .ranking import pareto_ranks
from .tables import FloatArray


def probability_non_dominated(draws: FloatArray, others: FloatArray | None = None) -> FloatArray:
    """Probability that each point counts and is dominated by none of the rest.

    Args:
        draws: (s, n, m) objectives, minimised, of the points under joint draws of the predictors; from
            :meth:`.world.DesignDraws.objectives`.  Infinite where a point does not count because it misses a
            constraint: there it neither belongs nor dominates.
        others: (s, p, m) of points that compete with them, under the same draws.

    Returns:
        (n,) shares of the draws.

    Raises:
        StudyError: no draws, or other numbers of draws or objectives in ``others``.
    """
    if draws.ndim != 3 or not len(draws):
        raise StudyError(f"draws {draws.shape}: expected (draws, points, objectives) with at least one draw")
    pool = draws
    if others is not None:
        if others.ndim != 3 or len(others) != len(draws) or others.shape[2] != draws.shape[2]:
            raise StudyError(
                f"draws of others {others.shape}: expected ({len(draws)}, points, {draws.shape[2]}), under the same "
                "draws and objectives"
            )
        pool = np.concatenate([draws, others], axis=1)
    n = draws.shape[1]
    belongs = np.stack([pareto_ranks(points)[:n] == 0 for points in pool])
    belongs &= np.isfinite(draws).all(axis=2)
    return np.asarray(belongs.mean(axis=0), dtype=np.float64)
