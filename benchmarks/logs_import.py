"""Do logs come into the store fast, and every row once?  100,000 rows, killed half-way and imported again.

Makes a log of our own (cost rows of several stages with their evidence left out, as the simulator writes
them, with some bad rows among them) and a CSV of networks of our spaces; imports both into one store, and
into another with the importer killed half-way by SIGKILL and started again; counts rows that are lost or
doubled, and compares with storing one row at a time.  `--quick` takes a tenth of the rows; `--json` ends
with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from _figures import machine

from hadas.datasets.logs.columns import column_map
from hadas.datasets.logs.importing import import_log
from hadas.datasets.logs.jsonl import record_line
from hadas.datasets.records import CostRecord, Statistic
from hadas.datasets.store import Store
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.simulation.simulator import simulated_device
from hadas.spaces import Exits, mini_space

REACH = {"lost": 0, "doubled": 0, "faster_than_row_by_row": 4.0}
SEED = 0
ROWS = {"jsonl": 80_000, "csv": 20_000}
BAD_EVERY = 1000
N_TEMPLATES = 200
MAP = {
    "series": "sweep",
    "truth": "simulator",
    "target": {"board": "board", "processor": "gpu", "release": "1", "runtime": "engine"},
    "network": {
        "space": "mini",
        "preset": {"column": "network"},
        "n_classes": 10,
        "heads": {"column": "exits"},
    },
    "latency": {"column": "latency_us", "unit": "us"},
    "energy": {"column": "energy_j", "unit": "J"},
    "clocks": {"gpu": {"column": "gpu_mhz", "unit": "MHz"}, "emc": {"column": "emc_khz", "unit": "kHz"}},
}


def templates(rng: np.random.Generator) -> list[CostRecord]:
    """Rows of random networks, exits and clocks, as the simulated TX2 measures them."""
    space = mini_space()
    device = simulated_device("tx2-pascal-gpu", space=space, n_classes=10)
    settings = device.clock_table().settings
    requests = []
    for genome in space.sample(N_TEMPLATES, rng):
        backbone = space.decode(genome)
        choice = range(space.first_exit, backbone.n_blocks)
        positions = sorted(int(p) for p in rng.choice(choice, size=int(rng.integers(1, 4)), replace=False))
        exits = Exits.at(positions, first_exit=space.first_exit, n_blocks=backbone.n_blocks)
        requests.append(CostRequest(backbone, exits, settings[int(rng.integers(len(settings)))]))
    return list(device.measure(MeasurementPlan("rig/0", tuple(requests), seed=SEED)))


def write_own(path: Path, rows: list[CostRecord], n: int) -> int:
    """Write a log of our own; returns how many of its rows are bad."""
    n_bad = 0
    with path.open("w") as stream:
        for row_no in range(n):
            row = rows[row_no % len(rows)]
            assert row.latency_ms is not None
            # Every row differs from all others, as measured ones do.
            latency = Statistic(
                row.latency_ms.value + 1e-9 * row_no, row.latency_ms.standard_error, row.latency_ms.n
            )
            stream.write(record_line(replace(row, row_no=row_no, latency_ms=latency)))
            if row_no % BAD_EVERY == BAD_EVERY - 1:
                stream.write(record_line(replace(row, row_no=n + row_no, latency_ms=Statistic(-1.0, 0.0, 1))))
                n_bad += 1
    return n_bad


def write_csv(path: Path, n: int, rng: np.random.Generator) -> int:
    """Write a CSV of presets with repeats among its rows; returns how many of its rows are bad."""
    names = list(mini_space().presets)
    n_bad = 0
    with path.open("w") as stream:
        stream.write("network,exits,latency_us,energy_j,gpu_mhz,emc_khz\n")
        for i in range(n):
            micro = int(rng.integers(500, 2500))
            stream.write(f"{names[i % 7]},5:1 9:1,{micro},{micro / 1e5},1300.5,1866000\n")
            if i % BAD_EVERY == BAD_EVERY - 1:
                stream.write(f"{names[i % 7]},5:1,{micro},0.01,1300.5,1866\n")  # MHz in a column of kHz
                n_bad += 1
    return n_bad


def import_both(store: Path, folder: Path) -> tuple[int, int]:
    """Import both files; (imported, rejected)."""
    opened = Store(str(store))
    own = import_log(opened, folder / "rig.jsonl")
    sweep = import_log(opened, folder / "sweep.csv", column_map=column_map(MAP))
    opened.close()
    return own.imported + sweep.imported, own.rejected + sweep.rejected


def count_rows(store: Path) -> int:
    """Cost rows in a store that another process may be writing."""
    import sqlite3

    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return int(connection.execute("select count(*) from cost_rows").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0
    finally:
        connection.close()


def import_killed(store: Path, folder: Path, kill_at: int) -> int:
    """Start the import in a process of its own and kill it once so many rows are stored; rows then stored."""
    process = subprocess.Popen([sys.executable, __file__, "--import-into", str(store), str(folder)])
    while process.poll() is None and (not store.is_file() or count_rows(store) < kill_at):
        time.sleep(0.01)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return count_rows(store)


def contents(store: Path) -> Counter[str]:
    """Every cost row as text, without the number that the store gave it."""
    opened = Store(str(store))
    with opened.transaction() as connection:
        rows = connection.exec_driver_sql(
            "select session, truth, latency_ms, energy_mj, arch_id from cost_rows"
        )
        found = Counter(repr(tuple(row)) for row in rows)
    opened.close()
    return found


def row_by_row_seconds(store: Store, session: str, rows: list[CostRecord]) -> float:
    """Seconds that storing one row at a time takes, per row."""
    began = time.perf_counter()
    for row_no, row in enumerate(rows):
        store.add_cost(replace(row, session=session, row_no=row_no))
    return (time.perf_counter() - began) / len(rows)


def figures_of(folder: Path, quick: bool) -> dict[str, float]:
    rng = np.random.default_rng(SEED)
    scale = 10 if quick else 1
    rows = templates(rng)
    n_own, n_csv = ROWS["jsonl"] // scale, ROWS["csv"] // scale
    n_bad = write_own(folder / "rig.jsonl", rows, n_own) + write_csv(folder / "sweep.csv", n_csv, rng)
    n = n_own + n_csv
    # Before and after, so that a machine that is busy for a while slows down both sides of the ratio.
    slow_store = Store(str(folder / "slow.sqlite"))
    slow = [row_by_row_seconds(slow_store, "before", rows)]
    began = time.perf_counter()
    imported, rejected = import_both(folder / "whole.sqlite", folder)
    seconds = time.perf_counter() - began
    slow.append(row_by_row_seconds(slow_store, "after", rows))
    slow_store.close()
    slow_s = n * sum(slow) / len(slow)
    before = import_killed(folder / "killed.sqlite", folder, n // 2)
    import_both(folder / "killed.sqlite", folder)
    again, _ = import_both(folder / "killed.sqlite", folder)
    whole, killed = contents(folder / "whole.sqlite"), contents(folder / "killed.sqlite")
    return {
        "rows": n,
        "seconds": seconds,
        "rows_per_second": n / seconds,
        "stored_when_killed": before,
        "lost": abs(n - imported) + (whole - killed).total(),
        "doubled": again + (killed - whole).total(),
        "rejected_that_should_not": abs(rejected - n_bad),
        "row_by_row_seconds": slow_s,
        "faster_than_row_by_row": slow_s / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--import-into", nargs=2, metavar=("STORE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.import_into:
        import_both(Path(arguments.import_into[0]), Path(arguments.import_into[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = figures_of(Path(folder), arguments.quick)
    for name, value in figures.items():
        print(f"{name:28} {value:,.4g}" if value < 1000 else f"{name:28} {value:,.0f}")
    holds = (
        figures["lost"] == figures["doubled"] == figures["rejected_that_should_not"] == 0
        and 0 < figures["stored_when_killed"] < figures["rows"]
        and figures["faster_than_row_by_row"] >= REACH["faster_than_row_by_row"]
    )
    if arguments.json:
        result = {
            "benchmark": "logs_import",
            "figures": {name: round(value, 4) for name, value in figures.items()},
            "reach": REACH,
            "holds": holds,
            "seed": SEED,
            "machine": machine(),
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
