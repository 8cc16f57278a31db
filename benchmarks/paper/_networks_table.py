"""Table III: single networks on the TX2 Pascal GPU, their accuracies measured anew, oracle and controller side by side.

Designs are chosen in the modelled world, as a search must; then every backbone among them is measured (supernet, batch
norm, all exits), thresholds are fitted on the calibration split, and accuracies and shares are those of the test split.
Costs are the simulator's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from _contenders import CONTROLLER, GOALS, JOINT, ORACLE, Fronts
from _paper_world import Accuracies, IdealMapping

from hadas.datasets.records import AccuracyRecord, CostRecord
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.simulation.simulator import simulated_device
from hadas.search.designs import Design, PolicyCost, evaluate_measured
from hadas.search.outer import SearchSettings, front_designs

SETTING = "tx2-pascal-gpu"
N_OURS = 4


@dataclass(frozen=True)
class Chosen:
    """A design that a line of the table is about.

    Attributes:
        name: ``m0``, ``m6``, or ``b1`` and so on for those that the joint search found.
        goal: what its exits and clocks were searched for: under the controller, or under ideal mapping.
        modelled: (error, energy in mJ) of that goal in the modelled world.
    """

    name: str
    goal: str
    design: Design
    modelled: tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line of the table: accuracies measured, energies in mJ on the simulator.

    Attributes:
        alone: accuracy of the backbone's own classifier; with its standard error.
        controller, oracle: accuracy with exits, with standard errors.
        energy_alone_mj: the backbone alone at default clocks.
        exits_mj, exits_and_clocks_mj: expected energy with exits at default and at the chosen clocks, by policy.
    """

    chosen: Chosen
    alone: tuple[float, float]
    accuracy: Mapping[str, tuple[float, float]]
    energy_alone_mj: float
    exits_mj: Mapping[str, float]
    exits_and_clocks_mj: Mapping[str, float]


def preset_designs(
    accuracies: Accuracies, budget: SearchSettings, goal: str, seed: int
) -> dict[str, list[Chosen]]:
    """Exits and clocks for each preset by itself: its front."""
    world = accuracies.world(SETTING)
    presets = accuracies.space.presets
    settings = replace(budget, **GOALS[goal])
    tables = (IdealMapping(world) if goal == ORACLE else world).tables(list(presets.values()))
    fronts = settings.make_inner().run(tables, settings.make_objective(), seed)
    return {
        name: [
            Chosen(name, goal, candidate.design, (candidate.objectives[0], candidate.objectives[1]))
            for candidate in front_designs(accuracies.space, world.clock_table, backbone, front)
        ]
        for (name, backbone), front in zip(presets.items(), fronts, strict=True)
    }


def chosen_presets(accuracies: Accuracies, fronts: Mapping[str, Sequence[Chosen]]) -> list[Chosen]:
    """The smallest and the most accurate preset, as the paper has a0 and a6: each with the cheapest exits and
    clocks that lose no accuracy against its own classifier, or failing that its most accurate."""
    presets = accuracies.space.presets
    own = dict(zip(presets, accuracies.world(SETTING).static(list(presets.values())).accuracy, strict=True))
    found = []
    for name in (next(iter(presets)), list(presets)[-1]):
        kept = [one for one in fronts[name] if one.modelled[0] <= 1.0 - own[name]]
        found.append(
            min(kept, key=lambda one: one.modelled[1])
            if kept
            else min(fronts[name], key=lambda one: one.modelled)
        )
    return found


def chosen_ours(fronts: Fronts, levels: tuple[float, float], n: int = N_OURS) -> list[Chosen]:
    """Up to ``n`` designs of the joint front, the cheapest at accuracies spread evenly between two levels.

    Args:
        levels: errors of the least and the most accurate network that ours stand beside.
    """
    points, designs = fronts.points[JOINT], fronts.designs[JOINT]
    found: dict[int, None] = {}
    for level in np.linspace(min(levels), max(levels), n):
        reaching = np.flatnonzero(points[:, 0] <= level)
        pool = reaching if len(reaching) else np.array([int(np.argmin(points[:, 0]))])
        found[int(pool[np.argmin(points[pool, 1])])] = None
    return [
        Chosen(f"b{i}", fronts.job.goal, designs[row], (float(points[row, 0]), float(points[row, 1])))
        for i, row in enumerate(found, start=1)
    ]


def line(chosen: Chosen, accuracies: Accuracies, record: AccuracyRecord) -> Line:
    """Measure one line."""
    design = chosen.design
    device = simulated_device(SETTING, space=accuracies.space, n_classes=accuracies.n_classes, noise=False)
    default = replace(design, setting=device.clock_table().default)
    requests = tuple(CostRequest(d.backbone, d.exits, d.setting) for d in (default, design))
    costs: list[CostRecord] = list(device.measure(MeasurementPlan("table", requests)))
    at_default, at_chosen = (
        evaluate_measured(d, record, cost, split="test")
        for d, cost in zip((default, design), costs, strict=True)
    )

    def energy_mj(cost: PolicyCost) -> float:
        assert cost.energy_mj is not None
        return cost.energy_mj

    policies = {CONTROLLER: "controller", ORACLE: "oracle"}
    alone = at_default.no_exit
    return Line(
        chosen,
        alone=(alone.accuracy, alone.accuracy_se),
        accuracy={
            name: (getattr(at_chosen, field).accuracy, getattr(at_chosen, field).accuracy_se)
            for name, field in policies.items()
        },
        energy_alone_mj=energy_mj(alone),
        exits_mj={name: energy_mj(getattr(at_default, field)) for name, field in policies.items()},
        exits_and_clocks_mj={name: energy_mj(getattr(at_chosen, field)) for name, field in policies.items()},
    )


def saved_against(lines: Sequence[Line], ours: Line, goal: str) -> float:
    """Share of energy that a network of ours saves against the cheapest of others that is at least as accurate, NaN
    if none is; both as measured under the goal's policy."""
    accuracy = ours.accuracy[goal][0]
    rivals = [other.exits_and_clocks_mj[goal] for other in lines if other.accuracy[goal][0] >= accuracy]
    return 1.0 - ours.exits_and_clocks_mj[goal] / min(rivals) if rivals else float("nan")
