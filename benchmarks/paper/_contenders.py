"""Ways to a dynamic network, each with the same number of evaluations, and how their fronts compare.

* joint: the nested search over backbones, exits and clocks;
* backbone first: backbones are searched by their own accuracy, energy and latency, exits and clocks added afterwards;
* presets optimised: exits and clocks for m0..m6, the mini space's counterparts of a0..a6 (the paper's "optimized
  baselines");
* joint, random start: no rival but the same search without what it was told at the beginning (under the controller
  only).

Joint and backbone first begin with both ends of the space among random backbones, as a study does: the sandwich rule
trains them in every step, and no other backbone is as good for its size.  Both spend the same outer budget, and all
may spend the same inner evaluations in all.  A backbone that offers no more choices worth a look than its share is
listed instead of searched, whoever asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from _paper_world import SETTINGS, Accuracies, FloatArray, IdealMapping, Remembering, objectives_of

from hadas.search.baselines import backbone_only, presets_optimized
from hadas.search.designs import Design
from hadas.search.metrics import HypervolumeReference, ratio_of_dominance
from hadas.search.outer import SearchSettings, nested_search
from hadas.search.ranking import front_indices

JOINT, BACKBONE_FIRST, PRESETS = "joint", "backbone first", "presets optimised"
RIVALS = (PRESETS, BACKBONE_FIRST)
RANDOM_START = "joint, random start"

CONTROLLER, ORACLE, PAPER_AXES = "controller", "oracle", "paper's axes"
GOALS: Mapping[str, Mapping[str, Any]] = {
    CONTROLLER: {"objective": "expected"},
    ORACLE: {"objective": "expected"},
    PAPER_AXES: {"objective": "hadas-2d", "gamma": 0.0},
}
"""What is searched for, as settings of a search.  Expected accuracy and energy under the controller or under ideal mapping; or the axes of the paper's figure 5:
mean N_i of the exits in use and the energy gain, of which the package's ``hadas-2d`` is made (gamma = 0: without the
dissimilarity that the figure does not show)."""

MAX_DESIGNS = 200
"""More than any of the fronts has."""


@dataclass(frozen=True)
class Job:
    """One comparison: a hardware setting, what is searched for, and a seed."""

    setting: str
    goal: str
    seed: int


@dataclass(frozen=True)
class Fronts:
    """What the contenders found.

    Attributes:
        designs: by contender.
        points: by contender, (q, 2) objectives of its designs, minimised: error and energy in mJ, or
            negative mean N_i and mean energy share.
        explored: static (accuracy, energy in mJ, latency in ms) of every backbone that the joint search saw, (b, 3).
    """

    job: Job
    designs: Mapping[str, tuple[Design, ...]]
    points: Mapping[str, FloatArray]
    explored: FloatArray


def equal_budgets(settings: SearchSettings, n_presets: int) -> dict[str, SearchSettings]:
    """The settings of each rival: inner generations so that it spends what the joint search does.

    Raises:
        ValueError: the joint budget does not divide among the presets.
    """
    inner = settings.inner_generations * settings.generations
    per_preset, rest = divmod(inner * settings.survivors, n_presets)
    if rest:
        raise ValueError(
            f"{inner * settings.survivors} inner generations do not divide among {n_presets} presets"
        )
    return {
        BACKBONE_FIRST: replace(settings, inner_generations=inner),
        PRESETS: replace(settings, inner_generations=per_preset),
    }


def inner_evaluations(settings: SearchSettings) -> int:
    """What the joint search may spend: as many per backbone that survives a selection."""
    per_backbone = settings.inner_population * settings.inner_generations
    return settings.generations * settings.survivors * per_backbone


def compare(accuracies: Accuracies, budget: SearchSettings, job: Job) -> Fronts:
    """Let the contenders search one problem."""
    plain = accuracies.world(job.setting)
    world = Remembering(IdealMapping(plain) if job.goal == ORACLE else plain)
    settings = replace(budget, **GOALS[job.goal])
    space = accuracies.space
    rivals = equal_budgets(settings, len(space.presets))
    ends = (space.smallest, space.largest)
    joint = nested_search(space, world, settings, job.seed, initial=ends)
    explored = np.array(list(world.explored.values()))
    designs = {
        JOINT: tuple(candidate.design for candidate in joint.front),
        BACKBONE_FIRST: backbone_only(
            space, world, rivals[BACKBONE_FIRST], MAX_DESIGNS, job.seed, initial=ends
        ),
        PRESETS: presets_optimized(space, world, rivals[PRESETS], MAX_DESIGNS, job.seed),
    }
    if job.goal == CONTROLLER:
        random_start = nested_search(space, world, settings, job.seed)
        designs[RANDOM_START] = tuple(candidate.design for candidate in random_start.front)
    objective = settings.make_objective()
    points = {name: objectives_of(world, found, objective) for name, found in designs.items()}
    kept = {name: front_indices(found) for name, found in points.items()}
    return Fronts(
        job,
        {name: tuple(designs[name][i] for i in kept[name]) for name in designs},
        {name: points[name][kept[name]] for name in designs},
        explored,
    )


@dataclass(frozen=True)
class Savings:
    """Shares of the energy of another front that one saves at equal accuracy.

    Attributes:
        at_best: at the highest of the other's accuracies that is reached.
        median, most: over all of the other's accuracies that are reached.
        reached: share of the other's front whose accuracy is reached.
    """

    at_best: float
    median: float
    most: float
    reached: float


@dataclass(frozen=True)
class Comparison:
    """Hypervolume and ratio of dominance on one setting for one goal; medians over seeds.

    Attributes:
        gain: joint hypervolume over that of each other contender, less 1; seed by seed, then the median.
        dominates, dominated: share of the joint front that dominates some of the other's, and the reverse.
        saved: what the joint search saves of the energy of the other's front.
    """

    setting: str
    goal: str
    hypervolume: Mapping[str, float]
    gain: Mapping[str, float]
    dominates: Mapping[str, float]
    dominated: Mapping[str, float]
    saved: Mapping[str, Savings]

    @property
    def misses(self) -> list[str]:
        """What keeps the joint search from being at least as good as its rivals."""
        where = f"{SETTINGS.get(self.setting, self.setting)}, {self.goal}"
        missed = [
            f"{where}: hypervolume {100 * gain:+.2f} % against {name}"
            for name, gain in self.gain.items()
            if name in RIVALS and not gain >= 0
        ]
        return missed + [
            f"{where}: dominates {100 * self.dominates[name]:.0f} % against {name}, reverse {100 * reverse:.0f} %"
            for name, reverse in self.dominated.items()
            if name in RIVALS and not self.dominates[name] > reverse
        ]


def savings(ours: FloatArray, theirs: FloatArray) -> Savings:
    """What ours saves against theirs at equal accuracy.

    At the accuracy of each point of their front that ours reaches, too, the cheapest of ours that is at least as
    accurate is compared with it.

    Args:
        ours, theirs: (q, 2) loss and cost.
    """
    front = theirs[front_indices(theirs)]
    reached = front[front[:, 0] >= ours[:, 0].min()]
    if not len(reached):
        return Savings(*[float("nan")] * 3, 0.0)
    cheapest = np.array([ours[ours[:, 0] <= loss, 1].min() for loss in reached[:, 0]])
    saved = 1.0 - cheapest / reached[:, 1]
    best = int(np.argmin(reached[:, 0]))
    return Savings(float(saved[best]), float(np.median(saved)), float(saved.max()), len(reached) / len(front))


def _median_savings(found: Sequence[Savings]) -> Savings:
    # A front that reaches none of the other's accuracies saves nothing that could be said.
    rows = np.array([(one.at_best, one.median, one.most, one.reached) for one in found])
    known = rows[~np.isnan(rows).any(axis=1)]
    return Savings(*(float(v) for v in np.median(known if len(known) else rows, axis=0)))


def summarise(fronts: Sequence[Fronts]) -> Comparison:
    """Fronts of one setting and goal, one per seed."""
    goal = fronts[0].job.goal
    columns = replace(SearchSettings(), **GOALS[goal]).make_objective().columns(has_energy=True)
    pooled = np.concatenate([points for found in fronts for points in found.points.values()])
    reference = HypervolumeReference.from_front(pooled, columns)
    volumes = {
        name: np.array([reference.hypervolume(found.points[name]) for found in fronts])
        for name in fronts[0].points
    }
    others = [name for name in volumes if name != JOINT]

    def median(figure: object) -> float:
        return float(np.median(np.asarray(figure)))

    def over_seeds(name: str, reverse: bool) -> float:
        pairs = [(found.points[JOINT], found.points[name]) for found in fronts]
        return median([ratio_of_dominance(b, a) if reverse else ratio_of_dominance(a, b) for a, b in pairs])

    return Comparison(
        setting=fronts[0].job.setting,
        goal=goal,
        hypervolume={name: median(values) for name, values in volumes.items()},
        gain={name: median(volumes[JOINT] / volumes[name]) - 1.0 for name in others},
        dominates={name: over_seeds(name, False) for name in others},
        dominated={name: over_seeds(name, True) for name in others},
        saved={
            name: _median_savings([savings(found.points[JOINT], found.points[name]) for found in fronts])
            for name in others
        },
    )
