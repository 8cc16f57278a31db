"""How a cost was measured: what lets a reader, or a predictor, judge a row.

A :class:`~hadas.datasets.records.CostRecord` says what was found; its evidence says how: blocks and
their interval, the energy window and its rails, clocks, temperatures and whatever disturbed it.
Rows of a device carry it; rows of the simulator and of older logs may not.

Units: ms, mJ, W, seconds, degrees Celsius.  Imports with the standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

StoppedBy = Literal["interval", "time", "count"]


@dataclass(frozen=True, slots=True)
class LatencyEvidence:
    """How the latency of one stage, or of one program, was found.

    Attributes:
        block_ms: mean latency per inference of every block, in order of time; none is dropped.
        runs_per_block: inferences in a block.
        median_ms, interval95_ms: median over the blocks, and its 95 % interval: the bootstrap's, wider where neighbouring
            blocks are alike.
        p90_ms, p99_ms, mad_ms: over single inferences: percentiles and median absolute deviation.
        n_outliers: inferences further than 5 MAD from their median; they stay in every figure.
        stopped_by: ``interval`` = narrow enough; ``time`` or ``count`` = the limit came first.
        warm_up_s: running before anything counted.
    """

    block_ms: tuple[float, ...]
    runs_per_block: int
    median_ms: float
    interval95_ms: tuple[float, float]
    p90_ms: float
    p99_ms: float
    mad_ms: float
    n_outliers: int
    stopped_by: StoppedBy
    warm_up_s: float

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict`` after JSON."""
        low, high = fields["interval95_ms"]
        return cls(**{**fields, "block_ms": tuple(fields["block_ms"]), "interval95_ms": (low, high)})


@dataclass(frozen=True, slots=True)
class EnergyEvidence:
    """How the energy of one stage, or of one program, was found.

    Attributes:
        gross_mj: per inference, everything that the scope draws.
        net_mj: gross less what the idle device draws in the same time; ``None`` without a baseline.
        idle_w: power of the idle device at the same clocks, with programs loaded, before and after; their mean.
        scope: labels of the rails whose sum ``gross_mj`` is.
        rails_mj: (label, mJ per inference) of every rail that was read, summed or not.
        window_s: length of the window that counts, one continuous loop.
        n_windows: windows; energy is their mean.
        n_samples, n_distinct: readings in the windows, and different values among them.
        averaging_s: what the sensor averages over.
        net_error_mj: standard error of ``net_mj``; how far the idle device's power moved is part of it.
    """

    gross_mj: float
    net_mj: float | None
    idle_w: float | None
    scope: tuple[str, ...]
    rails_mj: tuple[tuple[str, float], ...]
    window_s: float
    n_windows: int
    n_samples: int
    n_distinct: int
    averaging_s: float
    net_error_mj: float | None = None

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict`` after JSON."""
        rails = tuple((label, energy_mj) for label, energy_mj in fields["rails_mj"])
        return cls(**{**fields, "scope": tuple(fields["scope"]), "rails_mj": rails})


@dataclass(frozen=True, slots=True)
class StageEvidence:
    """Evidence of one stage; ``energy`` is ``None`` where nothing counts energy."""

    latency: LatencyEvidence
    energy: EnergyEvidence | None

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict`` after JSON."""
        energy = fields["energy"]
        return cls(
            LatencyEvidence.from_json(fields["latency"]),
            None if energy is None else EnergyEvidence.from_json(energy),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """How one row was measured.

    Attributes:
        engine: what executed the programs, with its version.
        protocol: name and digits over the settings of the measuring protocol.
        started_utc: when, ISO 8601; for people, nothing is computed from it.
        stages: evidence per stage, in the order of the record's stages.
        decision_ms: cost of one decision whether to leave (scores to the host, softmax, comparison).
        clocks_verified: whether the clocks read back were those asked for, before, during and after;
            ``None`` where clocks are not controlled.
        temperature_c: hottest sensor at the start and at the end; ``None`` = no sensor.
        overcurrent_events: over-current events during the row; ``None`` = no counter.
        anchor: whether the row repeats the session's anchor to watch for drift.
        attempt: how often the session had measured the same before, anchors aside: 1 for a row that was queued again.
        flags: what a reader should know, e.g. ``hot``, ``noisy``, ``throttled``, ``drift``.
        machine: measures of what else the machine did, (name, value) pairs.
        raw_file, raw_sha256: side file with the time-stamped power samples, or empty.
    """

    engine: str
    protocol: str
    started_utc: str
    stages: tuple[StageEvidence, ...]
    decision_ms: float | None = None
    clocks_verified: bool | None = None
    temperature_c: tuple[float, float] | None = None
    overcurrent_events: int | None = None
    anchor: bool = False
    attempt: int = 0
    flags: tuple[str, ...] = ()
    machine: tuple[tuple[str, float], ...] = ()
    raw_file: str = ""
    raw_sha256: str = ""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict`` after JSON."""
        temperature = fields["temperature_c"]
        return cls(
            **{
                **fields,
                "stages": tuple(StageEvidence.from_json(stage) for stage in fields["stages"]),
                "temperature_c": None if temperature is None else (temperature[0], temperature[1]),
                "flags": tuple(fields["flags"]),
                "machine": tuple((name, value) for name, value in fields["machine"]),
            }
        )
