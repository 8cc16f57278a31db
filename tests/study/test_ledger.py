"""The ledger: measured unit costs, and what a budget buys, against numbers worked out by hand."""

import dataclasses
import math

import pytest
import sqlalchemy as sa
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hadas.cli import app
from hadas.cli.printing import console
from hadas.datasets.records import AccuracyRecord
from hadas.datasets.store import Store
from hadas.errors import ConfigError, DeviceError, StudyError
from hadas.measurement.farm.opening import leases_of
from hadas.spaces import mini_space
from hadas.study import Study
from hadas.study.config import template, with_places
from hadas.study.ledger import Ledger, Split, budget_splits, duration, parse_budget
from hadas.study.tables import status_rows


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("24h", 86400), ("1.5d", 129600), ("3600s", 3600), (" 2 h ", 7200)]
)
def test_budgets(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "h", "-3h", "0h", "1h30m", "1e3s", "inf h", "9" * 400 + "h"])
def test_no_budgets(text):
    with pytest.raises(ConfigError, match=r"e\.g\. 90m, 24h"):
        parse_budget(text)


def test_durations():
    assert [duration(s) for s in (0.25, 119, 120, 7199, 7200)] == [
        "0.25 s",
        "119 s",
        "2 min",
        "120 min",
        "2 h",
    ]


def test_splits_by_hand():
    """1000 s: 100 of training; a backbone takes 60, two at a time; a point 10, three per backbone.

    All on backbones: 900 / 60 = 15 turns of two.  Mixed: a turn of two is 60 + 2 x 30 = 120, so 7 turns
    take 840; the 60 s left pay one more job, but none of its points.  Half: 450 s are 7 turns (420 s) and
    45 points.  All on points: 90.
    """
    options = {"training_s": 100.0, "backbone_s": 60.0, "points_per_backbone": 3}
    assert budget_splits(1000.0, point_s=10.0, n_workers=2, **options) == [
        Split("all on backbones", 30, 0, 1000.0),
        Split("3 points per backbone", 14, 42, 940.0),
        Split("half on each", 14, 45, 970.0),
        Split("all on points", 0, 90, 1000.0),
    ]
    # 30 s more pay the points of one backbone in a turn that leaves the second worker idle.
    assert budget_splits(1030.0, point_s=10.0, n_workers=2, **options)[1].n_backbones == 15
    # A simulated device takes no time, so its points are no choice.
    assert budget_splits(1000.0, point_s=0.0, **options) == [
        Split("all on backbones", 15, 0, 1000.0),
        Split("3 points per backbone", 15, 45, 1000.0),
    ]
    assert budget_splits(99.0, point_s=10.0, **options) == []


@given(
    budget=st.integers(0, 400), backbone=st.integers(1, 40), point=st.integers(0, 12), k=st.integers(1, 5),
    workers=st.integers(1, 5),
)  # fmt: skip
def test_splits_buy_as_much_as_there_is(budget, backbone, point, k, workers):
    """Integers, so that sums are exact: no count of backbones higher than the one found fits."""
    found = budget_splits(
        float(budget), training_s=0.0, backbone_s=float(backbone), point_s=float(point),
        points_per_backbone=k, n_workers=workers,
    )  # fmt: skip
    assert all(split.seconds <= budget for split in found)
    for split, points in zip(found, (0, k), strict=False):
        fits = [n for n in range(2100) if math.ceil(n / workers) * backbone + n * points * point <= budget]
        assert (split.n_backbones, split.n_points) == (max(fits), max(fits) * points)


def test_places_on_the_command_line_override_the_file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(template("study.yaml", "smoke"))
    config = Study.open(path).config
    on_dask = with_places(config, {"cluster": "tcp://host:8786"})
    assert (on_dask.accuracy.workers, on_dask.accuracy.cluster) == ("dask", "tcp://host:8786")
    back = with_places(on_dask, {"workers": "processes", "n_workers": 3})
    assert (back.accuracy.workers, back.accuracy.n_workers, back.accuracy.cluster) == ("processes", 3, None)
    for wrong in ({"workers": "dask"}, {"workers": "threads", "cluster": "tcp://host:1"}):
        with pytest.raises(ConfigError, match="go together"):
            with_places(config, wrong)
    with pytest.raises(ConfigError, match=r"'accuracy.device' = 'gpu'"):
        with_places(config, {"device": "gpu"})


