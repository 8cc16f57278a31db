"""Stages learned from sums of them: cumulative rows of prefix programs, and networks measured as a whole."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.errors import ModelError
from hadas.surrogates.cost import cost_rows
from hadas.surrogates.cost_model import CostDraws, CostModel
from hadas.surrogates.fitting import Fitter
from hadas.surrogates.models import Design
from hadas.surrogates.predictor_set import PredictorSet
from hadas.surrogates.sum_process import SumProcess
from hadas.surrogates.sums import SumRows, fit_sums


@pytest.fixture(scope="module")
def records(toy):
    """Rows of seven backbones; with fewer, what is learned depends on their luck."""
    return toy.cost_records[:21]


def fitted_to(toy, records, seed=0):
    rows = cost_rows(toy.space, toy.table, records)
    return CostModel.fit(toy.table, rows, fitter=Fitter(("gp",)), seed=seed)[0]


@pytest.fixture(scope="module")
def unseen(toy):
    """Stages of unmeasured backbones at three settings, and their true latency and energy."""
    settings_ = [toy.table.settings[i] for i in (30, 77, 142)]
    pairs = [
        (stage, setting)
        for backbone in toy.unseen[:3]
        for stage in toy.space.workload(backbone, n_classes=10).unit_stages()
        for setting in settings_
    ]
    true = np.array([toy.true_stage_cost(stage, setting) for stage, setting in pairs])
    return [stage for stage, _ in pairs], [setting for _, setting in pairs], true.T


def errors(model, unseen):
    """Mean absolute relative error of latency and energy."""
    stages, at, true = unseen
    return [
        float(np.mean(np.abs(found / one - 1)))
        for found, one in zip(model.medians(stages, at), true, strict=True)
    ]


@pytest.fixture(scope="module")
def of_stages(toy, unseen, records):
    return errors(fitted_to(toy, records), unseen)


@pytest.fixture(scope="module")
def of_prefixes(toy, records):
    return fitted_to(toy, [toy.prefix_record(record) for record in records])


def test_cumulative_rows_teach_stages_nearly_as_well_as_their_own_rows(of_prefixes, of_stages, unseen):
    """One number per exit instead of one per stage, of the same device."""
    latency, energy = errors(of_prefixes, unseen)
    assert latency < 0.01
    assert latency < 2.0 * of_stages[0] + 0.002
    assert energy < 2.0 * of_stages[1] + 0.02


def test_whole_networks_teach_stages(toy, unseen, records):
    """Totals of networks, not one stage: the physical terms tell them apart."""
    model = fitted_to(toy, [replace(record, stages=()) for record in records])
    latency, energy = errors(model, unseen)
    assert latency < 0.03
    assert energy < 0.12


def test_intervals_of_stages_that_were_never_measured_alone_hold(of_prefixes, unseen):
    stages, at, (latency_ms, _) = unseen
    drawn, _ = CostDraws(of_prefixes, 200, 5, noise=True)(stages, at)
    rng = np.random.default_rng(6)
    measured = latency_ms * np.exp(0.01 * rng.standard_normal(len(latency_ms)))
    low, high = np.quantile(drawn, (0.05, 0.95), axis=0)
    assert 0.75 < np.mean((low <= measured) & (measured <= high)) <= 1.0
    assert np.median(high / low) < 1.15
    # Draws are functions: the same row twice is the same number, whatever else is asked.
    again, _ = CostDraws(of_prefixes, 200, 5, noise=True)(stages[4:6], at[4:6])
    np.testing.assert_allclose(again, drawn[:, 4:6], rtol=1e-7)


def test_a_fused_program_has_a_factor_of_its_own(toy, unseen, records):
    """Where both kinds of program were measured, stages stay stages."""
    half = len(records) // 2
    mixed = records[:half] + [toy.prefix_record(record, factor=0.92) for record in records[half:]]
    model = fitted_to(toy, mixed)
    assert isinstance(model.latency, SumProcess)
    assert np.exp(model.latency.log_factor) == pytest.approx(0.92, abs=0.01)
    assert errors(model, unseen)[0] < 0.01


def test_energies_of_the_whole_alone_are_enough(toy, unseen, of_stages, records):
    timed = [
        replace(record, stages=tuple(replace(stage, energy_mj=None) for stage in record.stages))
        for record in records
    ]
    latency, energy = errors(fitted_to(toy, timed), unseen)
    assert latency == pytest.approx(of_stages[0], rel=0.05)
    assert energy < 0.12


def sum_rows(sizes, seed, noise=1e-6):
    """Sums of exp(o + f) with f = 0.3 sin(2 x)."""
    rng = np.random.default_rng(seed)
    m = int(np.sum(sizes))
    x, offset = rng.uniform(-2, 2, (m, 1)), rng.normal(0, 0.5, m)
    row = np.repeat(np.arange(len(sizes)), sizes)
    y = np.log(np.bincount(row, weights=np.exp(offset + 0.3 * np.sin(2 * x[:, 0]))))
    fused = np.zeros(len(sizes), dtype=bool)
    own = np.arange(len(sizes))
    return SumRows(x, offset, row, y, np.full(len(sizes), noise), fused, own, own, Design())


def test_a_function_is_found_from_sums_of_its_exponentials():
    model = fit_sums("q", "", sum_rows([3] * 60, 1), seed=0)
    x = np.linspace(-1.8, 1.8, 25)[:, None]
    assert np.abs(model.mean(x)[:, 0] - 0.3 * np.sin(2 * x[:, 0])).max() < 0.05
    found = model.predict(x)
    assert (np.abs(found.mean - 0.3 * np.sin(2 * x)) < 4 * found.sd_total + 0.01).all()
    assert found.var_epistemic.mean() < 0.05 * model.predict(x + 40).var_epistemic.mean()
    drawn = model.paths(400, 3)(x)[:, :, 0]
    np.testing.assert_allclose(drawn.mean(axis=0), found.mean[:, 0], atol=0.03)


def test_sums_of_one_are_the_process_itself():
    """Posterior of single rows, by the textbook: k (K + S)^-1 y with the hyper-parameters that were found."""
    from hadas.surrogates.kernels import covariance

    rows = sum_rows([1] * 12, 2, noise=1e-3)
    model = fit_sums("q", "", rows, seed=0)
    hyper, scale = model._posterior.hyper, model._posterior.scale
    scaled, at = model._scaling(rows.x), model._scaling(np.array([[0.3], [1.1]]))
    total = covariance(hyper, scaled, scaled) + np.diag(1e-3 / scale**2 + hyper.noise_variance * np.ones(12))
    target = (rows.y - rows.offset) / scale - hyper.constant
    expected = scale * (hyper.constant + covariance(hyper, at, scaled) @ np.linalg.solve(total, target))
    np.testing.assert_allclose(model.mean(np.array([[0.3], [1.1]]))[:, 0], expected, rtol=1e-6)


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12), seed=st.integers(0, 2**20))
@settings(max_examples=25, deadline=None)
def test_shares_add_up_and_logs_of_sums_are_those_of_the_sums(sizes, seed):
    rows = sum_rows(sizes, seed)
    f = np.random.default_rng(seed).normal(size=len(rows.row))
    log_sum, share = rows.log_sums(f)
    np.testing.assert_allclose(np.bincount(rows.row, weights=share), 1.0)
    np.testing.assert_allclose(
        np.exp(log_sum), np.bincount(rows.row, weights=np.exp(rows.offset + f)), rtol=1e-12
    )
    kept = np.random.default_rng(seed).random(len(sizes)) < 0.6
    some = rows.take(kept)
    np.testing.assert_array_equal(some.log_sums(f[kept[rows.row]])[0], log_sum[kept])


def test_more_parts_than_the_cap_are_a_subset_of_the_values(monkeypatch):
    from hadas.surrogates import sums

    monkeypatch.setattr(sums, "MAX_PARTS", 40)
    model = fit_sums("q", "", sum_rows([3] * 30, 1), seed=0)
    assert len(model._posterior.x) <= 40
    assert np.isfinite(model.mean(np.zeros((1, 1)))).all()


def test_the_caps_count_distinct_parts_and_values_and_leave_no_cliff(monkeypatch):
    """One part more than the cap costs a value or two, however often the others share theirs."""
    from hadas.surrogates import sums

    rng = np.random.default_rng(4)
    part = rng.integers(0, 60, 400)  # 60 distinct parts in 200 sums of two
    x = part[:, None] / 30.0 - 1.0
    y = np.log(np.exp(0.3 * np.sin(2 * x[:, 0])).reshape(-1, 2).sum(axis=1))
    rows = SumRows(
        x,
        np.zeros(400),
        np.repeat(np.arange(200), 2),
        y,
        np.full(200, 1e-6),
        np.zeros(200, dtype=bool),
        np.arange(200),
        np.arange(200),
        Design(),
    )
    monkeypatch.setattr(sums, "MAX_PARTS", 59)
    kept = sums._capped(rows, 0)
    assert len(np.unique(rows.take(kept).x)) == 59
    assert kept.sum() > 60
    monkeypatch.setattr(sums, "MAX_VALUES", 25)
    assert sums._capped(rows, 0).sum() == 25
    assert len(fit_sums("q", "", rows, seed=0)._posterior.noise) == 25


def test_repeats_are_one_value_by_their_precision_and_in_any_order():
    """Whatever their order, and with the noise that their scatter shows."""
    rng = np.random.default_rng(9)
    one = sum_rows([2] * 12, 3)
    times = 30
    y = np.concatenate([one.y + 0.05 * rng.standard_normal(12) for _ in range(times)])
    variance = rng.choice([1e-6, 2e-3], 12 * times)

    def fitted(order):
        rows = SumRows(
            np.concatenate([one.x.reshape(12, 2, 1)[i % 12] for i in order]),
            np.concatenate([one.offset.reshape(12, 2)[i % 12] for i in order]),
            np.repeat(np.arange(12 * times), 2), y[order], variance[order], np.zeros(12 * times, dtype=bool), order % 12,
            order % 12, Design(),
        )  # fmt: skip
        return fit_sums("q", "", rows, seed=0)

    model, again = fitted(np.arange(12 * times)), fitted(rng.permutation(12 * times))
    assert len(model._posterior.noise) == 12
    x = np.linspace(-1.5, 1.5, 9)[:, None]
    for found in (model, again):
        # A part's own noise is sqrt 2 times that of a sum of two equal ones.
        assert np.sqrt(found.predict(x).var_noise[0, 0]) == pytest.approx(0.05 * np.sqrt(2), rel=0.25)
    np.testing.assert_allclose(again.mean(x), model.mean(x), atol=0.01)


def test_no_value_is_refused_and_single_rows_are_not_its_business():
    with pytest.raises(ModelError, match="not one valid measurement"):
        fit_sums("q", "", sum_rows([1], 0).take(np.array([False])), seed=0)
    with pytest.raises(ModelError, match="fit_sums"):
        fit_sums("q", "", sum_rows([2, 2], 0), seed=0).fit(np.zeros((2, 1)), np.zeros((2, 1)))


def test_costs_without_accuracies_and_the_other_way_round(toy, tmp_path):
    """What was not measured is refused when it is asked for, not before."""

    def fit(accuracy, costs):
        return PredictorSet.fit(
            toy.space, toy.table, accuracy, costs, n_classes=10, seed=0, candidates=("gp",)
        )

    costs = fit([], toy.cost_records[:4])
    costs.save(tmp_path / "costs")
    costs = PredictorSet.load(tmp_path / "costs", toy.space, toy.table)
    assert np.isfinite(costs.network_cost(toy.unseen, toy.table.default)[0]).all()
    for ask in (costs.final_accuracy, costs.exit_fractions, costs.draws(2, 0).final_accuracy):
        with pytest.raises(ModelError, match="fitted without a valid accuracy row"):
            ask(toy.unseen)
    accuracies = fit(toy.accuracy_records[:4], [replace(toy.cost_records[0], valid=False, reason="hot")])
    accuracies.save(tmp_path / "accuracies")
    accuracies = PredictorSet.load(tmp_path / "accuracies", toy.space, toy.table, target_id="whatever")
    assert np.isfinite(accuracies.final_accuracy(toy.unseen).mean).all()
    assert not accuracies.has_energy
    with pytest.raises(ModelError, match="fitted without a valid cost row"):
        accuracies.network_cost(toy.unseen, toy.table.default)
    with pytest.raises(ModelError, match=r"none of 0 accuracy rows and 0 cost rows"):
        fit([], [])
    target = toy.cost_records[0].target.target_id
    PredictorSet.load(tmp_path / "costs", toy.space, toy.table, target_id=target)
    with pytest.raises(ModelError, match=f"made for device {target}, not for other"):
        PredictorSet.load(tmp_path / "costs", toy.space, toy.table, target_id="other")


def test_some_rows_with_energy_and_some_without(toy):
    """Latencies of all rows are used, energies of those that have one."""
    half = 4
    bare = [
        replace(
            record, energy_mj=None, stages=tuple(replace(stage, energy_mj=None) for stage in record.stages)
        )
        for record in toy.cost_records[half : 2 * half]
    ]
    records = toy.cost_records[:half] + bare
    rows = cost_rows(toy.space, toy.table, records)
    _, (latency, power) = CostModel.fit(toy.table, rows, fitter=Fitter(("gp",)), seed=0)
    assert latency.summary.n_rows == sum(len(record.stages) for record in records)
    assert power.summary.n_rows == sum(len(record.stages) for record in records[:half])


def test_a_model_of_sums_says_the_same_from_its_state(of_prefixes, unseen):
    from hadas.surrogates.models import model_from_state

    x = of_prefixes.paired_rows(unseen[0], unseen[1])[0].x
    for model in (of_prefixes.latency, of_prefixes.power):
        again = model_from_state(model.state())
        np.testing.assert_array_equal(again.predict(x).mean, model.predict(x).mean)
        np.testing.assert_array_equal(again.predict(x).var_epistemic, model.predict(x).var_epistemic)
        np.testing.assert_array_equal(again.paths(3, 1)(x), model.paths(3, 1)(x))
        assert again.log_factor == model.log_factor
