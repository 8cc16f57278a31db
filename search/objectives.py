"""Objectives: what is good about exits and clocks on a backbone.  All are minimised.

Every objective is computed in two steps, which makes exhaustive search cheap and caches possible.
*Terms* depend on the exits alone (:class:`MaskTerms`): a loss, and a weight per position.
*Values* follow from the terms and the stage costs at a setting.  For most objectives a value is linear in
the stage costs,

    cost(exits, setting) = sum_j weight_j * segment_j(setting)
                         + sum_{j in use} weight_j * head_j(setting).

``expected``, the default, is here: loss = 1 - accuracy under the controller; weight_j = share of samples
that reach position j, so the costs are the expected energy and latency per inference.  Heads in use are
paid by every sample that reaches them.  The objectives of the HADAS paper are in :mod:`.hadas_objectives`;
``docs/objectives.md`` compares them all.

On a device without an energy counter latency takes energy's place.

Shapes: q candidates, k backbones, P positions, F settings, n samples, m objectives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .tables import CostKind, FloatArray, Tables

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
Words = NDArray[np.uint64]

_ROWS_AT_ONCE = 256
"""Candidates whose samples are followed at once: at 10,000 samples 0.3 MB, which a processor's cache holds."""


@dataclass(frozen=True, slots=True)
class Column:
    """One objective: its name (with unit) and whether it is compared on a log scale."""

    name: str
    log: bool


@dataclass(frozen=True, slots=True)
class MaskTerms:
    """What depends on the exits alone.

    Attributes:
        loss: (q,).
        weight: (q, P + 1); for linear costs, how much of each segment (and, if in use, of its head) is paid.
    """

    loss: FloatArray
    weight: FloatArray


@dataclass(frozen=True, slots=True)
class PathCosts:
    """Energy or latency of all stages on the way through a backbone, position first.

    Attributes:
        segment: (P + 1, ...).
        head: (P, ...).
        alone: (...) cost of the backbone without exits at the default setting: E_b or L_b.
    """

    segment: FloatArray
    head: FloatArray
    alone: FloatArray

    def mix(self, weight: FloatArray, masks: BoolArray) -> FloatArray:
        """Weighted sum over segments and heads in use.

        Summed up position by position, so that neither padding, nor the number of candidates, nor the
        number of threads has a part in the rounding.

        Args:
            weight: (P + 1, ...), position first.
            masks: (P, ...) exits in use.
        """
        total = weight[0] * self.segment[0]
        for j in range(len(self.head)):
            total += (weight[j] * masks[j]) * self.head[j]
            total += weight[j + 1] * self.segment[j + 1]
        return np.asarray(total)


Costs = Mapping[CostKind, PathCosts]