@pytest.mark.parametrize(
    ("places", "message"),
    [({"workers": "gpus"}, "no CUDA device"), ({"cluster": "tcp://127.0.0.1:9"}, "no Dask scheduler")],
)
def test_places_that_are_not_there_are_noticed_before_the_training(tmp_path, monkeypatch, places, message):
    if places.get("workers") == "gpus" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr("hadas.measurement.accuracy.cluster.ANSWER_TIMEOUT_S", 0.3)
    path = tmp_path / "study.yaml"
    path.write_text(template("study.yaml", "smoke"))
    with pytest.raises(ConfigError, match=message):
        Study.open(path, places=places).measure_accuracy()
    assert not (tmp_path / "weights").exists()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A smoke study whose accuracies were measured by themselves, on a process of their own."""
    path = tmp_path_factory.mktemp("ledger") / "study.yaml"
    path.write_text(template("study.yaml", "smoke"))
    Study.open(path, places={"workers": "processes", "n_workers": 1}).measure_accuracy()
    return path


def accuracy_rows(study):
    return study.store.accuracy_expenses(study.parts.recipes[1].recipe_id)


def test_accuracies_come_first_and_costs_close_the_round(measured):
    study = Study.open(measured)
    assert study.findings.n_measured_rounds == 0
    assert len(accuracy_rows(study)) == 4
    assert len(study.store.costs()) == 0
    assert ("accuracy rows", "4, 0 of them invalid") in status_rows(study)
    study.measure()
    assert study.findings.n_measured_rounds == 1
    assert len(accuracy_rows(study)) == 4
    assert study.measure_accuracy() == ()
    alone = measured.parent / "alone.yaml"
    alone.write_text(measured.read_text().replace("store: store.sqlite", "store: alone.sqlite"))
    by_threads = Study.open(alone)
    by_threads.measure()
    outcomes = [[point.outcome for point in s.findings.points(0)] for s in (study, by_threads)]
    assert outcomes[0] == outcomes[1]


def test_accuracies_need_no_device_and_no_device_costs_no_training(measured, tmp_path):
    """A board out of reach: `measure` says so before it trains, `--accuracy` does all that it can do."""
    devices = {"lab": {"kind": "jetson", "transport": {"ssh": "nowhere.invalid"}}}
    (tmp_path / "lab.yaml").write_text(yaml.safe_dump(devices))
    path = tmp_path / "study.yaml"
    device = {"kind": "jetson", "name": "lab", "devices": "lab.yaml"}
    path.write_text(yaml.safe_dump({**yaml.safe_load(template("study.yaml", "smoke")), "device": device}))
    leases = leases_of(tmp_path / "lab.yaml")
    leases.quarantine("lab", "it smokes")
    with pytest.raises(DeviceError, match="it smokes"):
        Study.open(path).measure()
    assert not (tmp_path / "weights").exists()
    assert Study.open(path).store.study_config("smoke") is None

    study = Study.open(path)
    assert len(study.measure_accuracy()) == 4
    assert ("accuracy rows", "4, 0 of them invalid") in status_rows(study)
    assert ("next", "hadas measure") in status_rows(study)
    assert len(Ledger(study).splits(86_400.0)) == 4  # priced by the protocol
    # They are the backbones that the seeds of any device are of.
    on_simulator = Study.open(measured)
    on_simulator.measure()
    seeds = {point.design.backbone for point in on_simulator.findings.points(0)}
    assert set(study.planned_backbones([0])) == seeds


def a_row(study, row_no, hardware, **seconds):
    """An accuracy row that took so long."""
    return AccuracyRecord(
        f"{study.config.study}/accuracy", row_no, mini_space().presets["m0"], "w", study.parts.recipes[1].recipe_id,
        study.parts.data.split_id, 5, None, None, seconds, False, "made up", hardware,
    )  # fmt: skip


def test_the_ledger_by_hand(tmp_path):
    """Three rows of 10, 40 and 16 s on a CPU and one of 2 s on a GPU, a training of 50 s, rows of a device."""
    path = tmp_path / "study.yaml"
    path.write_text(template("study.yaml", "smoke"))
    study = Study.open(path)
    with pytest.raises(StudyError, match=r"no accuracy is measured yet.*run first: hadas measure"):
        Ledger(study).splits(1000.0)
    study.store.put_study("smoke", study.config.model_dump(mode="json"))
    times = [
        ("cpu x1 thread", 4, 4, 2),
        ("cpu x1 thread", 10, 20, 10),
        ("cpu x1 thread", 6, 6, 4),
        ("H", 0.5, 1, 0.5),
    ]
    for i, (hardware, calibrate, exits, evaluate) in enumerate(times):
        row = a_row(study, i, hardware, calibrate=calibrate, exits=exits, evaluate=evaluate)
        study.store.add_accuracy(dataclasses.replace(row, valid=True, reason=""))
    study.store.add_accuracy(a_row(study, 9, "cpu x1 thread", calibrate=1.0))
    with pytest.raises(StudyError, match="its supernet is not trained yet"):
        Ledger(study).splits(1000.0)
    study.store.journal("smoke", "supernet", {"weights_id": "w", "seconds": 50.0})
    ledger = Ledger(study)
    costs = [
        (c.what.strip(), c.hardware, c.n, c.median_s, c.low_s, c.high_s) for c in ledger.backbone_costs()
    ]
    assert costs == [
        ("calibrate", "cpu x1 thread", 3, 6, 4, 10),
        ("exits", "cpu x1 thread", 3, 6, 4, 20),
        ("evaluate", "cpu x1 thread", 3, 4, 2, 10),
        ("accuracy of a backbone", "cpu x1 thread", 3, 16, 10, 40),
        ("calibrate", "H", 1, 0.5, 0.5, 0.5),
        ("exits", "H", 1, 1, 1, 1),
        ("evaluate", "H", 1, 0.5, 0.5, 0.5),
        ("accuracy of a backbone", "H", 1, 2, 2, 2),
    ]
    # The failed row is spent, too, but is no unit cost.
    assert dict(ledger.spent())["accuracy, on cpu x1 thread"] == "67 s for 4 backbones"
    assert [(s.n_backbones, s.n_points) for s in ledger.splits(160.0)] == [(10, 0), (10, 20)]
    assert [s.n_points for s in ledger.splits(160.0, 7)] == [0, 70]


@pytest.mark.parametrize(
    ("device", "seconds", "what", "a_day"),
    [
        ({"kind": "cuda", "name": "gpu"}, 0.5 + 3 + 4 * 0.3 + 5 + 5 * (10.56 + 0.4224), "cost row of 2 exits", "1,337"),
        ({"kind": "host-cpu", "name": "host", "protocol": "full"}, 0.5 + 3 + 4 * 0.3 + 5 * 3.4, "cost row of 2 exits, latency alone", "3,982"),
    ],
)  # fmt: skip
def test_a_device_that_has_measured_nothing_is_priced_by_its_protocol(tmp_path, device, seconds, what, a_day):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(template("study.yaml", "smoke")), "device": device}))
    study = Study.open(path)
    study.store.put_study("smoke", study.config.model_dump(mode="json"))
    study.store.add_accuracy(
        dataclasses.replace(a_row(study, 0, "cpu x1 thread", exits=100.0), valid=True, reason="")
    )
    study.store.journal("smoke", "supernet", {"weights_id": "w", "seconds": 50.0})
    ledger = Ledger(study)
    price = ledger.point_cost()
    assert (price.what, price.n) == (what, 0)
    assert price.median_s == pytest.approx(seconds)
    assert price.source == f"protocol 'full', not measured: {a_day} a day, without loading programs"
    n_days = 86_400.0
    assert ledger.splits(n_days)[-1].n_points == int(n_days / seconds)


def test_a_plan_shows_what_is_known_before_it_says_what_lacks(tmp_path, monkeypatch):
    """The price of a point by its protocol needs neither an accuracy nor the device."""
    devices = {"lab": {"kind": "jetson", "transport": {"ssh": "nowhere.invalid"}}}
    (tmp_path / "lab.yaml").write_text(yaml.safe_dump(devices))
    path = tmp_path / "study.yaml"
    device = {"kind": "jetson", "name": "lab", "devices": "lab.yaml"}
    path.write_text(yaml.safe_dump({**yaml.safe_load(template("study.yaml", "smoke")), "device": device}))
    monkeypatch.setattr(console, "width", 200)
    run = CliRunner().invoke(app, ["plan", str(path), "--budget", "24h"])
    assert "protocol 'full', not measured: 1,337 a day, without loading programs" in " ".join(
        run.output.split()
    )
    assert isinstance(run.exception, StudyError)
    assert "--accuracy" in str(run.exception)


def test_another_study_of_the_store_lends_its_unit_costs(measured):
    """A study that has nothing plans with what one alike measured, its supernet's training to be paid again."""
    store = str(measured.parent / "store.sqlite")
    document = {**yaml.safe_load(measured.read_text()), "study": "second", "seed": 8, "store": store}
    elsewhere = measured.parent / "elsewhere"
    elsewhere.mkdir()
    second = elsewhere / "second.yaml"
    second.write_text(yaml.safe_dump(document))
    first, ledger = Ledger(Study.open(measured)), Ledger(Study.open(second))
    assert {cost.source for cost in ledger.backbone_costs()} == {"study 'smoke'"}
    assert ledger.backbone_s() == first.backbone_s()
    assert first.training_s_left() == 0.0
    training = first.training_cost()
    assert ledger.training_s_left() == training.median_s > 0.0
    assert ledger.training_cost().source == "study 'smoke'"
    with pytest.raises(StudyError, match="training of its supernet alone takes"):
        ledger.splits(training.median_s / 2)
    longer = {**document, "study": "third", "accuracy": {"preset": "smoke", "supernet": {"steps": 9}}}
    third = elsewhere / "third.yaml"
    third.write_text(yaml.safe_dump(longer))
    with pytest.raises(StudyError, match="no study of the store trained one alike"):
        Ledger(Study.open(third)).splits(3600.0)
    # Where the supernet itself is found, there is nothing left to train.
    beside = measured.parent / "beside.yaml"
    beside.write_text(yaml.safe_dump({**document, "study": "beside"}))
    assert Ledger(Study.open(beside)).training_s_left() == 0.0


