"""Rows from elsewhere are adopted once, trained on, and show whether the device has drifted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from hadas.datasets.evidence import Evidence
from hadas.datasets.records import CostRecord, StageCost, Statistic, Truth
from hadas.errors import StudyError
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.simulation.profiles import PROFILES
from hadas.measurement.hardware.simulation.simulator import SimulatedDevice
from hadas.spaces import CLOCK_TABLES, Exits, mini_space
from hadas.study import Study, arrivals
from hadas.study.arrivals import Change, find_arrivals, fit_new, forget, leave_out
from hadas.study.config import template
from hadas.study.reporting import statements
from hadas.surrogates import assessment
from hadas.surrogates.sums import SumProcess

from .running import hadas

TX2 = "tx2-pascal-gpu"
N_ROWS = 16


@pytest.fixture(autouse=True)
def two_folds(monkeypatch):
    """Each fold fits models of its own; two of them show the same as five, sooner."""
    monkeypatch.setattr(assessment, "N_FOLDS", 2)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A study whose seeds are measured, with many settings each."""
    directory = tmp_path_factory.mktemp("arrivals")
    document = yaml.safe_load(template("study.yaml", "smoke"))
    document["learning"] |= {"seed_settings": 8}
    document["accuracy"]["supernet"] = {"steps": 4}
    (directory / "study.yaml").write_text(yaml.safe_dump(document))
    study = Study.open(directory / "study.yaml")
    study.measure()
    study.fit()
    return directory


@pytest.fixture
def study_file(measured, tmp_path):
    """A copy of that study."""
    shutil.copytree(measured, tmp_path / "study")
    return tmp_path / "study" / "study.yaml"


def device_rows(study: Study, session: str, *, power: float = 1.0) -> list[CostRecord]:
    """Fresh rows of the study's networks, on a device that draws ``power`` times as much as it did."""
    space, table = mini_space(), CLOCK_TABLES[TX2]
    profile = PROFILES[TX2]
    moved = replace(
        profile, module_gain=power * profile.module_gain, module_offset_w=power * profile.module_offset_w
    )
    device = SimulatedDevice(moved, table, space=space, n_classes=study.parts.data.n_classes)
    # The study's own networks with their exits, at other clocks: its few seeds tell little of other networks.
    known = list(dict.fromkeys((row.backbone, row.heads) for row in study.findings.loop_rows(1)))
    rng = np.random.default_rng(4)
    requests = []
    for i in range(N_ROWS):
        backbone, heads = known[i % len(known)]
        exits = Exits.at(
            (position for position, _ in heads), first_exit=space.first_exit, n_blocks=backbone.n_blocks
        )
        requests.append(CostRequest(backbone, exits, table.settings[int(rng.integers(len(table)))]))
    target = study.parts.device_identity.target
    plan = MeasurementPlan(session, tuple(requests), seed=9)
    return [replace(row, target=target) for row in device.measure(plan)]


def store_rows(study: Study, rows: Sequence[CostRecord]) -> None:
    for row in rows:
        study.store.add_cost(row)


def test_a_device_that_draws_more_is_found_to_have_drifted(study_file, monkeypatch):
    # Two networks would tell too little of two others for the new rows to be seen to help.
    monkeypatch.setattr(assessment, "N_FOLDS", 4)
    study = Study.open(study_file)
    store_rows(study, device_rows(study, "log:a", power=1.12))
    before = [point.outcome for point in study.findings.points(0)]
    done = hadas("fit", study_file, "--new-only")
    assert done.returncode == 0, done.stderr
    assert "- drift: energy +1" in done.stdout
    assert "- no drift found: latency" in done.stdout
    assert f"{N_ROWS} rows of" in done.stdout

    study = Study.open(study_file)
    event = study.findings.event("drift:1")
    energy = event["assessments"][1]["drift"]
    assert energy["low_percent"] < 12 < energy["high_percent"]
    assert energy["high_percent"] - energy["low_percent"] < 16
    assert energy["shift_percent"] == pytest.approx(12, abs=4)
    assert event["factors"] == {"latency": 1.0, "energy": pytest.approx(1 + energy["shift_percent"] / 100)}
    errors = event["assessments"][1]
    assert errors["new"]["mape"] < errors["old_unseen"]["mape"]

    # From now on they are trained on; nobody's points, though, and nobody's accuracy.
    used = study.fitted().provenance.cost_rows
    assert {("log:a", i) for i in range(N_ROWS)} <= set(used)
    assert [point.outcome for point in study.findings.points(0)] == before
    own, adopted = study.findings.cost_records(1)[0], study.findings.cost_records(1)[-1]
    assert own.energy_mj.value == pytest.approx(
        event["factors"]["energy"] * study.findings.loop_rows(1)[0].energy_mj.value
    )
    assert adopted.session == "log:a"
    assert adopted.energy_mj == study.store.costs(session="log:a")[-1].energy_mj
    assert "cost rows from elsewhere" in hadas("status", study_file).stdout

    again = hadas("fit", study_file, "--new-only")
    assert again.returncode == 0
    assert "nothing to fit" in again.stdout
    assert Study.open(study_file).findings.n_adoptions == 1


