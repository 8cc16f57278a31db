import dataclasses

import numpy as np
import pytest

from hadas.errors import ConfigError, InfeasibleError
from hadas.search.constraints import Constraints
from hadas.search.hadas_objectives import HadasEq6
from hadas.search.objectives import evaluate
from hadas.search.operators import GenomeNSGA2, genome_key, stage_groups
from hadas.search.outer import (
    SEARCH_PRESETS,
    STAGNATION_TOLERANCE,
    first_selection,
    nested_search,
    search_settings,
)
from hadas.search.state import Reach
from hadas.search.tables import StaticFitness
from hadas.spaces import MBConvSpace, mini_space

SMALL = search_settings("smoke", {"population": 16, "generations": 4, "survivors": 4, "inner_population": 16})


@pytest.fixture(scope="module")
def result(synthetic_world):
    return nested_search(synthetic_world.space, synthetic_world, SMALL, seed=1)


def test_every_front_point_is_what_its_design_costs_and_none_dominates_another(result, synthetic_world):
    points = np.array([candidate.objectives for candidate in result.front])
    for candidate in result.front:
        design = candidate.design
        tables = synthetic_world.tables([design.backbone])
        setting = synthetic_world.clock_table.index(design.setting)
        again = evaluate(
            SMALL.make_objective(), tables, np.array([0]), design.mask[None], np.array([setting])
        )[0]
        assert again == pytest.approx(candidate.objectives)
        worse = (points <= candidate.objectives).all(axis=1) & (points < candidate.objectives).any(axis=1)
        assert not worse.any()
    assert len({candidate.design for candidate in result.front}) == len(result.front)


def test_hypervolume_never_falls_and_evaluations_are_counted(result):
    assert list(result.history) == sorted(result.history)
    assert len(result.history) == SMALL.generations
    assert result.n_static == SMALL.population * SMALL.generations
    assert (
        result.n_inner
        == SMALL.survivors * SMALL.generations * SMALL.inner_population * SMALL.inner_generations
    )
    assert len(result.population) == SMALL.survivors
    assert {c.design.backbone for c in result.candidates} == set(result.population)


def test_seed_fixes_the_result(result, synthetic_world):
    again = nested_search(synthetic_world.space, synthetic_world, SMALL, seed=1)
    assert again == result
    assert nested_search(synthetic_world.space, synthetic_world, SMALL, seed=2).front != result.front


def test_search_beats_random_choice_at_the_same_number_of_inner_evaluations(synthetic_world):
    settings = search_settings("demo", {"population": 24, "generations": 5, "survivors": 5})
    found = nested_search(synthetic_world.space, synthetic_world, settings, seed=0)
    blind = search_settings("demo", {"population": 25, "generations": 1, "survivors": 25})
    random = nested_search(synthetic_world.space, synthetic_world, blind, seed=0, reference=found.reference)
    assert found.history[-1] > 1.02 * random.history[-1]


def test_initial_backbones_are_looked_at_first_and_callbacks_see_each_generation(synthetic_world):
    space, seen = synthetic_world.space, []
    settings = search_settings("smoke", {"population": 4, "survivors": 4, "generations": 1})
    presets = [space.presets[name] for name in ("m0", "m1", "m3", "m6")]
    found = nested_search(
        space, synthetic_world, settings, seed=0, initial=presets, on_generation=seen.append
    )
    assert set(found.population) == set(presets)
    assert [summary.generation for summary in seen] == [0]
    assert seen[0].hypervolume == found.history[0]
    assert len(seen[0].front) == len(found.front)


def test_all_initial_backbones_are_looked_at_whatever_their_number(synthetic_world):
    space = synthetic_world.space
    presets = [space.presets[name] for name in ("m0", "m1", "m3", "m6")]
    few, enough = (
        search_settings("smoke", {"population": 60, "survivors": n, "generations": 1}) for n in (2, 4)
    )
    found, all_kept = (
        nested_search(space, synthetic_world, settings, seed=0, initial=presets) for settings in (few, enough)
    )
    assert set(all_kept.population) == set(presets)
    assert found.n_inner == all_kept.n_inner
    # Looked at two by two, they leave the front that they leave together, and the best two survive.
    assert found.front == all_kept.front
    assert set(found.population) < set(presets)


