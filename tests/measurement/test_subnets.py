"""Twenty random genomes and a0..a6: what is counted, what is extracted and what the supernet runs agree."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from hadas.measurement.accuracy.evaluation import fixed_threads
from hadas.measurement.accuracy.network import build_network, images_to_input
from hadas.measurement.accuracy.supernet import Supernet
from hadas.spaces import Backbone, MBConvSpace, attentivenas_space, mini_space

from .counting import count_macs
from .published import published_weights
from .published_forward import published_logits

SPACE = attentivenas_space()
N_CLASSES = 100


def _genomes(space: MBConvSpace, n: int) -> dict[str, Backbone]:
    genomes = space.sample(n, np.random.default_rng(20))
    return {**space.presets, **{f"random{i}": space.decode(genome) for i, genome in enumerate(genomes)}}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with fixed_threads(1):
        yield


@pytest.mark.parametrize("name", _genomes(SPACE, 20))
def test_macs_counted_by_hooks_are_those_of_the_workload(name: str) -> None:
    backbone = _genomes(SPACE, 20)[name]
    workload = SPACE.workload(backbone, n_classes=N_CLASSES)
    with torch.device("meta"):
        network = build_network(SPACE.macro, backbone, N_CLASSES).eval()
        counted = count_macs(network, torch.zeros(1, 3, backbone.resolution, backbone.resolution))
    counted_on_paper = workload.macs + sum(head.macs for head in workload.heads)
    assert counted == pytest.approx(counted_on_paper, rel=1e-3)


@pytest.fixture(scope="module", params=[SPACE, mini_space()], ids=lambda space: space.name)
def supernet(request: pytest.FixtureRequest) -> Supernet:
    """Weights drawn at random, so that no channel, kernel tap or residual branch is like another."""
    net = Supernet(request.param, N_CLASSES, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return net


def test_static_and_dynamic_outputs_agree(supernet: Supernet) -> None:
    pixels = torch.randint(
        0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images = images_to_input(pixels, supernet.normalization)
    worst = 0.0
    for backbone in _genomes(supernet.space, 20).values():
        network = supernet.extract(backbone).train()
        with torch.no_grad():
            dynamic = supernet(images, backbone)
            static = network.final_logits(images)
        assert dynamic.abs().max() > 1e-2  # outputs that could differ
        worst = max(worst, float((static - dynamic).abs().max() / dynamic.abs().max()))
    assert worst < 1e-5


@pytest.mark.parametrize("name", ["a0", "a6", "random0", "random1", "random2"])
def test_a_backbone_computes_what_its_published_weights_say(name: str) -> None:
    weights = published_weights(N_CLASSES, prefix="")
    net = Supernet(SPACE, N_CLASSES, seed=0)
    net.load_tensors(weights, "published")
    backbone = _genomes(SPACE, 20)[name]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours, expected = net(images, backbone), published_logits(weights, images, backbone)
    assert expected.std() > 1e-2  # outputs that could differ
    assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-4
