from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.errors import SpaceError
from hadas.measurement.accuracy.evaluation import fixed_threads
from hadas.measurement.accuracy.network import (
    EarlyExitNetwork,
    build_network,
    images_to_input,
    resize_square,
    stage_module,
)
from hadas.spaces import Backbone, MBConvSpace, Stage, attentivenas_space, mini_space

from .counting import count_macs

PRESETS = [(attentivenas_space(), "a0", 100), (attentivenas_space(), "a6", 1000)] + [
    (mini_space(), name, 10) for name in mini_space().presets
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with fixed_threads(1):
        yield


def _random(space: MBConvSpace, seed: int) -> Backbone:
    return space.decode(space.sample(1, np.random.default_rng(seed))[0])


@pytest.mark.parametrize(
    ("space", "preset", "n_classes"), PRESETS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_module_has_the_parameters_and_macs_that_the_workload_counts(
    space: MBConvSpace, preset: str, n_classes: int
) -> None:
    backbone = space.presets[preset]
    network = build_network(space.macro, backbone, n_classes).eval()
    workload = space.workload(backbone, n_classes=n_classes)
    head_params = sum(head.params for head in workload.heads)
    assert sum(p.numel() for p in network.parameters()) == workload.params + head_params
    macs = count_macs(network, torch.zeros(1, 3, backbone.resolution, backbone.resolution))
    assert macs == workload.macs + sum(head.macs for head in workload.heads)


@given(seed=st.integers(0, 10_000), n_positions=st.integers(0, 4))
@settings(max_examples=10, deadline=None)
def test_stages_in_a_row_compute_what_the_network_computes(seed: int, n_positions: int) -> None:
    space = mini_space()
    backbone = _random(space, seed)
    network = build_network(space.macro, backbone, 10).eval()
    workload = space.workload(backbone, n_classes=10)
    positions = sorted(
        np.random.default_rng(seed).choice(
            range(space.first_exit, backbone.n_blocks), n_positions, replace=False
        )
    )
    x = torch.randn(
        1, 3, backbone.resolution, backbone.resolution, generator=torch.Generator().manual_seed(seed)
    )
    with torch.no_grad():
        expected = network(x)
        for stage in workload.stages(positions):
            module = stage_module(network, stage)
            assert tuple(x.shape[1:]) == stage.units[0].in_shape
            assert sum(p.numel() for p in module.parameters()) == sum(u.params for u in stage.units)
            assert count_macs(module, x) == sum(u.macs for u in stage.units)
            out = module(x)
            if stage.kind == "segment" and stage.position < backbone.n_blocks:
                x = out
            else:
                torch.testing.assert_close(out, expected[:, stage.position - space.first_exit])


def _network(preset: str) -> EarlyExitNetwork:
    return build_network(mini_space().macro, mini_space().presets[preset], 10)


def test_batch_of_one_and_any_input_size_work() -> None:
    network = _network("m3").eval()
    images = torch.randint(0, 256, (3, 3, 31, 27), dtype=torch.uint8)
    with torch.no_grad():
        together = network(images_to_input(images))
        alone = network(images_to_input(images[:1]))
        final = network.final_logits(images_to_input(images))
    assert together.shape == (3, network.backbone.n_blocks - network.first_exit + 1, 10)
    torch.testing.assert_close(alone[0], together[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(final, together[:, -1])


def test_input_scale_and_resize_keep_a_flat_image_flat() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 9, 9)
    scaled = images_to_input(images)
    assert scaled.unique().tolist() == [-1.0, 1.0]
    for resolution in (5, 9, 20):
        resized = resize_square(scaled, resolution)
        assert resized.shape == (2, 3, resolution, resolution)
        torch.testing.assert_close(resized[1], torch.ones_like(resized[1]))


def test_a_stage_of_a_deeper_network_is_refused() -> None:
    deep = mini_space().presets["m6"]
    stage: Stage = mini_space().workload(deep, n_classes=10).unit_stages()[-2]
    with pytest.raises(SpaceError, match=rf"no head at position {deep.n_blocks - 1}"):
        stage_module(_network("m0"), stage)