def test_more_generations_never_lower_the_hypervolume(result, synthetic_world):
    longer = dataclasses.replace(SMALL, generations=SMALL.generations + 2)
    further = nested_search(synthetic_world.space, synthetic_world, longer, seed=1)
    assert further.history[: SMALL.generations] == result.history
    assert further.reference == result.reference
    assert further.history[-1] >= result.history[-1]
    for candidate in result.front:
        # Nothing that was found is lost: it is still there, or something is at least as good.
        assert any(np.all(np.array(c.objectives) <= candidate.objectives) for c in further.front)


def test_a_search_that_stands_still_stops(synthetic_world):
    space = synthetic_world.space
    settings = search_settings("smoke", {"generations": 40, "stagnation": 2})
    found = nested_search(space, synthetic_world, settings, seed=0)
    assert 3 <= len(found.history) < 40
    assert found.history[-1] - found.history[-3] < STAGNATION_TOLERANCE * found.history[-3]
    before = np.array(found.history[2:-1])
    assert (before - found.history[:-3] >= STAGNATION_TOLERANCE * np.array(found.history[:-3])).all()
    as_long = dataclasses.replace(settings, generations=len(found.history), stagnation=0)
    assert nested_search(space, synthetic_world, as_long, seed=0) == found


def test_everything_found_meets_the_constraints(result, synthetic_world):
    accuracy = np.median([1.0 - c.objectives[0] for c in result.front])
    energy = np.quantile([c.objectives[1] for c in result.front], 0.9)
    limits = Constraints(min_accuracy=float(accuracy), max_energy_mj=float(energy), max_exits=2)
    constrained = dataclasses.replace(SMALL, constraints=limits)
    found = nested_search(synthetic_world.space, synthetic_world, constrained, seed=1)
    for candidate in found.front:
        assert candidate.violation == 0.0
        assert 1.0 - candidate.objectives[0] >= accuracy
        assert candidate.objectives[1] <= energy
        assert candidate.design.mask.sum() <= 2
    assert list(found.history) == sorted(found.history)


def test_what_cannot_be_met_is_named_with_the_best_found(synthetic_world):
    space = synthetic_world.space
    for limits, message in (
        (Constraints(max_latency_ms=1e-3), r"latency at most 0.001 ms \(best found: [0-9.]+ ms"),
        (Constraints(min_accuracy=0.9999), r"accuracy at least 0.9999 \(best found: 0\.[0-9]+"),
        (Constraints(min_accuracy=0.7, max_energy_mj=1e-3, max_exits=3), "energy at most 0.001 mJ"),
    ):
        settings = search_settings("smoke", {"constraints": limits})
        with pytest.raises(InfeasibleError, match=message):
            nested_search(space, synthetic_world, settings, seed=0)


def test_first_selection_puts_hope_before_fitness():
    static = StaticFitness(np.array([0.9, 0.8, 0.7]), np.array([30.0, 20.0, 10.0]), np.array([9.0, 6.0, 3.0]))
    limits = Constraints(max_latency_ms=8.0)
    # Nothing is known of what exits save yet: nobody is judged by costs.
    assert set(first_selection(static, limits, Reach(), 3)) == {0, 1, 2}
    known = Reach(latency_ratio=0.5)
    # 30 and 20 ms come down to 15 and 10, which is too much, 10 to 5.
    assert first_selection(static, limits, known, 3).tolist() == [2, 1, 0]
    assert first_selection(static, Constraints(min_accuracy=0.85), Reach(), 1).tolist() == [0]


def test_the_inner_engine_is_the_one_asked_for(synthetic_world):
    small = {"population": 4, "survivors": 4, "generations": 1, "inner_population": 24}
    found = {
        engine: nested_search(
            synthetic_world.space, synthetic_world,
            search_settings("smoke", small | {"inner_generations": 8, "inner_engine": engine}), seed=2,
        )
        for engine in ("array", "pymoo")
    }  # fmt: skip
    assert {b.arch_id for b in found["array"].population} == {b.arch_id for b in found["pymoo"].population}
    # Same backbones and budget, other implementation: another way to nearly the same front.
    assert found["array"].front != found["pymoo"].front
    reference = found["array"].reference
    pymoo, array = (
        reference.hypervolume(np.array([c.objectives for c in found[engine].front]))
        for engine in ("pymoo", "array")
    )
    assert 0.8 * array <= pymoo <= 1.02 * array


