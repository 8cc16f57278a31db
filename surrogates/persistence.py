"""Saving and loading predictors without pickle: loading reads data and runs no code.

A directory holds ``predictors.json`` (everything small, and the SHA-256 of every other
file), one ``<quantity>.safetensors`` per model and one ``<quantity>.<member>.ubj`` per
XGBoost booster.  Numbers round-trip exactly, so predictions are the same bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ..errors import ModelError
from ..spaces import BackboneSpace, ClockTable
from .cost import LatencyBaseline
from .cost_model import CostModel
from .features import FEATURE_VERSION
from .models import Model, ModelState, model_from_state
from .selection import CandidateScore, ModelSummary

if TYPE_CHECKING:
    from .predictor_set import PredictorSet, Provenance

FORMAT = "hadas-predictors"
FORMAT_VERSION = 1
MANIFEST = "predictors.json"

Parts = tuple[BackboneSpace, Model, Model, CostModel, tuple[ModelSummary, ...], "Provenance"]


def _space_document(space: BackboneSpace) -> dict[str, Any]:
    return {"name": space.name, "genes": {v.name: list(v.choices) for v in space.variables}}


def _table_document(table: ClockTable) -> dict[str, Any]:
    return {"name": table.name, "domains": {d.name: list(d.frequencies_hz) for d in table.domains}}


def save_predictors(predictors: PredictorSet, directory: Path) -> None:
    """Write a predictor set; files of an earlier one in the same directory are replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    cost = predictors.cost_model
    models: dict[str, Model] = {
        "final_accuracy": predictors.final_model, "exit_fractions": predictors.exit_model,
        "log_latency": cost.latency,
    }  # fmt: skip
    if cost.power is not None:
        models["log_power"] = cost.power
    files: dict[str, bytes] = {}
    values: dict[str, Any] = {}
    for quantity, model in models.items():
        state = model.state()
        files[f"{quantity}.safetensors"] = save_tensors(
            {name: np.ascontiguousarray(array) for name, array in state.arrays.items()}
        )
        files |= {f"{quantity}.{name}.ubj": data for name, data in state.boosters.items()}
        values[quantity] = {**state.values, "boosters": sorted(state.boosters)}
    provenance = predictors.provenance
    manifest = {
        "format": FORMAT, "version": FORMAT_VERSION, "feature_version": FEATURE_VERSION,
        "space": _space_document(predictors.space), "table": _table_document(predictors.table),
        "provenance": {**asdict(provenance), "skipped": dict(provenance.skipped)},
        "baseline": {
            "coefficients": [float(c) for c in cost.baseline.coefficients], "floor_ms": cost.baseline.floor_ms,
        },
        "models": values,
        "summary": [_finite(asdict(summary)) for summary in predictors.summary],
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }  # fmt: skip
    for name, data in files.items():
        (directory / name).write_bytes(data)
    # The manifest goes last: a directory without a matching one is an unfinished save.
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False))


def _finite(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def load_parts(directory: Path, space: BackboneSpace, table: ClockTable) -> Parts:
    """Read what a :class:`PredictorSet` is made of.

    Raises:
        ModelError: names the file at fault, or what differs from the given space and table.
    """
    from .predictor_set import Provenance

    manifest = _read_manifest(directory / MANIFEST)
    try:
        _check_identity(manifest, space, table, directory)
        models = {
            quantity: _load_model(directory, quantity, values, manifest["sha256"])
            for quantity, values in manifest["models"].items()
        }
        baseline = LatencyBaseline(
            np.array(manifest["baseline"]["coefficients"], dtype=np.float64),
            float(manifest["baseline"]["floor_ms"]),
        )
        origin = manifest["provenance"]
        provenance = Provenance(
            int(origin["n_classes"]), int(origin["seed"]), _row_ids(origin["accuracy_rows"]),
            _row_ids(origin["cost_rows"]), dict(origin["skipped"]),
        )  # fmt: skip
        summary = tuple(_summary(document) for document in manifest["summary"])
        cost = CostModel(table, baseline, models["log_latency"], models.get("log_power"))
        return space, models["final_accuracy"], models["exit_fractions"], cost, summary, provenance
    except ModelError as error:
        raise ModelError(f"{error}. {_remedy(directory)}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{directory / MANIFEST}: damaged or incomplete ({error!r}). {_remedy(directory)}"
        ) from error


def _remedy(directory: Path) -> str:
    return f"Delete the folder {directory}; the next fit writes it anew."


def _read_manifest(path: Path) -> dict[str, Any]:
    remedy = _remedy(path.parent)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot read the predictors ({error.strerror}). {remedy}") from error
    except ValueError as error:
        raise ModelError(f"{path}: not a predictor manifest ({error}). {remedy}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{path}: not a predictor manifest. {remedy}")
    for field, current in (("version", FORMAT_VERSION), ("feature_version", FEATURE_VERSION)):
        if manifest.get(field) != current:
            raise ModelError(f"{path}: {field} {manifest.get(field)}; this release reads {current}. {remedy}")
    return manifest


def _check_identity(
    manifest: Mapping[str, Any], space: BackboneSpace, table: ClockTable, directory: Path
) -> None:
    for what, saved, given in (
        ("space", manifest["space"], _space_document(space)),
        ("clock table", manifest["table"], _table_document(table)),
    ):
        if saved["name"] != given["name"]:
            raise ModelError(f"{directory}: made for {what} '{saved['name']}', not for '{given['name']}'")
        # Compared as text: the order of genes and domains matters, too.
        if json.dumps(saved) != json.dumps(given):
            part = "genes" if what == "space" else "domains"
            names = sorted(saved[part].keys() | given[part].keys())
            differ = [name for name in names if saved[part].get(name) != given[part].get(name)]
            raise ModelError(
                f"{directory}: made for another form of {what} '{given['name']}'; {part} that differ: "
                f"{differ or 'their order'}"
            )


def _load_model(
    directory: Path, quantity: str, values: Mapping[str, Any], digests: Mapping[str, str]
) -> Model:
    name = f"{quantity}.safetensors"
    try:
        arrays = load_tensors(_read(directory, name, digests))
    except SafetensorError as error:
        raise ModelError(f"{directory / name}: not a safetensors file ({error})") from error
    boosters = {
        str(member): _read(directory, f"{quantity}.{member}.ubj", digests) for member in values["boosters"]
    }
    return model_from_state(ModelState(values, arrays, boosters))


def _read(directory: Path, name: str, digests: Mapping[str, str]) -> bytes:
    path = directory / name
    if path.parent != directory:
        raise ModelError(f"{directory / MANIFEST}: file name '{name}' leaves the directory")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the predictors ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != digests.get(name):
        raise ModelError(f"{path}: altered or cut short since it was saved (SHA-256 differs)")
    return data


def _row_ids(rows: Any) -> tuple[tuple[str, int], ...]:
    return tuple((str(session), int(row_no)) for session, row_no in rows)


def _summary(document: Mapping[str, Any]) -> ModelSummary:
    scores = tuple(
        CandidateScore(
            str(score["model"]),
            *(
                float("nan") if score[field] is None else float(score[field])
                for field in ("rmse", "kendall_tau", "coverage_90", "score")
            ),
        )
        for score in document["scores"]
    )
    return ModelSummary(
        str(document["quantity"]), str(document["unit"]), str(document["chosen"]), int(document["n_rows"]),
        int(document["n_groups"]), scores,
    )  # fmt: skip
