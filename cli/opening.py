"""The arguments that most commands share, and the way to a study from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..study import Study

StudyFile = Annotated[Path, typer.Argument(help="The study's YAML file (write one with `hadas init`).")]
Adopt = Annotated[
    bool, typer.Option("--adopt", help="Continue although the file differs from what the study began with.")
]


def open_study(path: Path, adopt: bool = False, places: Mapping[str, Any] | None = None) -> Study:
    """Open a study to work on it, as the only process that does."""
    from ..study import Study

    study = Study.open(path, adopt=adopt, places=places)
    study.lock()
    return study
