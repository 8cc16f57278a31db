"""A synthetic AttentiveNAS checkpoint: every published key and shape, written down from the facts alone."""

from __future__ import annotations

import torch
from torch import Tensor

WIDEST_INPUT = (24, 24, 32, 40, 72, 128, 216)
"""Channels that enter the first block of each stage: the stem's, then the stage before's."""
WIDEST = (24, 32, 40, 72, 128, 216, 224)
DEEPEST = (2, 5, 6, 6, 8, 8, 2)
WIDEST_EXPANSION = (1, 6, 6, 6, 6, 6, 6)
WITH_SQUEEZE_EXCITE = (False, False, True, False, True, True, True)
FEATURES = 1984
EXPANDED = 224 * 6


def make_divisible(value: int, divisor: int = 8) -> int:
    rounded = max(divisor, (value + divisor // 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def published_shapes(n_classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Key without prefix -> shape."""
    shapes: dict[str, tuple[int, ...]] = {}

    def statistics(prefix: str, channels: int) -> None:
        shapes[f"{prefix}.running_mean"] = (channels,)
        shapes[f"{prefix}.running_var"] = (channels,)
        shapes[f"{prefix}.num_batches_tracked"] = ()

    def norm(prefix: str, channels: int) -> None:
        shapes[f"{prefix}.bn.weight"] = shapes[f"{prefix}.bn.bias"] = (channels,)
        for part in ("bn", "bn_tracking.0", "bn_tracking.1"):
            statistics(f"{prefix}.{part}", channels)

    shapes["first_conv.conv.conv.weight"] = (24, 3, 3, 3)
    norm("first_conv.bn", 24)
    block = 0
    for stage, depth in enumerate(DEEPEST):
        channels = WIDEST_INPUT[stage]
        for _ in range(depth):
            out, middle = WIDEST[stage], channels * WIDEST_EXPANSION[stage]
            conv = f"blocks.{block}.mobile_inverted_conv"
            if WIDEST_EXPANSION[stage] > 1:
                shapes[f"{conv}.inverted_bottleneck.conv.conv.weight"] = (middle, channels, 1, 1)
                norm(f"{conv}.inverted_bottleneck.bn", middle)
            shapes[f"{conv}.depth_conv.conv.conv.weight"] = (middle, 1, 5, 5)
            norm(f"{conv}.depth_conv.bn", middle)
            if WITH_SQUEEZE_EXCITE[stage]:
                squeezed = make_divisible(middle // 4)
                shapes[f"{conv}.depth_conv.se.fc.reduce.weight"] = (squeezed, middle, 1, 1)
                shapes[f"{conv}.depth_conv.se.fc.reduce.bias"] = (squeezed,)
                shapes[f"{conv}.depth_conv.se.fc.expand.weight"] = (middle, squeezed, 1, 1)
                shapes[f"{conv}.depth_conv.se.fc.expand.bias"] = (middle,)
            shapes[f"{conv}.point_linear.conv.conv.weight"] = (out, middle, 1, 1)
            norm(f"{conv}.point_linear.bn", out)
            shapes[f"blocks.{block}.shortcut.conv.conv.weight"] = (out, channels, 1, 1)
            channels, block = out, block + 1
    shapes["last_conv.final_expand_layer.conv.conv.weight"] = (EXPANDED, 224, 1, 1)
    norm("last_conv.final_expand_layer.bn", EXPANDED)
    shapes["last_conv.feature_mix_layer.conv.conv.weight"] = (FEATURES, EXPANDED, 1, 1)
    shapes["classifier.linear.linear.weight"] = (n_classes, FEATURES)
    shapes["classifier.linear.linear.bias"] = (n_classes,)
    return shapes


def published_weights(n_classes: int = 1000, *, prefix: str = "module.", seed: int = 0) -> dict[str, Tensor]:
    """A state_dict with random values of sensible size."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in published_shapes(n_classes).items():
        if name.endswith("num_batches_tracked"):
            value = torch.tensor(7)
        elif name.endswith(("running_var", "bn.weight")):
            value = 0.5 + torch.rand(shape, generator=generator)
        elif len(shape) < 2:
            value = 0.1 * torch.randn(shape, generator=generator)
        else:
            fan_in = int(torch.tensor(shape[1:]).prod())
            value = torch.randn(shape, generator=generator) / fan_in**0.5
        tensors[prefix + name] = value
    return tensors
