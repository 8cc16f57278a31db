"""Questions to the cost models of a series in words: which networks, at which clocks and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from ..datasets.logs.tables import ForeignCost
from ..datasets.records import Target
from ..errors import ConfigError
from ..spaces.dvfs import HZ
from .log_rows import KNOB_NAMES, pinned_numbers
from .network_features import standard_totals

_WORD = re.compile(r"([A-Za-z0-9_]+)=(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)", re.ASCII)


def asked_rows(
    costs: Sequence[ForeignCost], networks: str, clocks: str, settings: Sequence[str]
) -> tuple[ForeignCost, ...]:
    """Networks of a series, each at every input size it is known at, under one setting.

    Args:
        costs: rows of the series on one device.
        networks: names with commas between, or ``all``.
        clocks: ``max`` or ``min`` (of the clocks in the series), then ``name=value`` of what differs: clocks in Hz
            or with a unit (``gpu=1032.75MHz``), other settings as numbers (``n_cores=4``).  What is not named
            stands as it always stood in the series, if it never changed.
        settings: names of features that are settings.

    Raises:
        ConfigError: an unknown network or setting, or one that changed and is not named.
    """
    chosen = _chosen(costs, networks)
    domains = [name for name, _ in costs[0].clocks_hz]
    known: dict[str, list[float]] = {
        name: [float(dict(c.clocks_hz)[name]) for c in costs] for name in domains
    }
    pinned = [pinned_numbers(c.target) for c in costs]
    known |= {name: [one[name] for one in pinned if name in one] for name in pinned[0]}
    known |= {name: [c.features[name] for c in costs if name in c.features] for name in settings}
    values = _values(clocks, known, domains)
    rows: dict[tuple[object, ...], ForeignCost] = {}
    for cost in chosen:
        key = (cost.network, *sorted(standard_totals(cost.features).items()))
        rows.setdefault(key, _at(cost, values, domains, settings))
    return tuple(rows.values())


def _chosen(costs: Sequence[ForeignCost], networks: str) -> list[ForeignCost]:
    there = dict.fromkeys(cost.network for cost in costs)
    names = list(there) if networks == "all" else [word.strip() for word in networks.split(",")]
    for name in names:
        if name not in there:
            raise ConfigError(
                f"--networks {name}: the series knows {_list(there)}; for others give their totals in a file (--rows)"
            )
    return [cost for name in names for cost in costs if cost.network == name]


def _values(clocks: str, known: Mapping[str, Sequence[float]], domains: Sequence[str]) -> dict[str, float]:
    """Value of every clock (Hz) and setting."""
    words, found = clocks.split(), {}
    if words and words[0] in ("max", "min"):
        pick = max if words.pop(0) == "max" else min
        found = {name: pick(known[name]) for name in domains}
    for word in words:
        read = _WORD.fullmatch(word)
        if read is None:
            _refuse(clocks, f"'{word}' does not read like gpu=1032.75MHz or n_cores=4")
        name, number, unit = read.groups()
        if name not in known:
            _refuse(clocks, f"no clock or setting '{name}'; the series has {_list(known)}")
        factor = HZ.get(unit.lower()) if name in domains else {"": 1.0}.get(unit)
        if factor is None:
            _refuse(
                clocks,
                f"'{word}': '{unit}' is none of {'Hz, kHz, MHz, GHz' if name in domains else 'its units'}",
            )
        found[name] = float(number) * factor
    for name, column in known.items():
        if name not in found:
            if len(set(column)) > 1:
                _refuse(
                    clocks,
                    f"'{name}' changed in the series, from {min(column):g} to {max(column):g}; name it",
                )
            found[name] = column[0]
    return found


def _at(
    cost: ForeignCost, values: Mapping[str, float], domains: Sequence[str], settings: Sequence[str]
) -> ForeignCost:
    pinned = tuple(
        (
            name,
            f"{values[KNOB_NAMES.get(name, name)]:.12g}" if KNOB_NAMES.get(name, name) in values else value,
        )
        for name, value in cost.target.pinned
    )
    target: Target = replace(cost.target, pinned=pinned)
    return replace(
        cost, target=target, clocks_hz=tuple((name, round(values[name])) for name in domains),
        features={**cost.features, **{name: values[name] for name in settings}},
        latency_ms=float("nan"), latency_error_ms=None, energy_mj=None, energy_error_mj=None, power_mw=None,
    )  # fmt: skip


def beyond(rows: Sequence[ForeignCost], costs: Sequence[ForeignCost]) -> list[str]:
    """One sentence per row, empty where a measured row is near: what lies outside of what was measured."""
    known = {cost.network for cost in costs}
    clocks: dict[str, list[int]] = {}
    for cost in costs:
        for name, hz in cost.clocks_hz:
            clocks.setdefault(name, []).append(hz)
    told = []
    for row in rows:
        said = [] if row.network in known else [f"network '{row.network}' was not measured"]
        for name, hz in row.clocks_hz:
            if name in clocks and not 0.999 * min(clocks[name]) <= hz <= 1.001 * max(clocks[name]):
                low, high = min(clocks[name]) / 1e6, max(clocks[name]) / 1e6
                said.append(f"{name} at {hz / 1e6:g} MHz; it was measured from {low:g} to {high:g}")
        told.append("; ".join(said))
    return told


def _list(names: Iterable[str], most: int = 12) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _refuse(clocks: str, reason: str) -> NoReturn:
    raise ConfigError(f"--clocks '{clocks}': {reason}")
