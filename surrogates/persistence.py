"""Saving and loading predictors without pickle: loading reads data and runs no code.

A directory holds ``predictors.json`` (everything small, and the SHA-256 of every other
file), one ``<quantity>.safetensors`` per model and one ``<quantity>.<member>.ubj`` per
XGBoost booster.  Numbers round-trip exactly, so predictions are the same bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ..errors import ModelError
from ..spaces import BackboneSpace, ClockTable
from .cost_model import CostModel
from .features import FEATURE_VERSION
from .fitting import Earlier, FittedQuantity
from .models import ModelState, model_from_state
from .physics import N_POWER_TERMS, N_TERMS, LatencyBaseline, Physics, PowerBaseline
from .selection import CandidateScore, ModelSummary
from .ubjson import check_booster

if TYPE_CHECKING:
    from .prediction import FloatArray
    from .predictor_set import PredictorSet, Provenance

FORMAT = "hadas-predictors"
FORMAT_VERSION = 2
RELEASE = f"{FORMAT_VERSION}.{FEATURE_VERSION}"
"""Sets of another release cannot be read."""

MANIFEST = "predictors.json"
MAX_BYTES = 2**30
"""Of one file; a posterior of 1,500 rows has a fiftieth of it."""

QUANTITIES = ("final_accuracy", "exit_fractions", "log_latency", "log_power")

_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, np.linalg.LinAlgError)
"""What reading a forged manifest may raise."""

Parts = tuple[BackboneSpace, ClockTable, dict[str, FittedQuantity], CostModel | None, "Provenance"]


def _space_document(space: BackboneSpace) -> dict[str, Any]:
    return {"name": space.name, "genes": {v.name: list(v.choices) for v in space.variables}}


def _table_document(table: ClockTable) -> dict[str, Any]:
    return {"name": table.name, "domains": {d.name: list(d.frequencies_hz) for d in table.domains}}


def save_predictors(predictors: PredictorSet, directory: Path) -> None:
    """Write a predictor set; files of an earlier one in the same directory are replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}
    models: dict[str, Any] = {}
    for name, quantity in predictors.quantities.items():
        state = quantity.model.state()
        files[f"{name}.safetensors"] = save_tensors(
            {key: np.ascontiguousarray(array) for key, array in state.arrays.items()}
        )
        files |= {f"{name}.{member}.ubj": data for member, data in state.boosters.items()}
        models[name] = {
            "digest": quantity.digest, "summary": _finite(asdict(quantity.summary)),
            "state": {**state.values, "boosters": sorted(state.boosters)},
        }  # fmt: skip
    provenance = predictors.provenance
    physics = predictors.cost_model.physics if predictors.has_costs else None
    manifest = {
        "format": FORMAT, "version": FORMAT_VERSION, "feature_version": FEATURE_VERSION,
        "space": _space_document(predictors.space), "table": _table_document(predictors.table),
        "provenance": {**asdict(provenance), "skipped": dict(provenance.skipped)},
        "physics": None if physics is None else {
            "latency": _numbers(physics.latency.coefficients, physics.latency.floor_ms),
            "power": None if physics.power is None else _numbers(
                physics.power.coefficients, physics.power.floor_w
            ),
        },
        "models": models,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }  # fmt: skip
    manifest["manifest_sha256"] = _manifest_digest(manifest)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    # The manifest goes last: a directory without a matching one is an unfinished save.
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False))


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without the entry that holds it."""
    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _finite(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def load_parts(directory: Path, space: BackboneSpace, table: ClockTable, target_id: str | None) -> Parts:
    """Read what a :class:`PredictorSet` is made of.

    Raises:
        ModelError: names the file at fault, or what differs from the given space, table and target.
    """
    manifest = _read_manifest(directory / MANIFEST)
    with _damage_named(directory):
        _check_identity(manifest, space, table, directory)
        provenance = _provenance(manifest["provenance"])
        if target_id is not None and provenance.target_id not in ("", target_id):
            raise ModelError(f"{directory}: made for device {provenance.target_id}, not for {target_id}")
        quantities = {name: _load_quantity(directory, name, manifest) for name in _names(manifest)}
        cost = None
        if "log_latency" in quantities:
            power = quantities.get("log_power")
            physics = _physics(manifest["physics"], has_power=power is not None)
            latency = quantities["log_latency"].model
            cost = CostModel(table, physics, latency, None if power is None else power.model)
        return space, table, quantities, cost, provenance


def check_answers(predictors: PredictorSet, directory: Path) -> None:
    """Ask a loaded set once for everything, so that arrays that do not fit each other or the space show now.

    Raises:
        ModelError: it does not answer, or not with finite numbers.
    """
    with _damage_named(directory), np.errstate(all="ignore"):
        genome = predictors.space.sample(1, np.random.default_rng(0))[0]
        backbones, draws = [predictors.space.decode(genome)], predictors.draws(2, 0, include_noise=True)
        answers: list[FloatArray] = []
        if predictors.has_accuracy:
            final = predictors.final_accuracy(backbones)
            answers += [final.mean, final.sd_total, draws.final_accuracy(backbones)]
        if predictors.has_exits:
            exits = predictors.exit_fractions(backbones)
            answers += [exits.mean, exits.sd_total, *draws.exit_fractions(backbones)]
        if predictors.has_costs:
            stages = predictors.workload(backbones[0]).unit_stages()[:2]
            settings = [predictors.table.settings[0]] * len(stages)
            # Nothing is tabulated: sums of products differ in the last bit from one batch to another.
            latency_ms, energy_mj = predictors.cost_model.medians(stages, settings)
            drawn = draws.stage_costs(stages, settings)
            answers += [latency_ms, drawn[0], *((energy_mj, drawn[1]) if predictors.has_energy else ())]
        if not all(np.isfinite(answer).all() for answer in answers):
            raise ModelError(f"{directory}: the models in it predict what is no finite number")


def fitted_below(folder: Path) -> Earlier:
    """Finds models in all sets that were saved in folders of a folder.

    A set that is damaged, or of another release, is passed by: what it held is fitted again.
    """

    def find(quantity: str, digest: str) -> FittedQuantity | None:
        for path in sorted(folder.glob(f"*/{MANIFEST}")):
            try:
                manifest = _read_manifest(path)
                with _damage_named(path.parent):
                    if quantity in manifest["models"] and manifest["models"][quantity]["digest"] == digest:
                        return _load_quantity(path.parent, quantity, manifest)
            except ModelError:
                continue
        return None

    return find


@contextmanager
def _damage_named(directory: Path) -> Iterator[None]:
    """Let whatever a damaged set raises be a :class:`ModelError` that says which, and what to do."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{error}. {_remedy(directory)}") from error
    except _DAMAGE as error:
        raise ModelError(
            f"{directory / MANIFEST}: damaged or incomplete ({error!r}). {_remedy(directory)}"
        ) from error


