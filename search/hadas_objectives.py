"""The objectives of HADAS (Bouzidi et al., DATE 2023), as its equations, figures and released code have them.

For an exit i in use, N_i is the fraction of all samples that it classifies correctly, and E_i, L_i the
energy and latency of everything up to it, earlier heads in use included; E_b, L_b are those of the backbone
alone at default clocks.  All exits in use count alike, whoever leaves at them.

* ``hadas-2d`` (the axes of figure 5): maximise the mean of N_i * dissim_i^gamma, minimise the mean of
  E_i / E_b, which is 1 - the energy gain of the paper.
* ``hadas-eq6`` (equations 5 to 7): maximise the mean of N_i * r(E_i / E_b) * r(L_i / L_b) * dissim_i^gamma.
  As printed (``literal``) r(x) = x, so dearer exits score higher.  ``inverse``: r(x) = 1 / x; ``gain``:
  r(x) = 1 - x, and 0 where an exit costs more than the whole backbone (the product of two losses is no gain).
* ``hadas-code`` (the released code): the means of 1 - N_i, L_i and E_i.

dissim_i is 1 - max of N over the preceding exits in use, 1 for the first (``marginal``, equation 7), or, from
the outcomes themselves, the share of the samples which exit i gets right that no preceding exit in use gets
right (``joint``).  With ``joint`` and gamma = 1 the sum of N_i * dissim_i is the share of samples that an
oracle could let leave early and right.  On nested exits equation 7 is the share that is still wrong before i.

Shapes: q candidates, k backbones, P positions, m objectives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from ..errors import ConfigError
from .objectives import (
    BoolArray,
    Column,
    Costs,
    Dissimilarity,
    IntArray,
    MaskTerms,
    Objective,
    Ratio,
    all_masks,
    count_bits,
)
from .tables import CostKind, FloatArray, Tables

_SHARE_DECIMALS = 12
"""Of means over exits; sums of thirds differ in their last bits where what is summed is equal."""


def _listed(objective: Objective, tables: Tables, backbone: int) -> MaskTerms:
    """Terms of all choices of exits, by way of those of candidates."""
    p = int(tables.n_positions[backbone])
    masks = np.zeros((1 << p, tables.max_positions), dtype=bool)
    masks[:, :p] = all_masks(p)
    terms = objective.mask_terms(tables, np.full(len(masks), backbone), masks)
    return MaskTerms(terms.loss, terms.weight[:, [*range(p), -1]])


def marginal_dissimilarity(fractions: FloatArray, masks: BoolArray) -> FloatArray:
    """(q, P) 1 - max of N over preceding exits in use; 1 for the first.

    Args:
        fractions: (q, P) N of every position.
        masks: (q, P) exits in use.
    """
    best = np.maximum.accumulate(np.where(masks, fractions, 0.0), axis=1)
    return 1.0 - np.concatenate([np.zeros((len(masks), 1)), best[:, :-1]], axis=1)


def joint_dissimilarity(tables: Tables, backbone: IntArray, masks: BoolArray) -> FloatArray:
    """(q, P) share of what an exit gets right that no preceding exit in use gets right; 0 if it gets none right."""
    share = np.zeros(masks.shape)
    n_right = tables.n_correct[:, :-1]
    covered = np.zeros((len(masks), tables.packed_correct.shape[2]), dtype=np.uint64)
    for j in range(masks.shape[1]):
        users = np.flatnonzero(masks[:, j])
        right = tables.packed_correct[backbone[users], j]
        new = count_bits(right & ~covered[users])
        share[users, j] = new / np.maximum(n_right[backbone[users], j], 1)
        covered[users] |= right
    return share


def _exit_values(
    tables: Tables, backbone: IntArray, masks: BoolArray, gamma: float, dissimilarity: Dissimilarity
) -> FloatArray:
    """(q, P) N_i * dissim_i^gamma over the number of exits in use; 0 where none is in use."""
    fractions = tables.n_correct[backbone, :-1] / tables.n_samples
    if dissimilarity == "joint":
        dissim = joint_dissimilarity(tables, backbone, masks)
    else:
        dissim = marginal_dissimilarity(fractions, masks)
    n_exits = np.maximum(masks.sum(axis=1), 1)
    return np.asarray(np.where(masks, fractions * dissim**gamma, 0.0) / n_exits[:, None])


def _row_sums(values: FloatArray) -> FloatArray:
    """(q,) sums of (q, P) in order, so that padding has no part in the rounding."""
    return np.asarray(np.cumsum(values, axis=1)[:, -1])


def _mean_cost_weights(masks: BoolArray) -> FloatArray:
    """(q, P + 1) weights of stages in the mean over exits in use of the cost up to an exit."""
    later = np.cumsum(masks[:, ::-1], axis=1)[:, ::-1] / np.maximum(masks.sum(axis=1), 1)[:, None]
    return np.concatenate([later, np.zeros((len(masks), 1))], axis=1)


def _check_dissimilarity(dissimilarity: str, gamma: float) -> None:
    if dissimilarity not in get_args(Dissimilarity):
        raise ConfigError(f"dissimilarity = {dissimilarity!r}: known are {list(get_args(Dissimilarity))}")
    if not (np.isfinite(gamma) and gamma >= 0):
        raise ConfigError(f"gamma = {gamma!r}: must be finite and not negative")


@dataclass(frozen=True)
class Hadas2D:
    """Mean of N_i * dissim_i^gamma against the mean share of the backbone's cost."""

    gamma: float = 1.0
    dissimilarity: Dissimilarity = "marginal"
    name: str = "hadas-2d"
    needs_exit: bool = True
    monotone: bool = True

    def __post_init__(self) -> None:
        _check_dissimilarity(self.dissimilarity, self.gamma)

    def columns(self, has_energy: bool) -> tuple[Column, ...]:
        """``negative_exit_score`` and the mean cost share, ``energy_share`` or ``latency_share``."""
        return (
            Column("negative_exit_score", False),
            Column("energy_share" if has_energy else "latency_share", True),
        )

    def cost_kinds(self, has_energy: bool) -> tuple[CostKind, ...]:
        """See :class:`Objective`."""
        return ("energy_mj",) if has_energy else ("latency_ms",)

    def mask_terms(self, tables: Tables, backbone: IntArray, masks: BoolArray) -> MaskTerms:
        """Score and cumulative-cost weights; see :class:`Objective`."""
        values = _exit_values(tables, backbone, masks, self.gamma, self.dissimilarity)
        return MaskTerms(-np.round(_row_sums(values), _SHARE_DECIMALS), _mean_cost_weights(masks))

    def enumerate_terms(self, tables: Tables, backbone: int) -> MaskTerms:
        """See :class:`Objective`."""
        return _listed(self, tables, backbone)

    def values(
        self, loss: FloatArray, weight: FloatArray, masks: BoolArray, costs: Costs
    ) -> tuple[FloatArray, ...]:
        """See :class:`Objective`."""
        kind = self.cost_kinds("energy_mj" in costs)[0]
        return (loss, np.round(costs[kind].mix(weight, masks) / costs[kind].alone, _SHARE_DECIMALS))


