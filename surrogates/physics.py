"""The physical parts of latency and power: sums of terms with coefficients that are never negative.

They stand beside the models and not inside them (as :mod:`.trend` does), because a sum of stages has to be
attributed to its parts before a model sees them, and because the shares of latency are features of power, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .features import ClockRoles, StageWork
from .few_rows import widening_of_few
from .prediction import FloatArray
from .roofline import Roofline, fit_roofline
from .threads import single_thread
from .trend import MISFIT
from .trend_doubt import CoefficientDoubt

N_TERMS = 7
N_POWER_TERMS = 12

MOST_DOUBT = float(np.log(5.0))
"""The furthest that doubt about coefficients moves a logarithm: third powers of clocks far from the rows would
move it by orders of magnitude, where no chip lies."""


@dataclass(frozen=True)
class LatencyBaseline:
    """A roofline-like sum: latency_ms = coefficients . terms, all coefficients >= 0.

    Attributes:
        coefficients: (7,) in ms per unit of :func:`baseline_terms`.
        floor_ms: the least it says, for stages that lack every term the fit relied on.
    """

    coefficients: FloatArray
    floor_ms: float

    @classmethod
    def fit(
        cls, terms: FloatArray, log_latency: FloatArray, noise_variance: FloatArray | None = None
    ) -> LatencyBaseline:
        """Fit to n values: terms (n, 7), summed over the parts of each value, log ms (n,), and its known variance."""
        return cls(*_fit_sum(terms, log_latency, noise_variance))

    def __call__(self, terms: FloatArray) -> FloatArray:
        """Latency (n,), ms, of terms (n, 7)."""
        return np.asarray(np.maximum(terms @ self.coefficients, self.floor_ms))

    def shares(self, terms: FloatArray) -> FloatArray:
        """Shares (n, 3) of compute, memory and launches in the latency."""
        parts = terms * self.coefficients
        grouped = [parts[:, :2].sum(axis=1), parts[:, 2:4].sum(axis=1), parts[:, 4:6].sum(axis=1)]
        return np.asarray(np.stack(grouped, axis=1) / np.maximum(parts.sum(axis=1), self.floor_ms)[:, None])


def baseline_terms(work: StageWork, clocks_ghz: FloatArray, roles: ClockRoles) -> FloatArray:
    """Terms (n, 7) of n paired rows of stages and clocks.

    Dense and depthwise GMACs over the compute clock, GB over the memory and over the compute clock (GHz),
    layers over the compute clock, layers, and 1 per stage.
    """
    compute = roles.column(clocks_ghz, roles.compute)
    memory = roles.column(clocks_ghz, roles.memory)
    columns = (
        work.dense_macs * 1e-9 / compute,
        work.depthwise_macs * 1e-9 / compute,
        work.bytes_moved * 1e-9 / memory,
        work.bytes_moved * 1e-9 / compute,
        work.n_layers / compute,
        work.n_layers,
        np.ones(len(compute)),
    )
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class PowerBaseline:
    """Power of a stage, W: what a chip draws at rest, and what switches, by what keeps it busy.

    Switching takes activity x capacity x voltage^2 x frequency, and voltage rises with frequency at the upper
    end of a table, so the first three powers of the compute clock span what lies between.

    Attributes:
        coefficients: (12,) in W per unit of :func:`power_terms`.
        floor_w: the least it says.
    """

    coefficients: FloatArray
    floor_w: float

    @classmethod
    def fit(
        cls, terms: FloatArray, log_power: FloatArray, noise_variance: FloatArray | None = None
    ) -> PowerBaseline:
        """Fit to n values: terms (n, 12), averaged over the time of each value's parts, log W (n,), and its known variance."""
        return cls(*_fit_sum(terms, log_power, noise_variance))

    def __call__(self, terms: FloatArray) -> FloatArray:
        """Power (n,), W, of terms (n, 12)."""
        return np.asarray(np.maximum(terms @ self.coefficients, self.floor_w))


def _fit_sum(
    terms: FloatArray, log_value: FloatArray, noise_variance: FloatArray | None
) -> tuple[FloatArray, float]:
    roofline = fit_roofline(terms, log_value, noise_variance=noise_variance)
    return roofline.coefficients, roofline.floor


