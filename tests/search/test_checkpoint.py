"""A search goes on from its checkpoint to the result of one run in one go, whenever it stopped."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from hadas.errors import StudyError
from hadas.search.baselines import random_designs
from hadas.search.constraints import Constraints
from hadas.search.outcomes import OutcomeLibrary
from hadas.search.outer import nested_search, search_settings
from hadas.search.world import MeanView, PredictedWorld
from hadas.surrogates.predictor_set import PredictorSet

SETTINGS = search_settings(
    "smoke", {"population": 10, "generations": 5, "survivors": 4, "constraints": Constraints(max_exits=4)}
)


class _StopError(Exception):
    pass


@pytest.fixture(scope="module")
def predictors(synthetic_world):
    """The real predictors, fitted to a few rows."""
    space, table = synthetic_world.space, synthetic_world.clock_table
    records = [synthetic_world.accuracy_record(space.presets[name]) for name in ("m0", "m2", "m4", "m6")]
    designs = random_designs(space, table, 12, 0)
    costs = [synthetic_world.cost_record(design, i) for i, design in enumerate(designs)]
    fitted = PredictorSet.fit(space, table, records, costs, n_classes=10, seed=0, candidates=("gp",))
    return fitted, records


@pytest.fixture
def new_world(predictors, synthetic_world):
    """Worlds that nothing was asked of yet, as in a new process."""
    fitted, records = predictors

    def build():
        fresh = PredictorSet(
            fitted.space, fitted.table, fitted.quantities,
            type(fitted.cost_model)(
                fitted.table, fitted.cost_model.physics, fitted.cost_model.latency, fitted.cost_model.power
            ),
            fitted.provenance,
        )  # fmt: skip
        space = synthetic_world.space
        return PredictedWorld(
            space, fitted.table, MeanView(space, fresh), OutcomeLibrary(records), n_classes=10
        )

    return build


@pytest.fixture(scope="module")
def whole(predictors, synthetic_world):
    fitted, records = predictors
    space = synthetic_world.space
    world = PredictedWorld(
        space, fitted.table, MeanView(space, fitted), OutcomeLibrary(records), n_classes=10
    )
    return nested_search(space, world, SETTINGS, seed=3)


@pytest.mark.parametrize("stop_after", [1, 2, 4, 5])
def test_stopped_after_any_generation_it_ends_the_same(stop_after, whole, new_world, tmp_path):
    path, seen = tmp_path / "deep" / "search.json", []

    def stop(summary):
        if summary.generation + 1 == stop_after:
            raise _StopError

    world = new_world()
    with pytest.raises(_StopError):
        nested_search(world.space, world, SETTINGS, seed=3, checkpoint=path, on_generation=stop)
    world = new_world()
    again = nested_search(world.space, world, SETTINGS, seed=3, checkpoint=path, on_generation=seen.append)
    assert again == whole
    assert [summary.generation for summary in seen] == list(range(stop_after, SETTINGS.generations))
    assert nested_search(world.space, world, SETTINGS, seed=3, checkpoint=path) == whole
    assert os.listdir(path.parent) == ["search.json"]


def test_another_searchs_checkpoint_is_refused(whole, new_world, tmp_path, predictors):
    path, world = tmp_path / "search.json", new_world()
    one = dataclasses.replace(SETTINGS, generations=1)
    nested_search(world.space, world, one, seed=3, checkpoint=path)
    for settings, seed in ((SETTINGS, 3), (one, 4), (dataclasses.replace(one, gamma=2.0), 3)):
        with pytest.raises(StudyError, match=r"belongs to another search .*delete it"):
            nested_search(world.space, world, settings, seed, checkpoint=path)
    # Nor does a search go on in a world that says something else.
    fitted, records = predictors
    turned = dataclasses.replace(
        records[-1],
        calibration=dataclasses.replace(records[-1].calibration, correct=~records[-1].calibration.correct),
    )
    for others in (records[:2], [*records[:-1], turned]):
        library = OutcomeLibrary(others)
        other = PredictedWorld(
            world.space, fitted.table, MeanView(world.space, fitted), library, n_classes=10
        )
        with pytest.raises(StudyError, match="belongs to another search"):
            nested_search(world.space, other, one, seed=3, checkpoint=path)


def test_a_world_is_known_by_every_outcome(predictors):
    _, records = predictors
    digest = OutcomeLibrary(records).digest
    assert OutcomeLibrary(records[::-1]).digest == digest
    for changed in records:
        correct = changed.calibration.correct.copy()
        correct[3, 1] ^= True
        other = dataclasses.replace(
            changed, calibration=dataclasses.replace(changed.calibration, correct=correct)
        )
        assert OutcomeLibrary([other if one is changed else one for one in records]).digest != digest


def test_nor_does_a_search_go_on_with_another_hadas(new_world, tmp_path, monkeypatch):
    path, world = tmp_path / "search.json", new_world()
    one = dataclasses.replace(SETTINGS, generations=1)
    nested_search(world.space, world, one, seed=3, checkpoint=path)
    monkeypatch.setattr("hadas.search.checkpoint.__version__", "999")
    with pytest.raises(StudyError, match="version of hadas differ"):
        nested_search(world.space, world, one, seed=3, checkpoint=path)


def test_a_damaged_checkpoint_is_named(new_world, tmp_path):
    path, world = tmp_path / "search.json", new_world()
    one = dataclasses.replace(SETTINGS, generations=1)
    nested_search(world.space, world, one, seed=3, checkpoint=path)
    document = json.loads(path.read_text())
    del document["state"]["parents"][0]["genome"]
    for text, message in (
        ("{", "cannot be read"),
        (json.dumps(document), "is damaged .KeyError: 'genome'"),
        (json.dumps(document | {"format": 0}), "has format 0"),
        ("[]", "is damaged"),
    ):
        path.write_text(text)
        with pytest.raises(StudyError, match=f"search.json {message}"):
            nested_search(world.space, world, one, seed=3, checkpoint=path)


def test_results_do_not_depend_on_the_number_of_threads(whole, new_world):
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            with threadpool_limits(n_threads):
                world = new_world()
                assert nested_search(world.space, world, SETTINGS, seed=3) == whole
    finally:
        torch.set_num_threads(before)


def test_costs_do_not_depend_on_what_was_asked_before(new_world):
    space = new_world().space
    some = [space.decode(genome) for genome in space.sample(6, np.random.default_rng(1))]
    together = new_world().tables(some)
    for i, backbone in enumerate(some):
        world = new_world()
        world.static(some[i:])
        p = int(together.n_positions[i])
        alone = world.tables([backbone])
        for name in ("segment_latency_ms", "segment_energy_mj", "head_latency_ms", "head_energy_mj"):
            assert np.array_equal(getattr(alone, name)[0][:p], getattr(together, name)[i][:p])
