import numpy as np
import pytest

from hadas.errors import ConfigError
from hadas.search.objectives import evaluate
from hadas.search.operators import GenomeNSGA2, genome_key, stage_groups
from hadas.search.outer import SEARCH_PRESETS, nested_search, search_settings
from hadas.spaces import mini_space

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
    ):
        with pytest.raises(ConfigError, match=message):
            search_settings("demo", overrides)
    with pytest.raises(ConfigError, match="no search preset 'fast'"):
        search_settings("fast")
