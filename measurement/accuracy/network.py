"""One backbone with an exit head at every position, as a plain torch module.

Dimensions come from :func:`hadas.spaces.mbconv.block_plans`, so what a
:class:`~hadas.spaces.Workload` counts is what runs here.  Structure: facts of the AttentiveNAS
design (Wang et al., CVPR 2021) and of the HADAS exit head (Bouzidi et al., DATE 2023).

Shapes: n images, c channels, s x s pixels, C classes, L blocks, P = L - first_exit positions.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import SpaceError
from ...spaces import Backbone, Stage
from ...spaces.macro import MacroArchitecture
from ...spaces.mbconv import BlockPlan, block_plans
from .regularization import DropMasks


class Normalization(StrEnum):
    """How pixel values become network input; part of what weights were trained on."""

    SYMMETRIC = "symmetric"
    """0 .. 255 to -1 .. 1."""
    IMAGENET = "imagenet"
    """0 .. 255 to 0 .. 1, then each channel less its ImageNet mean, over its standard deviation."""


_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_SD = (0.229, 0.224, 0.225)


def images_to_input(images: Tensor, normalization: Normalization = Normalization.SYMMETRIC) -> Tensor:
    """Network input from stored images.

    Args:
        images: (n, 3, h, w) uint8, on any device.

    Returns:
        (n, 3, h, w) float32 on the same device.
    """
    x = images.to(torch.float32)
    if normalization is Normalization.SYMMETRIC:
        return x.mul_(2.0 / 255.0).sub_(1.0)
    mean, sd = (x.new_tensor(v).view(1, 3, 1, 1) for v in (_IMAGENET_MEAN, _IMAGENET_SD))
    return x.div_(255.0).sub_(mean).div_(sd)


def resize_square(x: Tensor, resolution: int) -> Tensor:
    """Bicubic resize of (n, 3, h, w) to ``resolution``; antialiased only where it shrinks."""
    height, width = x.shape[-2:]
    if (height, width) == (resolution, resolution):
        return x
    shrinks = resolution < max(height, width)
    return functional.interpolate(x, size=(resolution, resolution), mode="bicubic", antialias=shrinks)


class ConvNorm(nn.Module):
    """Convolution (no bias), batch norm, optionally swish: (n, c, s, s) -> (n, c', s', s')."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1,
        activation: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return functional.silu(x, inplace=True) if self.activation else x


class SqueezeExcite(nn.Module):
    """Channel gates from the global average: reduce, ReLU, expand, h-sigmoid."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.expand(functional.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * functional.hardsigmoid(gates)


class MBConvBlock(nn.Module):
    """Inverted bottleneck with a residual path: (n, in, s, s) -> (n, out, ceil(s / stride), ...)."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.stride = plan.stride
        self.expand = ConvNorm(plan.in_channels, plan.hidden, 1) if plan.has_expansion else None
        self.depthwise = ConvNorm(plan.hidden, plan.hidden, plan.kernel, plan.stride, groups=plan.hidden)
        self.se = SqueezeExcite(plan.hidden, plan.se_hidden) if plan.se_hidden else None
        self.project = ConvNorm(plan.hidden, plan.out_channels, 1, activation=False)
        same_width = plan.in_channels == plan.out_channels
        self.shortcut = None if same_width else nn.Conv2d(plan.in_channels, plan.out_channels, 1, bias=False)

    def forward(self, x: Tensor, branch_factor: Tensor | None = None) -> Tensor:
        """Args: branch_factor: (n, 1, 1, 1), what the residual branch is multiplied by."""
        hidden = x if self.expand is None else self.expand(x)
        hidden = self.depthwise(hidden)
        if self.se is not None:
            hidden = self.se(hidden)
        out: Tensor = self.project(hidden)
        if branch_factor is not None:
            out = out * branch_factor.to(out.dtype)
        # An odd side is padded, so that the pooled path is as large as the strided convolution's.
        padding = x.shape[-1] % 2
        skip = functional.avg_pool2d(x, self.stride, padding=padding) if self.stride > 1 else x
        return out + (skip if self.shortcut is None else self.shortcut(skip))


class Tail(nn.Module):
    """Final expansion, pooling, feature mix and classifier: (n, c, s, s) -> (n, C) logits."""

    def __init__(self, in_channels: int, expanded: int, width: int, n_classes: int) -> None:
        super().__init__()
        self.expand = ConvNorm(in_channels, expanded, 1)
        self.mix = nn.Conv2d(expanded, width, 1, bias=False)
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, x: Tensor, feature_factor: Tensor | None = None) -> Tensor:
        """Args: feature_factor: (n, width), what the classifier's input is multiplied by."""
        pooled = self.expand(x).mean((2, 3), keepdim=True)
        # flatten(1), never squeeze: squeeze would drop a batch of one.
        features = functional.silu(self.mix(pooled)).flatten(1)
        if feature_factor is not None:
            features = features * feature_factor.to(features.dtype)
        logits: Tensor = self.classifier(features)
        return logits


