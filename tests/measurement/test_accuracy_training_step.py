"""What one training step draws and drops: backbones near a target, dropout, drop-connect."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
import pytest
import torch

from hadas.datasets.images import ImageSplit
from hadas.measurement.accuracy.distributed import Processes
from hadas.measurement.accuracy.network import MBConvBlock
from hadas.measurement.accuracy.recipes import SMOKE_SUPERNET, SupernetRecipe
from hadas.measurement.accuracy.regularization import DropMasks, draw_drop_masks
from hadas.measurement.accuracy.sampling import N_BINS, NearTarget
from hadas.measurement.accuracy.sandwich import Sandwich, step_workers
from hadas.measurement.accuracy.supernet import Supernet
from hadas.spaces import Backbone, MBConvSpace, attentivenas_space, mini_space
from hadas.spaces.mbconv import backbone_macs, block_plans

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def workers() -> Iterator[Executor]:
    with step_workers(CPU, 1) as pool:
        yield pool


def _split() -> ImageSplit:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 3, 16, 16), dtype=np.uint8)
    return ImageSplit(pixels, rng.integers(0, 10, 24), np.arange(24, dtype=np.int32))


@pytest.mark.parametrize("space", [mini_space(), attentivenas_space()], ids=lambda space: space.name)
def test_macs_without_a_workload_are_the_workloads(space: MBConvSpace) -> None:
    for genome in space.sample(10, np.random.default_rng(0)):
        backbone = space.decode(genome)
        macs = space.workload(backbone, n_classes=100).macs
        assert backbone_macs(space.macro, backbone, n_classes=100) == macs


def test_candidates_lie_near_one_target_and_targets_cover_the_space() -> None:
    space = mini_space()
    near = NearTarget(space, 10, seed=0)
    rng = np.random.default_rng(1)
    bins = []
    for _ in range(120):
        macs = [backbone_macs(space.macro, b, n_classes=10) for b in near.candidates(3, rng)]
        bins += [i for i in range(N_BINS) if near.edges[i] <= min(macs) and max(macs) <= near.edges[i + 1]]
    assert len(bins) > 100  # of 120: all three in one bin
    assert len(set(bins)) > 20
    every = [backbone_macs(space.macro, space.decode(g), n_classes=10) for g in space.sample(500, rng)]
    shares = np.histogram(every, near.edges)[0] / 500
    assert np.abs(shares - 1 / N_BINS).max() < 0.04  # equal shares of random backbones, give or take


def test_where_a_bin_is_missed_the_nearest_fill_up() -> None:
    space = mini_space()
    near = NearTarget(space, 10, seed=0)
    near.edges[:] = np.linspace(1e12, 2e12, N_BINS + 1)  # far above every backbone
    found = near.candidates(2, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    rng.integers(N_BINS)
    rng.random()
    drawn = [space.decode(space.sample(1, rng)[0]) for _ in range(100)]
    largest = sorted(drawn, key=lambda b: -space.workload(b, n_classes=10).macs)[:2]
    assert [b.arch_id for b in found] == [b.arch_id for b in largest]


def test_best_and_worst_are_those_of_lowest_and_highest_loss(workers: Executor) -> None:
    net = Supernet(mini_space(), 10, seed=0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(8)
    rivals = NearTarget(mini_space(), 10, seed=0).candidates(4, np.random.default_rng(5))
    with torch.no_grad():
        losses = [float(torch.nn.functional.cross_entropy(net(images, b), labels)) for b in rivals]
    assert len(set(losses)) == 4
    for sampling, position in (("best", int(np.argmin(losses))), ("worst", int(np.argmax(losses)))):
        recipe = SupernetRecipe(sampling=sampling, candidates=4, sampled=1)
        sandwich = Sandwich(net, _split(), recipe, workers, Processes(0, 1, "cpu"))
        chosen = sandwich.students(images, labels, np.random.default_rng(5))
        assert [b.arch_id for b in chosen] == [rivals[position].arch_id]


def test_drop_rates_grow_with_depth_over_the_last_two_stages() -> None:
    backbone, n = mini_space().largest, 40_000
    masks = draw_drop_masks(
        backbone, n, np.random.default_rng(0), dropout=0.3, drop_connect=0.5, part=slice(0, n), device=CPU
    )
    assert masks is not None
    n_blocks = backbone.n_blocks
    assert sorted(masks.branches) == list(range(n_blocks - sum(backbone.depth[-2:]), n_blocks))
    for block, factor in masks.branches.items():
        rate = 0.5 * (block + 1) / n_blocks
        assert factor.shape == (n, 1, 1, 1)
        assert float((factor == 0).float().mean()) == pytest.approx(rate, abs=0.01)
        assert factor.max().item() == pytest.approx(1 / (1 - rate))
    assert masks.features is not None
    assert masks.features.shape == (n, backbone.width[-1])
    assert float((masks.features == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(masks.features.mean()) == pytest.approx(1.0, abs=0.01)


def test_every_process_gets_its_part_of_the_same_masks() -> None:
    def masks(part: slice) -> DropMasks:
        drawn = draw_drop_masks(
            mini_space().largest, 10, np.random.default_rng(3), dropout=0.3, drop_connect=0.5, part=part,
            device=CPU,
        )  # fmt: skip
        assert drawn is not None
        return drawn

    whole, parts = masks(slice(0, 10)), [masks(Processes(rank, 3, "cpu").part(10)) for rank in range(3)]
    for block, factor in whole.branches.items():
        assert torch.equal(torch.cat([part.branches[block] for part in parts]), factor)


def test_a_dropped_branch_leaves_the_shortcut_alone() -> None:
    space = mini_space()
    block = MBConvBlock(block_plans(space.macro, space.largest)[-2])
    x = torch.randn(3, block.project.conv.out_channels, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = block(x)
    dropped = block(x, torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1))
    assert torch.equal(dropped[0], x[0])
    assert torch.equal(dropped[1], plain[1])
    torch.testing.assert_close(dropped[2] - x[2], 2 * (plain[2] - x[2]))


def test_only_the_largest_backbone_drops_and_only_where_asked(workers: Executor) -> None:
    space = mini_space()
    net = Supernet(space, 10, seed=0)
    seen: list[tuple[Backbone, DropMasks | None]] = []
    net.register_forward_pre_hook(lambda _, given: seen.append((given[1], given[2])))
    processes = Processes(0, 1, "cpu")
    for dropout in (0.5, 0.0):
        recipe = SupernetRecipe(batch_size=8, dropout=dropout, drop_connect=dropout)
        Sandwich(net, _split(), recipe, workers, processes).gradients(0)
    with_masks = [backbone.arch_id for backbone, masks in seen if masks is not None]
    assert len(seen) == 8
    assert with_masks == [space.largest.arch_id]


def test_the_drawn_drops_follow_from_seed_and_step(workers: Executor) -> None:
    net = Supernet(mini_space(), 10, seed=0)
    recipe = SupernetRecipe(batch_size=8, sampled=0, dropout=0.5, drop_connect=0.5)
    losses = []
    for step in (0, 1, 0):
        sandwich = Sandwich(net, _split(), recipe, workers, Processes(0, 1, "cpu"))
        losses.append(float(sandwich.gradients(step)[0]))
    assert losses[0] == losses[2] != losses[1]


def test_read_only_images_train_without_a_warning(workers: Executor) -> None:
    split = _split()
    split.images.flags.writeable = False
    net = Supernet(mini_space(), 10, seed=0)
    sandwich = Sandwich(net, split, SMOKE_SUPERNET, workers, Processes(0, 1, "cpu"))
    assert torch.isfinite(sandwich.gradients(0)[0])
