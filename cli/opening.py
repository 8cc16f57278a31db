"""The arguments that most commands share, and the way to a study from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..datasets.store import Store
    from ..study import Study

StudyFile = Annotated[Path, typer.Argument(help="The study's YAML file (write one with `hadas init`).")]
Adopt = Annotated[
    bool, typer.Option("--adopt", help="Continue although the file differs from what the study began with.")
]
_STUDY_SUFFIXES = (".yaml", ".yml")
Workers = Annotated[
    str | None,
    typer.Option(help="Measure accuracies on: threads, processes, gpus (a process each), dask."),
]
NWorkers = Annotated[int | None, typer.Option(min=1, help="How many of them.")]
Cluster = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler, whose workers measure accuracies.")
]


def named_places(
    workers: str | None, n_workers: int | None, cluster: str | None, device: str | None = None
) -> dict[str, Any]:
    """Where accuracies are measured this time: what the command line names of it."""
    given = {"workers": workers, "n_workers": n_workers, "cluster": cluster, "device": device}
    return {name: value for name, value in given.items() if value is not None}


def is_edge_study(path: Path) -> bool:
    """Whether a study file is of the system ``edge``.

    Raises:
        ConfigError: no study file at all.
    """
    from ..study.fields import is_edge, read_study_file

    return is_edge(read_study_file(path))


def write_study_file(path: Path, text: str) -> None:
    """Write a study file, and the folders above it.

    Raises:
        ConfigError: no place for a file.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file in it, e.g. {path / 'study.yaml'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}: {error.filename}); name a file in a folder of yours"
        ) from error


def open_study(path: Path, adopt: bool = False, places: Mapping[str, Any] | None = None) -> Study:
    """Open a study to work on it, as the only process that does."""
    from ..study import Study

    study = Study.open(path, adopt=adopt, places=places)
    study.lock()
    return study


def open_store(name: str, *, must_exist: bool = False) -> tuple[Store, str]:
    """A store by its name or by a study that uses it, and what the sessions of that study begin with."""
    from ..datasets.store import Store

    if Path(name).suffix in _STUDY_SUFFIXES:
        from ..study import Study

        study = Study.open(Path(name))
        return study.store, f"{study.config.study}/"
    if must_exist and "://" not in name and not Path(name).is_file():
        raise ConfigError(f"store {name}: no such file; name a store or a study's file")
    return Store(name), ""
