"""What benchmarks say of their figures in one way: errors of means, numbers that JSON has, the machine."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence

import numpy as np


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over repetitions and its standard error; ``None`` for one repetition, which has no error."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), error


def with_error(mean: float, error: float | None, digits: int = 3) -> str:
    """For people, such as ``0.911 ± 0.03``."""
    return f"{mean:.{digits}g}" + ("" if error is None else f" ± {error:.2g}")


def plain(value: float, digits: int = 5) -> float | None:
    """Rounded; ``None`` for what JSON has no number for."""
    return round(float(value), digits) if np.isfinite(value) else None


def machine() -> str:
    """What times are of."""
    return f"{platform.machine()}, {os.cpu_count()} cores"


def at_least_one(text: str) -> int:
    """A count on the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': give a whole number of at least 1")
    return int(text)
