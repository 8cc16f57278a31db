"""The truth of the whole problem on the simulator: what any design costs and how often it is right.

Costs are those of the simulated TX2 GPU, without noise where designs are judged and with it where they are measured.
Accuracies are those of the frozen oracle (:mod:`_accuracy_oracle`).  All of it is modelled.

What a search with hardware in the loop reaches is had by searching this very truth: a generous nested search that
evaluates every design exactly, however many measurements that would take.  As its hypervolume depends on its seed, it
is run with several, and 100 % is their median.  The union of all their fronts is more than any of them reaches; the
share of that is printed beside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from _accuracy_oracle import AccuracyOracle
from _predictor_tasks import FloatArray
from _simulated_view import SimulatedView

from hadas.datasets.records import CostRecord
from hadas.measurement.accuracy.policies import DEFAULT_CONTROLLER
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.simulation.simulator import SimulatedDevice, simulated_device
from hadas.search.designs import Design, evaluate_measured
from hadas.search.metrics import REFERENCE_MARGIN, HypervolumeReference
from hadas.search.objectives import Column
from hadas.search.outcomes import OutcomeLibrary
from hadas.search.outer import SearchSettings, nested_search
from hadas.search.ranking import front_indices
from hadas.search.tables import StaticFitness, Tables
from hadas.search.world import PredictedWorld
from hadas.spaces import Backbone, ClockTable, MBConvSpace

DEVICE = "tx2-pascal-gpu"
COLUMNS = ("error", "energy_mj")


@dataclass(frozen=True)
class Generosity:
    """What the search that sees the truth may spend.

    Attributes:
        settings: of each search.
        seeds: of the searches, one each.
        few_backbones: how far each has come is noted when it has looked at so many with exits, as well.
    """

    settings: SearchSettings
    seeds: tuple[int, ...]
    few_backbones: int = 100

    def digest(self, truth: Truth) -> str:
        """12 hex digits over all that the searches depend on, but for their code."""
        changed = {
            name: value for name, value in asdict(self.settings).items()
            if value != getattr(SearchSettings(), name)
        }  # fmt: skip
        spent = (self.seeds, self.few_backbones)
        said = repr((truth.oracle.digest, truth.exact.target.target_id, sorted(changed.items()), spent))
        return hashlib.sha256(said.encode()).hexdigest()[:12]


class Truth:
    """Everything that is true of the problem."""

    def __init__(self, oracle: AccuracyOracle) -> None:
        self.oracle, self.space = oracle, oracle.space
        self.n_classes = oracle.data.n_classes
        self.device, self.exact = (
            simulated_device(DEVICE, space=self.space, n_classes=self.n_classes, noise=noise)
            for noise in (True, False)
        )

    @property
    def clock_table(self) -> ClockTable:
        """Of the simulated device."""
        return self.exact.clock_table()

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The two objectives: error, and energy on a log scale."""
        return SearchSettings().make_objective().columns(True)

    def measure(self, designs: Sequence[Design], session: str, seed: int) -> list[CostRecord]:
        """Cost rows as the simulated device measures them, with noise."""
        return _rows(self.device, designs, session, seed)

    def values(self, designs: Sequence[Design]) -> FloatArray:
        """(n, 2) true error and expected energy in mJ under the calibrated controller."""
        return self.judged(designs, _rows(self.exact, designs, "truth", 0))

    def judged(self, designs: Sequence[Design], rows: Sequence[CostRecord]) -> FloatArray:
        """(n, 2) error and expected energy in mJ of designs whose stages cost what rows say."""
        found = [
            evaluate_measured(design, self.oracle.record(design.backbone), row).objectives(COLUMNS)[0]
            for design, row in zip(designs, rows, strict=True)
        ]
        return np.array(found).reshape(len(found), len(COLUMNS))


def _rows(device: SimulatedDevice, designs: Sequence[Design], session: str, seed: int) -> list[CostRecord]:
    requests = tuple(CostRequest(d.backbone, d.exits, d.setting) for d in designs)
    return list(device.measure(MeasurementPlan(session, requests, seed=seed)))