def test_the_loop_goes_on_with_adopted_rows_the_same_way_every_time(study_file):
    study = Study.open(study_file)
    rows = device_rows(study, "log:a")
    one = [row for row in rows if row.backbone == rows[0].backbone]
    store_rows(study, one)
    change, _ = fit_new(study, lambda *_: None)
    assert change is not None
    assert change.n_networks == 1
    assert "cannot tell" in change.assessments[0].drift.verdict("latency")
    study.suggest()
    assert study.findings.event("search:0+1") is not None
    study.measure()
    rows = study.findings.cost_records(2)
    assert [row.session for row in rows].count("log:a") == len(one)
    assert rows[-1].session == study.findings.session(1)
    assert study.findings.fit_label(1) == "1"
    assert find_arrivals(study.findings).usable == ()
    assert Study.open(study_file).findings.cost_records(2) == rows
    # What round 0 was fitted on before the adoption is found again.
    assert study.findings.cost_records(1, before=1) == study.findings.loop_rows(1)


def test_rows_in_a_wrong_unit_are_refused_and_an_adoption_can_be_taken_back(study_file):
    """Microjoules for millijoules: nothing is adopted until the user insists, and that can be undone."""
    study = Study.open(study_file)
    rows = [
        replace(row, energy_mj=replace(row.energy_mj, value=1000 * row.energy_mj.value))
        for row in device_rows(study, "log:a")[:6]
    ]
    store_rows(study, rows)
    before = study.store.event_keys("smoke")
    done = hadas("fit", study_file, "--new-only")
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert "energy of 6 rows of log:a is" in said
    assert "as if µJ stood where mJ is expected" in said
    assert "latency" not in said
    assert study.store.event_keys("smoke") == before

    plain = study.findings.cost_records(1)
    assert hadas("fit", study_file, "--new-only", "--accept-drift").returncode == 0
    assert len(study.findings.cost_records(1)) == len(plain) + 6
    assert study.findings.cost_records(1)[0] != plain[0]
    assert "adoption 1" in hadas("status", study_file).stdout

    done = hadas("fit", study_file, "--forget", 2)
    assert "no adoption 2 is in use; in use: 1" in " ".join(done.stderr.split())
    done = hadas("fit", study_file, "--forget", 1)
    assert done.returncode == 0, done.stderr
    assert "its 6 rows are trained on no more" in " ".join(done.stdout.split())
    assert study.findings.cost_records(1) == plain
    assert study.findings.event("fit:0+2") is not None
    assert "nothing to fit" in hadas("fit", study_file, "--new-only").stdout
    assert study.findings.adoptions(1) == []


def test_suspect_rows_can_be_left_out_and_others_adopted_after_one_was_taken_back(study_file, monkeypatch):
    """What came after a forgotten adoption was judged by it, and so arrives anew."""
    monkeypatch.setattr(
        arrivals, "_change", lambda study, adoption, _: Change(adoption.number, "t", 1, 1, (), {})
    )
    study = Study.open(study_file)
    rows = device_rows(study, "log:a")
    store_rows(study, [replace(row, session="log:bad/0") for row in rows[:2]])
    store_rows(study, rows[:1])
    with pytest.raises(StudyError, match="sessions that do: log:a, log:bad/0"):
        leave_out(study, "log:b")
    assert leave_out(study, "log:bad") == 2
    assert study.findings.fit_label(0) == "0"
    assert fit_new(study, lambda *_: None)[0].number == 2
    store_rows(study, rows[1:2])
    assert fit_new(study, lambda *_: None)[0].number == 3
    assert [adoption.number for adoption in forget(study, 2, lambda *_: None)] == [2, 3]
    assert study.findings.adoptions(1) == []
    assert [(row.session, row.row_no) for row in find_arrivals(study.findings).usable] == [("log:a", 1)]
    assert fit_new(study, lambda *_: None)[0].number == 4
    assert study.findings.fit_label(0) == "0+4"
    assert [row.row_no for row in study.findings.cost_records(1) if row.session == "log:a"] == [1]


class Killed(BaseException):
    """Ends the process of the test where a signal would."""


