"""Cost models of imported series: ``hadas logs fit`` and ``hadas logs predict``."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hadas.datasets.logs.columns import load_column_map
from hadas.datasets.logs.importing import import_log
from hadas.datasets.logs.tables import foreign_costs
from hadas.datasets.logs.unmeasured import read_unmeasured
from hadas.datasets.store import Store
from hadas.errors import ConfigError, ModelError
from hadas.surrogates.asking import asked_rows
from hadas.surrogates.log_rows import network_rows_of, settings_among_features
from hadas.surrogates.model_files import manifest_digest
from hadas.surrogates.series_costs import DeviceCosts, fit_series, folder_of

from .running import hadas

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "measurements"
MAPS = Path(__file__).parents[1] / "datasets" / "logs" / "maps"

MAP = """\
truth: device
target: {board: toy, processor: gpu, release: r1, runtime: t1, pinned: {cores: {column: cores}}}
network: {name: {column: net}, features: {swappiness: {column: swap}}}
latency: {column: ms, unit: ms, noise: 0.01}
energy: {column: mj, unit: mJ}
clocks: {gpu: {column: mhz, unit: MHz}, emc: {value: 1600, unit: MHz}}
"""
HEADER = "net,mhz,cores,swap,ms,mj"
CLOCKS = (300, 500, 800, 1000, 1300)


def line(net, mhz, *, cores=4, swap=10):
    """Latency a + b / clock; energy of 'small' alone."""
    ms = {"small": 2 + 6000 / mhz, "large": 5 + 20000 / mhz}[net]
    return f"{net},{mhz},{cores},{swap},{ms},{20 * ms if net == 'small' else ''}"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A store with a fitted series, its folder and what the fit said."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "map.yaml").write_text(MAP)
    lines = [line("small", mhz) for mhz in CLOCKS] + [line("large", mhz) for mhz in CLOCKS]
    (folder / "rows.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    store = str(folder / "store.sqlite")
    done = hadas(
        "logs",
        "import",
        folder / "rows.csv",
        "--map",
        folder / "map.yaml",
        "--series",
        "a/b",
        "--store",
        store,
    )
    assert done.returncode == 0, done.stderr
    assert "hadas logs fit" in done.stdout
    first = hadas("logs", "fit", store, "--json")
    assert first.returncode == 0, first.stderr
    return folder, store, json.loads(first.stdout)


def answers(*arguments):
    done = hadas("logs", "predict", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rows"]


def test_what_was_fitted_is_said_and_saved_without_code(fitted):
    folder, _, said = fitted
    (device,) = said["devices"]
    assert said["series"] == "a/b"
    assert {name: one["n_rows"] for name, one in device["quantities"].items()} == {
        "latency_ms": 10,
        "energy_mj": 5,
    }
    assert all(one["refitted"] and not one["problem"] for one in device["quantities"].values())
    files = [path for path in (folder / "store.sqlite.models").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".ubj"}
    assert len(list((folder / "store.sqlite.models").iterdir())) == 1  # a series' name is no path


def test_networks_are_predicted_at_clocks_between_those_measured(fitted):
    _, store, _ = fitted
    small, large = answers(store, "--networks", "small,large", "--clocks", "gpu=650MHz")
    for row, truth in ((small, 2 + 6000 / 650), (large, 5 + 20000 / 650)):
        said = row["estimates"]["latency_ms"]
        assert said["median"] == pytest.approx(truth, rel=0.05)
        (low, high), (lower, higher) = said["intervals"]["0.5"], said["intervals"]["0.9"]
        assert lower < low < said["median"] < high < higher
        assert said["mean"] >= said["median"]
        assert row["beyond"] == ""
        assert row["clocks_hz"] == {"gpu": 650_000_000, "emc": 1_600_000_000}
        assert row["settings"] == {"n_cores": 4.0}
    assert set(small["estimates"]) == {"latency_ms", "energy_mj"}
    assert set(large["estimates"]) == {"latency_ms"}  # its energy was never measured


def test_rows_of_a_file_are_predicted_as_by_name_and_its_costs_are_not_looked_at(fitted):
    folder, store, _ = fitted
    asked = folder / "asked.csv"
    asked.write_text("net,mhz,cores,swap\nlarge,650,4,10\nsmall,1300,4,10\n")
    map_file = folder / "map.yaml"
    found = answers(store, "--rows", asked, "--map", map_file)
    assert [row["line_no"] for row in found] == [2, 3]
    (named,) = answers(store, "--networks", "large", "--clocks", "gpu=650000000")
    said = found[0]["estimates"]["latency_ms"]
    assert said["intervals"]["0.9"] == pytest.approx(named["estimates"]["latency_ms"]["intervals"]["0.9"])
    shown = hadas("logs", "predict", store, "--rows", asked, "--map", map_file)
    assert shown.returncode == 0, shown.stderr
    assert all(word in shown.stdout for word in ("predicted by series a/b", "90 %", "gpu 1300", "n_cores 4"))


def test_unchanged_rows_are_not_fitted_again_and_changed_ones_are(fitted, tmp_path):
    folder, store, _ = fitted
    shutil.copytree(folder, tmp_path / "copy")
    store = str(tmp_path / "copy" / "store.sqlite")
    again = json.loads(hadas("logs", "fit", store, "--json").stdout)["devices"][0]["quantities"]
    assert not any(one["refitted"] for one in again.values())
    more = tmp_path / "more.csv"
    more.write_text(f"{HEADER}\n{line('large', 400)}\n")
    assert (
        hadas(
            "logs", "import", more, "--map", folder / "map.yaml", "--series", "a/b", "--store", store
        ).returncode
        == 0
    )
    changed = json.loads(hadas("logs", "fit", store, "--json").stdout)["devices"][0]["quantities"]
    # The new row has no energy.
    assert {name: one["refitted"] for name, one in changed.items()} == {
        "latency_ms": True,
        "energy_mj": False,
    }
    assert changed["latency_ms"]["n_rows"] == 11


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--networks", "other"), "the series knows small, large"),
        (("--networks", "small", "--clocks", "emc=1600MHz"), "'gpu' changed in the series, from 3e+08 to 1.3e+09"),
        (("--networks", "small", "--clocks", "max cpu=1GHz"), "no clock or setting 'cpu'"),
        (("--networks", "small", "--clocks", "max gpu=1furlong"), "'furlong' is none of"),
        (("--networks", "small", "--clocks", "max emc=800MHz"), "'emc' is 0.8; in training it was always 1.6"),
        (("--networks", "small", "--clocks", "max n_cores=2"), "'n_cores' is 2; in training it was always 4"),
        (("--networks", "small", "--device", "nano"), "--device nano"),
        (("--series", "none", "--networks", "small"), "no series 'none'"),
        ((), "name networks (--networks a,b) or a file"),
        (("--rows", "rows.csv"), "belong together"),
    ],
)  # fmt: skip
def test_what_the_models_know_nothing_of_is_refused(fitted, arguments, told):
    done = hadas("logs", "predict", fitted[1], *arguments)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("net,mhz,cores,swap\nthird,650,4,10\n", "networks ['third'] were not among the training rows"),
        ("net,mhz,cores,swap\nsmall,650,2,10\n", "'n_cores' is 2"),
        ("net,mhz,cores,swap\nsmall,650000,4,10\n", "line 2"),
        ("net,mhz,swap\nsmall,650,4\n", "column 'cores'"),
        ("net,mhz,cores,swap\n", "has no row below its header"),
    ],
)
def test_rows_that_cannot_be_predicted_are_refused(fitted, tmp_path, rows, told):
    folder, store, _ = fitted
    (tmp_path / "asked.csv").write_text(rows)
    done = hadas("logs", "predict", store, "--rows", tmp_path / "asked.csv", "--map", folder / "map.yaml")
    assert done.returncode == 2
    assert told in " ".join(done.stderr.split())


def test_clocks_beyond_those_measured_are_told(fitted):
    (row,) = answers(fitted[1], "--networks", "small", "--clocks", "gpu=2GHz")
    assert row["beyond"] == "gpu at 2000 MHz; it was measured from 300 to 1300"


def forged(folder, change):
    """A copy of saved models whose manifest was changed, and signed anew."""
    path = folder / "network_costs.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    manifest["manifest_sha256"] = manifest_digest(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.update(version=99), "version 99; this release reads 1"),
        (lambda m: m.update(setting_feature_version=0), "setting_feature_version 0"),
        (lambda m: m.update(format="other"), "not a predictor manifest"),
        (lambda m: m["models"]["latency_ms"]["state"].update(members=7), "damaged or incomplete"),
        (lambda m: m["models"]["latency_ms"]["state"]["views"].update(version=9), "version 9 of the setting features"),
        (lambda m: m["models"].update({"../x": m["models"].pop("energy_mj")}), "no quantity '../x'"),
    ],
)  # fmt: skip
def test_saved_models_of_others_are_refused_and_fitted_again(fitted, tmp_path, change, told):
    (device,) = (fitted[0] / "store.sqlite.models").glob("*/*")
    copy = tmp_path / "copy"
    shutil.copytree(device, copy)
    assert DeviceCosts.load(copy).models.keys() == {"latency_ms", "energy_mj"}
    forged(copy, change)
    with pytest.raises(ModelError, match="the next fit writes it anew") as caught:
        DeviceCosts.load(copy)
    assert told in str(caught.value)


def test_files_with_other_bytes_are_refused(fitted, tmp_path):
    (device,) = (fitted[0] / "store.sqlite.models").glob("*/*")
    copy = tmp_path / "copy"
    shutil.copytree(device, copy)
    (copy / "latency_ms.safetensors").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="altered or cut short"):
        DeviceCosts.load(copy)
    digest = hashlib.sha256(b"\x80\x04.").hexdigest()
    forged(copy, lambda manifest: manifest["sha256"].update({"latency_ms.safetensors": digest}))
    with pytest.raises(ModelError, match="not a safetensors file"):
        DeviceCosts.load(copy)


def test_what_differs_between_runs_of_a_network_is_a_setting_and_pinned_numbers_are_too(tmp_path):
    rows = [line("small", 300), line("small", 500, cores=2), line("small", 800, swap=60), line("large", 300)]
    (tmp_path / "map.yaml").write_text(MAP)
    (tmp_path / "rows.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    store = Store(str(tmp_path / "store.sqlite"))
    import_log(store, tmp_path / "rows.csv", series="s", column_map=load_column_map(tmp_path / "map.yaml"))
    costs = foreign_costs(store, "s")
    store.close()
    assert settings_among_features(costs) == ("swappiness",)
    found = network_rows_of(costs, "latency_ms")
    assert found.knobs["n_cores"].tolist() == [4, 2, 4, 4]
    assert found.knobs["swappiness"].tolist() == [10, 10, 60, 10]
    assert len(set(found.devices)) == 1
    with pytest.raises(ConfigError, match="'swappiness' changed in the series, from 10 to 60; name it"):
        asked_rows(costs, "small", "max n_cores=4", ("swappiness",))
    (asked,) = asked_rows(costs, "small", "max n_cores=3 swappiness=60", ("swappiness",))
    assert dict(asked.clocks_hz) == {"gpu": 800_000_000, "emc": 1_600_000_000}
    assert network_rows_of([asked], "latency_ms").knobs["n_cores"].tolist() == [3]


@pytest.mark.skipif(not SHARED.exists(), reason="the measurements are not there")
def test_two_hundred_rows_of_a_real_sweep_predict_the_rest(tmp_path):
    table = pd.read_csv(SHARED / "tx2_trt_gpu_emc_sweep.csv.gz").sample(frac=1, random_state=11)
    table.iloc[:200].to_csv(tmp_path / "train.csv", index=False)
    table.iloc[200:].drop(columns="latency_ms").to_csv(tmp_path / "test.csv", index=False)
    column_map = load_column_map(MAPS / "tx2_trt_gpu_emc_sweep.yaml")
    store = Store(str(tmp_path / "store.sqlite"))
    import_log(store, tmp_path / "train.csv", series="sweep", column_map=column_map)
    latency = [replace(cost, energy_mj=None, power_mw=None) for cost in foreign_costs(store, "sweep")]
    asked = read_unmeasured(store, tmp_path / "test.csv", column_map)
    store.close()
    (fitted,) = fit_series(latency, folder_of(tmp_path, "sweep"), seed=0)
    (answer,) = fitted.ask(asked)
    truth = table["latency_ms"].to_numpy()[200:]
    assert np.mean(np.abs(answer.median / truth - 1)) < 0.02
    low, high = answer.intervals[0.9]
    assert np.mean((low <= truth) & (truth <= high)) >= 0.5
