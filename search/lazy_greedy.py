"""Lazy greedy choice of points by expected hypervolume per second, with costs that points share.

Hypervolume improvement is submodular: what a point would add never grows as others are added.  So a
gain computed earlier bounds the present one, and most gains need not be computed again (Minoux 1978;
Leskovec et al., KDD 2007).  The same holds for the first point of a group whose cost is not paid:
the gains of its members, as last known, bound what a few of them gain together.

Shapes: s draws, n points in the pool, m objectives, g groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import StudyError
from ..spaces import IntArray
from .improvement import DrawnSets
from .tables import FloatArray

BoolArray = NDArray[np.bool_]
Reason = Literal[
    "improvement", "information", "repeat", "qlognehvi", "mean", "thompson", "variance", "spread", "random", "feasibility"
]  # fmt: skip

SMALLEST_GAIN = 1e-12
"""Hypervolume that counts as none: rounding."""

LOOKAHEAD = 4
"""Points of a new group that may share its cost in a comparison."""

_AT_MOST = 1 + 1e-9
"""Gains are rounded, so that one computed anew may be a little larger than before: a bound stays one."""

_REFRESHED_AT_ONCE = 8
"""Stale gains that are computed anew together; which of them are is of no consequence for the choice."""


@dataclass(frozen=True)
class Prices:
    """What measuring costs, in seconds or any other unit.

    Attributes:
        item_s: (n,) cost of each point, positive unless its group costs something.
        group: (n,) index of the group that each point belongs to.
        group_s: (g,) cost that a group's first point pays besides; 0 = paid already.
    """

    item_s: FloatArray
    group: IntArray
    group_s: FloatArray

    def __post_init__(self) -> None:
        for name in ("item_s", "group_s"):
            values = getattr(self, name)
            if not np.isfinite(values).all() or (values < 0).any():
                raise StudyError(f"prices '{name}': must be finite, not negative")
        if len(self.item_s) != len(self.group):
            raise StudyError(f"prices of {len(self.item_s)} points, groups of {len(self.group)}")
        if len(self.group) and not 0 <= self.group.min() <= self.group.max() < len(self.group_s):
            raise StudyError(f"prices name groups beyond the {len(self.group_s)} that have a cost")
        if (self.item_s <= 0).any():
            raise StudyError("prices 'item_s': a point that costs nothing has no gain per second")

    @classmethod
    def equal(cls, n: int, item_s: float = 1.0) -> Self:
        """Every point costs the same, and nothing is shared."""
        return cls(np.full(n, item_s), np.zeros(n, dtype=np.int64), np.zeros(1))

    def now(self) -> FloatArray:
        """(n,) what each point would cost if it were measured next."""
        return np.asarray(self.item_s + self.group_s[self.group])

    def after(self, j: int) -> Prices:
        """Prices once point ``j`` is measured."""
        group_s = self.group_s.copy()
        group_s[self.group[j]] = 0.0
        return Prices(self.item_s, self.group, group_s)


@dataclass(frozen=True)
class Choice:
    """One point to measure.

    Attributes:
        index: row of the pool; of the measured points if ``why`` is ``repeat``.
        why: ``improvement`` (gain per second), ``information`` (what it tells about the points near
            the front, per second), ``repeat`` (a measured point whose error blurs the front), or the
            name of another strategy (:mod:`.strategies`).
        expected_gain: expected hypervolume that it adds, given what was chosen before it.
        cost_s: what it costs, the group's cost included if it is the first of its group.
        gain_per_s: what it was chosen by: hypervolume per second, of it and the ``n_sharing`` - 1
            points that would share its group's cost; of ``information`` and ``repeat``, learned share per
            second; of other strategies, which choose by something else, its own expected gain per second.
        n_sharing: points that the group's cost was shared among in the comparison; 1 if none is.
        probability_of_gain: share of draws in which it improves the measured (and pending) front.
        runner_up: the point that would have been chosen instead, and its figure; ``None`` if none.
    """

    index: int
    why: Reason
    expected_gain: float
    cost_s: float
    gain_per_s: float
    n_sharing: int = 1
    probability_of_gain: float = 0.0
    runner_up: tuple[int, float] | None = None


@dataclass(frozen=True)
class _Move:
    """A point to choose next, what speaks for it, and among how many its group's cost is shared."""

    first: int
    ratio: float
    n_sharing: int


