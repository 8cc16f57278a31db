"""New cost rows judged by predictors that have not seen them: older ones, and ones of held-out folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..datasets.records import CostRecord, Statistic
from ..spaces import BackboneSpace, Setting, Stage
from .cost import cost_rows
from .cost_model import CostDraws, CostModel
from .drift import DriftTest, PredictionErrors, drift_test
from .fitting import Fitter
from .models import KINDS, IntArray, group_folds
from .prediction import FloatArray

MAX_ROWS = 600
"""New rows that predictions are judged on; of more, a seeded random subset."""

N_DRAWS = 400
"""Joint draws of the predictors behind every interval and test."""

N_FOLDS = 5
"""Groups of networks, each predicted by models that have seen none of its new rows."""

QUANTITIES = ("latency", "energy")

Factors = Mapping[str, float]
"""By quantity, what older rows are multiplied by to be those of a device that has drifted since."""


@dataclass(frozen=True)
class Assessment:
    """One quantity of the new rows.

    Attributes:
        quantity: ``latency`` or ``energy``, of the whole network.
        old: errors of the older predictors.
        new: errors of predictors that were given the rows of other networks alone, new ones, and older ones
            brought to their level if they showed a drift; ``None`` for rows of one network, which teach nothing.
        drift: whether the older predictors still hold.
        old_unseen: what ``new`` is to be compared with where older rows knew some of the networks: errors of
            predictors that were given the older rows of other networks alone.
    """

    quantity: str
    old: PredictionErrors
    new: PredictionErrors | None
    drift: DriftTest
    old_unseen: PredictionErrors | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        new, unseen = document["new"], document.get("old_unseen")
        return cls(
            document["quantity"],
            PredictionErrors(**document["old"]),
            None if new is None else PredictionErrors(**new),
            DriftTest(**document["drift"]),
            None if unseen is None else PredictionErrors(**unseen),
        )


def assess(
    space: BackboneSpace, older: CostModel, old_rows: Sequence[CostRecord], new_rows: Sequence[CostRecord], *,
    chosen: Mapping[str, str], seed: int, progress: Callable[[str, int, int], None] = lambda *_: None,
) -> tuple[Assessment, ...]:  # fmt: skip
    """Judge older predictors on new rows, and what the new rows improve.

    Args:
        older: fitted to ``old_rows``.
        old_rows, new_rows: records of one target; the new ones all usable for training.  Judged are those of
            ``stages`` programs alone: what lies between them and ``prefix`` programs is no drift.
        chosen: kinds of the models by quantity (``log_latency``, ``log_power``), as chosen on all rows.
        progress: called with (phase, steps done, steps in all).
    """
    rng = np.random.default_rng(seed)
    of_stages = [row for row in new_rows if row.program == "stages"]
    subset = np.sort(rng.permutation(len(of_stages))[:MAX_ROWS])
    judged = [of_stages[int(i)] for i in subset]
    if not judged:
        return ()
    networks = network_index(judged)
    old = _Judged(judged, networks, row_draws(space, older, judged, seed=seed))
    new = old_unseen = None
    n_networks = int(networks.max()) + 1
    if n_networks > 1:
        folds = group_folds(networks, min(N_FOLDS, n_networks), rng)

        def before(fold: int) -> list[CostRecord]:
            # A held-out network's rows tell of it whenever they came: neither old nor new ones are trained on.
            return _without(old_rows, judged, folds == fold)

        def now(fold: int) -> list[CostRecord]:
            factors = level_factors(old.tests(folds != fold))
            levelled = [at_level(row, factors) for row in before(fold)]
            return levelled + _without(new_rows, judged, folds == fold)

        def draws_of(training: Callable[[int], list[CostRecord]], phase: str) -> list[FloatArray] | None:
            drawn = [np.empty((N_DRAWS, len(judged))) for _ in QUANTITIES]
            n_folds = int(folds.max()) + 1
            for fold in range(n_folds):
                progress(phase, fold, n_folds)
                held, records = np.flatnonzero(folds == fold), training(fold)
                if not records:
                    return None
                rows = cost_rows(space, older.table, records)
                model, _ = CostModel.fit(older.table, rows, fitter=Fitter(KINDS, chosen), seed=seed)
                found = row_draws(space, model, [judged[int(i)] for i in held], seed=seed)
                for values, of_held in zip(drawn, found, strict=True):
                    values[:, held] = of_held
            progress(phase, n_folds, n_folds)
            return drawn

        new = draws_of(now, "judging the new rows")
        if {row.backbone for row in old_rows} & {row.backbone for row in judged}:
            old_unseen = draws_of(before, "judging the older rows")
    return tuple(
        Assessment(
            quantity,
            PredictionErrors.of(measured, old_draws),
            PredictionErrors.of(measured, new[i][:, rows]) if new is not None else None,
            drift_test(measured, old_draws, networks[rows]),
            PredictionErrors.of(measured, old_unseen[i][:, rows]) if old_unseen is not None else None,
        )
        for i, quantity in enumerate(QUANTITIES)
        for rows, measured, old_draws in old.rows_of(i)
    )


def _without(
    rows: Sequence[CostRecord], judged: Sequence[CostRecord], held: NDArray[np.bool_]
) -> list[CostRecord]:
    """Rows of other networks than the held-out ones."""
    unseen = {judged[int(i)].backbone for i in np.flatnonzero(held)}
    return [row for row in rows if row.backbone not in unseen]


@dataclass(frozen=True)
class _Judged:
    """New rows, and what older predictors said of them.

    Attributes:
        rows, networks: n records, and the (n,) index of their networks.
        draws: latency and energy (s, n).
    """

    rows: Sequence[CostRecord]
    networks: IntArray
    draws: tuple[FloatArray, FloatArray]

    def rows_of(
        self, i: int, among: NDArray[np.bool_] | None = None
    ) -> list[tuple[IntArray, FloatArray, FloatArray]]:
        """Rows in which the i-th quantity was measured and predicted, its values and draws; nothing if there are none."""
        totals = [(row.latency_ms, row.energy_mj)[i] for row in self.rows]
        measured = np.array([np.nan if total is None else total.value for total in totals])
        counted = np.isfinite(measured) & np.isfinite(self.draws[i][0])
        rows = np.flatnonzero(counted if among is None else counted & among)
        return [(rows, measured[rows], self.draws[i][:, rows])] if len(rows) else []

    def tests(self, among: NDArray[np.bool_]) -> dict[str, DriftTest]:
        """Drift in some of the rows, by quantity."""
        return {
            quantity: drift_test(measured, draws, self.networks[rows])
            for i, quantity in enumerate(QUANTITIES)
            for rows, measured, draws in self.rows_of(i, among)
        }


def level_factors(tests: Mapping[str, DriftTest]) -> dict[str, float]:
    """What brings older rows to the level of the new ones: the shifts that are a drift, by quantity.

    A shift that may be chance, or is small, changes nothing.
    """
    return {
        quantity: 1.0 + test.shift_percent / 100.0 if test.drifted else 1.0
        for quantity, test in tests.items()
    }


def at_level(row: CostRecord, factors: Factors) -> CostRecord:
    """A row as the device would give it now: latency and energy multiplied, in total and per stage.

    Rows from before and after a drift contradict each other; trained on as they are, predictors would
    describe neither device.  That the drift is one factor is an assumption, which the test of scatter checks.
    """
    latency, energy = factors.get("latency", 1.0), factors.get("energy", 1.0)
    if latency == energy == 1.0:
        return row
    stages = tuple(
        replace(
            stage, latency_ms=_times(stage.latency_ms, latency),
            energy_mj=None if stage.energy_mj is None else _times(stage.energy_mj, energy),
        )
        for stage in row.stages
    )  # fmt: skip
    return replace(
        row, stages=stages,
        latency_ms=None if row.latency_ms is None else _times(row.latency_ms, latency),
        energy_mj=None if row.energy_mj is None else _times(row.energy_mj, energy),
    )  # fmt: skip


def _times(statistic: Statistic, factor: float) -> Statistic:
    return Statistic(factor * statistic.value, factor * statistic.standard_error, statistic.n)


def network_index(rows: Sequence[CostRecord]) -> IntArray:
    """(n,) index of the network that each row is of: its backbone, whatever its exits and clocks."""
    ids = {arch_id: i for i, arch_id in enumerate(sorted({row.backbone.arch_id for row in rows}))}
    return np.array([ids[row.backbone.arch_id] for row in rows], dtype=np.int64)


def row_draws(
    space: BackboneSpace, model: CostModel, rows: Sequence[CostRecord], *, seed: int, n_draws: int = N_DRAWS
) -> tuple[FloatArray, FloatArray]:
    """Joint draws of whole rows, the noise of a measurement included.

    Returns:
        latency (s, n) in ms, energy (s, n) in mJ; energy NaN without an energy counter.
    """
    stages: list[Stage] = []
    settings: list[Setting] = []
    starts: list[int] = []
    for row in rows:
        parts = space.workload(row.backbone, n_classes=row.n_classes).stages([p for p, _ in row.heads])
        starts.append(len(stages))
        stages += parts
        settings += [row.actual] * len(parts)
    latency_ms, energy_mj = CostDraws(model, n_draws, seed, noise=True)(stages, settings)
    return (
        np.asarray(np.add.reduceat(latency_ms, starts, axis=1), dtype=np.float64),
        np.asarray(np.add.reduceat(energy_mj, starts, axis=1), dtype=np.float64),
    )
