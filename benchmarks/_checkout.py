"""Lets a benchmark run from a bare checkout, where the package is not installed."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_LINKS = tempfile.TemporaryDirectory()


def make_importable() -> None:
    """The root folder of a checkout is the package ``hadas``."""
    if importlib.util.find_spec("hadas") is None:
        Path(_LINKS.name, "hadas").symlink_to(ROOT, target_is_directory=True)
        sys.path.insert(0, _LINKS.name)