@dataclass
class LazyGreedy:
    """Points by gain per second, each given those before it.

    The choice equals that of computing every gain anew at each step; ties go to the earlier point.

    Attributes:
        drawn: (s, n, m) on the scale of the reference.
        sets: what every draw has already; added to.
        prices: frozen but for shared costs that are paid.
        feasible: (s, n), or ``None`` if there are no constraints.
        lookahead: points that may share the cost of a new group.
    """

    drawn: FloatArray
    sets: DrawnSets
    prices: Prices
    feasible: BoolArray | None
    lookahead: int
    gains: FloatArray = field(init=False)
    probability_of_gain: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        per_draw = self._gains_per_draw(self.sets, np.arange(self.drawn.shape[1]))
        self.gains = per_draw.mean(axis=0)
        self.probability_of_gain = (per_draw > SMALLEST_GAIN).mean(axis=0)
        self._fresh = np.ones(len(self.gains), dtype=bool)
        self._taken = np.zeros(len(self.gains), dtype=bool)
        self._members = [np.flatnonzero(self.prices.group == g) for g in range(len(self.prices.group_s))]

    def _gains_per_draw(self, sets: DrawnSets, which: IntArray) -> FloatArray:
        found = sets.gains(self.drawn[:, which])
        return found if self.feasible is None else found * self.feasible[:, which]

    def gain(self, j: int) -> float:
        """Expected hypervolume that point ``j`` adds to what was chosen so far."""
        self._refresh(np.array([j]))
        return float(self.gains[j])

    def relevance(self) -> FloatArray:
        """(n,) share of draws in which each point would still improve the front, given what was chosen.

        Where nothing would, the share in which it would have before anything was chosen.
        """
        free = np.flatnonzero(~self._taken)
        still = np.zeros(len(self.gains))
        still[free] = (self._gains_per_draw(self.sets, free) > SMALLEST_GAIN).mean(axis=0)
        return still if still.any() else self.probability_of_gain

    def free(self) -> BoolArray:
        """(n,) points that were not chosen."""
        return ~self._taken

    def take(self, j: int) -> None:
        """Count point ``j`` as measured: in each draw, as drawn."""
        self.sets.add(self.drawn[:, j], None if self.feasible is None else self.feasible[:, j])
        self.prices = self.prices.after(j)
        self._taken[j] = True
        self._fresh[:] = False
        self.gains[j], self._fresh[j] = 0.0, True

    def choose(self, n: int) -> list[Choice]:
        """Up to ``n`` points; stops when nothing gains any more."""
        chosen: list[Choice] = []
        while len(chosen) < n:
            ranked = self._best_two()
            if not ranked or self.gains[ranked[0].first] <= SMALLEST_GAIN:
                break
            best, j = ranked[0], ranked[0].first
            other = (ranked[1].first, ranked[1].ratio) if len(ranked) > 1 else None
            chosen.append(
                Choice(
                    j, "improvement", float(self.gains[j]), float(self.prices.now()[j]), best.ratio,
                    best.n_sharing, float(self.probability_of_gain[j]), other,
                )
            )  # fmt: skip
            self.take(j)
        return chosen

    def _best_two(self) -> list[_Move]:
        """The best next point, and the best one that it was preferred to."""
        n = len(self.gains)
        bounds = self._bounds()
        exact: dict[int, _Move] = {}
        while True:
            ranked = sorted(exact.values(), key=lambda move: (-move.ratio, move.first))[:2]
            # What is not exact may turn out as good as the second; an equal one may come earlier.
            least = ranked[1].ratio if len(ranked) > 1 else 0.0
            candidates = np.flatnonzero((bounds >= least) & (bounds > 0))
            if not len(candidates):
                return ranked
            some = candidates[np.argsort(-bounds[candidates], kind="stable")[:_REFRESHED_AT_ONCE]]
            if some[0] >= n:
                some = some[:1]
                exact[int(some[0])] = self._bundle(int(some[0]) - n)
            else:
                some = some[some < n]
                self._refresh(some)
                ratios = self.gains[some] / self.prices.item_s[some]
                exact |= {i: _Move(i, r, 1) for i, r in zip(some.tolist(), ratios.tolist(), strict=True)}
            bounds[some] = -np.inf

    def _bounds(self) -> FloatArray:
        """(n + g,) upper bounds of the ratio of points that share no open cost, then of groups."""
        ratio = _AT_MOST * self.gains / self.prices.item_s
        alone = ~self._taken & (self.prices.group_s[self.prices.group] == 0)
        of_groups = [self._group_bound(g) for g in range(len(self.prices.group_s))]
        return np.concatenate([np.where(alone, ratio, -np.inf), np.array(of_groups)])

    def _group_bound(self, g: int) -> float:
        """No few points of the group gain more than their gains, as last known, add up to."""
        members = self._members[g]
        members = members[~self._taken[members]]
        if not len(members) or self.prices.group_s[g] == 0:
            return -np.inf
        sums = np.cumsum(np.sort(self.gains[members])[::-1][: self.lookahead])
        costs = self.prices.group_s[g] + self.prices.item_s[members].min() * np.arange(1, len(sums) + 1)
        return _AT_MOST * float((sums / costs).max())

    def _bundle(self, g: int) -> _Move:
        """The best few points of a group that is not paid: greedily, by their joint gain per joint cost."""
        members = self._members[g]
        members = members[~self._taken[members]]
        self._refresh(members)
        sets, gains, left = self.sets.copy(), self.gains[members], np.ones(len(members), dtype=bool)
        item_s, joint_cost, joint_gain = self.prices.item_s[members], float(self.prices.group_s[g]), 0.0
        first, best, n_sharing = -1, 0.0, 1
        for k in range(1, min(self.lookahead, len(members)) + 1):
            i = int(np.argmax(np.where(left, gains / item_s, -1.0)))
            first = int(members[i]) if k == 1 else first
            joint_gain, joint_cost, left[i] = (
                joint_gain + float(gains[i]),
                joint_cost + float(item_s[i]),
                False,
            )
            if k > 1 and joint_gain / joint_cost <= best:
                break  # gains only shrink, so more points cannot raise the ratio again
            best, n_sharing = joint_gain / joint_cost, k
            if k == self.lookahead or not left.any():
                break
            j = int(members[i])
            sets.add(self.drawn[:, j], None if self.feasible is None else self.feasible[:, j])
            gains = np.zeros(len(members))
            gains[left] = self._gains_per_draw(sets, members[left]).mean(axis=0)
        return _Move(first, best, n_sharing)

    def _refresh(self, which: IntArray) -> None:
        stale = which[~self._fresh[which]]
        if len(stale):
            self.gains[stale] = self._gains_per_draw(self.sets, stale).mean(axis=0)
            self._fresh[stale] = True
