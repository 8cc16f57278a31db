"""The predicted front of the latest search: how sure its members are, and what clocks per exit would add.

Journal keys, labelled as searches are: ``confidence:r``, the probability of each member of ``search:r`` to be
non-dominated, and ``outlook:r``, what joint draws say of each member under the controller, whatever was searched for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import numpy as np

from ..errors import ConfigError
from ..spaces import Exits, Setting, SwitchingCost
from .assembly import ProgressCallback

if TYPE_CHECKING:
    from ..search.designs import Design
    from ..search.outer import SearchResult
    from ..search.report import PredictedRow
    from ..surrogates.predictor_set import PredictorDraws
    from .findings import FloatArray
    from .loop import Study

N_RIVALS = 200
"""Designs off the front, at most, that may turn out to dominate its members."""

_PROHIBITIVE = SwitchingCost(1e12, 1e12)


@dataclass(frozen=True)
class FrontOutlook:
    """What joint draws say of the members of the predicted front under the controller, in the order of the front.

    A search looks at what the predictors hold for each stage; draws are of whole designs, and corrected by what
    the study has learned of its predictions, as those that suggestions are weighed with.

    Attributes:
        accuracy, energy_mj, latency_ms: medians over the draws; of energy ``None`` where none is counted.
        probability_feasible: share of the draws in which a member meets the constraints; ``None`` without any.
    """

    accuracy: list[float]
    energy_mj: list[float] | None
    latency_ms: list[float]
    probability_feasible: list[float] | None

    @classmethod
    def of(cls, study: Study, progress: ProgressCallback) -> Self:
        """Of the latest search; worked out once and journalled."""
        key = f"outlook:{_label(study)}"
        event = study.findings.event(key)
        if event is None:
            event = asdict(cls._drawn(study, study.search(progress), progress))
            study.journal(key, event)
        return cls(**event)

    @classmethod
    def _drawn(cls, study: Study, found: SearchResult, progress: ProgressCallback) -> Self:
        worlds, constraints = study.worlds(progress), study.findings.constraints
        designs = [candidate.design for candidate in found.front]
        drawn = worlds.design_draws(designs, _draws(study, progress))
        n_exits = np.array([float(len(design.exits.positions)) for design in designs])
        misses = constraints.violation(1.0 - drawn.error, drawn.energy_mj, drawn.latency_ms, n_exits)
        counted = not np.isnan(drawn.energy_mj).any()
        return cls(
            accuracy=np.median(1.0 - drawn.error, axis=0).tolist(),
            energy_mj=np.median(drawn.energy_mj, axis=0).tolist() if counted else None,
            latency_ms=np.median(drawn.latency_ms, axis=0).tolist(),
            probability_feasible=(misses == 0.0).mean(axis=0).tolist() if constraints.any else None,
        )


def front_confidence(study: Study, progress: ProgressCallback) -> list[float] | None:
    """Probability of each member of the predicted front to be non-dominated, worked out once and journalled.

    Every joint draw of the predictors is a plausible world: counted are those in which a member meets the
    constraints and neither another member nor one of the best designs beside the front dominates it.

    Returns:
        In the order of the front; ``None`` for a search that did not look at expected accuracy and costs.
    """
    key = _confidence_key(study)
    if study.findings.event(key) is None:
        found = study.search(progress)
        if [column.name for column in found.columns] != [column.name for column in study.findings.columns]:
            return None
        study.journal(key, {"probabilities": _confidence(study, found, progress)})
    return journalled_confidence(study)


def journalled_confidence(study: Study) -> list[float] | None:
    """What :func:`front_confidence` found, without any work; ``None`` if it was never asked."""
    event = study.findings.event(_confidence_key(study))
    return None if event is None else list(event["probabilities"])


def predicted_rows(study: Study) -> list[PredictedRow]:
    """The predicted front, if its confidence was worked out; a report never fits or searches."""
    from ..search.report import PredictedRow

    chances = journalled_confidence(study)
    if chances is None:
        return []
    found = study.search()
    names = [column.name for column in found.columns]
    rows = []
    for candidate, chance in zip(found.front, chances, strict=True):
        values, design = dict(zip(names, candidate.objectives, strict=True)), candidate.design
        rows.append(
            PredictedRow(
                name=study.findings.name(design.backbone),
                arch_id=design.backbone.arch_id,
                exits=design.exits.positions,
                setting=design.setting,
                accuracy=1.0 - values["error"],
                energy_mj=values.get("energy_mj"),
                latency_ms=values.get("latency_ms"),
                probability_non_dominated=chance,
            )
        )
    return rows


def _confidence_key(study: Study) -> str:
    return f"confidence:{_label(study)}"


def _label(study: Study) -> str:
    return study.findings.search_label(study.latest_round())


def _draws(study: Study, progress: ProgressCallback) -> PredictorDraws:
    n, seed = study.config.learning.draws, study.seed_for(12, study.latest_round())
    return study.worlds(progress).predictors.draws(n, seed)


def _confidence(study: Study, found: SearchResult, progress: ProgressCallback) -> list[float]:
    from ..search.acquisition import candidate_pool
    from ..search.front_confidence import probability_non_dominated

    draws = _draws(study, progress)
    front = [candidate.design for candidate in found.front]
    rivals = candidate_pool([found], exclude=set(front), limit=N_RIVALS)
    chances = probability_non_dominated(
        _drawn(study, front, draws), _drawn(study, rivals, draws) if rivals else None
    )
    return [float(chance) for chance in chances]


def _drawn(study: Study, designs: tuple[Design, ...] | list[Design], draws: PredictorDraws) -> FloatArray:
    """(s, n, m) objectives; beyond all others where a design misses a constraint."""
    from .suggesting import drawn_objectives

    objectives, feasible = drawn_objectives(study, designs, draws)
    return objectives if feasible is None else np.where(feasible[:, :, None], objectives, np.inf)


@dataclass(frozen=True)
class ExitClockMember:
    """A member of the front with clocks per exit.

    Attributes:
        design: backbone and exits; its setting is the first stretch's.
        stretches: setting of each stretch, the last one up to the final classifier.
        objectives: minimised, changes of clocks paid.
    """

    design: Design
    stretches: tuple[Setting, ...]
    objectives: tuple[float, ...]

    @property
    def n_changes(self) -> int:
        """Changes of clocks on the way to the end."""
        return sum(a != b for a, b in pairwise(self.stretches))


@dataclass(frozen=True)
class ExitClockComparison:
    """Clocks per exit on the backbones of the predicted front.

    Attributes:
        members: the front with a setting for each stretch between exits, most accurate last.
        single_members: the front with one setting per design, from the same backbones and the same choices of exits;
            more of them than the search of the study looks at.
        switching: what a change of clocks costs.
        hypervolume, single_hypervolume: with clocks per exit, and with one setting per design, on the same backbones.
    """

    members: tuple[ExitClockMember, ...]
    single_members: tuple[ExitClockMember, ...]
    switching: SwitchingCost
    hypervolume: float
    single_hypervolume: float


def exit_clock_front(
    study: Study, progress: ProgressCallback, switching: SwitchingCost | None = None
) -> ExitClockComparison:
    """What other clocks after each exit are predicted to bring; nothing is journalled, for studies measure one setting.

    Args:
        switching: what a change of clocks costs; by default as the clock table says.

    Raises:
        ConfigError: the cost of a change is not known, or the search did not look at expected costs.
    """
    switching = switching or switching_cost(study)
    found = study.search(progress)
    members = _exit_clock_members(study, found, switching, progress)
    # The same exits are tried where no change of clocks is worth its cost, so that only the changes make a difference.
    # Changes are left only where no sample goes on, and are none.
    single = [
        replace(member, stretches=(member.stretches[0],) * len(member.stretches))
        for member in _exit_clock_members(study, found, _PROHIBITIVE, progress)
    ]
    volumes = [
        found.reference.hypervolume(np.array([m.objectives for m in some])) for some in (members, single)
    ]
    return ExitClockComparison(_front_of(members), _front_of(single), switching, *volumes)


def _front_of(members: list[ExitClockMember]) -> tuple[ExitClockMember, ...]:
    """The non-dominated of them, most accurate last."""
    from ..search.ranking import front_indices

    chosen = front_indices(np.array([member.objectives for member in members]))
    return tuple(sorted((members[int(i)] for i in chosen), key=lambda member: -member.objectives[0]))


def _exit_clock_members(
    study: Study, found: SearchResult, switching: SwitchingCost, progress: ProgressCallback
) -> list[ExitClockMember]:
    """The fronts with clocks per exit of all backbones of a front that meet the constraints."""
    from ..search.designs import Design
    from ..search.exit_clocks import ClocksPerExit

    settings, first_exit = study.parts.search_settings, study.parts.space.first_exit
    backbones = list(dict.fromkeys(candidate.design.backbone for candidate in found.front))
    world, table = study.worlds(progress).mean, study.parts.table
    fronts = ClocksPerExit(settings.make_inner(), switching).run(
        world.tables(backbones), settings.make_objective(), study.seed_for(4, study.latest_round()),
        settings.constraints,
    )  # fmt: skip
    members = []
    for backbone, front in zip(backbones, fronts, strict=True):
        assert front.per_exit is not None
        own, p = front.per_exit, backbone.n_blocks - first_exit
        for i in np.flatnonzero(own.violation == 0):
            used = own.masks[i, :p]
            ends = [*np.flatnonzero(used).tolist(), own.masks.shape[1]]
            stretches = tuple(table.settings[int(own.settings[i, end])] for end in ends)
            exits = Exits(first_exit, tuple(int(bit) for bit in used))
            values = tuple(float(value) for value in own.objectives[i])
            members.append(ExitClockMember(Design(backbone, exits, stretches[0]), stretches, values))
    return members


def switching_cost(study: Study) -> SwitchingCost:
    """What a change of clocks costs on the study's device.

    Raises:
        ConfigError: neither the clocks file nor the device says it.
    """
    own = study.parts.clock_table_file
    known = study.parts.table.switching or (None if own is None else own.switching)
    if known is None:
        raise ConfigError(
            f"study '{study.config.study}': what a change of clocks costs is not known, and it decides; measure it and "
            'name it with --switching-ms and --switching-mj, or as "switching": {"latency_ms": ..., "energy_mj": ...} '
            "in the file of 'device.clocks'"
        )
    return known
