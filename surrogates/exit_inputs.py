"""What a model of early-exit networks is told of them, and the features it makes of that; knows no space.

Networks differ in how many exits they have, so what is said of exits is flat: network after network, exit after
exit, the final one included.

Shapes: n networks, r exits in use of all of them together, r - n early ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from ..errors import ModelError
from .models import IntArray
from .prediction import FloatArray

_SURE = 1e-3  # thresholds are kept this far away from 0 and 1, where logits end


@dataclass(frozen=True)
class ExitInputs:
    """n networks as a model of their exits sees them.

    All but the thresholds is known before a network is trained; a caller that knows a space builds it.

    Attributes:
        n_exits: (n,) exits in use, the final one included; at least 1.
        backbone_macs: (r,) multiply-accumulates of the backbone up to each exit, without heads; rising.
        head_layers: (r,) fully connected layers of each head.
        segment_step: (r,) quantization step of the backbone between the previous exit in use and this one: 2^-bits of
            the range, its mean over MACs where bits differ.
        head_bits: (r,) bits of each head.
        threshold: (n,) confidence in 0..1 from which on samples leave, where networks have one that is known
            beforehand; ``None`` where thresholds are calibrated, and come out with the shares.

    Raises:
        ModelError: arrays that do not fit each other, or values that no network has.
    """

    n_exits: IntArray
    backbone_macs: FloatArray
    head_layers: FloatArray
    segment_step: FloatArray
    head_bits: FloatArray
    threshold: FloatArray | None = None
    starts: IntArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n_exits = np.asarray(self.n_exits, dtype=np.int64)
        if n_exits.ndim != 1 or len(n_exits) == 0 or n_exits.min() < 1:
            raise ModelError("'n_exits' must hold one count per network, at least 1: the final exit counts")
        object.__setattr__(self, "n_exits", n_exits)
        object.__setattr__(self, "starts", np.cumsum(n_exits) - n_exits)
        for name in ("backbone_macs", "head_layers", "segment_step", "head_bits"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != (n_exits.sum(),):
                raise ModelError(
                    f"'{name}' has shape {values.shape}; 'n_exits' add up to {n_exits.sum()} exits in use"
                )
            bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
            if len(bad):
                raise ModelError(f"'{name}' of exit row {bad[0]} is {values[bad[0]]}; it must be above 0")
            object.__setattr__(self, name, values)
        if (self.segment_macs <= 0).any():
            row = int(np.flatnonzero(self.segment_macs <= 0)[0])
            raise ModelError(
                f"'backbone_macs' of exit row {row}: cumulative MACs must rise from exit to exit"
            )
        if self.threshold is not None:
            threshold = np.asarray(self.threshold, dtype=np.float64)
            if threshold.shape != n_exits.shape or not ((threshold >= 0) & (threshold <= 1)).all():
                raise ModelError("'threshold' must hold one confidence in 0..1 per network, or be None")
            object.__setattr__(self, "threshold", threshold)

    def __len__(self) -> int:
        return len(self.n_exits)

    @property
    def network(self) -> IntArray:
        """(r,) index of each exit's network."""
        return np.repeat(np.arange(len(self)), self.n_exits)

    @property
    def index(self) -> IntArray:
        """(r,) number of exits before each in its network."""
        return np.arange(len(self.backbone_macs)) - self.starts[self.network]

    @property
    def is_early(self) -> NDArray[np.bool_]:
        """(r,) whether an exit is not the final one."""
        return self.index < self.n_exits[self.network] - 1

    @property
    def segment_macs(self) -> FloatArray:
        """(r,) of the backbone since the previous exit in use."""
        before = np.concatenate([[0.0], self.backbone_macs[:-1]])
        before[self.starts] = 0.0
        return np.asarray(self.backbone_macs - before)

    def take(self, networks: IntArray) -> ExitInputs:
        """Some of the networks."""
        rows = np.concatenate([self.starts[k] + np.arange(self.n_exits[k]) for k in networks])
        return replace(
            self, n_exits=self.n_exits[networks], backbone_macs=self.backbone_macs[rows],
            head_layers=self.head_layers[rows], segment_step=self.segment_step[rows],
            head_bits=self.head_bits[rows],
            threshold=None if self.threshold is None else self.threshold[networks],
        )  # fmt: skip

    def padded(self, values: FloatArray, filling: float) -> FloatArray:
        """Values (..., r) of exits as (..., n, e_max), with ``filling`` past a network's last exit."""
        found = np.full((*values.shape[:-1], len(self), int(self.n_exits.max())), filling)
        found[..., self.network, self.index] = values
        return found

    def placement(self) -> IntArray:
        """(n,) equal where networks have their exits at the same depths, whatever the heads and bits."""
        macs = self.padded(self.backbone_macs, 0.0)
        return np.asarray(np.unique(macs, axis=0, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def exit_rows(inputs: ExitInputs) -> FloatArray:
    """Features (r - n, d) of the early exits: what each is by itself, and how it stands to the others."""
    network, index, early = inputs.network, inputs.index, inputs.is_early
    macs, first = inputs.backbone_macs, inputs.starts
    depth = macs / macs[first + inputs.n_exits - 1][network]
    previous = np.where(index > 0, np.roll(macs, 1), 0.0)
    earlier = _sums_before(inputs, macs)
    two_before = np.divide(
        _sums_before(inputs, inputs.head_layers - 1.0), index, out=np.zeros(len(macs)), where=index > 0
    )
    deepest = depth[first + np.maximum(inputs.n_exits - 2, 0)][network]
    columns = [
        np.log(depth),
        previous / macs,
        inputs.head_layers,
        _mean_step(inputs),
        2.0**-inputs.head_bits,
        # How many chances to leave there were before, each as near to this one as its share of the work.
        earlier / macs,
        two_before,
        inputs.n_exits[network] - 2.0 - index,
        np.log(deepest),
    ]
    if inputs.threshold is not None:
        columns.insert(0, _threshold_logit(inputs.threshold)[network])
    return np.stack(columns, axis=1)[early]


def network_rows(inputs: ExitInputs) -> FloatArray:
    """Features (n, d) of networks as wholes; one without early exits counts as one whose exit is its end."""
    macs, first, last = inputs.backbone_macs, inputs.starts, inputs.starts + inputs.n_exits - 1
    depth = macs / macs[last][inputs.network]
    deepest = np.maximum(last - 1, first)
    n_early = inputs.n_exits - 1

    def mean_of_early(values: FloatArray) -> FloatArray:
        total = np.add.reduceat(values, first) - np.where(n_early > 0, values[last], 0.0)
        return np.asarray(total / np.maximum(n_early, 1))

    columns = [
        n_early.astype(np.float64),
        np.log(depth[first]),
        depth[deepest],
        mean_of_early(depth),
        mean_of_early(np.log(depth)),
        mean_of_early(inputs.head_layers),
        inputs.head_layers[first],
        inputs.head_layers[deepest],
        inputs.head_layers[last],
        _mean_step(inputs)[last],
        2.0 ** -inputs.head_bits[last],
    ]
    if inputs.threshold is not None:
        columns.insert(0, _threshold_logit(inputs.threshold))
    return np.stack(columns, axis=1)


def _threshold_logit(threshold: FloatArray) -> FloatArray:
    return np.asarray(logit(np.clip(threshold, _SURE, 1.0 - _SURE)))


def _sums_before(inputs: ExitInputs, values: FloatArray) -> FloatArray:
    """(r,) sums of values (r,) of the exits before each in its network."""
    before = np.cumsum(values) - values
    return np.asarray(before - before[inputs.starts][inputs.network])


def _mean_step(inputs: ExitInputs) -> FloatArray:
    """(r,) mean over MACs of the quantization step of the backbone up to each exit.

    What rounding adds to a sum falls by half with every bit, so 32 bits are hardly different from 8, and 4 are.
    """
    work = inputs.segment_macs * inputs.segment_step
    return np.asarray((_sums_before(inputs, work) + work) / inputs.backbone_macs)
