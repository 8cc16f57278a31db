"""Accuracy of early-exit networks under their controller, and the shares of samples that leave where, jointly.

For networks whose exits are trained with the backbone, so that no part of one is known from another, and every
network has one accuracy and one share per exit in use.

*Shares.*  A sample has left by an exit if any head up to it was sure enough, which is mostly a matter of how deep
the network has looked.  So what is modelled is the share that has left **by** each early exit, on the logit scale
with binomial noise from the number of samples: it varies smoothly with depth, while the share that leaves **at**
an exit also depends on how near the exit before stands.  The leave probability at an exit given arrival is
(F_i - F_{i-1}) / (1 - F_{i-1}) of these; running maxima keep it from falling below 0, and shares add up to one.

*Accuracy* is modelled of the network as a whole, on the logit scale; composed of shares and of the accuracies of those
who leave, it would take over the errors of both.  Where there are networks enough to tell, the kind of model is
chosen by cross-validation inside the training rows, which keeps networks with exits at the same depths together.

*Jointly.*  Errors on rows held out say how accuracy and shares err together, and how much the exits of one network
do; draws repeat that.  They are functions: the same network has the same value in a draw, whatever is asked with it.

There is nothing to save: a model is refitted from its records in about a second.

Shapes: n networks, e_max exits in use of the network with most, s draws, r exits of all networks together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from scipy.special import expit, logit

from ..errors import ModelError
from .conformal import HeldOut, held_out_errors, learn_correction
from .exit_inputs import ExitInputs, exit_rows, network_rows
from .models import IntArray, Model
from .prediction import FloatArray, Paths
from .selection import MIN_CV_GROUPS, ModelSummary, TrainingRows, select_model

ACCURACY_CANDIDATES = ("ridge", "gp")
"""Few networks and a nearly linear logit: the simplest is preferred."""

SHARE_CANDIDATES = ("gp", "ridge")

PRIOR_NETWORKS = 8.0
"""Networks' worth of the claim that errors are independent."""

MAX_CORRELATION = 0.95

SUM_TOLERANCE = 1e-6

ROWS_PER_FEATURE = 3
"""With fewer, held-out rows do not tell which kind of model is better, and the preferred one is taken."""

KEPT_PATHS = 8
"""Sets of drawn functions that a model keeps at hand."""


@dataclass(frozen=True)
class ExitDraws:
    """s joint draws of n networks.

    Attributes:
        accuracy: (s, n).
        shares: (s, n, e_max), 0 past a network's last exit; they add up to one.
    """

    accuracy: FloatArray
    shares: FloatArray


@dataclass(frozen=True)
class ErrorCorrelation:
    """How errors on rows held out go together, in predicted standard deviations.

    Attributes:
        with_accuracy: correlation of the errors of accuracy and of what has left by an exit.
        within_network: correlation of the errors of two exits of one network.
    """

    with_accuracy: float = 0.0
    within_network: float = 0.0

    @classmethod
    def of(cls, accuracy: FloatArray, left: FloatArray, network: IntArray) -> ErrorCorrelation:
        """From errors (n,) of accuracy and (k,) of what has left by early exits, of the networks (k,) given.

        Drawn towards 0 by :data:`PRIOR_NETWORKS`; a network counts the same however many exits it has.
        """
        n_exits = np.bincount(network, minlength=len(accuracy)).astype(np.float64)
        total = np.bincount(network, weights=left, minlength=len(accuracy))
        square = np.bincount(network, weights=left**2, minlength=len(accuracy))
        some, many = n_exits > 0, n_exits > 1
        mean_square = float((square[some] / n_exits[some]).mean())
        crossed = float((accuracy[some] * total[some] / n_exits[some]).mean())
        scale = float(np.sqrt(mean_square * (accuracy[some] ** 2).mean()))
        n_some, n_many = int(some.sum()), int(many.sum())
        with_accuracy = crossed / max(scale, 1e-12) * n_some / (n_some + PRIOR_NETWORKS)
        within = 0.0
        if n_many:
            pairs = (total[many] ** 2 - square[many]) / (n_exits[many] * (n_exits[many] - 1.0))
            within = float(pairs.mean()) / max(mean_square, 1e-12) * n_many / (n_many + PRIOR_NETWORKS)
        with_accuracy = float(np.clip(with_accuracy, -MAX_CORRELATION, MAX_CORRELATION))
        # What goes with the accuracy is common to the exits of a network.
        return cls(with_accuracy, float(np.clip(within, with_accuracy**2, 1.0)))


