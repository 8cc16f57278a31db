"""Designs that a user asks for, read from a YAML file.

One entry per design:

    - preset: m2                       # or  genes: {resolution: 16, width.stem: 8, ...}
      exits: [5, 8]                    # block indices; [] = none
      clocks_hz: {gpu: 854250000, emc: 1600000000}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import ConfigError, HadasError
from ..spaces import Backbone, ClockTable, Exits, MBConvSpace, genome_from_values

if TYPE_CHECKING:
    from ..search.designs import Design

_FIELDS = {"preset", "genes", "exits", "clocks_hz"}


def read_designs(path: Path, space: MBConvSpace, table: ClockTable) -> list[Design]:
    """Read and check designs.

    Raises:
        ConfigError: missing file, bad YAML, or a bad field; names the file and the entry.
        SpaceError, OffTableFrequencyError: with file and entry in front.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"design file {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"design file {path}: not YAML ({error})") from error
    entries = document if isinstance(document, list) else [document]
    designs = []
    for i, entry in enumerate(entries):
        try:
            designs.append(_read_entry(entry, space, table))
        except HadasError as error:
            # The type stays; only the place is added.  These errors carry their text as sole argument.
            error.args = (f"design file {path}, entry {i}: {error}",)
            raise
    return designs


def _read_entry(entry: Any, space: MBConvSpace, table: ClockTable) -> Design:
    from ..search.designs import Design

    if not isinstance(entry, dict) or not {"exits", "clocks_hz"} <= set(entry) <= _FIELDS:
        raise ConfigError("needs 'preset' or 'genes', 'exits' and 'clocks_hz', and nothing else")
    backbone = _backbone(entry, space)
    positions = entry["exits"]
    if not isinstance(positions, list) or not all(type(p) is int for p in positions):
        raise ConfigError(f"'exits' = {positions!r}: must be a list of block indices")
    exits = Exits.at(positions, first_exit=space.first_exit, n_blocks=backbone.n_blocks)
    return Design(backbone, exits, table.setting(**_clocks(entry["clocks_hz"], table)))


def _backbone(entry: Mapping[str, Any], space: MBConvSpace) -> Backbone:
    if ("preset" in entry) == ("genes" in entry):
        raise ConfigError("needs exactly one of 'preset' and 'genes'")
    if "preset" in entry:
        if entry["preset"] not in space.presets:
            raise ConfigError(
                f"'preset' = {entry['preset']!r}: space '{space.name}' names {sorted(space.presets)}"
            )
        return space.presets[entry["preset"]]
    if not isinstance(entry["genes"], dict):
        raise ConfigError("'genes' must map gene names to values")
    return space.decode(genome_from_values(space, entry["genes"]))


def _clocks(clocks: Any, table: ClockTable) -> dict[str, int]:
    names = [domain.name for domain in table.domains]
    if not isinstance(clocks, dict) or set(clocks) != set(names):
        raise ConfigError(f"'clocks_hz' must give {names}, each an integer in Hz")
    return clocks
