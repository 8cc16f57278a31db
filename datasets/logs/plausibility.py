"""Whether the figures of a row can be of one inference on an edge device, and of one and the same.

Most of what is wrong in a log is a unit: seconds for milliseconds, joules for millijoules, a thousand times
too much or too little.  Bounds are therefore wide, and a row that breaks one is not merely unusual.  Rows that
are measured here are not judged by them; they have no units to mistake.

Every check returns a :class:`Slip` or ``None``; rows are as JSON has them, and well formed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHORTEST_MS, LONGEST_MS = 1e-3, 3.6e6
"""Latency of one inference: a microsecond to an hour."""
LEAST_W, MOST_W = 0.02, 2e3
"""Mean power, which is energy over latency (mJ / ms = W): what runs these networks draws more than a
microcontroller and less than a server, and a board of 2 to 20 W is out of bounds if off by a thousand."""
LARGEST_RELATIVE_ERROR = 10.0
"""Of a standard error to its value."""
_SUM_FACTOR = 3.0
"""Of a total to the sum of its stages: a network that is run whole is faster by what is fused across stages, or
slower by what joins them, but a wrong unit is a thousand."""
_POWER_FACTOR = 30.0  # power may be of another rail, or net of the idle device; a wrong unit is a thousand
_EVIDENCE_FACTOR = 2.0  # a log may give a mean beside a median

_UNIT = "is the unit right?"


@dataclass(frozen=True, slots=True)
class Slip:
    """What cannot be: a field, its unit and value, and why."""

    field: str
    unit: str
    value: Any
    reason: str


def total_slip(latency_ms: float, energy_mj: float | None) -> Slip | None:
    """Latency and energy of one inference, ``None`` if they can be."""
    if not SHORTEST_MS <= latency_ms <= LONGEST_MS:
        return Slip(
            "latency_ms", "ms", latency_ms, f"one inference takes between a microsecond and an hour; {_UNIT}"
        )
    if energy_mj is not None and not LEAST_W <= energy_mj / latency_ms <= MOST_W:
        return Slip(
            "energy_mj", "mJ", energy_mj,
            f"in {latency_ms:g} ms that is a mean power of {energy_mj / latency_ms:.3g} W; devices draw between 20 "
            f"mW and 2 kW; {_UNIT}",
        )  # fmt: skip
    return None


def row_slip(row: Mapping[str, Any], n_blocks: int) -> Slip | None:
    """A valid row of our own log, ``None`` if its figures agree with each other.

    Args:
        row: its fields, well formed, with positive finite values.
        n_blocks: of its backbone; the last stage ends there.
    """
    latency, energy, stages = row["latency_ms"], row["energy_mj"], row["stages"]
    slip = _clock_slip(row)
    if slip is None and stages:
        is_prefix = row["program"] == "prefix"
        slip = (
            _order_slip(row, n_blocks)
            # Before the bounds: that stages and total disagree says more than that one of them is out of bounds.
            or _sum_slip("latency_ms", "ms", latency, [stage["latency_ms"] for stage in stages], is_prefix)
            or (energy and _sum_slip("energy_mj", "mJ", energy, [s["energy_mj"] for s in stages], is_prefix))
        )
    slip = slip or total_slip(latency["value"], energy and energy["value"])
    slip = slip or _error_slip("latency_ms", "ms", latency)
    slip = slip or (energy and _error_slip("energy_mj", "mJ", energy))
    for i, stage in enumerate(stages):
        slip = slip or _stage_slip(i, stage)
    evidence = row.get("evidence")
    return slip or (None if evidence is None else _evidence_slip(evidence, stages))


def power_slip(latency_ms: float, energy_mj: float | None, power_w: float) -> Slip | None:
    """A power that stands beside latency and energy, ``None`` if it can be theirs."""
    if not LEAST_W <= power_w <= MOST_W:
        return Slip("power_mw", "mW", 1e3 * power_w, f"devices draw between 20 mW and 2 kW; {_UNIT}")
    implied_w = None if energy_mj is None else energy_mj / latency_ms
    if implied_w is not None and not 1 / _POWER_FACTOR <= power_w / implied_w <= _POWER_FACTOR:
        return Slip(
            "power_mw", "mW", 1e3 * power_w,
            f"energy over latency is {1e3 * implied_w:.3g} mW; is the unit of one of the three right?",
        )  # fmt: skip
    return None


def error_slip(field: str, unit: str, value: float, standard_error: float) -> Slip | None:
    """A standard error, ``None`` if it can be the value's."""
    return _error_slip(field, unit, {"value": value, "standard_error": standard_error})


