"""The examples of the repository are valid input."""

from pathlib import Path

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


def test_fields_named_in_the_readme_exist():
    """Every `section.field: value` of the README's table is a field of the configuration."""
    readme = (EXAMPLES.parent / "README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("| your")]
    assert len(rows) >= 4
    for text in (
        "data.name: cifar10",
        "device.kind: host-cpu",
        "accuracy.checkpoint: x.pt",
        "device.clocks: x.json",
    ):
        field, value = text.split(": ")
        assert field in readme
        section, name = field.split(".")
        validate_config({section: {name: yaml.safe_load(value)}}, source="README")
