"""The command line on a small real study: every step, every kind of bad input."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from hadas.datasets.store import Store
from hadas.spaces import mini_space
from hadas.study import Study
from hadas.study.config import template

from .running import hadas


def refused(*arguments: object) -> str:
    """Run a command that must fail with exit status 2; returns its message in one line."""
    done = hadas(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    return " ".join(done.stderr.split())


def contents(study: Path) -> str:
    """Everything the store of a study holds."""
    store = Store(str(study.parent / "store.sqlite"))
    keys = store.event_keys("smoke")
    return json.dumps([keys, [repr(row) for row in store.costs()], accuracy_rows(study)])


def accuracy_rows(study: Path) -> list[str]:
    opened = Study.open(study)
    return [repr(row) for row in opened.store.accuracy_expenses(opened.parts.recipes[1].recipe_id)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A smoke study whose seeds are measured, by the command line alone."""
    path = tmp_path_factory.mktemp("cli") / "study.yaml"
    assert hadas("init", path, "--preset", "smoke").returncode == 0
    done = hadas("measure", path)
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stdout
    return path


def changed(study: Path, directory: Path, **changes: object) -> Path:
    """A copy of a study file with some fields changed, beside its own store."""
    document = {**yaml.safe_load(study.read_text()), **changes}
    copy = directory / "study.yaml"
    copy.write_text(yaml.safe_dump(document))
    return copy


def test_steps_one_by_one_equal_a_run(measured, tmp_path):
    """measure, fit, search, suggest, measure leads to what `run` does."""
    for step in ("fit", "search", "suggest", "measure"):
        done = hadas(step, measured)
        assert done.returncode == 0, done.stderr
    whole = tmp_path / "study.yaml"
    whole.write_text(template("study.yaml", "smoke").replace("baselines: true", "baselines: false"))
    assert hadas("run", whole).returncode == 0
    by_steps, by_run = (Study.open(path).findings for path in (measured, whole))
    assert by_steps.n_measured_rounds == 2
    for r in range(2):
        designs = [[point.design for point in findings.points(r)] for findings in (by_steps, by_run)]
        assert designs[0] == designs[1]
        assert [p.outcome for p in by_steps.points(r)] == [p.outcome for p in by_run.points(r)]


def test_one_store_two_targets_share_accuracy_rows(measured, tmp_path):
    """A study of another device measures costs anew and no accuracy."""
    before = accuracy_rows(measured)
    device = {"kind": "simulator", "name": "agx-volta-gpu", "clocks": None}
    document = {**yaml.safe_load(measured.read_text()), "study": "second", "device": device}
    second = measured.parent / "second.yaml"
    second.write_text(yaml.safe_dump(document))
    assert hadas("measure", second).returncode == 0
    assert accuracy_rows(measured) == before
    first, other = Study.open(measured).findings, Study.open(second).findings
    assert {p.accuracy.session for p in other.points(0)} == {first.session("accuracy")}
    assert {row.target.board for row in other.cost_records(1)} != {
        row.target.board for row in first.cost_records(1)
    }


def test_own_designs_are_checked_before_anything_is_planned(measured, tmp_path):
    clocks = {"gpu": 854_250_000, "emc": 1_600_000_000}
    genes = {v.name: v.choices[0] for v in mini_space().variables}
    designs = tmp_path / "designs.yaml"
    before = contents(measured)
    for entry, message in (
        (
            {"genes": {**genes, "kernel.mb2": 7}, "exits": [], "clocks_hz": clocks},
            r"entry 0: gene 'kernel.mb2' = 7",
        ),
        ({"preset": "m9", "exits": [], "clocks_hz": clocks}, "'preset' = 'm9'"),
        ({"preset": "m1", "exits": [40], "clocks_hz": clocks}, "exit position 40"),
        (
            {"preset": "m1", "exits": [5], "clocks_hz": {**clocks, "gpu": 854_000_000}},
            "'gpu_hz': 854000000 Hz",
        ),
        ({"preset": "m1", "exits": [5]}, "'clocks_hz'"),
    ):
        designs.write_text(yaml.safe_dump([entry]))
        said = refused("suggest", measured, "--design", designs)
        assert message in said
        assert "designs.yaml" in said
    assert contents(measured) == before


def test_config_typo(measured, tmp_path):
    typo = changed(measured, tmp_path, learning={"rounds": 1, "bach": 2})
    assert "did you mean 'batch'" in refused("run", typo)
    assert not (tmp_path / "store.sqlite").exists()


def test_changed_configuration_is_shown_and_refused(measured):
    before = contents(measured)
    original = measured.read_text()
    try:
        measured.write_text(original.replace("seed: 7", "seed: 8"))
        assert "seed: 7 -> 8" in refused("run", measured)
    finally:
        measured.write_text(original)
    assert contents(measured) == before


def test_corrupt_image_file(measured, tmp_path):
    """One unreadable image among many is named by file and row before anything is stored."""
    images = tmp_path / "images"
    images.mkdir()
    rows = [{"bytes": b"not an image", "path": None}] * 40
    for part in ("train", "test"):
        table = pa.table({"img": rows, "label": pa.array([i % 10 for i in range(40)], pa.int64())})
        pq.write_table(table, images / f"cifar10-{part}.parquet")
    study = changed(measured, tmp_path, data={"name": "cifar10", "path": "images", "limit": None})
    said = refused("measure", study)
    assert "parquet" in said
    assert "row 0" in said
    assert Store(str(tmp_path / "store.sqlite")).event_keys("smoke") == ()


def test_checkpoint_of_another_space(measured, tmp_path):
    """A checkpoint says which space it is of; a file that is none is refused as such."""
    weights = next((measured.parent / "weights").glob("*.pt"))
    content = torch.load(weights, weights_only=True)
    torch.save({**content, "space": "another-space"}, tmp_path / "other.pt")
    (tmp_path / "none.pt").write_bytes(b"no checkpoint")
    for name, message in (("other.pt", "another-space"), ("none.pt", "none.pt"), ("absent.pt", "absent.pt")):
        accuracy = {"preset": "smoke", "checkpoint": name, "supernet": {}, "exits": {}}
        said = refused("measure", changed(measured, tmp_path, accuracy=accuracy))
        assert message in said
    assert Store(str(tmp_path / "store.sqlite")).event_keys("smoke") == ()


def test_a_checkpoint_replaces_training(measured, tmp_path):
    weights = next((measured.parent / "weights").glob("*.pt"))
    accuracy = {"preset": "smoke", "checkpoint": str(weights), "supernet": {}, "exits": {}}
    study = changed(measured, tmp_path, accuracy=accuracy)
    assert hadas("measure", study).returncode == 0
    assert not (tmp_path / "weights").exists()
    first, second = (Study.open(path).findings.points(0) for path in (measured, study))
    assert [p.outcome for p in first] == [p.outcome for p in second]


def test_steps_out_of_order_name_the_remedy(tmp_path):
    path = tmp_path / "study.yaml"
    assert hadas("init", path, "--preset", "smoke").returncode == 0
    for step in ("fit", "search", "suggest", "report"):
        assert "hadas measure" in refused(step, path)
    assert "exists" in refused("init", path)


@pytest.mark.parametrize(
    "command",
    [
        "init",
        "measure",
        "fit",
        "search",
        "suggest",
        "run",
        "status",
        "report",
        "demo",
        "space",
        "policies",
        "plan",
        "predict",
    ],
)
def test_help_teaches_by_example(command):
    done = hadas(command, "--help")
    assert done.returncode == 0
    assert f"hadas {command}" in done.stdout
    assert "Example" in done.stdout
