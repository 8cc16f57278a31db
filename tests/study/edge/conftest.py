"""A small edge study that was killed while it trained and then went on, and its layer costs.

``layer_costs.csv`` holds what zigzag-dse 3.9.1 gave for the layers of ``mobilenetv2-small`` at 4 and 8 bits on the
``edge-tpu`` and the ``eyeriss`` core, so that no test waits for it.
"""

import csv
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from hadas.datasets.store import Store
from hadas.measurement.accelerator.signatures import LayerSignature
from hadas.measurement.accelerator.table import LayerTable, layer_costs
from hadas.study.edge import EdgeStudy
from hadas.study.edge.config import edge_template

TRAINED_BEFORE_THE_KILL = 2

CHILD = """
import os, signal, sys
from pathlib import Path
from hadas.datasets.quantized_store import QuantizedStore
from hadas.study.edge import EdgeStudy

added, original = 0, QuantizedStore.add

def add(self, record):
    global added
    original(self, record)
    added += 1
    if added == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

QuantizedStore.add = add
study = EdgeStudy.open(Path(sys.argv[1]))
study.lock()
study.run()
"""


def new_study(directory: Path, **changes: object) -> Path:
    """A study file whose layers are modelled already: 4 static networks, one with exits, one round of one network."""
    directory.mkdir(parents=True, exist_ok=True)
    text = edge_template("study.yaml", "edge-smoke", {
        "bits": "per-segment", "accuracy": {"n_workers": 1}, "learning": {"seeds": 5, "batch": 1}, **changes,
    })  # fmt: skip
    path = directory / "study.yaml"
    path.write_text(text)
    return path


def fill_layer_costs(directory: Path) -> None:
    """Put the kept layer costs into the store of a folder."""
    store = Store(str(directory / "store.sqlite"))
    LayerTable(store)
    numbers = {"lpf_limit": int, "energy_pj": float, "cycles": float}
    with Path(__file__).with_name("layer_costs.csv").open(newline="") as file:
        kept = list(csv.DictReader(file))
    shape = [field.name for field in fields(LayerSignature)]
    rows = []
    for entry in kept:
        signature = {name: entry[name] if name == "operation" else int(entry[name]) for name in shape}
        others = {name: numbers.get(name, str)(text) for name, text in entry.items() if name not in shape}
        rows.append({"signature": signature, "seconds": 0.0, **others})
    with store.transaction() as connection:
        connection.execute(layer_costs.insert(), rows)
    store.close()


@pytest.fixture(scope="module")
def continued(tmp_path_factory) -> EdgeStudy:
    """A finished study that was killed after its second network and run again."""
    directory = tmp_path_factory.mktemp("edge") / "study"
    path = new_study(directory)
    fill_layer_costs(directory)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(TRAINED_BEFORE_THE_KILL)],
        capture_output=True, text=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL, child.stdout + child.stderr
    study = EdgeStudy.open(path)
    study.run()
    return study
