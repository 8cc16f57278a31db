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
    from .budget import Budget


def measure_accuracies(
    findings: Findings, backbones: Sequence[Backbone], phase: str, progress: ProgressCallback,
    budget: Budget | None = None,
) -> None:  # fmt: skip
    """Measure backbones without a valid row; a failed one is tried again whenever it is asked for.

    Raises:
        BudgetSpent: no more fits into the budget; the rows so far are stored.
    """
    known = findings.accuracy_records(backbones)
    valid = {arch_id for arch_id, record in known.items() if record.valid}
    missing = [b for b in dict.fromkeys(backbones) if b.arch_id not in valid]
    if not missing:
        return
    session, n_done = findings.session("accuracy"), 0
    while n_done < len(missing):
        n = len(missing) if budget is None else budget.n_jobs(len(missing) - n_done)
        begun = missing[n_done : n_done + n]
        first_row = findings.store.next_accuracy_row(session)
        with closing(findings.meter.measure(begun, session=session, first_row=first_row)) as records:
            for record in records:
                findings.store.add_accuracy(record)
                n_done += 1
                progress(phase, n_done, len(missing))


def measure_costs(
    findings: Findings,
    designs: Sequence[Design],
    session: str,
    seed: int,
    phase: str,
    progress: ProgressCallback,
    budget: Budget | None = None,
) -> None:
    """Measure the designs that have no row to be believed in a session; every row is stored as it comes.

    What is measured again, and when, is decided by the device.

    Raises:
        ConnectionLostError: the device was lost; the rows so far are stored, and the next call goes on.
        BudgetSpent: no more fits into the budget; likewise.
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
    if budget is not None:
        budget.begin_rows()
        budget.check_row(())
    taken_s: list[float] = []
    with findings.parts.held_device() as device:
        for record in device.measure(plan):
            store.add_cost(record)
            n_measured += 1
            taken_s.append(record.device_seconds)
            progress(phase, n_measured, max(n_measured, len(requests)))
            if budget is not None and n_measured < len(requests):
                budget.check_row(taken_s)
