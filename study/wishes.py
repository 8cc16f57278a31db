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

from ..errors import ConfigError, HadasError
from ..spaces import Backbone, ClockTable, Exits, MBConvSpace, genome_from_values
from ..spaces.dvfs import unit_hint
from ..spaces.userfile import read_user_text
from .fields import parse_yaml

if TYPE_CHECKING:
    from ..search.designs import Design

_FIELDS = {"preset", "genes", "exits", "clocks_hz"}


def read_designs(path: Path, space: MBConvSpace, table: ClockTable) -> list[Design]:
    """Read and check designs.

    Raises:
        ConfigError: missing, empty or unreadable file, bad YAML, a bad field or a repeated design; names the
            file and the entry.
        SpaceError, OffTableFrequencyError: with file and entry in front.
    """
    what = f"design file {path}"
    document = parse_yaml(read_user_text(path, "design file"), what)
    entries = document if isinstance(document, list) else [document]
    if document is None or not entries:
        raise ConfigError(f"{what}: lists no design; examples/designs.yaml shows how one is written")
    designs: list[Design] = []
    for i, entry in enumerate(entries):
        try:
            design = _read_entry(entry, space, table)
        except HadasError as error:
            # The type stays; only the place is added.  These errors carry their text as sole argument.
            error.args = (f"{what}, entry {i}: {error}",)
            raise
        if design in designs:
            raise ConfigError(
                f"{what}, entry {i}: the same design as entry {designs.index(design)}; remove one"
            )
        designs.append(design)
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
        if not isinstance(entry["preset"], str) or entry["preset"] not in space.presets:
            raise ConfigError(
                f"'preset' = {entry['preset']!r}: space '{space.name}' names {sorted(space.presets)}"
            )
        return space.presets[entry["preset"]]
    if not isinstance(entry["genes"], dict):
        raise ConfigError("'genes' must map gene names to values")
    for name, value in entry["genes"].items():
        if type(value) is not int:
            raise ConfigError(f"gene '{name}' = {value!r}: must be an integer")
    return space.decode(genome_from_values(space, entry["genes"]))


def _clocks(clocks: Any, table: ClockTable) -> dict[str, int]:
    names = [domain.name for domain in table.domains]
    if not isinstance(clocks, dict) or set(clocks) != set(names):
        raise ConfigError(f"'clocks_hz' must give {names}, each an integer in Hz; got {clocks!r}")
    for name, hz in clocks.items():
        if type(hz) is not int:
            raise ConfigError(f"'clocks_hz.{name}' = {hz!r}: must be an integer in Hz")
        if hint := unit_hint(hz):
            raise ConfigError(f"'clocks_hz.{name}' = {hz}: {hint}")
    return clocks
