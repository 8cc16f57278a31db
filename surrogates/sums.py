"""A Gaussian process of parts, learned from sums of them.

Measured is y = c z + log(sum over parts j of exp(o_j + f(x_j))) + noise, where o_j is known, f is a Gaussian
process and c the unknown log factor of values with z = 1 (programs that fuse their parts).  To first
order the log of a sum is the mean of its parts' f, weighted by their shares in the sum, so the posterior is
that of a Gaussian process observed through a matrix of weights.  Shares follow from f, so both are found in
turns (Gauss-Newton); hyper-parameters are fitted to the parts as attributed so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky
from scipy.sparse import csr_array

from ..errors import ModelError
from .checks import FEW_ROWS_SCALE, Scaling
from .gp_fit import MIN_NOISE, fit_hyper_parameters
from .kernels import HyperParameters, covariance
from .left_out import left_out_spread
from .models import Design, IntArray, KernelPart
from .prediction import FloatArray
from .sum_process import SumPosterior, SumProcess
from .threads import single_thread

MAX_PARTS = 1500
"""Distinct parts that a posterior is conditioned on; of more, those of a random subset of the values."""

MAX_VALUES = 2000
"""Values that it is conditioned on, repeats counted as one; memory grows with their square."""

FIT_PARTS = 400
"""Parts that hyper-parameters are fitted to."""

N_ROUNDS = 8
"""Gauss-Newton steps at most; three or four are enough where the known part is good."""


@dataclass(frozen=True)
class SumRows:
    """n measured sums of m parts in all.

    Attributes:
        x: (m, d) features of the parts.
        offset: (m,) known part o_j of each part's log.
        row: (m,) which value each part belongs to, ascending; every value has one.
        y: (n,) logs of the values.
        noise_variance: (n,) known variances of them.
        fused: (n,) z.
        groups: (n,) index of the network of each value; records: (n,) of the network under one setting.
        design: what is known of the feature columns.
    """

    x: FloatArray
    offset: FloatArray
    row: IntArray
    y: FloatArray
    noise_variance: FloatArray
    fused: NDArray[np.bool_]
    groups: IntArray
    records: IntArray
    design: Design

    @cached_property
    def starts(self) -> IntArray:
        """(n,) first part of each value."""
        return np.searchsorted(self.row, np.arange(len(self.y)))

    def take(self, rows: NDArray[np.bool_]) -> SumRows:
        """The values (n,) chosen by a mask."""
        parts = rows[self.row]
        kept = np.cumsum(rows) - 1
        return replace(
            self, x=self.x[parts], offset=self.offset[parts], row=kept[self.row[parts]], y=self.y[rows],
            noise_variance=self.noise_variance[rows], fused=self.fused[rows], groups=self.groups[rows],
            records=self.records[rows],
        )  # fmt: skip

    def log_sums(self, f: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Logs (n,) of the sums for part residuals (m,), and the share (m,) of each part in its sum."""
        log_part = self.offset + f
        top = np.maximum.reduceat(log_part, self.starts)
        part = np.exp(log_part - top[self.row])
        total = np.add.reduceat(part, self.starts)
        return top + np.log(total), part / total[self.row]


def fit_sums(name: str, unit: str, rows: SumRows, *, seed: int) -> SumProcess:
    """Fit to sums; values of one part, if there are any, say what a fused program's factor is.

    Raises:
        ModelError: no value.
    """
    if not len(rows.y):
        raise ModelError(f"'{name}': not one valid measurement to train on; measure some first")
    rows, single = _pooled(rows)
    kept = _capped(rows, seed)
    rows, single = rows.take(kept), single[kept]
    with single_thread():
        scaling = Scaling.of_inputs(rows.x)
        distinct, part = np.unique(scaling(rows.x), axis=0, return_inverse=True)
        part = np.asarray(part.reshape(-1), dtype=np.int64)
        parts = rows.design.parts or (KernelPart(tuple(range(rows.x.shape[1]))),)
        hyper = HyperParameters.default(rows.x.shape[1], parts)
        f, factor = np.zeros(len(rows.x)), 0.0
        for _ in range(2):
            scale, hyper = _fit_hyper(rows, distinct, part, f, factor, hyper, seed)
            posterior, f, factor = _solve(rows, single, distinct, part, hyper, scale)
        inverse = cho_solve((posterior.cholesky, True), np.eye(len(rows.y)))
        spread = left_out_spread(inverse, posterior.alpha, np.exp(rows.y), rows.groups, rows.records)
    return SumProcess(name, unit, seed, scaling, posterior, factor, spread)


def _pooled(rows: SumRows) -> tuple[SumRows, FloatArray]:
    """Repeats of the same sum as one value, and the variance (n,) of a single measurement of each.

    Repeats are averaged by their precision.  Where they scatter more than their known noise, by which all
    repeats are judged together, what is more is noise of each of them.
    """
    part = _index(rows.x)
    parts = np.split(part, rows.starts[1:])
    keys = [(bool(fused), *sorted(own.tolist())) for fused, own in zip(rows.fused, parts, strict=True)]
    first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
    kept = np.zeros(len(keys), dtype=np.bool_)
    kept[list(first.values())] = True
    owner = (np.cumsum(kept) - 1)[[first[key] for key in keys]]
    count = np.bincount(owner)
    if len(count) == len(keys):
        return rows, rows.noise_variance
    known, freedom = rows.noise_variance, len(keys) - len(count)
    squares = (rows.y - (np.bincount(owner, rows.y) / count)[owner]) ** 2
    expected = float((known * (1.0 - 1.0 / count[owner])).sum())
    single = np.maximum(known + max(0.0, float(squares.sum()) - expected) / freedom, 1e-12)
    precision = np.bincount(owner, 1.0 / single)
    pooled = replace(
        rows.take(kept), y=np.bincount(owner, rows.y / single) / precision, noise_variance=1.0 / precision
    )
    return pooled, count / precision