def test_an_unmoved_device_shows_no_drift_and_a_killed_fit_is_finished(study_file, monkeypatch):
    study = Study.open(study_file)
    store_rows(study, device_rows(study, "log:a"))
    journal = Study.journal
    for key in ("logs:1", "drift:1"):

        def die_after(self, written, payload, key=key):
            journal(self, written, payload)
            if written == key:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Study, "journal", die_after)
            killed = Study.open(study_file)
            with pytest.raises(Killed):
                fit_new(killed, lambda *_: None)
    resumed = Study.open(study_file)
    assert resumed.findings.event("fit:0+1") is None
    change, _ = fit_new(resumed, lambda *_: None)
    assert change is not None
    assert change.to_json() == resumed.findings.event("drift:1")
    assert resumed.findings.event("fit:0+1") is not None
    for item in change.assessments:
        assert not item.drift.drifted
        assert "drift: " not in item.drift.verdict(item.quantity)
    assert set(change.factors.values()) == {1.0}
    assert fit_new(resumed, lambda *_: None)[0] is None


def anchored(row: CostRecord, row_no: int, *flags: str, valid: bool = True) -> CostRecord:
    evidence = Evidence("engine", "protocol", "", (), anchor=True, flags=flags)
    return replace(row, row_no=row_no, evidence=evidence, valid=valid, reason="" if valid else "drift")


def test_rows_that_cannot_be_used_are_counted_with_their_reason(study_file):
    study = Study.open(study_file)
    good = device_rows(study, "log:a")[:2]
    target = good[0].target
    one = good[0]
    bad = {
        "of another device: " + replace(target, release="other").target_id: replace(
            one, target=replace(target, release="other")
        ),
        "device, not simulator": replace(one, truth=Truth.DEVICE),
        "of space 'attentivenas'": replace(one, backbone=replace(one.backbone, space="attentivenas")),
        "of a network that space 'mini' does not contain": replace(
            one, backbone=replace(one.backbone, resolution=31)
        ),
        "with stages that do not fit their exits": replace(one, heads=(one.heads[0], one.heads[0])),
        "with other clocks than the device's": replace(
            one,
            actual=CLOCK_TABLES["tx2-denver-cpu"].default,
            requested=CLOCK_TABLES["tx2-denver-cpu"].default,
        ),
    }
    store_rows(study, [replace(row, session="log:bad", row_no=i) for i, row in enumerate(bad.values())])
    undone = "invalid, or undone by a drift of their session"
    store_rows(study, [
        replace(one, session="log:drift"),
        anchored(replace(one, session="log:drift"), 1),
        replace(one, session="log:drift", row_no=2),
        anchored(replace(one, session="log:drift"), 3, "drift", valid=False),
    ])  # fmt: skip
    store_rows(study, good)
    found = find_arrivals(study.findings)
    assert found.refused == dict.fromkeys(bad, 1) | {undone: 2}
    assert [(row.session, row.row_no) for row in found.usable] == [
        ("log:a", 0), ("log:a", 1), ("log:drift", 0), ("log:drift", 1),
    ]  # fmt: skip


def test_rows_of_sums_are_of_use_and_a_gap_between_programs_is_no_drift(study_file):
    """Whole networks without stages, and prefix programs that are 8 % faster than their stages."""
    study = Study.open(study_file)
    rows = device_rows(study, "log:a")
    row = next(row for row in rows if row.heads)
    total = replace(row, stages=())
    prefixes = []
    for i, one in enumerate(rows):
        ends = [*range(2, len(one.stages), 2), len(one.stages)]
        stages = tuple(
            StageCost(
                "prefix", one.stages[end - 1].position,
                Statistic(0.92 * sum(s.latency_ms.value for s in one.stages[:end]), 0.001, 9), None,
            )
            for end in ends
        )  # fmt: skip
        latency = stages[-1].latency_ms
        prefixes.append(
            replace(one, row_no=100 + i, program="prefix", stages=stages, latency_ms=latency, energy_mj=None)
        )
    store_rows(study, [total, *prefixes])
    assert find_arrivals(study.findings).usable == (total, *prefixes)
    change, _ = fit_new(study, lambda *_: None)
    assert change is not None
    assert change.n_rows == 1 + len(prefixes)
    # Judged is the one row of a program per stage; the prefix rows are learned from, with a factor of their own.
    assert [item.old.n_rows for item in change.assessments] == [1, 1]
    assert change.factors == {"latency": 1.0, "energy": 1.0}
    latency = study.fitted().cost_model.latency
    assert isinstance(latency, SumProcess)
    assert np.exp(latency.log_factor) == pytest.approx(0.92, abs=0.02)


def test_a_report_says_which_costs_the_simulator_extrapolates(measured):
    """Its table of clocks begins far below those that anybody measured."""
    study = Study.open(measured / "study.yaml")
    front = study.findings.front(study.findings.loop_points())
    low = sum(point.design.setting.hz("emc") < 1_062_000_000 for point in front)
    assert low > 0
    said = [line for line in statements(study) if "extrapolated" in line]
    assert said[0].startswith(f"{low} of the {len(front)} points of the front run at clocks below")


def test_a_study_without_rows_has_nothing_to_compare_with(tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(template("study.yaml", "smoke"))
    with pytest.raises(StudyError, match="nothing is measured yet"):
        fit_new(Study.open(path), lambda *_: None)