def test_offspring_are_new_valid_and_resemble_their_parents():
    space = mini_space()
    genomes = GenomeNSGA2(
        space, lambda population: np.arange(len(population)), n_parents=5, population=60, seed=0
    )
    first = genomes.ask(0)
    genomes.tell(first, list(first))
    parents = genomes.parents.get("X")
    assert np.array_equal(parents, first[:5])
    children = genomes.ask(1)
    keys = {genome_key(genome) for genome in (*first, *children)}
    assert len(keys) == 120
    for child in children:
        space.decode(child)
    # Most genes come from some parent: crossover of stages, then about one and a half mutations.
    inherited = (children[:, None] == parents[None]).any(axis=1).mean()
    assert inherited > 0.9


def test_a_small_space_is_searched_whole_and_nothing_twice():
    macro = mini_space().macro
    stages = tuple(
        dataclasses.replace(
            stage,
            widths=stage.widths[:1],
            depths=stage.depths[:1],
            kernels=stage.kernels[:1],
            expands=stage.expands[:1],
        )
        for stage in macro.stages
    )
    space = MBConvSpace("tiny", dataclasses.replace(macro, stages=stages))
    assert space.cardinality < 30
    asked = []

    def search(known=None):
        genomes = GenomeNSGA2(
            space, lambda population: np.arange(len(population)), n_parents=2, population=3, seed=0
        )
        if known is not None:
            genomes.resume(*known)
        return genomes

    genomes = search()
    for generation in range(100):
        new = genomes.ask(generation)
        if not len(new):
            break
        asked.append(new)
        genomes.tell(new, list(new))
        # Each generation in an object of its own, as after a kill.
        parents = genomes.parents.get("X")
        genomes = search((np.concatenate(asked), parents, list(parents)))
    assert len({genome_key(genome) for genome in np.concatenate(asked)}) == space.cardinality
    assert len(np.concatenate(asked)) == space.cardinality


def test_crossover_keeps_the_genes_of_a_stage_together():
    space = mini_space()
    names = [variable.name for variable in space.variables]
    groups = stage_groups(space)
    assert groups[names.index("depth.mb3")] == groups[names.index("width.mb3")]
    assert groups[names.index("depth.mb3")] != groups[names.index("depth.mb2")]
    assert (groups == groups[names.index("resolution")]).sum() == 1


def test_settings_are_checked():
    assert SEARCH_PRESETS["paper"].population * SEARCH_PRESETS["paper"].generations == 448
    thorough = SEARCH_PRESETS["thorough"]
    assert thorough.inner_population * thorough.inner_generations == 3500
    for overrides, message in (
        ({"populaton": 3}, "'populaton' does not exist"),
        ({"population": 2.5}, "must be of type int"),
        ({"population": 0, "survivors": 0}, "must be at least 1"),
        ({"survivors": 1000}, "at most the population"),
        ({"objective": "speed"}, "no objective 'speed'"),
        ({"inner_engine": "numpy"}, "known are .'array', 'pymoo'"),
        ({"ratio": "best"}, "best"),
        ({"dissimilarity": "odd"}, "odd"),
        ({"stagnation": -1}, "must not be negative"),
        ({"statistic": "median"}, "known are .'mean', 'quantile'"),
        ({"quantile": 1.0}, "must be between 0 and 1"),
        ({"constraints": {"max_latency": 3}}, "constraint 'max_latency' does not exist"),
        ({"constraints": {"max_latency_ms": "3"}}, "must be a number"),
        ({"constraints": {"max_exits": 1.5}}, "must be a whole number"),
    ):
        with pytest.raises(ConfigError, match=message):
            search_settings("demo", overrides)
    literal = search_settings("demo", {"objective": "hadas-eq6", "ratio": "literal", "gamma": 2})
    assert literal.make_objective() == HadasEq6(2.0, "literal", "marginal")
    limited = search_settings("demo", {"constraints": {"max_latency_ms": 20, "max_exits": None}})
    assert limited.constraints == Constraints(max_latency_ms=20)
    with pytest.raises(ConfigError, match="no search preset 'fast'"):
        search_settings("fast")
