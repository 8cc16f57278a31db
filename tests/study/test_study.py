"""What a study keeps apart, tries again and refuses."""

import json
import shutil
from dataclasses import replace

import pytest
import yaml

from hadas.errors import HadasError, StudyError
from hadas.measurement.hardware.measuring.protocol import QUICK
from hadas.measurement.hardware.measuring.runner import MeasuredDevice
from hadas.spaces import CLOCK_TABLES, Exits, mini_space
from hadas.study import Study, calibrating
from hadas.study.calibration_view import calibration_rows, correction_rows, latest_calibration
from hadas.study.config import template

from ..measurement.virtual_rig import BROKEN, Faults, VirtualRig


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(template("study.yaml", "smoke"))
    return path


@pytest.fixture
def measured(own_seeds):
    return own_seeds


def virtual_device(study, anchor_every=0, **faults):
    """A measured device of the study's clocks whose rig is made of arithmetic."""
    rig = VirtualRig(energy=None, table=study.parts.table, space=study.parts.space, faults=Faults(**faults))
    protocol = replace(QUICK, anchor_every=anchor_every)
    return MeasuredDevice(rig, protocol, space=study.parts.space, n_classes=10, clock=rig.clock)


def test_a_failed_row_is_kept_and_measured_again(study_file):
    study = Study.open(study_file)
    study.parts.device = virtual_device(study, fail_on_load=lambda row: BROKEN if row == 0 else None)
    study.parts.known_device = None
    study.measure()
    rows = study.store.costs(session=study.findings.session(0))
    assert [row.valid for row in rows] == [False] + [True] * (len(rows) - 1)
    assert rows[0].reason == str(BROKEN)
    assert (rows[-1].backbone, rows[-1].requested) == (rows[0].backbone, rows[0].requested)
    assert rows[-1].evidence.attempt == 1
    assert len(study.findings.points(0)) == len(rows) - 1


def test_anchors_and_undone_rows_are_no_points(study_file):
    """An anchor every 3 rows; 6 % slower from the 6th network on."""
    study = Study.open(study_file)
    study.parts.device = device = virtual_device(study, anchor_every=3)
    device.rig.faults.slower = lambda now: 1.06 if device.rig.n_loads > 5 else 1.0
    study.parts.known_device = None
    study.measure()
    rows = study.store.costs(session=study.findings.session(0))
    assert any("drift" in row.evidence.flags for row in rows)
    points = study.findings.points(0)
    designs = [point.design for point in points]
    assert (
        len(set(designs))
        == len(designs)
        == study.config.learning.seed_backbones * (study.config.learning.seed_settings)
    )
    assert not any(point.cost.evidence.anchor for point in points)
    undone = [row for row in study.findings.cost_rows(0) if "drifted" in row.reason]
    assert undone
    assert all(row in study.findings.loop_rows(1) and not row.valid for row in undone)


def test_a_round_of_failures_stays_open_until_it_succeeds(study_file):
    study = Study.open(study_file)
    study.parts.device = virtual_device(study, fail_on_load=lambda row: BROKEN)
    study.parts.known_device = None
    with pytest.raises(StudyError, match="no design has both"):
        study.measure()
    study.parts.device = virtual_device(study)
    study.measure()
    rows = study.store.costs(session=study.findings.session(0))
    n = len(rows) // 3
    assert [row.valid for row in rows] == [False] * (2 * n) + [True] * n


