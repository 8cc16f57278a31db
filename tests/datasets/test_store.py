"""The store keeps what was measured, whole or not at all, and refuses what cannot be."""

import math
import multiprocessing
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas.datasets.leases import Leases
from hadas.datasets.logs.tables import series_names
from hadas.datasets.records import (
    AccuracyRecord,
    CostRecord,
    OutcomeMatrix,
    StageCost,
    Statistic,
    Target,
    Truth,
    clustered_standard_error,
)
from hadas.datasets.store import Store
from hadas.errors import RecordError, StoreError
from hadas.spaces import CLOCK_TABLES, mini_space

TARGET = Target("board", "gpu", "r1", "runtime 1.0", pinned=(("fan", "max"),))
SETTING = CLOCK_TABLES["tx2-pascal-gpu"].default
BACKBONE = mini_space().presets["m1"]


def cost_record(**changes) -> CostRecord:
    stat = Statistic(2.5, 0.01, 40)
    fields = {
        "session": "s", "row_no": 0, "backbone": BACKBONE, "n_classes": 10, "heads": ((5, 1),),
        "requested": SETTING, "actual": SETTING, "target": TARGET, "truth": Truth.SIMULATOR,
        "stages": (StageCost("segment", 5, stat, stat), StageCost("head", 5, stat, None), StageCost("segment", 12, stat, stat)),
        "latency_ms": Statistic(7.5, 0.02, 40), "energy_mj": Statistic(30.1, 0.5, 3), "device_seconds": 51.0,
    }  # fmt: skip
    return CostRecord(**{**fields, **changes})


