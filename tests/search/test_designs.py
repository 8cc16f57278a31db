import dataclasses

import numpy as np
import pytest

from hadas.datasets.records import clustered_standard_error
from hadas.errors import RecordError
from hadas.measurement.accuracy.policies import cross_fitted_leaves, fit_thresholds
from hadas.search.designs import Design, evaluate_measured
from hadas.search.objectives import Expected, evaluate
from hadas.spaces import Exits, mini_space


@pytest.fixture
def design(synthetic_world):
    backbone = synthetic_world.space.presets["m3"]
    exits = Exits.at([6, 9, 11], first_exit=mini_space().first_exit, n_blocks=backbone.n_blocks)
    return Design(backbone, exits, synthetic_world.clock_table.settings[3])


@pytest.fixture
def records(synthetic_world, design):
    return synthetic_world.accuracy_record(design.backbone), synthetic_world.cost_record(design)


def test_outcome_equals_a_loop_over_samples(design, records):
    accuracy, cost = records
    outcome = evaluate_measured(design, accuracy, cost)
    matrix = accuracy.calibration
    leaves = cross_fitted_leaves(matrix)
    columns = [p - mini_space().first_exit for p in design.exits.positions]
    right, energies = [], []
    for i in range(matrix.n_samples):
        energy = 0.0
        for t, column in enumerate([*columns, matrix.n_exits - 1]):
            energy += cost.stages[2 * t].energy_mj.value
            if t < len(columns):
                energy += cost.stages[2 * t + 1].energy_mj.value
            if leaves[i, column]:
                break
        right.append(matrix.correct[i, column])
        energies.append(energy)
    assert outcome.controller.accuracy == pytest.approx(np.mean(right))
    assert outcome.controller.energy_mj == pytest.approx(np.mean(energies))
    assert outcome.controller.accuracy_se == pytest.approx(
        clustered_standard_error(np.array(right), matrix.group)
    )
    assert sum(outcome.controller.shares) == pytest.approx(1.0)
    # The spread of the per-sample energies alone is part of the standard error, never more than it.
    assert outcome.controller.energy_se > clustered_standard_error(np.array(energies), matrix.group)
    assert outcome.n_groups == matrix.n_samples // 3


def test_without_exits_cost_is_that_of_all_segments_and_its_error_that_of_the_stages(synthetic_world, design):
    bare = dataclasses.replace(design, exits=Exits(mini_space().first_exit, (0,) * len(design.exits.types)))
    cost = synthetic_world.cost_record(bare)
    outcome = evaluate_measured(bare, synthetic_world.accuracy_record(design.backbone), cost)
    assert outcome.controller == outcome.no_exit
    assert outcome.controller.shares == (1.0,)
    assert outcome.controller.latency_ms == pytest.approx(cost.latency_ms.value)
    assert outcome.controller.latency_se == pytest.approx(cost.latency_ms.standard_error)


def test_a_head_is_paid_by_all_that_reach_it_and_no_exit_pays_none(design, records):
    outcome = evaluate_measured(design, *records)
    energies = [stage.energy_mj.value for stage in records[1].stages]
    shares = np.cumsum([0.0, *outcome.controller.shares])
    reach = 1.0 - shares[[0, 0, 1, 1, 2, 2, 3]]
    assert outcome.controller.energy_mj == pytest.approx(float(reach @ energies))
    assert outcome.no_exit.energy_mj == pytest.approx(sum(energies[0::2]))
    assert outcome.oracle.accuracy >= max(outcome.controller.accuracy, outcome.no_exit.accuracy)


def test_test_split_is_judged_by_calibration_thresholds_alone(design, records, synthetic_world):
    accuracy, cost = records
    other = synthetic_world.outcome_matrix(synthetic_world.space.presets["m3"])
    flipped = dataclasses.replace(other, correct=~other.correct)
    judged = evaluate_measured(design, dataclasses.replace(accuracy, test=flipped), cost, split="test")
    straight = evaluate_measured(design, accuracy, cost, split="test")
    thresholds = fit_thresholds(accuracy.calibration)[:-1][design.mask]
    assert judged.thresholds == straight.thresholds == tuple(thresholds)
    assert judged.controller.shares == straight.controller.shares
    assert judged.controller.accuracy == pytest.approx(1.0 - straight.controller.accuracy)


def test_measured_and_tabulated_outcomes_agree(design, records, synthetic_world):
    # Stage costs of the synthetic world add up, so the search must believe what is measured.
    outcome = evaluate_measured(design, *records)
    tables = synthetic_world.tables([design.backbone])
    point = evaluate(Expected(True), tables, np.array([0]), design.mask[None], np.array([3]))[0]
    values, errors = outcome.objectives(["error", "energy_mj", "latency_ms"])
    assert values == pytest.approx(point)
    assert (errors > 0).all()


def test_rows_that_do_not_fit_the_design_are_refused(design, records, synthetic_world):
    accuracy, cost = records
    other = synthetic_world.accuracy_record(synthetic_world.space.presets["m0"])
    invalid = dataclasses.replace(cost, valid=False, reason="throttled")
    for bad_accuracy, bad_cost, message in (
        (other, cost, "backbone .*another backbone"),
        (dataclasses.replace(accuracy, valid=False, reason="diverged"), cost, "diverged"),
        (accuracy, dataclasses.replace(cost, heads=((6, 1),)), "heads .*the design has"),
        (accuracy, dataclasses.replace(cost, requested=synthetic_world.clock_table.default), "requested"),
        (accuracy, invalid, "throttled"),
        (accuracy, dataclasses.replace(cost, stages=()), "stages .*measure stage by stage"),
    ):
        with pytest.raises(RecordError, match=message):
            evaluate_measured(design, bad_accuracy, bad_cost)


def test_without_an_energy_counter_there_is_no_energy(design, records):
    accuracy, cost = records
    stages = tuple(dataclasses.replace(stage, energy_mj=None) for stage in cost.stages)
    outcome = evaluate_measured(design, accuracy, dataclasses.replace(cost, stages=stages, energy_mj=None))
    assert outcome.controller.energy_mj is None
    with pytest.raises(RecordError, match="energy_mj"):
        outcome.objectives(["error", "energy_mj"])
