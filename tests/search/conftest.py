from __future__ import annotations

import zlib

import numpy as np
import pytest

from hadas.datasets.records import (
    AccuracyRecord,
    CostRecord,
    OutcomeMatrix,
    StageCost,
    Statistic,
    Target,
    Truth,
)
from hadas.measurement.accuracy.policies import cross_fitted_leaves
from hadas.search.tables import StaticFitness, Tables
from hadas.spaces import ClockDomain, ClockTable, mini_space
from hadas.surrogates.prediction import Prediction
from hadas.surrogates.predictor_set import StageCosts

SMALL_TABLE = ClockTable(
    "small",
    (
        ClockDomain("gpu", (300_000_000, 600_000_000, 900_000_000, 1_200_000_000)),
        ClockDomain("emc", (800_000_000, 1_600_000_000)),
    ),
)


def make_random_tables(seed, *, n_backbones=2, n_positions=(4, 3), n_settings=5, n_samples=70, energy=True):
    """Tables of random numbers that obey the padding rules; samples are not a multiple of 64."""
    rng = np.random.default_rng(seed)
    space = mini_space()
    P = max(n_positions)
    correct = rng.random((n_backbones, P + 1, n_samples)) < np.linspace(0.5, 0.9, P + 1)[None, :, None]
    leaves = rng.random((n_backbones, P + 1, n_samples)) < 0.4
    leaves[:, P] = True
    segment = rng.uniform(1, 3, (n_backbones, P + 1, n_settings))
    head = rng.uniform(0.1, 0.6, (n_backbones, P, n_settings))
    power = rng.uniform(2, 6, (n_backbones, 1, n_settings))
    for b, p in enumerate(n_positions):
        correct[b, p:P], leaves[b, p:P], segment[b, p:P], head[b, p:P] = False, False, 0, 0
    missing = 1.0 if energy else np.nan
    return Tables(
        backbones=tuple(space.decode(g) for g in space.sample(n_backbones, rng)),
        n_positions=np.array(n_positions),
        segment_latency_ms=segment,
        segment_energy_mj=segment * power * missing,
        head_latency_ms=head,
        head_energy_mj=head * power * missing,
        correct=correct,
        leaves=leaves,
        default_setting=n_settings - 1,
        measured=np.ones(n_backbones, dtype=bool),
    )


