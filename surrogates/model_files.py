"""Folders of saved models: reading them reads data and runs no code.

A folder holds a manifest in JSON (everything small, and the SHA-256 of every other file and of itself), one
``<model>.safetensors`` per model and one ``<model>.<member>.ubj`` per XGBoost booster.  Numbers round-trip exactly,
so predictions are the same bit for bit.  Whatever is wrong with a folder raises a :class:`..errors.ModelError` that
names the file and what to do.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ..errors import ModelError
from .models import ModelState
from .ubjson import check_booster

MAX_BYTES = 2**30
"""Of one file; a posterior of 1,500 rows has a fiftieth of it."""

_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, np.linalg.LinAlgError)
"""What reading a forged manifest may raise."""


@dataclass(frozen=True)
class FolderFormat:
    """What a kind of folder is.

    Attributes:
        name: in its manifest.
        manifest: name of that file.
        versions: field of the manifest -> the number that this release reads.
    """

    name: str
    manifest: str
    versions: Mapping[str, int]


def write_folder(
    directory: Path, form: FolderFormat, content: Mapping[str, Any], states: Mapping[str, ModelState]
) -> None:
    """Write models; files of earlier ones in the same directory are replaced.

    Args:
        content: of the manifest; ``content["models"][name]`` gets the state of the model of that name.
        states: by name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}
    models = {name: dict(entry) for name, entry in content["models"].items()}
    for name, state in states.items():
        files[f"{name}.safetensors"] = save_tensors(
            {key: np.ascontiguousarray(array) for key, array in state.arrays.items()}
        )
        files |= {f"{name}.{member}.ubj": data for member, data in state.boosters.items()}
        models[name]["state"] = {**state.values, "boosters": sorted(state.boosters)}
    manifest = {
        "format": form.name, **form.versions, **content, "models": models,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }  # fmt: skip
    manifest["manifest_sha256"] = manifest_digest(manifest)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    # The manifest goes last: a directory without a matching one is an unfinished save.
    (directory / form.manifest).write_text(json.dumps(manifest, indent=1, allow_nan=False))


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without the entry that holds it."""
    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def without_infinities(document: Any) -> Any:
    """The same for JSON, ``None`` for numbers that are not finite."""
    if isinstance(document, dict):
        return {key: without_infinities(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [without_infinities(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


@contextmanager
def damage_named(directory: Path, form: FolderFormat) -> Iterator[None]:
    """Let whatever a damaged folder raises be a :class:`ModelError` that says which, and what to do."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{error}. {_remedy(directory)}") from error
    except _DAMAGE as error:
        raise ModelError(
            f"{directory / form.manifest}: damaged or incomplete ({error!r}). {_remedy(directory)}"
        ) from error


def _remedy(directory: Path) -> str:
    return f"Delete the folder {directory}; the next fit writes it anew."


def read_manifest(directory: Path, form: FolderFormat) -> dict[str, Any]:
    """The manifest of a folder, unaltered since it was saved.

    Raises:
        ModelError: unreadable, of another format or version, or altered.
    """
    path, remedy = directory / form.manifest, _remedy(directory)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot read the predictors ({error.strerror}). {remedy}") from error
    except ValueError as error:
        raise ModelError(f"{path}: not a predictor manifest ({error}). {remedy}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != form.name:
        raise ModelError(f"{path}: not a predictor manifest. {remedy}")
    for field, current in form.versions.items():
        if manifest.get(field) != current:
            raise ModelError(f"{path}: {field} {manifest.get(field)}; this release reads {current}. {remedy}")
    if manifest.get("manifest_sha256") != manifest_digest(manifest):
        raise ModelError(f"{path}: altered since it was saved (SHA-256 differs). {remedy}")
    return manifest


def read_state(directory: Path, name: str, manifest: Mapping[str, Any], form: FolderFormat) -> ModelState:
    """The state of the model of that name; call it under :func:`damage_named`.

    Raises:
        ModelError: a file is damaged, altered, or holds what no model of ours does.
    """
    values, digests = manifest["models"][name]["state"], manifest["sha256"]
    file = f"{name}.safetensors"
    try:
        arrays = load_tensors(_read(directory, file, digests, form))
    except SafetensorError as error:
        raise ModelError(f"{directory / file}: not a safetensors file ({error})") from error
    for key, array in arrays.items():
        # Infinite length scales say what a part of a kernel does not see; nothing else may be infinite.
        allowed = ~np.isnan(array) if key.endswith("length_scale") else np.isfinite(array)
        if array.dtype != np.float64 or not allowed.all():
            raise ModelError(f"{directory / file}: '{key}' holds what is not a finite 64-bit number")
    boosters = {
        str(member): _read(directory, f"{name}.{member}.ubj", digests, form) for member in values["boosters"]
    }
    for member, data in boosters.items():
        try:
            check_booster(data)
        except _DAMAGE as error:
            raise ModelError(
                f"{directory / f'{name}.{member}.ubj'}: not a model of trees ({error})"
            ) from error
    return ModelState(values, arrays, boosters)


def _read(directory: Path, name: str, digests: Mapping[str, str], form: FolderFormat) -> bytes:
    path = directory / name
    if path.parent != directory:
        raise ModelError(f"{directory / form.manifest}: file name '{name}' leaves the directory")
    try:
        if path.is_symlink() or path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path}: a link, or larger than {MAX_BYTES} bytes; hadas writes neither")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the predictors ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != digests.get(name):
        raise ModelError(f"{path}: altered or cut short since it was saved (SHA-256 differs)")
    return data
