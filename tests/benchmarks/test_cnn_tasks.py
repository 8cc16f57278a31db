"""What is left out of the training rows of a comparison on whole networks is left out."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT.parent / "shared" / "data" / "measurements").is_dir():
    pytest.skip(
        "the measurements of the folder 'shared' are not beside the repository", allow_module_level=True
    )
sys.path.insert(0, str(ROOT / "benchmarks"))
from _cnn_tasks import NewBoard, log_of, rows_of, tasks  # noqa: E402


@pytest.fixture(scope="module")
def by_name():
    return {task.name: task for task in tasks()}


@pytest.mark.parametrize("seed", [0, 3])
def test_names_left_out_have_no_row_in_training(by_name, seed):
    (split,) = by_name["TX2 CNN energy, unseen names, N=500"].splits(seed)
    names = log_of("tx2", "energy_mj")["model_name"]
    assert len(split.train) == 500
    assert not set(names[split.train]) & set(names[split.test])
    assert len(set(names[split.test])) == round(0.2 * names.nunique())


def test_every_family_of_fifty_rows_is_left_out_once(by_name):
    families = log_of("agx_xavier", "latency_ms")["family"]
    left_out = []
    for split in by_name["AGX CNN latency, each family, N=500"].splits(1):
        (family,) = set(families[split.test])
        assert family not in set(families[split.train])
        assert len(split.test) == (families == family).sum()
        left_out.append(family)
    sizes = families.value_counts()
    assert sorted(left_out) == sorted(sizes[sizes >= 50].index)


@pytest.mark.parametrize("hidden", [False, True])
def test_hidden_networks_are_on_neither_board(hidden):
    board = NewBoard("nano", "tx2", hidden=hidden)
    (split,) = board.splits(2)
    old, new = log_of("nano", "latency_ms"), log_of("tx2", "latency_ms")
    seen = set(old["model_name"][board.source_rows(2)]) | set(new["model_name"][split.train])
    tested = set(new["model_name"][split.test])
    assert len(split.train) == 30
    assert not np.isin(split.test, split.train).any()
    if hidden:
        assert not seen & tested
    else:
        known = set(zip(old["model_name"], old["input_px"], strict=True))
        rows = new.iloc[split.test]
        assert set(zip(rows["model_name"], rows["input_px"], strict=True)) <= known
        assert not tested & board.hidden_names(2)


def test_logged_columns_become_standard_totals():
    rows, table = rows_of("tx2", "latency_ms"), log_of("tx2", "latency_ms")
    np.testing.assert_allclose(rows.totals["macs"], table["flops"] / 2)
    assert len(rows.totals) == 11
    assert all(np.isfinite(column).all() for column in rows.totals.values())
