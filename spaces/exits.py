"""Exits: where on a backbone classifiers stand, and of which type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from ..errors import SpaceError


@dataclass(frozen=True, slots=True)
class Exits:
    """A choice of exits on one backbone.

    Attributes:
        first_exit: block index of the first exit position.
        types: one entry per exit position (``first_exit`` .. L-1): 0 = no exit, 1..H = head type.
    """

    first_exit: int
    types: tuple[int, ...]

    @classmethod
    def at(cls, positions: Iterable[int], *, first_exit: int, n_blocks: int, head_type: int = 1) -> Self:
        """Exits of one type at the given block indices.

        Raises:
            SpaceError: a position outside ``first_exit`` .. ``n_blocks - 1``.
        """
        types = [0] * (n_blocks - first_exit)
        for position in positions:
            if not first_exit <= position < n_blocks:
                raise SpaceError(
                    f"exit position {position} is not on this backbone: exits stand after blocks "
                    f"{first_exit}..{n_blocks - 1} (0-based)"
                )
            types[position - first_exit] = head_type
        return cls(first_exit, tuple(types))

    @classmethod
    def everywhere(cls, *, first_exit: int, n_blocks: int) -> Self:
        """An exit of type 1 at every position."""
        return cls(first_exit, (1,) * (n_blocks - first_exit))

    @property
    def positions(self) -> tuple[int, ...]:
        """Block indices of the exits in use, ascending."""
        return tuple(self.first_exit + p for p, head in enumerate(self.types) if head)

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """(position, type) of the exits in use, as cost records keep them."""
        return tuple((self.first_exit + p, head) for p, head in enumerate(self.types) if head)

    def __str__(self) -> str:
        return "+".join(str(p) for p in self.positions) or "none"


def exits_from_heads(heads: Sequence[tuple[int, int]], *, first_exit: int, n_blocks: int) -> Exits:
    """The inverse of :attr:`Exits.heads`."""
    types = [0] * (n_blocks - first_exit)
    for position, head in heads:
        if not first_exit <= position < n_blocks:
            raise SpaceError(f"exit position {position} is outside {first_exit}..{n_blocks - 1}")
        types[position - first_exit] = head
    return Exits(first_exit, tuple(types))