@dataclass(frozen=True)
class HadasEq6:
    """Equations 5 to 7: one score per design, so its front is one design.

    Not linear in the stage costs: a score is a sum over exits of products of an energy and a latency.
    Terms carry what an exit is worth before its costs, N_i * dissim_i^gamma over the number of exits.
    """

    gamma: float = 1.0
    ratio: Ratio = "gain"
    dissimilarity: Dissimilarity = "marginal"
    name: str = "hadas-eq6"
    needs_exit: bool = True

    def __post_init__(self) -> None:
        _check_dissimilarity(self.dissimilarity, self.gamma)
        if self.ratio not in get_args(Ratio):
            raise ConfigError(f"ratio = {self.ratio!r}: known are {list(get_args(Ratio))}")

    @property
    def monotone(self) -> bool:
        """Whether dearer stages never score higher, which ``literal`` breaks."""
        return self.ratio != "literal"

    def columns(self, has_energy: bool) -> tuple[Column, ...]:
        """``negative_dynamic_score`` alone."""
        return (Column("negative_dynamic_score", False),)

    def cost_kinds(self, has_energy: bool) -> tuple[CostKind, ...]:
        """Energy and latency; on a device without an energy counter the factor of energy is left out."""
        return ("energy_mj", "latency_ms") if has_energy else ("latency_ms",)

    def mask_terms(self, tables: Tables, backbone: IntArray, masks: BoolArray) -> MaskTerms:
        """No loss, and per position what the exit there is worth; see :class:`Objective`."""
        values = _exit_values(tables, backbone, masks, self.gamma, self.dissimilarity)
        return MaskTerms(np.zeros(len(masks)), np.concatenate([values, np.zeros((len(masks), 1))], axis=1))

    def enumerate_terms(self, tables: Tables, backbone: int) -> MaskTerms:
        """See :class:`Objective`."""
        return _listed(self, tables, backbone)

    def values(
        self, loss: FloatArray, weight: FloatArray, masks: BoolArray, costs: Costs
    ) -> tuple[FloatArray, ...]:
        """See :class:`Objective`."""
        kinds = self.cost_kinds("energy_mj" in costs)
        so_far: dict[CostKind, FloatArray] = {kind: np.zeros(1) for kind in kinds}
        score: FloatArray = loss
        for j in range(len(masks)):
            worth = weight[j]
            for kind in kinds:
                path = costs[kind]
                so_far[kind] = so_far[kind] + path.segment[j] + masks[j] * path.head[j]
                worth = worth * self._rated(so_far[kind] / path.alone)
            score = score - worth
        return (score,)

    def _rated(self, share: FloatArray) -> FloatArray:
        """r(E_i / E_b)."""
        if self.ratio == "literal":
            return share
        return 1.0 / share if self.ratio == "inverse" else np.maximum(1.0 - share, 0.0)


