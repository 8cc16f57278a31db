"""What a design has to keep to: limits on latency and energy, a least accuracy, a largest number of exits.

Constraints are judged on what is expected under the controller, whatever the objective is: a design that is
ranked by the paper's scores still has to meet its latency when it runs.  Whatever meets all constraints comes
before whatever does not; among the latter the smaller violation comes first (Deb et al., 2002, section VI).

Shapes: q candidates, or any other shape that is common to all inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, InfeasibleError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Extremes:
    """The best that was found for each constraint, each taken by itself; NaN where nothing was looked at."""

    accuracy: float = math.nan
    energy_mj: float = math.nan
    latency_ms: float = math.nan
    n_exits: float = math.nan

    @classmethod
    def of(
        cls, accuracy: ArrayLike, energy_mj: ArrayLike, latency_ms: ArrayLike, n_exits: ArrayLike
    ) -> Extremes:
        """Of candidates, in arrays of any shapes."""
        least = [float(np.min(v)) if np.size(v) else math.nan for v in (energy_mj, latency_ms, n_exits)]
        return cls(float(np.max(accuracy)) if np.size(accuracy) else math.nan, *least)

    @classmethod
    def merged(cls, parts: Iterable[Extremes]) -> Extremes:
        """The best of several."""
        known = tuple(parts)
        if not known:
            return cls()
        return cls(
            float(np.fmax.reduce([part.accuracy for part in known])),
            float(np.fmin.reduce([part.energy_mj for part in known])),
            float(np.fmin.reduce([part.latency_ms for part in known])),
            float(np.fmin.reduce([part.n_exits for part in known])),
        )


NOTHING_FOUND = Extremes()


@dataclass(frozen=True)
class Constraints:
    """Limits that every design has to keep to; ``None`` = no such limit.

    Attributes:
        max_latency_ms: largest expected latency per inference.
        max_energy_mj: largest expected energy per inference.
        min_accuracy: least fraction right under the controller, 0 to 1.
        max_exits: largest number of exits in use.
    """

    max_latency_ms: float | None = None
    max_energy_mj: float | None = None
    min_accuracy: float | None = None
    max_exits: int | None = None

    def __post_init__(self) -> None:
        for name, unit in (("max_latency_ms", "ms"), ("max_energy_mj", "mJ")):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"constraint '{name}' = {value!r} {unit}: must be finite and above 0")
        if self.min_accuracy is not None and not 0.0 <= self.min_accuracy <= 1.0:
            hint = f"; write {self.min_accuracy / 100:g}" if 1.0 < self.min_accuracy <= 100.0 else ""
            raise ConfigError(
                f"constraint 'min_accuracy' = {self.min_accuracy!r}: a fraction from 0 to 1{hint}"
            )
        if self.max_exits is not None and self.max_exits < 0:
            raise ConfigError(f"constraint 'max_exits' = {self.max_exits!r}: must not be negative")

    @property
    def any(self) -> bool:
        """Whether there is any limit."""
        return self != NO_CONSTRAINTS

    def check_energy(self, has_energy: bool) -> None:
        """Refuse a limit on what the device does not count.

        Raises:
            ConfigError: an energy limit on a device without an energy counter.
        """
        if self.max_energy_mj is not None and not has_energy:
            raise ConfigError(
                "constraint 'max_energy_mj': the device counts no energy; limit 'max_latency_ms' instead"
            )

    def violation(
        self, accuracy: ArrayLike, energy_mj: ArrayLike, latency_ms: ArrayLike, n_exits: ArrayLike
    ) -> FloatArray:
        """Sum of relative excesses over the limits; 0 where all are kept.

        An excess is relative to its limit, except where the limit is 0 (exits, or an accuracy of 0).

        Args:
            accuracy: expected fraction right under the controller.
            energy_mj, latency_ms: expected per inference; energy may be NaN where it is not limited.
            n_exits: exits in use.

        Returns:
            The common (broadcast) shape of the inputs.
        """
        inputs = [np.asarray(v, dtype=np.float64) for v in (accuracy, energy_mj, latency_ms, n_exits)]
        limits = (self.min_accuracy, self.max_energy_mj, self.max_latency_ms, self.max_exits)
        total = np.zeros(np.broadcast_shapes(*(values.shape for values in inputs)))
        for values, limit, sign in zip(inputs, limits, (-1.0, 1.0, 1.0, 1.0), strict=True):
            if limit is not None:
                total += np.maximum(0.0, sign * (values - limit)) / (limit or 1.0)
        return total

    def __str__(self) -> str:
        """In words, e.g. ``latency at most 20 ms, accuracy at least 0.9``."""
        return ", ".join(words for words, _, _ in self._limits(NOTHING_FOUND)) or "no constraints"

    def infeasible(self, best: Extremes) -> InfeasibleError:
        """The error to raise when nothing meets all constraints.

        Args:
            best: the best that was found for each constraint by itself.
        """
        limits = self._limits(best)
        unmet = [(words, found) for words, found, met in limits if not met]
        if unmet:
            parts = [f"{words} (best found: {found})" for words, found in unmet]
            return InfeasibleError(
                f"no design meets the constraint {' nor '.join(parts)}; relax it, or search a larger space",
                tuple(words for words, _ in unmet),
            )
        parts = [f"{words} (best found alone: {found})" for words, found, _ in limits]
        return InfeasibleError(
            f"no design meets these constraints together, though each is met by some: {', '.join(parts)}; "
            "relax one of them, or search longer",
            tuple(words for words, _, _ in limits),
        )

    def _limits(self, best: Extremes) -> list[tuple[str, str, bool]]:
        """(the limit in words, the best found in words, whether that meets it) of every limit."""
        found: list[tuple[str, str, bool]] = []
        if self.max_latency_ms is not None:
            found.append((f"latency at most {self.max_latency_ms:g} ms", f"{best.latency_ms:.4g} ms",
                          best.latency_ms <= self.max_latency_ms))  # fmt: skip
        if self.max_energy_mj is not None:
            found.append((f"energy at most {self.max_energy_mj:g} mJ", f"{best.energy_mj:.4g} mJ",
                          best.energy_mj <= self.max_energy_mj))  # fmt: skip
        if self.min_accuracy is not None:
            found.append((f"accuracy at least {self.min_accuracy:g}", f"{best.accuracy:.4g}",
                          best.accuracy >= self.min_accuracy))  # fmt: skip
        if self.max_exits is not None:
            found.append((f"at most {self.max_exits} exits", f"{best.n_exits:g}",
                          best.n_exits <= self.max_exits))  # fmt: skip
        return found


NO_CONSTRAINTS = Constraints()
