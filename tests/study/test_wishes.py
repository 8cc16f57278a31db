"""Designs that a user writes down are checked one by one, field by field."""

import pytest
import yaml

from hadas.errors import ConfigError, HadasError
from hadas.spaces import CLOCK_TABLES, mini_space
from hadas.study.wishes import read_designs

SPACE, TABLE = mini_space(), CLOCK_TABLES["tx2-pascal-gpu"]
CLOCKS = {"gpu": 854_250_000, "emc": 1_600_000_000}
GOOD = {"preset": "m1", "exits": [5], "clocks_hz": CLOCKS}


def read(path, entries):
    path.write_text(yaml.safe_dump(entries))
    return read_designs(path, SPACE, TABLE)


def test_a_design_is_read_as_written(tmp_path):
    (design,) = read(tmp_path / "d.yaml", [GOOD])
    assert design.backbone == SPACE.presets["m1"]
    assert design.exits.positions == (5,)
    assert dict(design.setting.clocks_hz) == CLOCKS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": ["m1"]}, "'preset' = "),
        ({"preset": 1}, "'preset' = 1"),
        ({"clocks_hz": {**CLOCKS, "gpu": "fast"}}, r"'clocks_hz\.gpu' = 'fast': must be an integer in Hz"),
        ({"clocks_hz": {**CLOCKS, "gpu": 854_250_000.0}}, r"'clocks_hz\.gpu'.*integer"),
        ({"clocks_hz": {**CLOCKS, "gpu": 854}}, r"'clocks_hz\.gpu' = 854: Hz expected.*MHz"),
        ({"clocks_hz": {**CLOCKS, "emc": 1_600_000}}, r"'clocks_hz\.emc'.*kHz; multiply by 1000$"),
        ({"clocks_hz": [1, 2]}, "'clocks_hz' must give"),
        ({"exits": ["5"]}, "'exits'"),
        ({"exits": 5}, "'exits'"),
    ],
)
def test_a_bad_field_is_named_with_file_and_entry(tmp_path, change, message):
    with pytest.raises(HadasError, match=r"d\.yaml, entry 1: .*" + message):
        read(tmp_path / "d.yaml", [GOOD, {**GOOD, **change}])


@pytest.mark.parametrize("gene", ["wide", [16], None, True])
def test_a_gene_of_another_type_is_named(tmp_path, gene):
    genes = {v.name: v.choices[0] for v in SPACE.variables}
    entry = {"genes": {**genes, "width.stem": gene}, "exits": [], "clocks_hz": CLOCKS}
    with pytest.raises(HadasError, match=r"entry 0: .*width\.stem"):
        read(tmp_path / "d.yaml", [entry])


def test_nothing_and_the_same_twice_are_refused(tmp_path):
    path = tmp_path / "d.yaml"
    for nothing in ([], None):
        with pytest.raises(ConfigError, match="lists no design"):
            read(path, nothing)
    with pytest.raises(ConfigError, match="entry 2: the same design as entry 0"):
        read(path, [GOOD, {**GOOD, "exits": []}, GOOD])


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        read_designs(tmp_path, SPACE, TABLE)
    with pytest.raises(ConfigError, match="no such file"):
        read_designs(tmp_path / "absent.yaml", SPACE, TABLE)
    (tmp_path / "latin.yaml").write_bytes(b"- {preset: caf\xe9}")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_designs(tmp_path / "latin.yaml", SPACE, TABLE)
