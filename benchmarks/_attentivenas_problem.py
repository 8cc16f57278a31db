"""The full AttentiveNAS space with the clocks of a TX2: rows to fit predictors to, none of them measured.

Costs are those of the simulated TX2 GPU, with its noise.  Nobody here has a trained supernet of this size, so outcomes
of exits are modelled: every image has a difficulty, every exit a skill that grows with the work done up to it, and an
exit is right where skill, difficulty and chance say so; chance is partly shared along the exits of a backbone.  They
are there to be as large and as dependent on each other as real ones: how well a search does on them says nothing.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from _predictor_tasks import FloatArray
from scipy.special import expit

from hadas.datasets.records import AccuracyRecord, CostRecord, OutcomeMatrix
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.simulation.simulator import simulated_device
from hadas.spaces import CLOCK_TABLES, Backbone, ClockTable, Exits, MBConvSpace, attentivenas_space

DEVICE = "tx2-pascal-gpu"
N_CLASSES = 100


@dataclass(frozen=True)
class Rows:
    """What predictors are fitted to.

    Attributes:
        space, table: AttentiveNAS, and the 143 settings of the TX2.
        accuracy: rows with modelled outcomes, the seven presets among them.
        costs: simulated rows, one per backbone, with up to four exits at a random setting.
    """

    space: MBConvSpace
    table: ClockTable
    accuracy: tuple[AccuracyRecord, ...]
    costs: tuple[CostRecord, ...]


def rows(n_accuracy: int, n_costs: int, n_samples: int, seed: int) -> Rows:
    """Rows of random backbones, the same for the same seed."""
    space, table = attentivenas_space(), CLOCK_TABLES[DEVICE]
    rng = np.random.default_rng([91, seed])
    presets = list(space.presets.values())
    backbones = [space.decode(genome) for genome in space.sample(max(n_accuracy, n_costs), rng)]
    difficulty = rng.normal(size=n_samples)
    accuracy = tuple(
        _accuracy_row(space, backbone, difficulty, row_no)
        for row_no, backbone in enumerate([*presets, *backbones][:n_accuracy])
    )
    requests = tuple(_request(space, table, backbone, rng) for backbone in backbones[:n_costs])
    device = simulated_device(DEVICE, space=space, n_classes=N_CLASSES)
    return Rows(space, table, accuracy, tuple(device.measure(MeasurementPlan("rows", requests, seed=seed))))


def _request(
    space: MBConvSpace, table: ClockTable, backbone: Backbone, rng: np.random.Generator
) -> CostRequest:
    n_positions = backbone.n_blocks - space.first_exit
    some = rng.permutation(n_positions)[: int(rng.integers(5))] + space.first_exit
    exits = Exits.at(sorted(int(p) for p in some), first_exit=space.first_exit, n_blocks=backbone.n_blocks)
    return CostRequest(backbone, exits, table.settings[int(rng.integers(len(table)))])


def _accuracy_row(
    space: MBConvSpace, backbone: Backbone, difficulty: FloatArray, row_no: int
) -> AccuracyRecord:
    """A row whose outcomes are modelled."""
    matrix = _outcomes(space, backbone, difficulty)
    return AccuracyRecord(
        "modelled", row_no, backbone, "modelled", "modelled", "modelled", space.first_exit, matrix, matrix
    )


def _outcomes(space: MBConvSpace, backbone: Backbone, difficulty: FloatArray) -> OutcomeMatrix:
    rng = np.random.default_rng([92, zlib.crc32(backbone.arch_id.encode())])
    work = space.workload(backbone, n_classes=N_CLASSES)
    done = work.stem.macs + np.cumsum([block.macs for block in work.blocks])[space.first_exit :]
    share = np.append(done / work.macs, 1.0)
    final = 1.0 + 0.45 * np.log(work.macs / 2e8) + 0.08 * rng.normal()
    # An early exit has seen little of the network, and its head cannot make up for that.
    skill = final - 1.6 * (1.0 - np.sqrt(share))
    n, e = len(difficulty), len(share)
    chance = 0.5 * rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(n, e))
    margin = skill - 1.2 * difficulty[:, None] + chance
    sure = expit(margin + 0.4 * rng.normal(size=(n, e)))
    confidence = (0.02 + 0.98 * sure).astype(np.float16)
    entropy = (-np.log(np.maximum(sure, 1e-3))).astype(np.float16)
    predicted = np.zeros((n, e), dtype=np.int16)
    group = np.arange(n, dtype=np.int32)
    return OutcomeMatrix(margin > 0, confidence, sure.astype(np.float16), entropy, predicted, group)