class JointExitModel:
    """Predicts accuracy and shares of early-exit networks.

    Args:
        seed: of folds.
        accuracy_candidates, share_candidates: kinds of model to choose from, the preferred one first.
    """

    def __init__(
        self, *, seed: int = 0, accuracy_candidates: Sequence[str] = ACCURACY_CANDIDATES,
        share_candidates: Sequence[str] = SHARE_CANDIDATES,
    ) -> None:  # fmt: skip
        self.seed = seed
        self.accuracy_candidates, self.share_candidates = tuple(accuracy_candidates), tuple(share_candidates)
        self.correlation = ErrorCorrelation()
        self._accuracy: _Quantity | None = None
        self._left: _Quantity | None = None
        self._knows_threshold = False

    def fit(self, inputs: ExitInputs, accuracy: FloatArray, shares: FloatArray, n_samples: IntArray) -> Self:
        """Fit to n measured networks.

        What repeats another network to the last digit is the same training told twice (networks that differ in their
        mapping alone, say) and counts once.

        Args:
            accuracy: (n,) share right under the controller.
            shares: (n, e_max) shares of samples that left at each exit in use; what stands past a network's last
                exit is ignored.
            n_samples: (n,) samples that these are of.

        Raises:
            ModelError: shapes that do not fit, values outside 0..1, or shares that do not add up to one.
        """
        accuracy, shares, counts = _checked(inputs, accuracy, shares, n_samples)
        kept = _distinct(inputs, accuracy, shares)
        if len(kept) < len(inputs):
            inputs, accuracy, counts = inputs.take(kept), accuracy[kept], counts[kept]
            shares = shares[kept, : inputs.n_exits.max()]
        groups, early, network = inputs.placement(), inputs.is_early, inputs.network
        accuracy_rows = _training_rows(network_rows(inputs), accuracy, counts, groups)
        self._accuracy = _Quantity.fit("accuracy", accuracy_rows, self.accuracy_candidates, seed=self.seed)
        self._left, self.correlation = None, ErrorCorrelation()
        self._knows_threshold = inputs.threshold is not None
        if early.any():
            left = np.cumsum(shares, axis=1)[network, inputs.index][early]
            of = network[early]
            left_rows = _training_rows(exit_rows(inputs), left, counts[of], groups[of])
            self._left = _Quantity.fit("left_by_exit", left_rows, self.share_candidates, seed=self.seed)
            if len(self._accuracy.errors) and len(self._left.errors):
                self.correlation = ErrorCorrelation.of(self._accuracy.errors, self._left.errors, of)
        return self

    @property
    def summaries(self) -> tuple[ModelSummary, ...]:
        """The models in use, and why: of accuracy and, where networks have early exits, of what left by them."""
        return tuple(quantity.summary for quantity in (self._accuracy, self._left) if quantity is not None)

    def mean(self, inputs: ExitInputs) -> tuple[FloatArray, FloatArray]:
        """Accuracy (n,) and shares (n, e_max) at the models' means: all that a search on the mean needs.

        Raises:
            ModelError: as :meth:`draws`.
        """
        accuracy = self._fitted(self._accuracy, inputs).model.mean(network_rows(inputs))[:, 0]
        left = np.zeros(0)
        if inputs.is_early.any():
            left = self._fitted(self._left, inputs).model.mean(exit_rows(inputs))[:, 0]
        return expit(accuracy), _shares(inputs, left)

    def draws(self, inputs: ExitInputs, n_draws: int, seed: int, *, noise: bool = False) -> ExitDraws:
        """Joint draws: over networks, over exits, and of accuracy with shares.

        Args:
            noise: add what another training and test of the same network would differ by.  Without it a draw
                is a function: the same network, the same value, whatever the others are.

        Raises:
            ModelError: not fitted, or networks with (without) thresholds where those seen were without (with).
        """
        accuracy = self._fitted(self._accuracy, inputs).draws(network_rows(inputs), n_draws, seed)
        rng = np.random.default_rng([seed, n_draws])
        of_accuracy = rng.standard_normal(accuracy.off.shape)
        values = accuracy.mean + accuracy.sd * accuracy.off
        if noise:
            values += accuracy.noise_sd * of_accuracy
        early, network = inputs.is_early, inputs.network
        left = np.zeros((n_draws, 0))
        if early.any():
            drawn, of = (
                self._fitted(self._left, inputs).draws(exit_rows(inputs), n_draws, seed + 1),
                network[early],
            )
            shared, within = self.correlation.with_accuracy, self.correlation.within_network
            own = np.sqrt(1.0 - shared**2)
            left = drawn.mean + drawn.sd * (own * drawn.off + shared * accuracy.off[:, of])
            if noise:
                of_network = rng.standard_normal(accuracy.off.shape)
                shock = shared * of_accuracy + np.sqrt(within - shared**2) * of_network
                of_exit = rng.standard_normal(left.shape)
                left += drawn.noise_sd * (shock[:, of] + np.sqrt(1.0 - within) * of_exit)
        return ExitDraws(expit(values), _shares(inputs, left))

    def _fitted(self, quantity: _Quantity | None, inputs: ExitInputs) -> _Quantity:
        if self._accuracy is None:
            raise ModelError("the model of exits has not been fitted; call fit first")
        if quantity is None:
            raise ModelError(
                "no network that the model of exits was fitted to has an early exit; measure some"
            )
        if self._knows_threshold != (inputs.threshold is not None):
            known, asked = ("with", "without") if self._knows_threshold else ("without", "with")
            raise ModelError(f"fitted to networks {known} thresholds, asked about networks {asked} them")
        return quantity


