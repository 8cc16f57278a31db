"""What do a0 to a6 with two exits each cost on this machine's GPU, or on its CPU, in time and energy?

One command within a budget of seconds; no setting of the card is changed, and where nvidia-smi is there, its
settings are compared before and after.  Every network is measured by the protocol of the studies, as `stages`
(one program per segment and head): latency until the interval of the median is narrow, energy over one
continuous window per stage.  The window is as long as the budget allows, 10 s at the most; where the card
has no energy counter, its power is averaged over a second, and a window holds fewer averages than the protocol
would like: the result says how many.

Energy on a GPU comes from `nvidia-ml-py` if it is installed, else from the program `nvidia-smi`; on a CPU
from the kernel's powercap files.  Where nothing counts, latency alone is measured, and the result says why.

`holds` is decided by counts and ratios alone: all networks are there, the largest costs more than the
smallest, and on a GPU energies are there and its settings are as they were.  `--quick` measures the presets of
the mini space, in a second or two each.  When the budget is spent, the result is printed all the same: what was
not reached is missing, and it does not hold.  Runs from a bare checkout with torch, numpy, pyarrow and
pillow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _checkout import make_importable

make_importable()

import torch  # noqa: E402
from _device_rows import (  # noqa: E402
    N_CLASSES,
    SEED,
    cumulative_ms,
    machine_of,
    measure_one,
    open_rig,
    versions,
    with_exits,
)
from _gpu_day_result import rounded  # noqa: E402

from hadas.datasets.records import CostRecord  # noqa: E402
from hadas.measurement.hardware.local.cuda import CudaRig  # noqa: E402
from hadas.measurement.hardware.local.host_cpu import HostCpuRig  # noqa: E402
from hadas.measurement.hardware.measuring.protocol import FULL, QUICK, MeasuringProtocol  # noqa: E402
from hadas.spaces import MBConvSpace, attentivenas_space, mini_space  # noqa: E402

N_EXITS = 2
N_STAGES = 2 * N_EXITS + 1
LONGEST_WINDOW_S, SHORTEST_WINDOW_S = 10.0, 2.0
RESERVE_S = 25.0  # of the budget: importing, making the context of the card, printing
_BESIDE_WINDOW_S = 1.5  # per stage: warm-up, sizing blocks, the last reading
_BESIDE_STAGES_S = 6.0  # per network: building it, its first warm-up, the idle device
_SETTINGS = (
    "persistence_mode,compute_mode,power.limit,enforced.power.limit,clocks.applications.graphics,"
    "clocks.applications.memory"
)


@dataclass(frozen=True)
class Form:
    """What is measured: a space and presets of it, and how often."""

    space: MBConvSpace
    networks: tuple[str, ...]
    repetitions: int


WHOLE = Form(attentivenas_space(), tuple(f"a{i}" for i in range(7)), 1)
SMALL = Form(mini_space(), ("m0", "m3", "m6"), 3)


def table_protocol(budget_s: float, n_rows: int, rig: HostCpuRig | CudaRig) -> MeasuringProtocol:
    """The protocol of the studies, with windows that fit the budget."""
    averaging_s = rig.energy.averaging_s if rig.energy else 0.0
    per_stage_s = (
        ((budget_s - RESERVE_S) / n_rows - _BESIDE_STAGES_S) / N_STAGES - _BESIDE_WINDOW_S - averaging_s
    )
    window_s = min(LONGEST_WINDOW_S, max(SHORTEST_WINDOW_S, per_stage_s))
    return replace(
        FULL, name="table", warm_up_limit_s=5.0, gate_limit_s=5.0, idle_s=3.0, anchor_every=0, window_s=window_s,
        window_intervals=0, latency_limit_s=window_s,
    )  # fmt: skip


def card_settings(device: str) -> str | None:
    """What nvidia-smi says of the card's settings; ``None`` where it says nothing."""
    if device != "cuda":
        return None
    uuid = "GPU-" + str(torch.cuda.get_device_properties(0).uuid).removeprefix("GPU-")
    command = ["nvidia-smi", f"--id={uuid}", f"--query-gpu={_SETTINGS}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def measure(
    form: Form, rig: HostCpuRig | CudaRig, protocol: MeasuringProtocol, deadline_s: float
) -> dict[str, list[CostRecord]]:
    """Rows by network; none begins that would not end before the deadline, if it takes as long as the longest.

    A row that is not to be believed is measured again, and may end one row's time after the deadline.
    """
    rows: dict[str, list[CostRecord]] = {network: [] for network in form.networks}
    longest_s = 0.0
    for repetition in range(form.repetitions):
        for network in form.networks:
            if time.monotonic() + longest_s > deadline_s:
                print(f"the budget is spent: {network} is left out")
                continue
            request = with_exits(form.space, network, N_EXITS)
            row = measure_one(rig, protocol, request, "stages", f"table-{network}-{repetition}")
            rows[network].append(row)
            longest_s = max(longest_s, row.device_seconds)
            print(
                f"{network}: {'ok' if row.valid else row.reason} after {row.device_seconds:.0f} s", flush=True
            )
    return rows


