"""Shapes and costs of MBConv networks: one place for the arithmetic of block dimensions.

The supernet builds its layers from the same :func:`block_plans`, so that what is counted
is what runs.  Dimension rules: facts of the AttentiveNAS design (hidden width rounded to a
multiple of 8, squeeze-excite width a quarter of it, a residual path on every block).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from .macro import Backbone, MacroArchitecture
from .workload import Layer, Shape, Unit, Workload, conv, elementwise, linear, pool


def round_to_multiple(value: float, divisor: int = 8) -> int:
    """Nearest multiple of ``divisor``, at least ``divisor``, never below 90 % of ``value``."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Dimensions of one MBConv block of one backbone.

    Attributes:
        stage, index_in_stage: 0-based; ``stage`` counts the MBConv stages only.
        in_channels, hidden, out_channels: ``hidden`` = channels of the depthwise convolution.
        se_hidden: squeeze-excite width, 0 without.
        in_side, out_side: spatial size (square).
        has_expansion: whether a 1x1 expansion convolution precedes the depthwise one.
    """

    stage: int
    index_in_stage: int
    in_channels: int
    hidden: int
    out_channels: int
    kernel: int
    stride: int
    se_hidden: int
    in_side: int
    out_side: int
    has_expansion: bool


def strided(side: int, stride: int) -> int:
    """Output side of a convolution with padding kernel // 2 (odd kernel)."""
    return (side - 1) // stride + 1


