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


def find(
    rows: QuantizedStore,
    *networks: QuantizedNetwork,
    recipe: str = "recipe",
    split: str = "split",
    start: str = "abc",
) -> dict[str, QuantizedRecord]:
    return rows.find(networks, recipe_id=recipe, split_id=split, start_id=start)


def test_rows_are_found_whatever_the_cores_and_the_session(rows: QuantizedStore) -> None:
    rows.add(record(0, session="earlier"))
    moved = replace(network(0), cores=(3,) * 12)
    found = find(rows, moved, network(1))
    assert list(found) == [moved.trained_id]
    assert found[moved.trained_id].session == "earlier"
    assert not find(rows, moved, recipe="other")
    assert not find(rows, moved, split="other")
    assert not find(rows)


def test_rows_tuned_from_another_start_are_other_rows(rows: QuantizedStore) -> None:
    rows.add(record(0, session="z"))
    rows.add(replace(record(0, session="a"), start_id="elsewhere", hardware="gpu"))
    key = network(0).trained_id
    assert find(rows, network(0))[key].session == "z"
    assert find(rows, network(0), start="elsewhere")[key].hardware == "gpu"
    assert not find(rows, network(0), start="nowhere")


def test_a_success_counts_more_than_failures_before_or_after(rows: QuantizedStore) -> None:
    """In the order of writing, not in that of the sessions' names."""
    failed = replace(record(0), calibration=None, test=None, valid=False)

    def found() -> QuantizedRecord:
        (one,) = find(rows, network(0)).values()
        return one

    rows.add(replace(failed, session="z", row_no=8, reason="first", passing=True))
    rows.add(replace(failed, session="a", row_no=1, reason="second"))
    assert (found().reason, found().passing) == ("second", False)
    rows.add(record(0, 9, session="y"))
    rows.add(record(0, 2, session="b"))
    rows.add(replace(failed, row_no=3, reason="third"))
    assert found().session == "y"


def test_a_long_list_is_found_whole(rows: QuantizedStore) -> None:
    rows.add(record(0))
    many = [*(network(seed) for seed in range(1, 600)), network(0)]
    assert len(find(rows, *many)) == 1


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
