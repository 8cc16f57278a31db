"""Exits: how they are trained on a frozen backbone, and what is said of them afterwards."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook

from hadas.datasets.images import ImageData, ImageSplit, load_images
from hadas.datasets.records import CostRecord, OutcomeMatrix
from hadas.errors import ConfigError
from hadas.measurement.accuracy import feature_cache
from hadas.measurement.accuracy.evaluation import (
    evaluate,
    evaluate_splits,
    fitted_temperature,
    fixed_threads,
    logit_batches,
    recalibrate_batch_norm,
)
from hadas.measurement.accuracy.exits import train_exits
from hadas.measurement.accuracy.feature_cache import (
    available_bytes,
    check_feature_caches,
    feature_cache_bytes,
)
from hadas.measurement.accuracy.inputs import SplitInputs
from hadas.measurement.accuracy.network import EarlyExitNetwork, ExitHead, build_network
from hadas.measurement.accuracy.recipes import (
    HADAS_CODE_EXITS,
    SMOKE_EXITS,
    SMOKE_SUPERNET,
    ExitRecipe,
    warmup_linear,
)
from hadas.measurement.accuracy.supernet import Supernet
from hadas.measurement.accuracy.supernet_meter import SupernetMeter
from hadas.measurement.accuracy.training import load_supernet, train_supernet
from hadas.measurement.hardware.device import CostRequest, Device, MeasurementPlan
from hadas.measurement.hardware.local.host_cpu import HostCpuDevice
from hadas.measurement.hardware.simulation.simulator import simulated_device
from hadas.spaces import Backbone, Exits, MBConvSpace, attentivenas_space, mini_space
from hadas.spaces.mbconv import block_plans
from hadas.study.assembly import Assembly
from hadas.study.config import load_config, template
from hadas.study.loop import Study

RECIPE = dataclasses.replace(
    SMOKE_EXITS, calibration_batches=1, epochs=2, batch_size=32, learning_rate=0.01, cache_features=False
)
BRIGHTNESS_ROWS = np.arange(97)
"""Three batches of 32 and one image left over."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with fixed_threads(1):
        yield


def _brightness_data(n: int, *, noise: int = 30) -> ImageSplit:
    """Four classes that differ in the brightness of the red channel."""
    labels = np.arange(n) % 4
    images = np.random.default_rng(0).integers(0, noise, (n, 3, 16, 16))
    images[:, 0] += 60 * labels[:, None, None]
    return ImageSplit(images.astype(np.uint8), labels, np.arange(n, dtype=np.int32))


@pytest.fixture(scope="module")
def train() -> ImageSplit:
    return _brightness_data(128)


@pytest.fixture(scope="module")
def calibrated(train: ImageSplit) -> EarlyExitNetwork:
    """A frozen backbone with random weights; tests train copies."""
    space = mini_space()
    network = Supernet(space, 4, seed=0).extract(space.presets["m0"])
    network.requires_grad_(False)
    recalibrate_batch_norm(network, network.final_logits, [_input(network, train)])
    return network


def _trained(
    network: EarlyExitNetwork, train: ImageSplit, recipe: ExitRecipe, *, seed: int = 0,
    rows: np.ndarray = BRIGHTNESS_ROWS,
) -> EarlyExitNetwork:  # fmt: skip
    network = copy.deepcopy(network)
    network.heads.requires_grad_(True)
    train_exits(network, train, rows, recipe, seed)
    return network.requires_grad_(False)


def _input(network: EarlyExitNetwork, split: ImageSplit, rows: np.ndarray | None = None) -> torch.Tensor:
    rows = np.arange(len(split)) if rows is None else rows
    return SplitInputs(split, network.device).read(rows, network.normalization)


def _logits(network: EarlyExitNetwork, split: ImageSplit, batch_size: int = 64) -> torch.Tensor:
    return torch.cat(list(logit_batches(network, split, batch_size)))


def _head_weights(network: EarlyExitNetwork) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in network.heads.parameters()])


def test_streamed_and_cached_features_train_the_same_heads(
    calibrated: EarlyExitNetwork, train: ImageSplit
) -> None:
    streamed = _trained(calibrated, train, RECIPE)
    cached = _trained(calibrated, train, dataclasses.replace(RECIPE, cache_features=True))
    assert not torch.equal(
        _logits(streamed, train), _logits(_trained(calibrated, train, RECIPE, seed=1), train)
    )
    torch.testing.assert_close(_logits(streamed, train), _logits(cached, train), atol=1e-4, rtol=1e-4)


