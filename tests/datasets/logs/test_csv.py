"""CSV by column map: units converted, slips refused by row, networks of ours and of others."""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hadas.datasets.logs import tables
from hadas.datasets.logs.columns import column_map, load_column_map
from hadas.datasets.logs.csvrows import ASSUMED_ERROR, CsvReader
from hadas.datasets.logs.examples import EXAMPLE, EXAMPLE_OF_OTHERS
from hadas.datasets.logs.importing import import_log
from hadas.datasets.logs.lines import Line
from hadas.datasets.records import Statistic, Truth
from hadas.datasets.rows import cost_from_json
from hadas.datasets.store import Store
from hadas.errors import ConfigError, RecordError
from hadas.spaces import mini_space

from .rows import measured_row

MEASUREMENTS = Path(__file__).resolve().parents[4] / "shared" / "data" / "measurements"
MAPS = Path(__file__).parent / "maps"
OWN = {
    "truth": "device",
    "target": {
        "board": {"column": "board"}, "processor": "gpu", "release": "L4T 32", "runtime": "trt", "dtype": "fp16",
        "pinned": {"cores": {"column": "cores"}},
    },
    "network": {"space": "mini", "preset": {"column": "net"}, "n_classes": 10, "heads": {"column": "exits"}},
    "latency": {"column": "us", "unit": "us", "error": {"column": "sd"}, "runs": 50},
    "energy": {"column": "joule", "unit": "J"},
    "clocks": {"gpu": {"column": "mhz", "unit": "MHz"}, "emc": {"column": "khz", "unit": "kHz"}},
}  # fmt: skip
FOREIGN = {
    **OWN,
    "network": {"name": {"column": "net"}, "features": {"cores": {"column": "cores"}}},
    "keep": ["exits"],
}
HEADER = "board,cores,net,exits,us,sd,joule,mhz,khz"
LINE = "tx2,4,m1,5:1 9,2500.5,12,0.0125,114.75,665600"


@pytest.fixture
def store(tmp_path):
    opened = Store(str(tmp_path / "store.sqlite"))
    yield opened
    opened.close()


def changed(document, **fields):
    """A copy of a map with fields changed, nested ones by double underscores; ``None`` takes one out."""
    document = copy.deepcopy(document)
    for path, value in fields.items():
        *above, last = path.split("__")
        place = document
        for name in above:
            place = place[name]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return document


def imported(store, tmp_path, *lines, header=HEADER, document=OWN, name="sweep.csv"):
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in (header, *lines)))
    return import_log(store, path, column_map=column_map(document))