def block_plans(macro: MacroArchitecture, backbone: Backbone) -> tuple[BlockPlan, ...]:
    """Dimensions of all blocks of a backbone, in order (L of them)."""
    plans: list[BlockPlan] = []
    channels = backbone.width[0]
    side = strided(backbone.resolution, macro.stem_stride)
    for s, stage in enumerate(macro.stages):
        out_channels = backbone.width[s + 1]
        expands_somewhere = max(stage.expands) > 1
        for i in range(backbone.depth[s]):
            stride = stage.stride if i == 0 else 1
            # Without an expansion convolution the depthwise one works on the block's input itself.
            expanded = round_to_multiple(round(channels * backbone.expand[s]))
            hidden = expanded if expands_somewhere else channels
            plans.append(
                BlockPlan(
                    stage=s,
                    index_in_stage=i,
                    in_channels=channels,
                    hidden=hidden,
                    out_channels=out_channels,
                    kernel=backbone.kernel[s],
                    stride=stride,
                    se_hidden=round_to_multiple(hidden // 4) if stage.squeeze_excite else 0,
                    in_side=side,
                    out_side=strided(side, stride),
                    has_expansion=expands_somewhere,
                )
            )
            channels = out_channels
            side = strided(side, stride)
    return tuple(plans)


@lru_cache(maxsize=16384)
def _block_layers(plan: BlockPlan, dtype_bytes: int) -> tuple[Layer, ...]:
    """Layers of a block; a space has few distinct ones, and a search asks for them again and again."""
    b = dtype_bytes
    entry: Shape = (plan.in_channels, plan.in_side, plan.in_side)
    layers: list[Layer] = []
    shape = entry
    if plan.has_expansion:
        layers.append(conv(shape, plan.hidden, 1, dtype_bytes=b))
        shape = layers[-1].out_shape
    layers.append(conv(shape, plan.hidden, plan.kernel, plan.stride, groups=plan.hidden, dtype_bytes=b))
    shape = layers[-1].out_shape
    if plan.se_hidden:
        layers.append(pool(shape, dtype_bytes=b))
        squeezed: Shape = (plan.hidden, 1, 1)
        layers.append(conv(squeezed, plan.se_hidden, 1, batch_norm=False, bias=True, dtype_bytes=b))
        layers.append(conv(layers[-1].out_shape, plan.hidden, 1, batch_norm=False, bias=True, dtype_bytes=b))
        layers.append(elementwise(shape, dtype_bytes=b))
    layers.append(conv(shape, plan.out_channels, 1, dtype_bytes=b))
    out = layers[-1].out_shape
    layers.extend(_shortcut_layers(plan, entry, b))
    layers.append(elementwise(out, dtype_bytes=b))
    return tuple(layers)


def _shortcut_layers(plan: BlockPlan, entry: Shape, dtype_bytes: int) -> list[Layer]:
    layers: list[Layer] = []
    shape = entry
    if plan.stride > 1:
        layers.append(pool(shape, (plan.out_side, plan.out_side), dtype_bytes=dtype_bytes))
        shape = layers[-1].out_shape
    if plan.in_channels != plan.out_channels:
        layers.append(conv(shape, plan.out_channels, 1, batch_norm=False, dtype_bytes=dtype_bytes))
    return layers


@lru_cache(maxsize=16384)
def _head_layers(width: int, shape: Shape, n_classes: int, dtype_bytes: int) -> tuple[Layer, ...]:
    mixed = conv(shape, width, 3, padding=0, dtype_bytes=dtype_bytes)
    return (
        mixed,
        pool(mixed.out_shape, dtype_bytes=dtype_bytes),
        linear(width, n_classes, dtype_bytes=dtype_bytes),
    )


def _tail_layers(
    macro: MacroArchitecture, backbone: Backbone, shape: Shape, n_classes: int, dtype_bytes: int
) -> tuple[Layer, ...]:
    expanded = conv(shape, shape[0] * macro.tail_expand, 1, dtype_bytes=dtype_bytes)
    pooled = pool(expanded.out_shape, dtype_bytes=dtype_bytes)
    mixed = conv(pooled.out_shape, backbone.width[-1], 1, batch_norm=False, dtype_bytes=dtype_bytes)
    return expanded, pooled, mixed, linear(backbone.width[-1], n_classes, dtype_bytes=dtype_bytes)


def mbconv_workload(
    macro: MacroArchitecture, backbone: Backbone, *, n_classes: int, dtype_bytes: int = 4
) -> Workload:
    """Work of a backbone, block by block, and of one exit head per exit position."""
    plans = block_plans(macro, backbone)
    image: Shape = (3, backbone.resolution, backbone.resolution)
    stem = Unit(
        "stem", 0, 0, (conv(image, backbone.width[0], 3, macro.stem_stride, dtype_bytes=dtype_bytes),)
    )
    blocks = tuple(
        Unit(
            f"{macro.stages[plan.stage].name}.{plan.index_in_stage}",
            plan.stage + 1,
            plan.index_in_stage,
            _block_layers(plan, dtype_bytes),
        )
        for plan in plans
    )
    last: Shape = (plans[-1].out_channels, plans[-1].out_side, plans[-1].out_side)
    tail = Unit("tail", len(macro.stages) + 1, 0, _tail_layers(macro, backbone, last, n_classes, dtype_bytes))
    heads = tuple(
        Unit(
            f"head@{position}",
            plans[position].stage + 1,
            plans[position].index_in_stage,
            _head_layers(
                macro.head_width,
                (plans[position].out_channels, plans[position].out_side, plans[position].out_side),
                n_classes,
                dtype_bytes,
            ),
        )
        for position in range(macro.first_exit, len(plans))
    )
    return Workload(backbone.arch_id, macro.first_exit, stem, blocks, tail, heads)


def backbone_macs(macro: MacroArchitecture, backbone: Backbone, *, n_classes: int) -> int:
    """Multiply-accumulates of a backbone with its final classifier: those of its workload, but
    without building one, for those who weigh thousands of backbones."""
    plans = block_plans(macro, backbone)
    last: Shape = (plans[-1].out_channels, plans[-1].out_side, plans[-1].out_side)
    image: Shape = (3, backbone.resolution, backbone.resolution)
    stem = conv(image, backbone.width[0], 3, macro.stem_stride)
    tail = _tail_layers(macro, backbone, last, n_classes, 4)
    return (
        stem.macs
        + sum(layer.macs for plan in plans for layer in _block_layers(plan, 4))
        + sum(layer.macs for layer in tail)
    )
