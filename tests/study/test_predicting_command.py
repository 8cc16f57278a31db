"""`hadas predict`: what it says of a design is what the predictors say, and beside it what was measured."""

import json
import shutil

import numpy as np
import pytest
import yaml

from hadas.study import Study
from hadas.study.config import template

from .running import hadas

LOW_CLOCKS = "gpu=114750000 emc=40800000"


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    """A small study whose seeds are measured."""
    document = yaml.safe_load(template("study.yaml", "smoke"))
    document["accuracy"]["supernet"] = {"steps": 4}
    document["surrogates"] = {"candidates": ["gp"]}
    path = tmp_path_factory.mktemp("predict") / "study.yaml"
    path.write_text(yaml.safe_dump(document))
    assert hadas("measure", path).returncode == 0
    return path


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
        low, high = estimates[quantity]["intervals"]["0.9"]
        assert low - 1e-9 <= measured <= high + 1e-9, quantity
    assert "network: measured itself" in found["distance"][0]
    assert "clocks: measured in" in found["distance"][1]


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
        assert sum(part["mean"] for part in parts) == pytest.approx(total["mean"])
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
    arch_id = Study.open(study_file).parts.space.presets["m1"].arch_id
    by_id, by_name = (predicted(study_file, "--networks", name)[0] for name in (arch_id, "m1"))
    assert by_id == by_name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "m9"], "no network 'm9'"),
        (["--networks", "mini-0123456789ab"], "neither a preset nor a measured backbone"),
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
    assert "hadas measure" in done.stderr


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
