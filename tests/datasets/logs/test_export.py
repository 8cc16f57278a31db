"""Export gives back what was imported; the commands say what became of every file."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hadas.cli.logs import logs_app
from hadas.datasets.logs.columns import load_column_map
from hadas.datasets.logs.examples import EXAMPLE, EXAMPLE_OF_OTHERS
from hadas.datasets.logs.exporting import export_foreign, export_rows, export_telemetry
from hadas.datasets.logs.importing import import_log
from hadas.datasets.logs.jsonl import read_records, record_line, write_records
from hadas.datasets.records import Statistic, Target, Truth
from hadas.datasets.store import Store
from hadas.errors import ConfigError, DataError
from hadas.study.config import template

from .lines_of_boards import LINES
from .rows import failed_row, measured_row, simulated_rows

OTHER = Target("host", "cpu", "Linux", "torch", "fp32")


@pytest.fixture
def store(tmp_path):
    opened = Store(str(tmp_path / "store.sqlite"))
    for row in (
        measured_row(),
        failed_row(row_no=1),
        measured_row(session="other", target=OTHER),
        *simulated_rows(3, "sim"),
    ):
        opened.add_cost(row)
    yield opened
    opened.close()


def test_an_export_reads_back_exactly_and_can_be_chosen_from(store, tmp_path):
    assert export_rows(store, tmp_path / "all.jsonl") == 6
    assert read_records(tmp_path / "all.jsonl") == store.costs()
    chosen = {
        "session": ({"session": "sim"}, 3), "target": ({"target_id": OTHER.target_id}, 1),
        "truth": ({"truth": Truth.DEVICE}, 3), "prefix": ({"prefix": "rig/"}, 2),
    }  # fmt: skip
    for name, (choice, n) in chosen.items():
        assert export_rows(store, tmp_path / f"{name}.jsonl", **choice) == n
    assert read_records(tmp_path / "session.jsonl") == store.costs(session="sim")


def test_out_and_in_and_out_again_is_the_same_file(store, tmp_path):
    export_rows(store, tmp_path / "a.jsonl")
    second = Store(str(tmp_path / "second.sqlite"))
    import_log(second, tmp_path / "a.jsonl")
    export_rows(second, tmp_path / "b.jsonl")
    third = Store(str(tmp_path / "third.sqlite"))
    import_log(third, tmp_path / "b.jsonl")
    export_rows(third, tmp_path / "c.jsonl")
    assert (tmp_path / "b.jsonl").read_text() == (tmp_path / "c.jsonl").read_text()
    assert import_log(store, tmp_path / "a.jsonl").known == 6, "its own export holds nothing new"
    second.close()
    third.close()


def test_totals_go_into_a_csv(store, tmp_path):
    export_rows(store, tmp_path / "all.csv", session="rig/0")
    with (tmp_path / "all.csv").open(newline="") as stream:
        good, failed = csv.DictReader(stream)
    assert (good["board"], good["heads"], good["gpu_hz"], good["actual_emc_hz"]) == ("jetson-tx2", "5:1", "1300500000", "1866000000")  # fmt: skip
    assert (good["latency_ms"], good["latency_error_ms"], good["energy_mj"], good["flags"]) == ("3.25", "0.02", "22.5", "hot")  # fmt: skip
    assert (failed["valid"], failed["reason"], failed["latency_ms"]) == ("False", "over-current", "")


def test_nothing_to_export_and_files_that_exist_are_refused(store, tmp_path):
    with pytest.raises(DataError, match="nothing to export"):
        export_rows(store, tmp_path / "a.csv", session="none")
    with pytest.raises(ConfigError, match=r"ends in \.jsonl"):
        export_rows(store, tmp_path / "a.txt")
    for name in ("a.csv", "a.jsonl"):
        (tmp_path / name).write_text("precious")
        with pytest.raises(DataError, match="exists"):
            export_rows(store, tmp_path / name)


def test_telemetry_goes_into_a_csv_with_units_in_its_columns(store, tmp_path):
    lines = [LINES["tx2 jp3"], LINES["tx2 jp3"].replace("VDD_IN 14025", "VDD_IN 13025")]
    (tmp_path / "board.log").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "orin.log").write_text(LINES["orin jp5"] + "\n")
    for name in ("board", "orin"):
        import_log(store, tmp_path / f"{name}.log")
    assert export_telemetry(store, tmp_path / "board.csv", series="board") == 2
    with (tmp_path / "board.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert (first["series"], first["line_no"], first["source"]) == ("board", "1", "board.log")
    assert (first["total_mw"], second["total_mw"], first["total_of"]) == ("14025", "13025", "VDD_IN")
    assert (first["gpu_hz"], first["emc_hz"], first["GR3D_FREQ_percent"]) == (
        "1300000000",
        "1866000000",
        "59",
    )
    assert (first["core0_percent"], first["core1_percent"], first["core0_hz"]) == ("12", "", "2035000000")
    assert (first["GPU_c"], first["CV_c"], first["VDD_GPU_average_mw"]) == ("47.0", "gated", "6903")
    assert export_telemetry(store, tmp_path / "both.csv") == 3
    with (tmp_path / "both.csv").open(newline="") as stream:
        assert [row["VDD_SOC_mw"] for row in csv.DictReader(stream)] == ["1371", "1371", "1424"]
    with pytest.raises(DataError, match="series none; the store has series: board, orin"):
        export_telemetry(store, tmp_path / "x.csv", series="none")
    with pytest.raises(ConfigError, match=r"ends in \.csv"):
        export_telemetry(store, tmp_path / "x.jsonl")


def test_networks_of_others_go_into_a_csv(store, tmp_path):
    (tmp_path / "map.yaml").write_text(EXAMPLE_OF_OTHERS)
    (tmp_path / "a.csv").write_text(
        "model,flops,latency_ms,power_w,gpu_mhz,fps,engine\nvgg,3.5,2,7,1300.5,500,x\n"
    )
    import_log(store, tmp_path / "a.csv", column_map=load_column_map(tmp_path / "map.yaml"))
    assert export_foreign(store, tmp_path / "out.csv", series="a") == 1
    with (tmp_path / "out.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["network"], row["feature_flops"], row["gpu_hz"]) == ("vgg", "3.5", "1300500000")
    assert (row["latency_ms"], row["latency_error_ms"], row["power_mw"]) == ("2.0", "", "7000.0")
    assert (row["board"], row["kept_fps"], row["kept_engine"]) == ("jetson-tx2", "500", "x")


# -- the commands ----------------------------------------------------------------------------


def run(*arguments, exit_code: int = 0) -> str:
    done = CliRunner().invoke(logs_app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return " ".join(done.output.split())


def test_the_commands_import_several_files_and_export_them(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    write_records(tmp_path / "rig.jsonl", simulated_rows(3))
    with (tmp_path / "rig.jsonl").open("a") as stream:
        stream.write(record_line(measured_row(latency_ms=Statistic(0.0, 0.0, 1))) + '{"cut')
    (tmp_path / "board.log").write_text(f"{LINES['orin jp6']}\n")
    database = tmp_path / "s.sqlite"
    said = run("import", tmp_path / "rig.jsonl", tmp_path / "board.log", "--store", database)
    assert "log:rig/0" in said
    assert "rig.jsonl.rejects.csv" in said
    assert "its last line is cut" in said
    assert "3 rows" in run("export", database, "-o", tmp_path / "out.jsonl", "--truth", "simulator")
    assert len(read_records(tmp_path / "out.jsonl")) == 3
    with pytest.raises(ConfigError, match="must be one of device, replay, simulator"):
        run("export", database, "-o", tmp_path / "x.jsonl", "--truth", "measured")
    with pytest.raises(ConfigError, match="no such file"):
        run("export", tmp_path / "none.sqlite", "-o", tmp_path / "x.jsonl")


def test_the_commands_take_a_study_for_its_store_and_its_own_rows(tmp_path):
    study = tmp_path / "my.yaml"
    study.write_text(template("my.yaml", "smoke", {"study": "mine"}))
    database = tmp_path / "store.sqlite"
    store = Store(str(database))
    store.add_cost(measured_row(session="mine/0"))
    store.add_cost(measured_row(session="others/0"))
    store.close()
    run("export", study, "-o", tmp_path / "mine.jsonl")
    assert [row.session for row in read_records(tmp_path / "mine.jsonl")] == ["mine/0"]
    run("import", tmp_path / "mine.jsonl", "--store", study, "--series", "again")
    assert [row.session for row in Store(str(database)).costs()] == ["mine/0", "others/0"], (
        "its own rows are known"
    )


def test_a_column_map_is_for_the_csv_files_among_others(tmp_path):
    (tmp_path / "map.yaml").write_text(
        "truth: device\ntarget: {board: b, processor: p, release: r, runtime: t}\n"
        "network: {name: {column: net}}\nlatency: {column: s, unit: s}\n"
    )
    (tmp_path / "a.csv").write_text("net,s\nx,1\n")
    write_records(tmp_path / "rig.jsonl", simulated_rows(2))
    said = run(
        "import", tmp_path / "a.csv", tmp_path / "rig.jsonl", "--map", tmp_path / "map.yaml", "--store", tmp_path / "s.sqlite"
    )  # fmt: skip
    assert "went into a" in said
    assert "went into log:rig/0" in said


def test_reading_logs_needs_no_torch():
    script = "import sys, hadas.datasets.logs.importing, hadas.datasets.logs.exporting; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_no_study_reads_is_said_to_be_exported_by_which_command(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "board.log").write_text(f"{LINES['orin jp6']}\n")
    database = tmp_path / "s.sqlite"
    said = run("import", tmp_path / "board.log", "--store", database)
    command = f"hadas logs export {database} --telemetry --series board -o board.csv"
    assert command in said
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="--telemetry exports the tegrastats of series board"):
        run("export", database, "-o", "rows.jsonl")
    assert "1 rows" in run(*command.split()[2:])
    assert (tmp_path / "board.csv").is_file()
    with pytest.raises(ConfigError, match="--telemetry"):
        run("export", database, "--telemetry", "--foreign", "-o", "x.csv")
    with pytest.raises(ConfigError, match="--session"):
        run("export", database, "--telemetry", "--session", "x", "-o", "x.csv")


def test_a_file_of_which_nothing_came_in_is_a_failure_and_the_others_are_imported(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / ("a_long_name_of_a_folder_" * 4)
    folder.mkdir()
    for name in ("a", "b"):
        write_records(folder / f"rig_{name}.jsonl", simulated_rows(2, f"{name}/0"))
    (folder / "bad.jsonl").write_text(record_line(measured_row(latency_ms=Statistic(0.0, 0.0, 1))))
    (folder / "cut.jsonl").write_text('{"cut')
    files = [folder / f"{name}.jsonl" for name in ("rig_a", "bad", "rig_b", "cut")]
    said = run("import", *files, "--store", tmp_path / "s.sqlite", exit_code=1)
    assert all(f"│ {name}.jsonl │" in said for name in ("rig_a", "rig_b", "bad", "cut")), said
    assert "nothing of bad.jsonl, cut.jsonl came in" in said
    assert len(Store(str(tmp_path / "s.sqlite")).costs()) == 4


def test_rows_with_an_assumed_error_are_mentioned(tmp_path):
    (tmp_path / "map.yaml").write_text(EXAMPLE.replace("error: {column: se_s}, ", ""))
    header = "board,n_cores,model,exits,time_s,energy,gpu_mhz"
    (tmp_path / "a.csv").write_text(f"{header}\ntx2,4,a0,,0.02,150,1300.5\n")
    said = run("import", tmp_path / "a.csv", "--map", tmp_path / "map.yaml", "--store", tmp_path / "s.sqlite")
    assert "1 rows state no standard error; 2 % of the value is assumed" in said


def test_the_help_and_the_guide_show_the_column_maps():
    said = CliRunner().invoke(logs_app, ["import", "--help"], env={"COLUMNS": "120"}).output
    guide = (Path(__file__).resolve().parents[3] / "docs" / "devices.md").read_text()
    for line in EXAMPLE.splitlines():
        assert line.strip() in " ".join(said.split()) or " ".join(line.split()) in " ".join(said.split()), (
            line
        )
    assert EXAMPLE in guide
    assert EXAMPLE_OF_OTHERS in guide
