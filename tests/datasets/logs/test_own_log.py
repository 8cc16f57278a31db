"""Our own log: rows come back exactly, a kill costs one line, and no impossible row gets through."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas.datasets.logs.checking import RowReader
from hadas.datasets.logs.importing import import_log
from hadas.datasets.logs.jsonl import LogWriter, read_records, record_line, write_records
from hadas.datasets.logs.plausibility import row_slip
from hadas.datasets.records import StageCost, Statistic
from hadas.datasets.rows import cost_from_json
from hadas.datasets.store import Store
from hadas.errors import DataError, RecordError
from hadas.spaces import PINNED

from .rows import failed_row, measured_row, simulated_rows


def test_rows_come_back_exactly(tmp_path):
    rows = [
        measured_row(),
        failed_row(row_no=1),
        measured_row(row_no=2, evidence=None, energy_mj=None),
        *simulated_rows(4),
    ]
    rows.append(
        measured_row(
            row_no=3, heads=(), stages=(), requested=PINNED.default, actual=PINNED.default, evidence=None
        )
    )
    assert write_records(tmp_path / "a.jsonl", rows) == len(rows)
    assert read_records(tmp_path / "a.jsonl") == tuple(rows)


def test_a_line_stands_for_itself_with_units_in_its_names():
    document = json.loads(record_line(measured_row()))
    assert document["schema"] == "hadas-meas/1"
    assert document["arch_id"] == measured_row().backbone.arch_id
    assert document["target"]["board"] == "jetson-tx2"
    assert document["actual"]["clocks_hz"] == [["gpu", 1300500000], ["emc", 1866000000]]
    assert document["latency_ms"]["value"] == 3.25


def test_an_existing_log_is_not_overwritten(tmp_path):
    (tmp_path / "a.jsonl").write_text("precious\n")
    with pytest.raises(DataError, match="exists"):
        write_records(tmp_path / "a.jsonl", [measured_row()])


def test_every_row_is_on_the_disk_when_append_returns(tmp_path):
    with LogWriter(tmp_path / "deep" / "a.jsonl") as writer:
        for row_no in range(3):
            writer.append(measured_row(row_no=row_no))
            assert len(read_records(tmp_path / "deep" / "a.jsonl")) == row_no + 1


@pytest.mark.parametrize("cut", [1, 30, 800])
def test_a_half_written_line_is_no_row_and_the_next_writer_goes_on_after_it(tmp_path, cut):
    path, line = tmp_path / "a.jsonl", record_line(measured_row(row_no=1))
    path.write_text(record_line(measured_row()) + line[:-cut])
    whole = cut == 1  # only the end of the line is missing: the row is all there
    assert [row.row_no for row in read_records(path)] == ([0, 1] if whole else [0])
    with LogWriter(path) as writer:
        writer.append(measured_row(row_no=2))
    assert [row.row_no for row in read_records(path)] == ([0, 1, 2] if whole else [0, 2])
    lines = path.read_text().splitlines()
    assert whole or json.loads(lines[1])["unfinished"] == line[:-cut]  # kept, and no row
    store = Store(str(tmp_path / "store.sqlite"))
    summary = import_log(store, path)
    assert (summary.imported, summary.rejected) == ((3, 0) if whole else (2, 1))
    assert whole or "a killed writer left" in summary.rejects.read_text()


DAMAGE = {
    "session": ("", "must be text"), "row_no": (-1, "at least 0"), "n_classes": (True, "integer"),
    "truth": ("measured", "one of"), "program": ("both", "one of"), "valid": (1, "true or false"),
    "device_seconds": (-1.0, "not negative"), "heads": ([[5, 0]], "types start at 1"), "stages": ({}, "list"),
    "latency_ms": ({"value": "1", "standard_error": 0, "n": 1}, "all numbers"), "arch_id": ("mini-000000000000", "mini-"),
    "schema": ("hadas-meas/9", "hadas-meas/1"), "evidence": ({"engine": "x"}, "cannot be read"), "extra": (1, "no field"),
    "evidence.flags": ({**json.loads(record_line(measured_row()))["evidence"], "flags": "hot"}, "cannot be read"),
    "requested": ({"clocks_hz": [["gpu", 1300500]]}, "looks like kHz; multiply by 1000"),
    "actual": ({"clocks_hz": [["gpu", 1300500000000]]}, "above 10 GHz"), "target": ({"board": "x"}, "fields"),
    "backbone": ({"space": "mini"}, "fields"),
}  # fmt: skip


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("field", DAMAGE)
def test_a_bad_field_is_named_with_its_line(field, warm):
    value, remedy = DAMAGE[field]
    document = {**json.loads(record_line(measured_row())), field.partition(".")[0]: value}
    reader = RowReader("rig.jsonl")
    if warm:
        reader.read(1, record_line(measured_row()))
    with pytest.raises(RecordError) as refused:
        reader.read(2, json.dumps(document))
    assert str(refused.value).startswith(f"rig.jsonl, line 2: {field.partition('.')[0]}")
    assert remedy in str(refused.value)


@pytest.mark.parametrize("field", ["session", "backbone", "latency_ms", "truth", "target", "reason"])
def test_a_missing_field_is_named(field):
    document = json.loads(record_line(measured_row()))
    del document[field]
    with pytest.raises(RecordError, match=f"{field}.*is missing"):
        RowReader("rig.jsonl").read(1, json.dumps(document))


numbers = st.floats() | st.just(0.0) | st.floats(0.1, 10) | st.integers(-1, 3)
statistics = st.builds(Statistic, numbers, numbers, st.integers(0, 100))
stages = st.builds(StageCost, st.just("segment"), st.just(5), statistics, st.none() | statistics)
anything = st.fixed_dictionaries(
    {
        "latency_ms": st.none() | statistics, "energy_mj": st.none() | statistics,
        "stages": st.lists(stages, max_size=2).map(tuple), "valid": st.booleans(), "reason": st.sampled_from(("", "hot")),
        "device_seconds": st.floats(0, 100),
    }
)  # fmt: skip
plausible = st.builds(Statistic, st.floats(3.0, 3.5), st.floats(0, 1), st.integers(1, 100))
mostly_fine = st.fixed_dictionaries(
    {"latency_ms": plausible, "energy_mj": st.none() | plausible | statistics}
)


@given(anything | mostly_fine)
def test_the_short_way_and_the_long_way_accept_the_same_rows(changes):
    row = measured_row(**changes)
    try:
        row.check()
        expected = ""
    except RecordError as error:
        expected = str(error).partition(": ")[2]
    reader = RowReader("rig.jsonl")
    reader.read(1, record_line(measured_row()))  # from here on the short way may vouch for rows
    document = json.loads(record_line(row))
    assert not (expected and reader._is_plainly_fine(document))
    if not expected and row.valid and (slip := row_slip(document, row.backbone.n_blocks)):
        expected = slip.reason  # on either way
    found = ""
    try:
        checked = reader.read(2, record_line(row))
    except RecordError as error:
        found = str(error)
    else:
        again = cost_from_json(checked.row, checked.target)
        assert record_line(again) == record_line(row)
    assert bool(found) == bool(expected)
    assert found.endswith(expected)


def test_the_short_way_vouches_for_rows_as_devices_write_them():
    reader = RowReader("rig.jsonl")
    reader.read(1, record_line(measured_row()))
    for row in (measured_row(row_no=7), measured_row(evidence=None, energy_mj=None)):
        assert reader._is_plainly_fine(json.loads(record_line(row)))


@given(st.data())
def test_whatever_value_stands_in_a_field_the_short_way_vouches_for_nothing_that_the_long_way_refuses(data):
    junk = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=3)
        | st.just([])
        | st.just({})
    )
    document = json.loads(record_line(measured_row()))
    path = [data.draw(st.sampled_from(sorted(document)))]
    inner = document[path[0]]
    if isinstance(inner, dict) and data.draw(st.booleans()):
        path.append(data.draw(st.sampled_from(sorted(inner))))
        document[path[0]][path[1]] = data.draw(junk)
    else:
        document[path[0]] = data.draw(junk)
    warm = RowReader("rig.jsonl")
    warm.read(1, record_line(measured_row()))
    results = []
    for reader in (warm, RowReader("rig.jsonl")):
        try:
            results.append(reader.read(2, json.dumps(document)).row)
        except RecordError:
            results.append(None)
    assert json.dumps(results[0]) == json.dumps(results[1])


LINE = record_line(measured_row()).rstrip()
LAYOUTS = {
    "as hadas writes it": LINE,
    "other order": json.dumps(dict(reversed(json.loads(LINE).items()))),
    "without blanks": json.dumps(json.loads(LINE), separators=(",", ":")),
    "blanks around": f"  {LINE}  ",
    "session twice": LINE[:-1] + ', "session": "rig/0"}',
    "target twice": LINE[:-1] + ', "target": ' + json.dumps(json.loads(LINE)["target"]) + "}",
    "schema last": "{"
    + LINE.removeprefix('{"schema": "hadas-meas/1", ')[:-1]
    + ', "schema": "hadas-meas/1"}',
    "session in a text": LINE.replace(
        '"reason": ""', '"reason": ", \\"session\\": \\"rig/0\\", \\"row_no\\": 3"'
    ),
    "no evidence": record_line(measured_row(evidence=None)).rstrip(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_however_a_line_is_laid_out_its_row_is_stored_under_the_new_session_and_as_it_was(layout):
    checked = RowReader("rig.jsonl").read(1, LAYOUTS[layout])
    stored = json.loads(checked.row_as('log:"x"/1'))
    assert stored == {**checked.row, "session": 'log:"x"/1'}
    assert cost_from_json(stored, checked.target).heads == ((5, 1),)


def test_an_invalid_row_needs_a_reason_and_may_hold_what_was_seen(tmp_path):
    seen = replace(failed_row(), latency_ms=Statistic(math.nan, math.nan, 0))
    write_records(tmp_path / "a.jsonl", [seen])
    assert math.isnan(read_records(tmp_path / "a.jsonl")[0].latency_ms.value)
    with pytest.raises(RecordError, match="reason"):
        RowReader("a").read(1, record_line(replace(seen, reason="")))
