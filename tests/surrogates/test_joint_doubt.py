"""The doubt about a baseline and about what it misses is one posterior: against the textbook, and against rows left out."""

import numpy as np
import pytest

from hadas.surrogates.cost import cost_rows
from hadas.surrogates.cost_model import CostDraws, CostModel
from hadas.surrogates.fitting import Fitter
from hadas.surrogates.gp import GaussianProcess
from hadas.surrogates.kernels import covariance
from hadas.surrogates.left_out import left_out_spread
from hadas.surrogates.models import Design, model_from_state
from hadas.surrogates.slopes import at_own_rows
from hadas.surrogates.sums import SumRows, fit_sums
from hadas.surrogates.trend_doubt import CoefficientDoubt


def rows_and_slopes(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 2))
    return x, np.column_stack([x[:, 0], np.exp(x[:, 1]), np.ones(n)])


def textbook(model, own, x, slopes, at, slopes_at, noise, scale, target, weights):
    """Mean and variance (k,) of f + s . d, with f the fitted process and d standard normal, given all at once.

    ``target``: (n,) measured, less the process's constant.
    """
    scaled, asked = model._scaling(x), model._scaling(at)

    def prior(a, b, sa, sb):
        return scale**2 * covariance(own.hyper, a, b) + sa @ sb.T

    total = weights @ prior(scaled, scaled, slopes, slopes) @ weights.T + np.diag(noise)
    cross = prior(asked, scaled, slopes_at, slopes) @ weights.T
    own_variance = np.diag(prior(asked, asked, slopes_at, slopes_at))
    explained = np.einsum("ij,ji->i", cross, np.linalg.solve(total, cross.T))
    return cross @ np.linalg.solve(total, target), own_variance - explained


def by_parts(model, x, slopes, at, slopes_at):
    """The same of a process and its slopes, as predictors put them together."""
    doubt, shift = CoefficientDoubt(np.ones(3), np.eye(3)).joint(model.told, model.pull)
    left = (slopes_at - model.paths(2, 0).beside_mean(at).absorbed) @ doubt.root
    variance = model.predict(at).var_epistemic[:, 0] + (left**2).sum(axis=1)
    return model.without(x, slopes @ shift).mean(at)[:, 0] + slopes_at @ shift, variance


