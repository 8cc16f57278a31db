"""Several opinions about the same backbones: tables of joint draws, and what is made of their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..spaces import Backbone
from .tables import FloatArray, Tables

Statistic = Literal["mean", "quantile"]


@dataclass(frozen=True)
class TablesEnsemble:
    """Tables of the same backbones, settings and positions, one per joint draw.

    An engine evaluates a design on every member through the exact objective, and takes the mean or a quantile
    of each objective over the members.  Objectives are minimised, so a quantile above 0.5 is the cautious side:
    at 0.9 the value that nine of ten draws do not exceed.  Constraints are judged on the same statistic of
    error, energy and latency.

    Attributes:
        members: s tables.
        statistic: ``mean`` or ``quantile``.
        quantile: which one, 0 to 1; of no meaning for ``mean``.
    """

    members: tuple[Tables, ...]
    statistic: Statistic = "mean"
    quantile: float = 0.5

    def __post_init__(self) -> None:
        if not self.members:
            raise ConfigError("an ensemble of tables needs at least one member")
        if self.statistic not in get_args(Statistic):
            raise ConfigError(f"statistic = {self.statistic!r}: known are {list(get_args(Statistic))}")
        if not 0.0 <= self.quantile <= 1.0:
            raise ConfigError(f"quantile = {self.quantile!r}: must lie between 0 and 1")
        first = self.members[0]
        for member in self.members[1:]:
            if member.backbones != first.backbones or member.n_settings != first.n_settings:
                raise ConfigError("members of an ensemble must be tables of the same backbones and settings")
            if member.max_positions != first.max_positions or member.has_energy != first.has_energy:
                raise ConfigError("members of an ensemble must have the same padding, and energy all or none")

    @property
    def backbones(self) -> tuple[Backbone, ...]:
        """The k backbones."""
        return self.members[0].backbones

    @property
    def n_positions(self) -> NDArray[np.int64]:
        """(k,) exit positions of each."""
        return self.members[0].n_positions

    @property
    def n_settings(self) -> int:
        """F."""
        return self.members[0].n_settings

    @property
    def max_positions(self) -> int:
        """P."""
        return self.members[0].max_positions

    @property
    def default_setting(self) -> int:
        """Index of the default setting."""
        return self.members[0].default_setting

    @property
    def has_energy(self) -> bool:
        """Whether the device counts energy."""
        return self.members[0].has_energy

    def take(self, indices: Sequence[int]) -> Self:
        """The ensemble of some of the backbones."""
        return replace(self, members=tuple(member.take(indices) for member in self.members))

    def summarised(self, values: Sequence[FloatArray]) -> FloatArray:
        """The statistic over members of their values, all of one shape."""
        if len(values) == 1:
            return values[0]
        stacked = np.stack(np.broadcast_arrays(*values))
        if self.statistic == "mean":
            # Along the first axis numpy adds member by member, in any number of threads.
            return np.asarray(stacked.mean(axis=0))
        return np.asarray(np.quantile(stacked, self.quantile, axis=0))


AnyTables = Tables | TablesEnsemble


def members_of(tables: AnyTables) -> tuple[Tables, ...]:
    """The members of an ensemble; tables are their own only member."""
    return tables.members if isinstance(tables, TablesEnsemble) else (tables,)


def summarised(tables: AnyTables, values: Sequence[FloatArray]) -> FloatArray:
    """What the tables make of one value per member."""
    return tables.summarised(values) if isinstance(tables, TablesEnsemble) else values[0]
