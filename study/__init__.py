"""The loop, and the only mutable object: :class:`Study`."""

from __future__ import annotations

from .loop import BASELINES, Study

__all__ = ["BASELINES", "Study"]
