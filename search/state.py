"""What a nested search knows after a generation: plain values, enough to go on from.

Shapes: q points of an inner front, m objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..spaces import Backbone, BackboneSpace, ClockTable, Exits, IntArray
from .constraints import Extremes
from .designs import Design
from .inner import InnerFront
from .metrics import HypervolumeReference
from .objectives import Column
from .tables import FloatArray

_NOTHING_FOUND = Extremes()


@dataclass(frozen=True)
class Candidate:
    """A design and what the search believes of it.

    Attributes:
        design: what it is.
        objectives: (m,), minimised.
        violation: of the constraints; 0 if it meets them all.
    """

    design: Design
    objectives: tuple[float, ...]
    violation: float = 0.0


@dataclass(frozen=True)
class Member:
    """A backbone that reached the inner engine.

    Attributes:
        genome: (n_genes,).
        backbone: what it decodes to.
        static: its static fitness, minimised.
        inner: the front of its exits and clocks.
    """

    genome: IntArray
    backbone: Backbone
    static: FloatArray
    inner: InnerFront

    @property
    def violation(self) -> float:
        """Least violation of the constraints on this backbone; 0 if some design meets them."""
        return float(self.inner.violation.min(initial=float("inf")))


@dataclass(frozen=True)
class Reach:
    """How far exits and clocks brought expected costs, and accuracy, so far.

    Attributes:
        best: the best that was found for each constraint, each by itself.
        energy_ratio, latency_ratio: the least expected cost over the static cost of the same backbone.
    """

    best: Extremes = _NOTHING_FOUND
    energy_ratio: float = 0.0
    latency_ratio: float = 0.0


@dataclass(frozen=True)
class SearchState:
    """A nested search after some generations.

    Attributes:
        n_generations: how many are done.
        seen: (n, n_genes) genomes looked at, in order.
        parents: of the next generation, best first.
        archive: non-dominated candidates of all generations, those that meet the constraints if any do.
        history: the archive's hypervolume after each generation.
        columns: the objectives; empty before the first generation.
        reference: what hypervolume is measured to; ``None`` before anything met the constraints.
        n_static, n_inner: evaluations so far.
        reach: what constraints are judged by before the inner search.
    """

    n_generations: int
    seen: IntArray
    parents: tuple[Member, ...] = ()
    archive: tuple[Candidate, ...] = ()
    history: tuple[float, ...] = ()
    columns: tuple[Column, ...] = ()
    reference: HypervolumeReference | None = None
    n_static: int = 0
    n_inner: int = 0
    reach: Reach = Reach()


def front_designs(
    space: BackboneSpace, clock_table: ClockTable, backbone: Backbone, front: InnerFront
) -> list[Candidate]:
    """An inner front as designs."""
    n_positions = backbone.n_blocks - space.first_exit
    return [
        Candidate(
            Design(
                backbone,
                Exits(space.first_exit, tuple(int(bit) for bit in mask[:n_positions])),
                clock_table.settings[int(setting)],
            ),
            tuple(float(v) for v in point),
            float(violation),
        )
        for mask, setting, point, violation in zip(
            front.masks, front.settings, front.objectives, front.violation, strict=True
        )
    ]


def member_designs(
    space: BackboneSpace, clock_table: ClockTable, members: Sequence[Member]
) -> list[Candidate]:
    """The inner fronts of members as designs."""
    return [c for m in members for c in front_designs(space, clock_table, m.backbone, m.inner)]
