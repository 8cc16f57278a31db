"""Rows of quantized networks in the store's database."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hadas.datasets.quantized_records import QuantizedRecord
from hadas.datasets.quantized_store import QuantizedStore
from hadas.datasets.records import OutcomeMatrix
from hadas.datasets.store import Store
from hadas.errors import RecordError, StoreError
from hadas.spaces.quantized import QuantizedExitSpace, QuantizedNetwork

SPACE = QuantizedExitSpace("tiny", bits="per-segment", n_cores=4)


def network(seed: int) -> QuantizedNetwork:
    return SPACE.decode(SPACE.sample(1, np.random.default_rng(seed))[0])


def matrix(e: int, seed: int = 0) -> OutcomeMatrix:
    rng = np.random.default_rng(seed)
    half = rng.random((30, e)).astype(np.float16)
    return OutcomeMatrix(
        half > 0.5, half, half, half, (half * 9).astype(np.int16), np.arange(30, dtype=np.int32)
    )


def record(seed: int, row_no: int = 0, session: str = "s") -> QuantizedRecord:
    drawn = network(seed)
    e = len(drawn.exits)
    return QuantizedRecord(
        session, row_no, drawn, "recipe", "split", matrix(e, seed), matrix(e, seed + 1), {"tune": 1.5},
        hardware="cpu x1 thread", start_id="abc",
    )  # fmt: skip


@pytest.fixture
def rows(tmp_path: Path) -> QuantizedStore:
    return QuantizedStore(Store(str(tmp_path / "hadas.db")))


def content(row: QuantizedRecord) -> list[object]:
    matrices = [m and m.to_bytes() for m in (row.calibration, row.test)]
    return [replace(row, calibration=None, test=None), *matrices]


def test_a_row_comes_back_as_it_was(rows: QuantizedStore) -> None:
    first, failed = (
        record(0),
        replace(record(1, 1), calibration=None, test=None, valid=False, reason="loss nan"),
    )
    rows.add(first)
    rows.add(failed)
    assert [content(row) for row in rows.records("s")] == [content(first), content(failed)]
    assert (rows.next_row("s"), rows.next_row("other")) == (2, 0)


def test_rows_are_found_whatever_the_cores_and_the_session(rows: QuantizedStore) -> None:
    rows.add(record(0, session="earlier"))
    moved = replace(network(0), cores=(3,) * 12)
    found = rows.find([moved, network(1)], recipe_id="recipe", split_id="split")
    assert list(found) == [moved.trained_id]
    assert found[moved.trained_id].session == "earlier"
    assert not rows.find([moved], recipe_id="other", split_id="split")
    assert not rows.find([moved], recipe_id="recipe", split_id="other")
    assert not rows.find([], recipe_id="recipe", split_id="split")


def test_a_success_counts_more_than_failures_before_or_after(rows: QuantizedStore) -> None:
    failed = replace(record(0), calibration=None, test=None, valid=False)
    rows.add(replace(failed, row_no=0, reason="first"))
    rows.add(replace(failed, row_no=1, reason="second"))
    (found,) = rows.find([network(0)], recipe_id="recipe", split_id="split").values()
    assert found.reason == "second"
    rows.add(record(0, 2))
    rows.add(replace(failed, row_no=3, reason="third"))
    (found,) = rows.find([network(0)], recipe_id="recipe", split_id="split").values()
    assert found.row_no == 2


def test_a_long_list_is_found_whole(rows: QuantizedStore) -> None:
    rows.add(record(0))
    many = [*(network(seed) for seed in range(1, 1200)), network(0)]
    assert len(rows.find(many, recipe_id="recipe", split_id="split")) == 1


def test_what_contradicts_itself_is_not_written(rows: QuantizedStore) -> None:
    whole = record(0)
    with pytest.raises(RecordError, match=r"session s, row 0: test columns = 12"):
        rows.add(replace(whole, test=matrix(12)))
    with pytest.raises(RecordError, match="a valid row needs its outcomes"):
        rows.add(replace(whole, calibration=None))
    with pytest.raises(RecordError, match="an invalid row needs a reason"):
        rows.add(replace(whole, valid=False))
    assert rows.next_row("s") == 0
    rows.add(whole)
    with pytest.raises(StoreError, match="row exists already"):
        rows.add(whole)