def test_one_step_follows_equation_4(calibrated: EarlyExitNetwork, train: ImageSplit) -> None:
    """One step of SGD on one batch: the gradient of the mean over exits of both cross-entropies."""
    rows = np.arange(64)
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=64, optimizer="sgd", learning_rate=1e-20)
    manual = _trained(calibrated, train, recipe, rows=rows)  # a rate of nothing leaves the initial weights
    manual.heads.requires_grad_(True).zero_grad()
    images = _input(manual, train, rows)
    with torch.no_grad():
        seen, final = manual.eval().features(images)
    manual.heads.train()
    labels = torch.from_numpy(train.labels[rows])
    losses = [
        functional.cross_entropy(head(feature), labels)
        - (torch.softmax(final, 1) * torch.log_softmax(head(feature), 1)).sum(1).mean()
        for head, feature in zip(manual.heads, seen, strict=True)
    ]
    torch.stack(losses).mean().backward()
    with torch.no_grad():
        for parameter in manual.heads.parameters():
            decay = recipe.weight_decay if parameter.dim() > 1 else 0.0
            parameter -= 0.5 * (parameter.grad + decay * parameter)  # type: ignore[operator]
    stepped = _trained(calibrated, train, dataclasses.replace(recipe, learning_rate=0.5), rows=rows)
    torch.testing.assert_close(_head_weights(stepped), _head_weights(manual), atol=1e-5, rtol=1e-4)


def test_clipping_bounds_how_far_a_step_goes(calibrated: EarlyExitNetwork, train: ImageSplit) -> None:
    recipe = dataclasses.replace(
        RECIPE, epochs=1, batch_size=97, optimizer="sgd", learning_rate=1.0, weight_decay=0.0
    )
    start = _head_weights(_trained(calibrated, train, dataclasses.replace(recipe, learning_rate=1e-20)))
    free, clipped = (
        (
            _head_weights(_trained(calibrated, train, dataclasses.replace(recipe, clip_norm=norm))) - start
        ).norm()
        for norm in (0.0, 0.125)
    )
    assert free > 0.3
    assert clipped == pytest.approx(0.125, rel=1e-3)


