"""The whole problem on the simulator: its oracle, its truth, and a learner that keeps to its budget."""

from __future__ import annotations

import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import _accuracies_near_the_front
from _accuracies_near_the_front import neighbours, on_the_front
from _accuracy_oracle import AccuracyOracle
from _learning_tasks import OURS, RANDOM_SEEDS, all_tasks, tasks_of
from _mini_accuracies import mini_backbones, mini_records
from _simulated_learner import PLAN, Budget, Learner, Plan
from _simulated_problem import Problem, curve_of, learner_of
from _simulated_truth import Generosity, TrueWorld, Truth, yardstick

from hadas.datasets.images import ImageData, ImageSplit
from hadas.datasets.records import AccuracyRecord, OutcomeMatrix
from hadas.search.baselines import random_designs
from hadas.search.outer import SearchSettings, nested_search
from hadas.spaces import mini_space
from hadas.study.seeds import above_the_smallest

SPACE = mini_space()
N_SAMPLES = 300
LABELS = (np.arange(N_SAMPLES) % 10).astype(np.int64)
SMALL_SEARCH = SearchSettings(
    population=8, generations=2, survivors=3, inner_population=8, inner_generations=3
)


def measured_row(backbone) -> AccuracyRecord:
    """Outcomes that get better along the network, of its own difficulty."""
    rng = np.random.default_rng(zlib.crc32(backbone.arch_id.encode()))
    p = backbone.n_blocks - SPACE.first_exit
    skill = np.append(np.linspace(-0.4, 0.6, p), 0.9) + 0.1 * rng.standard_normal()
    margin = skill + rng.standard_normal((N_SAMPLES, 1)) + 0.4 * rng.standard_normal((N_SAMPLES, p + 1))
    right = margin > 0
    sure = (1 / (1 + np.exp(-np.abs(margin)))).astype(np.float16)
    said = np.where(right, LABELS[:, None], (LABELS[:, None] + 3) % 10).astype(np.int16)
    group = (np.arange(N_SAMPLES) // 3).astype(np.int32)
    matrix = OutcomeMatrix(right, sure, sure, sure, said, group)
    return AccuracyRecord("s", 0, backbone, "w", "r", "split", SPACE.first_exit, matrix, matrix)


@pytest.fixture(scope="module")
def oracle() -> AccuracyOracle:
    group = (np.arange(N_SAMPLES) // 3).astype(np.int32)
    split = ImageSplit(np.zeros((N_SAMPLES, 3, 2, 2), np.uint8), LABELS, group)
    data = ImageData("toy", 10, tuple("0123456789"), split, split, split, "split", "made up")
    return AccuracyOracle(SPACE, data, [measured_row(backbone) for backbone in mini_backbones(14)])


@pytest.fixture(scope="module")
def truth(oracle) -> Truth:
    return Truth(oracle)


def test_oracle_gives_measured_rows_back_and_models_all_others(oracle):
    known, unknown = mini_backbones(15)[3], mini_backbones(15)[-1]
    assert oracle.record(known).calibration.to_bytes() == measured_row(known).calibration.to_bytes()
    assert oracle.fractions([known])[0] == pytest.approx(measured_row(known).calibration.fractions)
    row = oracle.record(unknown)
    assert row.session == "modelled"
    # As many samples are right as the model says, and what an exit says of a sample agrees with that.
    assert row.calibration.fractions == pytest.approx(oracle.fractions([unknown])[0], abs=0.5 / N_SAMPLES)
    assert np.array_equal(row.calibration.predicted == LABELS[:, None], row.calibration.correct)
    assert row.calibration.n_exits == unknown.n_blocks - SPACE.first_exit + 1


def test_oracle_does_not_depend_on_order_or_company(oracle):
    again = AccuracyOracle(SPACE, oracle.data, oracle.measured[::-1])
    backbones = mini_backbones(18)[-3:]
    together = oracle.fractions(backbones)
    assert again.digest == oracle.digest
    for backbone, own in zip(backbones, together, strict=True):
        assert np.array_equal(again.fractions([backbone])[0], own)


def test_neighbours_of_the_ends_differ_from_them_in_one_gene():
    found = np.array([SPACE.encode(backbone) for backbone in neighbours(SPACE)])
    ends = np.array([SPACE.encode(end) for end in (SPACE.smallest, SPACE.largest)])
    steps = np.abs(found[:, None] - ends).sum(axis=2)  # of choices
    assert sorted(steps.min(axis=1).tolist()) == [1] * len(found)
    assert set(steps.argmin(axis=1)) == {0, 1}


def test_unmeasured_backbones_of_the_front_are_measured_next(truth, monkeypatch):
    monkeypatch.setattr(_accuracies_near_the_front, "SEARCH", SMALL_SEARCH)
    found = [SPACE.decode(np.array(genome)) for genome in on_the_front(truth, 3, seed=4)]
    assert 0 < len(found) <= 3
    assert len(set(found)) == len(found)
    known = [record.backbone for record in truth.oracle.measured]
    assert not set(found) & set(known)
    front = nested_search(SPACE, TrueWorld(truth), SMALL_SEARCH, 4, initial=known).front
    assert set(found) <= {candidate.design.backbone for candidate in front}


def test_search_that_sees_the_truth_sees_what_measuring_shows(truth):
    found = nested_search(SPACE, TrueWorld(truth), SMALL_SEARCH, 3)
    values = truth.values([candidate.design for candidate in found.candidates])
    assert values == pytest.approx(np.array([c.objectives for c in found.candidates]), rel=1e-9)


def test_measuring_is_noisy_and_repeats_with_its_seed(truth):
    designs = random_designs(SPACE, truth.clock_table, 6, 1)
    rows = truth.measure(designs, "one", 5)
    seen, true = truth.judged(designs, rows), truth.values(designs)
    assert np.array_equal(seen, truth.judged(designs, truth.measure(designs, "one", 5)))
    assert np.array_equal(seen[:, 0], true[:, 0])  # accuracies are frozen
    apart = np.abs(seen[:, 1] / true[:, 1] - 1)
    assert (apart > 0).all()
    assert apart.max() < 0.1


def test_yardstick_is_searched_once(truth, tmp_path, monkeypatch):
    generosity = Generosity(SMALL_SEARCH, (1, 2), few_backbones=3)
    first = yardstick(truth, generosity, tmp_path)
    monkeypatch.setattr("_simulated_truth.nested_search", None)
    again = yardstick(truth, generosity, tmp_path)
    assert np.array_equal(first.front, again.front)
    assert first.share_of_all(first.front) == pytest.approx(1.0)
    assert 0 < max(first.shares) <= 1 + 1e-12
    assert all(0 < early <= late for early, late in zip(first.early_shares, first.shares, strict=True))
    # 100 % is the median of the searches, not their union.
    assert first.share(first.front) == pytest.approx(1 / np.median(first.shares))


def test_learner_keeps_to_its_budget(truth, tmp_path):
    budget = Budget(backbones=5, device_points=9, device_hours=1.0)
    plan = Plan(
        seed_backbones=4,
        seed_settings=1,
        rounds=2,
        batch=4,
        draws=8,
        pool=30,
        search=SMALL_SEARCH,
        budget=budget,
    )
    learner = Learner(truth, plan, OURS, 100)
    measured = learner.run()
    problem = Problem.of(truth, Generosity(SMALL_SEARCH, (1,)), tmp_path)
    known, true = problem.yardstick, np.array(measured.true)
    curve = curve_of(problem, learner)
    assert len(measured.designs) > 4
    assert len(set(measured.designs)) == len(measured.designs)
    for counter, limit in (("backbones", 5), ("device points", 9), ("device hours", 1.0)):
        assert curve.spent[counter][-1] <= limit
        assert list(curve.spent[counter]) == sorted(curve.spent[counter])
    assert list(curve.share) == sorted(curve.share)
    assert curve.notes["share_of_measured_front"] <= curve.share[-1] + 1e-12
    assert curve.notes["share_with_whole_last_pool"] >= curve.share[-1] - 1e-12
    assert curve.notes["share_with_measured_backbones_at_their_best"] >= curve.share[-1] - 1e-12
    assert curve.notes["share_after_seeds"] == curve.share[3]
    left = [known.share(true[[d.backbone != b for d in measured.designs]]) for b in measured.backbones]
    assert curve.notes["share_without_its_weightiest_backbone"] == pytest.approx(min(left))
    assert min(left) < curve.share[-1]


def test_strategies_differ_in_the_choice_alone(truth):
    plans = [Learner(truth, replace(PLAN, seed_backbones=9), name, 7) for name in (OURS, "mean")]
    assert plans[0].seed_designs() == plans[1].seed_designs()
    other = Learner(truth, plans[0].plan, OURS, 8)
    assert other.seed_designs() != plans[0].seed_designs()


def test_seeds_hold_all_neighbours_of_the_smallest_or_as_many_as_asked_for(truth):
    smallest, n_named = np.array(SPACE.encode(SPACE.smallest)), 2 + len(SPACE.presets)
    for asked, found in ((28, 27), (5, 5)):
        plan = replace(PLAN, seed_neighbours=asked)
        backbones = [design.backbone for design in Learner(truth, plan, OURS, 3).seed_designs()]
        assert len(set(backbones)) == len(backbones) == plan.seed_backbones
        steps = [np.abs(SPACE.encode(backbone) - smallest).sum() for backbone in backbones]
        assert steps[n_named : n_named + found] == [1] * found


def test_random_seeds_are_as_many_and_chosen_from_like_ours(truth):
    ours, other = learner_of(truth, OURS, 3), learner_of(truth, RANDOM_SEEDS, 3)
    assert (other.strategy, other.plan.rounds) == (ours.strategy, ours.plan.rounds)
    own, random = (dict.fromkeys(d.backbone for d in learner.seed_designs()) for learner in (ours, other))
    assert len(own) == len(random) == PLAN.seed_backbones
    n_named = 2 + len(SPACE.presets)
    assert list(random)[:n_named] == list(own)[:n_named]
    neighbours_of_the_smallest = set(above_the_smallest(SPACE, np.random.default_rng(0)))
    assert neighbours_of_the_smallest <= set(own)
    assert len(neighbours_of_the_smallest & set(random)) < 5


def test_the_check_is_the_same_problem_on_another_supernet():
    first, check = tasks_of("simulated")
    assert first.supernet_seed != check.supernet_seed
    assert [(b.share, b.counter, b.at_most) for b in first.bounds] == [
        (b.share, b.counter, b.at_most) for b in check.bounds
    ]
    assert all(b.judged for b in first.bounds)
    assert not any(b.judged for b in check.bounds)
    assert (first.counter, first.horizon) == (check.counter, check.horizon)
    # Strategies are named on the command line, between commas.
    assert not any("," in strategy for task in all_tasks().values() for strategy in task.strategies)


def test_accuracies_are_measured_once(tmp_path):
    said: list[str] = []
    one = mini_records(1, quick=True, directory=tmp_path, say=said.append)
    two = mini_records(1, further=mini_backbones(2), quick=True, directory=tmp_path, say=said.append)
    assert said[-1] == "accuracies: 1 of 1 measured, 1 were known"
    assert two.records[0].calibration.to_bytes() == one.records[0].calibration.to_bytes()
    assert [record.backbone for record in two.records] == list(mini_backbones(2))
    assert two.trained.weights_id == one.trained.weights_id


def test_supernets_of_other_seeds_are_kept_apart(tmp_path):
    def silent(text: str) -> None:
        pass

    one, two = (
        mini_records(1, supernet_seed=seed, quick=True, directory=tmp_path, say=silent) for seed in (0, 1)
    )
    again = mini_records(1, quick=True, directory=tmp_path, say=silent)
    assert one.trained.path != two.trained.path
    assert one.trained.weights_id != two.trained.weights_id
    assert [record.weights_id for record in (one.records[0], two.records[0])] == [
        one.trained.weights_id,
        two.trained.weights_id,
    ]
    assert again.records[0].calibration.to_bytes() == one.records[0].calibration.to_bytes()
    assert again.records[0].session == one.records[0].session != two.records[0].session