def line_of(network: str, form: Form, rows: list[CostRecord]) -> dict[str, Any]:
    """One network: medians over its valid rows; what was not measured is null."""
    valid = [row for row in rows if row.valid and row.latency_ms is not None]
    request = with_exits(form.space, network, N_EXITS)
    work = form.space.workload(request.backbone, n_classes=N_CLASSES)
    line: dict[str, Any] = {
        "network": network, "resolution": request.backbone.resolution, "mmacs": work.macs / 1e6,
        "exits": request.exits.positions, "rows": len(valid), "flags": sorted(flags_of(rows)),
        "reasons": [row.reason for row in rows if not row.valid],
    }  # fmt: skip
    if not valid:
        return line
    line["cumulative_ms"] = [
        statistics.median(values) for values in zip(*map(_cumulative, valid), strict=True)
    ]
    line["latency_ms"] = statistics.median(row.latency_ms.value for row in valid if row.latency_ms)
    line["least_latency_ms"] = min(row.latency_ms.value for row in valid if row.latency_ms)
    line["latency_half_width_ms"] = max(
        1.96 * row.latency_ms.standard_error for row in valid if row.latency_ms
    )
    first = valid[0]
    line["stages"] = [stage_of(first, index) for index in range(len(first.stages))]
    line["energy_mj"] = None if first.energy_mj is None else first.energy_mj.value
    line["energy_half_width_mj"] = None if first.energy_mj is None else 1.96 * first.energy_mj.standard_error
    if first.evidence is not None:
        energies = [stage.energy for stage in first.evidence.stages]
        nets = [energy.net_mj for energy in energies if energy is not None and energy.net_mj is not None]
        line["net_energy_mj"] = sum(nets) if len(nets) == len(first.stages) else None
        line["idle_w"] = energies[0].idle_w if energies[0] is not None else None
        line["decision_ms"] = first.evidence.decision_ms
        line["temperature_c"] = first.evidence.temperature_c
        line["machine"] = dict(first.evidence.machine)
    return line


def _cumulative(row: CostRecord) -> list[float]:
    return list(cumulative_ms(row).values())


def flags_of(rows: list[CostRecord]) -> set[str]:
    return {flag for row in rows if row.evidence is not None for flag in row.evidence.flags}


def stage_of(row: CostRecord, index: int) -> dict[str, Any]:
    """Latency and energy of one stage, and how the energy was found."""
    stage = row.stages[index]
    found: dict[str, Any] = {
        "kind": stage.kind, "position": stage.position, "latency_ms": stage.latency_ms.value,
        "energy_mj": None if stage.energy_mj is None else stage.energy_mj.value,
    }  # fmt: skip
    energy = row.evidence.stages[index].energy if row.evidence is not None else None
    if energy is not None:
        found |= {"window_s": energy.window_s, "n_samples": energy.n_samples, "n_distinct": energy.n_distinct}
    return found