class TrueWorld:
    """The truth as a search sees it, without any error; ``SupportsTables``."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._view = SimulatedView(_TrueAccuracies(truth.oracle), truth.exact, truth.space)

    @property
    def space(self) -> MBConvSpace:
        """Where backbones come from."""
        return self._truth.space

    @property
    def clock_table(self) -> ClockTable:
        """Of the simulated device."""
        return self._truth.clock_table

    def static(self, backbones: Sequence[Backbone]) -> StaticFitness:
        """Exact static fitness."""
        latency_ms, energy_mj = self._view.network_cost(backbones, self.clock_table.default)
        return StaticFitness(self._view.final_accuracy(backbones), latency_ms, energy_mj)

    def tables(self, backbones: Sequence[Backbone]) -> Tables:
        """Exact tables: outcomes as measuring these backbones would give them."""
        library = OutcomeLibrary([self._truth.oracle.record(b) for b in backbones], DEFAULT_CONTROLLER)
        world = PredictedWorld(
            self.space, self.clock_table, self._view, library, n_classes=self._truth.n_classes
        )
        return world.tables(backbones)


class _TrueAccuracies:
    """What is true of accuracies."""

    def __init__(self, oracle: AccuracyOracle) -> None:
        self._oracle = oracle

    def final_accuracy(self, backbones: Sequence[Backbone]) -> FloatArray:
        """(k,) fraction right at the end."""
        return np.array([own[-1] for own in self._oracle.fractions(backbones)])

    def exit_fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        """k arrays (p,), fraction right per exit position."""
        return [own[:-1] for own in self._oracle.fractions(backbones)]


@dataclass(frozen=True)
class Yardstick:
    """What searches that see the truth reach.

    Attributes:
        front: (q, 2) true values of what they found together.
        reference: of hypervolumes, from that front.
        shares: hypervolume of each single search, as a share of all together.
        early_shares: the same when it had looked at few backbones with exits (:attr:`Generosity.few_backbones`).
        n_evaluated: designs that they looked at.
        modelling: errors of the oracle's model, cross-validated (see :meth:`.AccuracyOracle.cross_validated`).
    """

    front: FloatArray
    reference: HypervolumeReference
    shares: tuple[float, ...]
    early_shares: tuple[float, ...]
    n_evaluated: int
    modelling: Mapping[str, float]

    @cached_property
    def of_one(self) -> float:
        """Median share of a single search."""
        return float(np.median(self.shares))

    @cached_property
    def of_one_early(self) -> float:
        """Median share of a single search when it had looked at few backbones, of what one has at its end."""
        return float(np.median(self.early_shares)) / self.of_one

    @cached_property
    def _together(self) -> float:
        return self.reference.hypervolume(self.front)

    def share_of_all(self, values: FloatArray) -> float:
        """Hypervolume of (n, 2) true values as a share of what all searches reach together."""
        return self.reference.hypervolume(values) / self._together

    def share(self, values: FloatArray) -> float:
        """Hypervolume of (n, 2) true values as a share of what a single search reaches (the median); 1 can be passed."""
        return self.share_of_all(values) / self.of_one


STRICT_MARGIN = 0.1
"""The reference of pools (:meth:`_learning_pools.Pool.exact_reference`): 1.1 x the range of the front beyond its best."""


def yardstick(
    truth: Truth, generosity: Generosity, directory: Path, margin: float = REFERENCE_MARGIN
) -> Yardstick:
    """Search the truth, or find what an earlier call found; it is kept in ``directory``.

    Args:
        margin: how many ranges of the front its reference lies beyond the nadir; with 1.1, as in a study, the ends
            of the front make up most of the volume.
    """
    path = directory / f"yardstick-{generosity.digest(truth)}.json"
    found = kept(path, lambda: _searched(truth, generosity))
    fronts = [np.array(front) for front in found["fronts"]]
    together = np.concatenate(fronts)
    front = together[front_indices(together)]
    reference = HypervolumeReference.from_front(front, truth.columns, margin)
    whole = reference.hypervolume(front)
    shares, early = (
        tuple(reference.hypervolume(np.array(own)) / whole for own in found[which])
        for which in ("fronts", "early_fronts")
    )
    return Yardstick(front, reference, shares, early, found["n_evaluated"], found["modelling"])


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What a JSON file holds; where there is none, it is made and written."""
    if not path.exists():
        document = json.dumps(make())
        # Whoever else works on it finds the same; the file is whole or not there.
        part = path.with_suffix(f".{hashlib.sha256(document.encode()).hexdigest()[:8]}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(document)
        part.replace(path)
    return json.loads(path.read_text())


def _searched(truth: Truth, generosity: Generosity) -> dict[str, object]:
    world, space, settings = TrueWorld(truth), truth.space, generosity.settings
    initial = [space.smallest, space.largest, *space.presets.values()]
    fronts, early_fronts, n_evaluated = [], [], 0
    n_early = max(1, generosity.few_backbones // settings.survivors)
    for seed in generosity.seeds:
        history: list[FloatArray] = []
        found = nested_search(
            space, world, settings, seed, initial=initial,
            on_generation=lambda summary, history=history: history.append(summary.front),
        )  # fmt: skip
        fronts.append([list(candidate.objectives) for candidate in found.front])
        early_fronts.append(history[min(n_early, len(history)) - 1].tolist())
        n_evaluated += found.n_inner
    modelling = truth.oracle.cross_validated()
    return {
        "fronts": fronts,
        "early_fronts": early_fronts,
        "n_evaluated": n_evaluated,
        "modelling": modelling,
    }
