"""All objectives by the names that a study file has for them."""

from __future__ import annotations

from ..errors import ConfigError
from .hadas_objectives import Hadas2D, HadasCode, HadasEq6
from .objectives import Dissimilarity, Expected, Objective, Ratio


def objective_by_name(
    name: str,
    *,
    with_latency: bool = False,
    gamma: float = 1.0,
    ratio: Ratio = "gain",
    dissimilarity: Dissimilarity = "marginal",
) -> Objective:
    """An objective by name.

    Args:
        name: ``expected``, ``hadas-2d``, ``hadas-eq6`` or ``hadas-code``.
        with_latency: of ``expected``.
        gamma, dissimilarity: of ``hadas-2d`` and ``hadas-eq6``.
        ratio: of ``hadas-eq6``.

    Raises:
        ConfigError: no objective of that name, or an impossible gamma, ratio or dissimilarity.
    """
    known: dict[str, Objective] = {
        "expected": Expected(with_latency),
        "hadas-2d": Hadas2D(gamma, dissimilarity),
        "hadas-eq6": HadasEq6(gamma, ratio, dissimilarity),
        "hadas-code": HadasCode(),
    }
    if name not in known:
        raise ConfigError(f"no objective '{name}'; known: {list(known)}")
    return known[name]
