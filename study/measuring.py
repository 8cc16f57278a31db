"""Measuring what a plan asks for: only what the store lacks, and every row stored as soon as it is there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from ..datasets.believable import judged
from ..spaces import Backbone
from .assembly import ProgressCallback
from .findings import Findings

if TYPE_CHECKING:
    from ..search.designs import Design


def measure_accuracies(
    findings: Findings, backbones: Sequence[Backbone], phase: str, progress: ProgressCallback
) -> None:
    """Measure backbones without a valid row; a failed one is tried again whenever it is asked for."""
    known = findings.accuracy_records(backbones)
    valid = {arch_id for arch_id, record in known.items() if record.valid}
    missing = [b for b in dict.fromkeys(backbones) if b.arch_id not in valid]
    if not missing:
        return
    session = findings.session("accuracy")
    first_row = findings.store.next_accuracy_row(session)
    with closing(findings.meter.measure(missing, session=session, first_row=first_row)) as records:
        for done, record in enumerate(records, start=1):
            findings.store.add_accuracy(record)
            progress(phase, done, len(missing))


def measure_costs(
    findings: Findings,
    designs: Sequence[Design],
    session: str,
    seed: int,
    phase: str,
    progress: ProgressCallback,
) -> None:
    """Measure the designs that have no row to be believed in a session; every row is stored as it comes.

    What is measured again, and when, is decided by the device.

    Raises:
        ConnectionLostError: the device was lost; the rows so far are stored, and the next call goes on.
    """
    from ..measurement.hardware.device import CostRequest, MeasurementPlan

    store, first_exit = findings.store, findings.parts.space.first_exit
    rows = store.costs(session=session)
    done = [CostRequest.of(row, first_exit=first_exit) for row in rows]
    known = {request for request, row in zip(done, judged(rows), strict=True) if row.valid}
    wanted = [CostRequest(d.backbone, d.exits, d.setting) for d in designs]
    requests = (*done, *(request for request in wanted if request not in known))
    plan = MeasurementPlan(session, requests, first_row=len(done), seed=seed, earlier=rows)
    n_measured = len(done)
    if n_measured == len(requests):
        return
    with findings.parts.held_device() as device:
        for record in device.measure(plan):
            store.add_cost(record)
            n_measured += 1
            progress(phase, n_measured, max(n_measured, len(requests)))
