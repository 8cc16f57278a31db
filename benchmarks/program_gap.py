"""What does it cost to stop for a decision at every exit, instead of compiling everything up to it?

A network with early exits is deployed as ``stages``: one program per segment and per head, the decision
between them on the host.  The other artefact, one ``prefix`` program per exit (everything up to it with
the heads on the way), may fuse across the cuts, but cannot stop.  Printed is, for every engine that runs here and
every exit, the latency of the stages up to it over that of its prefix program, and the decisions' cost beside.

Both are measured by the same protocol in turns, repetition by repetition, so that a slow phase of the machine
falls on both.  Compared are their fast blocks (the 5 % quantile), which other work on the machine hardly touches;
the ratio of medians stands in the JSON result.  The interval of a ratio is Student's, over repetitions, of its logarithm.

`holds` is decided by counts and ratios:

- all rows are there, and no engine has a prefix that is faster than the one before it, beyond their intervals, in
  more than half of the repetitions;
- for no engine and no exit are the stages faster than the prefix by more than the tolerance, with the interval
  as a whole below.

A ratio below one is no mistake: it is suspected that a stage which is looped by itself finds its weights in the
caches, where a whole pass does not, so that sums of stages are too low where nothing fuses.

How large the gap is decides nothing; how many of the intervals are narrow enough to tell it is printed.
`--quick` measures a small network; `--device cuda` the first GPU, in torch's engines, without changing a setting
of it.  Runs from a bare checkout with torch, numpy, pyarrow and pillow; an engine that is not installed is left
out and named.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from _checkout import make_importable

make_importable()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from _device_rows import (  # noqa: E402
    SEED,
    cumulative_ms,
    fast_stage_ms,
    machine_of,
    measure_one,
    open_rig,
    versions,
    with_exits,
)
from _gpu_day_result import rounded  # noqa: E402

from hadas.datasets.records import CostRecord  # noqa: E402
from hadas.errors import ConfigError  # noqa: E402
from hadas.measurement.hardware.local.torch_rig import ENGINES, Engine  # noqa: E402
from hadas.measurement.hardware.measuring.protocol import QUICK, MeasuringProtocol  # noqa: E402
from hadas.measurement.hardware.measuring.statistics import half_width  # noqa: E402
from hadas.spaces import MBConvSpace, attentivenas_space, mini_space  # noqa: E402

TOLERANCE = 0.10
CONCLUSIVE = 1.25  # of an interval's upper over its lower end; wider ones say that the machine was busy
BOUNDS = {
    "share_of_repetitions_not_monotone": {"at_most": 0.5},
    "least_upper_end_of_a_ratio": {"at_least": 1.0 - TOLERANCE},
    "missing_rows": {"at_most": 0},
}
# Quantiles of Student's t at 97.5 %, by degrees of freedom.
T_975 = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Form:
    """How much is measured: a space, presets of it, exits of each, repetitions, and the protocol."""

    space: MBConvSpace
    networks: tuple[str, ...]
    n_exits: int
    repetitions: int
    protocol: MeasuringProtocol


FULL = Form(
    attentivenas_space(), ("a0",), 3, 4,
    replace(
        QUICK, name="gap", warm_up_s=0.1, warm_up_limit_s=0.2, stage_warm_up_s=0.1, block_s=0.02, least_blocks=18,
        latency_limit_s=0.6, anchor_every=0,
    ),
)  # fmt: skip
SMALL = Form(mini_space(), ("m0",), 2, 3, replace(QUICK, name="gap-quick", anchor_every=0))


@dataclass
class Pairs:
    """Rows of one network and one engine: (stages, prefix), one pair per repetition."""

    rows: list[tuple[CostRecord, CostRecord]] = field(default_factory=list)

    @property
    def complete(self) -> list[tuple[CostRecord, CostRecord]]:
        """Pairs of which both rows have latencies; a noisy machine's count, the pair shares its noise."""
        return [pair for pair in self.rows if all(row.latency_ms is not None for row in pair)]

    def ratios(self, position: int, *, of: str = "fast", with_decisions: bool = False) -> np.ndarray:
        """(repetitions,) latency of the stages up to an exit over that of its prefix.

        Args:
            of: ``fast`` blocks, or ``medians`` over all of them.
            with_decisions: add those that are taken on the way, the one at the exit included.
        """
        found = []
        for stages, prefix in self.complete:
            decision_ms = (stages.evidence.decision_ms if stages.evidence else None) or 0.0
            n_decisions = sum(1 for exit_position, _ in stages.heads if exit_position <= position)
            added_ms = n_decisions * decision_ms if with_decisions else 0.0
            found.append((latency_ms(stages, position, of) + added_ms) / latency_ms(prefix, position, of))
        return np.array(found)

    @property
    def positions(self) -> list[int]:
        """Of the exits, and of the end."""
        return list(cumulative_ms(self.complete[0][0])) if self.complete else []

    def not_monotone(self) -> int:
        """In how many repetitions some prefix is faster than the one before it, beyond their intervals."""
        return sum(1 for _, prefix in self.complete if not is_monotone(prefix))


def latency_ms(row: CostRecord, position: int, of: str = "fast") -> float:
    """Latency up to a position, of the fast blocks or of the medians."""
    return cumulative_ms(row, fast_stage_ms(row) if of == "fast" else None)[position]


def is_monotone(prefix: CostRecord) -> bool:
    """Whether no later prefix is faster than an earlier one by more than both half-widths."""
    statistics = [stage.latency_ms for stage in prefix.stages]
    return all(
        later.value >= earlier.value - half_width(earlier) - half_width(later)
        for earlier, later in pairwise(statistics)
    )


def interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Geometric mean of ratios and its 95 % interval by Student's t on logarithms."""
    logs = np.log(ratios)
    middle = float(logs.mean())
    if len(logs) - 1 not in T_975:
        return math.exp(middle), 0.0, math.inf
    reach = T_975[len(logs) - 1] * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - reach), math.exp(middle + reach)


def measure(form: Form, device: str) -> tuple[dict[tuple[str, Engine], Pairs], dict[str, Any], list[str]]:
    """All pairs; repetitions in the outer loop, so that slow minutes of the machine fall on all alike."""
    rigs, left_out = {}, []
    for engine in ENGINES:
        try:
            rigs[engine] = open_rig(device, form.space, engine, count_energy=False)
        except ConfigError as error:
            left_out.append(f"{engine}: {error}")
    pairs = {(network, engine): Pairs() for network in form.networks for engine in rigs}
    for repetition in range(form.repetitions):
        for (network, engine), found in pairs.items():
            request = with_exits(form.space, network, form.n_exits)
            session = f"gap-{network}-{engine}-{repetition}"
            stages = measure_one(rigs[engine], form.protocol, request, "stages", session)
            prefix = measure_one(rigs[engine], form.protocol, request, "prefix", session)
            found.rows.append((stages, prefix))
    about = {engine: versions(rig) for engine, rig in rigs.items()}
    for rig in rigs.values():
        rig.close()
    return pairs, about, left_out


def row_of(network: str, engine: str, pairs: Pairs, position: int) -> dict[str, Any]:
    """One line of the table: medians over repetitions, the ratio, and the decisions' cost."""
    ratios = pairs.ratios(position)
    ratio, low, high = interval(ratios)
    decisions = [row.evidence.decision_ms for row, _ in pairs.complete if row.evidence]
    return {
        "network": network, "engine": engine, "position": position,
        "stages_ms": float(np.median([latency_ms(row, position) for row, _ in pairs.complete])),
        "prefix_ms": float(np.median([latency_ms(row, position) for _, row in pairs.complete])),
        "ratio": ratio, "interval95": [low, high],
        "ratio_of_medians": interval(pairs.ratios(position, of="medians"))[0],
        "decision_ms": float(np.median([value for value in decisions if value is not None])),
        "ratio_with_decisions": interval(pairs.ratios(position, with_decisions=True))[0], "n": len(ratios),
    }  # fmt: skip


def figures_of(
    pairs: dict[tuple[str, Engine], Pairs], form: Form
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The figures that bounds are on, and the table."""
    table = [
        row_of(network, engine, found, position)
        for (network, engine), found in pairs.items()
        for position in found.positions
    ]
    share = max(found.not_monotone() / max(1, len(found.complete)) for found in pairs.values())
    rows = [row for found in pairs.values() for pair in found.rows for row in pair]
    final = {
        f"final_ratio_{row['network']}_{row['engine']}": row["ratio"]
        for row in table
        if row["position"] == form.space.presets[row["network"]].n_blocks
    }
    return {
        **final,
        "share_of_repetitions_not_monotone": share,
        "least_upper_end_of_a_ratio": min((row["interval95"][1] for row in table), default=math.nan),
        "conclusive_ratios": sum(row["interval95"][1] <= CONCLUSIVE * row["interval95"][0] for row in table),
        "ratios": len(table),
        "missing_rows": 2 * sum(form.repetitions - len(found.complete) for found in pairs.values()),
        "rows": len(rows),
        "noisy_rows": sum("noisy" in row.evidence.flags for row in rows if row.evidence is not None),
        "invalid_rows": sum(not row.valid for row in rows),
    }, table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="one small network, few repetitions")
    parser.add_argument("--device", choices=("host", "cuda"), default="host")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA GPU here")
    began = time.perf_counter()
    form = SMALL if arguments.quick else FULL
    print(
        f"{machine_of(arguments.device)}: {', '.join(form.networks)} of {form.space.name}, {form.n_exits} exits"
    )
    pairs, about, left_out = measure(form, arguments.device)
    figures, table = figures_of(pairs, form)
    print(
        "network engine       after block  stages ms  prefix ms   ratio  95 % interval   decisions  with them"
    )
    for row in table:
        low, high = row["interval95"]
        print(
            f"{row['network']:8}{row['engine']:13}{row['position']:11}{row['stages_ms']:11.3f}{row['prefix_ms']:11.3f}"
            f"{row['ratio']:8.3f}   {low:.3f} to {high:.3f}{1e3 * row['decision_ms']:13.1f}"
            f"{row['ratio_with_decisions']:11.3f}"
        )
    for note in left_out:
        print(f"left out: {note}")
    holds = all(
        bound.get("at_least", -np.inf) <= figures[name] <= bound.get("at_most", np.inf)
        for name, bound in BOUNDS.items()
    )
    for name, value in figures.items():
        print(f"{name:44} {value:.4g}")
    print(f"holds: {holds}   {time.perf_counter() - began:.0f} s in all")
    if arguments.json:
        result = {
            "benchmark": "program_gap", "form": "quick" if arguments.quick else "full", "device": arguments.device,
            "figures": figures, "bounds": BOUNDS, "holds": holds, "table": table, "left_out": left_out,
            "protocol": form.protocol.protocol_id, "seed": SEED, "machine": machine_of(arguments.device),
            "versions": about,
        }  # fmt: skip
        print(json.dumps(rounded(result)))


if __name__ == "__main__":
    main()
