"""What is believed of networks that are not trained: accuracy and shares are predicted, costs are known.

Costs come from the table of layers, so only what training decides is uncertain: one joint draw of accuracy and shares
gives one draw of every objective.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...search.archive import Judgement
from ...search.tables import FloatArray
from ...spaces import IntArray
from ...spaces.quantized import QuantizedExitSpace, QuantizedNetwork
from .judging import Limits, judgement
from .mapping import SegmentMapper

if TYPE_CHECKING:
    from ...surrogates.exit_inputs import ExitInputs
    from ...surrogates.joint_exits import JointExitModel


class EdgeBeliefs:
    """Beliefs of the archive search (:class:`hadas.search.archive.Beliefs`) from fitted predictors and exact costs.

    Every network runs on the cores that are best for the shares expected of it.

    Args:
        known: accuracy, and share (e,) per exit in use, of networks that are trained, by ``trained_id``: these are
            not predicted.
    """

    def __init__(
        self, space: QuantizedExitSpace, model: JointExitModel, mapper: SegmentMapper, limits: Limits,
        known: Mapping[str, tuple[float, tuple[float, ...]]],
    ) -> None:  # fmt: skip
        self._space, self._model, self._mapper, self._limits = space, model, mapper, limits
        self._known = known

    def mean(self, genomes: IntArray) -> Judgement:
        """Objectives at the predicted means, (n, m)."""
        networks, inputs = self._described(genomes)
        accuracy, shares = self._expected(networks, inputs)
        return judgement(accuracy, shares, self._mapper.mapped(networks, shares)[1], self._limits)

    def draws(self, genomes: IntArray, n_draws: int, seed: int) -> Judgement:
        """Objectives in joint draws of accuracy and shares, (s, n, m)."""
        return self._drawn(genomes, n_draws, seed, noise=False)

    def outcomes(self, genomes: IntArray, n_draws: int, seed: int) -> Judgement:
        """The same of what training and testing would find, with their chance."""
        return self._drawn(genomes, n_draws, seed, noise=True)

    def _drawn(self, genomes: IntArray, n_draws: int, seed: int, *, noise: bool) -> Judgement:
        networks, inputs = self._described(genomes)
        drawn = self._model.draws(inputs, n_draws, seed, noise=noise)
        accuracy, shares = self._with_known(networks, drawn.accuracy, drawn.shares)
        costs = self._mapper.mapped(networks, self._expected(networks, inputs)[1])[1]
        return judgement(accuracy, shares, costs, self._limits)

    def _described(self, genomes: IntArray) -> tuple[list[QuantizedNetwork], ExitInputs]:
        networks = [self._space.decode(genome) for genome in genomes]
        return networks, exit_inputs(self._space, networks)

    def _expected(
        self, networks: Sequence[QuantizedNetwork], inputs: ExitInputs
    ) -> tuple[FloatArray, FloatArray]:
        """Accuracy (n,) and shares (n, e): measured where they are known, predicted elsewhere."""
        return self._with_known(networks, *self._model.mean(inputs))

    def _with_known(
        self, networks: Sequence[QuantizedNetwork], accuracy: FloatArray, shares: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Accuracy (..., n) and shares (..., n, e) with what is known in place of what was predicted."""
        for i, network in enumerate(networks):
            if network.trained_id in self._known:
                accuracy[..., i], found = self._known[network.trained_id]
                shares[..., i, :] = 0.0
                shares[..., i, : len(found)] = found
        return accuracy, shares


def exit_inputs(space: QuantizedExitSpace, networks: Sequence[QuantizedNetwork]) -> ExitInputs:
    """What the predictors are told of networks: all that is known before they are trained."""
    from ...surrogates.exit_inputs import ExitInputs

    macs = np.array([sum(unit.macs for unit in units) for units in space.segments], dtype=np.float64)
    heads = np.array([network.heads for network in networks])
    steps = 2.0 ** -np.array([network.segment_bits for network in networks], dtype=np.float64)
    weighted = np.cumsum(macs * steps, axis=1)
    of, position = np.nonzero(heads)
    done = np.cumsum(macs)[position]
    first = np.concatenate([[True], of[1:] != of[:-1]])
    macs_before = np.where(first, 0.0, np.roll(done, 1))
    weighted_before = np.where(first, 0.0, np.roll(weighted[of, position], 1))
    return ExitInputs(
        n_exits=np.count_nonzero(heads, axis=1),
        backbone_macs=done,
        head_layers=heads[of, position].astype(np.float64),
        segment_step=(weighted[of, position] - weighted_before) / (done - macs_before),
        head_bits=np.array([network.head_bits for network in networks], dtype=np.float64)[of],
    )
