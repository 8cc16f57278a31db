"""A tiny roofline device and made-up accuracies: data whose true function is known."""

from dataclasses import replace
from types import SimpleNamespace

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
from hadas.spaces import CLOCK_TABLES, Exits, mini_space

TARGET = Target("toy", "gpu", "1", "formula")
N_CLASSES = 10


def true_stage_cost(stage, setting):
    """Latency in ms and energy in mJ: per layer the p-norm (p = 3) of compute and memory time, and a launch."""
    clocks = dict(setting.clocks_hz)
    compute_hz, memory_hz = clocks.get("gpu", 1e9), clocks.get("emc", 1e9)
    latency_ms = 0.0
    for layer in stage.layers:
        rate = compute_hz * (20 if layer.kind == "depthwise" else 100)
        compute_ms, memory_ms = 1e3 * layer.macs / rate, 1e3 * layer.bytes_moved / (8 * memory_hz)
        latency_ms += (compute_ms**3 + memory_ms**3) ** (1 / 3) + 0.02
    power_w = 2.0 + 3.0 * (compute_hz / 1e9) ** 2 + 1.0 * memory_hz / 1e9
    return latency_ms, power_w * latency_ms


def cost_record(
    space, backbone, exits, setting, row_no, *, rng=None, noise=0.01, energy=True, session="cost"
):
    """A measured row of the roofline device; ``rng`` None = without noise."""
    stages, totals = [], np.zeros(2)
    for stage in space.workload(backbone, n_classes=N_CLASSES).stages(exits.positions):
        factors = np.exp(noise * rng.standard_normal(2)) if rng is not None else np.ones(2)
        latency_ms, energy_mj = np.array(true_stage_cost(stage, setting)) * factors
        totals += (latency_ms, energy_mj)
        stages.append(
            StageCost(
                stage.kind,
                stage.position,
                Statistic(latency_ms, noise * latency_ms, 10),
                Statistic(energy_mj, noise * energy_mj, 10) if energy else None,
            )
        )
    return CostRecord(
        session, row_no, backbone, N_CLASSES, exits.heads, setting, setting, TARGET, Truth.SIMULATOR, tuple(stages),
        Statistic(totals[0], noise * totals[0], 10),
        Statistic(totals[1], noise * totals[1], 10) if energy else None,
        1.0,
    )  # fmt: skip


def prefix_record(record, *, factor=1.0):
    """The same record as rows of prefix programs: cumulative costs, ``factor`` times what the stages add up to."""
    ends = [*range(2, len(record.stages), 2), len(record.stages)]

    def total(values):
        error = np.linalg.norm([value.standard_error for value in values])
        return Statistic(factor * sum(value.value for value in values), factor * float(error), 10)

    stages = []
    for end in ends:
        own, energies = record.stages[:end], [stage.energy_mj for stage in record.stages[:end]]
        energy = None if None in energies else total(energies)
        position = record.stages[end - 1].position
        stages.append(StageCost("prefix", position, total([stage.latency_ms for stage in own]), energy))
    return replace(
        record, program="prefix", stages=tuple(stages), latency_ms=stages[-1].latency_ms,
        energy_mj=stages[-1].energy_mj,
    )  # fmt: skip


def true_fractions(space, backbone):
    """Fraction correct (P + 1,) at the exits and the end: grows with depth and with size."""
    workload = space.workload(backbone, n_classes=N_CLASSES)
    n_blocks = len(workload.blocks)
    depth = np.array([*range(space.first_exit + 1, n_blocks + 1), n_blocks + 0.5]) / n_blocks
    return 1 / (1 + np.exp(-(-1.5 + 2.5 * depth + 0.6 * np.log(workload.macs / 1e6))))


def accuracy_record(space, backbone, row_no, *, n_samples=400, copies=2, session="accuracy"):
    """Outcomes drawn sample by sample; copies of one image share their outcome."""
    rng = np.random.default_rng([31, row_no])
    fractions = true_fractions(space, backbone)
    images = rng.random((n_samples // copies, len(fractions))) < fractions
    correct = np.repeat(images, copies, axis=0)
    blank = np.zeros(correct.shape, dtype=np.float16)
    group = np.repeat(np.arange(n_samples // copies), copies).astype(np.int32)
    outcomes = OutcomeMatrix(correct, blank, blank, blank, blank.astype(np.int16), group)
    return AccuracyRecord(
        session, row_no, backbone, "weights", "recipe", "split", space.first_exit, outcomes, outcomes
    )


def random_exits(space, backbone, rng):
    positions = space.first_exit + np.flatnonzero(rng.integers(0, 2, backbone.n_blocks - space.first_exit))
    return Exits.at((int(p) for p in positions), first_exit=space.first_exit, n_blocks=backbone.n_blocks)


@pytest.fixture(scope="session")
def toy():
    """Ten measured backbones of the mini space, five others, and the makers of further records."""
    space, table = mini_space(), CLOCK_TABLES["tx2-pascal-gpu"]
    rng = np.random.default_rng(5)
    measured = [space.decode(genome) for genome in space.sample(10, rng)]
    unseen = [space.decode(genome) for genome in space.sample(5, rng)]

    def costs(backbones, seed, per_backbone=3, **options):
        rng = np.random.default_rng(seed)
        return [
            cost_record(
                space,
                b,
                random_exits(space, b, rng),
                table.settings[rng.integers(len(table))],
                row_no,
                rng=rng,
                **options,
            )
            for row_no, b in enumerate(b for b in backbones for _ in range(per_backbone))
        ]

    return SimpleNamespace(
        space=space, table=table, measured=measured, unseen=unseen, costs=costs,
        cost_records=costs(measured, 1), true_stage_cost=true_stage_cost, cost_record=cost_record, prefix_record=prefix_record,
        accuracy_records=[accuracy_record(space, b, i) for i, b in enumerate(measured)],
        accuracy_record=accuracy_record, true_fractions=true_fractions, n_classes=N_CLASSES,
    )  # fmt: skip


@pytest.fixture(scope="session")
def fitted(toy):
    """A predictor set on the toy records."""
    from hadas.surrogates.predictor_set import PredictorSet

    return PredictorSet.fit(
        toy.space, toy.table, toy.accuracy_records, toy.cost_records, n_classes=toy.n_classes, seed=0
    )