def test_single_rows_and_slopes_are_conditioned_together():
    x, slopes = rows_and_slopes(15, 0)
    at, slopes_at = rows_and_slopes(6, 1)
    at[0], slopes_at[0] = x[3], slopes[3]
    y = np.sin(2 * x[:, 0]) + 0.01 * np.random.default_rng(2).standard_normal(15)
    model = GaussianProcess(seed=0, max_iterations=20).fit(x, y[:, None]).with_slopes(x, slopes)
    own = model._outputs[0]
    constant = own.y_mean + own.y_scale * own.hyper.constant
    expected = textbook(
        model,
        own,
        x,
        slopes,
        at,
        slopes_at,
        own.y_scale**2 * own.left_over,
        own.y_scale,
        y - constant,
        np.eye(15),
    )
    mean, variance = by_parts(model, x, slopes, at, slopes_at)
    np.testing.assert_allclose(mean - constant, expected[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(variance, expected[1], rtol=1e-5, atol=1e-9)
    found = model.without(x, slopes @ np.ones(3)).paths(400, 0)
    beside, less = found.beside_mean(at), model.without(x, slopes @ np.ones(3))
    np.testing.assert_allclose(beside.mean, less.mean(at)[:, 0], rtol=1e-9)
    np.testing.assert_allclose(beside.draws, found(at)[:, :, 0], rtol=1e-9)
    error = beside.draws.std(axis=0) / np.sqrt(400)
    assert (np.abs(beside.draws.mean(axis=0) - beside.mean) < 5 * error + 1e-3).all()
    again = model_from_state(model.state())
    np.testing.assert_array_equal(again.told, model.told)
    np.testing.assert_array_equal(again.pull, model.pull)


def test_sums_and_slopes_are_conditioned_together():
    x, slopes = rows_and_slopes(18, 3)
    at, slopes_at = rows_and_slopes(5, 4)
    row = np.repeat(np.arange(6), 3)
    y = np.log(np.bincount(row, np.exp(0.2 * np.sin(x[:, 0]))))
    own = np.arange(6)
    rows = SumRows(x, np.zeros(18), row, y, np.full(6, 1e-4), np.zeros(6, dtype=bool), own, own, Design())
    model = fit_sums("q", "", rows, seed=0).with_slopes(x, slopes)
    own = model._posterior
    parts = at_own_rows(own.x, model._scaling(x), x)  # in the order in which the posterior has them
    # To first order, at what is known of the parts, the logarithm of a sum is the mean that it weighs them by.
    target = cho_product(own.cholesky, own.alpha) * own.scale
    expected = textbook(
        model, own, parts, at_own_rows(own.x, model._scaling(x), slopes), at, slopes_at,
        own.scale**2 * own.noise, own.scale, target, own.weights,
    )  # fmt: skip
    mean, variance = by_parts(model, x, slopes, at, slopes_at)
    np.testing.assert_allclose(mean - own.scale * own.hyper.constant, expected[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(variance, expected[1], rtol=1e-5, atol=1e-9)


def cho_product(lower, vector):
    return lower @ (lower.T @ vector)


def test_errors_of_networks_left_out_are_those_of_conditioning_without_them():
    rng = np.random.default_rng(5)
    root = rng.standard_normal((20, 20))
    total, off, size = root @ root.T + np.eye(20), rng.standard_normal(20) * 9, rng.uniform(1, 3, 20)
    groups, records = np.repeat(np.arange(5), 4), np.repeat(np.arange(10), 2)
    squares = []
    for group in range(5):
        held, kept = np.flatnonzero(groups == group), np.flatnonzero(groups != group)
        told = np.linalg.solve(total[np.ix_(kept, kept)], total[np.ix_(kept, held)])
        errors = off[held] - told.T @ off[kept]
        left = total[np.ix_(held, held)] - total[np.ix_(held, kept)] @ told
        for record in np.unique(records[held]):
            weight = size[held] * (records[held] == record)
            squares.append((weight @ errors) ** 2 / (weight @ left @ weight))
    inverse = np.linalg.inv(total)
    spread = left_out_spread(inverse, inverse @ off, size, groups, records)
    # Student's t of five networks: its 95 % point is 2.015, the normal's 1.645.
    assert spread == pytest.approx(np.sqrt(np.mean(squares)) * 2.015 / 1.645, rel=1e-3)
    assert left_out_spread(inverse, inverse @ off / 1e3, size, groups, records) == pytest.approx(
        1.225, abs=1e-3
    )
    three = groups < 3
    inverse = np.linalg.inv(total[np.ix_(three, three)])
    assert left_out_spread(inverse, 99 * off[three], size[three], groups[three], records[three]) == 1.0


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_measured_is_known_and_what_lies_far_is_not(toy, whole):
    """Stages measured one by one, and in sums: a design that was measured is known to about its noise."""
    from dataclasses import replace

    records = [replace(r, stages=()) for r in toy.cost_records] if whole else toy.cost_records
    model, _ = CostModel.fit(
        toy.table, cost_rows(toy.space, toy.table, records), fitter=Fitter(("gp",)), seed=0
    )

    def sd_of_total(backbone, exits, setting):
        stages = toy.space.workload(backbone, n_classes=toy.n_classes).stages(exits)
        drawn, _ = CostDraws(model, 300, 1, noise=False)(stages, [setting] * len(stages))
        return np.log(drawn.sum(axis=1)).std()

    measured = [sd_of_total(r.backbone, [p for p, _ in r.heads], r.actual) for r in toy.cost_records[::5]]
    far = sd_of_total(toy.space.largest, [], toy.table.settings[0])
    assert np.median(measured) < 0.012
    assert far > 2 * np.median(measured)
