"""What a study plans next, beside what it has planned, and what it says of it."""

import shutil

import pytest
import yaml

from hadas.errors import StudyError
from hadas.search.strategies import STRATEGIES
from hadas.study import Study
from hadas.study.config import Strategy

from .running import hadas


def test_open_plans_are_pending_and_each_round_is_closed(own_seeds):
    """Points planned beside an open plan are others, and one command measures all of them."""
    done = hadas("suggest", own_seeds, "-n", 2, "--explain")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "1. " in said
    assert "given those before it" in said
    assert "Costs" in said
    assert "Proposed by the search on" in said
    # What is planned is explained again, and nothing is planned anew.
    again = hadas("suggest", own_seeds, "--explain")
    assert again.stdout.split("measure next")[1] == done.stdout.split("measure next")[1]

    study = Study.open(own_seeds)
    with pytest.raises(StudyError, match="--more"):
        study.suggest(2)
    first = study.pending_designs()
    study.suggest(2, more=True)
    pending = study.pending_designs()
    assert (len(first), len(pending), len(set(pending))) == (2, 4, 4)
    study.measure()
    assert study.findings.n_measured_rounds == 3
    assert study.pending_designs() == []
    measured = [point.design for r in (1, 2) for point in study.findings.points(r)]
    assert sorted(map(str, measured)) == sorted(map(str, pending))


def test_another_strategy_chooses_by_its_name(smoke_seeds, tmp_path):
    shutil.copytree(smoke_seeds, tmp_path / "study")
    path = tmp_path / "study" / "study.yaml"
    document = yaml.safe_load(path.read_text())
    document["learning"]["strategy"] = "variance"
    path.write_text(yaml.safe_dump(document))
    study = Study.open(path, adopt=True)
    study.suggest(3)
    plan = study.findings.event("plan:1")
    assert [why["why"] for why in plan["suggestions"]] == ["information"] * 3


def test_the_configuration_knows_every_strategy():
    assert set(Strategy.__args__) == set(STRATEGIES)
