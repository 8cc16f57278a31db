"""Objectives: what is good about exits and clocks on a backbone.  All are minimised.

Every objective here has one shape, which makes exhaustive search cheap: a *loss* that
depends on the exits alone, and costs that are linear in the stage costs of one setting,

    cost(exits, setting) = sum_j weight_j * segment_j(setting)
                         + sum_{j in use} weight_j * head_j(setting),

with weights that depend on the exits alone.

* ``expected`` (the default): loss = 1 - accuracy under the controller; weight_j = share of
  samples that reach position j, so the costs are the expected energy and latency per
  inference.  Heads in use are paid by every sample that reaches them.
* ``hadas-2d`` (HADAS, Bouzidi et al., DATE 2023, Fig. 5): loss = -mean over exits in use of
  N_i * dissim_i^gamma; cost = mean over exits in use of E_i / E_b, where E_i is the cost of
  everything up to exit i, earlier heads in use included, and E_b the cost of the backbone
  alone at default clocks.  The energy gain of the paper is 1 minus that.

On a device without an energy counter latency takes energy's place.

Shapes: q candidates, k backbones, P positions, F settings, n samples, m objectives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .tables import FloatArray, Tables

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Column:
    """One objective: its name (with unit) and whether it is compared on a log scale."""

    name: str
    log: bool


@dataclass(frozen=True, slots=True)
class CostTerm:
    """Stage costs behind one objective.

    Attributes:
        segment: (k, P + 1, F).
        head: (k, P, F).
        scale: (k,) the cost is divided by this.
    """

    segment: FloatArray
    head: FloatArray
    scale: FloatArray


@dataclass(frozen=True, slots=True)
class MaskTerms:
    """What depends on the exits alone.

    Attributes:
        loss: (q,).
        weight: (q, P + 1) how much of each segment (and, if in use, of its head) is paid.
    """

    loss: FloatArray
    weight: FloatArray


class Objective(Protocol):
    """A loss per choice of exits, and linear costs."""

    @property
    def name(self) -> str: ...
    @property
    def needs_exit(self) -> bool:
        """Whether a design without any exit has no value under this objective."""
        ...

    def columns(self, has_energy: bool) -> tuple[Column, ...]: ...
    def cost_terms(self, tables: Tables) -> tuple[CostTerm, ...]: ...
    def mask_terms(self, tables: Tables, backbone: IntArray, masks: BoolArray) -> MaskTerms:
        """Terms of q candidates.

        Args:
            backbone: (q,) index into the tables.
            masks: (q, P) exits in use; False where padded.
        """
        ...

    def enumerate_terms(self, tables: Tables, backbone: int) -> MaskTerms:
        """Terms of all 2^p choices of exits on one backbone of p positions.

        Row r stands for the mask whose bit j is position j; ``weight`` is (2^p, p + 1).
        """
        ...


def controller_terms(
    correct: Words, leaves: Words, samples: Words, row: IntArray, masks: BoolArray
) -> MaskTerms:
    """Error and reach probabilities of q candidates under the controller.

    Args:
        correct, leaves: (k, P + 1, W) packed bits.
        samples: (W,) one bit per sample.
        row: (q,) which of the k a candidate belongs to.
        masks: (q, P) exits in use.
    """
    q, n_positions = masks.shape
    n_samples = int(np.bitwise_count(samples).sum())
    alive = np.broadcast_to(samples, (q, len(samples))).copy()
    reach = np.zeros((q, n_positions + 1), dtype=np.int64)
    right = np.zeros(q, dtype=np.int64)
    for j in range(n_positions):
        reach[:, j] = _count(alive)
        users = np.flatnonzero(masks[:, j])
        leaving = alive[users] & leaves[row[users], j]
        right[users] += _count(leaving & correct[row[users], j])
        alive[users] ^= leaving
    reach[:, -1] = _count(alive)
    right += _count(alive & correct[row, -1])
    return MaskTerms(1.0 - right / n_samples, reach / n_samples)


@dataclass(frozen=True)
class Expected:
    """Accuracy under the calibrated controller against expected energy (and latency)."""

    with_latency: bool = False
    name: str = "expected"
    needs_exit: bool = False

    def columns(self, has_energy: bool) -> tuple[Column, ...]:
        """``error`` (fraction), then ``energy_mj`` and, if wanted or alone, ``latency_ms``."""
        latency = (Column("latency_ms", True),)
        if not has_energy:
            return (Column("error", False), *latency)
        return (Column("error", False), Column("energy_mj", True), *(latency if self.with_latency else ()))

    def cost_terms(self, tables: Tables) -> tuple[CostTerm, ...]:
        """Stage energies and latencies as they are."""
        one = np.ones(len(tables.backbones))
        energy = CostTerm(tables.segment_energy_mj, tables.head_energy_mj, one)
        latency = CostTerm(tables.segment_latency_ms, tables.head_latency_ms, one)
        if not tables.has_energy:
            return (latency,)
        return (energy, latency) if self.with_latency else (energy,)

    def mask_terms(self, tables: Tables, backbone: IntArray, masks: BoolArray) -> MaskTerms:
        """Error and reach probabilities; see :class:`Objective`."""
        return controller_terms(
            tables.packed_correct, tables.packed_leaves, tables.packed_samples, backbone, masks
        )

    def enumerate_terms(self, tables: Tables, backbone: int) -> MaskTerms:
        """Walks the tree of exit prefixes, so shared prefixes are computed once."""
        p = int(tables.n_positions[backbone])
        leaves, correct = tables.packed_leaves[backbone], tables.packed_correct[backbone]
        alive = tables.packed_samples[None, :]
        right = np.zeros(1, dtype=np.int64)
        reach = np.zeros((1 << p, p + 1), dtype=np.int64)
        for j in range(p):
            reach[:, j] = np.tile(_count(alive), 1 << (p - j))
            leaving = alive & leaves[j]
            right = np.concatenate([right, right + _count(leaving & correct[j])])
            alive = np.concatenate([alive, alive ^ leaving])
        reach[:, p] = _count(alive)
        right = right + _count(alive & correct[-1])
        return MaskTerms(1.0 - right / tables.n_samples, reach / tables.n_samples)


@dataclass(frozen=True)
class Hadas2D:
    """Mean of N_i * dissim_i^gamma against the mean share of the backbone's cost.

    dissim_i = 1 - max N over preceding exits in use, 1 for the first.
    """

    gamma: float = 1.0
    name: str = "hadas-2d"
    needs_exit: bool = True

    def columns(self, has_energy: bool) -> tuple[Column, ...]:
        """``negative_exit_score`` and the mean cost share, ``energy_share`` or ``latency_share``."""
        return (
            Column("negative_exit_score", False),
            Column("energy_share" if has_energy else "latency_share", True),
        )

    def cost_terms(self, tables: Tables) -> tuple[CostTerm, ...]:
        """Stage costs over E_b, the sum of the segments at the default setting."""
        segment, head = tables.segment_energy_mj, tables.head_energy_mj
        if not tables.has_energy:
            segment, head = tables.segment_latency_ms, tables.head_latency_ms
        return (CostTerm(segment, head, segment[:, :, tables.default_setting].sum(axis=1)),)

    def mask_terms(self, tables: Tables, backbone: IntArray, masks: BoolArray) -> MaskTerms:
        """Score and cumulative-cost weights; see :class:`Objective`."""
        fractions = tables.correct[:, :-1].mean(axis=2)[backbone]
        return self._terms(fractions, masks)

    def enumerate_terms(self, tables: Tables, backbone: int) -> MaskTerms:
        """All masks at once."""
        p = int(tables.n_positions[backbone])
        fractions = tables.correct[backbone, :p].mean(axis=1)
        return self._terms(np.broadcast_to(fractions, (1 << p, p)), all_masks(p))

    def _terms(self, fractions: FloatArray, masks: BoolArray) -> MaskTerms:
        best = np.maximum.accumulate(np.where(masks, fractions, 0.0), axis=1)
        before = np.concatenate([np.zeros((len(masks), 1)), best[:, :-1]], axis=1)
        n_exits = np.maximum(masks.sum(axis=1), 1)
        score = np.where(masks, fractions * (1.0 - before) ** self.gamma, 0.0).sum(axis=1) / n_exits
        later = np.cumsum(masks[:, ::-1], axis=1)[:, ::-1] / n_exits[:, None]
        return MaskTerms(-score, np.concatenate([later, np.zeros((len(masks), 1))], axis=1))


def _count(words: Words) -> IntArray:
    """(q,) number of bits set in (q, W) words."""
    return np.asarray(np.bitwise_count(words).sum(axis=1, dtype=np.int64))


def all_masks(n_positions: int) -> BoolArray:
    """(2^p, p) every choice of exits; bit j of the row number is position j."""
    rows = np.arange(1 << n_positions, dtype=np.int64)
    return np.asarray((rows[:, None] >> np.arange(n_positions)) & 1 == 1)


def evaluate(
    objective: Objective, tables: Tables, backbone: IntArray, masks: BoolArray, settings: IntArray
) -> FloatArray:
    """Objectives of q candidates.

    Args:
        backbone: (q,) index into the tables.
        masks: (q, P) exits in use; False where padded.
        settings: (q,) index into the clock table.

    Returns:
        (q, m), all to be minimised.
    """
    terms = objective.mask_terms(tables, backbone, masks)
    head_weight = terms.weight[:, :-1] * masks
    columns = [terms.loss]
    for term in objective.cost_terms(tables):
        cost = (terms.weight * term.segment[backbone, :, settings]).sum(axis=1)
        cost += (head_weight * term.head[backbone, :, settings]).sum(axis=1)
        columns.append(cost / term.scale[backbone])
    return np.stack(columns, axis=1)


def objective_by_name(name: str, *, with_latency: bool = False, gamma: float = 1.0) -> Objective:
    """An objective by name.

    Raises:
        ConfigError: no objective of that name.
    """
    if name == "expected":
        return Expected(with_latency)
    if name == "hadas-2d":
        return Hadas2D(gamma)
    raise ConfigError(f"no objective '{name}'; known: ['expected', 'hadas-2d']")
