"""Networks with few exits, known from networks with all exits: a long segment costs what its parts cost together."""

import numpy as np
import pytest

from hadas.spaces import Exits
from hadas.surrogates.assessment import row_draws
from hadas.surrogates.cost import cost_rows
from hadas.surrogates.cost_model import CostModel
from hadas.surrogates.fitting import Fitter
from hadas.surrogates.predictor_set import PredictorSet


def exits_at(toy, backbone, positions):
    return Exits.at(positions, first_exit=toy.space.first_exit, n_blocks=backbone.n_blocks)


def some_exits(toy, backbone, rng):
    free = np.arange(toy.space.first_exit, backbone.n_blocks)
    return exits_at(
        toy, backbone, sorted(int(p) for p in rng.choice(free, rng.integers(0, 3), replace=False))
    )


@pytest.fixture(scope="module")
def of_seeds(toy):
    """Predictors of ten seeds, each measured with an exit after every block."""
    rng = np.random.default_rng(11)
    records = [
        toy.cost_record(
            toy.space, b, exits_at(toy, b, range(toy.space.first_exit, b.n_blocks)),
            toy.table.settings[rng.integers(len(toy.table))], i, rng=rng,
        )
        for i, b in enumerate(toy.measured)
    ]  # fmt: skip
    return PredictorSet.fit(toy.space, toy.table, [], records, n_classes=10, seed=0, candidates=("gp",))


def test_a_segment_is_made_of_the_finest_ones(toy):
    for backbone in (*toy.unseen, toy.space.smallest, toy.space.largest):
        workload = toy.space.workload(backbone, n_classes=10)
        finest = workload.unit_stages()
        assert [stage.parts for stage in finest] == [(stage,) for stage in finest]
        (whole,) = workload.stages(())
        assert whole.parts == tuple(stage for stage in finest if stage.kind == "segment")
        one = toy.space.first_exit + 1
        parts = [part for stage in workload.stages((one,)) for part in stage.parts]
        assert parts == [stage for stage in finest if stage.kind == "segment" or stage.position == one]


def test_networks_with_few_exits_are_predicted_from_seeds_with_all(toy, of_seeds):
    """Within a few per cent, and intervals of one measurement hold it about as often as they say."""
    rng = np.random.default_rng(12)
    records = [
        toy.cost_record(
            toy.space, b, some_exits(toy, b, rng), toy.table.settings[rng.integers(len(toy.table))], i, rng=rng
        )
        for i, b in enumerate(toy.unseen * 4)
    ]  # fmt: skip
    drawn = row_draws(toy.space, of_seeds.cost_model, records, seed=3)
    for draws, quantity in zip(drawn, ("latency_ms", "energy_mj"), strict=True):
        measured = np.array([getattr(record, quantity).value for record in records])
        low, high = np.quantile(draws, (0.05, 0.95), axis=0)
        assert np.mean(np.abs(np.median(draws, axis=0) / measured - 1)) < 0.03
        assert np.mean((low <= measured) & (measured <= high)) >= 0.7
        assert np.median(high / low) < 1.25


def test_draws_medians_and_tables_say_the_same_of_a_full_pass(toy, of_seeds):
    """A search compares networks by tables, and acquires by draws."""
    setting = toy.table.settings[60]
    for backbone in toy.unseen:
        (whole,) = of_seeds.workload(backbone).stages(())
        table_ms, table_mj = of_seeds.network_cost([backbone], setting)
        costs = of_seeds.stage_costs([whole], [setting])
        medians = of_seeds.cost_model.medians([whole], [setting])
        np.testing.assert_allclose(
            [costs.latency_ms[0, 0], costs.energy_mj[0, 0]], [table_ms[0], table_mj[0]]
        )
        np.testing.assert_allclose([medians[0][0], medians[1][0]], [table_ms[0], table_mj[0]], rtol=1e-9)
        for draws, told in zip(of_seeds.draws(400, 1).stage_costs([whole], [setting]), medians, strict=True):
            error = 1.25 * draws.std() / np.sqrt(400)  # of a median
            assert abs(np.median(draws) - told[0]) < 4 * error + 1e-3 * told[0]


def test_the_noise_of_a_long_segment_is_that_of_one_measurement(toy, of_seeds):
    """And not the smaller one of a mean over its parts."""
    (whole,) = of_seeds.workload(toy.unseen[0]).stages(())
    at = [toy.table.default]
    noisy, clean = (
        of_seeds.draws(600, 2, include_noise=n).stage_costs([whole], at)[0] for n in (True, False)
    )
    x = of_seeds.cost_model.paired_rows([whole], at)[0].x
    sd = float(of_seeds.cost_model.latency.predict(x).var_noise[0, 0]) ** 0.5
    assert np.log(noisy / clean).std() == pytest.approx(sd, rel=0.1)


def test_measured_long_segments_are_sums_and_teach_their_parts(toy):
    """Rows of networks with few exits alone: their finest segments come out, though none was measured."""
    rng = np.random.default_rng(13)
    records = [
        toy.cost_record(
            toy.space, b, some_exits(toy, b, rng), toy.table.settings[rng.integers(len(toy.table))], i, rng=rng
        )
        for i, b in enumerate(toy.measured * 3)
    ]  # fmt: skip
    rows = cost_rows(toy.space, toy.table, records)
    assert not rows.fused.any()
    model = CostModel.fit(toy.table, rows, fitter=Fitter(("gp",)), seed=0)[0]
    setting = toy.table.settings[77]
    stages = [s for b in toy.unseen for s in toy.space.workload(b, n_classes=10).unit_stages()]
    true = np.array([toy.true_stage_cost(stage, setting)[0] for stage in stages])
    found = model.medians(stages, [setting] * len(stages))[0]
    assert np.mean(np.abs(found / true - 1)) < 0.06
