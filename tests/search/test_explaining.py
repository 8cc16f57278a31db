import json
from dataclasses import replace

import numpy as np
import pytest

from hadas.search.acquisition import Suggestion, UnitCosts, candidate_pool, suggest
from hadas.search.baselines import random_designs
from hadas.search.constraints import Constraints
from hadas.search.designs import Design, evaluate_measured
from hadas.search.explaining import Explanation, explain, nearest_member, proposers
from hadas.search.metrics import HypervolumeReference
from hadas.search.outer import nested_search, search_settings
from hadas.search.repeating import repeatable_errors
from hadas.spaces import Exits

REFERENCE = HypervolumeReference(("error", "energy_mj"), (False, True), (0.9, float(np.log(2000.0))))


def test_the_nearest_member_of_the_front_and_the_difference_in_terms_of_a_user():
    measured = np.array([[0.30, 40.0], [0.20, 80.0], [0.21, 81.0]])
    found = nearest_member((0.19, 76.0), measured, REFERENCE)
    assert found.member == 1  # 2 is dominated
    assert found.differences == {"accuracy": pytest.approx(1.0), "energy_mj": pytest.approx(-0.05)}
    assert found.words == "accuracy +1.00 points, energy -5.0 %"
    found = nearest_member((0.19, 76.0), measured, REFERENCE, ((0.17, 60.0), (0.23, 120.0)))
    assert found.words == "accuracy +1.00 points (-3.00 .. +3.00), energy -5.0 % (-25.0 .. +50.0)"
    assert nearest_member((0.19, 76.0), measured[:0], REFERENCE) is None


def test_every_suggestion_says_why_what_for_at_what_cost_and_instead_of_what(synthetic_world):
    settings = search_settings("smoke")
    results = {
        name: nested_search(synthetic_world.space, synthetic_world, settings, seed)
        for name, seed in (("the mean", 0), ("draw 1", 1))
    }
    by = proposers(results)
    pool = candidate_pool(list(results.values()), set(), limit=24)
    assert set(pool) <= set(by)
    assert set(by[results["draw 1"].front[0].design]) >= {"draw 1"}
    rng = np.random.default_rng(0)
    centre = np.stack([rng.uniform(0.12, 0.4, len(pool)), rng.uniform(20, 120, len(pool))], axis=1)
    draws = centre * np.exp(0.15 * rng.normal(size=(16, len(pool), 2)))
    measured = np.array([[0.35, 60.0], [0.25, 90.0]])
    found = suggest(
        pool, draws, measured=measured, reference=REFERENCE, measured_backbones={pool[0].backbone.arch_id},
        costs=UnitCosts(20, 300), batch=4, information_share=0.25,
        feasible=np.arange(16)[:, None] < 12 * np.ones(len(pool), dtype=int),
    )  # fmt: skip
    said = explain(
        found, measured=measured, reference=REFERENCE, proposed_by=by, name=lambda d: "X",
        constraints=Constraints(max_latency_ms=20.0),
    )  # fmt: skip
    volume = REFERENCE.hypervolume(measured)
    for suggestion, explanation in zip(found, said, strict=True):
        text = " ".join(explanation.sentences)
        assert f"Probability {suggestion.probability_of_gain:.2f}" in text
        assert f"Costs {suggestion.cost_s:.0f} s" in text
        assert "Against the nearest member of the front, in the median (90 % of the draws): accuracy" in text
        assert "Probability 0.75 to meet the constraints (latency at most 20 ms)." in text
        is_new = suggestion.cost_s > 20
        assert ("300 s of them for the accuracy of its backbone" in text) == is_new
        values = draws[:, pool.index(suggestion.design)]
        assert suggestion.median == pytest.approx(np.median(values, axis=0))
        assert all(name in text for name in by[suggestion.design])
        assert explanation.gain_share == pytest.approx(suggestion.expected_gain / volume)
        assert Explanation.from_json(json.loads(json.dumps(explanation.to_json()))) == explanation
    assert "most hypervolume per second" in said[0].why
    assert "uncertain" in said[-1].why
    share = found[0].runner_up[1] / found[0].gain_per_s
    assert said[0].runner_up == f"Next best was X, with {100 * share:.0f} % of that per second."


def test_a_repeat_and_a_shared_accuracy_job_are_called_so(synthetic_world):
    design = random_designs(synthetic_world.space, synthetic_world.clock_table, 1, 0)[0]
    repeat = Suggestion(design, 0.0, 20.0, "repeat", median=(0.25, 90.0))
    shared = Suggestion(design, 0.1, 320.0, "improvement", gain_per_s=0.1, n_sharing=3, median=(0.2, 80.0))
    unsure = replace(shared, n_sharing=1, median=(0.3, 95.0))
    other = replace(unsure, why="thompson")
    first, second, third, fourth = explain(
        [repeat, shared, unsure, other],
        measured=np.array([[0.25, 90.0]]),
        reference=REFERENCE,
        proposed_by={},
    )
    assert first.sentences == (first.why, "Costs 20 s.")
    assert "a second measurement decides" in first.why
    assert "best 3 designs together" in second.why
    assert "uncertain" not in second.why
    assert "In the median it adds nothing: it is chosen because it is very uncertain." in third.why
    assert (
        fourth.why
        == "Chosen by the strategy thompson: most hypervolume per second in one draw, taken at random."
    )


def test_a_repeat_reduces_the_error_of_cost_alone(synthetic_world):
    backbone = synthetic_world.space.presets["m3"]
    exits = Exits.at([6, 9], first_exit=synthetic_world.space.first_exit, n_blocks=backbone.n_blocks)
    with_exits = Design(backbone, exits, synthetic_world.clock_table.settings[3])
    bare = replace(with_exits, exits=replace(exits, types=(0,) * len(exits.types)))
    accuracy, columns = synthetic_world.accuracy_record(backbone), ["error", "energy_mj", "latency_ms"]
    costs = [synthetic_world.cost_record(design) for design in (with_exits, bare)]
    outcomes = [
        evaluate_measured(cost_of, accuracy, cost)
        for cost_of, cost in zip((with_exits, bare), costs, strict=True)
    ]
    found = repeatable_errors(outcomes, costs, columns)
    whole = np.array([outcome.objectives(columns)[1] for outcome in outcomes])
    assert (found[:, 0] == 0).all()
    assert (found[0, 1:] < whole[0, 1:]).all()  # the sample of images has its part in who leaves where
    assert found[1, 1:] == pytest.approx(whole[1, 1:])  # nobody leaves early: all of it is the device's
