"""Replay: recorded rows answer as a device would, and what was not recorded is said so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from hadas.datasets.evidence import Evidence
from hadas.datasets.logs.jsonl import write_records
from hadas.datasets.records import CostRecord, Truth
from hadas.errors import ConfigError, OffTableFrequencyError
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.replay import COMPOSED, ReplayDevice
from hadas.measurement.hardware.simulation.simulator import simulated_device
from hadas.search.designs import Design
from hadas.spaces import Exits, mini_space
from hadas.study import Study
from hadas.study.config import template
from hadas.study.measuring import measure_costs

SPACE = mini_space()
SIMULATED = simulated_device("tx2-pascal-gpu", space=SPACE, n_classes=10)
TABLE = SIMULATED.clock_table()
LOW, HIGH = TABLE.settings[-13], TABLE.settings[-1]  # another GPU and another memory clock
BACKBONE = SPACE.presets["m1"]


def request(*positions, backbone=BACKBONE, setting=HIGH) -> CostRequest:
    exits = Exits.at(positions, first_exit=SPACE.first_exit, n_blocks=backbone.n_blocks)
    return CostRequest(backbone, exits, setting)


def measured(*requests, session="rig/0", truth=Truth.DEVICE) -> list[CostRecord]:
    """Rows as a board would have given them: the simulator's, under the truth of a board."""
    rows = SIMULATED.measure(MeasurementPlan(session, requests))
    return [replace(row, truth=truth) for row in rows]


def replayed(rows, *requests, first_row=0, **options) -> list[CostRecord]:
    device = ReplayDevice(rows, space=SPACE, n_classes=10, **options)
    return list(device.measure(MeasurementPlan("study/1", requests, first_row=first_row)))


def test_recorded_rows_are_given_as_they_were_but_for_their_session_and_truth(tmp_path):
    rows = measured(request(5), request(5, 9), request(setting=LOW))
    write_records(tmp_path / "rig.jsonl", rows)
    device = ReplayDevice.from_log(tmp_path / "rig.jsonl", space=SPACE, n_classes=10)
    assert (device.truth, device.target, device.counts_energy) == (Truth.REPLAY, SIMULATED.target, True)
    found = list(device.measure(MeasurementPlan("study/1", (request(setting=LOW), request(5)))))
    for row_no, (row, recorded) in enumerate(zip(found, (rows[2], rows[0]), strict=True)):
        assert row == replace(recorded, session="study/1", row_no=row_no, truth=Truth.REPLAY)


def test_repeats_come_in_their_order_and_then_no_more():
    rows = measured(request(5), request(), request(5))
    assert rows[0].latency_ms != rows[2].latency_ms
    found = replayed(rows, request(5), request(5), request(5))
    assert [row.latency_ms for row in found[:2]] == [rows[0].latency_ms, rows[2].latency_ms]
    assert not found[2].valid
    assert "recorded 2 times, this is request 3" in found[2].reason


def test_a_resumed_plan_goes_on_as_it_would_have():
    rows = measured(request(5), request(5), request(5))
    wanted = (request(5), request(5), request(5))
    assert replayed(rows, *wanted)[1:] == replayed(rows, *wanted, first_row=1)


def test_a_network_is_put_together_from_stages_that_were_recorded():
    rows = measured(request(5, 9), request(5), request(9))
    both, five, nine = rows
    row = replayed([five, both], request(9))[0]
    assert not row.valid, "its first segment, up to block 9, was never run as one"
    row = replayed([nine, five, measured(request(5, 9), request(5, 11))[1]], request(5, 9))[0]
    assert not row.valid, "the segment from 5 to 9 was not recorded"
    row = replayed([five, nine, measured(request(5, 9, 11))[0]], request(5, 9))[0]
    assert row.valid
    assert row.evidence.flags == (COMPOSED,)
    assert [(s.kind, s.position) for s in row.stages] == [(s.kind, s.position) for s in both.stages]
    assert row.stages[-1].latency_ms == nine.stages[-1].latency_ms, (
        "the same program ends the network with exit 9"
    )
    assert row.stages[0].latency_ms == five.stages[0].latency_ms
    assert row.latency_ms.value == pytest.approx(sum(s.latency_ms.value for s in row.stages))
    assert row.latency_ms.value == pytest.approx(both.latency_ms.value, rel=0.02), "as it is when measured"
    assert row.energy_mj.value == pytest.approx(both.energy_mj.value, rel=0.02)


