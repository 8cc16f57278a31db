from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from hadas.datasets.images import ImageData, ImageSplit, load_images
from hadas.datasets.records import AccuracyRecord, OutcomeMatrix
from hadas.measurement.accuracy.evaluation import evaluate, fixed_threads, recalibrate_batch_norm
from hadas.measurement.accuracy.exits import train_exits
from hadas.measurement.accuracy.network import images_to_input
from hadas.measurement.accuracy.recipes import SMOKE_EXITS, SMOKE_SUPERNET, ExitRecipe
from hadas.measurement.accuracy.supernet import Supernet
from hadas.measurement.accuracy.supernet_meter import SupernetMeter
from hadas.measurement.accuracy.training import TrainedSupernet, train_supernet
from hadas.spaces import attentivenas_space, mini_space

RECIPE = dataclasses.replace(SMOKE_EXITS, calibration_batches=1, train_images=64, threads=1)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", limit=10)


@pytest.fixture(scope="module")
def trained(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> TrainedSupernet:
    recipe = dataclasses.replace(SMOKE_SUPERNET, steps=2, batch_size=16, sampled=1, threads=1)
    return train_supernet(mini_space(), digits, recipe, directory=tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with fixed_threads(1):
        yield


def _brightness_data(n: int) -> ImageSplit:
    """Four classes that differ in the brightness of the red channel."""
    labels = np.arange(n) % 4
    images = np.random.default_rng(0).integers(0, 30, (n, 3, 24, 24))
    images[:, 0] += 60 * labels[:, None, None]
    return ImageSplit(images.astype(np.uint8), labels, np.arange(n, dtype=np.int32))


def test_recalibration_is_the_average_over_batches() -> None:
    norm = nn.BatchNorm2d(2)
    batches = [torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(k)) + k for k in range(3)]
    recalibrate_batch_norm(norm, norm, batches)
    means = torch.stack([b.mean(dim=(0, 2, 3)) for b in batches]).mean(dim=0)
    variances = torch.stack([b.transpose(0, 1).reshape(2, -1).var(dim=1) for b in batches]).mean(dim=0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert not norm.training
    assert norm.momentum == 0.1


def test_heads_learn_on_a_frozen_backbone() -> None:
    """Even an untrained backbone tells brightness apart, so every head must, far above chance."""
    space, train = mini_space(), _brightness_data(256)
    network = Supernet(space, 4, seed=0).extract(space.smallest)
    network.requires_grad_(False)
    network.heads.requires_grad_(True)
    recalibrate_batch_norm(network, network.final_logits, [images_to_input(torch.from_numpy(train.images))])
    before = {n: t.clone() for n, t in network.state_dict().items() if not n.startswith("heads.")}
    recipe = dataclasses.replace(RECIPE, epochs=12, batch_size=32, learning_rate=0.01)
    train_exits(network, train, np.arange(256), recipe, seed=0)
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    fractions = evaluate(network, train, 64).fractions
    assert (fractions[:-1] > 0.85).all()


def test_outcomes_are_what_softmax_says_of_each_image(digits: ImageData) -> None:
    network = Supernet(mini_space(), 10, seed=3).extract(mini_space().presets["m2"]).eval()
    outcomes = evaluate(network, digits.test, batch_size=7)
    for row in (0, 13, len(digits.test) - 1):
        with torch.no_grad():
            logits = network(images_to_input(torch.from_numpy(digits.test.images[row : row + 1])))[0]
        for column, p in enumerate(torch.softmax(logits.double(), dim=1).numpy()):
            ranked = np.sort(p)[::-1]
            assert outcomes.predicted[row, column] == p.argmax()
            assert outcomes.correct[row, column] == (p.argmax() == digits.test.labels[row])
            assert outcomes.confidence[row, column] == pytest.approx(ranked[0], abs=2e-3)
            assert outcomes.margin[row, column] == pytest.approx(ranked[0] - ranked[1], abs=2e-3)
            assert outcomes.entropy[row, column] == pytest.approx(-(p * np.log(p)).sum(), abs=4e-3)
    np.testing.assert_array_equal(outcomes.group, digits.test.group)


def _same(one: OutcomeMatrix | None, other: OutcomeMatrix | None) -> bool:
    assert one is not None
    assert other is not None
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))


