"""What studies of all systems are: a file, a store, and a journal that one process at a time writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from ..datasets.store import Store
from ..errors import StudyError


class _Config(Protocol):
    """Configuration of a study, of whatever system."""

    @property
    def study(self) -> str: ...
    @property
    def store(self) -> str: ...
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


Differences = Callable[[dict[str, Any], dict[str, Any]], list[str]]
"""Lines ``field: old -> new`` of what differs between two configurations and may not."""


def open_store(
    config: _Config, path: Path, differences: Differences, *, adopt: bool, hint: str = ""
) -> tuple[Store, dict[str, Any] | None]:
    """The store of a study file, and the configuration that the study began with, if it has begun.

    Args:
        path: of the file; a store that is a file lies relative to its folder.
        adopt: whether a configuration that differs will do.
        hint: what another name would mean, in brackets after the advice to give one.

    Raises:
        StudyError: the configuration differs from the one that the study began with; names the fields.
    """
    url = config.store if "://" in config.store else str(path.parent / config.store)
    store = Store(url)
    begun = store.study_config(config.study)
    found = [] if begun is None else differences(begun, config.model_dump(mode="json"))
    if found and not adopt:
        raise StudyError(
            f"study '{config.study}' in {url} began with another configuration: {'; '.join(found)}. Give the changed "
            f"study another name{f' ({hint})' if hint else ''}, or continue with --adopt."
        )
    return store, begun


def lock(directory: Path, study: str) -> FileLock:
    """Make this process the only one that works on a study, for as long as the lock is kept.

    Raises:
        StudyError: another process does.
    """
    held = FileLock(directory / f".{study}.lock")
    try:
        held.acquire(blocking=False)
    except Timeout:
        raise StudyError(
            f"study '{study}': another hadas is at work on it. Wait for it, or stop it."
        ) from None
    return held


def journal(store: Store, config: _Config, key: str, payload: Mapping[str, Any]) -> None:
    """Write down one decision; a study begins with its first, so that a file that failed before can be mended.

    Raises:
        StoreError: the key is taken.
    """
    if store.study_config(config.study) is None:
        store.put_study(config.study, config.model_dump(mode="json"))
    store.journal(config.study, key, dict(payload))
