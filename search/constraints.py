"""What a design has to keep to: limits on latency and energy, a least accuracy, a largest number of exits.

Constraints are judged on what is expected under the controller, whatever the objective is: a design that is
ranked by the paper's scores still has to meet its latency when it runs.  Whatever meets all constraints comes
before whatever does not; among the latter the smaller violation comes first (Deb et al., 2002, section VI).

Shapes: q candidates, or any other shape that is common to all inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, InfeasibleError

FloatArray = NDArray[np.float64]

_Limit = tuple[str, str, bool]
"""A limit in words, the best found in words, and whether that meets it."""

_UNKNOWN = "unknown"


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
class Attained:
    """What known designs attain, such as measured ones: what a verdict on constraints must not deny.

    Attributes:
        best: for each constraint by itself.
        others_met: for each constraint, among the designs that meet all the others.
    """

    best: Extremes = NOTHING_FOUND
    others_met: Extremes = NOTHING_FOUND


NOTHING_ATTAINED = Attained()


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

    def attained(
        self, accuracy: ArrayLike, energy_mj: ArrayLike, latency_ms: ArrayLike, n_exits: ArrayLike
    ) -> Attained:
        """What q known designs attain, each input (q,)."""
        known = [np.asarray(v, dtype=np.float64) for v in (accuracy, energy_mj, latency_ms, n_exits)]
        limited = {"min_accuracy": 0, "max_energy_mj": 1, "max_latency_ms": 2, "max_exits": 3}
        others_met = [known[i][:0] for i in range(len(known))]
        for name, i in limited.items():
            others = replace(self, **{name: None})
            others_met[i] = known[i][others.violation(*known) == 0.0]
        return Attained(Extremes.of(*known), Extremes.of(*others_met))

    def infeasible(self, best: Extremes, measured: Attained = NOTHING_ATTAINED) -> InfeasibleError:
        """The error to raise when a search finds nothing that meets all constraints.

        Args:
            best: the best that the search found for each constraint by itself.
            measured: what measured designs attain, whether the search came by them or not.
        """
        limits = self._limits(Extremes.merged([best, measured.best]))
        together = self._limits(measured.others_met)
        named = tuple(words for words, _, met in limits if not met) or tuple(words for words, _, _ in limits)
        if all(met for _, _, met in together):
            message = (
                f"the search found no design that is predicted to meet the constraints {self}, though a measured one "
                "meets them; search longer, or relax one of them"
            )
        elif not all(met for _, _, met in limits):
            message = (
                f"no design meets the constraint {self._unmet(limits)}; relax it, or search a larger space"
            )
        else:
            message = (
                "no design meets these constraints together, though each is met by some: "
                f"{_side_by_side(limits, together, ', measured')}; relax one of them, or search longer"
            )
        return InfeasibleError(message, named)

    def missed_by_all(self, measured: Attained) -> str:
        """Which constraints none of some measured designs meets, in words; for designs that all miss some."""
        limits, together = self._limits(measured.best), self._limits(measured.others_met)
        if all(met for _, _, met in limits):
            return "the constraints are not met together, though each is met by some: " + _side_by_side(
                limits, together, ""
            )
        return f"none meets the constraint {self._unmet(limits, 'best measured')}"

    @staticmethod
    def _unmet(limits: list[_Limit], best: str = "best found") -> str:
        return " nor ".join(f"{words} ({best}: {found})" for words, found, met in limits if not met)

    def _limits(self, best: Extremes) -> list[_Limit]:
        """What is said of every limit."""
        found: list[_Limit] = []
        if self.max_latency_ms is not None:
            found.append((f"latency at most {self.max_latency_ms:g} ms", _shown(best.latency_ms, " ms"),
                          best.latency_ms <= self.max_latency_ms))  # fmt: skip
        if self.max_energy_mj is not None:
            found.append((f"energy at most {self.max_energy_mj:g} mJ", _shown(best.energy_mj, " mJ"),
                          best.energy_mj <= self.max_energy_mj))  # fmt: skip
        if self.min_accuracy is not None:
            found.append((f"accuracy at least {self.min_accuracy:g}", _shown(best.accuracy),
                          best.accuracy >= self.min_accuracy))  # fmt: skip
        if self.max_exits is not None:
            found.append((f"at most {self.max_exits} exits", _shown(best.n_exits),
                          best.n_exits <= self.max_exits))  # fmt: skip
        return found


def _shown(value: float, unit: str = "") -> str:
    return _UNKNOWN if math.isnan(value) else f"{value:.4g}{unit}"


def _side_by_side(alone: list[_Limit], together: list[_Limit], whose: str) -> str:
    """Limits with the best found alone, and the best where all others are met, if there is any."""
    parts = []
    for (words, found, _), (_, with_others, _) in zip(alone, together, strict=True):
        known = "" if with_others == _UNKNOWN else f"; with all others met{whose}: {with_others}"
        parts.append(f"{words} (best found alone: {found}{known})")
    return ", ".join(parts)


NO_CONSTRAINTS = Constraints()
