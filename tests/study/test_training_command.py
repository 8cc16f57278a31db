"""`hadas train`, alone; under torchrun: tests/measurement/test_accuracy_training_distributed.py."""

import re
import sys

import pytest

from hadas.cli import main
from hadas.study import Study
from hadas.study.config import template


@pytest.fixture
def train(monkeypatch, capsys):
    """Run the command in this process; returns exit status, output and errors."""

    def run(path):
        monkeypatch.setattr(sys, "argv", ["hadas", "train", str(path)])
        with pytest.raises(SystemExit) as end:
            main()
        written = capsys.readouterr()
        return int(end.value.code or 0), written.out, written.err

    return run


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(template(path.name, "smoke").replace("supernet: {}", "supernet: {steps: 1}"))
    return path


def test_it_trains_then_finds_what_the_study_will_use(train, study):
    code, said, _ = train(study)
    found = re.search(
        r"^Supernet: (\S+) \(weights (\w+); last loss .* \d\.\d{3}; its training took", said, re.M
    )
    assert code == 0
    assert re.match(r"step 1 of 1: loss \d\.\d{3}, [\d.]+ s\n", said), "a log shows how far the training is"
    assert found, said
    code, said, _ = train(study)
    assert code == 0
    assert said.startswith(f"Supernet: {found[1]} (weights {found[2]}; finished before; its training took ")
    steps = []
    used = Study.open(study).parts.trained_supernet(lambda *step: steps.append(step))
    assert (str(used.path), used.weights_id, steps) == (found[1], found[2], [])
    # The study knows of it: nothing is left to be trained in what a budget buys.
    assert Study.open(study).findings.event("supernet") == {
        "weights_id": used.weights_id,
        "seconds": used.seconds,
        "found": False,  # it was trained for this study, whose budget pays for it
    }


def test_it_refuses_a_study_at_work_and_a_recipe_that_is_wrong(train, study):
    held = Study.open(study)
    held.lock()
    code, _, complained = train(study)
    assert (code, "another hadas is at work" in complained) == (2, True)
    study.write_text(study.read_text().replace("{steps: 1}", "{sampling: 3}"))
    code, _, complained = train(study)
    assert (code, "sampling = 3: must be one of ['uniform', 'best', 'worst']" in complained) == (2, True)