def test_a_record_does_not_depend_on_its_place(digits: ImageData, trained: TrainedSupernet) -> None:
    presets = mini_space().presets
    meter = SupernetMeter(mini_space(), digits, trained, RECIPE)
    first, second = meter.measure([presets["m0"], presets["m1"]], session="one")
    torch.manual_seed(123)
    (alone,) = SupernetMeter(mini_space(), digits, trained, RECIPE).measure(
        [presets["m1"]], session="two", first_row=7
    )
    assert (first.row_no, second.row_no, alone.row_no) == (0, 1, 7)
    assert _same(second.calibration, alone.calibration)
    assert _same(second.test, alone.test)
    assert not np.array_equal(first.test.entropy, second.test.entropy)  # type: ignore[union-attr]
    assert (alone.weights_id, alone.split_id) == (trained.weights_id, digits.split_id)


def _check_shape(record: AccuracyRecord, digits: ImageData) -> None:
    assert record.calibration is not None
    assert record.test is not None
    assert record.test.n_exits == record.backbone.n_blocks - record.first_exit + 1
    assert record.test.n_samples == len(digits.test)
    assert record.calibration.n_samples == len(digits.calibration)
    assert set(record.seconds) == {"calibrate", "exits", "evaluate"}


def test_a_failure_is_a_record_and_the_others_go_on(digits: ImageData, trained: TrainedSupernet) -> None:
    foreign = attentivenas_space().presets["a0"]
    own = mini_space().presets["m0"]
    meter = SupernetMeter(mini_space(), digits, trained, RECIPE)
    records = list(meter.measure([foreign, own], session="s"))
    assert [r.valid for r in records] == [False, True]
    assert records[0].reason.startswith("SpaceError: backbone belongs to space 'attentivenas'")
    assert records[0].test is None
    _check_shape(records[1], digits)


def test_recipe_ids_differ_in_every_field_but_the_threads() -> None:
    recipe = ExitRecipe(cache_features=False)
    other = {
        "optimizer": "sgd", "schedule": "linear", "backbone_norm": "batch", "temperature": "fitted",
        "precision": "bfloat16", "mirror": True, "cache_features": True,
    }  # fmt: skip
    changed = {
        f.name: dataclasses.replace(
            recipe, **{f.name: other[f.name] if f.name in other else getattr(recipe, f.name) * 2 + 0.25}
        ).recipe_id
        for f in dataclasses.fields(recipe)
    }
    assert changed.pop("threads") == recipe.recipe_id
    assert len({*changed.values(), recipe.recipe_id}) == len(dataclasses.fields(recipe))


def test_backbones_measured_side_by_side_give_the_same_records(
    digits: ImageData, trained: TrainedSupernet
) -> None:
    backbones = list(mini_space().presets.values())[:3]
    by_threads = [
        list(
            SupernetMeter(mini_space(), digits, trained, recipe).measure(backbones, session="s", first_row=4)
        )
        for recipe in (RECIPE, dataclasses.replace(RECIPE, threads=3))
    ]
    for one, other, backbone in zip(*by_threads, backbones, strict=True):
        assert one.backbone == other.backbone == backbone
        assert one.row_no == other.row_no
        assert _same(one.calibration, other.calibration)
        assert _same(one.test, other.test)


def test_exits_whose_training_diverged_are_an_invalid_record(
    digits: ImageData, trained: TrainedSupernet
) -> None:
    wild = dataclasses.replace(RECIPE, learning_rate=1e30, optimizer="sgd")
    (record,) = SupernetMeter(mini_space(), digits, trained, wild).measure(
        [mini_space().smallest], session="s"
    )
    assert not record.valid
    assert record.calibration is record.test is None
    assert re.search(r"no finite numbers from exit \d+.*lower the exits' learning_rate", record.reason)
    assert "the final classifier" not in record.reason


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def fail() -> None:
        with fixed_threads(before + 1):
            seen.append(torch.get_num_threads())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before
