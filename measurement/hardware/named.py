"""Networks, exits and clocks as people name them on a command line.

``a0,a3,largest``; ``none``, ``all``, ``even:2``, ``5,8``; ``max``, ``min``, ``all``,
``gpu=854250000 emc=1600000000`` or ``gpu=854.25MHz emc=1.6GHz``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import numpy as np

from ...errors import ConfigError
from ...spaces import Backbone, ClockTable, Exits, MBConvSpace, Setting
from ...spaces.dvfs import HZ, unit_hint
from .device import CostRequest

_CLOCK = re.compile(r"([a-z]\w*)=(\d+(?:\.\d+)?)([kmg]?hz)?", re.ASCII | re.IGNORECASE)


def named_backbones(words: str, space: MBConvSpace) -> tuple[tuple[str, Backbone], ...]:
    """Backbones by name: presets of the space, ``smallest``, ``largest``, or ``presets`` for all of those.

    Raises:
        ConfigError: an unknown name, with the nearest known one.
    """
    known = known_networks(space)
    found: dict[str, Backbone] = {}
    for word in _words(words, "--networks"):
        if word == "presets":
            found |= space.presets
        elif word in known:
            found[word] = known[word]
        else:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(
                f"--networks: space '{space.name}' has no network '{word}'{hint}; it names "
                f"{sorted(known)}, or presets for all of those"
            )
    return tuple(found.items())


def known_networks(space: MBConvSpace) -> dict[str, Backbone]:
    """Every name that stands for one network of a space."""
    return {**space.presets, "smallest": space.smallest, "largest": space.largest}


def named_exits(words: str, space: MBConvSpace, backbone: Backbone) -> Exits:
    """Exits on one backbone: ``none``, ``all``, ``even:N`` evenly spread, or block indices.

    Raises:
        ConfigError: not one of these, or more exits than there are positions.
        SpaceError: a block index where no exit can stand.
    """
    first_exit, n_blocks = space.first_exit, backbone.n_blocks
    if words == "all":
        return Exits.everywhere(first_exit=first_exit, n_blocks=n_blocks)
    if spread := re.fullmatch(r"even:([1-9]\d*)", words):
        n_exits, n_positions = int(spread[1]), n_blocks - first_exit
        if n_exits > n_positions:
            raise ConfigError(f"--exits {words}: {backbone.arch_id} has {n_positions} exit positions")
        # The middles of equal parts, so that one exit stands in the middle.
        places = (np.arange(n_exits) + 0.5) * n_positions / n_exits
        positions = [first_exit + int(place) for place in places]
    elif words == "none":
        positions = []
    elif re.fullmatch(r"\d+(,\d+)*", words):
        positions = [int(word) for word in words.split(",")]
    else:
        raise ConfigError(f"--exits {words!r}: must be none, all, even:N or block indices such as 5,8")
    return Exits.at(positions, first_exit=first_exit, n_blocks=n_blocks)


def named_settings(words: str, table: ClockTable) -> tuple[Setting, ...]:
    """Clock settings: ``max``, ``min``, ``all``, or one by its frequencies, in Hz or with a unit.

    Raises:
        ConfigError: not one of these, domains that are not the table's, or a frequency in another unit.
        OffTableFrequencyError: a frequency that the table does not list.
    """
    return table.settings if words == "all" else (_setting(words, table, "max, min, all"),)


def named_setting(words: str, table: ClockTable) -> Setting:
    """One clock setting: ``max``, ``min``, or its frequencies, in Hz or with a unit.

    Raises:
        ConfigError, OffTableFrequencyError: see :func:`named_settings`.
    """
    if words == "all" and len(table.settings) > 1:
        raise ConfigError("--clocks all: name one setting; for several, write them in a file (--design)")
    return table.default if words == "all" else _setting(words, table, "max, min")


def _setting(words: str, table: ClockTable, names_listed: str) -> Setting:
    if words == "max":
        return table.default
    if words == "min":
        return table.settings[0]
    read = [_CLOCK.fullmatch(word) for word in re.split(r"[\s,]+", words.strip(" ,"))]
    pairs = [(clock[1], round(float(clock[2]) * HZ[(clock[3] or "").lower()])) for clock in read if clock]
    names = [domain.name for domain in table.domains]
    if sorted(name for name, _ in pairs) != sorted(names) or None in read:
        example = " ".join(f"{domain.name}={domain.frequencies_hz[-1]}" for domain in table.domains)
        wanted = f" or a frequency for every clock, in Hz or with its unit, e.g. '{example}'" if names else ""
        raise ConfigError(f"--clocks {words!r}: must be {names_listed}{wanted}")
    for name, hz in pairs:
        if hint := unit_hint(hz):
            raise ConfigError(f"--clocks: {name}={hz}: {hint}")
    return table.setting(**dict(pairs))


def named_requests(
    space: MBConvSpace, table: ClockTable, *, networks: str, exits: str, clocks: str
) -> tuple[CostRequest, ...]:
    """Every named network at every named setting, network by network."""
    settings = named_settings(clocks, table)
    return tuple(
        CostRequest(backbone, named_exits(exits, space, backbone), setting)
        for _, backbone in named_backbones(networks, space)
        for setting in settings
    )


def _words(text: str, option: str) -> Sequence[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ConfigError(f"{option}: names nothing")
    return words
