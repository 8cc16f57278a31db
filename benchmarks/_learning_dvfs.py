"""Clocks and cores of one network: which of 768 settings are worth using, found by measuring few of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from _dvfs_tasks import tx1_runs, tx2_runs
from _learning_pools import PLAIN_GP, RANDOM, FittedPool, Pool, PoolTask
from _learning_tasks import KNOWS_ALL, KNOWS_OTHERS, OURS, SEEDS, Bound
from _predictor_tasks import FloatArray, IntArray

from hadas.search.objectives import Column
from hadas.surrogates.cost_views import views_for
from hadas.surrogates.models import Model
from hadas.surrogates.network_cost import VIEWS
from hadas.surrogates.network_inputs import Columns
from hadas.surrogates.network_rows import NetworkRows
from hadas.surrogates.prediction import JointlyDrawn

COLUMNS = (Column("time_s", log=True), Column("energy_raw", log=True))
N_SEEDS = 5
"""Few: seeds are spread over all settings, and hardly any lands near the front (chosen on seeds from 100 on)."""

HORIZON = 70.0

MEMBERS = {"latency_ms": "roofline", "energy_raw": "effects"}
"""How a cost model of networks sees settings (``surrogates.cost_views``): a time is made of times of resources, so a
roofline stands under it, and single settings have no effects of their own beside it (so chosen by errors of 60 rows
of another board, TX1); power rises with the clocks that time falls with, so energy has none."""

TRUTH = (
    "measured: every setting of a full factorial was run once (no repeats, so noise of single runs is part of the "
    "exact front); energy is a sum of power readings"
)


@dataclass(frozen=True)
class FittedSettings:
    """Time and energy of all settings, fitted to some; a :class:`_learning_pools.FittedPool`.

    Attributes:
        inputs: (N, d) of each quantity's model; models: one per objective, on logarithms.
    """

    inputs: tuple[FloatArray, ...]
    models: tuple[Model, ...]

    @classmethod
    def fit(cls, rows: Sequence[NetworkRows], measured: IntArray, seed: int) -> FittedSettings:
        """Fit to some rows of every quantity."""
        inputs, models = [], []
        for own, (quantity, member) in zip(rows, MEMBERS.items(), strict=True):
            some = own.take(measured)
            views = views_for(some, Columns.of(some), VIEWS)
            models.append(views.training(some, quantity, "log", seed).fit(member, quick=True))
            inputs.append(views.inputs(own))
        return cls(tuple(inputs), tuple(models))

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """See :class:`_learning_pools.FittedPool`."""
        found = [model.predict(x) for model, x in zip(self.models, self.inputs, strict=True)]
        return np.hstack([one.mean for one in found]), np.hstack([one.sd_total for one in found])

    def draws(self, rows: IntArray, n_draws: int, seed: int) -> FloatArray:
        """See :class:`_learning_pools.FittedPool`."""
        drawn = []
        for quantity, (model, x) in enumerate(zip(self.models, self.inputs, strict=True)):
            # What a run would show, not what many would on average: the exact front is made of single runs.
            noise_sd = np.sqrt(model.predict(x[rows]).var_noise[:, 0])
            normal = np.random.default_rng([73, seed, quantity]).standard_normal((n_draws, len(rows)))
            assert isinstance(model, JointlyDrawn)
            own_seed = int(np.random.SeedSequence([seed, quantity]).generate_state(1)[0])
            drawn.append(model.joint_draws(x[rows], n_draws, own_seed)[:, :, 0] + noise_sd * normal)
        return np.stack(drawn, axis=2)


@cache
def pool(input_px: int) -> Pool:
    """All settings at one input size."""
    rows = []
    for column in COLUMNS:
        all_sizes, _ = tx2_runs(column.name)
        one_size = all_sizes.take(np.flatnonzero(all_sizes.totals["input_px"] == input_px))
        # Every setting was run once, and few single runs do not show how well they repeat.  The log of another
        # board has three settings that were run twice: 1.3 % of a time, 2.7 % of an energy.
        repeated, _ = tx1_runs(column.name)
        rows.append(one_size.with_noise(repeated.repeat_noise()))
    settings = np.column_stack([*rows[0].clocks_ghz.values(), *rows[0].knobs.values()])
    # Steps of each clock, not its values: what lies between two steps cannot be set.
    steps = np.column_stack([np.unique(c, return_inverse=True)[1].astype(np.float64) for c in settings.T])

    def fit(measured: IntArray, seed: int) -> FittedPool:
        return FittedSettings.fit(rows, measured, seed)

    return Pool(
        values=np.stack([own.value for own in rows], axis=1),
        columns=COLUMNS,
        seed_columns=steps,
        seed_first=(),
        plain_columns=settings,
        known=(False, False),
        fit=fit,
    )


def tasks() -> tuple[PoolTask, ...]:
    """Task 1: TX2, InceptionV3 at four input sizes."""
    n = len(SEEDS)
    return (
        PoolTask(
            name="TX2 InceptionV3 clocks and cores",
            truth=TRUTH,
            pools={f"{px} px": partial(pool, px) for px in (200, 400, 600, 800)},
            n_seeds=N_SEEDS,
            batch=1,
            strategies={
                OURS: n, PLAIN_GP: n, RANDOM: n, "variance": n, "mean": n, "thompson": n, "spread": n,
                "qlognehvi": 1, KNOWS_ALL: n, KNOWS_OTHERS: n,
            },
            bounds=(Bound(0.99, "measurements", 45),),
            horizon=HORIZON,
            # A fifth of all settings: weighing more would cost time.
            n_promising=128,
            n_unsure=32,
            facts={"plain GP with Monte-Carlo hypervolume improvement": "60", "random order": "550-590"},
        ),
    )  # fmt: skip