@dataclass(frozen=True)
class HadasCode:
    """The unweighted means over exits in use of error, energy and latency, as the released code has them."""

    name: str = "hadas-code"
    needs_exit: bool = True
    monotone: bool = True

    def columns(self, has_energy: bool) -> tuple[Column, ...]:
        """``mean_exit_error`` (fraction), ``mean_exit_energy_mj`` if counted, ``mean_exit_latency_ms``."""
        costs = (Column(f"mean_exit_{kind}", True) for kind in self.cost_kinds(has_energy))
        return (Column("mean_exit_error", False), *costs)

    def cost_kinds(self, has_energy: bool) -> tuple[CostKind, ...]:
        """See :class:`Objective`."""
        return ("energy_mj", "latency_ms") if has_energy else ("latency_ms",)

    def mask_terms(self, tables: Tables, backbone: IntArray, masks: BoolArray) -> MaskTerms:
        """Mean error and cumulative-cost weights; see :class:`Objective`."""
        right = _exit_values(tables, backbone, masks, 0.0, "marginal")
        return MaskTerms(1.0 - _row_sums(right), _mean_cost_weights(masks))

    def enumerate_terms(self, tables: Tables, backbone: int) -> MaskTerms:
        """See :class:`Objective`."""
        return _listed(self, tables, backbone)

    def values(
        self, loss: FloatArray, weight: FloatArray, masks: BoolArray, costs: Costs
    ) -> tuple[FloatArray, ...]:
        """See :class:`Objective`."""
        return (loss, *(costs[kind].mix(weight, masks) for kind in self.cost_kinds("energy_mj" in costs)))
