"""Backbones: weight-shared MBConv networks described by a genome of integer choices.

Two spaces are built from the same macro-architecture (:class:`MBConvSpace`):
:func:`attentivenas_space`, the published AttentiveNAS space of 4.4e11 networks, and
:func:`mini_space`, the same structure scaled to small images and two CPU cores.

A genome is an array of *choice indices*, one per variable; a :class:`Backbone` holds the
chosen *values*.  ``encode`` and ``decode`` translate.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Protocol

import numpy as np

from ..errors import SpaceError
from .genomes import Genomes, IntArray, Variable
from .macro import Backbone, MacroArchitecture, StageChoices
from .mbconv import mbconv_workload
from .workload import Workload


class BackboneSpace(Protocol):
    """What the search, the predictors and the meters need to know of a space of backbones."""

    @property
    def name(self) -> str: ...
    @property
    def variables(self) -> tuple[Variable, ...]: ...
    @property
    def first_exit(self) -> int: ...
    @property
    def max_blocks(self) -> int: ...
    @property
    def presets(self) -> dict[str, Backbone]: ...
    def sample(self, n: int, rng: np.random.Generator) -> IntArray: ...
    def decode(self, genome: IntArray) -> Backbone: ...
    def encode(self, backbone: Backbone) -> IntArray: ...
    def workload(self, backbone: Backbone, *, n_classes: int, dtype_bytes: int = 4) -> Workload: ...


class MBConvSpace(Genomes):
    """All backbones that fit one macro-architecture."""

    def __init__(self, name: str, macro: MacroArchitecture) -> None:
        super().__init__(name)
        self.macro = macro
        self._base: MBConvSpace | None = None
        self._presets: dict[str, Backbone] = {}

    def __repr__(self) -> str:
        return f"MBConvSpace({self.name!r}, {self.cardinality:,} backbones)"

    @property
    def first_exit(self) -> int:
        """0-based block index after which the first exit may stand."""
        return self.macro.first_exit

    @property
    def base(self) -> MBConvSpace:
        """The space of the same choices with its own head width: what supernet weights depend on."""
        return self if self._base is None else self._base

    def with_head_width(self, width: int) -> MBConvSpace:
        """The same choices and presets with exit heads of another width, under a name that says so.

        The name is part of every ``arch_id``, so costs and accuracies of heads of different width
        never mix.  The base's own width gives the base itself.

        Args:
            width: channels of the 3x3 convolution in an exit head.

        Raises:
            SpaceError: a width below 1.
        """
        if width < 1:
            raise SpaceError(f"head width {width} of space '{self.base.name}': must be at least 1 channel")
        base = self.base
        if width == base.macro.head_width:
            return base
        space = MBConvSpace(f"{base.name}-head{width}", replace(base.macro, head_width=width))
        space._base = base
        for name, backbone in base.presets.items():
            space.add_preset(name, replace(backbone, space=space.name))
        return space

    @cached_property
    def max_blocks(self) -> int:
        """Blocks of the deepest backbone."""
        return sum(max(stage.depths) for stage in self.macro.stages)

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """Genes in the order of the genome: resolution, widths, depths, kernels, expansions.

        A stage whose expansion ratio is fixed contributes no expansion gene.
        """
        macro = self.macro
        genes = [Variable("resolution", macro.resolutions), Variable("width.stem", macro.stem_widths)]
        genes += [Variable(f"width.{stage.name}", stage.widths) for stage in macro.stages]
        genes.append(Variable("width.tail", macro.tail_widths))
        genes += [Variable(f"depth.{stage.name}", stage.depths) for stage in macro.stages]
        genes += [Variable(f"kernel.{stage.name}", stage.kernels) for stage in macro.stages]
        genes += [Variable(f"expand.{stage.name}", stage.expands) for stage in self._expanding_stages]
        return tuple(genes)

    @cached_property
    def _expanding_stages(self) -> tuple[StageChoices, ...]:
        return tuple(stage for stage in self.macro.stages if len(stage.expands) > 1)

    @property
    def presets(self) -> dict[str, Backbone]:
        """Named backbones of this space."""
        return dict(self._presets)

    def add_preset(self, name: str, backbone: Backbone) -> None:
        """Name a backbone; it must lie in the space."""
        self.encode(backbone)
        self._presets[name] = backbone

    @property
    def smallest(self) -> Backbone:
        """Every gene at its first choice."""
        return self.decode(np.zeros(len(self.variables), dtype=np.int64))

    @property
    def largest(self) -> Backbone:
        """Every gene at its last choice."""
        return self.decode(np.array([len(v.choices) - 1 for v in self.variables], dtype=np.int64))

    def decode(self, genome: IntArray) -> Backbone:
        """Values of one genome.

        Args:
            genome: (n_genes,) choice indices.

        Raises:
            SpaceError: wrong length, or an index that a gene does not have.
        """
        values = self.values(genome)
        stages = self.macro.stages
        return Backbone(
            space=self.name,
            resolution=values["resolution"],
            width=(
                values["width.stem"],
                *(values[f"width.{s.name}"] for s in stages),
                values["width.tail"],
            ),
            depth=tuple(values[f"depth.{s.name}"] for s in stages),
            kernel=tuple(values[f"kernel.{s.name}"] for s in stages),
            expand=tuple(values.get(f"expand.{s.name}", s.expands[0]) for s in stages),
        )

    def encode(self, backbone: Backbone) -> IntArray:
        """Choice indices of a backbone: the inverse of :meth:`decode`.

        Raises:
            SpaceError: a backbone of another space, or a value that a gene does not offer.
        """
        if backbone.space != self.name:
            raise SpaceError(f"backbone belongs to space '{backbone.space}', not to '{self.name}'")
        stages = self.macro.stages
        for field, values, n in (
            ("width", backbone.width, len(stages) + 2),
            ("depth", backbone.depth, len(stages)),
            ("kernel", backbone.kernel, len(stages)),
            ("expand", backbone.expand, len(stages)),
        ):
            if len(values) != n:
                raise SpaceError(f"'{field}' has {len(values)} values; space '{self.name}' needs {n}")
        named = {"resolution": backbone.resolution, "width.stem": backbone.width[0]}
        named["width.tail"] = backbone.width[-1]
        for i, stage in enumerate(stages):
            named[f"width.{stage.name}"] = backbone.width[i + 1]
            named[f"depth.{stage.name}"] = backbone.depth[i]
            named[f"kernel.{stage.name}"] = backbone.kernel[i]
            named[f"expand.{stage.name}"] = backbone.expand[i]
            if len(stage.expands) == 1 and backbone.expand[i] != stage.expands[0]:
                raise SpaceError(
                    f"'expand.{stage.name}' = {backbone.expand[i]}: space '{self.name}' fixes it at {stage.expands[0]}"
                )
        return self.genome(named)

    def workload(self, backbone: Backbone, *, n_classes: int, dtype_bytes: int = 4) -> Workload:
        """MACs, parameters, bytes and shapes of a backbone and of its exit heads."""
        return mbconv_workload(self.macro, backbone, n_classes=n_classes, dtype_bytes=dtype_bytes)


def genome_from_values(space: BackboneSpace, values: dict[str, int]) -> IntArray:
    """A genome from named gene values, as a user writes them in a file.

    Raises:
        SpaceError: an unknown or missing gene, or a value that the gene does not offer.
    """
    known = {variable.name for variable in space.variables}
    for name in values:
        if name not in known:
            raise SpaceError(f"unknown gene '{name}'; space '{space.name}' has {sorted(known)}")
    genome = []
    for variable in space.variables:
        if variable.name not in values:
            raise SpaceError(f"gene '{variable.name}' is missing")
        if values[variable.name] not in variable.choices:
            raise SpaceError(
                f"gene '{variable.name}' = {values[variable.name]}: space '{space.name}' offers "
                f"{list(variable.choices)}"
            )
        genome.append(variable.choices.index(values[variable.name]))
    return np.array(genome, dtype=np.int64)
