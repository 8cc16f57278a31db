"""The examples of the repository are valid input."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml

from hadas.spaces import CLOCK_TABLES, clock_table, mini_space
from hadas.study.config import validate_config
from hadas.study.wishes import read_designs

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_designs_lie_in_the_mini_space_on_the_tx2():
    designs = read_designs(EXAMPLES / "designs.yaml", mini_space(), CLOCK_TABLES["tx2-pascal-gpu"])
    assert [design.exits.positions for design in designs] == [(5, 8), ()]


def test_clock_file_narrows_the_tx2_table():
    table = clock_table(str(EXAMPLES / "tx2_slow_memory.json"))
    full = CLOCK_TABLES["tx2-pascal-gpu"]
    for domain, whole in zip(table.domains, full.domains, strict=True):
        assert set(domain.frequencies_hz) < set(whole.frequencies_hz)


def table_rows() -> list[str]:
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    table = readme.split("| to use | set in the study file |\n|---|---|\n")[1]
    return table.split("\n\n")[0].splitlines()


def test_fields_named_in_the_readme_exist():
    """Every field of the README's table is one of the configuration, and its value is valid."""
    named = [
        piece
        for row in table_rows()
        for piece in re.findall(r"`([a-z_]+\.[a-z_]+(?:: [^`]+)?)`", row.split("|")[2])
    ]
    assert len(named) >= 8
    default = validate_config({}, source="defaults").model_dump()
    for piece in named:
        field, _, value = piece.partition(": ")
        section, name = field.split(".")
        assert name in default[section], piece
        if value:
            validate_config({section: {name: yaml.safe_load(value)}}, source=f"README, {piece}")


def test_choosing_from_no_study_ends_in_one_line(monkeypatch, capsys, tmp_path):
    script = EXAMPLES / "choose_network.py"
    monkeypatch.setattr(sys, "argv", [script.name, str(tmp_path / "absent.yaml"), "--accuracy", "0.9"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "absent.yaml" in said
    assert said.count("\n") == 1
