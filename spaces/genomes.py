"""Genomes of integer choices: what every space that is searched has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..errors import SpaceError

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Variable:
    """One gene: its name and the values it may take, ascending."""

    name: str
    choices: tuple[int, ...]


class Genomes(ABC):
    """A space whose genomes are arrays of *choice indices*, one per variable.

    Args:
        name: of the space; part of the identity of all that it holds.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def variables(self) -> tuple[Variable, ...]:
        """Genes in the order of the genome."""

    @property
    def cardinality(self) -> int:
        """Number of genomes."""
        return prod(len(variable.choices) for variable in self.variables)

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw genomes uniformly.

        Returns:
            (n, n_genes) choice indices.
        """
        upper = np.array([len(v.choices) for v in self.variables])
        return rng.integers(0, upper, size=(n, len(upper)), dtype=np.int64)

    def values(self, genome: IntArray) -> dict[str, int]:
        """What a genome (n_genes,) chooses, by name of the gene.

        Raises:
            SpaceError: wrong length, or an index that a gene does not have.
        """
        if len(genome) != len(self.variables):
            raise SpaceError(f"genome has {len(genome)} genes; space '{self.name}' has {len(self.variables)}")
        values: dict[str, int] = {}
        for variable, index in zip(self.variables, genome, strict=True):
            if not 0 <= int(index) < len(variable.choices):
                raise SpaceError(
                    f"gene '{variable.name}': choice index {int(index)} is not in "
                    f"0..{len(variable.choices) - 1} of space '{self.name}'"
                )
            values[variable.name] = variable.choices[int(index)]
        return values

    def genome(self, values: Mapping[str, int]) -> IntArray:
        """The genome (n_genes,) of values by name of the gene: the inverse of :meth:`values`; others are passed over.

        Raises:
            SpaceError: a value that a gene does not offer.
        """
        return np.array([self._index(v, values[v.name]) for v in self.variables], dtype=np.int64)

    def _index(self, variable: Variable, value: int) -> int:
        if value not in variable.choices:
            raise SpaceError(
                f"gene '{variable.name}' = {value}: space '{self.name}' offers {list(variable.choices)}"
            )
        return variable.choices.index(value)
