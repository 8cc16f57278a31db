"""A backbone's forward pass straight from published weights: plain functions, written from the facts alone.

Shares no code with the package, so a fault of its slices, of the order of its layers or of its names shows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from hadas.spaces import Backbone

from .published import DEEPEST, WITH_SQUEEZE_EXCITE, make_divisible

STRIDES = (1, 2, 2, 2, 1, 2, 1)


def published_logits(weights: Mapping[str, Tensor], images: Tensor, backbone: Backbone) -> Tensor:
    """(n, C) logits; batch norm on the statistics of these images.

    Args:
        weights: by published name, without prefix.
        images: (n, 3, h, w), no larger than the backbone's resolution.
    """
    x = functional.interpolate(
        images, size=[backbone.resolution] * 2, mode="bicubic", align_corners=False, antialias=False
    )
    stem = weights["first_conv.conv.conv.weight"][: backbone.width[0]]
    x = functional.silu(_norm(weights, "first_conv.bn", functional.conv2d(x, stem, stride=2, padding=1)))
    for stage in range(7):
        for i in range(backbone.depth[stage]):
            x = _block(weights, sum(DEEPEST[:stage]) + i, x, backbone, stage, STRIDES[stage] if i == 0 else 1)
    x = _pointwise(weights["last_conv.final_expand_layer.conv.conv.weight"], x, 6 * x.shape[1])
    x = functional.silu(_norm(weights, "last_conv.final_expand_layer.bn", x))
    x = functional.adaptive_avg_pool2d(x, 1)
    x = functional.silu(
        _pointwise(weights["last_conv.feature_mix_layer.conv.conv.weight"], x, backbone.width[8])
    )
    matrix, bias = weights["classifier.linear.linear.weight"], weights["classifier.linear.linear.bias"]
    return functional.linear(x.flatten(1), matrix[:, : backbone.width[8]], bias)


def _block(
    weights: Mapping[str, Tensor], index: int, x: Tensor, backbone: Backbone, stage: int, stride: int
) -> Tensor:
    name, entered, kernel = f"blocks.{index}.mobile_inverted_conv", x, backbone.kernel[stage]
    width = backbone.width[stage + 1]
    if stage > 0:  # the first stage expands nothing
        middle = make_divisible(round(x.shape[1] * backbone.expand[stage]))
        x = _pointwise(weights[f"{name}.inverted_bottleneck.conv.conv.weight"], x, middle)
        x = functional.silu(_norm(weights, f"{name}.inverted_bottleneck.bn", x))
    middle, edge = x.shape[1], (5 - kernel) // 2
    taps = weights[f"{name}.depth_conv.conv.conv.weight"][:middle, :, edge : 5 - edge, edge : 5 - edge]
    x = functional.conv2d(x, taps, stride=stride, padding=kernel // 2, groups=middle)
    x = functional.silu(_norm(weights, f"{name}.depth_conv.bn", x))
    if WITH_SQUEEZE_EXCITE[stage]:
        se, squeezed = f"{name}.depth_conv.se.fc", make_divisible(middle // 4)
        gate = functional.adaptive_avg_pool2d(x, 1)
        gate = _pointwise(weights[f"{se}.reduce.weight"], gate, squeezed, weights[f"{se}.reduce.bias"])
        gate = torch.relu(gate)
        gate = _pointwise(weights[f"{se}.expand.weight"], gate, middle, weights[f"{se}.expand.bias"])
        x = x * ((gate + 3.0).clamp(0.0, 6.0) / 6.0)
    x = _pointwise(weights[f"{name}.point_linear.conv.conv.weight"], x, width)
    x = _norm(weights, f"{name}.point_linear.bn", x)
    if stride > 1:
        entered = functional.avg_pool2d(entered, stride, padding=entered.shape[-1] % 2)
    if entered.shape[1] != width:
        entered = _pointwise(weights[f"blocks.{index}.shortcut.conv.conv.weight"], entered, width)
    return x + entered


def _pointwise(weight: Tensor, x: Tensor, width: int, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution by the first outputs and inputs of a weight."""
    product = torch.einsum("oi,nihw->nohw", weight[:width, : x.shape[1], 0, 0], x)
    return product if bias is None else product + bias[:width].view(-1, 1, 1)


def _norm(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    scale, shift = (weights[f"{name}.bn.{role}"][: x.shape[1]] for role in ("weight", "bias"))
    return functional.batch_norm(x, None, None, scale, shift, training=True)