def outcome_matrix(n: int = 50, e: int = 9, seed: int = 0) -> OutcomeMatrix:
    rng = np.random.default_rng(seed)
    reals = rng.random((3, n, e)).astype(np.float16)
    predicted = rng.integers(0, 10, (n, e)).astype(np.int16)
    return OutcomeMatrix(
        rng.random((n, e)) < 0.7, *reals, predicted, np.repeat(np.arange(n // 5), 5).astype(np.int32)
    )


def accuracy_record(**changes) -> AccuracyRecord:
    fields = {
        "session": "s", "row_no": 0, "backbone": BACKBONE, "weights_id": "w", "recipe_id": "r", "split_id": "d",
        "first_exit": 4, "calibration": outcome_matrix(seed=1), "test": outcome_matrix(seed=2), "seconds": {"exits": 1.5},
    }  # fmt: skip
    return AccuracyRecord(**{**fields, **changes})


def open_all(paths, barrier, failures):
    for path in paths:
        barrier.wait()
        try:
            store = Store(path)
            series_names(store)
            Leases(store)
            store.close()
        except Exception as error:
            failures.put(str(error))


def test_several_processes_open_a_new_store_at_once(tmp_path):
    """What is missing is created once, its version written once, and nobody is turned away."""
    paths = [str(tmp_path / f"{number}.sqlite") for number in range(10)]
    context = multiprocessing.get_context("fork")
    barrier, failures = context.Barrier(4), context.SimpleQueue()
    processes = [context.Process(target=open_all, args=(paths, barrier, failures)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert failures.empty(), failures.get()
    for path in paths:
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT schema_version FROM meta").fetchall() == [(1,)]
        connection.close()


def test_a_store_of_another_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "later.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE meta (schema_version INTEGER NOT NULL)")
        connection.execute("INSERT INTO meta VALUES (7)")
    with pytest.raises(StoreError, match="schema version 7; this hadas reads version 1"):
        Store(str(path))
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("meta",)]
    connection.close()


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store.sqlite"))


def test_cost_rows_come_back_exactly(store):
    failed = cost_record(
        row_no=1, valid=False, reason="over-current", latency_ms=None, energy_mj=None, stages=()
    )
    for record in (cost_record(), failed, cost_record(session="other", energy_mj=None)):
        store.add_cost(record)
    assert store.costs(session="s") == (cost_record(), failed)
    assert len(store.costs(target_id=TARGET.target_id)) == 3


def test_accuracy_rows_come_back_exactly(store):
    store.add_accuracy(accuracy_record())
    found = store.accuracy([BACKBONE.arch_id], weights_id="w", recipe_id="r", split_id="d")[BACKBONE.arch_id]
    for split in ("calibration", "test"):
        before, after = getattr(accuracy_record(), split), getattr(found, split)
        for field in ("correct", "confidence", "margin", "entropy", "predicted", "group"):
            assert np.array_equal(getattr(before, field), getattr(after, field))
    assert store.accuracy([BACKBONE.arch_id], weights_id="other", recipe_id="r", split_id="d") == {}


def test_a_later_success_wins_over_an_earlier_failure(store):
    store.add_accuracy(accuracy_record(valid=False, reason="out of memory", calibration=None, test=None))
    store.add_accuracy(accuracy_record(row_no=1))
    assert store.accuracy([BACKBONE.arch_id], weights_id="w", recipe_id="r", split_id="d")[
        BACKBONE.arch_id
    ].valid
    assert [expense.valid for expense in store.accuracy_expenses("r")] == [False, True]


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_impossible_latency_is_refused_and_the_store_untouched(store, value):
    stat = Statistic(value, 0.1, 3)
    with pytest.raises(RecordError, match=r"row 3.*latency_ms \[ms\]"):
        store.add_cost(cost_record(row_no=3, latency_ms=stat))
    with pytest.raises(RecordError, match=r"stages\[0\]\.latency_ms \[ms\]"):
        store.add_cost(cost_record(stages=(StageCost("segment", 12, stat, None),)))
    assert store.costs() == ()


def test_a_row_is_never_overwritten(store):
    store.add_cost(cost_record())
    with pytest.raises(StoreError, match=r"exists already.*[Aa]nother hadas"):
        store.add_cost(replace(cost_record(), device_seconds=1.0))
    assert store.costs() == (cost_record(),)


def test_journal_keys_are_unique(store):
    store.put_study("a", {"seed": 1})
    store.journal("a", "plan:0", {"designs": [1, 2]})
    with pytest.raises(StoreError):
        store.journal("a", "plan:0", {})
    assert store.event("a", "plan:0") == {"designs": [1, 2]}
    assert store.event("a", "plan:1") is None
    assert store.event_keys("a") == ("plan:0",)


def test_not_a_store(tmp_path):
    path = tmp_path / "store.sqlite"
    path.write_text("this is no database, only a long enough text to be read as one " * 50)
    with pytest.raises(StoreError, match=r"store\.sqlite"):
        Store(str(path))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file.txt/store.sqlite", "folder cannot be made"),
        ("folder", "cannot be opened"),
        ("nosuch://user:secret@host/db", "cannot be opened"),
        ("oracle+oracledb://user:secret@host/db", "driver 'oracledb' is not installed"),
    ],
)
def test_an_impossible_place_names_the_remedy(tmp_path, place, message):
    (tmp_path / "file.txt").write_text("a file, not a folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=rf"{message}.*(?:Name a new file|Install it)") as caught:
        Store(place if "://" in place else str(tmp_path / place))
    assert "secret" not in str(caught.value)


def test_a_damaged_store_is_an_error_of_the_store(store):
    """Tables that vanish under an open store end in a message, for reads and for writes."""
    store.add_cost(cost_record())
    with sqlite3.connect(store.url.removeprefix("sqlite:///")) as connection:
        for table in ("cost_rows", "accuracy_rows", "events", "studies"):
            connection.execute(f"DROP TABLE {table}")
    for action in (
        store.costs,
        lambda: store.accuracy_expenses("r"),
        lambda: store.study_config("a"),
        lambda: store.event_keys("a"),
        lambda: store.next_accuracy_row("s"),
        lambda: store.accuracy(["x"], weights_id="w", recipe_id="r", split_id="d"),
    ):
        with pytest.raises(StoreError, match="cannot be read"):
            action()
    with pytest.raises(StoreError, match="cannot be written"):
        store.add_cost(cost_record(row_no=1))


@given(st.integers(2, 12), st.integers(0, 1000))
def test_standard_error_counts_images_not_copies(copies, seed):
    """Copying every sample does not make a mean more certain; independent samples do."""
    values = np.random.default_rng(seed).random(40)
    once = clustered_standard_error(values, np.arange(40, dtype=np.int32))
    copied = clustered_standard_error(
        np.repeat(values, copies), np.repeat(np.arange(40, dtype=np.int32), copies)
    )
    assert copied == pytest.approx(once)
    assert once == pytest.approx(values.std(ddof=1) / math.sqrt(40))
