"""Clock settings as NSGA-II varies them: which are worth trying, which are near, which are promising.

Settings of a backbone are numbered by *steps*: those that some choice of exits may want
(:func:`~.exhaustive.worthwhile_settings`), by rising total cost of the backbone, so that a step to the next one
is a small change whatever the clocks are.  *Promising* are those that no other one beats in all costs at once,
were the backbone cut off after one of its segments: samples leave early, so the first segments count most.

Shapes: B backbones, A of them still open, n candidates per backbone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .ensemble import members_of
from .evaluation import Evaluator
from .objectives import BoolArray, IntArray
from .ranking import front_indices
from .tables import FloatArray

_PROMISING = 0.9
"""Share of settings drawn anew that are drawn among the promising ones."""
_STEP, _RESET = 0.2, 0.1
"""Shares of children whose setting moves to a near one, or is drawn anew."""
_MEAN_STEP = 2.0
"""Mean number of steps that a setting moves to a near one."""
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


class SettingChoices:
    """Settings of all backbones, by step."""

    def __init__(self, evaluator: Evaluator, worthwhile: Sequence[IntArray]) -> None:
        """Args:
        worthwhile: per backbone, the settings that can be on its front.
        """
        ordered, promising = [], []
        for b, settings in enumerate(worthwhile):
            cumulative = _cumulative_costs(evaluator, b, settings)
            order = np.argsort(cumulative[-1][:, -1], kind="stable")
            ordered.append(settings[order])
            ends = cumulative.shape[2]
            fronts = [front_indices(cumulative[:, order, end].T) for end in range(ends)]
            promising.append(np.unique(np.concatenate(fronts)))
        self._settings, self._count = _padded(ordered)
        self._promising, self._n_promising = _padded(promising)

    @property
    def most(self) -> int:
        """Largest number of steps of a backbone."""
        return int(self._settings.shape[1])

    def count(self, line: int) -> int:
        """Number of steps of a backbone."""
        return int(self._count[line])

    def settings(self, steps: IntArray) -> IntArray:
        """(B, n) index into the clock table of (B, n) steps."""
        return np.take_along_axis(self._settings, steps, axis=1)

    def drawn(self, lines: IntArray, place: FloatArray, which: FloatArray) -> IntArray:
        """(A, n) random steps, most of them promising.

        Args:
            lines: (A,) the backbones.
            place, which: (A, n) uniform numbers: where in the list, and in which list.
        """
        column = lines[:, None]
        anywhere = (place * self._count[column]).astype(np.int64)
        promising = self._promising[column, (place * self._n_promising[column]).astype(np.int64)]
        return np.where(which < _PROMISING, promising, anywhere)

    def spread(self, line: int, n: int) -> IntArray:
        """(n,) promising steps of a backbone, evenly spread however many they are (golden-ratio sequence)."""
        place = (np.arange(n) * _GOLDEN) % 1.0 * self._n_promising[line]
        return np.asarray(self._promising[line, place.astype(np.int64)])

    def moved(self, lines: IntArray, steps: IntArray, always: BoolArray, draws: FloatArray) -> IntArray:
        """(A, n) steps after mutation.

        Args:
            lines: (A,) the backbones.
            steps: (A, n) before.
            always: (A, n) bool, whether to move in any case.
            draws: (A, n, 3) uniform numbers.
        """
        kind, size, side = (draws[:, :, i] for i in range(3))
        kind = np.where(always, kind * (_STEP + _RESET), kind)
        # Geometric lengths from 1 on.
        length = 1 + np.floor(np.log1p(-size) / np.log(1.0 - 1.0 / _MEAN_STEP)).astype(np.int64)
        near = np.clip(steps + np.where(side < 0.5, -length, length), 0, self._count[lines, None] - 1)
        anew = self.drawn(lines, size, side)
        return np.where(kind < _STEP, near, np.where(kind < _STEP + _RESET, anew, steps))


def _cumulative_costs(evaluator: Evaluator, backbone: int, settings: IntArray) -> FloatArray:
    """(kinds, f, p + 1) costs of everything up to each segment, without heads, in the first member."""
    first = members_of(evaluator.tables)[0]
    columns = [*range(int(first.n_positions[backbone])), first.max_positions]
    return np.stack(
        [
            np.cumsum(first.by_setting(kind).segment[backbone][settings][:, columns], axis=1)
            for kind in evaluator.kinds
        ]
    )


def _padded(lists: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """Lists as rows of an array, and their lengths."""
    count = np.array([len(own) for own in lists], dtype=np.int64)
    rows = np.zeros((len(lists), int(count.max())), dtype=np.int64)
    for row, own in zip(rows, lists, strict=True):
        row[: len(own)] = own
    return rows, count