def judge(
    lines: list[dict[str, Any]], form: Form, device: str, settings: tuple[str | None, str | None]
) -> dict[str, bool]:
    """Counts and ratios; how long anything takes, and how much it draws, decides nothing."""
    smallest, largest = lines[0], lines[-1]
    checks = {
        "all_networks": all(line["rows"] >= 1 for line in lines),
        # Other work on the cores makes a row slower, never faster.
        "largest_takes_longer": largest.get("least_latency_ms", 0.0)
        > smallest.get("least_latency_ms", float("inf")),
    }
    if device == "cuda":
        checks["energies"] = all(line.get("energy_mj") for line in lines)
        checks["largest_draws_more"] = (largest.get("energy_mj") or 0.0) > (
            smallest.get("energy_mj") or float("inf")
        )
        checks["settings_unchanged"] = settings[0] == settings[1]
    return checks


def show(lines: list[dict[str, Any]]) -> None:
    """The table."""
    print(
        "network   res  M MACs  exits     ms at exit 1, 2, end             energy mJ  net of idle  rows  flags"
    )
    for line in lines:
        steps = " ".join(f"{value:9.3f}" for value in line.get("cumulative_ms", ()))
        print(
            f"{line['network']:8}{line['resolution']:5}{line['mmacs']:8.1f}  {line['exits']!s:9}{steps:30}"
            f"{number(line.get('energy_mj')):>12}{number(line.get('net_energy_mj')):>13}{line['rows']:6}  "
            f"{' '.join(line['flags'])}"
        )


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    parser.add_argument("--quick", action="store_true", help="the mini space, on the CPU")
    parser.add_argument("--device", choices=("host", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--engine", choices=("eager", "torchscript"), default="eager")
    parser.add_argument("--budget-s", type=float, default=480.0, help="seconds in all")
    arguments = parser.parse_args()
    if arguments.quick and arguments.device == "cuda":
        parser.error("--quick is the form for the CPU; leave one of the two out")
    device = arguments.device or ("cuda" if torch.cuda.is_available() and not arguments.quick else "host")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA GPU here")
    began = time.monotonic()
    form = SMALL if arguments.quick else WHOLE
    before = card_settings(device)
    rig = open_rig(device, form.space, arguments.engine, count_energy=not arguments.quick)
    n_rows = form.repetitions * len(form.networks)
    protocol = (
        replace(QUICK, anchor_every=0) if arguments.quick else table_protocol(arguments.budget_s, n_rows, rig)
    )
    source = rig.energy
    print(
        f"{machine_of(device)}, {rig.target.release}, {rig.target.runtime}; energy: {source.name if source else 'none'}"
    )
    for note in rig.notes:
        print(note)
    rows = measure(form, rig, protocol, began + arguments.budget_s - RESERVE_S / 2)
    about = versions(rig)
    rig.close()
    settings = before, card_settings(device)
    lines = [line_of(network, form, rows[network]) for network in form.networks]
    show(lines)
    checks = judge(lines, form, device, settings)
    result = rounded(
        {
            "benchmark": "device_table",
            "form": "quick" if arguments.quick else "whole",
            "device": device,
            "figures": {
                "networks": sum(line["rows"] >= 1 for line in lines),
                "latency_ratio_largest_to_smallest": ratio(lines, "least_latency_ms"),
                "energy_ratio_largest_to_smallest": ratio(lines, "energy_mj"),
                "noisy_networks": sum("noisy" in line["flags"] for line in lines),
                "total_s": time.monotonic() - began,
            },
            "bounds": {"networks": len(form.networks), "latency_ratio_largest_to_smallest": {"above": 1.0}},
            "checks": checks,
            "holds": all(checks.values()),
            "table": lines,
            "energy_source": None
            if source is None
            else {"name": source.name, "averaging_s": source.averaging_s},
            "notes": rig.notes,
            "settings": settings,
            "protocol": {"id": protocol.protocol_id, "window_s": protocol.window_s},
            "seed": SEED,
            "machine": machine_of(device),
            "versions": about,
        }
    )
    for name, value in result["figures"].items():
        print(f"{name:36} {value}")
    print(f"holds: {result['holds']}   {result['checks']}")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(result))


def ratio(lines: list[dict[str, Any]], name: str) -> float | None:
    """The largest network's over the smallest's."""
    smallest, largest = lines[0].get(name), lines[-1].get(name)
    return largest / smallest if smallest and largest else None


if __name__ == "__main__":
    main()
