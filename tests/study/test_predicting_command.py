"""`hadas predict`: what it says of a design is what the predictors say, and beside it what was measured."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from hadas.datasets.records import OutcomeMatrix
from hadas.errors import StudyError
from hadas.search.designs import Design
from hadas.spaces import Exits
from hadas.study import Study
from hadas.study.config import template
from hadas.study.predicting import predict_designs
from hadas.study.worlds import Worlds
from hadas.surrogates.conformal import Correction

from .running import hadas

LOW_CLOCKS = "gpu=114750000 emc=40800000"


@pytest.fixture(scope="module")
def study_file(own_seeds):
    """A small study whose seeds are measured."""
    return own_seeds


def predicted(study_file, *arguments):
    done = hadas("predict", study_file, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["designs"]


def by_quantity(design):
    groups = (*design["accuracy"], *design["shares"], *design["costs"])
    return {estimate["quantity"]: estimate for estimate in groups}


def test_a_measured_design_stands_beside_its_prediction(study_file, tmp_path):
    point = Study.open(study_file).findings.points(0)[0]
    design = point.design
    genes = Study.open(study_file).parts.space
    values = {
        variable.name: variable.choices[int(index)]
        for variable, index in zip(genes.variables, genes.encode(design.backbone), strict=True)
    }
    entry = {
        "genes": values, "exits": list(design.exits.positions), "clocks_hz": dict(design.setting.clocks_hz),
    }  # fmt: skip
    file = tmp_path / "designs.yaml"
    file.write_text(yaml.safe_dump([entry]))
    (found,) = predicted(study_file, "--design", file)
    assert found["arch_id"] == design.backbone.arch_id
    estimates = by_quantity(found)
    controller = point.outcome.controller
    for quantity, measured in (
        ("final classifier", point.accuracy.calibration.fractions[-1]),
        ("controller", controller.accuracy),
        ("oracle", point.outcome.oracle.accuracy),
        ("latency, expected", controller.latency_ms),
        ("energy, expected", controller.energy_mj),
        ("latency, full pass", point.cost.latency_ms.value),
        ("energy, last segment", point.cost.stages[-1].energy_mj.value),
    ):
        assert estimates[quantity]["measured"] == pytest.approx(measured), quantity
        assert estimates[quantity]["measured_se"] > 0
        assert not estimates[quantity]["measured_sum"]
        if quantity in ("controller", "oracle"):
            # Looked up, not predicted: no interval without a width.
            assert estimates[quantity]["intervals"] == {}
            assert estimates[quantity]["median"] is None
            continue
        low, high = estimates[quantity]["intervals"]["0.9"]
        assert low - 1e-9 <= measured <= high + 1e-9, quantity
    assert estimates["controller"]["measured_se"] == pytest.approx(controller.accuracy_se)
    assert estimates["latency, expected"]["measured_se"] == pytest.approx(controller.latency_se)
    assert found["distance"][0] == "network: this backbone was measured (accuracy and costs)"
    assert found["distance"][1] == "exits: this network was measured with these exits"
    assert "1 of them of this backbone" in found["distance"][2]


def test_what_a_network_with_fewer_exits_costs_is_the_sum_of_what_was_measured(study_file):
    study = Study.open(study_file)
    point = study.findings.points(0)[0]
    assert point.design.setting == study.parts.table.default
    assert len(point.design.exits.positions) > 3
    first = point.design.exits.positions[1]
    (found,) = predicted(study_file, "--networks", point.design.backbone.arch_id, "--exits", str(first))
    estimates, stages = by_quantity(found), point.cost.stages
    segments = [stage for stage in stages if stage.kind == "segment"]
    head = next(stage for stage in stages if stage.kind == "head" and stage.position == first)
    merged = estimates[f"latency, segment to block {first}"]
    assert merged["measured"] == pytest.approx(sum(one.latency_ms.value for one in segments[:2]))
    assert merged["measured_se"] == pytest.approx(
        np.hypot(*(one.latency_ms.standard_error for one in segments[:2]))
    )
    assert merged["measured_sum"]
    alone = estimates[f"latency, head after block {first}"]
    assert (alone["measured"], alone["measured_sum"]) == (pytest.approx(head.latency_ms.value), False)
    whole = estimates["energy, full pass"]
    total = sum(one.energy_mj.value for one in (*segments, head))
    assert (whole["measured"], whole["measured_sum"]) == (pytest.approx(total), True)
    assert whole["intervals"]["0.9"][0] <= total <= whole["intervals"]["0.9"][1]
    assert "measured with more exits" in found["distance"][1]


def test_without_exits_expected_is_the_full_pass_and_nobody_leaves(study_file):
    (found,) = predicted(study_file, "--networks", "m2", "--exits", "none")
    estimates = by_quantity(found)
    for quantity in ("latency", "energy"):
        expected, whole = (estimates[f"{quantity}, {name}"] for name in ("expected", "full pass"))
        assert {**expected, "quantity": ""} == {**whole, "quantity": ""}
    assert found["shares"] == []


def test_all_intervals_are_widened_alike_and_none_is_shifted(study_file):
    study = Study.open(study_file)
    plain = study.worlds()
    backbone, space = study.parts.space.presets["m2"], study.parts.space
    design = Design(
        backbone, Exits.at([5, 8], first_exit=space.first_exit, n_blocks=backbone.n_blocks),
        study.parts.table.default,
    )  # fmt: skip
    found = {}
    for factor, shift in ((1.0, 0.0), (2.0, 0.7)):
        known = {name: Correction(factor, shift) for name in ("accuracy", "energy_mj", "latency_ms")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(study, "worlds", lambda *_, known=known: replace(plain, corrections=known))
            (one,) = predict_designs(study, [design], lambda *_: None)
        found[factor] = {e.quantity: e for e in (*one.accuracy, *one.costs)}
    for quantity, narrow in found[1.0].items():
        wide = found[2.0][quantity]
        scale = np.log if narrow.unit else np.asarray
        widths = [np.diff(scale(one.intervals[0.5]))[0] for one in (narrow, wide)]
        assert widths[1] == pytest.approx(2 * widths[0], rel=1e-3), quantity
        assert abs(scale(wide.median) - scale(narrow.median)) < 0.35 * widths[0], quantity


def test_predictions_of_designs_asked_for_are_widened_and_not_shifted(study_file, tmp_path, monkeypatch):
    shutil.copytree(study_file.parent, tmp_path / "copy")
    study = Study.open(tmp_path / "copy" / "study.yaml")
    plain = study.worlds()
    monkeypatch.setattr(
        study, "worlds", lambda *_: replace(plain, corrections={"latency_ms": Correction(2.0, 0.7)})
    )
    space, backbone = study.parts.space, study.parts.space.presets["m2"]
    exits = Exits.at([5], first_exit=space.first_exit, n_blocks=backbone.n_blocks)
    study.plan([Design(backbone, exits, study.parts.table.default)])
    used = study.findings.corrections("plan:1")["latency_ms"]
    assert (used.factor, used.shift) == (2.0, 0.0)


def test_what_is_known_of_a_partly_measured_backbone_is_kept(study_file, monkeypatch):
    """Its final classifier was found to be always right: so is the oracle, in every draw."""
    study = Study.open(study_file)
    records = {row.backbone.arch_id: row for row in study.findings.training_accuracy(1)}
    backbone = study.parts.space.presets["m2"]
    matrix = next(iter(records.values())).calibration
    last = {name: getattr(matrix, name)[:, -1:] for name in ("confidence", "margin", "entropy", "predicted")}
    always = OutcomeMatrix(np.ones((matrix.n_samples, 1), dtype=bool), group=matrix.group, **last)
    part = replace(
        next(iter(records.values())), backbone=backbone, first_exit=backbone.n_blocks, calibration=always
    )
    plain = study.worlds()
    worlds = Worlds.build(study.parts, plain.predictors, [*records.values(), part])
    monkeypatch.setattr(study, "worlds", lambda *_: worlds)
    exits = Exits.at([5, 8], first_exit=study.parts.space.first_exit, n_blocks=backbone.n_blocks)
    (one,) = predict_designs(study, [Design(backbone, exits, study.parts.table.default)], lambda *_: None)
    oracle = next(e for e in one.accuracy if e.quantity == "oracle")
    assert oracle.intervals[0.9] == (1.0, 1.0)


def test_what_is_predicted_is_consistent(study_file):
    (found,) = predicted(study_file, "--networks", "m2", "--exits", "5,8")
    estimates = by_quantity(found)
    for estimate in estimates.values():
        narrow, wide = estimate["intervals"]["0.5"], estimate["intervals"]["0.9"]
        assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]
        assert estimate["measured"] is None
    for quantity in ("latency", "energy"):
        parts = [e for name, e in estimates.items() if name.startswith(quantity) and "block" in name]
        parts.append(estimates[f"{quantity}, last segment"])
        assert len(parts) == 5
        total = estimates[f"{quantity}, full pass"]
        assert sum(part["mean"] for part in parts) == pytest.approx(total["mean"], rel=0.01)
        # Most inputs leave before the end.
        assert estimates[f"{quantity}, expected"]["mean"] <= total["mean"]
        assert total["sd_epistemic"] > 0
        assert total["sd_noise"] > 0
    shares = [estimate["mean"] for name, estimate in estimates.items() if name.startswith("leave ")]
    assert sum(shares) == pytest.approx(1.0)
    best_single = max(estimates[name]["mean"] for name in ("exit after block 5", "final classifier"))
    assert estimates["oracle"]["mean"] >= best_single
    assert found["outcomes_measured"] is False
    # The means are those of the predictors that the search uses, up to the draws.
    study = Study.open(study_file)
    predictors = study.fitted()
    backbone = study.parts.space.presets["m2"]
    stages = predictors.workload(backbone).stages([5, 8])
    costs = predictors.stage_costs(stages, [study.parts.table.default])
    assert estimates["latency, full pass"]["mean"] == pytest.approx(float(costs.latency_ms.sum()), rel=0.15)


def test_a_point_beyond_the_rows_is_said_to_be_extrapolated(study_file):
    inside, outside = (
        predicted(study_file, "--networks", "largest", "--exits", "8", "--clocks", clocks)[0]
        for clocks in ("max", LOW_CLOCKS)
    )
    assert "EXTRAPOLATED" not in " ".join(inside["distance"])
    (said,) = (sentence for sentence in outside["distance"] if "EXTRAPOLATED" in sentence)
    assert "emc = 40.8 MHz (measured: " in said
    assert "the nearest of 5 measured settings is gpu 318.75 MHz emc 204 MHz" in said
    # Each clock was seen, but fast ones of the one only with fast ones of the other.
    (corner,) = predicted(
        study_file, "--networks", "largest", "--exits", "8", "--clocks", "gpu=1300500000 emc=204000000"
    )
    assert "EXTRAPOLATED, a combination beyond those that were measured" in corner["distance"][2]
    (between,) = predicted(
        study_file, "--networks", "largest", "--exits", "8", "--clocks", "gpu=726750000 emc=1331200000"
    )
    assert "between measured settings" in between["distance"][2]
    doubt = [
        estimate["sd_epistemic"] / estimate["mean"]
        for design in (inside, outside)
        for estimate in design["costs"]
        if estimate["quantity"] == "latency, full pass"
    ]
    assert doubt[1] > doubt[0]


def test_the_table_and_the_names_of_networks(study_file):
    done = hadas("predict", study_file, "--networks", "smallest,m1", "--exits", "none")
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stdout
    assert done.stdout.count("- clocks: measured in") == 2
    assert "no exits" in done.stdout
    assert "borrowed" not in done.stdout
    # Six figures of either network and their notes; all headings are whole.
    assert len(done.stdout.splitlines()) < 50
    for word in ("quantity", "median", "90 % interval", "doubt", "noise", "measured"):
        assert done.stdout.count(f" {word}") >= 2
    longer = hadas("predict", study_file, "--networks", "m1", "--stages").stdout
    assert "leave after block 5" in longer
    assert "leave after" not in done.stdout
    assert "borrowed" in longer
    arch_id = Study.open(study_file).parts.space.presets["m1"].arch_id
    by_id, by_name = (predicted(study_file, "--networks", name)[0] for name in (arch_id, "m1"))
    assert by_id == by_name
    assert predicted(study_file, "--networks", arch_id.rpartition("-")[2][:6] + ",")[0] == by_name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "m9"], "no network 'm9'"),
        (["--networks", "mini-0123456789ab"], "neither a preset nor a measured backbone"),
        (["--networks", "0123ab"], "measured backbones: "),
        (["--networks", "m1,m2,m1"], "names 'm1' twice"),
        (["--networks", ","], "names nothing"),
        (["--networks", "m1", "--clocks", "foo=1"], "must be max, min or a frequency"),
        (["--networks", "m1", "--exits", "40"], "exit position 40"),
        (["--networks", "m1", "--clocks", "all"], "name one setting"),
        (["--networks", "m1", "--clocks", "gpu=854 emc=1600"], "looks like MHz"),
        ([], "--networks"),
        (["--networks", "m1", "--design", "x.yaml"], "one of the two"),
        (["--design", "absent.yaml"], "absent.yaml"),
    ],
)
def test_bad_input_names_the_field(study_file, arguments, message):
    done = hadas("predict", study_file, *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_nothing_measured_names_the_remedy(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(template("study.yaml", "smoke"))
    done = hadas("predict", path, "--networks", "m1")
    assert done.returncode == 2
    assert "nothing is measured yet; run: hadas measure" in " ".join(done.stderr.split())


def test_a_round_that_is_not_whole_is_not_called_nothing(study_file, monkeypatch):
    study = Study.open(study_file)
    monkeypatch.setattr(type(study.findings), "n_measured_rounds", 0)
    with pytest.raises(StudyError, match=r"of 4 of 4 backbones and 8 costs .* run: hadas measure"):
        study.latest_round()


def test_unchanged_rows_are_not_fitted_again(study_file, monkeypatch):
    """Nor are accuracies where only cost rows are new."""
    from hadas.surrogates import fitting

    study = Study.open(study_file)
    study.fitted()
    fitted = []
    select = fitting.select_model
    monkeypatch.setattr(
        fitting,
        "select_model",
        lambda quantity, *a, **k: (fitted.append(quantity), select(quantity, *a, **k))[1],
    )
    before = study.fitted()
    assert fitted == []
    records = study.findings.cost_records
    monkeypatch.setattr(study.findings, "cost_records", lambda *arguments: records(*arguments)[:-1])
    after = study.fitted()
    assert fitted == ["log_latency", "log_power"]
    backbones = [study.parts.space.presets["m2"]]
    np.testing.assert_array_equal(after.final_accuracy(backbones).mean, before.final_accuracy(backbones).mean)
    assert after.quantities["exit_fractions"].digest == before.quantities["exit_fractions"].digest
    assert len(after.provenance.cost_rows) == len(before.provenance.cost_rows) - 1


def test_predictors_of_other_rows_are_refused(study_file):
    """Those of another round or study, put where the right ones belong, are whole and would answer."""
    study = Study.open(study_file)
    study.fitted()
    records = study.findings.cost_records
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.findings, "cost_records", lambda *arguments: records(*arguments)[:-2])
        other = study.fitted()
    folder = study_file.parent / "models" / study.config.study
    own, foreign = (
        path.parent
        for digest in (study.fitted().provenance.rows_digest, other.provenance.rows_digest)
        for path in folder.glob(f"*{digest}*/predictors.json")
    )
    kept = own.rename(own.with_name("kept"))
    try:
        shutil.copytree(foreign, own)
        done = hadas("predict", study_file, "--networks", "m1")
        assert done.returncode == 2
        assert "fitted to other rows" in " ".join(done.stderr.split())
    finally:
        shutil.rmtree(own)
        kept.rename(own)


def test_a_file_in_the_place_of_the_folder_is_named(study_file):
    models = study_file.parent / "models"
    kept = models.rename(models.with_name("kept"))
    try:
        models.write_text("")
        done = hadas("predict", study_file, "--networks", "m1")
        assert done.returncode == 2
        assert "move it away" in " ".join(done.stderr.split())
    finally:
        models.unlink()
        kept.rename(models)
