"""The loop, and the only mutable object: :class:`Study`."""

from __future__ import annotations

from .baselines import BASELINES
from .loop import Study

__all__ = ["BASELINES", "Study"]
