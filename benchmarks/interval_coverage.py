"""How often do the intervals of measured latencies hold the truth, where blocks are alike and loops stop themselves?

A loop ends as soon as its interval is narrow, so it ends too often when the interval is narrow by chance; and
blocks that follow each other are alike, because a machine has slow phases.  Both make intervals hold the truth less
often than the 95 % that they are made for.  Here blocks are drawn whose truth is known: an autoregressive
process of first order (correlation rho of neighbours), lognormal, scattering by 1 % or 3 %.  The loop, its
stopping rule and its summary are those that devices are measured by:

- `full`: latency alone, until the interval is within 1 % or 30 s are over;
- `window`: with energy, so that the loop fills its window of 10 s, whatever the interval;
- `quick`: short blocks in three loops.

`holds`: for every protocol and scatter, and rho up to 0.5, at least 90 % of the intervals hold the truth.  Beyond, it
is printed: a loop of seconds cannot tell a slow phase of seconds from the truth.  `bootstrap` is what the plain
bootstrap of the same blocks would have reached.

`--quick` draws fewer loops; `--json` ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from _checkout import make_importable

make_importable()

import numpy as np  # noqa: E402

from hadas.measurement.hardware.measuring.loops import run_loop  # noqa: E402
from hadas.measurement.hardware.measuring.protocol import FULL, QUICK, MeasuringProtocol  # noqa: E402
from hadas.measurement.hardware.measuring.statistics import (  # noqa: E402
    Z95,
    bootstrap_interval,
    half_width,
    latency_evidence,
    latency_statistic,
)
from hadas.measurement.hardware.rig import (  # noqa: E402
    Block,
    DeviceState,
    EnergySource,
    PowerTrace,
    Programs,
    Rig,
)

NOMINAL = 0.95
AT_LEAST = 0.90
JUDGED_UP_TO = 0.5
CORRELATIONS = (0.0, 0.3, 0.5, 0.8, 0.95)
SCATTERS = (0.01, 0.03)
N_LOOPS, N_QUICK = 1000, 200
SEED = 0
_AT_ONCE = 64


@dataclass(frozen=True)
class Form:
    """One way of measuring: its protocol, and whether energy is counted."""

    protocol: MeasuringProtocol
    counts_energy: bool = False


# Warming up is another question: here all blocks are of one process.
NO_WARM_UP: dict[str, Any] = {"warm_up_s": 0.0, "warm_up_runs": 1, "warm_up_limit_s": 0.0}
FORMS = {
    "full": Form(replace(FULL, **NO_WARM_UP)),
    "window": Form(replace(FULL, **NO_WARM_UP), counts_energy=True),
    "quick": Form(replace(QUICK, **NO_WARM_UP)),
}


class CorrelatedRig:
    """A rig and its one program: blocks around one ``block_s``, neighbours alike; its median is one ``block_s``.

    Args:
        rho: correlation of neighbouring blocks.
        scatter: of a block's duration, relative.
    """

    engine = "drawn"

    def __init__(self, form: Form, rho: float, scatter: float, rng: np.random.Generator) -> None:
        counter = EnergySource("counter", ("all",), ("all",), 0.0, 0.1)
        self.energy = counter if form.counts_energy else None
        self._block_s = form.protocol.block_s
        self._rho, self._scatter, self._rng = rho, scatter, rng
        self._now_s = 0.0
        self._deviations = self._drawn()

    def _drawn(self) -> Iterator[float]:
        value = float(self._rng.standard_normal())
        while True:
            for step in self._rng.standard_normal(_AT_ONCE).tolist():
                yield value
                value = self._rho * value + math.sqrt(1.0 - self._rho**2) * step

    @contextmanager
    def loop(self, index: int, runs_per_block: int, expected_s: float) -> Iterator[CorrelatedRig]:
        """Blocks go on where the loop before left off."""
        yield self

    def __iter__(self) -> Iterator[Block]:
        for deviation in self._deviations:
            run_s = self._block_s * math.exp(self._scatter * deviation)
            began_s, self._now_s = self._now_s, self._now_s + run_s
            yield Block(began_s, self._now_s, (run_s,))

    def trace(self) -> PowerTrace | None:
        """Nobody looks at it."""
        return None

    def state(self) -> DeviceState:
        """Nothing is known."""
        return DeviceState()


@dataclass(frozen=True)
class Loop:
    """One stage measured: whether its intervals hold the truth, and what it took."""

    covers: bool
    bootstrap_covers: bool
    n_blocks: int
    stopped_by_interval: bool
    half_width: float


def measured(form: Form, rho: float, scatter: float, rng: np.random.Generator) -> Loop:
    """One stage, as a row measures it."""
    rig, protocol = CorrelatedRig(form, rho, scatter, rng), form.protocol
    blocks: list[Block] = []
    for _ in range(protocol.n_windows):
        result = run_loop(
            cast(Rig, rig), cast(Programs, rig), 0, 1, protocol, warm_up_s=0.0, before=tuple(blocks)
        )
        blocks += result.blocks
    evidence = latency_evidence(blocks, result.stopped_by, 0.0, n_bootstrap=protocol.n_bootstrap)
    found, truth_ms = latency_statistic(evidence), 1e3 * protocol.block_s
    low, high = evidence.interval95_ms
    plain = bootstrap_interval(np.array(evidence.block_ms), n_resamples=protocol.n_bootstrap)
    # Readers use the interval or the standard error: both have to hold.
    covers = low <= truth_ms <= high and abs(found.value - truth_ms) <= half_width(found)
    return Loop(
        covers, plain[0] <= truth_ms <= plain[1], len(blocks), evidence.stopped_by == "interval",
        Z95 * found.standard_error / found.value,
    )  # fmt: skip


def cell(name: str, rho: float, scatter: float, n_loops: int) -> dict[str, float]:
    """What many loops of one form, at one correlation and scatter, show."""
    entropy = [SEED, list(FORMS).index(name), round(100 * rho), round(1000 * scatter)]
    rng = np.random.default_rng(entropy)
    loops = [measured(FORMS[name], rho, scatter, rng) for _ in range(n_loops)]
    return {
        "coverage": float(np.mean([loop.covers for loop in loops])),
        "bootstrap": float(np.mean([loop.bootstrap_covers for loop in loops])),
        "blocks": float(np.mean([loop.n_blocks for loop in loops])),
        "stopped_by_interval": float(np.mean([loop.stopped_by_interval for loop in loops])),
        "half_width_percent": 100 * float(np.mean([loop.half_width for loop in loops])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help=f"{N_QUICK} loops of each kind, not {N_LOOPS}")
    arguments = parser.parse_args()
    n_loops = N_QUICK if arguments.quick else N_LOOPS
    began = time.perf_counter()
    print(f"{n_loops} loops of each kind; coverage in percent, {100 * NOMINAL:g} would be right")
    print("protocol  rho  scatter  coverage  bootstrap  blocks  by interval  half-width")
    figures: dict[str, dict[str, float]] = {}
    missed = []
    for name in FORMS:
        for rho in CORRELATIONS:
            for scatter in SCATTERS:
                key = f"{name}/rho {rho:g}/scatter {100 * scatter:g}%"
                figures[key] = found = cell(name, rho, scatter, n_loops)
                if rho <= JUDGED_UP_TO and found["coverage"] < AT_LEAST:
                    missed.append(key)
                print(
                    f"{name:8} {rho:4g} {100 * scatter:6g} % {100 * found['coverage']:9.1f} "
                    f"{100 * found['bootstrap']:10.1f} {found['blocks']:7.0f} {100 * found['stopped_by_interval']:10.0f} % "
                    f"{found['half_width_percent']:9.2f} %"
                )
    print(f"below {100 * AT_LEAST:g} % up to rho {JUDGED_UP_TO:g}: " + (", ".join(missed) or "nothing"))
    print(f"{time.perf_counter() - began:.0f} s in all")
    if arguments.json:
        result = {
            "benchmark": "interval_coverage",
            "figures": {
                key: {what: float(f"{value:.4g}") for what, value in found.items()}
                for key, found in figures.items()
            },
            "n_loops": n_loops,
            "seed": SEED,
            "reach": {"coverage_at_least": AT_LEAST, "nominal": NOMINAL, "up_to_rho": JUDGED_UP_TO},
            "holds": not missed,
            "protocols": {name: form.protocol.protocol_id for name, form in FORMS.items()},
            "machine": platform.machine(),
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
