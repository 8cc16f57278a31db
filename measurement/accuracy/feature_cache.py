"""Memory for the frozen features that exit heads read, and a refusal before it runs out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch

from ...errors import ConfigError, SpaceError
from ...spaces import Backbone, MBConvSpace
from ...spaces.mbconv import BlockPlan, block_plans
from .recipes import ExitRecipe


def feature_cache_bytes(read: Sequence[BlockPlan], n_classes: int, n_images: int, precision: str) -> int:
    """Memory for what all heads read of so many images, from the shapes of the network alone.

    Args:
        read: the blocks whose output a head reads.
    """
    values = sum(plan.out_channels * plan.out_side**2 for plan in read)
    teacher_bytes = 4 * n_classes  # float32 whatever the precision
    return n_images * (values * (2 if precision == "bfloat16" else 4) + teacher_bytes)


def check_feature_caches(
    space: MBConvSpace, backbones: Iterable[Backbone], recipe: ExitRecipe, *, n_classes: int, n_train: int,
    device: torch.device, side_by_side: int = 1,
) -> None:  # fmt: skip
    """Refuse backbones that cannot be measured for want of memory, before any of them is.

    Args:
        backbones: those of another space, which no memory would help, are passed over.
        n_train: images of the training split.
        device: of this machine.
        side_by_side: how many of them are measured there at the same time, at most.

    Raises:
        ConfigError: the recipe keeps features, and those of the largest backbones do not fit.
    """
    if not recipe.cache_features:
        return
    sizes = []
    for backbone in dict.fromkeys(backbones):
        try:
            space.encode(backbone)
        except SpaceError:
            continue
        read = block_plans(space.macro, backbone)[space.first_exit :]
        n_images = min(n_train, recipe.train_images)
        needed = feature_cache_bytes(read, n_classes, n_images, recipe.precision)
        sizes.append((needed, backbone.arch_id, len(read), n_images))
    sizes.sort(reverse=True)
    if sizes:
        needed, arch_id, n_exits, n_images = sizes[0]
        others = [size[0] for size in sizes[1:side_by_side]]
        check_room(needed, arch_id, n_exits, n_images, device, others=others)


def check_room(
    needed: int, arch_id: str, n_exits: int, n_images: int, device: torch.device, *, others: Sequence[int] = (),
) -> None:  # fmt: skip
    """Refuse a cache of ``needed`` bytes, beside those of ``others``, that takes over half of the memory left.

    Raises:
        ConfigError: says what to change.
    """
    available = available_bytes(device)
    together = needed + sum(others)
    if together > available / 2:
        beside = f" ({together / 1e9:.1f} GB with the {len(others)} measured beside it)" if others else ""
        fewer = "fewer workers, " if others else ""
        raise ConfigError(
            f"ExitRecipe.cache_features: the features of {n_images} images at all {n_exits} exits of {arch_id} take "
            f"{needed / 1e9:.1f} GB{beside}, more than half of the {available / 1e9:.1f} GB available on "
            f"'{device}'; set cache_features to false, or {fewer}train_images lower"
        )


def available_bytes(device: torch.device) -> int:
    """Memory that could be had now without swapping."""
    if device.type == "cuda":
        # What torch holds from tensors that are gone is free to use, though not to the driver's eyes.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # elsewhere than on Linux: all there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
