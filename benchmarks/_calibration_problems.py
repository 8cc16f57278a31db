"""Problems whose truth is cheap to look up, so that what a search proposes can be measured at once.

Each problem is a table of candidates.  A repetition trains on random rows, asks the predictors for all others,
and takes as proposed what lies on the predicted front.  All values are on the scale where errors are near normal:
logs of costs, logits of accuracies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import pandas as pd
from _accuracy_tasks import MACRO_FILE, macro_features
from _dvfs_tasks import tx2_runs
from _predictor_tasks import FloatArray, IntArray
from scipy.special import logit

from hadas.datasets.records import CostRecord, Statistic
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.simulation.simulator import simulated_device
from hadas.search.ranking import front_indices
from hadas.spaces import CLOCK_TABLES, Exits, mini_space
from hadas.surrogates.accuracy import accuracy_design
from hadas.surrogates.assessment import row_draws
from hadas.surrogates.conformal import held_out_errors
from hadas.surrogates.models import Design, group_folds
from hadas.surrogates.predictor_set import PredictorSet
from hadas.surrogates.selection import TrainingRows, select_model
from hadas.surrogates.setting_features import SettingFeatures
from hadas.surrogates.shape_features import N_TOTALS

N_CLASSES = 10
N_DRAWS = 256
N_FOLDS = 4


@dataclass(frozen=True)
class Predicted:
    """What predictors say of all N candidates of a problem, per quantity; and how they err on rows held out.

    Attributes:
        mean, sd: (N,) each, the noise of a new measurement included.
        held_out: (n,) normalised errors of the training rows, each predicted without its group.
    """

    mean: Mapping[str, FloatArray]
    sd: Mapping[str, FloatArray]
    held_out: Mapping[str, FloatArray]


class Problem(Protocol):
    """N candidates.

    Attributes:
        measured: (N,) per quantity, what a measurement of each candidate shows.
        n_train: random rows of the first predictors.
    """

    measured: Mapping[str, FloatArray]
    n_train: int

    def predict(self, rows: IntArray, seed: int) -> Predicted:
        """Predictors fitted to some rows."""
        ...

    def objectives(self, mean: Mapping[str, FloatArray]) -> FloatArray:
        """(N, k), minimised, from (N,) of each quantity."""
        ...

    @property
    def strata(self) -> IntArray:
        """(N,) candidates of one stratum are searched apart from the others."""
        ...


def fronts(values: FloatArray, strata: IntArray, known: IntArray, n_least: int) -> IntArray:
    """Candidates on the first fronts of every stratum, without known ones, until there are enough."""
    alive = np.ones(len(values), dtype=bool)
    alive[known] = False
    found: list[int] = []
    while len(found) < n_least and alive.any():
        for stratum in np.unique(strata):
            rows = np.flatnonzero(alive & (strata == stratum))
            if len(rows):
                front = rows[front_indices(values[rows])]
                alive[front] = False
                found += front.tolist()
    return np.array(sorted(found), dtype=np.int64)


@dataclass(frozen=True)
class TableProblem:
    """Quantities that one model each predicts from features of the candidate.

    Attributes:
        x: (N, d) features by quantity; ``signs``: 1 = the smaller the better, -1 = the larger.
        known: (N, k) further objectives that need no prediction.
        candidates: kinds of models to choose from.
    """

    measured: Mapping[str, FloatArray]
    x: FloatArray
    design: Design
    signs: Mapping[str, int]
    known: FloatArray
    strata: IntArray
    n_train: int
    candidates: tuple[str, ...] = ("gp", "xgb")

    def predict(self, rows: IntArray, seed: int) -> Predicted:
        """One model per quantity, chosen by cross-validation inside the rows."""
        mean, sd, held_out = {}, {}, {}
        for quantity, values in self.measured.items():
            data = TrainingRows(
                self.x[rows], values[rows], np.zeros(len(rows)), np.arange(len(rows)), np.zeros(len(rows)),
                self.design,
            )  # fmt: skip
            model, summary = select_model(quantity, "", data, candidates=self.candidates, seed=seed)
            prediction = model.predict(self.x)
            mean[quantity], sd[quantity] = prediction.mean[:, 0], prediction.sd_total[:, 0]
            held_out[quantity] = held_out_errors(summary.chosen, data, seed=seed)
        return Predicted(mean, sd, held_out)

    def objectives(self, mean: Mapping[str, FloatArray]) -> FloatArray:
        """Predicted quantities, then the known objectives."""
        return np.column_stack([*(self.signs[q] * mean[q] for q in self.measured), self.known])


def macro_problem(seed: int) -> TableProblem:
    """All 6,561 networks of NAS-Bench-Macro: accuracy of one training against exact FLOPs."""
    table = pd.read_csv(MACRO_FILE)
    x = macro_features()
    n_features, n_train = x.shape[1], 100
    accuracy = logit(table[f"acc_seed{seed % 3}"].to_numpy(float) / 100)
    return TableProblem(
        {"accuracy": accuracy}, x, accuracy_design(n_train, n_features, tuple(range(n_features - N_TOTALS, n_features))),
        {"accuracy": -1}, np.log(table[["flops"]].to_numpy(float)), np.zeros(len(x), dtype=np.int64), n_train,
    )  # fmt: skip


def tx2_problem(seed: int) -> TableProblem:
    """InceptionV3 on a TX2 at every number of cores and every clock: time against energy, per input size."""
    time_rows, _ = tx2_runs("time_s")
    energy_rows, _ = tx2_runs("energy_raw")
    features = SettingFeatures.of(time_rows)
    measured = {"time": np.log(time_rows.value), "energy": np.log(energy_rows.value)}
    strata = np.unique(time_rows.totals["input_px"], return_inverse=True)[1].astype(np.int64)
    return TableProblem(
        measured, features(time_rows), features.design("energy_mj"), {"time": 1, "energy": 1},
        np.empty((len(strata), 0)), strata, n_train=100, candidates=("trend+gp", "trend+xgb"),
    )  # fmt: skip


@dataclass(frozen=True)
class SimulatorProblem:
    """Designs drawn at random from the whole space, costs from the simulator, predictors those of a study.

    Accuracy is stood in for by the backbone's MACs, which are known, so that small networks are not always best.
    """

    records: Sequence[CostRecord]
    measured: Mapping[str, FloatArray]
    log_macs: FloatArray
    n_train: int = 40

    @property
    def strata(self) -> IntArray:
        """One."""
        return np.zeros(len(self.records), dtype=np.int64)

    def predict(self, rows: IntArray, seed: int) -> Predicted:
        """Latency and energy of all designs, and of the training rows from predictors without their backbones."""
        mean, sd, kinds = self._fitted(rows, np.arange(len(self.records)), seed, None)
        ids = [self.records[i].backbone.arch_id for i in rows]
        groups = np.unique(ids, return_inverse=True)[1].astype(np.int64)
        folds = group_folds(groups, N_FOLDS, np.random.default_rng([seed, N_FOLDS]))
        held_out = {quantity: np.empty(len(rows)) for quantity in self.measured}
        for fold in range(N_FOLDS):
            held = np.flatnonzero(folds == fold)
            centre, spread, _ = self._fitted(rows[folds != fold], rows[held], seed, kinds)
            for quantity, values in self.measured.items():
                held_out[quantity][held] = (values[rows[held]] - centre[quantity]) / spread[quantity]
        return Predicted(mean, sd, held_out)

    def _fitted(
        self, rows: IntArray, asked: IntArray, seed: int, kinds: Mapping[str, str] | None
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray], dict[str, str]]:
        """Means and standard deviations of some designs, and the kinds of models they come from."""
        fitted = PredictorSet.fit(
            mini_space(), CLOCK_TABLES[DEVICE], [], [self.records[i] for i in rows], n_classes=N_CLASSES, seed=seed,
            candidates=("gp", "xgb"), chosen=kinds,
        )  # fmt: skip
        mean: dict[str, list[FloatArray]] = {q: [] for q in self.measured}
        sd: dict[str, list[FloatArray]] = {q: [] for q in self.measured}
        for start in range(0, len(asked), 100):
            some = [self.records[i] for i in asked[start : start + 100]]
            drawn = row_draws(mini_space(), fitted.cost_model, some, seed=seed, n_draws=N_DRAWS)
            for quantity, draws in zip(self.measured, drawn, strict=True):
                mean[quantity].append(np.log(draws).mean(axis=0))
                sd[quantity].append(np.log(draws).std(axis=0))
        chosen = {summary.quantity: summary.chosen for summary in fitted.summary}
        return (
            {q: np.concatenate(parts) for q, parts in mean.items()},
            {q: np.concatenate(parts) for q, parts in sd.items()},
            chosen,
        )

    def objectives(self, mean: Mapping[str, FloatArray]) -> FloatArray:
        """Predicted latency and energy, and the MACs, of which more is better."""
        return np.column_stack([mean["latency"], mean["energy"], -self.log_macs])


DEVICE = "tx2-pascal-gpu"
N_DESIGNS = 900


def simulator_problem(seed: int) -> SimulatorProblem:
    """Backbones x exits x clocks of the mini space on the simulated TX2."""
    space, table, rng = mini_space(), CLOCK_TABLES[DEVICE], np.random.default_rng([81, seed])
    requests, log_macs = [], []
    for genome in space.sample(N_DESIGNS, rng):
        backbone = space.decode(genome)
        n_positions = backbone.n_blocks - space.first_exit
        some = rng.permutation(n_positions)[: int(rng.integers(3))] + space.first_exit
        exits = Exits.at(
            sorted(int(p) for p in some), first_exit=space.first_exit, n_blocks=backbone.n_blocks
        )
        requests.append(CostRequest(backbone, exits, table.settings[int(rng.integers(len(table)))]))
        stages = space.workload(backbone, n_classes=N_CLASSES).stages([])
        log_macs.append(np.log(sum(unit.macs for stage in stages for unit in stage.units)))
    device = simulated_device(DEVICE, space=space, n_classes=N_CLASSES)
    records = tuple(device.measure(MeasurementPlan("calibration", tuple(requests), seed=seed)))
    measured = {
        "latency": np.log([_value(record.latency_ms) for record in records]),
        "energy": np.log([_value(record.energy_mj) for record in records]),
    }
    return SimulatorProblem(records, measured, np.array(log_macs))


def _value(statistic: Statistic | None) -> float:
    assert statistic is not None  # the simulated TX2 counts energy
    return statistic.value


PROBLEMS: Mapping[str, Callable[[int], Problem]] = {
    "NAS-Bench-Macro accuracy x FLOPs": cache(macro_problem),
    "TX2 InceptionV3 time x energy": cache(tx2_problem),
    "simulated TX2, latency x energy x MACs": cache(simulator_problem),
}
