"""The study file of the system ``edge``, and the commands on it, without training."""

import pytest
import yaml

from hadas.errors import ConfigError
from hadas.study.config import load_config
from hadas.study.edge import EdgeStudy
from hadas.study.edge.config import PRESETS, edge_difference, edge_template, load_edge_config, validate_edge
from hadas.study.edge.tables import statements


@pytest.fixture
def hadas(run_in_process):
    """Exit status, output and errors, each on one line."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code, out, errors = run_in_process(*arguments)
        return code, " ".join(out.split()), " ".join(errors.split())

    return run


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_written_file_reads_back(preset, tmp_path):
    path = tmp_path / "edge.yaml"
    path.write_text(edge_template(path.name, preset))
    assert load_edge_config(path) == validate_edge(PRESETS[preset], source="preset")
    assert next(iter(yaml.safe_load(path.read_text()))) == "system"


def test_changes_are_written_down_to_single_fields_of_a_recipe():
    text = edge_template("edge.yaml", "edge", {"accuracy": {"recipe": {"tune_steps": 7}}})
    assert yaml.safe_load(text)["accuracy"]["recipe"] == {"tune_steps": 7}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"accelerator": {"link_bit_per_cycle": 3}}, "did you mean 'link_bits_per_cycle'?"),
        ({"accelerator": {"cores": ["tpu"]}}, "'edge-tpu', 'eyeriss' or 'meta-prototype'"),
        ({"search": {"constraints": {"min_accuracy": 88}}}, "write 0.88 for 88 %"),
        ({"bits": "8"}, "'bits' = '8'"),
        ({"learning": {"seeds": 5}}, "source: 'learning.seeds' = 5: give at least 6"),
        ({"data": {"name": "cifar100"}}, "'data.name' = 'cifar100'"),
    ],
)
def test_an_error_names_the_field_and_the_remedy(document, said):
    with pytest.raises(ConfigError) as error:
        validate_edge({"system": "edge", **document}, source="source")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"steps": 3}, "no field steps; known: start_steps"),
        ({"tune_steps": -1}, "tune_steps"),
        ({"tune_steps": 2.5}, r"tune_steps = 2\.5: must be a whole number"),
        ({"mirror": "no"}, "mirror = 'no': must be true or false"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_trained(recipe, said, tmp_path):
    path = tmp_path / "edge.yaml"
    path.write_text(edge_template(path.name, "edge", {"accuracy": {"recipe": recipe}}))
    with pytest.raises(ConfigError, match=said):
        EdgeStudy.open(path)


def test_only_what_changes_no_result_may_change():
    old = validate_edge({}, source="a").model_dump(mode="json")
    new = validate_edge(
        {"seed": 8, "learning": {"rounds": 9}, "accuracy": {"n_workers": 2}}, source="b"
    ).model_dump(mode="json")
    assert edge_difference(old, new) == ["seed: 7 -> 8"]


def test_an_accelerator_of_ones_own(tmp_path):
    path = tmp_path / "edge.yaml"
    own = {
        "cores": ["edge-tpu", "eyeriss"],
        "link_pj_per_bit": 0.5,
        "core_hz": 200_000_000,
        "map_segments": True,
    }
    path.write_text(edge_template(path.name, "edge", {"accelerator": own}))
    study = EdgeStudy.open(path)
    assert [style.name for style in study.parts.accelerator.cores] == ["edge-tpu", "eyeriss"]
    assert study.parts.accelerator.core_hz == 200_000_000
    assert study.parts.costs.space.n_cores == 2
    assert dict(study.parts.accelerator.sources) | {"link_bits_per_cycle": ""} == {
        "link_bits_per_cycle": "", "link_pj_per_bit": "study file", "core_hz": "study file",
    }  # fmt: skip
    assert study.parts.accelerator.name == "own cores"


@pytest.mark.parametrize(
    ("accelerator", "said"),
    [
        ({}, "core 0 runs everything"),
        ({"map_segments": True}, "core 0 runs everything"),
        ({"preset": "quad-mixed"}, "core 0 (edge-tpu) alone is used"),
        ({"preset": "quad-mixed", "map_segments": True}, "each segment runs where"),
        ({"cores": ["eyeriss"]}, "1 core (eyeriss)"),
    ],
)
def test_cores_that_nothing_runs_on_are_not_passed_over(accelerator, said, tmp_path):
    path = tmp_path / "edge.yaml"
    path.write_text(edge_template(path.name, "edge", {"accelerator": accelerator}))
    study = EdgeStudy.open(path)
    assert said in study.parts.cores_used
    assert study.parts.cores_used in statements(study.findings)[0]


def test_files_of_the_two_systems_are_not_mistaken(tmp_path):
    edge, other = tmp_path / "edge.yaml", tmp_path / "other.yaml"
    edge.write_text(edge_template(edge.name, "edge"))
    with pytest.raises(ConfigError, match="hadas run, status, report"):
        load_config(edge)
    other.write_text("study: x\n")
    with pytest.raises(ConfigError, match="first field must be 'system: edge'"):
        load_edge_config(other)
    other.write_text("system: egde\n")
    with pytest.raises(ConfigError, match="no such system; known: 'edge'"):
        load_config(other)


def test_init_writes_an_edge_file(hadas, tmp_path):
    path = tmp_path / "edge.yaml"
    code, said, _ = hadas("init", path, "--preset", "edge")
    assert (code, f"hadas run {path}" in said) == (0, True)
    assert load_edge_config(path) == validate_edge({}, source="preset")
    code, _, said = hadas("init", tmp_path / "b.yaml", "--preset", "edgy")
    assert (code, "'edge-gpu'" in said) == (2, True)


@pytest.mark.parametrize(
    "command", ["fit", "search", "suggest", "measure", "plan", "predict", "policies", "train"]
)
def test_other_commands_say_what_works_instead(command, hadas, tmp_path):
    path = tmp_path / "edge.yaml"
    path.write_text(edge_template(path.name, "edge"))
    extra = {"plan": ("--budget", "1h"), "predict": ("--networks", "m2")}
    code, _, said = hadas(command, path, *extra.get(command, ()))
    assert (code, "hadas run, status, report" in said) == (2, True), said


def test_run_takes_no_budget(hadas, tmp_path):
    path = tmp_path / "edge.yaml"
    path.write_text(edge_template(path.name, "edge"))
    code, _, said = hadas("run", path, "--budget", "1h")
    assert (code, "learning.rounds" in said) == (2, True)


def test_status_of_a_study_that_has_not_begun(hadas, tmp_path):
    path = tmp_path / "edge.yaml"
    path.write_text(edge_template(path.name, "edge"))
    code, said, _ = hadas("status", path)
    assert code == 0
    assert "hadas run" in said


def test_demo_and_space_know_both_systems(hadas, tmp_path):
    code, _, said = hadas("demo", "--system", "edgy", "--directory", tmp_path / "new")
    assert (code, "known: dvfs, edge" in said, (tmp_path / "new").exists()) == (2, True, False)
    code, _, said = hadas("demo", "--system", "edge", "--preset", "smok", "--directory", tmp_path / "new")
    assert (code, "known: ['demo', 'smoke']" in said, (tmp_path / "new").exists()) == (2, True, False)
    code, said, _ = hadas("space", "mobilenetv2")
    assert code == 0
    assert "195.33" in said
