"""What tests of the command line share."""

import gc
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from hadas.cli import main
from hadas.study import Study
from hadas.study.config import template


@pytest.fixture(scope="session")
def smoke_seeds(tmp_path_factory) -> Path:
    """Folder of a smoke study without baselines whose seeds are measured: one for all workers, to be copied."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke-seeds"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            begun = tmp_path_factory.mktemp("smoke")
            document = yaml.safe_load(template("study.yaml", "smoke"))
            document["accuracy"]["supernet"] = {"steps": 4}
            path = begun / "study.yaml"
            path.write_text(yaml.safe_dump({**document, "baselines": False}))
            study = Study.open(path)
            study.measure()
            study.store.close()
            del study
            gc.collect()
            begun.rename(folder)
    return folder


@pytest.fixture(scope="module")
def own_seeds(smoke_seeds, tmp_path_factory) -> Path:
    """The file of a module's own copy of that study, which its tests may go on with."""
    directory = tmp_path_factory.mktemp("seeds") / "study"
    shutil.copytree(smoke_seeds, directory)
    return directory / "study.yaml"


@pytest.fixture
def run_in_process(monkeypatch, capsys):
    """Run a command in this process; returns exit status, output and errors as they were written."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hadas", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        written = capsys.readouterr()
        return int(end.value.code or 0), written.out, written.err

    return run
