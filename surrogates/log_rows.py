"""Rows of imported logs, under the names that cost models of whole networks know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..datasets.logs.tables import ForeignCost
from ..datasets.records import Target
from ..errors import ModelError
from .network_features import LOG_NAMES, TOTALS, standard_totals
from .network_rows import NetworkRows
from .prediction import FloatArray
from .setting_features import CORES

UNITS: Mapping[str, str] = {"latency_ms": "log ms", "energy_mj": "log mJ", "power_mw": "log mW"}
"""Quantities of a log, and the unit of their logarithms."""

KNOB_NAMES: Mapping[str, str] = {"cores": CORES, "online_cores": CORES}
"""Names that column maps give to pinned settings: the standard name."""

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)


def pinned_numbers(target: Target) -> dict[str, float]:
    """Settings that are pinned at numbers, under their standard names."""
    return {KNOB_NAMES.get(n, n): float(v) for n, v in target.pinned if _NUMBER.fullmatch(v)}


def device_of(target: Target) -> str:
    """Name of what a row was measured on; settings that are pinned at numbers (cores, say) are none of it."""
    kept = tuple((name, value) for name, value in target.pinned if not _NUMBER.fullmatch(value))
    return replace(target, pinned=kept).target_id


def settings_among_features(costs: Sequence[ForeignCost]) -> tuple[str, ...]:
    """Names of features that are no totals and differ between rows of one network at the same totals.

    A log says beside a network what was set when it ran (``swappiness``); what never differs so is of the network.
    """
    seen: dict[tuple[object, ...], dict[str, float]] = {}
    found: dict[str, None] = {}
    for cost in costs:
        known = standard_totals(cost.features)
        others = {n: v for n, v in cost.features.items() if n not in LOG_NAMES and n not in TOTALS}
        first = seen.setdefault((cost.network, *sorted(known.items())), others)
        found |= dict.fromkeys(name for name in others if others[name] != first.get(name))
    return tuple(found)


def network_rows_of(
    costs: Sequence[ForeignCost], quantity: str, *, settings: Sequence[str] | None = None
) -> NetworkRows:
    """What a log says of a quantity, as rows to learn from.

    Args:
        costs: of networks that no space of ours contains (``datasets.logs.tables.foreign_costs``).
        quantity: ``latency_ms``, ``energy_mj`` or ``power_mw``.
        settings: names of features that are knobs; by default those that :func:`settings_among_features` finds.

    Raises:
        ModelError: an unknown quantity, or rows of which different clocks or pinned settings are known.
    """
    if quantity not in UNITS:
        raise ModelError(f"no quantity '{quantity}' in logs; known: {list(UNITS)}")
    domains = {tuple(name for name, _ in cost.clocks_hz) for cost in costs}
    if len(domains) > 1:
        raise ModelError(f"rows name different clocks {sorted(domains)}; fit them one after the other")
    known = [standard_totals(cost.features) for cost in costs]
    names = sorted(set().union(*known))
    value = np.array([_or_nan(getattr(cost, quantity)) for cost in costs])
    error = np.array([_or_nan(getattr(cost, quantity.replace("_m", "_error_m"), None)) for cost in costs])
    return NetworkRows(
        np.array([cost.network for cost in costs], dtype=np.str_),
        {name: np.array([totals.get(name, np.nan) for totals in known]) for name in names},
        {
            name: np.array([dict(cost.clocks_hz)[name] / 1e9 for cost in costs])
            for name in next(iter(domains), ())
        },
        _knobs(costs, settings_among_features(costs) if settings is None else settings),
        np.array([device_of(cost.target) for cost in costs], dtype=np.str_),
        value,
        np.nan_to_num(error / value, nan=0.0),
    )


def _knobs(costs: Sequence[ForeignCost], features: Sequence[str]) -> dict[str, FloatArray]:
    pinned = [pinned_numbers(cost.target) for cost in costs]
    kinds = {tuple(sorted(one)) for one in pinned}
    if len(kinds) > 1:
        raise ModelError(f"rows name different pinned settings {sorted(kinds)}; fit them one after the other")
    found = {name: np.array([one[name] for one in pinned]) for name in next(iter(kinds), ())}
    return found | {
        name: np.array([cost.features.get(name, np.nan) for cost in costs], dtype=np.float64)
        for name in features
    }


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)
