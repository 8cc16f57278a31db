"""The predicted front of the latest search: how sure its members are, and what clocks per exit would add.

Journal key ``confidence:r`` (labelled as searches are): per member of ``search:r``, the probability that it is
non-dominated.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError
from ..spaces import Setting, SwitchingCost
from .assembly import ProgressCallback

if TYPE_CHECKING:
    from ..search.designs import Design
    from ..search.outer import SearchResult
    from ..surrogates.predictor_set import PredictorDraws
    from .findings import FloatArray
    from .loop import Study

N_RIVALS = 200
"""Designs off the front, at most, that may turn out to dominate its members."""


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


def _confidence_key(study: Study) -> str:
    return f"confidence:{study.findings.fit_label(study.latest_round())}"


def _confidence(study: Study, found: SearchResult, progress: ProgressCallback) -> list[float]:
    from ..search.acquisition import candidate_pool
    from ..search.front_confidence import probability_non_dominated

    worlds = study.worlds(progress)
    draws = worlds.predictors.draws(study.config.learning.draws, study.seed_for(12, study.latest_round()))
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
        switching: what a change of clocks costs.
        hypervolume, single_hypervolume: with clocks per exit, and with one setting per design, on the same backbones.
    """

    members: tuple[ExitClockMember, ...]
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
    from ..search.designs import Design
    from ..search.exit_clocks import ClocksPerExit
    from ..search.ranking import front_indices
    from ..spaces import Exits

    switching = switching or switching_cost(study)
    settings, found = study.parts.search_settings, study.search(progress)
    backbones = list(dict.fromkeys(candidate.design.backbone for candidate in found.front))
    world, table = study.worlds(progress).mean, study.parts.table
    engine = ClocksPerExit(settings.make_inner(), switching)
    fronts = engine.run(
        world.tables(backbones), settings.make_objective(), study.seed_for(4, study.latest_round()),
        settings.constraints,
    )  # fmt: skip
    single = np.concatenate([front.objectives[front.violation == 0] for front in fronts])
    members = []
    for backbone, front in zip(backbones, fronts, strict=True):
        assert front.per_exit is not None
        per_exit, p = front.per_exit, backbone.n_blocks - study.parts.space.first_exit
        for mask, at, point, miss in zip(
            per_exit.masks, per_exit.settings, per_exit.objectives, per_exit.violation, strict=True
        ):
            if miss > 0:
                continue
            ends = [*np.flatnonzero(mask[:p]).tolist(), mask.size]
            stretches = tuple(table.settings[int(at[end])] for end in ends)
            exits = Exits(study.parts.space.first_exit, tuple(int(bit) for bit in mask[:p]))
            values = tuple(float(value) for value in point)
            members.append(ExitClockMember(Design(backbone, exits, stretches[0]), stretches, values))
    points = np.array([member.objectives for member in members])
    chosen = sorted(
        (members[int(i)] for i in front_indices(points)), key=lambda member: -member.objectives[0]
    )
    reference = found.reference
    return ExitClockComparison(
        tuple(chosen), switching, reference.hypervolume(points), reference.hypervolume(single)
    )


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
