"""The value that stands for one quantized early-exit network: exits, bits and cores.

Imports with the standard library alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..errors import SpaceError

LETTERS = "ABCDEFGHIJK"
"""Names of the mounting points, in order; the last is the final exit."""
N_POINTS = len(LETTERS)
FINAL = N_POINTS - 1
HEAD_TYPES = (1, 2)
"""One fully connected layer, or two."""


@dataclass(frozen=True)
class QuantizedNetwork:
    """One early-exit network, its bits and its mapping.

    Attributes:
        space: name of the space it lies in.
        heads: (11,) by mounting point A..K: 0 = no exit, 1 = one fully connected layer, 2 = two; K is never 0.
        segment_bits: (11,) bits of weights and activations of the blocks of each segment; 32 = floating point.
        head_bits: bits of all heads.
        cores: (12,) index of the core that runs each segment, then of the one that runs the heads.
    """

    space: str
    heads: tuple[int, ...]
    segment_bits: tuple[int, ...]
    head_bits: int
    cores: tuple[int, ...] = (0,) * (N_POINTS + 1)

    def __post_init__(self) -> None:
        for field, values, n in (
            ("heads", self.heads, N_POINTS),
            ("segment_bits", self.segment_bits, N_POINTS),
            ("cores", self.cores, N_POINTS + 1),
        ):
            if len(values) != n:
                raise SpaceError(f"'{field}' has {len(values)} values; a quantized network has {n}")
        for letter, head in zip(LETTERS, self.heads, strict=True):
            if head not in (0, *HEAD_TYPES):
                raise SpaceError(f"head type {head} at {letter}: give 0 (no exit), 1 or 2")
        if not self.heads[FINAL]:
            raise SpaceError("the final exit K has no head: give it type 1 or 2")
        if min(*self.segment_bits, self.head_bits) < 1:
            raise SpaceError(f"bits {self.segment_bits} and {self.head_bits}: give at least 1")
        if min(self.cores) < 0:
            raise SpaceError(f"cores {self.cores}: indices start at 0")

    @property
    def exits(self) -> tuple[int, ...]:
        """Indices of the mounting points in use, ascending, the final one included."""
        return tuple(i for i, head in enumerate(self.heads) if head)

    @property
    def letters(self) -> str:
        """The exits in use, such as ``D,F,I,K``."""
        return ",".join(LETTERS[i] for i in self.exits)

    @cached_property
    def trained_id(self) -> str:
        """What its accuracy depends on: all but the cores."""
        exits = "".join(f"{LETTERS[i]}{self.heads[i]}" for i in self.exits)
        bits = {*self.segment_bits}
        backbone = str(bits.pop()) if len(bits) == 1 else ".".join(map(str, self.segment_bits))
        return f"{self.space}:{exits}:{backbone}+{self.head_bits}"

    @cached_property
    def network_id(self) -> str:
        """Readable, and unique: the exits with their head types, backbone and head bits, and cores but zero."""
        if not any(self.cores):
            return self.trained_id
        return f"{self.trained_id}:c{'.'.join(map(str, self.cores))}"

    def __str__(self) -> str:
        return self.network_id
