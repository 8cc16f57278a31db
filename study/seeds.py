"""What a study measures first."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..spaces import Backbone, Exits
from .assembly import Assembly
from .journal import design_to_json


def seed_designs(parts: Assembly, seed: int) -> list[dict[str, Any]]:
    """Seed backbones with an exit at every position, at maximum clocks and some random settings each.

    All exits at once show the cost of every stage and head.
    """
    table, learning = parts.table, parts.config.learning
    rng = np.random.default_rng(seed)
    designs = []
    for backbone in _backbones(parts, rng):
        exits = Exits.everywhere(first_exit=parts.space.first_exit, n_blocks=backbone.n_blocks)
        n_more = min(learning.seed_settings, len(table)) - 1
        more = [int(i) for i in rng.permutation(len(table) - 1)[:n_more]]
        for setting in (table.default, *(table.settings[i] for i in more)):
            designs.append(design_to_json(backbone, exits, setting))
    return designs


def seed_backbones(parts: Assembly, seed: int) -> list[Backbone]:
    """The backbones of :func:`seed_designs`; they do not depend on the device, which need not be there."""
    return _backbones(parts, np.random.default_rng(seed))


def _backbones(parts: Assembly, rng: np.random.Generator) -> list[Backbone]:
    """Ends of the space, presets, random backbones.

    The smallest and the largest backbone are trained in every step of a sandwich and bound
    what the predictors are asked; presets and random ones share the rest evenly.
    """
    space, n_wanted = parts.space, parts.config.learning.seed_backbones
    presets = list(space.presets.values())
    n_presets = min(len(presets), (n_wanted - 1) // 2)
    chosen = np.linspace(0, len(presets) - 1, n_presets).round().astype(int)
    backbones = list(dict.fromkeys([space.smallest, space.largest, *(presets[i] for i in chosen)]))
    while len(backbones) < n_wanted:
        backbone = space.decode(space.sample(1, rng)[0])
        if backbone not in backbones:
            backbones.append(backbone)
    return backbones
