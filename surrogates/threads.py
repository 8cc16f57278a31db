"""One thread while predictors work.

On small boxes a second thread inside XGBoost or BLAS costs more than it brings, and sums
split over threads round differently; predictors therefore run with one thread and leave
parallelism to whoever runs several of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller(n_modules_with_threads: int) -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def single_thread() -> Iterator[None]:
    """Limit BLAS, OpenMP and torch to one thread inside the block, then restore what was set."""
    torch = sys.modules.get("torch")
    loaded = sum(name in sys.modules for name in ("torch", "sklearn", "xgboost", "scipy.linalg"))
    before = torch.get_num_threads() if torch is not None else None
    with _controller(loaded).limit(limits=1):
        try:
            # Also where torch says that it uses one already: its linear algebra keeps a count of its
            # own, which may still be that of an earlier limit.
            if torch is not None:
                torch.set_num_threads(1)
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)
