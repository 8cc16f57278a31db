"""Cost rows, the physical baseline, and what the cost predictors guarantee by construction."""

from dataclasses import replace

import numpy as np
import pytest

from hadas.datasets.records import Statistic, Truth
from hadas.errors import ModelError
from hadas.spaces import CLOCK_TABLES, Exits, Setting, attentivenas_space
from hadas.surrogates.cost import cost_rows
from hadas.surrogates.features import ClockRoles, StageWork, signature
from hadas.surrogates.physics import LatencyBaseline, baseline_terms


def test_rows_are_stages_at_the_clocks_read_back(toy):
    record = toy.cost_records[0]
    asked = toy.table.settings[3]
    rows = cost_rows(toy.space, toy.table, [replace(record, requested=asked)])
    assert len(rows.log_latency) == len(record.stages)
    np.testing.assert_allclose(np.exp(rows.log_latency), [s.latency_ms.value for s in record.stages])
    np.testing.assert_allclose(
        np.exp(rows.log_power), [s.energy_mj.value / s.latency_ms.value for s in record.stages]
    )
    np.testing.assert_allclose(rows.latency_noise, 1e-4)
    np.testing.assert_allclose(rows.power_noise, 2e-4)
    np.testing.assert_allclose(rows.clocks_ghz[0], [hz / 1e9 for _, hz in record.actual.clocks_hz])
    assert rows.used == ((record.session, record.row_no),)


def test_unusable_records_are_counted_not_used(toy):
    good = toy.cost_records[0]
    rows = cost_rows(toy.space, toy.table, [good, replace(good, valid=False, reason="throttled")])
    assert rows.skipped == {"invalid": 1}
    assert len(rows.log_latency) == len(good.stages)


def test_whole_networks_and_prefixes_are_sums_of_stages(toy):
    """What was measured as one number keeps being one, and names the finest stages that it is the sum of."""
    good = next(record for record in toy.cost_records if len(record.heads) >= 2)
    bare = replace(good, heads=(), stages=())
    rows = cost_rows(toy.space, toy.table, [bare, replace(good, stages=()), toy.prefix_record(good)])
    workload = toy.space.workload(good.backbone, n_classes=10)
    stages = cost_rows(toy.space, toy.table, [good])
    n_stages, n_parts = len(good.stages), np.cumsum(stages.n_parts)
    ends = [*n_parts[1:-1:2], n_parts[-1]]
    segments = [signature(stage) for stage in workload.unit_stages() if stage.kind == "segment"]
    assert n_parts[-1] == len(segments) + (n_stages - 1) // 2
    assert rows.n_parts.tolist() == [len(segments), n_parts[-1], *ends]
    assert rows.fused.tolist() == [False, False] + [True] * len(ends)
    # A total without heads is the backbone's finest segments, nothing more and nothing less.
    assert [rows.signatures[i] for i in rows.stage[: len(segments)]] == segments
    assert sum(layer.macs for part in segments for layer in part[1]) == workload.macs
    # Every part is the one that a row of stages would have named.
    named = [stages.signatures[i] for i in stages.stage]
    assert [rows.signatures[i] for i in rows.stage[len(segments) :][: len(named)]] == named
    assert [rows.signatures[i] for i in rows.stage[-len(named) :]] == named
    assert np.exp(rows.log_latency[1]) == pytest.approx(good.latency_ms.value)


def test_an_energy_of_the_whole_alone_is_used(toy):
    """Stages timed one by one, energy counted over the whole pass."""
    good = next(record for record in toy.cost_records if len(record.heads) >= 2)
    timed = replace(good, stages=tuple(replace(stage, energy_mj=None) for stage in good.stages))
    rows = cost_rows(toy.space, toy.table, [timed])
    own = cost_rows(toy.space, toy.table, [good]).n_parts
    assert rows.n_parts.tolist() == [*own, own.sum()]
    assert np.isnan(rows.log_power[:-1]).all()
    assert np.exp(rows.log_power[-1]) == pytest.approx(good.energy_mj.value / good.latency_ms.value)
    # Its latency is in the stages' rows already.
    assert np.isnan(rows.log_latency[-1])
    assert np.isfinite(rows.log_latency[:-1]).all()


def test_records_that_do_not_belong_together_are_refused(toy):
    one, two = toy.cost_records[:2]
    with pytest.raises(ModelError, match=r"mix truths.*device.*simulator"):
        cost_rows(toy.space, toy.table, [one, replace(two, truth=Truth.DEVICE)])
    with pytest.raises(ModelError, match="mix targets"):
        cost_rows(toy.space, toy.table, [one, replace(two, target=replace(two.target, dtype="fp16"))])
    with pytest.raises(ModelError, match=r"row 0: backbone of space 'mini'.*'attentivenas'"):
        cost_rows(attentivenas_space(), toy.table, [one])
    with pytest.raises(ModelError, match=r"row 0: stages .* do not fit its exits"):
        cost_rows(toy.space, toy.table, [replace(one, stages=one.stages[:-1])])
    with pytest.raises(ModelError, match="names clocks"):
        cost_rows(toy.space, CLOCK_TABLES["agx-carmel-cpu"], [one])
    with pytest.raises(ModelError, match=r"no usable cost record among 1.*'invalid': 1"):
        cost_rows(toy.space, toy.table, [replace(one, valid=False, reason="hot")])


