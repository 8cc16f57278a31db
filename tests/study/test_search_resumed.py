"""`hadas search` that was stopped goes on where it was, and leaves nothing behind."""

import shutil

import pytest

from hadas.search import checkpoint
from hadas.study import Study

from .running import hadas


class _StopError(BaseException):
    """As sudden as a kill, in this process."""


def test_a_stopped_search_goes_on_from_its_checkpoint(smoke_seeds, tmp_path):
    studies = {}
    for name in ("whole", "stopped"):
        shutil.copytree(smoke_seeds, tmp_path / name)
        studies[name] = tmp_path / name / "study.yaml"
    assert hadas("search", studies["whole"]).returncode == 0
    saved = []

    def stop(phase, done, total, *_):
        if phase == "nested search":
            saved.extend(studies["stopped"].parent.glob("*.search-*.json"))
            raise _StopError

    study = Study.open(studies["stopped"])
    with pytest.raises(_StopError):
        study.search(stop)
    study.store.close()
    assert len(saved) == 1
    assert saved[0].exists()
    with pytest.MonkeyPatch.context() as patch:
        # What is written from here on is only what had not been done.
        written, original = [], checkpoint.Checkpoint.save
        patch.setattr(
            checkpoint.Checkpoint, "save",
            lambda self, state: (written.append(state.n_generations), original(self, state)),
        )  # fmt: skip
        assert hadas("search", studies["stopped"]).returncode == 0
    n_generations = study.parts.search_settings.generations
    assert written == list(range(2, n_generations + 1))
    found = {name: Study.open(path).findings.event("search:0") for name, path in studies.items()}
    assert found["stopped"] == found["whole"]
    assert not list(studies["stopped"].parent.glob("*.search-*.json"))
