"""Importing: every row once, whatever happens; bad rows kept aside with their reasons."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from hadas.datasets.logs import importing, tables
from hadas.datasets.logs.columns import load_column_map
from hadas.datasets.logs.importing import import_log
from hadas.datasets.logs.jsonl import record_line, write_records
from hadas.datasets.records import Statistic
from hadas.datasets.store import Store
from hadas.errors import ConfigError, DataError

from .lines_of_boards import LINES
from .rows import EVIDENCE, failed_row, measured_row, simulated_rows

N_BATCH = 40  # rows in a batch while testing, so that files of a few rows have several


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(importing, "_BATCH", N_BATCH)


@pytest.fixture
def store(tmp_path):
    opened = Store(str(tmp_path / "store.sqlite"))
    yield opened
    opened.close()


def rejected(path: Path) -> list[dict[str, str]]:
    with path.with_name(f"{path.name}.rejects.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def counts(summary):
    return summary.imported, summary.known, summary.rejected


# -- our own log -----------------------------------------------------------------------------


def test_rows_arrive_as_they_were_measured_under_a_session_of_logs(store, tmp_path):
    rows = [measured_row(), failed_row(row_no=1), *simulated_rows(100, "rig/1")]
    write_records(tmp_path / "rig.jsonl", rows)
    summary = import_log(store, tmp_path / "rig.jsonl")
    assert counts(summary) == (102, 0, 0)
    assert summary.into == ("log:rig/0", "log:rig/1")
    assert store.costs() == tuple(replace(row, session=f"log:{row.session}") for row in rows)


def test_the_same_file_again_and_a_longer_one_add_only_what_is_new(store, tmp_path):
    rows, path = simulated_rows(90), tmp_path / "rig.jsonl"
    write_records(path, rows[:50])
    assert counts(import_log(store, path)) == (50, 0, 0)
    assert counts(import_log(store, path)) == (0, 50, 0)
    path.unlink()
    write_records(path, rows)
    assert counts(import_log(store, path)) == (40, 50, 0)
    assert len(store.costs()) == 90


def test_rows_that_were_measured_here_are_known(store, tmp_path):
    store.add_cost(measured_row())
    write_records(tmp_path / "a.jsonl", [measured_row(), measured_row(row_no=1)])
    assert counts(import_log(store, tmp_path / "a.jsonl")) == (1, 1, 0)
    assert [row.session for row in store.costs()] == ["log:rig/0", "rig/0"]


def renamed(rows, session):
    return [replace(row, session=session) for row in rows]


@pytest.mark.parametrize("series", [None, "again"])
@pytest.mark.parametrize("session", ["rig/0", "log:rig/0", "renamed"])
def test_rows_are_known_by_what_they_say_whatever_their_session_is_called(store, tmp_path, series, session):
    rows, path = [*simulated_rows(60), failed_row(row_no=60)], tmp_path / "a.jsonl"
    for row in rows[:10]:
        store.add_cost(row)  # measured here
    write_records(tmp_path / "first.jsonl", rows[10:50])
    import_log(store, tmp_path / "first.jsonl", series="first")
    write_records(path, renamed(rows, session))
    assert counts(import_log(store, path, series=series)) == (11, 50, 0)
    assert counts(import_log(store, path, series="once more")) == (0, 61, 0)
    assert sorted(row.row_no for row in store.costs()) == list(range(61))


def test_equal_measurements_of_one_session_stay_repeats(store, tmp_path):
    repeats = [measured_row(row_no=row_no) for row_no in range(5)]
    write_records(tmp_path / "a.jsonl", repeats)
    assert counts(import_log(store, tmp_path / "a.jsonl")) == (5, 0, 0)
    write_records(tmp_path / "b.jsonl", renamed(repeats, "b"))
    assert counts(import_log(store, tmp_path / "b.jsonl")) == (0, 5, 0)


def test_numbers_written_otherwise_are_the_same_numbers(store, tmp_path):
    """Tools that read JSON and write it again change the order of fields and write 2.0 as 2."""
    document = json.loads(record_line(measured_row(device_seconds=51.0)))
    store.add_cost(measured_row(device_seconds=51.0))
    document["device_seconds"] = 51
    (tmp_path / "a.jsonl").write_text(json.dumps(document, sort_keys=True) + "\n")
    assert counts(import_log(store, tmp_path / "a.jsonl", series="other")) == (0, 1, 0)


def test_a_store_from_before_finds_its_rows_as_fast(store, tmp_path):
    write_records(tmp_path / "a.jsonl", simulated_rows(3))
    import_log(store, tmp_path / "a.jsonl")
    with store.transaction() as connection:
        connection.exec_driver_sql("DROP INDEX cost_likeness")
    assert counts(import_log(store, tmp_path / "a.jsonl", series="other")) == (0, 3, 0)
    asked: list[tuple[str, object]] = []
    listen = sa.event.listen
    listen(
        store.engine, "before_cursor_execute", lambda _, __, sql, values, *___: asked.append((sql, values))
    )
    assert counts(import_log(store, tmp_path / "a.jsonl", series="third")) == (0, 3, 0)
    with store.engine.connect() as connection:
        queries = [(sql, values) for sql, values in asked if "WITH wanted" in sql]
        plans = [
            connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all() for sql, values in queries
        ]
    assert plans
    assert all(
        any("SEARCH cost_rows USING INDEX cost_likeness" in str(step) for step in plan) for plan in plans
    )


_IMPORT = """
import sys
from pathlib import Path
from hadas.datasets.logs import importing
from hadas.datasets.logs.columns import column_map
from hadas.datasets.store import Store
importing._BATCH = 40
for _ in sys.stdin:  # until the other is ready, too
    break
