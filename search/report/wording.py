"""How a report writes numbers."""

from __future__ import annotations

import math

_QUANTITIES = {
    "accuracy": ("accuracy", "%", 100.0), "energy_mj": ("energy", "mJ", 1.0), "latency_ms": ("latency", "ms", 1.0),
    "et_average": ("ET_avg", "J x cycles", 1.0), "head_share": ("head share", "%", 100.0),
}  # fmt: skip


def quantity_label(quantity: str, unit: str = "") -> tuple[str, str, float]:
    """(name for people, unit shown, factor from stored to shown values) of a quantity."""
    return _QUANTITIES.get(quantity, (quantity.replace("_", " "), unit, 1.0))


def significant(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits, never in exponent form; a dash for ``None`` or NaN."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    # The exponent after rounding: 9.996 to three digits is 10.0, not 10.00.
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])
    decimals = max(digits - 1 - exponent, 0)
    return f"{value:.{decimals}f}"


def with_error(value: float | None, standard_error: float | None, digits: int = 3) -> str:
    """A number with its standard error, ``12.3 ± 0.15``, or alone where that is not known."""
    if standard_error is None or math.isnan(standard_error):
        return significant(value, digits)
    return f"{significant(value, digits)} ± {significant(standard_error, 2)}"


def percent(share: float | None, standard_error: float | None = None, decimals: int = 1) -> str:
    """A share as ``87.3 %``, or ``87.3 ± 0.6 %`` with its standard error."""
    if share is None or math.isnan(share):
        return "–"
    if standard_error is None or math.isnan(standard_error):
        return f"{100 * share:.{decimals}f} %"
    return f"{100 * share:.{decimals}f} ± {100 * standard_error:.{decimals}f} %"


def duration(seconds: float) -> str:
    """A time in the unit that keeps it short: ``45 s``, ``12.3 min``, ``2.1 h``."""
    if seconds < 1:
        return f"{significant(seconds, 2)} s"
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
