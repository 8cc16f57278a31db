"""When measuring on is not worth it any more.

Stop when the expected gain of the best batch has stayed below a small share of the hypervolume that
is measured already, for several rounds: one round alone may have looked at a poor pool.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import StudyError


@dataclass(frozen=True)
class RoundProspect:
    """What a round was expected to bring when it was planned.

    Attributes:
        expected_gain: hypervolume, of the whole batch: the expected gains of its points, each given
            those before it, add up to it.
        hypervolume: of what was measured then.
    """

    expected_gain: float
    hypervolume: float

    @property
    def relative(self) -> float:
        """Expected gain per hypervolume; infinite while nothing is measured that counts."""
        return self.expected_gain / self.hypervolume if self.hypervolume > 0 else math.inf


@dataclass(frozen=True)
class StoppingRule:
    """Stop when the expected relative gain stays below ``min_relative_gain`` for ``rounds`` rounds.

    Attributes:
        min_relative_gain: expected hypervolume gain of a batch per measured hypervolume; 0 = never stop.
        rounds: successive rounds, the latest included, that must all fall short.
    """

    min_relative_gain: float = 0.001
    rounds: int = 2

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_relative_gain < 1.0:
            raise StudyError(
                f"min_relative_gain = {self.min_relative_gain}: must lie in 0 .. 1, 0 = never stop"
            )
        if self.rounds < 1:
            raise StudyError(f"rounds = {self.rounds}: a stop needs at least 1 round that falls short")

    def reason(self, prospects: Sequence[RoundProspect]) -> str | None:
        """Why to stop before the latest of these rounds is measured; ``None`` to go on.

        Args:
            prospects: of all rounds that the search planned, in order, the one just planned last.
        """
        latest = [prospect.relative for prospect in prospects[-self.rounds :]]
        if len(latest) < self.rounds or any(gain >= self.min_relative_gain for gain in latest):
            return None
        shown = ", ".join(f"{100 * gain:.3f} %" for gain in latest)
        return (
            f"the best batch is expected to add {shown} of the measured hypervolume in the last "
            f"{self.rounds} round(s), less than {100 * self.min_relative_gain:g} % each"
        )