@pytest.mark.parametrize("change", [{"head_width": 64}, {"data": {"name": "digits", "limit": 120}}])
def test_rows_of_other_heads_or_images_are_no_unit_costs(measured, change):
    document = {**yaml.safe_load(measured.read_text()), "study": "other", **change}
    other = measured.parent / "other.yaml"
    other.write_text(yaml.safe_dump(document))
    with pytest.raises(StudyError, match=r"rows of study 'smoke' are of other images or another space"):
        Ledger(Study.open(other)).backbone_s()


def test_the_plan_on_the_command_line(measured):
    """Three tables, simulated seconds marked as such; with workers, the title says how many."""
    run = CliRunner().invoke(app, ["plan", str(measured), "--budget", "1h"], env={"COLUMNS": "200"})
    assert run.exit_code == 0, run.output
    said = " ".join(run.output.split())
    for part in ("spent so far", "unit costs", "what 1h buys (SIMULATED device)", "2 points per backbone"):
        assert part in said
    on_dask = ["plan", str(measured), "--budget", "1h", "--cluster", "tcp://nowhere:1"]
    run = CliRunner().invoke(app, [*on_dask, "--n-workers", "3"], env={"COLUMNS": "200"})
    assert "3 accuracy jobs at a time" in " ".join(run.output.split())
    # How many workers a cluster will have, nobody but the user knows.
    assert "say it with --n-workers" in str(CliRunner().invoke(app, on_dask).exception)
    assert isinstance(
        CliRunner().invoke(app, ["plan", str(measured), "--budget", "1"]).exception, ConfigError
    )


def test_a_store_written_before_hardware_was_noted(measured, tmp_path):
    """Its rows have none; new ones can be added."""
    old = tmp_path / "old.sqlite"
    row = a_row(Study.open(measured), 50, "cpu x1 thread", exits=1.0)
    Store(str(old)).add_accuracy(row)
    engine = sa.create_engine(f"sqlite:///{old}")
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE accuracy_rows DROP COLUMN hardware"))
    engine.dispose()
    reopened = Store(str(old))
    reopened.add_accuracy(dataclasses.replace(row, row_no=51))
    assert [expense.hardware for expense in reopened.accuracy_expenses(row.recipe_id)] == [
        "",
        "cpu x1 thread",
    ]