class Objective(Protocol):
    """Objectives of exits and clocks on a backbone."""

    @property
    def name(self) -> str: ...
    @property
    def needs_exit(self) -> bool:
        """Whether a design without any exit has no value under this objective."""
        ...

    @property
    def monotone(self) -> bool:
        """Whether no value ever falls when a stage gets dearer; then settings at which every stage is dearer
        need not be looked at."""
        ...

    def columns(self, has_energy: bool) -> tuple[Column, ...]: ...
    def cost_kinds(self, has_energy: bool) -> tuple[CostKind, ...]:
        """Costs that values depend on."""
        ...

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

    def values(
        self, loss: FloatArray, weight: FloatArray, masks: BoolArray, costs: Costs
    ) -> tuple[FloatArray, ...]:
        """The m values.

        Args:
            loss: (...).
            weight: (P + 1, ...), position first.
            masks: (P, ...).
            costs: by kind, with shapes that broadcast with the others.
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
    n_exits = masks.sum(axis=1)
    left = np.zeros((q, n_positions + 1), dtype=np.int64)  # after so many exits in use
    left[:, 0] = n_samples
    right = np.zeros(q, dtype=np.int64)
    # Rows of many exits first: those with more than a given number are then a slice.
    order = np.argsort(-n_exits, kind="stable")
    for start in range(0, q, _ROWS_AT_ONCE):
        rows = order[start : start + _ROWS_AT_ONCE]
        alive = np.broadcast_to(samples, (len(rows), len(samples))).copy()
        in_use = np.argsort(~masks[rows], axis=1, kind="stable")
        for nth in range(int(n_exits[rows[0]])):
            busy = rows[: np.count_nonzero(n_exits[rows] > nth)]
            at, here = in_use[: len(busy), nth], alive[: len(busy)]
            leaving = here & leaves[row[busy], at]
            right[busy] += count_bits(leaving & correct[row[busy], at])
            here ^= leaving
            left[busy, nth + 1] = count_bits(here)
        right[rows] += count_bits(alive & correct[row[rows], -1])
    passed = np.concatenate([np.zeros((q, 1), dtype=np.int64), np.cumsum(masks, axis=1)], axis=1)
    reach = np.take_along_axis(left, passed, axis=1)
    return MaskTerms(1.0 - right / n_samples, reach / n_samples)


@dataclass(frozen=True)
class Expected:
    """Accuracy under the calibrated controller against expected energy (and latency)."""

    with_latency: bool = False
    name: str = "expected"
    needs_exit: bool = False
    monotone: bool = True

    def columns(self, has_energy: bool) -> tuple[Column, ...]:
        """``error`` (fraction), then ``energy_mj`` and, if wanted or alone, ``latency_ms``."""
        return (Column("error", False), *(Column(kind, True) for kind in self.cost_kinds(has_energy)))

    def cost_kinds(self, has_energy: bool) -> tuple[CostKind, ...]:
        """See :class:`Objective`."""
        if not has_energy:
            return ("latency_ms",)
        return ("energy_mj", "latency_ms") if self.with_latency else ("energy_mj",)

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
            reach[:, j] = np.tile(count_bits(alive), 1 << (p - j))
            leaving = alive & leaves[j]
            right = np.concatenate([right, right + count_bits(leaving & correct[j])])
            alive = np.concatenate([alive, alive ^ leaving])
        reach[:, p] = count_bits(alive)
        right = right + count_bits(alive & correct[-1])
        return MaskTerms(1.0 - right / tables.n_samples, reach / tables.n_samples)

    def values(
        self, loss: FloatArray, weight: FloatArray, masks: BoolArray, costs: Costs
    ) -> tuple[FloatArray, ...]:
        """Error and expected costs; see :class:`Objective`."""
        return (loss, *(costs[kind].mix(weight, masks) for kind in self.cost_kinds("energy_mj" in costs)))


def count_bits(words: Words) -> IntArray:
    """(q,) number of bits set in (q, W) words."""
    return np.asarray(np.bitwise_count(words).sum(axis=1, dtype=np.uint32), dtype=np.int64)


def all_masks(n_positions: int) -> BoolArray:
    """(2^p, p) every choice of exits; bit j of the row number is position j."""
    rows = np.arange(1 << n_positions, dtype=np.int64)
    return np.asarray((rows[:, None] >> np.arange(n_positions)) & 1 == 1)


def candidate_costs(
    tables: Tables, kinds: Iterable[CostKind], backbone: IntArray, settings: IntArray
) -> dict[CostKind, PathCosts]:
    """Stage costs of q candidates: arrays (P + 1, q), (P, q) and (q,)."""
    found: dict[CostKind, PathCosts] = {}
    for kind in kinds:
        table = tables.by_setting(kind)
        segment, head = table.segment[backbone, settings], table.head[backbone, settings]
        found[kind] = PathCosts(segment.T, head.T, table.alone[backbone])
    return found


def listed_costs(
    tables: Tables, kinds: Iterable[CostKind], backbone: int, settings: IntArray
) -> dict[CostKind, PathCosts]:
    """Stage costs of one backbone of p positions at some settings: arrays (p + 1, 1, F), (p, 1, F) and ()."""
    p = int(tables.n_positions[backbone])
    found: dict[CostKind, PathCosts] = {}
    for kind in kinds:
        table = tables.by_setting(kind)
        segment = table.segment[backbone][settings][:, [*range(p), -1]]
        head = table.head[backbone][settings][:, :p]
        alone = np.asarray(table.alone[backbone])
        found[kind] = PathCosts(
            np.ascontiguousarray(segment.T)[:, None], np.ascontiguousarray(head.T)[:, None], alone
        )
    return found


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
    costs = candidate_costs(tables, objective.cost_kinds(tables.has_energy), backbone, settings)
    return np.stack(objective.values(terms.loss, terms.weight.T, masks.T, costs), axis=1)


Ratio = Literal["gain", "inverse", "literal"]
Dissimilarity = Literal["marginal", "joint"]
