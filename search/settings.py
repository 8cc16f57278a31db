"""What a nested search may spend and what it is after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from ..errors import ConfigError
from .constraints import NO_CONSTRAINTS, Constraints
from .ensemble import Statistic
from .inner import ArrayNSGA2, Hybrid, InnerEngine, PymooNSGA2
from .objective_names import objective_by_name
from .objectives import Dissimilarity, Objective, Ratio

InnerEngineName = Literal["array", "pymoo"]
INNER_ENGINES: dict[InnerEngineName, type[ArrayNSGA2] | type[PymooNSGA2]] = {
    "array": ArrayNSGA2, "pymoo": PymooNSGA2,
}  # fmt: skip

STATISTICS: tuple[Statistic, ...] = get_args(Statistic)


@dataclass(frozen=True)
class SearchSettings:
    """Budget and goal of a nested search.

    Attributes:
        population: genomes per generation.
        generations: including the first, random one.
        survivors: backbones per generation that the first selection hands to the inner engine.
        inner_population, inner_generations: inner NSGA-II budget per backbone.
        inner_engine: implementation of the inner NSGA-II: ``array`` (all backbones in lockstep) or
            ``pymoo`` (one run per backbone; slower).
        exact_limit: a backbone with at most this many (exits, setting) choices (and at most 16 exit
            positions) is enumerated exhaustively instead; 0 = never.
        objective: ``expected``, ``hadas-2d``, ``hadas-eq6`` or ``hadas-code``.
        with_latency: minimise expected latency besides expected energy (``expected`` only).
        gamma: exponent of dissim (``hadas-2d`` and ``hadas-eq6`` only).
        ratio: how costs enter ``hadas-eq6``: ``gain``, ``inverse`` or ``literal``.
        dissimilarity: how dissim is had from outcomes, ``marginal`` or ``joint`` (the same two as gamma).
        constraints: what designs have to meet, under the controller.
        stagnation: stop after so many generations without a gain in hypervolume; 0 = never.
        statistic: search the predictive means, or a quantile of each objective over joint draws.
        quantile: that quantile; above 0.5 is cautious, as all objectives are minimised.
        draws: joint draws that a quantile is taken over.
    """

    population: int = 64
    generations: int = 7
    survivors: int = 10
    inner_population: int = 10
    inner_generations: int = 5
    inner_engine: InnerEngineName = "array"
    exact_limit: int = 0
    objective: str = "expected"
    with_latency: bool = False
    gamma: float = 1.0
    ratio: Ratio = "gain"
    dissimilarity: Dissimilarity = "marginal"
    constraints: Constraints = NO_CONSTRAINTS
    stagnation: int = 0
    statistic: Statistic = "mean"
    quantile: float = 0.8
    draws: int = 16

    def __post_init__(self) -> None:
        for name in (
            "population",
            "generations",
            "survivors",
            "inner_population",
            "inner_generations",
            "draws",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"search setting '{name}' = {getattr(self, name)}: must be at least 1")
        if self.survivors > self.population:
            raise ConfigError(
                f"search setting 'survivors' = {self.survivors}: at most the population, {self.population}"
            )
        if self.inner_engine not in INNER_ENGINES:
            raise ConfigError(
                f"search setting 'inner_engine' = {self.inner_engine!r}: known are {sorted(INNER_ENGINES)}"
            )
        if self.stagnation < 0:
            raise ConfigError(f"search setting 'stagnation' = {self.stagnation}: must not be negative")
        if self.statistic not in STATISTICS:
            raise ConfigError(
                f"search setting 'statistic' = {self.statistic!r}: known are {sorted(STATISTICS)}"
            )
        if not 0.0 < self.quantile < 1.0:
            raise ConfigError(f"search setting 'quantile' = {self.quantile}: must be between 0 and 1")
        self.make_objective()

    def make_objective(self) -> Objective:
        """The objective that the settings name."""
        return objective_by_name(
            self.objective, with_latency=self.with_latency, gamma=self.gamma, ratio=self.ratio,
            dissimilarity=self.dissimilarity,
        )  # fmt: skip

    def make_inner(self) -> InnerEngine:
        """The inner engine that the settings describe."""
        engine = INNER_ENGINES[self.inner_engine]
        return Hybrid(self.exact_limit, engine(self.inner_population, self.inner_generations))


SEARCH_PRESETS: dict[str, SearchSettings] = {
    "paper": SearchSettings(),
    "thorough": SearchSettings(inner_population=70, inner_generations=50),
    "demo": SearchSettings(population=64, generations=20, survivors=16, exact_limit=5_000_000),
    "smoke": SearchSettings(
        population=12, generations=2, survivors=3, inner_population=8, inner_generations=3
    ),
}
"""``paper``: 64 x 7 genomes, 10 survivors a generation, 10 x 5 inner evaluations each (reads the
paper's 450 and 3500 evaluations as totals: an inference).  ``thorough``: 3500 inner evaluations
per surviving backbone, the other reading.  ``demo``: exhaustive inside.  ``smoke``: for tests."""


def search_settings(preset: str, overrides: Mapping[str, Any] | None = None) -> SearchSettings:
    """A preset with some fields replaced.

    Args:
        overrides: values by field; ``constraints`` as :class:`Constraints` or as a mapping of its fields.

    Raises:
        ConfigError: no such preset, field, or value.
    """
    if preset not in SEARCH_PRESETS:
        raise ConfigError(f"no search preset '{preset}'; known: {sorted(SEARCH_PRESETS)}")
    types = {field.name: type(field.default) for field in fields(SearchSettings)}
    checked: dict[str, Any] = {}
    for name, value in (overrides or {}).items():
        if name not in types:
            raise ConfigError(f"search setting '{name}' does not exist; known: {sorted(types)}")
        wanted = types[name]
        if wanted is float and type(value) is int:
            value = float(value)
        if wanted is Constraints and isinstance(value, Mapping):
            value = constraints_of(value)
        if type(value) is not wanted:
            raise ConfigError(f"search setting '{name}' = {value!r}: must be of type {wanted.__name__}")
        checked[name] = value
    return replace(SEARCH_PRESETS[preset], **checked)


def constraints_of(document: Mapping[str, Any]) -> Constraints:
    """Constraints from a mapping of their fields, as a study file has them.

    Raises:
        ConfigError: no such constraint, or no number.
    """
    known = [field.name for field in fields(Constraints)]
    for name, value in document.items():
        if name not in known:
            raise ConfigError(f"constraint '{name}' does not exist; known: {sorted(known)}")
        if value is not None and (
            type(value) not in (int, float) or (name == "max_exits" and type(value) is not int)
        ):
            kind = "a whole number" if name == "max_exits" else "a number"
            raise ConfigError(f"constraint '{name}' = {value!r}: must be {kind}")
    return Constraints(**document)