def _index(x: FloatArray) -> IntArray:
    """(m,) which of the distinct rows each row of (m, d) is."""
    return np.asarray(np.unique(x, axis=0, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def _capped(rows: SumRows, seed: int) -> NDArray[np.bool_]:
    """(n,) which values are conditioned on: of more than can be, or of more distinct parts, a random subset."""
    part = _index(rows.x)
    order = np.random.default_rng(seed).permutation(len(rows.y))
    rank = np.argsort(order)
    first = np.full(int(part.max()) + 1, len(order))
    np.minimum.at(first, part, rank[rows.row])
    n_parts = np.cumsum(np.bincount(first, minlength=len(order)))
    n_values = min(MAX_VALUES, int(np.searchsorted(n_parts, MAX_PARTS, side="right")))
    return np.asarray(rank < max(1, n_values))


def _fit_hyper(
    rows: SumRows, distinct: FloatArray, part: IntArray, f: FloatArray, factor: float,
    start: HyperParameters, seed: int,
) -> tuple[float, HyperParameters]:  # fmt: skip
    """Scale of f, and hyper-parameters in units of it, fitted to the parts as f attributes the values to them.

    Each part takes its value's misfit whole; how far that may be from the part's own is counted as
    noise, by the share that the other parts have in the value.
    """
    log_sum, share = rows.log_sums(f)
    misfit = rows.y - log_sum - factor * rows.fused
    target = f + misfit[rows.row]
    scale = float(target.std())
    # One value, or several that agree, say nothing of the scale; a log's natural one is 1.
    scale = float(np.hypot(scale, FEW_ROWS_SCALE / len(rows.y) ** 2)) if scale > 1e-9 else 1.0 / len(rows.y)
    others = (1.0 - share) ** 2 * float(target.var())
    noise = (rows.noise_variance[rows.row] + others) / scale**2
    if len(distinct) < 3:
        return scale, start
    # The same part in several values: the one that tells most of it, or the mean of those that tell as much.
    best = np.full(len(distinct), np.inf)
    np.minimum.at(best, part, noise)
    clearest = np.flatnonzero(noise <= best[part] * (1 + 1e-6))
    own, told = part[clearest], target[clearest] / scale
    of_part = np.bincount(own, told) / np.bincount(own)
    best = np.maximum(best, np.bincount(own, (told - of_part[own]) ** 2) / np.bincount(own) ** 2)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(distinct))[:FIT_PARTS])
    return scale, fit_hyper_parameters(distinct[chosen], of_part[chosen], best[chosen], start, 60)


def _solve(
    rows: SumRows,
    single: FloatArray,
    distinct: FloatArray,
    part: IntArray,
    hyper: HyperParameters,
    scale: float,
) -> tuple[SumPosterior, FloatArray, float]:
    """Posterior, residuals (m,) of the parts, and c, by Gauss-Newton from f = 0 on.

    Args:
        single: (n,) variance of one measurement of each value.
    """
    prior = covariance(hyper, distinct, distinct)
    noise = rows.noise_variance / scale**2 + max(hyper.noise_variance, MIN_NOISE)
    z = rows.fused.astype(np.float64)
    tells = bool(z.any() and (z == 0).any())
    f, factor = np.zeros(len(rows.x)), 0.0
    for _ in range(N_ROUNDS):
        log_sum, share = rows.log_sums(f)
        # Relative errors of independent parts cancel in a sum, so a single part's is the larger.
        of_part = single / np.add.reduceat(share**2, rows.starts)
        typical = scale**2 * max(hyper.noise_variance, MIN_NOISE) + float(np.median(of_part))
        posterior = SumPosterior(
            hyper, distinct, rows.row, part, share, noise, np.empty((0, 0)), np.empty(0), scale, typical,
            np.empty((len(distinct), 0)), np.zeros(len(distinct)),
        )  # fmt: skip
        weights = csr_array((share, (rows.row, part)), shape=(len(z), len(distinct)))
        # To first order log_sum(f + d) = log_sum(f) + weights . d.
        observed = (rows.y - log_sum + np.add.reduceat(share * f, rows.starts)) / scale - hyper.constant
        total = np.asarray(weights @ (weights @ prior).T)
        total[np.diag_indices_from(total)] += noise
        factor_of = np.ascontiguousarray(cholesky(total, lower=True))
        if tells:
            solved = cho_solve((factor_of, True), z)
            factor = float(solved @ observed / (solved @ z)) * scale
        alpha = cho_solve((factor_of, True), observed - factor / scale * z)
        posterior = replace(posterior, cholesky=factor_of, alpha=alpha)
        step = scale * (hyper.constant + prior @ (weights.T @ alpha))[part]
        settled = float(np.max(np.abs(step - f))) < 1e-4
        f = step
        if settled:
            break
    return posterior, f, factor


def sums_of(values: FloatArray, starts: Sequence[int] | IntArray) -> FloatArray:
    """Sums (n, k) of blocks of rows (m, k) that begin at ``starts`` (n,)."""
    return np.asarray(np.add.reduceat(values, starts, axis=0), dtype=np.float64)
