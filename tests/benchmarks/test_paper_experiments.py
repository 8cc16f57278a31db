"""The paper's experiments: how fronts are judged, by hand, and a whole small run on made-up outcomes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "paper"))

import run
from _contenders import (
    BACKBONE_FIRST,
    CONTROLLER,
    GOALS,
    JOINT,
    ORACLE,
    PAPER_AXES,
    PRESETS,
    RANDOM_START,
    Fronts,
    Job,
    compare,
    equal_budgets,
    inner_evaluations,
    savings,
    summarise,
)
from _dissimilarity import effect
from _networks_table import chosen_presets, line, preset_designs, saved_against
from _outer_fronts import against_preset
from _paper_world import Accuracies, IdealMapping, objectives_of
from _published_exits import FILE as PUBLISHED_FILE
from _published_exits import published_exits

from hadas.datasets.records import AccuracyRecord, OutcomeMatrix
from hadas.search.metrics import HypervolumeReference
from hadas.search.objectives import Expected
from hadas.search.outer import SEARCH_PRESETS, SearchSettings
from hadas.spaces import mini_space


def test_savings_are_taken_at_equal_accuracy_and_only_where_it_is_reached():
    ours = np.array([[0.10, 8.0], [0.20, 3.0]])
    theirs = np.array([[0.05, 20.0], [0.10, 10.0], [0.15, 9.0], [0.25, 2.0]])
    found = savings(ours, theirs)
    # At 0.10: 8 for 10; at 0.15 still 8, for 9; at 0.25: 3 for 2; 0.05 is out of reach.
    assert found.at_best == pytest.approx(0.2)
    assert found.median == pytest.approx(1 - 8 / 9)
    assert found.most == pytest.approx(0.2)
    assert found.reached == pytest.approx(3 / 4)
    assert np.isnan(savings(np.array([[0.3, 1.0]]), theirs[:3]).at_best)


def test_a_preset_is_dominated_only_by_what_is_nowhere_worse():
    preset = np.array([0.80, 10.0])
    better = against_preset(preset, np.array([[0.80, 8.0], [0.85, 10.0], [0.9, 30.0]]))
    assert better.dominated
    assert better.saved == pytest.approx(0.2)
    assert better.gained == pytest.approx(0.05)
    worse = against_preset(preset, np.array([[0.80, 10.0], [0.90, 11.0], [0.70, 5.0]]))
    assert not worse.dominated
    assert worse.saved == pytest.approx(0.0)
    nothing = against_preset(preset, np.array([[0.70, 11.0]]))
    assert np.isnan(nothing.saved)
    assert np.isnan(nothing.gained)


def test_the_effect_of_dissimilarity_by_hand():
    reference = HypervolumeReference(("error", "energy_mj"), (False, False), (1.0, 10.0))
    found = effect(np.array([[0.5, 5.0]]), np.array([[0.75, 6.0]]), reference)
    assert found.hypervolume_gain == pytest.approx(2.5 / 1.0 - 1)
    assert (found.dominates, found.dominated) == (1.0, 0.0)
    assert found.accuracy_gain == pytest.approx(0.25)
    assert found.energy_saved == pytest.approx(1 / 6)


def fronts_of(points):
    designs = dict.fromkeys(points, ())
    arrays = {name: np.array(rows) for name, rows in points.items()}
    return Fronts(Job("tx2-pascal-gpu", CONTROLLER, 0), designs, arrays, np.zeros((0, 3)))


def test_a_search_that_its_rivals_beat_is_said_to_miss():
    good, bad = [[0.1, 2.0], [0.2, 1.0]], [[0.15, 3.0], [0.3, 1.5]]
    kept = summarise([fronts_of({JOINT: good, PRESETS: bad, BACKBONE_FIRST: bad, RANDOM_START: good})])
    assert kept.misses == []
    assert kept.gain[PRESETS] > 0
    assert (kept.dominates[PRESETS], kept.dominated[PRESETS]) == (1.0, 0.0)
    beaten = summarise([fronts_of({JOINT: bad, PRESETS: good, BACKBONE_FIRST: bad, RANDOM_START: good})])
    assert (
        len(beaten.misses) == 3
    )  # hypervolume and dominance against presets, no dominance against its equal
    assert all("random" not in missed for missed in beaten.misses)


def test_rivals_spend_what_the_joint_search_does():
    joint = SEARCH_PRESETS["thorough"]
    rivals = equal_budgets(joint, n_presets=7)
    total = inner_evaluations(joint)
    assert total == 245_000
    first, presets = rivals[BACKBONE_FIRST], rivals[PRESETS]
    assert first.survivors * first.inner_population * first.inner_generations == total
    assert 7 * presets.inner_population * presets.inner_generations == total
    with pytest.raises(ValueError, match="7 presets"):
        equal_budgets(replace(joint, survivors=3, generations=5, inner_generations=2), n_presets=7)


EASE = np.random.default_rng(5).standard_normal(160)


def made_up(backbone):
    """The more a backbone computes, the better; deeper exits are better than early ones."""
    space, rng = mini_space(), np.random.default_rng(list(backbone.arch_id.encode()))
    macs = space.workload(backbone, n_classes=10).macs
    depth = np.linspace(-0.3, 0.6, backbone.n_blocks - space.first_exit + 1)
    strength = EASE[:, None] + depth + 0.3 * np.log10(macs / 1e6)
    noisy = strength + 0.5 * rng.standard_normal(strength.shape)
    confidence = (1 / (1 + np.exp(-noisy))).astype(np.float16)
    correct = strength + 0.3 * rng.standard_normal(strength.shape) > 0
    matrix = OutcomeMatrix(
        correct, confidence, confidence, (1 - confidence).astype(np.float16),
        np.zeros(correct.shape, dtype=np.int16), np.arange(len(EASE), dtype=np.int32),
    )  # fmt: skip
    return AccuracyRecord("made up", 0, backbone, "w", "r", "s", space.first_exit, matrix, matrix)


@pytest.fixture(scope="module")
def accuracies():
    space = mini_space()
    genomes = space.sample(6, np.random.default_rng(6))
    backbones = [*space.presets.values(), space.smallest, space.largest, *map(space.decode, genomes)]
    return Accuracies.fit(space, 10, [made_up(backbone) for backbone in backbones], candidates=("ridge",))


BUDGET = SearchSettings(population=10, generations=2, survivors=7, inner_population=6, inner_generations=2)


def test_ideal_mapping_is_never_less_accurate_and_stops_where_it_is_right(accuracies):
    world = accuracies.world("tx2-pascal-gpu")
    preset = accuracies.space.presets["m3"]
    chosen = preset_designs(accuracies, BUDGET, CONTROLLER, 0)["m3"]
    designs = [one.design for one in chosen]
    plain, ideal = (objectives_of(w, designs, Expected()) for w in (world, IdealMapping(world)))
    assert (ideal[:, 0] <= plain[:, 0] + 1e-12).all()
    tables = IdealMapping(world).tables([preset])
    everywhere = tables.correct[0, : tables.n_positions[0]].any(axis=0) | tables.correct[0, -1]
    full = replace(designs[0], exits=type(designs[0].exits)(3, (1,) * int(tables.n_positions[0])))
    error = objectives_of(IdealMapping(world), [full], Expected())[0, 0]
    assert error == pytest.approx(1 - everywhere.mean())


def test_all_experiments_on_one_setting(accuracies, tmp_path, capsys):
    plan = run.Plan(15, BUDGET, (3,), quick=True, directory=tmp_path)
    fronts = [compare(accuracies, BUDGET, Job("tx2-pascal-gpu", goal, 3)) for goal in GOALS]
    again = compare(accuracies, BUDGET, fronts[1].job)
    for name, points in again.points.items():
        np.testing.assert_array_equal(fronts[1].points[name], points)
    assert set(fronts[0].points) == {JOINT, PRESETS, BACKBONE_FIRST, RANDOM_START}
    result = run.experiments(plan, fronts, accuracies, lambda some: {b: made_up(b) for b in some})
    assert result["holds"]
    assert not result["decides"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert {path.name for path in tmp_path.iterdir()} == {"figure5.png", "figure6.png", "figure7.png"}
    for goal, lines in result["table"].items():
        assert [one["name"] for one in lines["presets"]] == ["m0", "m6"]
        for one in (*lines["presets"], *lines["ours"]):
            assert one["accuracy"][CONTROLLER][0] <= one["accuracy"][ORACLE][0]
            assert one["energy_alone_mj"] > 0
        # What was searched for a policy costs no more, under it, at the clocks that were found.
        assert all(one["exits_and_clocks_mj"][goal] <= one["exits_mj"][goal] for one in lines["ours"])
    said = capsys.readouterr().out
    assert "[modelled]" in said
    assert "[accuracies measured here" in said


def test_a_full_run_holds_only_if_the_joint_search_does(accuracies):
    good, bad = [[0.1, 2.0], [0.2, 1.0]], [[0.15, 3.0], [0.3, 1.5]]
    won = summarise([fronts_of({JOINT: good, PRESETS: bad, BACKBONE_FIRST: bad, RANDOM_START: bad})])
    lost = summarise([fronts_of({JOINT: bad, PRESETS: good, BACKBONE_FIRST: bad, RANDOM_START: bad})])
    assert run.misses([won, replace(lost, goal=PAPER_AXES)]) == []
    assert run.misses([won, lost])


def test_savings_in_the_table_are_against_the_cheapest_that_is_as_accurate(accuracies):
    rivals = preset_designs(accuracies, BUDGET, ORACLE, 0)
    lines = [
        line(one, accuracies, made_up(one.design.backbone)) for one in chosen_presets(accuracies, rivals)
    ]
    best = max(lines, key=lambda one: one.accuracy[ORACLE][0])
    assert saved_against(lines, best, ORACLE) == pytest.approx(0.0)
    half = replace(best, exits_and_clocks_mj={name: mj / 2 for name, mj in best.exits_and_clocks_mj.items()})
    assert saved_against(lines, half, ORACLE) == pytest.approx(0.5)
    better = replace(best, accuracy=dict.fromkeys(best.accuracy, (1.01, 0.0)))
    assert np.isnan(saved_against(lines, better, ORACLE))


@pytest.mark.skipif(not PUBLISHED_FILE.exists(), reason=f"{PUBLISHED_FILE} is not there")
def test_published_exits_save_energy_without_losing_accuracy():
    (a0,) = published_exits(names=["a0"])
    assert a0.alone == a0.best_exit == pytest.approx(0.860271)
    # The early exits of a0 are right on most images: leaving there must save, and clocks once more.
    assert a0.exits_and_clocks_mj < 0.9 * a0.exits_mj < 0.8 * a0.energy_alone_mj
