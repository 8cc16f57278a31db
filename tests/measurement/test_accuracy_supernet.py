from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.datasets.images import ImageData, load_images
from hadas.errors import CheckpointError
from hadas.measurement.accuracy.evaluation import fixed_threads, recalibrate_batch_norm
from hadas.measurement.accuracy.network import images_to_input
from hadas.measurement.accuracy.recipes import SMOKE_SUPERNET
from hadas.measurement.accuracy.supernet import Supernet, leading_slice
from hadas.spaces import Backbone, attentivenas_space, mini_space

RECIPE = dataclasses.replace(SMOKE_SUPERNET, steps=3, batch_size=16, sampled=1, threads=1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with fixed_threads(1):
        yield


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", limit=10)


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    """Weights drawn at random, so that no channel, kernel tap or block is like another."""
    net = Supernet(mini_space(), 10, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return net


def _random(seed: int) -> Backbone:
    return mini_space().decode(mini_space().sample(1, np.random.default_rng(seed))[0])


def _images(n: int) -> torch.Tensor:
    pixels = torch.randint(
        0, 256, (n, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return images_to_input(pixels)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_extracted_network_computes_what_the_supernet_computes(supernet: Supernet, seed: int) -> None:
    backbone, images = _random(seed), _images(32)
    network = supernet.extract(backbone)
    with torch.no_grad():
        dynamic = supernet(images, backbone)
        torch.testing.assert_close(network.train().final_logits(images), dynamic, rtol=1e-4, atol=1e-4)
        recalibrate_batch_norm(network, network.final_logits, [images])
        calibrated = network.eval().final_logits(images)
    # The calibrated variance is the unbiased one, n / (n - 1) of the batch's: n is 512 here or more.
    assert (calibrated - dynamic).abs().max() < 0.05 * dynamic.abs().max()


def test_a_slice_takes_first_blocks_first_channels_and_the_kernel_centre(supernet: Supernet) -> None:
    space = mini_space()
    network = supernet.extract(space.smallest)
    shared = supernet.tensors()
    block = 0
    starts = np.cumsum([0, *space.smallest.depth])
    for stage, (start, end) in zip(space.macro.stages, pairwise(starts), strict=True):
        for i in range(end - start):
            taken = network.blocks[start + i].depthwise.conv.weight
            full = shared[f"blocks.{block + i}.mobile_inverted_conv.depth_conv.conv.conv.weight"]
            margin = (full.shape[2] - taken.shape[2]) // 2
            crop = slice(margin, margin + taken.shape[2])
            assert torch.equal(taken, full[: len(taken), :, crop, crop])
            project = network.blocks[start + i].project.conv.weight
            wide = shared[f"blocks.{block + i}.mobile_inverted_conv.point_linear.conv.conv.weight"]
            assert torch.equal(project, wide[: project.shape[0], : project.shape[1]])
        block += max(stage.depths)
    assert margin == 1


def test_training_a_small_backbone_moves_its_own_slice_alone(supernet: Supernet) -> None:
    space = mini_space()
    supernet.zero_grad()
    supernet(_images(8), space.smallest).square().sum().backward()
    inside = supernet.weights(space.smallest)
    moved = {n: p.grad for n, p in supernet.shared.items() if p.grad is not None}
    last = max(int(name.split(".")[1]) for name in moved if name.startswith("blocks."))
    assert last == sum(max(s.depths) for s in space.macro.stages[:-1])  # mb7's first block in the deepest
    stem = moved["stem.conv.weight"]
    n_inside = len(inside["stem.conv.weight"])
    assert stem[:n_inside].abs().min() > 0
    assert stem[n_inside:].abs().max() == 0


def test_leading_slice_is_a_view() -> None:
    weight = torch.arange(2 * 3 * 5 * 5.0).view(2, 3, 5, 5)
    part = leading_slice(weight, torch.Size((1, 2, 3, 3)))
    assert part.data_ptr() == weight[0, 0, 1, 1].data_ptr()
    assert part[0, 0].tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]


def test_attentivenas_slices_fit_every_preset() -> None:
    space = attentivenas_space()
    supernet = Supernet(space, 10, seed=0)
    for backbone in (*space.presets.values(), space.smallest, space.largest):
        weights = supernet.weights(backbone)
        n_weights = sum(w.numel() for w in weights.values())
        assert n_weights == space.workload(backbone, n_classes=10).params


def test_a_missing_or_misshapen_weight_is_named(supernet: Supernet) -> None:
    tensors = supernet.tensors()
    lacking = {name: value for name, value in tensors.items() if name != "first_conv.conv.conv.weight"}
    with pytest.raises(CheckpointError, match=r"f\.pt: lacks weight 'first_conv\.conv\.conv\.weight'"):
        supernet.load_tensors(lacking, "f.pt")
    with pytest.raises(CheckpointError, match=r"f\.pt: weight 'first_conv\.bn\.bn\.bias' has shape \(1,\)"):
        supernet.load_tensors({**tensors, "first_conv.bn.bn.bias": torch.zeros(1)}, "f.pt")