def test_held_out_backbones_are_predicted_by_predictors_that_never_saw_them(measured, tmp_path, monkeypatch):
    """In a copy, for a study of so few backbones holds none out by itself."""
    shutil.copytree(measured.parent, tmp_path / "copy")
    monkeypatch.setattr(calibrating, "MIN_BACKBONES", 4)
    monkeypatch.setattr(calibrating, "N_FOLDS", 2)
    study = Study.open(tmp_path / "copy" / measured.name)
    worlds = study.worlds()
    points = study.findings.loop_points()
    held, corrections = latest_calibration(study.findings)
    # The accuracy of a known backbone is no prediction; held out, every one of them is predicted.
    assert sum(check.quantity == "accuracy" for check in held) == len(points)
    assert {check.arch_id for check in held} == {point.design.backbone.arch_id for point in points}
    assert {check.round for check in held} == {0}
    assert worlds.corrections == corrections
    # Designs of one backbone are evidence once, and so is its accuracy at several clocks.
    backbones = {point.design.backbone for point in points}
    assert {corrections[q].n_random for q in ("accuracy", "latency_ms")} == {len(backbones)}
    predicted = worlds.predictions([points[0].design], n_draws=64, seed=1)
    assert [entry["quantity"] for entry in predicted] == ["energy_mj", "latency_ms"]
    assert ["latency" in name for name, _ in correction_rows(study)] == [False, False, True]
    shown = {(row.quantity, row.where): row.summary for row in calibration_rows(study)}
    assert set(shown) == {(q, "seeds, held out") for q in ("accuracy", "energy_mj", "latency_ms")}
    assert {summary.n_groups for summary in shown.values()} == {len(backbones)}
    accuracies = {(p.design.backbone, p.outcome.controller.accuracy) for p in points}
    assert [summary.n for summary in shown.values()] == [len(accuracies), len(points), len(points)]
    # Nothing is worked out twice.
    monkeypatch.setattr(calibrating, "held_out_checks", None)
    assert Study.open(study.path).worlds().corrections == corrections


def test_models_of_other_rows_are_not_used(measured):
    """Models beside the study file are found by what they were fitted to, not by the study's name."""
    study = Study.open(measured)
    study.fit()
    before = sorted(p.name for p in (measured.parent / "models" / "smoke").iterdir())
    other = measured.parent / "other.yaml"
    document = {**yaml.safe_load(measured.read_text()), "store": "other.sqlite", "seed": 8}
    other.write_text(yaml.safe_dump(document))
    second = Study.open(other)
    second.measure()
    second.fit()
    after = sorted(p.name for p in (measured.parent / "models" / "smoke").iterdir())
    assert len(after) == len(before) + 1


def test_own_designs_are_kept_apart(measured):
    """They are measured and trained on, and belong neither to the loop's rounds nor to its comparisons."""
    from hadas.search.designs import Design

    study = Study.open(measured)
    backbone = mini_space().presets["m1"]
    exits = Exits.at([5], first_exit=mini_space().first_exit, n_blocks=backbone.n_blocks)
    study.plan([Design(backbone, exits, CLOCK_TABLES["tx2-pascal-gpu"].default)])
    with pytest.raises(StudyError, match="round 1 is planned already"):
        study.suggest(2)
    study.measure()
    assert [point.strategy for point in study.findings.points(1)] == ["asked for"]
    assert study.findings.n_suggested_rounds() == 0
    list(study.run())
    assert study.findings.n_suggested_rounds() == 1
    with pytest.raises(StudyError, match="measured already"):
        study.plan([study.findings.points(1)[0].design])


def test_another_process_at_work_is_named(study_file):
    first, second = Study.open(study_file), Study.open(study_file)
    first.lock()
    with pytest.raises(StudyError, match="another hadas"):
        second.lock()


def test_a_typo_does_not_begin_a_study(study_file):
    """What is wrong is said before anything is stored or trained, and the mended file works."""
    good = study_file.read_text()
    for old, new, message in (
        ("name: tx2-pascal-gpu", "name: tx2-pascal-gpuu", "tx2-pascal-gpuu"),
        ("clocks: null", "clocks: absent.json", r"absent\.json"),
        ("checkpoint: null", "checkpoint: absent.pt", r"absent\.pt"),
    ):
        assert old in good
        study_file.write_text(good.replace(old, new))
        with pytest.raises(HadasError, match=message):
            Study.open(study_file)
    study_file.write_text(good)
    assert Study.open(study_file).store.study_config("smoke") is None


def test_a_changed_clock_file_is_noticed(study_file):
    clocks = study_file.parent / "clocks.json"
    domains = {"gpu": [854_250_000, 1_300_500_000], "emc": [1_600_000_000, 1_866_000_000]}
    clocks.write_text(json.dumps({"name": "few", "domains": domains}))
    study_file.write_text(study_file.read_text().replace("clocks: null", "clocks: clocks.json"))
    study = Study.open(study_file)
    study._check_device()
    clocks.write_text(
        json.dumps({"name": "few", "domains": {**domains, "gpu": [114_750_000, 1_300_500_000]}})
    )
    with pytest.raises(StudyError, match=r"clocks\.gpu: .*114750000"):
        Study.open(study_file).measure()
