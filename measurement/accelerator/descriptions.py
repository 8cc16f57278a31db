"""Descriptions of cores as zigzag-dse reads them, at the bits a layer asks for.

The packaged register files hold 8-bit words and wider partial sums: no operand of more bits fits.  For those, a
description is derived whose registers hold *as many words* as at 8 bits: their sizes, the widths of their ports, and
the energy of an access grow with the bits of the widest operand they hold.  A register file is a memory that does not
serve the whole array; caches and off-chip memory stay as described.  The energy of a multiply-accumulate is the
description's at all bits.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ...errors import AcceleratorError
from .cores import CoreStyle
from .signatures import accumulator_bits

_DESCRIBED_BITS = 8
_INSTALL = "install hadas with the extra 'edge': pip install 'hadas[edge]'"
_PROPOSED = [{"name": "default", "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"}}]


@dataclass(frozen=True, slots=True)
class CoreDescription:
    """A core as zigzag reads it.

    Attributes:
        hardware, mapping: YAML texts.
        zigzag_version: of the installed package, whose cost model answers.
    """

    hardware: str
    mapping: str
    zigzag_version: str

    @property
    def digest(self) -> str:
        """Of both texts."""
        return hashlib.sha256(f"{self.hardware}\0{self.mapping}".encode()).hexdigest()[:16]


def zigzag_version() -> str | None:
    """Version of the installed zigzag-dse, or ``None`` without it."""
    if importlib.util.find_spec("zigzag") is None:
        return None
    try:
        return importlib.metadata.version("zigzag-dse")
    except importlib.metadata.PackageNotFoundError:
        return None


@lru_cache(maxsize=256)
def describe(style: CoreStyle, weight_bits: int, activation_bits: int) -> CoreDescription:
    """The description of a core for layers of the given bits.

    Raises:
        AcceleratorError: zigzag-dse is not installed, or its description or the user's cannot be read.
    """
    version = zigzag_version()
    if version is None:
        raise AcceleratorError(f"core '{style.name}': its costs are computed by zigzag-dse; {_INSTALL}")
    hardware = _read(style.hardware, "hardware", version)
    if max(weight_bits, activation_bits) > _DESCRIBED_BITS:
        _widen_registers(hardware, style, weight_bits, activation_bits)
    mapping = _read(style.mapping, "mapping", version) if style.mapping else _PROPOSED
    return CoreDescription(_dump(hardware), _dump(mapping), version)


def _read(named: str, section: str, version: str) -> Any:
    """Content of a packaged description, or of a user's own file."""
    own = named.endswith((".yaml", ".yml"))
    path = Path(named) if own else _package() / "inputs" / section / f"{named}.yaml"
    remedy = "correct the path" if own else f"this is zigzag-dse {version}; {_INSTALL}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AcceleratorError(
            f"{section} description '{named}' cannot be read ({type(error).__name__}); {remedy}"
        ) from error
    wanted = dict if section == "hardware" else list
    if not isinstance(content, wanted) or not content:
        raise AcceleratorError(
            f"{section} description '{named}' is not one of zigzag-dse's ({wanted.__name__} expected); {remedy}"
        )
    return content


def _package() -> Path:
    spec = importlib.util.find_spec("zigzag")
    if spec is None or spec.origin is None:
        raise AcceleratorError(f"zigzag-dse is not installed; {_INSTALL}")
    return Path(spec.origin).parent


def _dump(content: Any) -> str:
    text: str = yaml.safe_dump(content, sort_keys=False)  # zigzag takes memories in the order they are listed
    return text


def _widen_registers(
    hardware: dict[str, Any], style: CoreStyle, weight_bits: int, activation_bits: int
) -> None:
    described = _DESCRIBED_BITS
    factor = {
        "I1": activation_bits / described,
        "I2": weight_bits / described,
        "O": accumulator_bits(activation_bits) / accumulator_bits(described),
    }
    try:
        array = {*hardware["operational_array"]["dimensions"]}
        for memory in hardware["memories"].values():
            if {*memory["served_dimensions"]} == array:
                continue
            wider = max(1.0, *(factor[operand] for operand in memory["operands"]))
            memory["size"] = round(memory["size"] * wider)
            memory["r_cost"] *= wider
            memory["w_cost"] *= wider
            for port in memory["ports"]:
                port["bandwidth_min"] = round(port["bandwidth_min"] * wider)
                port["bandwidth_max"] = round(port["bandwidth_max"] * wider)
    except (KeyError, TypeError, AttributeError) as error:
        raise AcceleratorError(
            f"core '{style.name}': description '{style.hardware}' has no {error}; registers for {activation_bits}-bit "
            f"operands cannot be derived from it. {_INSTALL}"
        ) from error


@dataclass(frozen=True, slots=True)
class OffChipMemory:
    """The memory behind a core, as its description has it.

    Attributes:
        word_bits: moved in one access, which takes a cycle.
        read_pj, write_pj: of one access.
        has_one_port: whether reads and writes exclude each other.
    """

    word_bits: int
    read_pj: float
    write_pj: float
    has_one_port: bool


def off_chip_memory(description: CoreDescription, name: str) -> OffChipMemory:
    """The outermost memory of a description, which is the last one listed.

    Raises:
        AcceleratorError: a description without one.
    """
    try:
        memory = list(yaml.safe_load(description.hardware)["memories"].values())[-1]
        ports = memory["ports"]
        return OffChipMemory(
            word_bits=min(port["bandwidth_max"] for port in ports),
            read_pj=memory["r_cost"],
            write_pj=memory["w_cost"],
            has_one_port=len(ports) == 1,
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise AcceleratorError(
            f"core '{name}': its description lists no memory with ports and costs ({error}); give the off-chip "
            "memory last"
        ) from error