def reasons(tmp_path, name="sweep.csv"):
    with (tmp_path / f"{name}.rejects.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_units_are_converted_and_the_row_is_one_of_ours(store, tmp_path):
    summary = imported(store, tmp_path, LINE, LINE.replace("m1,5:1 9", "m2,none"))
    assert (summary.imported, summary.into) == (2, ("log:sweep",))
    first, second = store.costs()
    assert first.backbone == mini_space().presets["m1"]
    assert first.heads == ((5, 1), (9, 1))
    assert second.heads == ()
    assert first.latency_ms == Statistic(2.5005, 0.012, 50)
    assert first.energy_mj == Statistic(12.5, 0.02 * 12.5, 1), "no error is stated, so one is assumed ..."
    assert first.evidence.flags == (ASSUMED_ERROR,), "... and the row says so"
    assert first.requested.clocks_hz == (("gpu", 114_750_000), ("emc", 665_600_000))
    assert (first.target.board, first.target.pinned) == ("tx2", (("cores", "4"),))
    assert first.truth is Truth.DEVICE
    for row in (first, second):
        row.check()


def test_repeats_stay_and_the_same_file_again_adds_nothing(store, tmp_path):
    assert imported(store, tmp_path, LINE, LINE, LINE).imported == 3
    again = imported(store, tmp_path, LINE, LINE, LINE, LINE)
    assert (again.imported, again.known) == (1, 3)
    assert [row.row_no for row in store.costs(session="log:sweep")] == [0, 1, 2, 3]


SLIPS = {
    "kHz in a column of MHz": (
        LINE.replace("114.75", "114750000"),
        "clocks.gpu",
        "the column looks like Hz; correct 'unit' of 'clocks.gpu'",
    ),
    "MHz in a column of kHz": (
        LINE.replace("665600", "665.6"),
        "clocks.emc",
        "the column looks like MHz; correct 'unit'",
    ),
    "a clock in no unit at all": (
        LINE.replace("114.75", "0.001"),
        "clocks.gpu",
        "1000 Hz is none in any unit",
    ),
    "latency in ns": (LINE.replace("2500.5,12", "0.0005,0"), "latency", "between a microsecond and an hour"),
    "energy in mJ": (LINE.replace("0.0125", "12.5"), "energy", "mean power of 5e+03 W"),
    "energy in kJ": (LINE.replace("0.0125", "0.0000125"), "energy", "correct 'unit' of 'energy'"),
    "error of another unit": (
        LINE.replace(",12,", ",120000000,"),
        "latency_ms.standard_error",
        "10 times the value",
    ),
    "no whole Hz": (LINE.replace("114.75", "114.75000001"), "clocks.gpu", "no whole number of Hz"),
    "latency nan": (LINE.replace("2500.5", "nan"), "latency", "finite"),
    "latency inf": (LINE.replace("2500.5", "inf"), "latency", "finite"),
    "latency negative": (LINE.replace("2500.5", "-3"), "latency", "positive"),
    "latency zero": (LINE.replace("2500.5", "0"), "latency", "positive"),
    "latency empty": (LINE.replace("2500.5", ""), "latency", "needs a latency"),
    "latency with a unit": (LINE.replace("2500.5", "2.5ms"), "latency", "number"),
    "decimal comma": (LINE.replace("2500.5", '"2500,5"'), "latency", "point for decimals"),
    "number with underscores": (LINE.replace("2500.5", "2_500"), "latency", "number"),
    "energy negative": (LINE.replace("0.0125", "-0.0125"), "energy", "positive"),
    "error negative": (LINE.replace(",12,", ",-12,"), "latency.error", "not negative"),
    "clock empty": (LINE.replace("114.75", ""), "clocks.gpu", "number"),
    "clock zero": (LINE.replace("114.75", "0"), "clocks.gpu", "between 10 MHz"),
    "no such preset": (LINE.replace("m1", "a7"), "network.preset", "names ['m0'"),
    "exit off the network": (LINE.replace("5:1 9", "2:1"), "network.heads", "ascend from 3"),
    "exits in words": (LINE.replace("5:1 9", "five"), "network.heads", "must read like"),
    "a cell too many": (LINE + ",1", "line", "10 cells; the header has 9"),
    "an open quote": (LINE.replace("tx2", '"tx2'), "line", "not a row of CSV"),
    "target empty": (LINE.replace("tx2", ""), "target.board", "must not be empty"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_refused_by_row_with_field_and_reason(store, tmp_path, slip):
    line, field, reason = SLIPS[slip]
    summary = imported(store, tmp_path, LINE, line, LINE.replace("m1", "m2"))
    assert (summary.imported, summary.rejected) == (2, 1)
    row = reasons(tmp_path)[0]
    assert row["line"] == "3"
    assert row["field"].startswith(field)
    assert reason in row["reason"]
    assert row["text"] == line


@given(
    latency_ms=st.floats(1e-2, 3e6),
    unit=st.sampled_from([("s", 1e3), ("ms", 1.0), ("us", 1e-3), ("ns", 1e-6)]),
)
def test_any_number_in_any_unit_of_time_is_the_same_time(latency_ms, unit):
    name, factor = unit
    value = latency_ms / factor
    document = changed(OWN, latency__unit=name, latency__error={"column": "us"}, energy=None)
    reader = CsvReader(Path("a.csv"), column_map(document), None)  # no network is looked up in a store
    reader.read(Line(1, HEADER, True))
    row = reader.read(Line(2, LINE.replace("2500.5", repr(value)), True))
    assert row.latency_ms.value == pytest.approx(value * factor, rel=1e-12)
    assert row.latency_ms.error == row.latency_ms.value


@given(
    column=st.integers(0, 8),
    text=st.text(max_size=6) | st.from_regex(r"[-+0-9.eE:]{1,7}|1e999", fullmatch=True),
)
def test_whatever_stands_in_a_cell_the_row_is_refused_or_one_that_may_be_stored(column, text):
    cells = LINE.split(",")
    cells[column] = text
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    for document in (OWN, FOREIGN):
        reader = CsvReader(Path("a.csv"), column_map(document), None)
        reader.read(Line(1, HEADER, True))
        said = "a.csv, line 2: "
        try:
            row = reader.read(Line(2, line.getvalue(), True))
        except RecordError as error:
            said = str(error)
        else:
            if document is OWN:
                stored = json.loads(json.dumps(row.cost_columns("s", 0)["row"], allow_nan=False))
                cost_from_json(stored, row.target).check()
            else:
                json.dumps(row.foreign_columns(), allow_nan=False)
        assert said.startswith("a.csv, line 2: ")


def test_networks_by_genes_and_by_arch_id(store, tmp_path):
    space = mini_space()
    m3 = space.presets["m3"]
    values = [v.choices[i] for v, i in zip(space.variables, space.encode(m3), strict=True)]
    names = [v.name for v in space.variables]
    genes = changed(
        OWN, network={"space": "mini", "n_classes": 10, "genes": {n: {"column": n} for n in names}}
    )
    header, line = HEADER + "," + ",".join(names), LINE + "," + ",".join(map(str, values))
    wrong = LINE + "," + ",".join(["17", *map(str, values[1:])])
    imported(store, tmp_path, line, wrong, header=header, document=genes, name="genes.csv")
    assert [row.backbone for row in store.costs()] == [m3]
    assert "'resolution' = 17" in reasons(tmp_path, "genes.csv")[0]["reason"]
    other = space.decode(space.sample(1, np.random.default_rng(5))[0])
    named = changed(OWN, network={"space": "mini", "n_classes": 10, "arch_id": {"column": "net"}})
    lines = [LINE.replace("m1", arch) for arch in (m3.arch_id, other.arch_id)]
    summary = imported(store, tmp_path, *lines, document=named, name="ids.csv")
    assert (summary.imported, summary.rejected) == (1, 1)
    assert "map its genes" in reasons(tmp_path, "ids.csv")[0]["reason"]


def test_a_network_that_only_the_store_knows_is_found_by_its_arch_id(store, tmp_path):
    space = mini_space()
    other = space.decode(space.sample(1, np.random.default_rng(5))[0])
    store.add_cost(measured_row(backbone=other, heads=(), stages=()))
    named = changed(OWN, network={"space": "mini", "n_classes": 10, "arch_id": {"column": "net"}})
    assert imported(store, tmp_path, LINE.replace("m1", other.arch_id), document=named).imported == 1
    assert store.costs(session="log:sweep")[0].backbone == other


def test_a_changed_map_does_not_pass_for_the_rows_it_would_have_made(store, tmp_path):
    imported(store, tmp_path, LINE)
    mended = changed(OWN, latency__runs=60)
    summary = imported(store, tmp_path, LINE, document=mended)
    assert (summary.imported, summary.known, summary.rejected) == (0, 0, 1)
    assert "another column map" in reasons(tmp_path)[0]["reason"]
    assert imported(store, tmp_path, LINE, document={**mended, "series": "mended"}).imported == 1


def test_noise_of_the_map_stands_in_where_a_row_states_no_error(store, tmp_path):
    document = changed(OWN, latency__noise=0.1, energy__noise=0.05)
    silent = LINE.replace(",12,", ",,")
    imported(store, tmp_path, LINE, silent, document=document)
    first, second = store.costs()
    assert (first.latency_ms.standard_error, first.energy_mj.standard_error) == (0.012, 0.05 * 12.5)
    assert second.latency_ms.standard_error == pytest.approx(0.25005)
    assert (first.evidence, second.evidence) == (None, None), "nothing is assumed"


def test_rows_whose_noise_is_assumed_are_counted_and_are_no_exact_measurements(store, tmp_path):
    document = changed(OWN, energy=None)
    summary = imported(store, tmp_path, LINE, LINE.replace(",12,", ",,"), document=document)
    assert summary.assumed_errors == 1
    assert [row.latency_ms.standard_error for row in store.costs()] == [0.012, pytest.approx(0.02 * 2.5005)]


def test_power_beside_energy_must_be_of_its_size(store, tmp_path):
    document = changed(FOREIGN, keep=["exits"])
    document["power"] = {"column": "sd", "unit": "W"}  # 12 W; energy over latency is 5 W
    assert imported(store, tmp_path, LINE, document=document).imported == 1
    document["power"] = {"column": "sd", "unit": "mW"}
    assert imported(store, tmp_path, LINE, document=document, name="b.csv").rejected == 1
    assert reasons(tmp_path, "b.csv")[0]["field"] == "power_mw"


@pytest.mark.parametrize("example", [EXAMPLE, EXAMPLE_OF_OTHERS])
def test_the_examples_that_users_are_shown_are_maps_that_read_rows(tmp_path, store, example):
    (tmp_path / "map.yaml").write_text(example)
    mapped = load_column_map(tmp_path / "map.yaml")
    cells = {
        "board": "tx2", "n_cores": "4", "model": "a0", "exits": "", "time_s": "0.02", "se_s": "0.0001", "energy": "150",
        "gpu_mhz": "1300.5", "flops": "3", "latency_ms": "2", "power_w": "7", "fps": "50", "engine": "x",
    }  # fmt: skip
    path = tmp_path / "a.csv"
    path.write_text(",".join(cells) + "\n" + ",".join(cells.values()) + "\n")
    assert import_log(store, path, column_map=mapped).imported == 1


BAD_MAPS = {
    "latency.noise": changed(OWN, latency__noise=2),
    "latency.unit": changed(OWN, latency__unit="sec"),
    "energy.unit": changed(OWN, energy__unit="mW"),
    "clocks.gpu": changed(OWN, clocks__gpu={"column": "mhz", "value": 3, "unit": "MHz"}),
    "the file": changed(OWN, latency=None),
    "truth": changed(OWN, truth="measured"),
    "target": changed(OWN, target__bord="x"),
    "target.board": changed(OWN, target__board={"colum": "board"}),
    "network": changed(OWN, network__arch_id="x"),
    "power": {**OWN, "power": {"column": "sd", "unit": "W"}},
    "keep": {**OWN, "keep": ["sd"]},
}


@pytest.mark.parametrize("field", BAD_MAPS)
def test_a_bad_map_is_refused_by_field(field):
    with pytest.raises(ConfigError, match=f"'{field}'"):
        column_map(BAD_MAPS[field])


def test_a_map_whose_column_is_not_there_says_which_one_is_near(store, tmp_path):
    with pytest.raises(ConfigError, match=r"column 'joule'.*did you mean 'joules'"):
        imported(store, tmp_path, LINE, header=HEADER.replace("joule", "joules"))
    with pytest.raises(ConfigError, match="is there twice"):
        imported(store, tmp_path, LINE, header=HEADER.replace("sd", "us"))


def test_maps_that_are_no_yaml_or_have_near_misses_are_named(tmp_path):
    (tmp_path / "map.yaml").write_text("latency: [")
    with pytest.raises(ConfigError, match="not YAML"):
        load_column_map(tmp_path / "map.yaml")
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(OWN) + "truth: simulator\n")
    with pytest.raises(ConfigError, match="'truth' stands there twice"):
        load_column_map(tmp_path / "map.yaml")
    (tmp_path / "map.yaml").write_text("latency: 2026-13-01")
    with pytest.raises(ConfigError, match="not YAML"):
        load_column_map(tmp_path / "map.yaml")
    (tmp_path / "map.yaml").write_text(yaml.safe_dump({**OWN, "latencies": 1}))
    with pytest.raises(ConfigError, match="did you mean 'latency'"):
        load_column_map(tmp_path / "map.yaml")


def test_networks_of_others_keep_their_features_and_texts_apart(store, tmp_path):
    document = changed(OWN, network={"name": {"column": "net"}, "features": {"depth": {"column": "cores"}}})
    document |= {"keep": ["exits"], "power": {"column": "sd", "unit": "W"}}
    assert imported(store, tmp_path, LINE, LINE.replace("tx2,4", "tx2,"), document=document).into == (
        "sweep",
    )
    assert store.costs() == ()
    first, second = tables.foreign_costs(store, "sweep")
    assert (first.network, first.features, first.kept) == ("m1", {"depth": 4.0}, {"exits": "5:1 9"})
    assert second.features == {}, "an empty cell is no feature"
    assert (first.latency_ms, first.latency_error_ms, first.runs) == (2.5005, 0.012, 50)
    assert (first.energy_mj, first.energy_error_mj, first.power_mw) == (12.5, None, 12000.0)
    assert first.clocks_hz == (("gpu", 114_750_000), ("emc", 665_600_000))
    assert tables.foreign_costs(store, "nothing") == ()


# name: rows, and of one row that is read by eye: line, network, latency in ms, clocks in MHz, energy in mJ
REAL = {
    "jetson_cnn_latency_power": (5329, 2, "Basic_3", 10.4989, (), 24.0319),
    "jetson_dvfs_runs": (4676, 2, "inceptionv3_keras_1img", 225.589, (1113.6, 1300.5, 1062.4), None),
    "tx2_trt_gpu_emc_sweep": (208, 2, "inception_v4", 89.3239, (1032.75, 1062.4), None),
}


@pytest.mark.skipif(not MEASUREMENTS.is_dir(), reason=f"no measurements at {MEASUREMENTS}")
@pytest.mark.parametrize("name", REAL)
def test_real_measurements_of_others_come_in_whole(store, tmp_path, name):
    n_rows, line_no, network, latency_ms, clocks_mhz, energy_mj = REAL[name]
    path = tmp_path / f"{name}.csv.gz"
    shutil.copyfile(MEASUREMENTS / path.name, path)
    mapped = load_column_map(MAPS / f"{name}.yaml")
    summary = import_log(store, path, column_map=mapped)
    assert (summary.imported, summary.known, summary.rejected) == (n_rows, 0, 0)
    again = import_log(store, path, column_map=mapped)
    assert (again.imported, again.known, again.rejected) == (0, n_rows, 0)
    rows = tables.foreign_costs(store, name)
    row = next(row for row in rows if row.line_no == line_no)
    assert (row.network, row.latency_ms, row.energy_mj) == (network, latency_ms, energy_mj)
    assert [hz for _, hz in row.clocks_hz] == [round(mhz * 1e6) for mhz in clocks_mhz]
    with gzip.open(MEASUREMENTS / path.name, "rt") as stream:
        column, factor = ("time_s", 1e3) if "dvfs" in name else ("latency_ms", 1.0)
        expected = sorted(float(line[column]) * factor for line in csv.DictReader(stream))
    assert sorted(row.latency_ms for row in rows) == pytest.approx(expected, rel=1e-12)
