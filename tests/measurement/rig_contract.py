"""What every rig and every device promises; the tests of each run it through these functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from hadas.datasets.records import CostRecord, Program, Truth
from hadas.errors import HadasError, OffTableFrequencyError
from hadas.measurement.hardware.device import CostRequest, Device, MeasurementPlan
from hadas.measurement.hardware.rig import Block, EnergySource, PowerTrace, Programs, Rig
from hadas.spaces import BackboneSpace, MBConvSpace, Setting, attentivenas_space, mini_space


def check_rig(
    rig: Rig, request: CostRequest, *, space: MBConvSpace, n_classes: int, program: Program = "stages",
    idle_s: float = 0.3,
) -> None:  # fmt: skip
    """Everything that the protocol relies on; the rig is closed in the end.

    Args:
        request: a network with at least one exit, at a setting of the rig's table.
    """
    assert request.exits.positions, "the contract needs a network with an exit"
    try:
        _check_identity(rig)
        _check_clocks(rig, request.setting)
        for _ in range(2):  # loading again after unloading works
            with rig.load(request, program) as programs:
                _check_programs(rig, programs, request, space, n_classes, program, idle_s)
    finally:
        rig.close()
    rig.close()  # closing twice is harmless


def _check_identity(rig: Rig) -> None:
    assert rig.target == rig.target
    assert isinstance(rig.truth, Truth)
    source = rig.energy
    if source is not None:
        assert source.scope, "an energy source sums at least one rail"
        assert set(source.scope) <= set(source.rails)
        assert len(set(source.rails)) == len(source.rails)
        assert source.averaging_s >= 0
        assert source.update_s > 0


def _check_clocks(rig: Rig, setting: Setting) -> None:
    table = rig.clock_table()
    table.check(setting)
    before = rig.state()
    if table.domains:
        name, hz = setting.clocks_hz[0]
        off = Setting(((name, hz + 1), *setting.clocks_hz[1:]))
        with pytest.raises(OffTableFrequencyError):
            rig.set_clocks(off)
        assert rig.state().actual == before.actual, "a refused setting changes nothing"
    reading = rig.set_clocks(setting)
    assert reading.requested == setting
    assert reading.verified or reading.flags, "clocks that are off say why"
    state = rig.state()
    assert state.temperature_c is None or -40 < state.temperature_c < 150
    assert state.overcurrent_events is None or state.overcurrent_events >= 0
    assert all(np.isfinite(value) for _, value in state.machine)
    assert len(dict(state.machine)) == len(state.machine)
    if table.domains:
        assert state.actual is not None
        assert [n for n, _ in state.actual.clocks_hz] == [domain.name for domain in table.domains]


def _check_programs(
    rig: Rig, programs: Programs, request: CostRequest, space: MBConvSpace, n_classes: int, program: Program,
    idle_s: float,
) -> None:  # fmt: skip
    stages = space.workload(request.backbone, n_classes=n_classes).stages(request.exits.positions)
    found = [(stage.kind, stage.position) for stage in programs.stages]
    if program == "stages":
        assert found == [(stage.kind, stage.position) for stage in stages]
    else:
        assert found == [("prefix", p) for p in (*request.exits.positions, request.backbone.n_blocks)]
    assert programs.engine
    trace = rig.idle(idle_s)
    assert (trace is None) == (rig.energy is None)
    if trace is not None and rig.energy is not None:
        _check_trace(trace, rig.energy)
        assert trace.time_s[-1] - trace.time_s[0] >= idle_s - 3 * rig.energy.update_s
    for index in range(len(found)):
        _check_loop(rig, programs, index, n_runs=3 if index else 1)
    decision_s = programs.decision_s()
    assert decision_s is not None
    assert 0 < decision_s < 1


def _check_loop(rig: Rig, programs: Programs, index: int, n_runs: int) -> None:
    """A loop begins, is looked at, and stops when it is left, also early."""
    with programs.loop(index, n_runs, 0.1) as running:
        first = next(iter(running))
    assert len(first.run_s) == n_runs
    with programs.loop(index, n_runs, 0.5) as running:
        blocks = list(islice(running, 4))
        rig.state()  # may be asked while a program runs
        trace = running.trace()
    _check_blocks([first, *blocks], n_runs)
    assert (trace is None) == (rig.energy is None)
    if trace is not None and rig.energy is not None:
        _check_trace(trace, rig.energy)
        reach_s = 3 * rig.energy.update_s + 1.0
        if trace.time_s:
            assert abs(trace.time_s[0] - blocks[0].start_s) < reach_s, "readings and blocks are on one clock"


def _check_blocks(blocks: Sequence[Block], n_runs: int) -> None:
    for block in blocks:
        assert len(block.run_s) == n_runs
        assert min(block.run_s) > 0
        assert sum(block.run_s) <= (block.end_s - block.start_s) * 1.02 + 1e-4
    for earlier, later in pairwise(blocks):
        assert later.start_s >= earlier.end_s - 1e-9


def _check_trace(trace: PowerTrace, source: EnergySource) -> None:
    assert len(trace.power_w) == len(source.rails)
    assert all(len(rail) == len(trace.time_s) for rail in trace.power_w)
    assert all(a < b for a, b in pairwise(trace.time_s))
    assert all(np.isfinite(value) and value >= 0 for rail in trace.power_w for value in rail)


def check_device(
    device: Device, requests: Sequence[CostRequest], *, space: BackboneSpace, session: str = "contract"
) -> list[CostRecord]:
    """Measure the requests in a session of two sittings, and check every row.

    Args:
        requests: at least two, all measurable.

    Returns:
        The rows, for further checks.
    """
    assert len(requests) >= 2
    _check_refusals(device, requests[0], space)
    plan = MeasurementPlan(session, tuple(requests), seed=3)
    sitting = device.measure(plan)
    first = next(iter(sitting))
    if hasattr(sitting, "close"):
        sitting.close()  # a caller may stop after any row
    rest = [request for request in requests if not _is_of(first, request)]
    assert len(rest) == len(requests) - 1, "the first row is of one of the requests"
    again = replace(plan, requests=(requests[0], *rest), first_row=1, earlier=(first,))
    rows = [first, *device.measure(again)]
    assert [row.row_no for row in rows] == list(range(len(rows)))
    for request in requests:
        assert any(_is_of(row, request) for row in rows), "every request has a row"
    for row in rows:
        row.check()
        assert row.session == session
        assert row.target == device.target
        assert row.truth == device.truth
        assert row.device_seconds > 0
        if row.valid:
            _check_costs(row, device.counts_energy)
    return rows


def _is_of(row: CostRecord, request: CostRequest) -> bool:
    return (row.backbone, row.heads, row.requested) == (
        request.backbone, request.exits.heads, request.setting,
    )  # fmt: skip


def _check_costs(row: CostRecord, counts_energy: bool) -> None:
    assert row.latency_ms is not None
    assert (row.energy_mj is not None) == counts_energy
    counted = row.stages[-1:] if row.program == "prefix" else row.stages
    assert row.latency_ms.value == pytest.approx(sum(stage.latency_ms.value for stage in counted))
    if row.energy_mj is not None:
        energies = [stage.energy_mj for stage in counted]
        assert row.energy_mj.value == pytest.approx(sum(e.value for e in energies if e is not None))
    if row.evidence is not None:
        assert len(row.evidence.stages) == len(row.stages)
        for stage, evidence in zip(row.stages, row.evidence.stages, strict=True):
            low, high = evidence.latency.interval95_ms
            assert low <= stage.latency_ms.value <= high
            assert (evidence.energy is not None) == counts_energy


def _check_refusals(device: Device, request: CostRequest, space: BackboneSpace) -> None:
    """Bad requests are refused before anything is measured."""
    table = device.clock_table()
    foreign = attentivenas_space() if space.name == mini_space().name else mini_space()
    other = foreign.smallest
    with pytest.raises(HadasError):
        device.measure(MeasurementPlan("refused", (request, replace(request, backbone=other))))
    if table.domains:
        name, hz = request.setting.clocks_hz[0]
        off = Setting(((name, hz + 1), *request.setting.clocks_hz[1:]))
        with pytest.raises(OffTableFrequencyError):
            device.measure(MeasurementPlan("refused", (request, replace(request, setting=off))))
