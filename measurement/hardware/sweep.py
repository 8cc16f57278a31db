"""Measuring named networks into a log, without a study around them.

The log is the memory: the same call with the same log goes on where an earlier one ended.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...datasets.believable import believable, is_anchor
from ...datasets.logs.jsonl import LogWriter, read_records
from ...datasets.records import CostRecord, Program
from ...errors import ConfigError
from ...spaces import BackboneSpace
from .device import CostRequest, Device, MeasurementPlan


def sweep_into_log(
    device: Device, space: BackboneSpace, requests: Sequence[CostRequest], *, program: Program, repeat: int, log: Path,
    seed: int,
) -> Iterator[CostRecord]:  # fmt: skip
    """Measure every request ``repeat`` times, one sweep over all of them after the other.

    Repeats lie a sweep apart, so that they show what a device does over time and not over seconds.

    Args:
        program: what the device compiles.
        log: rows go there as they come; believable rows in it already count.

    Yields:
        Every row, anchors and invalid ones among them, once it is in the log.

    Raises:
        ConfigError: the log holds rows of another device, or of other programs.
        DataError, RecordError: the log cannot be read or written.
    """
    rows = list(read_records(log)) if log.is_file() else []
    _check_alike(rows, device, program, log)
    session = rows[0].session.partition("@")[0] if rows else f"{log.stem}-{uuid.uuid4().hex[:8]}"
    with LogWriter(log) as writer:
        for n_wanted in range(1, repeat + 1):
            n_done = Counter(
                CostRequest.of(row, first_exit=space.first_exit)
                for row in believable(rows)
                if not is_anchor(row)
            )
            pending = tuple(request for request in requests if n_done[request] < n_wanted)
            if not pending:
                continue
            before = tuple(CostRequest.of(row, first_exit=space.first_exit) for row in rows)
            plan = MeasurementPlan(session, (*before, *pending), len(rows), seed, tuple(rows))
            for row in device.measure(plan):
                writer.append(row)
                rows.append(row)
                yield row


def _check_alike(rows: Sequence[CostRecord], device: Device, program: Program, log: Path) -> None:
    for row in rows:
        if row.program != program:
            raise ConfigError(f"log {log}: holds rows of '{row.program}' programs; name another log")
        if row.target != device.target:
            raise ConfigError(
                f"log {log}: holds rows of {row.target.target_id}, this device is {device.target.target_id}; "
                "name another log"
            )