def test_baseline_finds_an_additive_device_exactly():
    rng = np.random.default_rng(0)
    work = StageWork(*(rng.uniform(1e6, 1e8, (3, 60))), rng.integers(3, 40, 60).astype(float))
    clocks = rng.uniform(0.2, 2.0, (60, 2))
    roles = ClockRoles.of(CLOCK_TABLES["tx2-pascal-gpu"])
    true_ms = (
        (4.0 * work.dense_macs + 30.0 * work.depthwise_macs) * 1e-9 / clocks[:, 0]
        + 50.0 * work.bytes_moved * 1e-9 / clocks[:, 1]
        + 0.03 * work.n_layers
    )
    terms = baseline_terms(work, clocks, roles)
    baseline = LatencyBaseline.fit(terms, np.log(true_ms))
    np.testing.assert_allclose(baseline.coefficients, [4, 30, 50, 0, 0, 0.03, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(baseline(terms), true_ms, rtol=1e-5)
    shares = baseline.shares(terms)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(shares[:, 2], 0.03 * work.n_layers / true_ms, rtol=1e-4)


def test_costs_are_positive_everywhere(fitted, toy):
    """At every setting, also for stages far from the training rows."""
    stages = [
        stage
        for backbone in (toy.space.smallest, toy.space.largest)
        for positions in ((), range(toy.space.first_exit, backbone.n_blocks))
        for stage in toy.space.workload(backbone, n_classes=10).stages(positions)
    ]
    costs = fitted.stage_costs(stages, toy.table.settings)
    assert (costs.latency_ms > 0).all()
    assert (costs.energy_mj > 0).all()


def test_held_out_stages_are_predicted(fitted, toy):
    """Stages and settings never measured: a few per cent off on average."""
    stages = [s for b in toy.unseen for s in fitted.workload(b).unit_stages()]
    settings = [toy.table.settings[i] for i in (30, 77, 142)]
    costs = fitted.stage_costs(stages, settings)
    true = np.array([[toy.true_stage_cost(stage, setting) for setting in settings] for stage in stages])
    assert np.mean(np.abs(costs.latency_ms / true[:, :, 0] - 1)) < 0.04
    assert np.mean(np.abs(costs.energy_mj / true[:, :, 1] - 1)) < 0.05


def test_a_stage_costs_the_same_from_cache_and_fresh(fitted, toy):
    stages = fitted.workload(toy.unseen[0]).unit_stages()
    together = fitted.stage_costs(stages, toy.table.settings)
    some = toy.table.settings[5:90:17]
    again = fitted.stage_costs(stages[::-1], some)
    np.testing.assert_array_equal(again.latency_ms[::-1], together.latency_ms[:, 5:90:17])
    np.testing.assert_array_equal(again.energy_mj[::-1], together.energy_mj[:, 5:90:17])


def test_network_cost_is_the_sum_of_its_finest_segments(fitted, toy):
    setting = toy.table.default
    latency_ms, energy_mj = fitted.network_cost(toy.unseen, setting)
    for i, backbone in enumerate(toy.unseen):
        segments = [s for s in fitted.workload(backbone).unit_stages() if s.kind == "segment"]
        costs = fitted.stage_costs(segments, [setting])
        assert latency_ms[i] == pytest.approx(costs.latency_ms.sum(), rel=1e-12)
        assert energy_mj[i] == pytest.approx(costs.energy_mj.sum(), rel=1e-12)
        true = sum(toy.true_stage_cost(s, setting)[0] for s in segments)
        assert latency_ms[i] == pytest.approx(true, rel=0.08)


def test_energy_is_nan_without_a_counter(toy):
    from hadas.surrogates.predictor_set import PredictorSet

    records = toy.costs(toy.measured[:4], 2, energy=False)
    predictors = PredictorSet.fit(
        toy.space, toy.table, toy.accuracy_records[:3], records, n_classes=10, seed=0, candidates=("gp",)
    )
    stages = predictors.workload(toy.unseen[0]).unit_stages()
    costs = predictors.stage_costs(stages, toy.table.settings[:2])
    assert np.isnan(costs.energy_mj).all()
    assert np.isfinite(costs.latency_ms).all()
    assert not predictors.has_energy
    latency_ms, energy_mj = predictors.draws(3, 0).stage_costs(stages[:2], toy.table.settings[:2])
    assert np.isfinite(latency_ms).all()
    assert np.isnan(energy_mj).all()
    assert np.isnan(predictors.network_cost(toy.unseen, toy.table.default)[1]).all()
    assert [s.quantity for s in predictors.summary] == ["final_accuracy", "exit_fractions", "log_latency"]


def test_device_without_clocks(toy):
    """One setting only, whose name is empty: latencies still follow the stages."""
    from hadas.spaces import PINNED
    from hadas.surrogates.predictor_set import PredictorSet

    pinned = Setting()
    records = [
        toy.cost_record(
            toy.space, b, Exits.everywhere(first_exit=toy.space.first_exit, n_blocks=b.n_blocks), pinned, i
        )
        for i, b in enumerate(toy.measured[:6])
    ]
    predictors = PredictorSet.fit(
        toy.space, PINNED, toy.accuracy_records[:3], records, n_classes=10, seed=0, candidates=("gp",)
    )
    latency_ms, _ = predictors.network_cost(toy.unseen, pinned)
    segments = [[s for s in predictors.workload(b).unit_stages() if s.kind == "segment"] for b in toy.unseen]
    true = [sum(toy.true_stage_cost(s, pinned)[0] for s in parts) for parts in segments]
    np.testing.assert_allclose(latency_ms, true, rtol=0.05)


def test_vague_measurements_are_told_from_precise_ones(toy):
    """A stage measured with a standard error of half its value counts for little."""
    record = toy.cost_records[0]
    wrong = replace(
        record,
        stages=tuple(
            replace(s, latency_ms=Statistic(3 * s.latency_ms.value, 1.5 * s.latency_ms.value, 2))
            for s in record.stages
        ),
    )
    rows = cost_rows(toy.space, toy.table, [wrong])
    np.testing.assert_allclose(rows.latency_noise, 0.25)
