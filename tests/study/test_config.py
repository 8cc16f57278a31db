"""A study file says what is wrong with it, field by field."""

import pytest
import yaml

from hadas.errors import ConfigError
from hadas.study.config import PRESETS, config_difference, load_config, template, validate_config


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_written_file_reads_back_as_its_preset(tmp_path, preset):
    path = tmp_path / "study.yaml"
    path.write_text(template(path.name, preset))
    assert load_config(path) == validate_config(PRESETS[preset], source="preset")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"learning": {"round": 3}}, r"'learning\.round': no such field; did you mean 'rounds'"),
        ({"spcae": "mini"}, "did you mean 'space'"),
        ({"seed": -1}, "'seed' = -1"),
        ({"learning": {"batch": 0, "rounds": -2}}, r"learning\.rounds.*-2.*learning\.batch.*0"),
        ({"data": {"name": "imagenet"}}, r"data\.name"),
        ([1, 2], "mapping"),
        ({"seed": True}, "'seed' = True"),
        ({"seed": "7"}, "'seed' = '7'"),
        ({"seed": 2**63}, "'seed'"),
        ({"study": ".."}, "'study'"),
        ({"store": ""}, "'store'"),
        ({"surrogates": {"candidates": []}}, r"surrogates\.candidates"),
        ({"surrogates": {"candidates": ["gp", "gp"]}}, "twice"),
        ({"baselines": "yes"}, "'baselines'"),
        ({"learning": {"accuracy_job_s": -1.0}}, r"learning\.accuracy_job_s"),
        (
            {"accuracy": {"workers": "dask"}},
            r"x\.yaml: 'accuracy': 'workers: dask' and 'cluster' .* go together$",
        ),
        ({"accuracy": {"ema": True}}, r"x\.yaml: 'accuracy': 'ema' chooses weights"),
        ({"search": {"constraints": {"min_accuracy": 95}}}, r"from 0 to 1; write 0\.95 for 95 %$"),
    ],
)
def test_every_bad_field_is_named(document, message):
    with pytest.raises(ConfigError, match=message):
        validate_config(document, source="study file x.yaml")


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(ConfigError, match="hadas init"):
        load_config(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("seed: 1\nlearning: {rounds: 2\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml, line 3"):
        load_config(broken)


def test_files_that_cannot_be_a_study(tmp_path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing yet\n")
    with pytest.raises(ConfigError, match=r"empty.*hadas init .*empty\.yaml --force"):
        load_config(empty)
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("study: caf\u00e9\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: byte 10 is not UTF-8"):
        load_config(latin)
    date = tmp_path / "date.yaml"
    date.write_text("seed: 2026-13-01\n")
    with pytest.raises(ConfigError, match=r"date\.yaml: not YAML"):
        load_config(date)


def test_template_offers_every_field():
    """A user learns from the written file alone what can be set."""

    def names(document, prefix=""):
        for key, value in document.items():
            yield prefix + key
            if isinstance(value, dict):
                yield from names(value, f"{prefix}{key}.")

    written = yaml.safe_load(template("x.yaml", "demo"))
    everything = validate_config({}, source="defaults").model_dump(mode="json")
    assert set(names(written)) == set(names(everything))


def test_difference_names_fields_that_matter_only():
    old = validate_config({}, source="a").model_dump(mode="json")
    new = validate_config({"seed": 8, "learning": {"rounds": 9}}, source="b").model_dump(mode="json")
    assert config_difference(old, new) == ["seed: 7 -> 8"]


def test_a_field_that_a_study_began_without_counts_as_its_default():
    began = validate_config({}, source="a").model_dump(mode="json")
    del began["policy"]["score"], began["head_width"]
    same, changed = (
        validate_config({"policy": {"score": score}}, source="b").model_dump(mode="json")
        for score in ("max-softmax", "margin")
    )
    assert config_difference(began, same) == []
    assert config_difference(began, changed) == ["policy.score: 'max-softmax' -> 'margin'"]


def test_template_is_plain_yaml():
    assert yaml.safe_load(template("x.yaml", "demo"))["study"] == "demo"