@dataclass(frozen=True)
class _Drawn:
    """Draws of k rows on the logit scale, taken apart.

    Attributes:
        mean, sd, noise_sd: (k,).
        off: (s, k) draws less the mean, in ``sd``.
    """

    mean: FloatArray
    sd: FloatArray
    noise_sd: FloatArray
    off: FloatArray


@dataclass(frozen=True)
class _Quantity:
    """A model on the logit scale, with what rows held out say of it.

    Attributes:
        errors: (k,) of the training rows held out, in predicted standard deviations; empty where networks are too
            few to hold some out.
        factor: on standard deviations.
    """

    model: Model
    summary: ModelSummary
    errors: FloatArray
    factor: float
    _paths: dict[tuple[int, int], Paths] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(cls, name: str, rows: TrainingRows, candidates: Sequence[str], *, seed: int) -> _Quantity:
        compare = len(rows.y) >= ROWS_PER_FEATURE * rows.x.shape[1]
        model, summary = select_model(name, "logit", rows, candidates=candidates, seed=seed, score=compare)
        if summary.n_groups < MIN_CV_GROUPS:
            return cls(model, summary, np.zeros(0), 1.0)
        errors = held_out_errors(summary.chosen, rows, seed=seed)
        held_out = HeldOut(errors, np.zeros(len(errors), dtype=np.bool_), rows.groups)
        return cls(model, summary, errors, learn_correction(held_out).factor)

    def draws(self, rows: FloatArray, n_draws: int, seed: int) -> _Drawn:
        found = self.model.predict(rows)
        mean, sd = found.mean[:, 0], np.sqrt(found.var_epistemic[:, 0])
        off = (self._kept_paths(n_draws, seed)(rows)[:, :, 0] - mean) / sd
        return _Drawn(mean, self.factor * sd, self.factor * np.sqrt(found.var_noise[:, 0]), off)

    def _kept_paths(self, n_draws: int, seed: int) -> Paths:
        """Drawing functions costs more than evaluating them at a generation's networks: a search asks for the same."""
        if (n_draws, seed) not in self._paths:
            while len(self._paths) >= KEPT_PATHS:
                del self._paths[next(iter(self._paths))]
            self._paths[n_draws, seed] = self.model.paths(n_draws, seed)
        return self._paths[n_draws, seed]