class ExitHead(nn.Module):
    """3x3 convolution without padding, batch norm, leaky ReLU, pooling, linear: (n, C) logits."""

    def __init__(self, in_channels: int, width: int, n_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.leaky_relu(self.bn(self.conv(x))).mean((2, 3))
        logits: Tensor = self.classifier(pooled)
        return logits


class EarlyExitNetwork(nn.Module):
    """A backbone, its final classifier, and a head at every exit position.

    Attributes:
        backbone, n_classes: what it was built for.
        plans: dimensions of the L blocks.
        normalization: of the images that its weights expect.
        stem: 3x3 convolution, (n, 3, r, r) -> (n, c, s, s) at the backbone's resolution r.
        blocks: the L MBConv blocks.
        tail: everything after the last block.
        heads: P heads; ``heads[i]`` reads the output of ``blocks[first_exit + i]``.
        first_exit: 0-based block index of the first exit position.
    """

    def __init__(
        self,
        macro: MacroArchitecture,
        backbone: Backbone,
        n_classes: int,
        normalization: Normalization = Normalization.SYMMETRIC,
    ) -> None:
        super().__init__()
        plans = block_plans(macro, backbone)
        last = plans[-1].out_channels
        self.backbone = backbone
        self.plans = plans
        self.n_classes = n_classes
        self.normalization = normalization
        self.first_exit = macro.first_exit
        self.stem = ConvNorm(3, backbone.width[0], 3, macro.stem_stride)
        self.blocks = nn.ModuleList(MBConvBlock(plan) for plan in plans)
        self.tail = Tail(last, last * macro.tail_expand, backbone.width[-1], n_classes)
        self.heads = nn.ModuleList(
            ExitHead(plan.out_channels, macro.head_width, n_classes) for plan in plans[macro.first_exit :]
        )

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.stem.conv.weight.device

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Run the backbone.

        Args:
            images: (n, 3, h, w) float32 as :func:`images_to_input` gives it, any size.

        Returns:
            What each head reads (P tensors (n, c, s, s)), and the final logits (n, C).
        """
        x = self.stem(resize_square(images, self.backbone.resolution))
        seen = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index >= self.first_exit:
                seen.append(x)
        return seen, self.tail(x)

    def final_logits(self, images: Tensor, masks: DropMasks | None = None) -> Tensor:
        """(n, C) logits of the final classifier alone; no head runs.

        Args:
            masks: what a training pass drops; nothing by default.
        """
        masks = masks or DropMasks({}, None)
        x = self.stem(resize_square(images, self.backbone.resolution))
        for index, block in enumerate(self.blocks):
            x = block(x, masks.branches.get(index))
        logits: Tensor = self.tail(x, masks.features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """(n, P + 1, C) logits of every exit in order of depth, the final classifier last."""
        seen, final = self.features(images)
        exits = [head(feature) for head, feature in zip(self.heads, seen, strict=True)]
        return torch.stack([*exits, final], dim=1)


def build_network(
    macro: MacroArchitecture,
    backbone: Backbone,
    n_classes: int,
    normalization: Normalization = Normalization.SYMMETRIC,
) -> EarlyExitNetwork:
    """An early-exit network with freshly initialised weights.

    The initialisation reads torch's global generator; where weights matter they are loaded
    (:meth:`hadas.measurement.accuracy.supernet.Supernet.extract`), and a latency meter needs
    only the shapes.

    Raises:
        SpaceError: the network has no place for an exit, or the last block is too small for a head.
    """
    plans = block_plans(macro, backbone)
    if len(plans) <= macro.first_exit:
        raise SpaceError(f"{backbone.arch_id}: {len(plans)} blocks leave no exit from {macro.first_exit} on")
    if plans[-1].out_side < 3:
        raise SpaceError(
            f"{backbone.arch_id}: the last block is {plans[-1].out_side} x {plans[-1].out_side} pixels; "
            "an exit head needs at least 3 x 3: raise the resolution or lower the strides"
        )
    return EarlyExitNetwork(macro, backbone, n_classes, normalization)


def stage_module(network: EarlyExitNetwork, stage: Stage) -> nn.Module:
    """The part of a network that one :class:`~hadas.spaces.Stage` runs.

    Its input is (n, *stage.units[0].in_shape): the first segment takes images already at the
    backbone's resolution.  A segment's output is the feature map at its position, or logits
    (n, C) for the last one; a head's output is logits.  Parameters are shared with ``network``.

    Raises:
        SpaceError: a stage that this network does not have.
    """
    n_blocks = len(network.blocks)
    last = n_blocks if stage.kind == "segment" else n_blocks - 1
    if not network.first_exit <= stage.position <= last:
        raise SpaceError(
            f"{network.backbone.arch_id}: no {stage.kind} at position {stage.position}; "
            f"positions are {network.first_exit}..{last}"
        )
    if stage.kind == "head":
        return network.heads[stage.position - network.first_exit]
    final = stage.position == n_blocks
    starts = stage.units[0].stage == 0
    n_inside = len(stage.units) - int(starts) - int(final)
    end = n_blocks if final else stage.position + 1
    parts: list[nn.Module] = [network.stem] if starts else []
    parts.extend(network.blocks[end - n_inside : end])
    if final:
        parts.append(network.tail)
    return nn.Sequential(*parts)