@dataclass(frozen=True)
class BaselineDoubt:
    """How unsure a baseline is, and models of what it misses.

    The baseline is fitted to the same values that its residuals come from, so with few of them these are small
    whatever it is worth elsewhere.

    Attributes:
        roofline: the baseline.
        coefficients: the doubt about its coefficients.
        widening: factor on deviations of draws of the residual from their mean: what the fit took of its scale.
        shift: (k,) mean deviations of the coefficients, in prior standard deviations.
    """

    roofline: Roofline
    coefficients: CoefficientDoubt
    widening: float
    shift: FloatArray

    @classmethod
    def of(
        cls, baseline: LatencyBaseline | PowerBaseline, terms: FloatArray, log_value: FloatArray,
        noise_variance: FloatArray, n_records: int,
    ) -> BaselineDoubt:  # fmt: skip
        """From the n values that it was fitted to: terms (n, k), logs (n,) and their known variances.

        Args:
            n_records: how many networks under how many clocks they are of; what a baseline cannot say of one
                is missed alike in all stages of it.
        """
        roofline = as_roofline(baseline)
        with single_thread():
            missed = log_value - roofline.log_value(terms)
            freedom = len(missed) - int((roofline.coefficients > 0).sum())
            widening = widening_of_few(len(missed), freedom)
            squares = (widening * missed) ** 2
            weight = 1.0 / (noise_variance + np.median(squares) + 1e-12)
            misfit = max(0.0, float(np.average(squares - noise_variance, weights=weight)))
            misfit += (MISFIT / n_records) ** 2
            doubt = CoefficientDoubt.of(roofline, terms, log_value, misfit + noise_variance)
        return cls(roofline, _of_records(doubt, n_records), widening, np.zeros(len(doubt.unit)))

    def slopes(self, terms: FloatArray) -> FloatArray:
        """(n, k) what one prior standard deviation of each coefficient adds to the logarithm at terms (n, k)."""
        return self.coefficients.slopes(self.roofline, terms)

    def joint(
        self, told: FloatArray, pull: FloatArray, left_out_spread: float, n_records: int
    ) -> BaselineDoubt:
        """Of a baseline whose residuals a Gaussian process learned: one posterior of both (see :mod:`.slopes`).

        Args:
            told: (k, k) what the rows tell of deviations along :meth:`slopes`, with the process among them.
            pull: (k,) where they pull these deviations.
            left_out_spread: errors of networks left out, in standard deviations (see :mod:`.left_out`).
        """
        with single_thread():
            doubt, shift = self.coefficients.joint(told, pull)
        doubt = _of_records(doubt, n_records)
        # Rounded, as sums may differ in the last bits with memory alignment.
        shift = np.array([float(f"{deviation:.6g}") for deviation in shift])
        return BaselineDoubt(self.roofline, doubt, self.widening * left_out_spread, shift)

    def shifted(self, terms: FloatArray) -> FloatArray:
        """(n,) what the mean deviations of the coefficients add to the logarithm at terms (n, k)."""
        with single_thread():
            return _limited(self.slopes(terms) @ self.shift)

    def moved(
        self, terms: FloatArray, n_draws: int, seed: int, absorbed: FloatArray | None = None
    ) -> FloatArray:
        """(s, n) by how much joint draws of the coefficients move the logarithm at terms (n, k).

        Args:
            absorbed: (n, k) what the process of :meth:`joint` takes up of the slopes there.
        """
        with single_thread():
            drawn = self.coefficients.draws(n_draws, seed)
            moved = self.coefficients.moved(self.roofline, terms, drawn, absorbed)
        return _limited(moved)


def _limited(moved: FloatArray) -> FloatArray:
    return np.asarray(MOST_DOUBT * np.tanh(moved / MOST_DOUBT))


def _of_records(doubt: CoefficientDoubt, n_records: int) -> CoefficientDoubt:
    """Student's t of the records: under one setting nothing tells apart what clocks govern."""
    return replace(doubt, root=widening_of_few(n_records, n_records) * doubt.root)


def as_roofline(baseline: LatencyBaseline | PowerBaseline) -> Roofline:
    """A baseline as what it is: a roofline whose terms all add up."""
    floor = baseline.floor_ms if isinstance(baseline, LatencyBaseline) else baseline.floor_w
    return Roofline(baseline.coefficients, np.zeros(len(baseline.coefficients), dtype=np.int64), 1.0, floor)


@dataclass(frozen=True)
class Physics:
    """Both baselines, and the doubt about them; what is of power is ``None`` without an energy counter."""

    latency: LatencyBaseline
    latency_doubt: BaselineDoubt
    power: PowerBaseline | None = None
    power_doubt: BaselineDoubt | None = None


def power_terms(shares: FloatArray, clocks_ghz: FloatArray, roles: ClockRoles) -> FloatArray:
    """Terms (n, 12) of n rows.

    1, powers 1 to 3 of the compute clock, the memory clock (GHz); the share of compute in the latency, alone
    and times powers 1 to 3 of the compute clock; the share of memory, alone and times either clock.
    """
    compute = roles.column(clocks_ghz, roles.compute)
    memory = roles.column(clocks_ghz, roles.memory)
    busy, moving = shares[:, 0], shares[:, 1]
    powers = [compute, compute**2, compute**3]
    columns = [
        np.ones(len(compute)), *powers, memory, busy, *(busy * power for power in powers),
        moving, moving * memory, moving * compute,
    ]  # fmt: skip
    return np.stack(columns, axis=1)
