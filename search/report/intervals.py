"""Intervals that several figures draw."""

from __future__ import annotations

import math

Z_90 = 1.645
"""Half the width of a central 90 % interval, in standard errors of a normal value."""


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Central 90 % interval of a share seen in ``n`` trials (Wilson 1927, the score interval)."""
    centre = (share + Z_90**2 / (2 * n)) / (1 + Z_90**2 / n)
    half = Z_90 / (1 + Z_90**2 / n) * math.sqrt(share * (1 - share) / n + Z_90**2 / (4 * n * n))
    return centre - half, centre + half