def _shares(inputs: ExitInputs, left: FloatArray) -> FloatArray:
    """Shares (..., n, e_max) from logits (..., r - n) of what has left by each early exit."""
    by_exit = np.ones((*left.shape[:-1], len(inputs.network)))
    by_exit[..., inputs.is_early] = expit(left)
    cumulative = np.maximum.accumulate(inputs.padded(by_exit, 1.0), axis=-1)
    return np.diff(cumulative, axis=-1, prepend=0.0)


def _distinct(inputs: ExitInputs, accuracy: FloatArray, shares: FloatArray) -> IntArray:
    """Rows (k,) of the networks, ascending, without those that an earlier one is equal to in all that is told of them."""
    told = [inputs.backbone_macs, inputs.head_layers, inputs.segment_step, inputs.head_bits]
    columns = [inputs.padded(values, 0.0) for values in told] + [shares, accuracy[:, None]]
    if inputs.threshold is not None:
        columns.append(inputs.threshold[:, None])
    return np.sort(np.unique(np.hstack(columns), axis=0, return_index=True)[1])


def _training_rows(
    features: FloatArray, share: FloatArray, n_samples: FloatArray, groups: IntArray
) -> TrainingRows:
    """Rows (k, d) of shares of samples (k,) on the logit scale, at least half a sample away from 0 and 1."""
    p = np.clip(share, 0.5 / n_samples, 1.0 - 0.5 / n_samples)
    noise = 1.0 / (n_samples * p * (1.0 - p))
    return TrainingRows(features, logit(p), noise, groups, np.zeros(len(p)))


def _checked(
    inputs: ExitInputs, accuracy: FloatArray, shares: FloatArray, n_samples: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What was measured, as float64; shares 0 past a network's last exit."""
    accuracy, shares = np.asarray(accuracy, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    n, e_max = len(inputs), int(inputs.n_exits.max())
    counts = np.broadcast_to(np.asarray(n_samples, dtype=np.float64), (n,))
    if accuracy.shape != (n,) or shares.shape != (n, e_max):
        raise ModelError(
            f"accuracy {accuracy.shape} and shares {shares.shape} of {n} networks with up to {e_max} exits: "
            f"expected ({n},) and ({n}, {e_max})"
        )
    if (counts < 1).any():
        raise ModelError("'n_samples' must be at least 1: the number of samples that shares are of")
    shares = np.where(np.arange(e_max) < inputs.n_exits[:, None], shares, 0.0)
    for name, values in (("accuracy", accuracy[:, None]), ("shares", shares)):
        wrong = np.flatnonzero(~((values >= 0.0) & (values <= 1.0)).all(axis=1))
        if len(wrong):
            raise ModelError(f"network {wrong[0]}: '{name}' {values[wrong[0]]} must lie in 0..1")
    wrong = np.flatnonzero(np.abs(shares.sum(axis=1) - 1.0) > SUM_TOLERANCE)
    if len(wrong):
        row = int(wrong[0])
        raise ModelError(f"network {row}: shares {shares[row]} add up to {shares[row].sum():.6g}, not to one")
    return accuracy, shares, counts
