"""Figure 7: what the dissimilarity term brings to the inner search on one backbone.

The inner engine runs on each preset with objective ``hadas-2d``, with gamma = 0 (no dissimilarity) and with gamma in
two ranges; the paper names the ranges nowhere.  What was found is judged by what the network then does: accuracy and
energy under ideal mapping, and under the controller; and, beside, on the axes of the figure (mean N_i, energy gain),
where no search can do better than one that optimises these very axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from _contenders import CONTROLLER, GOALS, ORACLE, PAPER_AXES
from _paper_world import Accuracies, FloatArray, IdealMapping

from hadas.search.inner import InnerFront
from hadas.search.metrics import HypervolumeReference, ratio_of_dominance
from hadas.search.objectives import evaluate
from hadas.search.outer import SearchSettings
from hadas.search.ranking import front_indices
from hadas.search.tables import Tables

SETTING = "tx2-pascal-gpu"
RANGES = {"gamma below 1": (0.1, 0.25, 0.5), "gamma from 1": (1.0, 2.0, 4.0)}


@dataclass(frozen=True)
class Effect:
    """With dissimilarity against without, as one goal sees it.

    Attributes:
        hypervolume_gain: hypervolume with over without, less 1.
        dominates, dominated: share of the front with that dominates some of that without, and the reverse.
        accuracy_gain: highest accuracy (or mean N_i) with, less without.
        energy_saved: share of the lowest energy without that the lowest with it saves.
    """

    hypervolume_gain: float
    dominates: float
    dominated: float
    accuracy_gain: float
    energy_saved: float


def effect(with_it: FloatArray, without: FloatArray, reference: HypervolumeReference) -> Effect:
    """Compare two sets of points (q, 2), loss and cost."""
    volumes = [reference.hypervolume(points) for points in (with_it, without)]
    return Effect(
        hypervolume_gain=volumes[0] / volumes[1] - 1.0,
        dominates=ratio_of_dominance(with_it, without),
        dominated=ratio_of_dominance(without, with_it),
        accuracy_gain=float(without[:, 0].min() - with_it[:, 0].min()),
        energy_saved=float(1.0 - with_it[:, 1].min() / without[:, 1].min()),
    )


@dataclass(frozen=True)
class Ablation:
    """Medians over presets, seeds and the gammas of a range, by range and goal.

    Attributes:
        n_exits: mean number of exits in use in what was found, by gamma.
        drawn: one backbone's points, by goal and gamma.
    """

    effects: Mapping[str, Mapping[str, Effect]]
    n_exits: Mapping[float, float]
    drawn: Mapping[str, Mapping[float, FloatArray]]


def ablate(accuracies: Accuracies, budget: SearchSettings, seeds: Sequence[int], drawn: str) -> Ablation:
    """Run the ablation.

    Args:
        drawn: preset whose points of the first seed are kept, by goal and gamma.
    """
    presets = accuracies.space.presets
    world = accuracies.world(SETTING)
    tables = {CONTROLLER: world.tables(list(presets.values()))}
    tables[PAPER_AXES] = tables[CONTROLLER]
    tables[ORACLE] = IdealMapping(world).tables(list(presets.values()))
    gammas = [0.0, *(gamma for some in RANGES.values() for gamma in some)]
    judged: dict[tuple[str, str], list[Effect]] = {(r, goal): [] for r in RANGES for goal in GOALS}
    kept: dict[str, dict[float, FloatArray]] = {goal: {} for goal in GOALS}
    n_exits: dict[float, list[float]] = {gamma: [] for gamma in gammas}
    for seed in seeds:
        fronts = {gamma: _fronts(tables[CONTROLLER], budget, gamma, seed) for gamma in gammas}
        for gamma, found in fronts.items():
            n_exits[gamma] += [float(front.masks.sum(axis=1).mean()) for front in found]
        for goal, of_goal in tables.items():
            for i, name in enumerate(presets):
                points = {gamma: _judged(of_goal, budget, goal, i, fronts[gamma][i]) for gamma in gammas}
                if name == drawn and seed == seeds[0]:
                    kept[goal] = points
                columns = replace(budget, **GOALS[goal]).make_objective().columns(has_energy=True)
                reference = HypervolumeReference.from_front(np.concatenate(list(points.values())), columns)
                for some, members in RANGES.items():
                    judged[some, goal] += [effect(points[g], points[0.0], reference) for g in members]
    return Ablation(
        {some: {goal: _median(judged[some, goal]) for goal in GOALS} for some in RANGES},
        {gamma: float(np.mean(counts)) for gamma, counts in n_exits.items()},
        kept,
    )


def _fronts(tables: Tables, budget: SearchSettings, gamma: float, seed: int) -> tuple[InnerFront, ...]:
    settings = replace(budget, objective="hadas-2d", gamma=gamma)
    return settings.make_inner().run(tables, settings.make_objective(), seed)


def _judged(
    tables: Tables, budget: SearchSettings, goal: str, backbone: int, front: InnerFront
) -> FloatArray:
    """Non-dominated (q, 2) of an inner front, as a goal sees it."""
    objective = replace(budget, **GOALS[goal]).make_objective()
    owner = np.full(len(front.settings), backbone)
    points = evaluate(objective, tables, owner, front.masks, front.settings)
    return points[front_indices(points)]


def _median(effects: Sequence[Effect]) -> Effect:
    fields = Effect.__dataclass_fields__
    return Effect(**{name: float(np.median([getattr(one, name) for one in effects])) for name in fields})