def test_linear_schedule_warms_up_and_falls_evenly() -> None:
    factors = [warmup_linear(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert factors[10:] == pytest.approx(1 - np.arange(90) / 90)


def test_training_with_batch_statistics_leaves_the_backbone_as_calibrated(
    calibrated: EarlyExitNetwork, train: ImageSplit
) -> None:
    recipe = dataclasses.replace(RECIPE, backbone_norm="batch")
    before = {n: t.clone() for n, t in calibrated.state_dict().items() if not n.startswith("heads.")}
    network = _trained(calibrated, train, recipe)
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not network.training
    torch.testing.assert_close(_logits(network, train)[:, -1], _logits(calibrated, train)[:, -1])


def test_batch_statistics_are_those_of_each_batch(calibrated: EarlyExitNetwork, train: ImageSplit) -> None:
    """What the heads learn then depends on no running statistic, and in evaluation mode it does."""
    other = copy.deepcopy(calibrated)
    for name, buffer in other.named_buffers():
        if name.endswith("running_var"):
            buffer.mul_(1.5)
    for norm, same in (("batch", True), ("calibrated", False)):
        recipe = dataclasses.replace(RECIPE, backbone_norm=norm)
        weights = [_head_weights(_trained(network, train, recipe)) for network in (calibrated, other)]
        assert torch.equal(*weights) == same


def test_the_released_codes_recipe_trains_heads(calibrated: EarlyExitNetwork, train: ImageSplit) -> None:
    recipe = dataclasses.replace(HADAS_CODE_EXITS, epochs=20, batch_size=16)
    network = _trained(calibrated, train, recipe, rows=np.arange(128))
    assert (evaluate(network, train, 64).fractions[:-1] > 0.6).all()


def test_changed_images_are_seeded_and_change_what_is_learnt(
    calibrated: EarlyExitNetwork, train: ImageSplit
) -> None:
    recipe = dataclasses.replace(RECIPE, max_shift=3, mirror=True)
    one, again = (_head_weights(_trained(calibrated, train, recipe)) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, _head_weights(_trained(calibrated, train, RECIPE)))
    flat = _brightness_data(128, noise=1)  # shifting or mirroring a flat image changes nothing
    same = [_head_weights(_trained(calibrated, flat, r)) for r in (recipe, RECIPE)]
    torch.testing.assert_close(*same)


@pytest.mark.parametrize("cached", [False, True])
def test_low_precision_trains_alike_and_keeps_weights_whole(
    calibrated: EarlyExitNetwork, train: ImageSplit, cached: bool
) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=8, cache_features=cached)
    whole = _trained(calibrated, train, recipe)
    low = _trained(calibrated, train, dataclasses.replace(recipe, precision="bfloat16"))
    assert {t.dtype for t in low.state_dict().values()} == {torch.float32, torch.int64}
    assert not torch.equal(_head_weights(whole), _head_weights(low))
    expected = evaluate(whole, train, 64).fractions
    found = evaluate(low, train, 64, precision="bfloat16").fractions
    np.testing.assert_allclose(found, expected, atol=0.15)
    assert (found[:-1] > 0.6).all()


@pytest.mark.parametrize("cached", [False, True])
def test_batches_of_one_image_work(calibrated: EarlyExitNetwork, train: ImageSplit, cached: bool) -> None:
    recipe = dataclasses.replace(
        RECIPE, epochs=1, batch_size=1, calibration_batch_size=1, calibration_batches=3,
        evaluation_batch_size=1, cache_features=cached, temperature="fitted",
    )  # fmt: skip
    network = _trained(calibrated, train, recipe, rows=np.arange(5))
    few = _brightness_data(3)
    alone, test = evaluate_splits(network, few, few, recipe)
    assert alone.correct.shape == test.correct.shape == (3, len(network.heads) + 1)
    together = _logits(network, few, 3)
    torch.testing.assert_close(_logits(network, few, 1), together, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cached", [False, True])
def test_one_image_left_over_does_no_harm_where_heads_see_one_pixel(train: ImageSplit, cached: bool) -> None:
    """A 3 x 3 map leaves a head one pixel, and batch norm cannot train on one value per channel."""
    space = MBConvSpace("tiny", dataclasses.replace(mini_space().macro, resolutions=(12,)))
    network = Supernet(space, 4, seed=0).extract(space.smallest).requires_grad_(False)
    recipe = dataclasses.replace(
        RECIPE, calibration_batches=3, calibration_batch_size=16, cache_features=cached
    )
    assert network.plans[-1].out_side == 3
    logits = _logits(_trained(network, train, recipe, rows=np.arange(33)), train)
    assert torch.isfinite(logits).all()


def test_a_cache_that_does_not_fit_is_refused_before_anything_runs() -> None:
    space = attentivenas_space()
    with torch.device("meta"):  # no weights: running it could give nothing
        network = build_network(space.macro, space.presets["a0"], 100)
    rows = np.broadcast_to(np.int64(0), 10**8)
    recipe = dataclasses.replace(RECIPE, cache_features=True)
    # 12 positions: 2 x 32, 3 x 64 and 3 x 112 channels ... of 24, 12 and 6 pixels a side, and the teacher.
    values = 2 * 32 * 24**2 + 3 * 64 * 12**2 + 3 * 112 * 12**2 + 3 * 192 * 6**2 + 216 * 6**2 + 100
    gigabytes = f"{4 * values / 10:.1f}"
    with pytest.raises(
        ConfigError, match=rf"10{'0' * 7} images at all 12 exits.* {gigabytes} GB.* cache_features to false"
    ):
        train_exits(network, _brightness_data(4), rows, recipe, seed=0)


def test_room_is_asked_for_the_largest_backbones_that_run_side_by_side() -> None:
    space, cpu = mini_space(), torch.device("cpu")
    foreign = attentivenas_space().presets["a6"]  # has no slice here, so no features either
    free = available_bytes(cpu)
    per_image = feature_cache_bytes(
        block_plans(space.macro, space.largest)[space.first_exit :], 10, 1, "float32"
    )
    fits_once = dataclasses.replace(RECIPE, cache_features=True, train_images=int(0.3 * free / per_image))

    def check(*backbones: Backbone, recipe: ExitRecipe = fits_once, side_by_side: int = 2) -> None:
        check_feature_caches(
            space, backbones, recipe, n_classes=10, n_train=10**12, device=cpu, side_by_side=side_by_side
        )

    twin = space.decode(space.encode(space.largest) - (np.arange(len(space.variables)) == 0))
    check(space.largest, space.largest, foreign)
    check(space.largest, twin, side_by_side=1)
    check(space.largest, twin, recipe=dataclasses.replace(fits_once, cache_features=False))
    with pytest.raises(ConfigError, match=r"with the 1 measured beside it.*fewer workers"):
        check(space.largest, twin)
    with pytest.raises(ConfigError, match=rf"{space.largest.arch_id} take"):
        check(
            space.smallest, space.largest, recipe=dataclasses.replace(fits_once, train_images=2 * fits_once.train_images)
        )  # fmt: skip


def test_a_study_refuses_a_cache_that_does_not_fit_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "available_bytes", lambda device: 10**6)
    for workers in ("threads", "processes"):
        path = tmp_path / f"{workers}.yaml"
        path.write_text(template(path.name, "smoke", {"accuracy": {"workers": workers}}))
        study = Study.open(path)
        with pytest.raises(ConfigError, match=r"256 images at all.*cache_features to false"):
            study.measure()
        assert study.store.study_config("smoke") is None, "its file may still be mended"
        assert not list(tmp_path.glob("weights/*")), "nothing was trained"


def test_meters_refuse_a_cache_that_does_not_fit_before_the_first_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "smoke.yaml"
    path.write_text(template(path.name, "smoke", {"accuracy": {"supernet": {"steps": 1}}}))
    studies = [Study.open(path, places={"workers": workers}) for workers in ("threads", "processes")]
    trained = studies[0].parts.trained_supernet(lambda *_: None)
    space = mini_space()
    monkeypatch.setattr(feature_cache, "available_bytes", lambda device: 10**6)
    for study in studies:
        records = study.parts.meter(trained).measure([space.smallest, space.largest], session="s")
        with pytest.raises(ConfigError, match=rf"{space.largest.arch_id}.*cache_features to false"):
            next(records)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_estimate_of_the_cache_is_what_features_take(
    calibrated: EarlyExitNetwork, train: ImageSplit, precision: str
) -> None:
    with torch.no_grad(), torch.autocast("cpu", enabled=precision == "bfloat16"):
        seen, final = calibrated.features(_input(calibrated, train, np.arange(10)))
    taken = sum(t.nbytes for t in seen) + final.float().nbytes
    assert feature_cache_bytes(calibrated.plans[calibrated.first_exit :], 4, 10, precision) == taken


def _two_class_logits(advantage: float, n: int, right: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 1, 2) logits, the first class ahead by ``advantage``, and labels of which ``right`` agree.

    The loss is least where the probability of the first class equals the share that is right,
    so at T = advantage / log(right / wrong).
    """
    logits = torch.tensor([advantage, 0.0]).expand(n, 1, 2)
    return logits, (torch.arange(n) >= right).long()


@pytest.mark.parametrize("advantage", [0.25, 1.0, 2.1972, 6.0, 30.0])
def test_temperature_is_the_known_optimum_on_both_sides_of_one(advantage: float) -> None:
    logits, labels = _two_class_logits(advantage, 200, 180)
    found = fitted_temperature([(logits[:70], labels[:70]), (logits[70:], labels[70:])])
    assert found == pytest.approx([advantage / math.log(9)], rel=2e-3)


def test_temperature_stays_within_its_bounds() -> None:
    always, labels = _two_class_logits(1.0, 50, 50)
    never = -always
    found = fitted_temperature([(torch.cat([always, never], dim=1), labels)])
    assert found == pytest.approx([0.05, 20.0])
    assert found.dtype == np.float32


@given(seed=st.integers(0, 1000), scale=st.floats(0.2, 8.0))
@settings(max_examples=15, deadline=None)
def test_no_other_temperature_has_a_lower_loss(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn((80, 3, 5), generator=generator)
    labels = torch.where(
        torch.rand(80, generator=generator) < 0.6, logits.sum(1).argmax(1), torch.arange(80) % 5
    )
    found = fitted_temperature([(logits, labels)])
    others = np.exp(np.linspace(math.log(0.05), math.log(20), 300))
    for exit_logits, temperature in zip(logits.double().unbind(1), found, strict=True):
        loss, *rest = (
            float(functional.cross_entropy(exit_logits / float(t), labels)) for t in (temperature, *others)
        )
        assert loss <= min(rest) * (1 + 1e-4)  # a parabola, not a search


def test_fitted_outcomes_are_those_of_the_scaled_softmax(
    calibrated: EarlyExitNetwork, train: ImageSplit
) -> None:
    network = _trained(calibrated, train, dataclasses.replace(RECIPE, epochs=6))
    test = _brightness_data(40, noise=60)
    recipe = dataclasses.replace(RECIPE, temperature="fitted")
    plain = evaluate_splits(network, train, test, RECIPE)
    fitted = evaluate_splits(network, train, test, recipe)
    np.testing.assert_array_equal(plain[0].temperature, np.ones(plain[0].n_exits))
    np.testing.assert_array_equal(fitted[0].temperature, fitted[1].temperature)
    assert (np.abs(np.log(fitted[0].temperature)) > 0.05).any()
    for split, before, after in zip((train, test), plain, fitted, strict=True):
        np.testing.assert_array_equal(before.predicted, after.predicted)
        scale = torch.from_numpy(after.temperature).view(1, -1, 1)
        p = torch.softmax(_logits(network, split).double() / scale, dim=2).numpy()
        ranked = np.sort(p, axis=2)
        np.testing.assert_allclose(after.confidence, ranked[..., -1], atol=2e-3)
        np.testing.assert_allclose(after.margin, ranked[..., -1] - ranked[..., -2], atol=2e-3)
        np.testing.assert_allclose(after.entropy, -(p * np.log(p)).sum(2), atol=4e-3)


def test_temperature_is_stored_and_was_one_before_it_existed(
    calibrated: EarlyExitNetwork, train: ImageSplit
) -> None:
    outcomes = evaluate(calibrated, train, 64)
    steep = dataclasses.replace(
        outcomes, temperature=np.linspace(0.5, 2.0, outcomes.n_exits, dtype=np.float32)
    )
    np.testing.assert_array_equal(OutcomeMatrix.from_bytes(steep.to_bytes()).temperature, steep.temperature)
    with np.load(io.BytesIO(steep.to_bytes())) as archive:
        old = {name: archive[name] for name in archive.files if name != "temperature"}
    written_before = io.BytesIO()
    np.savez_compressed(written_before, **old)  # type: ignore[arg-type]
    read = OutcomeMatrix.from_bytes(written_before.getvalue())
    np.testing.assert_array_equal(read.temperature, np.ones(outcomes.n_exits))
    np.testing.assert_array_equal(read.entropy, outcomes.entropy)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", limit=10)


def test_the_accuracy_meter_takes_the_head_width_of_its_space(digits: ImageData, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("space: mini\nhead_width: 16\n")
    space = Assembly(load_config(tmp_path / "study.yaml"), tmp_path).space
    assert space.name == "mini-head16"
    steps = dataclasses.replace(SMOKE_SUPERNET, steps=1, batch_size=8, sampled=0)
    trained = train_supernet(mini_space(), digits, steps, directory=tmp_path)
    assert train_supernet(space, digits, steps, directory=tmp_path) == trained  # found, not trained again
    meter = SupernetMeter(space, digits, trained, dataclasses.replace(RECIPE, train_images=40, epochs=1))
    backbone = space.presets["m0"]
    (record,) = meter.measure([backbone], session="s")
    assert record.valid, record.reason
    heads = load_supernet(trained.path, space, digits.n_classes)[0].extract(backbone).heads
    workload = space.workload(backbone, n_classes=10)
    assert [sum(p.numel() for p in head.parameters()) for head in heads] == [h.params for h in workload.heads]
    assert workload.heads[0].layers[0].out_shape[0] == 16


def _one_exit(space: MBConvSpace, device: Device) -> CostRecord:
    backbone = space.presets["m6"]
    exits = Exits.at((5,), first_exit=space.first_exit, n_blocks=backbone.n_blocks)
    request = CostRequest(backbone, exits, device.clock_table().default)
    record, *_ = device.measure(MeasurementPlan("s", (request,)))  # a busy host measures a row again
    return record


def test_a_simulated_wide_head_takes_longer() -> None:
    """Simulated latencies follow from the seed, so they may be compared."""

    def head_latency_ms(space: MBConvSpace) -> float:
        record = _one_exit(space, simulated_device("tx2-pascal-gpu", space=space, n_classes=10))
        return next(stage.latency_ms.value for stage in record.stages if stage.kind == "head")

    assert head_latency_ms(mini_space().with_head_width(512)) > 1.5 * head_latency_ms(mini_space())


@pytest.mark.parametrize("width", [5, 512])
def test_the_host_runs_heads_of_the_width_of_its_space(width: int) -> None:
    space = mini_space().with_head_width(width)
    ran: set[int] = set()

    def note(module: nn.Module, _inputs: object, _output: object) -> None:
        if isinstance(module, ExitHead):
            ran.add(module.conv.out_channels)

    handle = register_module_forward_hook(note)
    try:
        _one_exit(space, HostCpuDevice(space, 10))
    finally:
        handle.remove()
    assert ran == {width}