def test_stages_of_another_clock_are_no_use():
    rows = measured(request(5, setting=LOW), request(9), request(5, 9, 11, setting=LOW))
    assert not replayed(rows, request(5, 9, setting=HIGH))[0].valid


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(5, setting=LOW), f"recorded with these exits at {HIGH}"),
        (request(7), "recorded with exits 5, 9"),
        (request(backbone=SPACE.presets["m4"]), f"the nearest recorded networks are {BACKBONE.arch_id}"),
    ],
)
def test_what_was_not_recorded_is_an_invalid_row_that_lists_the_nearest(asked, expected):
    rows = measured(request(5), request(9, setting=LOW))
    row = replayed(rows, asked)[0]
    assert (row.valid, row.latency_ms, row.device_seconds) == (False, None, 0.0)
    assert expected in row.reason


def test_the_clock_table_is_what_was_recorded_and_says_what_is_missing():
    gpu, emc = LOW.hz("gpu"), LOW.hz("emc")
    settings = [LOW, HIGH, replace(LOW, clocks_hz=(("gpu", gpu), ("emc", HIGH.hz("emc"))))]
    rows = measured(*(request(setting=setting) for setting in settings))
    partial = ReplayDevice(rows, space=SPACE, n_classes=10)
    assert [d.frequencies_hz for d in partial.clock_table().domains] == [
        (gpu, HIGH.hz("gpu")),
        (emc, HIGH.hz("emc")),
    ]
    assert "3 of 4 settings recorded" in partial.clock_table().name
    assert partial.clock_table().default == HIGH
    corner = replace(LOW, clocks_hz=(("gpu", HIGH.hz("gpu")), ("emc", emc)))
    row = next(partial.measure(MeasurementPlan("s", (request(setting=corner),))))
    assert not row.valid
    with pytest.raises(OffTableFrequencyError):
        partial.measure(MeasurementPlan("s", (request(setting=TABLE.settings[0]),)))
    whole = ReplayDevice([*rows, *measured(request(setting=corner))], space=SPACE, n_classes=10)
    assert "recorded)" not in whole.clock_table().name


def test_rows_that_may_not_be_believed_answer_nothing():
    failed = replace(measured(request(5))[0], valid=False, reason="over-current")
    good = measured(request(9))
    assert "not recorded" in replayed([failed, *good], request(5))[0].reason
    with pytest.raises(ConfigError, match="no valid row"):
        ReplayDevice([failed], space=SPACE, n_classes=10)


def test_an_anchor_of_the_recorded_session_is_none_of_the_replayed_one():
    anchor = replace(
        measured(request(5))[0], evidence=Evidence("torch", "full", "", (), anchor=True, attempt=1)
    )
    evidence = replayed([anchor], request(5))[0].evidence
    assert (evidence.anchor, evidence.attempt) == (False, 0)


def test_a_replayed_simulation_stays_a_simulation():
    rows = measured(request(5), truth=Truth.SIMULATOR)
    assert ReplayDevice(rows, space=SPACE, n_classes=10).truth is Truth.SIMULATOR


def test_mixed_or_foreign_rows_are_refused_with_what_there_is():
    rows = measured(request(5))
    other = replace(rows[0], row_no=1, target=replace(rows[0].target, board="another"))
    with pytest.raises(ConfigError, match=f"several targets.*{rows[0].target.target_id}"):
        ReplayDevice([*rows, other], space=SPACE, n_classes=10)
    assert ReplayDevice([*rows, other], space=SPACE, n_classes=10, target_id=other.target.target_id).target.board == "another"  # fmt: skip
    with pytest.raises(ConfigError, match="several truths: device, simulator"):
        ReplayDevice([*rows, replace(rows[0], row_no=1, truth=Truth.SIMULATOR)], space=SPACE, n_classes=10)
    with pytest.raises(ConfigError, match="'mini' with 10 classes"):
        ReplayDevice(rows, space=SPACE, n_classes=100)


def test_a_study_measures_on_a_log(tmp_path):
    """Every row it asks for is answered from the log, failures are kept, and a second run asks for nothing more."""
    rows = measured(request(5), request(5, 9, setting=LOW), session="rig/0")
    write_records(tmp_path / "rig.jsonl", rows)
    document = yaml.safe_load(template("study.yaml", "smoke"))
    document["device"] = {"kind": "replay", "log": "rig.jsonl"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(document))
    study = Study.open(tmp_path / "study.yaml")
    assert study.parts.device_identity.target == SIMULATED.target
    designs = [
        Design(r.backbone, r.exits, r.setting) for r in (request(5), request(5, 9, setting=LOW), request(11))
    ]
    session = study.findings.session(0)
    for _ in range(2):
        measure_costs(study.findings, designs[:2], session, 0, "costs", lambda phase, done, total: None)
    measure_costs(study.findings, designs, session, 0, "costs", lambda phase, done, total: None)
    found = study.store.costs(session=session)
    assert [row.latency_ms for row in found[:2]] == [row.latency_ms for row in rows]
    assert [(row.valid, row.truth) for row in found] == [(True, Truth.REPLAY)] * 2 + [(False, Truth.REPLAY)]
    assert "recorded with exits 5" in found[2].reason
