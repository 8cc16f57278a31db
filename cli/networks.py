"""Measuring named networks on a device, without a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from ..errors import ConfigError
from .printing import console, print_table, showing_progress

if TYPE_CHECKING:
    from ..datasets.records import CostRecord, Program, Statistic
    from ..measurement.hardware.device import CostRequest
    from ..measurement.hardware.measuring.statistics import Agreement
    from ..spaces import Backbone, MBConvSpace


@dataclass(frozen=True)
class NamedNetworks:
    """What is to be measured, as the command line names it.

    Attributes:
        space, networks, exits, clocks: see :mod:`hadas.measurement.hardware.named`.
        n_classes: outputs of each classifier.
        repeat: sweeps over all of it.
    """

    space: str
    networks: str
    exits: str
    clocks: str
    n_classes: int
    repeat: int


def measure_networks(
    wanted: NamedNetworks, devices: Sequence[str], devices_file: Path | None, *, program: Program, protocol: str,
    log: Path | None, seed: int, wait_s: float,
) -> None:  # fmt: skip
    """Measure on one device, or on several of one kind, into a log; print what the log says then.

    Raises:
        HadasError: what cannot be measured, and why.
    """
    from ..datasets.believable import is_anchor
    from ..measurement.farm.opening import hold_devices
    from ..measurement.hardware.measuring.protocol import PROTOCOLS
    from ..measurement.hardware.named import named_requests
    from ..measurement.hardware.sweep import sweep_into_log
    from ..spaces import space_by_name

    if protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol {protocol}: known are {', '.join(PROTOCOLS)}")
    space = space_by_name(wanted.space)
    log = log or Path("runs/measured") / f"{'+'.join(devices)}-{wanted.space}-{program}.jsonl"
    with hold_devices(
        devices, devices_file, PROTOCOLS[protocol], space=space, n_classes=wanted.n_classes, program=program,
        purpose="hadas measure", wait_s=wait_s, raw_directory=log.with_suffix(".power"),
    ) as held:  # fmt: skip
        requests = named_requests(
            space, held.clock_table(), networks=wanted.networks, exits=wanted.exits, clocks=wanted.clocks
        )
        n_new, n_anchors, n_wanted = 0, 0, len(requests) * wanted.repeat
        with showing_progress() as progress:
            for row in sweep_into_log(
                held, space, requests, program=program, repeat=wanted.repeat, log=log, seed=seed
            ):
                n_new += 1
                n_anchors += is_anchor(row)
                progress(f"measuring on {', '.join(devices)}", n_new, max(n_new, n_wanted))
        target = held.target
    groups = _rows_of(requests, log)
    names = _names(space)
    title = f"{target.board} {target.processor}, {target.runtime}, {program}"
    rows = [row for group in groups for row in group]
    columns = _columns(rows)
    print_table(title, columns, [[_cells(row, names)[column] for column in columns] for row in rows])
    for line in agreement_lines(groups, names):
        _say(f"- {line}")
    anchors = f", {n_anchors} of them of the anchor that watches for drift" if n_anchors else ""
    _say(
        f"{n_new} new rows{anchors}. All rows with their evidence: {log} (hadas logs import {log} puts them into a store)"
    )


def _rows_of(requests: Iterable[CostRequest], log: Path) -> list[list[CostRecord]]:
    """Rows of the log per request, those that a drift undid marked invalid, anchors left out."""
    from ..datasets.believable import is_anchor, judged
    from ..datasets.logs.jsonl import read_records

    groups: dict[object, list[CostRecord]] = {
        (request.backbone, request.exits.heads, request.setting): [] for request in requests
    }
    for row in judged(read_records(log)):
        key = (row.backbone, row.heads, row.requested)
        if key in groups and not is_anchor(row):
            groups[key].append(row)
    return list(groups.values())


def _names(space: MBConvSpace) -> dict[Backbone, str]:
    presets = {backbone: name for name, backbone in space.presets.items()}
    return {space.smallest: "smallest", space.largest: "largest"} | presets


def _columns(rows: Sequence[CostRecord]) -> list[str]:
    """Headings of the columns that say something about these rows; ± is half of the 95 % interval."""
    clocks = ["clocks"] if any(row.requested.clocks_hz for row in rows) else []
    energy = ["energy, mJ"] if any(row.energy_mj is not None for row in rows) else []
    return ["network", "exits after block", *clocks, "latency, ms", *energy, "decision, ms", "remarks"]


def _cells(row: CostRecord, names: Mapping[Backbone, str]) -> dict[str, str]:
    """One row for people, by column."""
    evidence = row.evidence
    decision_ms = None if evidence is None else evidence.decision_ms
    flags = ", ".join(evidence.flags) if evidence is not None else ""
    return {
        "network": names.get(row.backbone, row.backbone.arch_id),
        "exits after block": ", ".join(str(position) for position, _ in row.heads) or "none",
        "clocks": str(row.requested),
        "latency, ms": _cell(row.latency_ms) or "failed",
        "energy, mJ": _cell(row.energy_mj),
        "decision, ms": "" if decision_ms is None else f"{decision_ms:.2g}",
        "remarks": flags if row.valid else f"INVALID: {row.reason}",
    }


def _cell(statistic: Statistic | None) -> str:
    from ..measurement.hardware.measuring.statistics import half_width

    return "" if statistic is None else f"{statistic.value:.4g} ± {half_width(statistic):.2g}"


def agreement_lines(groups: Iterable[Sequence[CostRecord]], names: Mapping[Backbone, str]) -> list[str]:
    """Whether repeats of the same thing agree within their intervals, one line per pair of valid neighbours."""
    from ..measurement.hardware.measuring.statistics import agreement

    lines = []
    for rows in groups:
        valid = [row for row in rows if row.valid]
        if len(rows) > 1 and len(valid) < 2:
            name = names.get(rows[0].backbone, rows[0].backbone.arch_id)
            lines.append(f"{name}: {len(valid)} of {len(rows)} rows valid, nothing to compare")
        for first, second in pairwise(valid):
            lines.append(
                _compared(agreement(first, second), names.get(first.backbone, first.backbone.arch_id))
            )
    return lines


def _compared(found: Agreement, name: str) -> str:
    what = f"{name} measured again: {found.difference:+.1%}"
    if found.agree:
        return f"{what}, within the reported intervals"
    if found.noisy:
        return f"{what}, outside the reported intervals; a row says that the machine was noisy"
    return f"{what}, OUTSIDE the reported intervals, and no row says why"


def _say(text: str) -> None:
    console.print(escape(text), soft_wrap=True, highlight=False)
