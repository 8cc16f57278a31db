"""What else happened while a row was measured: other work, throttling, heat.

A rig reports what it can see as (name, value) pairs in :attr:`.DeviceState.machine`.  Names that end in
``_s`` are cumulative.  Judged are ``cpu_steal_s`` against ``cpu_total_s`` (of all cores), ``process_cpu_s``
against ``wall_s`` (of the process that runs the network, where it runs on the CPU) and
``cpu_pressure_percent`` (share of the last 10 s in which some task waited for a core); any other
momentary pair is kept in the evidence as it was last seen.

What limits the device it says by flags (:attr:`.DeviceState.flags`): ``slow-clock:`` and
``overcurrent-suspected:`` a clock domain, ``current-critical:`` a rail, ``cooling:`` a thermal
governor that is at work.  Each of these makes a row invalid; every other flag is kept with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....spaces import Setting
from ..rig import DeviceState
from .protocol import MeasuringProtocol

PRESSURE = "cpu_pressure_percent"
_LIMITING = {
    "slow-clock": "clock '{}' fell below what was set",
    "overcurrent-suspected": "clock '{}' ran below its lower limit, as after an over-current event",
    "current-critical": "the current of rail '{}' was critical",
    "cooling": "thermal governor '{}' was at work",
}
# Warns whoever might touch the board at 70 degrees Celsius; it limits nothing.
_HARMLESS = ("cooling:hot-surface-alert",)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the states of a row say.

    Attributes:
        reason: why the row is not to be believed, or empty.
        flags: ``throttled``, ``noisy``, and what the device said.
        machine: what the row's evidence keeps, (name, value) pairs.
        temperature_c, overcurrent_events, clocks_verified: as in :class:`~hadas.datasets.evidence.Evidence`.
    """

    reason: str = ""
    flags: tuple[str, ...] = ()
    machine: tuple[tuple[str, float], ...] = ()
    temperature_c: tuple[float, float] | None = None
    overcurrent_events: int | None = None
    clocks_verified: bool | None = None


def judge_states(
    states: Sequence[DeviceState], loops: Sequence[tuple[DeviceState, DeviceState]], requested: Setting,
    protocol: MeasuringProtocol,
) -> Verdict:  # fmt: skip
    """Judge a row by the states read while it was measured.

    Args:
        states: every state of the row, in order of time.
        loops: first and last state of every loop: the share of processor time counts there alone.
        requested: clocks that the row was asked for.
    """
    if not states:
        return Verdict()
    temperatures = [state.temperature_c for state in states if state.temperature_c is not None]
    counts = [state.overcurrent_events for state in states if state.overcurrent_events is not None]
    events = counts[-1] - counts[0] if counts else None
    off = [clock for state in states for clock in _off_clocks(state, requested, protocol.clock_tolerance)]
    # The first state tells of what was before: of another row, and of a device that had yet to cool down.
    told = list(dict.fromkeys(flag for state in states[1:] or states for flag in state.flags))
    reasons, flags = [], []
    if events:
        reasons.append(f"{events} over-current events")
    if off:
        reasons.append(f"clocks ran at {off[0]} while measuring")
    reasons += [reason for flag in told if (reason := _limit(flag))]
    if temperatures and protocol.hottest_c is not None and max(temperatures) > protocol.hottest_c:
        reasons.append(
            f"the device was at {max(temperatures):g} °C, above the limit of {protocol.hottest_c:g} °C"
        )
    if reasons:
        flags.append("throttled")
    shares = _shares(states, loops)
    share = shares.get("process_cpu_share")
    if share is not None and share < protocol.least_cpu_share:
        reasons.append(
            f"other processes held the CPU: process time was {share:.0%} of wall time, at least "
            f"{protocol.least_cpu_share:.0%} is needed; measure again on an idle machine"
        )
    noisy = (
        shares.get("cpu_steal_share", 0.0) > protocol.most_steal
        or shares.get(PRESSURE, 0.0) > protocol.most_pressure
        or (share is not None and share < protocol.least_cpu_share)
    )
    if noisy:
        flags.append("noisy")
    seen: dict[str, float] = {}
    for state in states:
        seen.update(state.machine)
    others = tuple(
        (name, value) for name, value in seen.items() if name != PRESSURE and not name.endswith("_s")
    )
    read_back = [state for state in states if state.actual is not None and requested.clocks_hz]
    return Verdict(
        reason="; ".join(reasons),
        flags=(*flags, *told),
        machine=(*sorted(shares.items()), *others),
        temperature_c=(temperatures[0], temperatures[-1]) if temperatures else None,
        overcurrent_events=events,
        clocks_verified=not off and not any(_is_unproven(flag) for flag in told) if read_back else None,
    )


def _limit(flag: str) -> str:
    """What a flag says limited the device, or nothing."""
    name, _, detail = flag.partition(":")
    return _LIMITING[name].format(detail) if name in _LIMITING and flag not in _HARMLESS else ""


def _is_unproven(flag: str) -> bool:
    """Whether a flag says that a clock was not read from the hardware."""
    return flag.partition(":")[0] in ("unverified", "unreadable")


def _off_clocks(state: DeviceState, requested: Setting, tolerance: float) -> list[str]:
    """Clocks, steered or held, that were read back further from what was asked for than the tolerance.

    A processor's own count of its clock scatters by a few parts per thousand; the smallest step of
    a Jetson's tables is 2.8 %.
    """
    actual = dict(state.actual.clocks_hz) if state.actual is not None else {}
    steered = [(name, hz, actual[name]) for name, hz in requested.clocks_hz if name in actual]
    return [
        f"{name} {now_hz / 1e6:g} MHz instead of {hz / 1e6:g} MHz"
        for name, hz, now_hz in (*steered, *state.held_hz)
        if abs(now_hz - hz) > tolerance * hz
    ]


def _shares(
    states: Sequence[DeviceState], loops: Sequence[tuple[DeviceState, DeviceState]]
) -> dict[str, float]:
    """Steal and process time as shares, and the highest pressure, where the states tell."""
    found = {}
    steal, total = (
        _growth(states[:1], states[-1:], "cpu_steal_s"),
        _growth(states[:1], states[-1:], "cpu_total_s"),
    )
    if steal is not None and total:
        found["cpu_steal_share"] = steal / total
    firsts, lasts = [first for first, _ in loops], [last for _, last in loops]
    process, wall = _growth(firsts, lasts, "process_cpu_s"), _growth(firsts, lasts, "wall_s")
    if process is not None and wall:
        found["process_cpu_share"] = process / wall
    pressures = [dict(state.machine)[PRESSURE] for state in states if PRESSURE in dict(state.machine)]
    if pressures:
        found[PRESSURE] = max(pressures)
    return found


def _growth(firsts: Sequence[DeviceState], lasts: Sequence[DeviceState], name: str) -> float | None:
    """How much a cumulative measure grew over pairs of states; ``None`` where one lacks it."""
    pairs = [
        (dict(a.machine).get(name), dict(b.machine).get(name)) for a, b in zip(firsts, lasts, strict=True)
    ]
    grown = [b - a for a, b in pairs if a is not None and b is not None]
    return sum(grown) if grown and len(grown) == len(pairs) else None