class SyntheticWorld:
    """A complete world made of formulas: bigger networks are better and dearer, depth helps."""

    def __init__(self, n_samples=600, table=SMALL_TABLE):
        self.space, self.clock_table = mini_space(), table
        self.n_samples = n_samples
        self.difficulty = np.random.default_rng(5).normal(0, 1, n_samples)
        self.group = np.repeat(np.arange(n_samples // 3), 3).astype(np.int32)
        self.static_calls = 0

    def workload(self, backbone):
        return self.space.workload(backbone, n_classes=10)

    def stage_cost(self, stage, setting):
        gpu, emc = setting.hz("gpu") / 1e9, setting.hz("emc") / 1e9
        latency = sum(
            0.02 / gpu + layer.macs / (2e6 * gpu) + layer.bytes_moved / (4e6 * emc) for layer in stage.layers
        )
        return latency, latency * (1.0 + 0.5 * emc + 2.5 * gpu * (0.6 + 0.4 * gpu) ** 2)

    def outcome_matrix(self, backbone) -> OutcomeMatrix:
        rng = np.random.default_rng(zlib.crc32(backbone.arch_id.encode()))
        work = self.workload(backbone)
        p = work.n_positions
        skill = 0.7 * np.log(work.macs / 5e5) + np.append(np.linspace(-1.0, -0.1, p), 0.0)
        margin = skill[None, :] - self.difficulty[:, None] + 0.3 * rng.normal(size=(self.n_samples, p + 1))
        confidence = (1 / (1 + np.exp(-margin - 0.3 * rng.normal(size=margin.shape)))).astype(np.float16)
        predicted = np.zeros(margin.shape, dtype=np.int16)
        return OutcomeMatrix(margin > 0, confidence, confidence, confidence, predicted, self.group)

    def accuracy_record(self, backbone, row_no=0) -> AccuracyRecord:
        matrix = self.outcome_matrix(backbone)
        return AccuracyRecord("s", row_no, backbone, "w", "r", "split", self.space.first_exit, matrix, matrix)

    def cost_record(self, design, row_no=0) -> CostRecord:
        stages, totals = [], np.zeros(2)
        for stage in self.workload(design.backbone).stages(design.exits.positions):
            latency, energy = self.stage_cost(stage, design.setting)
            totals += latency, energy
            stages.append(
                StageCost(
                    stage.kind,
                    stage.position,
                    Statistic(latency, 0.01 * latency, 9),
                    Statistic(energy, 0.02 * energy, 9),
                )
            )
        return CostRecord(
            "s", row_no, design.backbone, 10, design.exits.heads, design.setting, design.setting,
            Target("toy", "cpu", "r1", "formula"), Truth.SIMULATOR, tuple(stages),
            Statistic(totals[0], 0.01 * totals[0], 9), Statistic(totals[1], 0.02 * totals[1], 9), 50.0,
        )  # fmt: skip

    def static(self, backbones):
        self.static_calls += len(backbones)
        costs = [self.stage_cost(self.workload(b).stages(())[0], self.clock_table.default) for b in backbones]
        accuracy = np.array([self.outcome_matrix(b).fractions[-1] for b in backbones])
        return StaticFitness(accuracy, np.array([c[0] for c in costs]), np.array([c[1] for c in costs]))

    def tables(self, backbones) -> Tables:
        k, F, n = len(backbones), len(self.clock_table), self.n_samples
        P = max(b.n_blocks for b in backbones) - self.space.first_exit
        segment, head = np.zeros((2, k, P + 1, F)), np.zeros((2, k, P, F))
        correct, leaves = np.zeros((k, P + 1, n), dtype=bool), np.zeros((k, P + 1, n), dtype=bool)
        for i, backbone in enumerate(backbones):
            p = backbone.n_blocks - self.space.first_exit
            stages = self.workload(backbone).unit_stages()
            costs = np.array(
                [[self.stage_cost(stage, s) for s in self.clock_table.settings] for stage in stages]
            ).transpose(2, 0, 1)
            segment[:, i, [*range(p), P]], head[:, i, :p] = costs[:, 0::2], costs[:, 1::2]
            matrix = self.outcome_matrix(backbone)
            correct[i, [*range(p), P]] = matrix.correct.T
            leaves[i, [*range(p), P]] = cross_fitted_leaves(matrix).T
        return Tables(
            tuple(backbones), np.array([b.n_blocks - self.space.first_exit for b in backbones]),
            segment[0], segment[1], head[0], head[1], correct, leaves, F - 1, np.ones(k, dtype=bool),
        )  # fmt: skip


class FormulaPredictors:
    """Predictors that know the synthetic world up to a bias; its draws scatter around that."""

    def __init__(self, world, bias=0.0, scatter=0.1):
        self.world, self.bias, self.scatter = world, bias, scatter

    def _logits(self, backbone):
        fractions = np.clip(self.world.outcome_matrix(backbone).fractions, 1e-3, 1 - 1e-3)
        return np.log(fractions / (1 - fractions)) + self.bias

    def _prediction(self, logits):
        mean = np.array(logits)[:, None]
        return Prediction(mean, np.full_like(mean, self.scatter**2), np.zeros_like(mean), ("f",), ("logit",))

    def final_accuracy(self, backbones):
        return self._prediction([self._logits(b)[-1] for b in backbones])

    def exit_fractions(self, backbones):
        return self._prediction(np.concatenate([self._logits(b)[:-1] for b in backbones]))

    def stage_costs(self, stages, settings):
        costs = np.array([[self.world.stage_cost(stage, s) for s in settings] for stage in stages])
        return StageCosts(costs[:, :, 0], costs[:, :, 1])

    def network_cost(self, backbones, setting):
        static = self.world.static(backbones)
        assert setting == self.world.clock_table.default
        return static.latency_ms, static.energy_mj

    def draws(self, n_draws, seed):
        return FormulaDraws(self, n_draws, seed)


class FormulaDraws:
    """Each draw shifts all logits of a backbone, and scales all costs, by its own amounts."""

    def __init__(self, predictors, n_draws, seed):
        self.predictors, self.n_draws, self.seed = predictors, n_draws, seed
        self.scale = np.exp(predictors.scatter * np.random.default_rng(seed).normal(size=(2, n_draws)))

    def _fractions(self, backbone):
        rng = np.random.default_rng([self.seed, zlib.crc32(backbone.arch_id.encode())])
        shift = self.predictors.scatter * rng.normal(size=(self.n_draws, 1))
        return 1 / (1 + np.exp(-self.predictors._logits(backbone) - shift))

    def final_accuracy(self, backbones):
        return np.stack([self._fractions(b)[:, -1] for b in backbones], axis=1)

    def exit_fractions(self, backbones):
        return [self._fractions(b)[:, :-1] for b in backbones]

    def stage_costs(self, stages, settings):
        costs = np.array(
            [self.predictors.world.stage_cost(a, b) for a, b in zip(stages, settings, strict=True)]
        )
        latency = self.scale[0][:, None] * costs[:, 0]
        return latency, self.scale[1][:, None] * latency * costs[:, 1] / costs[:, 0]


@pytest.fixture(scope="session")
def formula_predictors(synthetic_world):
    return FormulaPredictors(synthetic_world)


@pytest.fixture
def random_tables():
    return make_random_tables


@pytest.fixture(scope="session")
def synthetic_world():
    return SyntheticWorld()
