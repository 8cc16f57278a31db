"""What a study measures first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..spaces import Backbone, Exits, MBConvSpace
from .assembly import Assembly
from .journal import design_to_json

if TYPE_CHECKING:
    from .loop import Study


def seed_designs(parts: Assembly, seed: int, n_backbones: int | None = None) -> list[dict[str, Any]]:
    """Seed backbones with an exit at every position, at maximum clocks and some random settings each.

    All exits at once show the cost of every stage and head.

    Args:
        n_backbones: by default, as many as configured.
    """
    table, learning = parts.table, parts.config.learning
    rng = np.random.default_rng(seed)
    designs = []
    for backbone in _backbones(parts, rng, n_backbones or learning.seed_backbones):
        exits = Exits.everywhere(first_exit=parts.space.first_exit, n_blocks=backbone.n_blocks)
        n_more = min(learning.seed_settings, len(table)) - 1
        more = [int(i) for i in rng.permutation(len(table) - 1)[:n_more]]
        for setting in (table.default, *(table.settings[i] for i in more)):
            designs.append(design_to_json(backbone, exits, setting))
    return designs


def seed_backbones(parts: Assembly, seed: int) -> list[Backbone]:
    """The backbones of :func:`seed_designs`; they do not depend on the device, which need not be there."""
    return _backbones(parts, np.random.default_rng(seed), parts.config.learning.seed_backbones)


def pilot_backbones(parts: Assembly) -> list[Backbone]:
    """Backbones that are among the seeds however many there are: the ends of the space."""
    return [parts.space.smallest, parts.space.largest]


def _backbones(parts: Assembly, rng: np.random.Generator, n_wanted: int) -> list[Backbone]:
    """Ends of the space, presets, neighbours of the smallest as configured, random backbones.

    The smallest and the largest backbone are trained in every step of a sandwich and bound
    what the predictors are asked; presets and others share the rest evenly.
    """
    space = parts.space
    presets = list(space.presets.values())
    n_presets = min(len(presets), (n_wanted - 1) // 2)
    chosen = np.linspace(0, len(presets) - 1, n_presets).round().astype(int)
    backbones = list(dict.fromkeys([*pilot_backbones(parts), *(presets[i] for i in chosen)]))
    if n_neighbours := parts.config.learning.seed_neighbours:
        others = [own for own in above_the_smallest(space, rng) if own not in backbones]
        backbones += others[: min(n_neighbours, n_wanted - len(backbones))]
    while len(backbones) < n_wanted:
        backbone = space.decode(space.sample(1, rng)[0])
        if backbone not in backbones:
            backbones.append(backbone)
    return backbones


def above_the_smallest(space: MBConvSpace, rng: np.random.Generator) -> list[Backbone]:
    """All backbones that are one choice of one gene above the smallest, in random order.

    The cheap end of the front lies near the smallest, where a model of random backbones says least: of those hardly
    any is so small.
    """
    genomes = space.encode(space.smallest) + np.eye(len(space.variables), dtype=np.int64)
    n_choices = np.array([len(variable.choices) for variable in space.variables])
    inside = genomes[(genomes < n_choices).all(axis=1)]
    return [space.decode(genome) for genome in rng.permutation(inside)]


def lacking_seeds(study: Study) -> str:
    """What keeps the seeds' round from being whole."""
    findings = study.findings
    seeds = [] if findings.event("supernet") is None else study.planned_backbones([0])
    n_known = len(findings.accuracy_records(seeds)) if seeds else 0
    if n_known == 0:
        return "nothing is measured yet"
    return (
        f"accuracies of {n_known} of {len(seeds)} backbones and {len(findings.cost_rows(0))} costs are measured, "
        "and predictors need the whole first round"
    )
