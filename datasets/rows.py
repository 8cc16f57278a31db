"""Records as rows of the store's tables, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any

from ..spaces import Backbone, Setting
from .evidence import Evidence
from .records import AccuracyRecord, CostRecord, OutcomeMatrix, StageCost, Statistic, Target, Truth


def backbone_from_json(fields: Mapping[str, Any]) -> Backbone:
    """The inverse of ``dataclasses.asdict`` on a :class:`Backbone` that went through JSON."""
    return Backbone(
        space=fields["space"],
        resolution=fields["resolution"],
        width=tuple(fields["width"]),
        depth=tuple(fields["depth"]),
        kernel=tuple(fields["kernel"]),
        expand=tuple(fields["expand"]),
    )


def setting_from_json(clocks: Sequence[Sequence[Any]]) -> Setting:
    """The inverse of listing a :class:`Setting`'s ``clocks_hz``."""
    return Setting(tuple((name, hz) for name, hz in clocks))


def _statistic(fields: Mapping[str, Any] | None) -> Statistic | None:
    return None if fields is None else Statistic(**fields)


def cost_to_row(record: CostRecord) -> dict[str, Any]:
    """The columns of ``schema.costs``."""
    return {
        "session": record.session,
        "row_no": record.row_no,
        "arch_id": record.backbone.arch_id,
        "target_id": record.target.target_id,
        "truth": str(record.truth),
        "valid": record.valid,
        "reason": record.reason,
        "device_seconds": record.device_seconds,
        "latency_ms": record.latency_ms.value if record.latency_ms else None,
        "energy_mj": record.energy_mj.value if record.energy_mj else None,
        "row": cost_to_json(record),
    }


class WrittenJson(str):
    """JSON that is written already: a column of JSON takes it as it is."""

    __slots__ = ()


def to_json(value: Any) -> str:
    """What a column of JSON holds of a value."""
    return str(value) if type(value) is WrittenJson else json.dumps(value)


def cost_to_json(record: CostRecord) -> dict[str, Any]:
    """Everything of a record but its target, for JSON; :func:`cost_from_json` reads it back."""
    row = {name: _plain(getattr(record, name)) for name in _field_names(CostRecord) if name != "target"}
    row["truth"] = str(record.truth)
    return row


def _plain(value: Any) -> Any:
    """What ``dataclasses.asdict`` makes of a value, in a third of the time: leaves are not copied."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        kind: Any = type(value)
        return {name: _plain(getattr(value, name)) for name in _field_names(kind)}
    return value


@cache
def _field_names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def cost_from_json(row: Mapping[str, Any], target: Mapping[str, Any]) -> CostRecord:
    """A cost record from the column ``row`` of its row and the ``fields`` of its target's."""
    stages = tuple(
        StageCost(s["kind"], s["position"], Statistic(**s["latency_ms"]), _statistic(s["energy_mj"]))
        for s in row["stages"]
    )
    pinned = tuple((name, value) for name, value in target["pinned"])
    evidence = row.get("evidence")  # rows written before it was kept have none
    return CostRecord(
        **{
            **row,
            "backbone": backbone_from_json(row["backbone"]),
            "heads": tuple((position, head) for position, head in row["heads"]),
            "requested": setting_from_json(row["requested"]["clocks_hz"]),
            "actual": setting_from_json(row["actual"]["clocks_hz"]),
            "target": Target(**{**target, "pinned": pinned}),
            "truth": Truth(row["truth"]),
            "stages": stages,
            "latency_ms": _statistic(row["latency_ms"]),
            "energy_mj": _statistic(row["energy_mj"]),
            "evidence": None if evidence is None else Evidence.from_json(evidence),
        }
    )


def accuracy_to_row(record: AccuracyRecord) -> dict[str, Any]:
    """The columns of ``schema.accuracies``."""
    return {
        "session": record.session,
        "row_no": record.row_no,
        "arch_id": record.backbone.arch_id,
        "weights_id": record.weights_id,
        "recipe_id": record.recipe_id,
        "split_id": record.split_id,
        "first_exit": record.first_exit,
        "valid": record.valid,
        "reason": record.reason,
        "backbone": asdict(record.backbone),
        "seconds": dict(record.seconds),
        "calibration": record.calibration.to_bytes() if record.calibration else None,
        "test": record.test.to_bytes() if record.test else None,
        "hardware": record.hardware,
    }


def accuracy_from_row(row: Any) -> AccuracyRecord:
    """The inverse of :func:`accuracy_to_row`, from a row's mapping."""
    return AccuracyRecord(
        session=row["session"],
        row_no=row["row_no"],
        backbone=backbone_from_json(row["backbone"]),
        weights_id=row["weights_id"],
        recipe_id=row["recipe_id"],
        split_id=row["split_id"],
        first_exit=row["first_exit"],
        calibration=OutcomeMatrix.from_bytes(row["calibration"]) if row["calibration"] else None,
        test=OutcomeMatrix.from_bytes(row["test"]) if row["test"] else None,
        seconds=row["seconds"],
        valid=row["valid"],
        reason=row["reason"],
        hardware=row["hardware"],
    )
