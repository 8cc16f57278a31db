"""A physical trend under another model: what it recovers, where it holds, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.errors import ModelError
from hadas.surrogates.models import Design, KernelPart, make_model, model_from_state
from hadas.surrogates.roofline import Roofline, fit_roofline

TERMS = (0, 1, 2)


def roofline(n, seed=0):
    """Columns: 1, work/clock, bytes/clock, then two logs of clocks; a sum of terms times a slow bend."""
    rng = np.random.default_rng([8, seed])
    clock, memory = rng.uniform(0.2, 1.4, n), rng.uniform(0.8, 1.9, n)
    work = rng.uniform(1, 30, n)
    terms = np.stack([np.ones(n), work / clock, work / memory], axis=1)
    x = np.column_stack([terms, np.log(clock), np.log(memory)])
    y = np.log(terms @ [2.0, 5.0, 1.0]) + 0.05 * np.sin(3 * np.log(clock))
    return x, y[:, None], np.log(terms @ [2.0, 5.0, 1.0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 100), min_size=3, max_size=3), st.integers(0, 5))
def test_recovers_a_sum_of_terms(coefficients, seed):
    """Without noise the coefficients are found, whatever their sizes and the value's unit."""
    x, _, _ = roofline(40, seed)
    terms = x[:, TERMS]
    found = fit_roofline(terms, np.log(terms @ coefficients))
    np.testing.assert_allclose(found.coefficients, coefficients, rtol=1e-3)
    np.testing.assert_allclose(found.log_value(terms), np.log(terms @ coefficients), atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1.5, 2.0, 3.0]), st.lists(st.floats(1, 10), min_size=4, max_size=4))
def test_recovers_resources_that_overlap(overlap, coefficients):
    """Exponent and coefficients of two resources of two terms, from values alone."""
    terms = np.random.default_rng(1).uniform(0.1, 3, (80, 4)) ** 2
    weighted = terms * coefficients
    parts = np.stack([weighted[:, :2].sum(axis=1), weighted[:, 2:].sum(axis=1)], axis=1)
    value = (parts**overlap).sum(axis=1) ** (1 / overlap)
    found = fit_roofline(terms, np.log(value), np.array([0, 0, 1, 1]))
    assert found.overlap == overlap
    np.testing.assert_allclose(found.coefficients, coefficients, rtol=0.02)
    np.testing.assert_allclose(found.parts(terms), parts, rtol=0.02)
    np.testing.assert_allclose(found.shares(terms)[:, 0], parts[:, 0] / parts.sum(axis=1), atol=0.01)
    assert (found.log_value(terms) >= np.log(found.parts(terms).max(axis=1)) - 1e-12).all()


def test_trend_is_unbiased_on_the_log_scale():
    """Noise of 50 % must not pull the sum down, as plain relative errors do."""
    rng = np.random.default_rng(0)
    terms = rng.uniform(1, 5, (4000, 1))
    found = fit_roofline(terms, np.log(3 * terms[:, 0]) + 0.5 * rng.standard_normal(4000))
    assert found.coefficients[0] == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize("wild", [-30.0, 5.0, 30.0])
def test_a_value_known_to_be_vague_does_not_move_the_trend(wild):
    """One row off by e^30 that admits a variance of 100: the coefficients are those of the other rows."""
    x, y, _ = roofline(30)
    rng = np.random.default_rng(4)
    y, noise = y[:, 0] + 0.03 * rng.standard_normal(30), np.full(30, 0.03**2)
    rest = np.arange(30) != 7
    others = fit_roofline(x[rest][:, TERMS], y[rest], noise_variance=noise[rest])
    y[7] += wild
    noise[7] = 100.0
    resource = np.array([0, 0, 1])
    moved = fit_roofline(x[:, TERMS], y, noise_variance=noise)
    np.testing.assert_allclose(moved.log_value(x[:, TERMS]), others.log_value(x[:, TERMS]), atol=2e-3)
    lapped = fit_roofline(x[:, TERMS], y, resource, noise)
    alone = fit_roofline(x[rest][:, TERMS], y[rest], resource, noise[rest])
    np.testing.assert_allclose(lapped.log_value(x[:, TERMS]), alone.log_value(x[:, TERMS]), atol=5e-3)
    assert fit_roofline(x[:, TERMS], y).coefficients != pytest.approx(others.coefficients, rel=0.05)


