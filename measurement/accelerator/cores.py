"""Accelerators: cores of described styles, and the links between them.

A style names a hardware and a mapping description of zigzag-dse; its files are read from the installed package
(or from files of the user's own), never copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...errors import AcceleratorError


@dataclass(frozen=True, slots=True)
class CoreStyle:
    """What a core is: a named pair of descriptions.

    Attributes:
        name: for people and for the table.
        hardware: a description in zigzag's ``inputs/hardware`` by its name, or the path of a ``.yaml`` file.
        mapping: likewise of ``inputs/mapping``; empty = zigzag proposes how loops unroll over the array.  Layers carry
            the names of their operations (``conv``, ``depthwise``, ``linear``), so a file of the user's own may unroll
            each in its own way; the packaged ones have one way for all.
    """

    name: str
    hardware: str
    mapping: str = ""


EDGE_TPU = CoreStyle("edge-tpu", "edge_tpu_like", "edge_tpu_like")
META_PROTOTYPE = CoreStyle("meta-prototype", "meta_prototype", "meta_prototype_like")
EYERISS = CoreStyle("eyeriss", "eyeriss_like")
"""zigzag ships no mapping for this array, so it proposes one for each layer."""
CORE_STYLES: Mapping[str, CoreStyle] = {style.name: style for style in (EDGE_TPU, META_PROTOTYPE, EYERISS)}


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Cores on one chip, each with the same off-chip memory behind it.

    A network runs layer by layer, on one core at a time.

    Attributes:
        name: for people.
        cores: style of each core, by index.
        link_bits_per_cycle: bandwidth between two cores.
        link_pj_per_bit: energy of moving a bit between two cores.
        core_hz: clock, the same for all cores.
        sources: (constant, where its value comes from); ``guess`` marks what no source states.
    """

    name: str
    cores: tuple[CoreStyle, ...]
    link_bits_per_cycle: float
    link_pj_per_bit: float
    core_hz: int
    sources: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.cores:
            raise AcceleratorError(f"accelerator '{self.name}' has no cores: give at least one")
        if len({style.name for style in self.cores}) < len({*self.cores}):
            raise AcceleratorError(
                f"accelerator '{self.name}': core styles that differ need names that differ"
            )
        if not (self.link_bits_per_cycle > 0 and self.link_pj_per_bit >= 0 and self.core_hz > 0):
            raise AcceleratorError(
                f"accelerator '{self.name}': link_bits_per_cycle {self.link_bits_per_cycle}, link_pj_per_bit "
                f"{self.link_pj_per_bit}, core_hz {self.core_hz}: bandwidth and clock must be positive, energy not "
                "negative"
            )


_MESH = (
    "2x2 mesh of the authors' public description (asyms/stream, branch expl-eenn, casestudy/sys_EEMY.yaml)"
)
_GUESS = "guess"


def _quad(name: str, cores: tuple[CoreStyle, ...]) -> Accelerator:
    return Accelerator(
        name,
        cores,
        link_bits_per_cycle=32,
        link_pj_per_bit=0.1,
        core_hz=500_000_000,
        sources=(
            ("link_bits_per_cycle", _MESH),
            ("link_pj_per_bit", f"{_GUESS}; the mesh of that description costs no energy"),
            ("core_hz", f"{_GUESS}; the published costs are in cycles and name no clock"),
        ),
    )


_PRESETS: Mapping[str, Callable[[], Accelerator]] = {
    "quad-edge-tpu": lambda: _quad("quad-edge-tpu", (EDGE_TPU,) * 4),
    "quad-mixed": lambda: _quad("quad-mixed", (EDGE_TPU, EDGE_TPU, META_PROTOTYPE, EYERISS)),
}
ACCELERATORS = tuple(_PRESETS)
"""Names that :func:`edge_accelerator` knows: four equal cores, and three styles on four cores."""


def edge_accelerator(name: str) -> Accelerator:
    """A named accelerator.

    Raises:
        AcceleratorError: no accelerator of that name.
    """
    if name not in _PRESETS:
        raise AcceleratorError(f"no accelerator '{name}'; known: {sorted(_PRESETS)}")
    return _PRESETS[name]()
