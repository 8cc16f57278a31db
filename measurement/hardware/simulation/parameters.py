"""What the simulator knows of a device, every value with its tag: fitted, from a source, or guessed.

Tags are data, not comments: :func:`hadas.measurement.hardware.simulation.profiles.parameter_table` prints them
beside the values.  They change no cost, so they are no part of a profile's hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

from ....spaces import Setting

Curve = tuple[tuple[int, float], ...]
"""(frequency in Hz, value) pairs, ascending, one per step of a clock."""

TagKind = Literal["fit", "source", "guess"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tag:
    """Where a value comes from.

    Attributes:
        kind: ``fit`` = fitted to public raw device data; ``source`` = read off public device logs or
            documents; ``guess``.
        note: to what it was fitted, which source, or why the guess.
        part: which part of the parameter this is about; empty: all of it.
    """

    kind: TagKind
    note: str
    part: str = ""


@dataclass(frozen=True, slots=True)
class Tagged(Generic[T]):
    """A value and the tags of its parts."""

    value: T
    tags: tuple[Tag, ...]


def fit(value: T, note: str) -> Tagged[T]:
    """A value fitted to public raw device data."""
    return Tagged(value, (Tag("fit", note),))


def source(value: T, note: str) -> Tagged[T]:
    """A value read off public device logs or documents."""
    return Tagged(value, (Tag("source", note),))


def guess(value: T, note: str) -> Tagged[T]:
    """A value that no data supports."""
    return Tagged(value, (Tag("guess", note),))


def curve(*pieces: Tagged[Mapping[float, float]]) -> Tagged[Curve]:
    """A curve from pieces ``{MHz: value}`` in ascending order, each with a tag of its own."""
    steps: list[tuple[int, float]] = []
    tags: list[Tag] = []
    for piece in pieces:
        mhz = list(piece.value)
        span = f"{min(mhz):g} to {max(mhz):g} MHz" if len(mhz) > 1 else f"{mhz[0]:g} MHz"
        tags += [replace(tag, part=span if len(pieces) > 1 else "") for tag in piece.tags]
        steps += [(round(step * 1e6), value) for step, value in piece.value.items()]
    return Tagged(tuple(steps), tuple(tags))


@dataclass(frozen=True, slots=True)
class Rail:
    """One supply rail other than the compute unit's own.

    Attributes:
        name: label on the board.
        base_w: W without traffic, per memory clock step.
        w_per_gb_s: W per GB/s of memory traffic.
    """

    name: str
    base_w: Curve
    w_per_gb_s: float = 0.0


def rail(name: str, base_w: Tagged[Curve], w_per_gb_s: Tagged[float] | None = None) -> Tagged[Rail]:
    """A rail whose base and slope have tags of their own."""
    tags = [replace(tag, part=f"{name} base {tag.part}".strip()) for tag in base_w.tags]
    if w_per_gb_s is None:
        return Tagged(Rail(name, base_w.value), tuple(tags))
    tags += [replace(tag, part=f"{name} per GB/s") for tag in w_per_gb_s.tags]
    return Tagged(Rail(name, base_w.value, w_per_gb_s.value), tuple(tags))


def rails(*members: Tagged[Rail]) -> Tagged[tuple[Rail, ...]]:
    """All other rails of a board."""
    return Tagged(
        tuple(member.value for member in members), tuple(tag for member in members for tag in member.tags)
    )


@dataclass(frozen=True)
class HardwareProfile:
    """Everything the simulator knows of one processor on one board.

    Attributes:
        name: key in :data:`~hadas.measurement.hardware.simulation.profiles.PROFILES` and in
            :data:`hadas.spaces.CLOCK_TABLES`.
        board, processor: as in :class:`~hadas.datasets.records.Target`.
        compute_clock: the clock domain that the arithmetic runs on.
        flop_per_cycle: peak fp32 FLOP per cycle of all cores together.
        efficiency_dense, efficiency_depthwise: share of the peak that large layers reach.
        saturation_outputs: output elements at which a layer reaches half of that share; smaller
            layers leave cores idle.
        efficiency_memory: share of ``bandwidth_gb_s`` that layers reach.
        norm_exponent: q of the p-norm that joins arithmetic and memory time.
        launch_ms: shortest time of a layer, at the CPU's top clock.
        offset_ms: fixed time per inference, booked once, in the first segment.
        bandwidth_gb_s: peak memory bandwidth per memory clock step.
        compute_rail: label of the compute unit's rail.
        energy_pj_per_flop: dynamic energy at the lowest voltage.
        active_w: W while running, at the top clock, whatever runs; scales with f * V^2(f).
        static_w: W of the compute rail without any switching.
        voltage_squared: V^2(f) relative to the lowest voltage, per step of the compute clock.
        rails: the other rails.
        module_gain, module_offset_w: module total = gain * sum of rails + offset.
        meter_total_only: whether the board meters the module total as one rail (else all rails).
        meter_lsb_w: resolution of one metered rail, W.
        pinned: clocks that are held fixed, (name, value) pairs.
        supported_from_hz: (domain, lowest frequency that data support); below it costs are extrapolated.
        tags: (parameter, tag) pairs, in order of the parameters.
    """

    name: str
    board: str
    processor: str
    compute_clock: Literal["gpu", "cpu"]
    flop_per_cycle: float
    efficiency_dense: float
    efficiency_depthwise: float
    saturation_outputs: float
    efficiency_memory: float
    norm_exponent: float
    launch_ms: float
    offset_ms: float
    bandwidth_gb_s: Curve
    compute_rail: str
    energy_pj_per_flop: float
    active_w: float
    static_w: float
    voltage_squared: Curve
    rails: tuple[Rail, ...]
    module_gain: float
    module_offset_w: float
    meter_total_only: bool
    meter_lsb_w: float
    pinned: tuple[tuple[str, str], ...]
    supported_from_hz: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    tags: tuple[tuple[str, Tag], ...] = field(default=(), compare=False, repr=False)

    @property
    def top_compute_hz(self) -> int:
        """Highest frequency of the compute clock."""
        return self.voltage_squared[-1][0]

    def parameter_hash(self) -> str:
        """12 hex digits over every parameter: costs of different parameter sets never mix.

        What is said about the parameters (tags, the range that data support) is left out.
        """
        parameters = asdict(self)
        del parameters["tags"], parameters["supported_from_hz"]
        return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]

    def extrapolated(self, setting: Setting) -> tuple[str, ...]:
        """The clock domains of a setting that lie below every step that data support."""
        lowest = dict(self.supported_from_hz)
        return tuple(domain for domain, hz in setting.clocks_hz if hz < lowest.get(domain, 0))


def tagged_profile(
    *, name: str, board: str, processor: str, compute_clock: Literal["gpu", "cpu"], compute_rail: str,
    pinned: tuple[tuple[str, str], ...], supported_from_mhz: Mapping[str, float], **parameters: Tagged[Any],
) -> HardwareProfile:  # fmt: skip
    """A profile whose parameters all carry tags.

    Args:
        parameters: every other field of :class:`HardwareProfile`.
    """
    values = {parameter: tagged.value for parameter, tagged in parameters.items()}
    return HardwareProfile(
        name=name, board=board, processor=processor, compute_clock=compute_clock, compute_rail=compute_rail,
        pinned=pinned,
        supported_from_hz=tuple((domain, round(mhz * 1e6)) for domain, mhz in supported_from_mhz.items()),
        tags=tuple((parameter, tag) for parameter, tagged in parameters.items() for tag in tagged.tags),
        **values,
    )  # fmt: skip
