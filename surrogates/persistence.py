"""Saving and loading the predictors of a study: a folder of models (see ``model_files``) and what they are for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError
from ..spaces import BackboneSpace, ClockTable
from .cost_model import CostModel
from .features import FEATURE_VERSION
from .fitting import Earlier, FittedQuantity
from .model_files import (
    FolderFormat,
    damage_named,
    read_manifest,
    read_state,
    without_infinities,
    write_folder,
)
from .models import model_from_state
from .physics import (
    N_POWER_TERMS,
    N_TERMS,
    BaselineDoubt,
    LatencyBaseline,
    Physics,
    PowerBaseline,
    as_roofline,
)
from .selection import CandidateScore, ModelSummary
from .trend_doubt import CoefficientDoubt

if TYPE_CHECKING:
    from .prediction import FloatArray
    from .predictor_set import PredictorSet, Provenance

FORMAT_VERSION = 5
RELEASE = f"{FORMAT_VERSION}.{FEATURE_VERSION}"
"""Sets of another release cannot be read."""

FORM = FolderFormat(
    "hadas-predictors", "predictors.json", {"version": FORMAT_VERSION, "feature_version": FEATURE_VERSION}
)

QUANTITIES = ("final_accuracy", "exit_fractions", "log_latency", "log_power")

Parts = tuple[BackboneSpace, ClockTable, dict[str, FittedQuantity], CostModel | None, "Provenance"]


def _space_document(space: BackboneSpace) -> dict[str, Any]:
    return {"name": space.name, "genes": {v.name: list(v.choices) for v in space.variables}}


def _table_document(table: ClockTable) -> dict[str, Any]:
    return {"name": table.name, "domains": {d.name: list(d.frequencies_hz) for d in table.domains}}


def save_predictors(predictors: PredictorSet, directory: Path) -> None:
    """Write a predictor set; files of an earlier one in the same directory are replaced."""
    provenance = predictors.provenance
    physics = predictors.cost_model.physics if predictors.has_costs else None
    content = {
        "space": _space_document(predictors.space), "table": _table_document(predictors.table),
        "provenance": {**asdict(provenance), "skipped": dict(provenance.skipped)},
        "physics": None if physics is None else {
            "latency": _numbers(physics.latency.coefficients, physics.latency.floor_ms),
            "power": None if physics.power is None else _numbers(
                physics.power.coefficients, physics.power.floor_w
            ),
            "latency_doubt": _doubt_document(physics.latency_doubt),
            "power_doubt": None if physics.power_doubt is None else _doubt_document(physics.power_doubt),
        },
        "models": {
            name: {"digest": quantity.digest, "summary": without_infinities(asdict(quantity.summary))}
            for name, quantity in predictors.quantities.items()
        },
    }  # fmt: skip
    states = {name: quantity.model.state() for name, quantity in predictors.quantities.items()}
    write_folder(directory, FORM, content, states)


def load_parts(directory: Path, space: BackboneSpace, table: ClockTable, target_id: str | None) -> Parts:
    """Read what a :class:`PredictorSet` is made of.

    Raises:
        ModelError: names the file at fault, or what differs from the given space, table and target.
    """
    manifest = read_manifest(directory, FORM)
    with damage_named(directory, FORM):
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
    with damage_named(directory, FORM), np.errstate(all="ignore"):
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
        for path in sorted(folder.glob(f"*/{FORM.manifest}")):
            try:
                manifest = read_manifest(path.parent, FORM)
                with damage_named(path.parent, FORM):
                    if quantity in manifest["models"] and manifest["models"][quantity]["digest"] == digest:
                        return _load_quantity(path.parent, quantity, manifest)
            except ModelError:
                continue
        return None

    return find


def _names(manifest: Mapping[str, Any]) -> list[str]:
    names = list(manifest["models"])
    if unknown := sorted(set(names) - set(QUANTITIES)):
        raise ModelError(f"{FORM.manifest}: no quantities {unknown}; known: {list(QUANTITIES)}")
    return names


def _numbers(coefficients: FloatArray, floor: float) -> list[float]:
    return [*map(float, coefficients), floor]


def _physics(document: Mapping[str, Any], *, has_power: bool) -> Physics:
    latency = LatencyBaseline(*_coefficients(document["latency"], N_TERMS))
    latency_doubt = _doubt(document["latency_doubt"], latency)
    if not has_power:
        return Physics(latency, latency_doubt)
    power = PowerBaseline(*_coefficients(document["power"], N_POWER_TERMS))
    return Physics(latency, latency_doubt, power, _doubt(document["power_doubt"], power))


def _doubt_document(doubt: BaselineDoubt) -> dict[str, Any]:
    of = doubt.coefficients
    return {
        "unit": of.unit.tolist(), "root": of.root.tolist(), "widening": doubt.widening,
        "shift": doubt.shift.tolist(),
    }  # fmt: skip


def _doubt(document: Mapping[str, Any], baseline: LatencyBaseline | PowerBaseline) -> BaselineDoubt:
    unit, root, shift = (np.array(document[name], dtype=np.float64) for name in ("unit", "root", "shift"))
    n, widening = len(baseline.coefficients), float(document["widening"])
    numbers = (unit, root, shift, np.array(widening))
    if (
        unit.shape != (n,)
        or shift.shape != (n,)
        or root.shape != (n, n)
        or not all(np.isfinite(one).all() for one in numbers)
    ):
        raise ValueError(f"'physics' must give the doubt about {n} coefficients in finite numbers")
    return BaselineDoubt(as_roofline(baseline), CoefficientDoubt(unit, root), widening, shift)


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
        str(origin.get("rows_digest", "")),
    )  # fmt: skip


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
    entry = manifest["models"][quantity]
    model = model_from_state(read_state(directory, quantity, manifest, FORM))
    return FittedQuantity(model, _summary(entry["summary"]), str(entry["digest"]))


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