store = Store(sys.argv[1])
summary = importing.import_log(store, Path(sys.argv[2]), series=sys.argv[3] or None)
print(summary.imported, summary.known, summary.rejected)
"""


@pytest.mark.parametrize("series", ["", "second"])
def test_two_imports_of_one_file_at_once_store_every_row_once(tmp_path, series):
    path, database = tmp_path / "rig.jsonl", tmp_path / "store.sqlite"
    bad = record_line(measured_row(latency_ms=Statistic(-1.0, 0.0, 1)))
    path.write_text("".join(map(record_line, simulated_rows(400))) + bad)
    pipe = subprocess.PIPE
    imports = [
        subprocess.Popen(
            [sys.executable, "-c", _IMPORT, database, path, name],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for name in ("", series)
    ]
    for process in imports:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120) for process in imports]
    assert [process.returncode for process in imports] == [0, 0], said
    fates = [tuple(map(int, output.split())) for output, _ in said]
    assert sum(imported for imported, _, _ in fates) == 400
    assert all(imported + known == 400 and rejects == 1 for imported, known, rejects in fates)
    store = Store(str(database))
    assert sorted(row.row_no for row in store.costs()) == list(range(400))
    store.close()
    assert len(rejected(path)) == 1


def test_rows_with_nan_are_known_again(store, tmp_path):
    seen = replace(failed_row(), latency_ms=Statistic(float("nan"), 0.0, 1))
    write_records(tmp_path / "a.jsonl", [seen])
    assert counts(import_log(store, tmp_path / "a.jsonl")) == (1, 0, 0)
    assert counts(import_log(store, tmp_path / "a.jsonl")) == (0, 1, 0)


@pytest.mark.parametrize("where", ["same file", "later file", "measured here"])
def test_failures_of_which_nothing_was_measured_are_kept_for_every_session(store, tmp_path, where):
    failed = [failed_row(session=session) for session in ("fa/0", "fb/0")]
    if where == "measured here":
        store.add_cost(failed[0])
    if where == "later file":
        write_records(tmp_path / "first.jsonl", failed[:1])
        import_log(store, tmp_path / "first.jsonl")
    path = tmp_path / "a.jsonl"
    write_records(path, failed)
    assert counts(import_log(store, path)) == ((2, 0, 0) if where == "same file" else (1, 1, 0))
    assert {row.session.removeprefix("log:") for row in store.costs()} == {"fa/0", "fb/0"}
    assert counts(import_log(store, path, series="again")) == (0, 2, 0)


def test_a_failure_imported_under_a_series_is_known_by_its_own_export(store, tmp_path):
    write_records(tmp_path / "a.jsonl", [failed_row(session="rig/0")])
    assert import_log(store, tmp_path / "a.jsonl", series="lab").into == ("log:lab/rig/0",)
    write_records(tmp_path / "export.jsonl", store.costs())
    for name in ("a.jsonl", "export.jsonl"):
        for series in (None, "other"):
            assert counts(import_log(store, tmp_path / name, series=series)) == (0, 1, 0)


def test_a_failure_with_evidence_is_known_under_any_session(store, tmp_path):
    seen = failed_row(session="fa/0")
    seen = replace(seen, evidence=EVIDENCE)
    write_records(tmp_path / "a.jsonl", [seen, replace(seen, session="fb/0")])
    assert counts(import_log(store, tmp_path / "a.jsonl")) == (1, 1, 0)


def line_without_net_error(row):
    """A line from before evidence told the error of net energy."""
    document = json.loads(record_line(row))
    for stage in document["evidence"]["stages"]:
        if stage["energy"] is not None:
            del stage["energy"]["net_error_mj"]
    return json.dumps(document) + "\n"


@pytest.mark.parametrize("seen", [None, Statistic(float("nan"), 0.0, 1)])
@pytest.mark.parametrize("older_first", [True, False])
def test_a_row_from_before_its_evidence_had_every_field_is_known_by_its_own_export(
    store, tmp_path, older_first, seen
):
    row, path = measured_row(), tmp_path / "older.jsonl"
    if seen is not None:
        row = replace(row, valid=False, reason="throttled", latency_ms=seen)
    path.write_text(line_without_net_error(row))
    write_records(tmp_path / "newer.jsonl", [row])
    first, second = (path, tmp_path / "newer.jsonl") if older_first else (tmp_path / "newer.jsonl", path)
    assert counts(import_log(store, first)) == (1, 0, 0)
    assert counts(import_log(store, second)) == (0, 1, 0)
    assert counts(import_log(store, second, series="other")) == (0, 1, 0)


def test_evidence_that_tells_another_error_of_net_energy_is_another_row(store, tmp_path):
    told = replace(EVIDENCE.stages[0].energy, net_error_mj=0.3)
    stages = (replace(EVIDENCE.stages[0], energy=told), *EVIDENCE.stages[1:])
    other = measured_row(evidence=replace(EVIDENCE, stages=stages))
    (tmp_path / "older.jsonl").write_text(line_without_net_error(measured_row()))
    write_records(tmp_path / "other.jsonl", [other, measured_row(evidence=None)])
    assert counts(import_log(store, tmp_path / "older.jsonl")) == (1, 0, 0)
    assert counts(import_log(store, tmp_path / "other.jsonl")) == (0, 0, 2)


@pytest.mark.parametrize("where", ["imported", "measured here", "same file"])
def test_a_number_taken_by_another_row_is_a_conflict(store, tmp_path, where):
    taken, path = measured_row(), tmp_path / "a.jsonl"
    other = replace(taken, latency_ms=Statistic(3.3, 0.1, 40))
    if where == "measured here":
        store.add_cost(taken)
    write_records(path, [taken, other] if where == "same file" else [other])
    if where == "imported":
        write_records(tmp_path / "first.jsonl", [taken])
        import_log(store, tmp_path / "first.jsonl")
    summary = import_log(store, path)
    assert summary.rejected == 1
    row = rejected(path)[0]
    assert row["field"] == "session, row_no"
    assert "--series" in row["reason"]
    assert {r.latency_ms.value for r in store.costs()} == {taken.latency_ms.value}
    path.unlink()
    write_records(path, [other])
    assert import_log(store, path, series="second rig").into == ("log:second rig/rig/0",)


def test_bad_rows_are_kept_aside_and_the_others_come_in(store, tmp_path):
    path = tmp_path / "rig.jsonl"
    good = [record_line(row) for row in simulated_rows(3)]
    bad = record_line(measured_row(latency_ms=Statistic(-1.0, 0.0, 1)))
    path.write_bytes("".join([good[0], bad, "\n", "not json\n", *good[1:]]).encode() + b"\xff\xfe\n")
    summary = import_log(store, path)
    assert counts(summary) == (3, 0, 3)
    assert summary.rejects == tmp_path / "rig.jsonl.rejects.csv"
    rows = rejected(path)
    assert [row["line"] for row in rows] == ["2", "4", "7"]
    assert (rows[0]["field"], rows[0]["unit"], rows[0]["text"]) == ("latency_ms", "ms", bad.rstrip())
    assert rows[0]["reason"] == "must be a positive finite number"
    assert rows[0]["file"] == str(path)
    assert "UTF-8" in rows[2]["reason"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"value": 3.25', '"value": 1' + 400 * "0"), ('"value": 3.25', '"value": 1e999'), ('"reason": ""', '"reason": "\\ud800"'),
        ('"row_no": 0', '"row_no": 9' + 5000 * "9"), ('"n": 40', '"n": 4e1'),
        ('"device_seconds": 51.25', '"device_seconds": 1' + 400 * "0"), ('"stages": [', '"stages": ' + 2000 * "["),
    ],
)  # fmt: skip
def test_numbers_and_texts_that_no_database_holds_are_rejects(store, tmp_path, old, new):
    line = record_line(measured_row())
    assert old in line
    (tmp_path / "rig.jsonl").write_text(line.replace(old, new, 1) + record_line(measured_row(row_no=1)))
    assert counts(import_log(store, tmp_path / "rig.jsonl")) == (1, 0, 1)
    assert rejected(tmp_path / "rig.jsonl")[0]["line"] == "1"


_HELD_IMPORT = """
import sys
from pathlib import Path
from hadas.datasets.logs.rejects import Rejects
from hadas.errors import RecordError
error = RecordError("is bad", source="a", row=None, field="line", value="x")
with Rejects(Path(sys.argv[1])) as rejects:
    rejects.add(1, error, "x")
    print("written", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_import_left_of_its_rejects_is_removed_but_not_what_a_running_one_writes(
    store, tmp_path
):
    path = tmp_path / "rig[1].jsonl"
    path.write_text("not json\n")
    imports = [
        subprocess.Popen(
            [sys.executable, "-c", _HELD_IMPORT, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in imports:
        assert process.stdout.readline() == b"written\n"
    killed, running = imports
    killed.kill()
    killed.wait(timeout=60)
    assert len(list(tmp_path.glob(".rig*"))) == 2
    assert import_log(store, path).rejected == 1
    (left,) = tmp_path.glob(".rig*")
    assert left.name.endswith(f".{running.pid}")
    running.communicate(timeout=60)
    assert running.returncode == 0
    assert not list(tmp_path.glob(".rig*"))
    assert [row["reason"] for row in rejected(path)] == ["is bad"]
    killed.communicate()


def test_mended_logs_lose_their_rejects_file(store, tmp_path):
    path = tmp_path / "rig.jsonl"
    path.write_text("not json\n")
    assert import_log(store, path).rejects.is_file()
    path.write_text(record_line(measured_row()))
    assert import_log(store, path).rejects is None
    assert not path.with_name("rig.jsonl.rejects.csv").exists()


def test_a_cut_last_line_is_said_to_be_unfinished_and_comes_in_once_it_is_whole(store, tmp_path):
    path, lines = tmp_path / "rig.jsonl", [record_line(row) for row in simulated_rows(2)]
    path.write_text(lines[0] + lines[1][:-20])
    summary = import_log(store, path)
    assert (*counts(summary), summary.unfinished) == (1, 0, 0, True)
    path.write_text("".join(lines))
    summary = import_log(store, path)
    assert (*counts(summary), summary.unfinished) == (1, 1, 0, False)


_KILLED_IMPORT = """
import os, signal, sys
from pathlib import Path
from hadas.datasets.logs import importing, sinks
from hadas.datasets.store import Store
importing._BATCH = {batch}
left = {writes}
def killed(conn, cursor, statement, parameters, context, executemany):
    global left
    if statement.startswith("INSERT INTO " + {table!r}):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
import sqlalchemy as sa
store = Store({store!r})
sa.event.listen(store.engine, "after_cursor_execute", killed)
from hadas.datasets.logs.columns import load_column_map
given = {map!r}
importing.import_log(store, Path({log!r}), column_map=load_column_map(Path(given)) if given else None)
"""


def import_killed_after_insert(
    store: Path, log: Path, n_inserts: int, table: str, map_file: str = ""
) -> None:
    """Import in a process of its own that is killed within a transaction, right after an insert."""
    script = _KILLED_IMPORT.format(
        batch=N_BATCH, writes=n_inserts, store=str(store), log=str(log), table=table, map=map_file
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("kind", ["jsonl", "tegrastats", "csv"])
def test_killed_in_the_middle_and_repeated_nothing_is_lost_or_doubled(tmp_path, kind):
    path, database, map_file = tmp_path / f"log.{kind}", tmp_path / "store.sqlite", ""
    if kind == "jsonl":
        write_records(path, simulated_rows(100))
        table = "cost_rows"
    elif kind == "tegrastats":
        lines = [
            LINES["xavier jp4"].replace("311/311", f"{i // 2}/{i // 2}") for i in range(100)
        ]  # each twice
        path.write_text("".join(f"{line}\n" for line in lines))
        table = "log_telemetry"
    else:
        path.write_text("net,ms\n" + "".join(f"m{i % 3},{1 + i // 9}\n" for i in range(100)))
        map_file = str(tmp_path / "map.yaml")
        Path(map_file).write_text(
            "truth: device\ntarget: {board: b, processor: p, release: r, runtime: t}\n"
            "network: {space: mini, preset: {column: net}, n_classes: 10}\nlatency: {column: ms, unit: ms}\n"
        )
        table = "cost_rows"
    import_killed_after_insert(database, path, 2, table, map_file)
    store = Store(str(database))
    before = len(store.costs()) if table == "cost_rows" else len(list(tables.telemetry(store, "log")))
    assert before == N_BATCH, "the first batch is whole, the second left no trace"
    column_map = load_column_map(Path(map_file)) if map_file else None
    assert counts(import_log(store, path, column_map=column_map)) == (60, 40, 0)
    assert counts(import_log(store, path, column_map=column_map)) == (0, 100, 0)
    if kind == "jsonl":
        assert [row.row_no for row in store.costs()] == list(range(100))
    elif kind == "tegrastats":
        assert [r.rail("CPU").instant_mw for r in tables.telemetry(store, "log")] == [
            i // 2 for i in range(100)
        ]
    else:
        assert [row.latency_ms.value for row in store.costs()] == [1 + i // 9 for i in range(100)]
    store.close()


# -- tegrastats ------------------------------------------------------------------------------


def test_lines_of_tegrastats_are_kept_by_series_and_repeats_stay_repeats(store, tmp_path):
    path, orin = tmp_path / "board.log.gz", LINES["orin jp5"]
    text = (
        "".join(f"{line}\n" for line in (orin, orin.replace("VDD_IN 5299", "VDD_IN 12377"), orin))
        + "VDD_IN 5W/5W RAM 1/2MB\n"
    )
    path.write_bytes(gzip.compress(text.encode()))
    summary = import_log(store, path)
    assert (summary.kind, *counts(summary), summary.into) == ("tegrastats", 3, 0, 1, ("board",))
    assert rejected(path)[0]["field"] == "column 1, VDD_IN"
    records = list(tables.telemetry(store, "board"))
    assert [record.total.instant_mw for record in records] == [5299, 12377, 5299]
    assert counts(import_log(store, path)) == (0, 3, 1)
    assert counts(import_log(store, path, series="another board")) == (3, 0, 1)
    assert tables.series_names(store) == ("another board", "board")


def test_a_line_of_tegrastats_that_does_not_end_is_left_out(store, tmp_path):
    path = tmp_path / "board.log"
    path.write_text(
        LINES["orin jp5"] + "\n" + LINES["nano user"][:-2]
    )  # "204/2" is a number too, but not that one
    summary = import_log(store, path)
    assert (*counts(summary), summary.unfinished) == (1, 0, 0, True)


OTHER_BOARDS = {
    "tx1 jp3": "rails", "nano user": "rails", "tx2 jp3": "memory", "xavier jp4": "memory", "orin jp6": "memory",
    "one core more": "3 cores, not 4", "as a user": "", "a core off": "",
    "another boot": "", "half the memory": "memory",
}  # fmt: skip


@pytest.mark.parametrize("other", OTHER_BOARDS)
@pytest.mark.parametrize("where", ["same file", "later file"])
def test_lines_of_another_board_do_not_go_into_one_series(store, tmp_path, other, where):
    path, first = tmp_path / "board.log", LINES["tx1 jp3"].replace("/3983MB", "/3964MB")
    line = LINES.get(other, first)
    if other == "tx1 jp3":
        line = first.replace("VDD_", "VDDQ_").replace("VDDQ_IN", "POM_5V_IN")
    elif other == "one core more":
        first, line = first, first.replace("CPU [1%@102,", "CPU [")
    elif other == "as a user":
        line = first.partition(" VDD_IN")[0]
    elif other == "a core off":
        line = first.replace("CPU [1%@102", "CPU [off")
    elif other == "another boot":
        line = first.replace("/3964MB", "/3963MB")
    elif other == "half the memory":
        line = first.replace("/3964MB", "/1980MB")
    path.write_text(f"{first}\n{line}\n" if where == "same file" else f"{first}\n")
    summary = import_log(store, path)
    if where == "later file":
        path.write_text(f"{line}\n")
        summary = import_log(store, path, series="board")
    reason = OTHER_BOARDS[other]
    assert summary.rejected == bool(reason)
    if reason:
        assert "another board" in rejected(path)[0]["reason"]
        assert reason in rejected(path)[0]["reason"]


def test_another_log_of_the_same_name_is_not_taken_for_a_longer_version(store, tmp_path):
    """Undated idle lines are equal every day: a second log under the same name would lose them as known."""
    idle, busy = LINES["xavier jp4"], LINES["xavier jp4"].replace("GPU 10/20", "GPU 900/20")
    path = tmp_path / "board.log"
    path.write_text(f"{idle}\n{idle}\n")
    assert counts(import_log(store, path)) == (2, 0, 0)
    path.write_text(f"{idle}\n{idle}\n{busy}\n")  # longer
    assert counts(import_log(store, path)) == (1, 2, 0)
    path.write_text(f"{busy}\n{idle}\n{idle}\n")  # another day
    with pytest.raises(ConfigError, match="--series board; if not, give it a name of its own"):
        import_log(store, path)
    assert counts(import_log(store, path, series="tuesday")) == (3, 0, 0)
    assert counts(import_log(store, path, series="board")) == (0, 3, 0), "as the user says: the same log"


def test_a_copy_under_another_name_is_known(store, tmp_path):
    text = f"{LINES['xavier jp4']}\n{LINES['xavier jp4'].replace('GPU 10/20', 'GPU 12/20')}\n"
    (tmp_path / "board.log").write_text(text)
    (tmp_path / "copy.log.gz").write_bytes(gzip.compress(text.encode()))
    assert counts(import_log(store, tmp_path / "board.log")) == (2, 0, 0)
    assert counts(import_log(store, tmp_path / "copy.log.gz")) == (0, 2, 0)
    assert tables.series_names(store) == ("board",)


# -- files -----------------------------------------------------------------------------------


def test_files_that_cannot_be_read_are_named(store, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        import_log(store, tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="folder"):
        import_log(store, tmp_path)
    (tmp_path / "empty.log").write_text("\n\n")
    with pytest.raises(DataError, match="is empty"):
        import_log(store, tmp_path / "empty.log")
    (tmp_path / "binary.log").write_bytes(b"\x00\x01\x02RAM{")
    with pytest.raises(DataError, match="is no text"):
        import_log(store, tmp_path / "binary.log")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="--map"):
        import_log(store, tmp_path / "a.csv")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(record_line(measured_row()).encode())[:-30])
    with pytest.raises(DataError, match="damaged gzip"):
        import_log(store, tmp_path / "cut.jsonl.gz")


def test_progress_tells_bytes_and_rows(store, tmp_path):
    write_records(tmp_path / "rig.jsonl", simulated_rows(100))
    seen = []
    import_log(store, tmp_path / "rig.jsonl", on_progress=seen.append)
    assert [p.rows for p in seen] == [40, 80, 100]
    assert seen[-1].bytes_total == (tmp_path / "rig.jsonl").stat().st_size
    assert all(0 <= p.bytes_done <= p.bytes_total for p in seen)
