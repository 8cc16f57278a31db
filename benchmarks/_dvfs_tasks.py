"""Tasks on clocks, cores and knobs: two DVFS logs of whole runs, and a sweep of GPU and memory clocks.

Sources and caveats: the README of the data.  ``energy_raw`` is a sum of power readings, so only relative
errors mean anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from _predictor_tasks import DATA, Answer, Bound, FloatArray, IntArray, Task, random_split

from hadas.errors import ModelError
from hadas.surrogates.network_cost import NetworkCostModel
from hadas.surrogates.network_rows import NetworkRows


@dataclass(frozen=True)
class SettingContender:
    """Our cost model of whole networks on rows of a log.

    Attributes:
        rows: all of them; ``quantity``: what their values are.
    """

    rows: NetworkRows
    quantity: str

    def __call__(self, train: IntArray, test: IntArray, seed: int) -> Answer:
        model = NetworkCostModel.fit(self.rows.take(train), self.quantity, seed=seed)
        return Answer(*model.interval(self.rows.take(test), level=0.9))


def tasks() -> tuple[Task, ...]:
    """Rows 1 to 4 of the table."""
    latency, energy = "latency_ms", "energy_raw"
    return (
        _task("TX2 DVFS InceptionV3 time, N=50", tx2_runs("time_s"), latency, 50, 6.0, full_only=False),
        _task("TX2 DVFS InceptionV3 time, N=100", tx2_runs("time_s"), latency, 100, 4.0, with_floor=True),
        _task("TX2 DVFS InceptionV3 energy_raw, N=50", tx2_runs("energy_raw"), energy, 50, 6.5),
        _task(
            "TX2 DVFS InceptionV3 energy_raw, N=100",
            tx2_runs("energy_raw"),
            energy,
            100,
            4.5,
            with_floor=True,
        ),
        _task("TX1 DVFS time, N=100", tx1_runs("time_s"), latency, 100, 4.0, with_floor=True),
        _task("TX2 GPU x EMC sweep, N=50", sweep(), latency, 50, 0.7, full_only=False),
    )


def _task(
    name: str, data: tuple[NetworkRows, FloatArray], quantity: str, n_train: int, at_most: float, *,
    full_only: bool = True, with_floor: bool = False,
) -> Task:  # fmt: skip
    rows, columns = data
    ours = SettingContender(rows, quantity)
    floor: dict[str, Callable[[], float]] = {}
    if with_floor:
        floor = {f"ours at N={n}": _with_more_rows(ours, n) for n in MANY_ROWS if n < 0.9 * len(rows)}
        if np.isfinite(repeat_error(rows)):
            floor["repeats"] = lambda: repeat_error(rows)
    return Task(
        name, rows.value, random_split(len(rows), n_train), ours, columns,
        (Bound("mape", at_most=at_most),), floor=floor, full_only=full_only,
    )  # fmt: skip


MANY_ROWS = (500, 2700)


def _with_more_rows(ours: SettingContender, n_train: int) -> Callable[[], float]:
    """Error of the same model where rows are no longer what it lacks, percent."""

    def floor() -> float:
        (split,) = random_split(len(ours.rows), n_train)(0)
        truth = ours.rows.value[split.test]
        answer = ours(split.train, split.test, 0)
        return float(100 * np.mean(np.abs(answer.value / truth - 1)))

    return floor


def repeat_error(rows: NetworkRows) -> float:
    """Error that a perfect model would make, percent, from rows of equal settings; NaN without any.

    Errors of single runs are normal on the log scale with standard deviation s, in the mean s sqrt(2 / pi).
    """
    try:
        return 100 * rows.repeat_noise() * float(np.sqrt(2 / np.pi))
    except ModelError:
        return float("nan")


@cache
def tx2_runs(column: str) -> tuple[NetworkRows, FloatArray]:
    """TX2, InceptionV3 at four input sizes, full factorial of clocks and cores; and its plain columns."""
    return _runs("flexibo_opml19", column)


@cache
def tx1_runs(column: str) -> tuple[NetworkRows, FloatArray]:
    """TX1, one workload, random clocks, cores and knobs of the operating system; and its plain columns."""
    return _runs("translucence", column)


KNOBS = (
    "cache_pressure", "swappiness", "dirty_ratio", "dirty_bg_ratio", "drop_caches", "policy",
    "sched_rt_runtime", "sched_child_runs_first", "memory_growth",
)  # fmt: skip


def _runs(source: str, column: str) -> tuple[NetworkRows, FloatArray]:
    table = pd.read_csv(DATA / "measurements" / "jetson_dvfs_runs.csv.gz", low_memory=False)
    table = table[table["source"] == source].reset_index(drop=True)
    clocks = {domain: table[f"{domain}_mhz"].to_numpy(float) / 1000 for domain in ("cpu", "gpu", "emc")}
    knobs = {"n_cores": table["n_cores"].to_numpy(float)}
    knobs |= {name: table[name].to_numpy(float) for name in KNOBS if table[name].notna().all()}
    totals = {}
    if table["input_px"].notna().all():
        totals["input_px"] = table["input_px"].to_numpy(float)
    rows = NetworkRows(
        table["workload"].to_numpy(str), totals, clocks, knobs, table["board"].to_numpy(str),
        table[column].to_numpy(float), np.zeros(len(table)),
    )  # fmt: skip
    return rows, np.column_stack([*totals.values(), *clocks.values(), *knobs.values()])


@cache
def sweep() -> tuple[NetworkRows, FloatArray]:
    """TX2, four TensorRT networks at 13 GPU and 4 memory clocks; and its plain columns."""
    table = pd.read_csv(DATA / "measurements" / "tx2_trt_gpu_emc_sweep.csv.gz")
    clocks = {domain: table[f"{domain}_mhz"].to_numpy(float) / 1000 for domain in ("gpu", "emc")}
    networks = table["model"].to_numpy(str)
    rows = NetworkRows(
        networks, {}, clocks, {}, np.full(len(table), "tx2"), table["latency_ms"].to_numpy(float),
        np.zeros(len(table)),
    )  # fmt: skip
    indicators = [np.asarray(networks == name, dtype=np.float64) for name in np.unique(networks)]
    return rows, np.column_stack([*clocks.values(), *indicators])
