"""Designs as the command line names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..spaces import Backbone, MBConvSpace

if TYPE_CHECKING:
    from ..search.designs import Design
    from .loop import Study

LEAST_PREFIX = 4
"""Digits of a hash that are needed at least to name a backbone."""


def designs_by_name(study: Study, networks: str, exits: str, clocks: str) -> list[Design]:
    """Designs as the command line names them.

    Args:
        networks: presets, ``smallest``, ``largest``, or arch_ids of presets and measured backbones or unique
            beginnings of their hashes, with commas between.
        exits, clocks: see :mod:`hadas.measurement.hardware.named`; one setting.

    Raises:
        ConfigError: an unknown name, one that names several backbones, a backbone that is named twice, or more
            settings than one.
        SpaceError, OffTableFrequencyError: exits or clocks that there are not.
    """
    from ..measurement.hardware.named import named_exits, named_setting
    from ..search.designs import Design

    space = study.parts.space
    setting = named_setting(clocks, study.parts.table)
    rows = study.findings.cost_records(study.findings.n_measured_rounds)
    measured = list(dict.fromkeys(row.backbone for row in rows))
    backbones: dict[Backbone, str] = {}
    words = [word.strip() for word in networks.split(",")]
    if not any(words):
        raise ConfigError(f"--networks {networks!r}: names nothing")
    for word in filter(None, words):
        for name, backbone in _named(word, space, measured).items():
            if backbone in backbones:
                raise ConfigError(
                    f"--networks: '{name}' and '{backbones[backbone]}' name the same network; drop one"
                    if name != backbones[backbone]
                    else f"--networks: names '{name}' twice; drop one"
                )
            backbones[backbone] = name
    return [Design(backbone, named_exits(exits, space, backbone), setting) for backbone in backbones]


def _named(word: str, space: MBConvSpace, measured: list[Backbone]) -> Mapping[str, Backbone]:
    """Backbones that one word names."""
    from ..measurement.hardware.named import known_networks, named_backbones

    if word == "presets" or word in known_networks(space):
        return dict(named_backbones(word, space))
    known = {backbone.arch_id: backbone for backbone in (*space.presets.values(), *measured)}
    digits = word.removeprefix(f"{space.name}-")
    found = [arch_id for arch_id in known if arch_id.rpartition("-")[2].startswith(digits)]
    if len(digits) >= LEAST_PREFIX and len(found) == 1:
        return {word: known[found[0]]}
    if len(digits) >= LEAST_PREFIX and found:
        raise ConfigError(f"--networks {word}: {', '.join(sorted(found))} begin like this; write more digits")
    hashes = sorted(backbone.arch_id.rpartition("-")[2][:6] for backbone in measured)
    listed = f"; measured backbones: {', '.join(hashes)}" if hashes else ""
    if digits != word:
        raise ConfigError(
            f"--networks {word}: neither a preset nor a measured backbone has this arch_id, and a hash does not "
            f"tell the genes; write its genes in a file (--design){listed}"
        )
    try:
        return dict(named_backbones(word, space))
    except ConfigError as error:
        raise ConfigError(f"{error}{listed}") from error