def _names(manifest: Mapping[str, Any]) -> list[str]:
    names = list(manifest["models"])
    if unknown := sorted(set(names) - set(QUANTITIES)):
        raise ModelError(f"{MANIFEST}: no quantities {unknown}; known: {list(QUANTITIES)}")
    return names


def _numbers(coefficients: FloatArray, floor: float) -> list[float]:
    return [*map(float, coefficients), floor]


def _physics(document: Mapping[str, Any], *, has_power: bool) -> Physics:
    power = None
    if has_power:
        power = PowerBaseline(*_coefficients(document["power"], N_POWER_TERMS))
    return Physics(LatencyBaseline(*_coefficients(document["latency"], N_TERMS)), power)


def _coefficients(numbers: Any, n: int) -> tuple[FloatArray, float]:
    """n coefficients and the floor that follows them."""
    values = np.array(numbers, dtype=np.float64)
    if values.shape != (n + 1,) or not (np.isfinite(values) & (values >= 0)).all() or values[-1] == 0:
        raise ValueError(f"'physics' must give {n} finite coefficients, none negative, and a positive floor")
    return values[:-1], float(values[-1])


def _provenance(origin: Mapping[str, Any]) -> Provenance:
    from .predictor_set import Provenance

    return Provenance(
        int(origin["n_classes"]), int(origin["seed"]), str(origin["target_id"]),
        _row_ids(origin["accuracy_rows"]), _row_ids(origin["cost_rows"]), dict(origin["skipped"]),
    )  # fmt: skip


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
    if manifest.get("manifest_sha256") != _manifest_digest(manifest):
        raise ModelError(f"{path}: altered since it was saved (SHA-256 differs). {remedy}")
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


def _load_quantity(directory: Path, quantity: str, manifest: Mapping[str, Any]) -> FittedQuantity:
    entry, digests = manifest["models"][quantity], manifest["sha256"]
    name = f"{quantity}.safetensors"
    try:
        arrays = load_tensors(_read(directory, name, digests))
    except SafetensorError as error:
        raise ModelError(f"{directory / name}: not a safetensors file ({error})") from error
    for key, array in arrays.items():
        # Infinite length scales say what a part of a kernel does not see; nothing else may be infinite.
        allowed = ~np.isnan(array) if key.endswith("length_scale") else np.isfinite(array)
        if array.dtype != np.float64 or not allowed.all():
            raise ModelError(f"{directory / name}: '{key}' holds what is not a finite 64-bit number")
    values = entry["state"]
    boosters = {
        str(member): _read(directory, f"{quantity}.{member}.ubj", digests) for member in values["boosters"]
    }
    for member, data in boosters.items():
        try:
            check_booster(data)
        except _DAMAGE as error:
            raise ModelError(
                f"{directory / f'{quantity}.{member}.ubj'}: not a model of trees ({error})"
            ) from error
    model = model_from_state(ModelState(values, arrays, boosters))
    return FittedQuantity(model, _summary(entry["summary"]), str(entry["digest"]))


def _read(directory: Path, name: str, digests: Mapping[str, str]) -> bytes:
    path = directory / name
    if path.parent != directory:
        raise ModelError(f"{directory / MANIFEST}: file name '{name}' leaves the directory")
    try:
        if path.is_symlink() or path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path}: a link, or larger than {MAX_BYTES} bytes; hadas writes neither")
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
                for field in ("rmse", "kendall_tau", "coverage_90", "crps", "score")
            ),
        )
        for score in document["scores"]
    )
    return ModelSummary(
        str(document["quantity"]), str(document["unit"]), str(document["chosen"]), int(document["n_rows"]),
        int(document["n_groups"]), scores,
    )  # fmt: skip
