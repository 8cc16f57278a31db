"""What a study shows after other constraints were adopted is what holds under them."""

import json
import shutil

import numpy as np
import pytest
import yaml

from hadas.errors import InfeasibleError
from hadas.study import Study
from hadas.study.journal import settings_digest
from hadas.study.tables import status_rows

from .running import hadas


def adopt(path, **search) -> None:
    document = yaml.safe_load(path.read_text())
    document["search"] |= search
    path.write_text(yaml.safe_dump(document))


def test_adopted_settings_are_searched_and_counted_anew(smoke_seeds, tmp_path):
    shutil.copytree(smoke_seeds, tmp_path / "study")
    path = tmp_path / "study" / "study.yaml"
    begun = Study.open(path)
    first = begun.search()
    whole = begun.findings.summaries()[0]
    latencies = sorted(p.outcome.controller.latency_ms for p in begun.findings.loop_points())
    del begun

    adopt(path, constraints={"max_latency_ms": float(np.mean(latencies[3:5]))})
    study = Study.open(path, adopt=True)
    assert study.findings.event(f"search:{study.findings.search_label(0)}") is None
    second = study.search()
    assert [c.objectives for c in second.front] != [c.objectives for c in first.front]
    del study

    # Back again, the first search is found and not made anew.
    adopt(path, constraints={})
    study = Study.open(path, adopt=True)
    assert study.findings.search_label(0) == "0"
    assert [c.objectives for c in study.search().front] == [c.objectives for c in first.front]
    assert study.findings.summaries()[0] == whole
    del study

    # Nothing meets this one: it is said, the report is written, and the next step is another.
    adopt(path, constraints={"max_latency_ms": 1e-3})
    done = hadas("run", path, "--adopt")
    assert done.returncode == 2
    assert "latency at most 0.001 ms" in " ".join(done.stderr.split())
    assert "Report: " in done.stdout
    assert whole.hypervolume > 0.1
    assert "hypervolume 0.000 ± 0.000" in " ".join(done.stdout.split())
    study = Study.open(path)
    assert "relax 'search.constraints'" in dict(status_rows(study))["next"]
    with pytest.raises(InfeasibleError, match="best found"):
        study.suggest(2, more=True)


def test_what_is_left_open_does_not_tell_settings_apart():
    """A study from before constraints could be said is not taken for another one."""
    nothing = {"max_latency_ms": None, "max_exits": None}
    old, now = {"preset": "smoke", "overrides": {}}, {"preset": "smoke", "constraints": nothing}
    assert settings_digest(old) == settings_digest(now)
    assert settings_digest(json.loads(json.dumps(now))) != settings_digest(
        {"preset": "smoke", "constraints": {**nothing, "max_exits": 0}}
    )
