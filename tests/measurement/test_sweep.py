"""Measuring named networks into a log, and going on with it."""

from dataclasses import replace

import pytest

from hadas.datasets.believable import believable, is_anchor
from hadas.datasets.logs.jsonl import read_records
from hadas.errors import ConfigError, OffTableFrequencyError
from hadas.measurement.hardware.device import MeasurementPlan
from hadas.measurement.hardware.measuring.protocol import QUICK
from hadas.measurement.hardware.measuring.runner import MeasuredDevice
from hadas.measurement.hardware.named import named_requests
from hadas.measurement.hardware.narrowed import NarrowedDevice
from hadas.measurement.hardware.sweep import sweep_into_log
from hadas.spaces import ClockDomain, ClockTable, mini_space

from .virtual_rig import BROKEN, TABLE, Faults, VirtualRig

SPACE = mini_space()
REQUESTS = named_requests(SPACE, TABLE, networks="m0,m3,m6", exits="even:2", clocks="max")


def device(**faults):
    rig = VirtualRig(faults=Faults(**faults))
    return MeasuredDevice(rig, replace(QUICK, anchor_every=4), space=SPACE, n_classes=10, clock=rig.clock)


def sweep(log, repeat=2, on=None, program="stages"):
    return sweep_into_log(on or device(), SPACE, REQUESTS, program=program, repeat=repeat, log=log, seed=0)


def n_believed(log):
    """Believable rows per network, anchors left out."""
    rows = [row for row in believable(read_records(log)) if not is_anchor(row)]
    return [sum(row.backbone == request.backbone for row in rows) for request in REQUESTS]


def test_repeats_lie_a_sweep_apart(tmp_path):
    rows = [row for row in sweep(tmp_path / "rows.jsonl", repeat=3) if not is_anchor(row)]
    assert n_believed(tmp_path / "rows.jsonl") == [3, 3, 3]
    for k in range(3):
        assert {row.backbone for row in rows[3 * k : 3 * k + 3]} == {r.backbone for r in REQUESTS}


@pytest.mark.parametrize("n_rows", [0, 1, 3, 6])
def test_a_sweep_that_was_cut_off_goes_on_with_its_log(tmp_path, n_rows):
    log = tmp_path / "rows.jsonl"
    cut_off = sweep(log)
    for _ in range(n_rows):
        next(cut_off, None)
    cut_off.close()
    list(sweep(log))
    assert n_believed(log) == [2, 2, 2]
    rows = read_records(log)
    assert [row.row_no for row in rows] == list(range(len(rows)))
    assert len({row.session for row in rows}) == 1
    assert list(sweep(log)) == []


def test_what_failed_is_kept_and_asked_for_again_next_time(tmp_path):
    log = tmp_path / "rows.jsonl"
    list(sweep(log, repeat=1, on=device(fail_on_load=lambda load: BROKEN)))
    assert n_believed(log) == [0, 0, 0]
    n_failed = len(read_records(log))
    assert n_failed == 2 * len(REQUESTS)  # each is tried twice
    list(sweep(log, repeat=1))
    assert n_believed(log) == [1, 1, 1]
    assert len(read_records(log)) > n_failed


def test_a_log_of_another_device_is_refused(tmp_path):
    log = tmp_path / "rows.jsonl"
    list(sweep(log, repeat=1))
    before = log.read_bytes()
    other = device()
    other.rig.__class__ = type("Other", (VirtualRig,), {"target": replace(other.target, dtype="fp16")})
    with pytest.raises(ConfigError, match="name another log"):
        list(sweep(log, repeat=1, on=other))
    assert log.read_bytes() == before


def test_a_log_of_other_programs_is_refused(tmp_path):
    log = tmp_path / "rows.jsonl"
    list(sweep(log, repeat=1))
    with pytest.raises(ConfigError, match="'stages' programs"):
        list(sweep(log, repeat=1, program="prefix"))


def test_fewer_clocks_may_be_on_offer():
    few = ClockTable("few", (ClockDomain("gpu", (200_000_000,)), TABLE.domains[1]))
    narrowed = NarrowedDevice(device(), few)
    assert len(narrowed.clock_table()) == 2
    assert narrowed.target == device().target
    with pytest.raises(OffTableFrequencyError, match="400000000 Hz"):
        narrowed.measure(MeasurementPlan("s", REQUESTS))
    with pytest.raises(ConfigError, match="domains"):
        NarrowedDevice(device(), ClockTable("other", TABLE.domains[:1]))