@pytest.mark.parametrize("overlap", [1.0, 2.0, 3.0])
def test_slopes_are_derivatives_by_the_coefficients(overlap):
    """Against finite differences, for terms that add up and resources that overlap; also of a zero."""
    terms = np.random.default_rng(2).uniform(0.1, 3, (20, 4))
    resource = np.array([0, 2, 2, 0]) if overlap > 1 else np.zeros(4, dtype=int)
    coefficients = np.array([2.0, 1.0, 0.0, 0.5])
    slopes = Roofline(coefficients, resource, overlap, 1e-9).slopes(terms)
    for j in range(4):
        step = 1e-6 * (np.arange(4) == j)
        up, down = (
            Roofline(coefficients + s, resource, overlap, 1e-9).log_value(terms) for s in (step, -step)
        )
        np.testing.assert_allclose(slopes[:, j], (up - down) / 2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["trend+gp", "trend+ridge", "trend+xgb"])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_no_surer_than_so_few_rows_allow(kind, n):
    """As many rows as terms, or fewer: the trend goes through all of them, and is not sure of others."""
    rows, truth, _ = roofline(100, seed=9)
    terms = (*TERMS, 5)
    z = []
    for seed in range(3):
        x, y, _ = roofline(n, seed)
        fourth = np.random.default_rng(seed).uniform(1, 30, (n, 1))
        model = make_model(kind, "y", "log ms", seed=0, quick=True, design=Design(terms=terms))
        model.fit(np.hstack([x, fourth]), y)
        found = model.predict(np.hstack([rows, np.random.default_rng(8).uniform(1, 30, (100, 1))]))
        z.append((found.mean - truth) / found.sd_total)
    assert np.sqrt(np.mean(np.square(z))) < 3
    assert (np.abs(z) < 1.645).mean() > 0.7


@pytest.mark.parametrize("kind", ["trend+gp", "trend+xgb"])
def test_a_dozen_rows_around_four_coefficients_cover_what_they_claim(kind):
    """What the residual's model explains was bent by the trend first: 90 % intervals of new rows hold."""
    covered = []
    for seed in range(4):
        x, y, _ = roofline(12, seed)
        rows, truth, _ = roofline(100, seed + 50)
        model = make_model(kind, "y", "log ms", seed=0, quick=True, design=Design(terms=TERMS))
        found = model.fit(x, y + 0.01 * np.random.default_rng(seed).standard_normal((12, 1))).predict(rows)
        covered.append(np.abs(found.mean - truth) < 1.645 * found.sd_total)
    assert 0.8 < np.mean(covered) < 0.995


def test_draws_of_few_rows_scatter_as_predicted():
    """With three rows most doubt is of the coefficients: draws share it, and it fades with more rows."""
    rows, _, _ = roofline(40, seed=9)
    sds = []
    for n in (3, 30):
        x, y, _ = roofline(n)
        model = make_model("trend+ridge", "y", "log ms", seed=0, quick=True, design=Design(terms=TERMS))
        found = model.fit(x, y).predict(rows)
        draws = model.paths(3000, 2)(rows)
        np.testing.assert_allclose(draws.var(axis=0), found.var_epistemic, rtol=0.15)
        off = (draws.mean(axis=0) - found.mean) / np.sqrt(found.var_epistemic)
        assert np.abs(off).max() < 0.1
        sds.append(np.sqrt(found.var_epistemic).mean())
    assert sds[1] < 0.3 * sds[0]


def test_joint_draws_scatter_as_predicted_and_need_a_gaussian_process():
    x, y, _ = roofline(12)
    rows, _, _ = roofline(20, seed=9)
    design = Design((KernelPart((3, 4)),), terms=TERMS)
    model = make_model("trend+gp", "y", "log ms", seed=0, quick=True, design=design).fit(x, y)
    found, draws = model.predict(rows), model.joint_draws(rows, 4000, 2)
    np.testing.assert_allclose(draws.var(axis=0), found.var_epistemic, rtol=0.15)
    off = (draws.mean(axis=0) - found.mean) / np.sqrt(found.var_epistemic)
    assert np.abs(off).max() < 0.1
    trees = make_model("trend+xgb", "y", "log ms", seed=0, quick=True, design=design).fit(x, y)
    with pytest.raises(ModelError, match="no Gaussian process"):
        trees.joint_draws(rows, 4, 2)


def test_doubt_of_a_term_that_was_never_seen():
    """Work that was zero in all rows has no coefficient: a row that has it may cost anything."""
    x, y, _ = roofline(40)
    x[:, 2] = 0.0
    y = np.log(x[:, [0, 1]] @ [2.0, 5.0])[:, None]
    model = make_model("trend+gp", "y", "log ms", seed=0, quick=True, design=Design(terms=TERMS)).fit(x, y)
    other = x[:5].copy()
    other[:, 2] = 50.0
    known, unknown = model.predict(x[:5]).var_epistemic, model.predict(other).var_epistemic
    assert (unknown > 100 * known).all()