def _error_slip(field: str, unit: str, statistic: Mapping[str, Any]) -> Slip | None:
    if statistic["standard_error"] <= LARGEST_RELATIVE_ERROR * statistic["value"]:
        return None
    return Slip(
        f"{field}.standard_error", unit, statistic["standard_error"],
        f"more than {LARGEST_RELATIVE_ERROR:g} times the value, {statistic['value']:g}; {_UNIT}",
    )  # fmt: skip


def _clock_slip(row: Mapping[str, Any]) -> Slip | None:
    requested = [name for name, _ in row["requested"]["clocks_hz"]]
    actual = [name for name, _ in row["actual"]["clocks_hz"]]
    if requested == actual:
        return None
    return Slip("actual", "Hz", actual, f"names other clocks than 'requested', {requested}")


def _order_slip(row: Mapping[str, Any], n_blocks: int) -> Slip | None:
    """Stages must be those that the heads make."""
    positions = [position for position, _ in row["heads"]]
    if row["program"] == "prefix":
        expected = [("prefix", position) for position in (*positions, n_blocks)]
    else:
        pairs = [((("segment", position), ("head", position))) for position in positions]
        expected = [*(stage for pair in pairs for stage in pair), ("segment", n_blocks)]
    found = [(stage["kind"], stage["position"]) for stage in row["stages"]]
    if found == expected:
        return None
    told = ", ".join(f"{kind} {position}" for kind, position in expected)
    return Slip(
        "stages", "", [list(stage) for stage in found], f"its heads make the stages {told}; none at all if only totals are known"
    )  # fmt: skip


def _stage_slip(i: int, stage: Mapping[str, Any]) -> Slip | None:
    latency, energy = stage["latency_ms"], stage["energy_mj"]
    slip = _error_slip(f"stages[{i}].latency_ms", "ms", latency)
    if slip is None and energy is not None:
        slip = _error_slip(f"stages[{i}].energy_mj", "mJ", energy)
        power_w = energy["value"] / latency["value"]
        if slip is None and not LEAST_W <= power_w <= MOST_W:
            return Slip(
                f"stages[{i}].energy_mj", "mJ", energy["value"],
                f"in {latency['value']:g} ms that is a mean power of {power_w:.3g} W; devices draw between 20 mW "
                f"and 2 kW; {_UNIT}",
            )  # fmt: skip
    return slip


def _sum_slip(
    field: str,
    unit: str,
    total: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any] | None],
    is_prefix: bool,
) -> Slip | None:
    """Stages add up to about the total, or the last prefix program does; parts that are not known are at least 0."""
    counted = [part for part in (parts[-1:] if is_prefix else parts) if part is not None]
    known_all = len(counted) == (1 if is_prefix else len(parts))
    value, whole = total["value"], sum([part["value"] for part in counted])
    if whole <= _SUM_FACTOR * value and (not known_all or value <= _SUM_FACTOR * whole):
        return None
    what = "its last prefix says" if is_prefix else "its stages add up to"
    return Slip(field, unit, value, f"{what} {whole:g} {unit}; is one of the two in another unit?")


def _evidence_slip(evidence: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> Slip | None:
    told = evidence["stages"]
    if not told:
        return None
    if len(told) != len(stages):
        return Slip("evidence.stages", "", len(told), f"the row has {len(stages)} stages")
    for i, (one, stage) in enumerate(zip(told, stages, strict=True)):
        field = f"evidence.stages[{i}].latency"
        median, (low, high) = one["latency"]["median_ms"], one["latency"]["interval95_ms"]
        if not low <= high:
            return Slip(f"{field}.interval95_ms", "ms", [low, high], "its ends are the wrong way round")
        slack = high - low
        if not low - slack <= median * (1 + 1e-9) or not median * (1 - 1e-9) <= high + slack:
            return Slip(
                f"{field}.interval95_ms", "ms", [low, high], f"is not around the median, {median:g} ms"
            )
        value = stage["latency_ms"]["value"]
        if not value / _EVIDENCE_FACTOR <= median <= value * _EVIDENCE_FACTOR:
            return Slip(f"{field}.median_ms", "ms", median, f"the stage's latency is {value:g} ms; {_UNIT}")
    return None