def test_coefficients_are_never_negative():
    """A term that would have to be subtracted is left out."""
    x, _, _ = roofline(50)
    model = make_model("trend+gp", "latency_ms", "log ms", seed=0, quick=True, design=Design(terms=TERMS))
    model.fit(x, np.log(x[:, 1] + 30.0 - x[:, 2])[:, None])
    assert (model.roofline.coefficients >= 0).all()
    assert model.roofline.coefficients[2] == 0


def test_bends_around_the_trend_are_learned():
    x, y, _ = roofline(40)
    rows, truth, _ = roofline(200, seed=1)
    design = Design(terms=TERMS)
    model = make_model("trend+gp", "y", "log ms", seed=0, design=design).fit(x, y)
    plain = make_model("gp", "y", "log ms", seed=0).fit(x[:, 3:], y)
    error = np.sqrt(((model.mean(rows) - truth) ** 2).mean())
    assert error < 0.02
    assert error < 0.1 * np.sqrt(((plain.mean(rows[:, 3:]) - truth) ** 2).mean())


@pytest.mark.parametrize("kind", ["trend+gp", "trend+xgb"])
def test_physics_holds_far_from_the_rows(kind):
    """A hundred times the work of any training row: a mean function knows, the rows alone do not."""
    x, y, _ = roofline(60)
    model = make_model(kind, "y", "log ms", seed=0, quick=True, design=Design(terms=TERMS)).fit(x, y)
    far = x[:5].copy()
    far[:, 1:3] *= 100
    np.testing.assert_allclose(model.mean(far)[:, 0], np.log(far[:, TERMS] @ [2.0, 5.0, 1.0]), atol=0.2)


def test_collinear_terms_and_a_constant_target():
    x, y, _ = roofline(30)
    twice = np.column_stack([x, x[:, 1]])
    design = Design(terms=(0, 1, 2, 5))
    rows, truth, _ = roofline(50, seed=2)
    model = make_model("trend+gp", "y", "", seed=0, quick=True, design=design).fit(twice, y)
    np.testing.assert_allclose(model.mean(np.column_stack([rows, rows[:, 1]])), truth, atol=0.05)
    flat = make_model("trend+gp", "y", "", seed=0, quick=True, design=design).fit(twice, np.full_like(y, 7.5))
    np.testing.assert_allclose(flat.mean(twice), 7.5, atol=1e-3)


def test_a_row_without_any_term_still_gets_a_value():
    x, y, _ = roofline(30)
    model = make_model("trend+gp", "y", "", seed=0, quick=True, design=Design(terms=TERMS)).fit(x, y)
    empty = x[:1].copy()
    empty[0, :3] = 0
    assert np.isfinite(model.mean(empty)).all()


@pytest.mark.parametrize("kind", ["trend+gp", "trend+xgb"])
def test_saved_model_is_the_same_model(kind):
    """Means, variances and draws survive a round trip bit for bit; NaN targets are left out."""
    x, y, _ = roofline(30)
    y[3] = np.nan
    design = Design((KernelPart((3,)), KernelPart((3, 4))), terms=TERMS, term_resources=(0, 0, 1))
    model = make_model(kind, "y", "log ms", seed=0, quick=True, design=design).fit(x, y)
    again = model_from_state(model.state())
    one, two = model.predict(x), again.predict(x)
    for field in ("mean", "var_epistemic", "var_noise"):
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
    np.testing.assert_array_equal(model.paths(3, 1)(x), again.paths(3, 1)(x))
    np.testing.assert_array_equal(model.mean(x), one.mean)
    draws = model.paths(400, 2)(x)[:, :, 0]
    assert np.abs(draws.mean(axis=0) - one.mean[:, 0]).max() < 0.5 * np.sqrt(one.var_epistemic).max()


@pytest.mark.parametrize(
    ("design", "x_sign", "says"),
    [
        (Design(), 1, "no columns of physical terms"),
        (Design((KernelPart((1, 3)),), terms=TERMS), 1, "which are terms"),
        (Design(terms=TERMS), -1, "never negative"),
        (Design(terms=TERMS, term_resources=(0, 1)), 1, "resources of 2"),
    ],
)
def test_refuses_what_is_no_trend(design, x_sign, says):
    x, y, _ = roofline(10)
    with pytest.raises(ModelError, match=says):
        make_model("trend+gp", "y", "", seed=0, quick=True, design=design).fit(x_sign * x, y)
