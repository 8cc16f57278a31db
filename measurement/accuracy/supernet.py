"""The weight-shared supernet: one set of weights, every backbone of a space a slice of it.

The weights have the shapes of the largest backbone.  A smaller one takes the first channels of
every tensor, the centre of every depthwise kernel, and the first blocks of every stage, as in
AttentiveNAS, and the weights bear the names of its published checkpoints (:mod:`.checkpoints`).
The network of a backbone is :class:`EarlyExitNetwork` itself, run on the sliced
weights, so a trained slice and the extracted network cannot differ.

Batch norm always uses batch statistics here; none are tracked, because every backbone has its
own.  An extracted network needs :func:`hadas.measurement.accuracy.evaluation.recalibrate_batch_norm`.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...errors import CheckpointError
from ...spaces import Backbone, MBConvSpace
from ...spaces.macro import MacroArchitecture
from ...spaces.mbconv import block_plans
from .checkpoints import Tensors, non_finite_weight, published_name, tensors_id
from .network import EarlyExitNetwork, Normalization, build_network
from .regularization import DropMasks


def leading_slice(weight: Tensor, shape: torch.Size) -> Tensor:
    """First channels along the first two axes, centre along the kernel's two axes (a view)."""
    for axis, size in enumerate(shape):
        start = (weight.shape[axis] - size) // 2 if axis >= 2 else 0
        weight = weight.narrow(axis, start, size)
    return weight


def _skeleton(macro: MacroArchitecture, backbone: Backbone, n_classes: int) -> EarlyExitNetwork:
    """A network of the right structure without memory for weights, batch norm on batch statistics.

    Every thread has its own: running a skeleton on a slice puts the slice into it for that while.
    """
    return _skeleton_of_thread(macro, backbone, n_classes, threading.get_ident())


@lru_cache(maxsize=64)
def _skeleton_of_thread(
    macro: MacroArchitecture, backbone: Backbone, n_classes: int, _thread: int
) -> EarlyExitNetwork:
    with torch.device("meta"):
        network = build_network(macro, backbone, n_classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return network


def shared_shapes(space: MBConvSpace, n_classes: int) -> dict[str, torch.Size]:
    """Name, as our networks have it, and shape of every shared weight.

    Those of the largest backbone, and a shortcut convolution on every block, as published
    checkpoints have them: the first block of a stage needs one where its neighbour's width
    differs; on the others it is never used.
    """
    macro = space.macro
    largest = _skeleton(macro, space.largest, n_classes)
    shapes = {n: p.shape for n, p in largest.named_parameters() if not n.startswith("heads.")}
    for block, plan in enumerate(block_plans(macro, space.largest)):
        shapes[f"blocks.{block}.shortcut.weight"] = torch.Size((plan.out_channels, plan.in_channels, 1, 1))
    return shapes


class Supernet(nn.Module):
    """All backbones of one space behind one set of weights.

    Its ``state_dict`` has the names and shapes of the published AttentiveNAS checkpoints, their
    batch-norm statistics included.  These are carried along, never used: batch norm is calibrated
    per backbone.

    Attributes:
        space, n_classes: what it is made for.
        normalization: of the images that its weights expect.
        shared: the weights by the names that :class:`EarlyExitNetwork` gives them; block i of
            stage s has the index that it has in the deepest backbone.  Exit heads are not part of
            it: they are trained per backbone.
    """

    def __init__(
        self,
        space: MBConvSpace,
        n_classes: int,
        *,
        seed: int,
        normalization: Normalization = Normalization.SYMMETRIC,
    ) -> None:
        super().__init__()
        self.space = space
        self.n_classes = n_classes
        self.normalization = normalization
        self.shared: dict[str, nn.Parameter] = {}
        generator = torch.Generator().manual_seed(seed)
        for name, shape in shared_shapes(space, n_classes).items():
            published = published_name(name)
            owner, role = _container(self, published)
            self.shared[name] = nn.Parameter(initial_weight(name, shape, generator))
            owner.register_parameter(role, self.shared[name])
            if published.endswith("bn.bn.weight"):
                _register_statistics(owner, shape.numel())
                for tracking in ("0", "1"):
                    path = published.removesuffix("bn.weight") + f"bn_tracking.{tracking}.unused"
                    _register_statistics(_container(self, path)[0], shape.numel())

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.shared["stem.conv.weight"].device

    def weights(self, backbone: Backbone) -> Tensors:
        """The slice of a backbone: views into the shared weights, by the network's own names."""
        skeleton = _skeleton(self.space.macro, backbone, self.n_classes)
        index = self._block_index(backbone)
        weights = {}
        for name, parameter in skeleton.named_parameters():
            if name.startswith("heads."):
                continue
            shared_name = name
            if name.startswith("blocks."):
                _, block, rest = name.split(".", 2)
                shared_name = f"blocks.{index[int(block)]}.{rest}"
            weights[name] = leading_slice(self.shared[shared_name], parameter.shape)
        return weights

    def forward(self, images: Tensor, backbone: Backbone, masks: DropMasks | None = None) -> Tensor:
        """(n, C) final logits of a backbone, batch norm on the statistics of these images.

        Args:
            images: (n, 3, h, w) float32, any size.
            masks: what a training pass drops; nothing by default.
        """
        skeleton = _skeleton(self.space.macro, backbone, self.n_classes)
        weights = _prefixed(self.weights(backbone))
        logits: Tensor = functional_call(_FinalOnly(skeleton), weights, (images, masks))
        return logits

    def extract(self, backbone: Backbone) -> EarlyExitNetwork:
        """A network with its own copy of the backbone's weights, batch norm not yet calibrated.

        Exit heads get a fixed initialisation of their own.
        """
        with torch.device("meta"):
            network = build_network(self.space.macro, backbone, self.n_classes, self.normalization)
        network.to_empty(device=self.device)
        generator = torch.Generator().manual_seed(0)
        weights = self.weights(backbone)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                source = weights.get(name)
                parameter.copy_(
                    initial_weight(name, parameter.shape, generator) if source is None else source
                )
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        return network

    def _block_index(self, backbone: Backbone) -> list[int]:
        """For each block of a backbone, its index in the deepest one."""
        index: list[int] = []
        offset = 0
        for depth, stage in zip(backbone.depth, self.space.macro.stages, strict=True):
            index.extend(range(offset, offset + depth))
            offset += max(stage.depths)
        return index

    def tensors(self) -> Tensors:
        """Everything that a checkpoint holds, by published name, detached."""
        return {name: value.detach() for name, value in self.state_dict().items()}

    def load_tensors(self, tensors: Tensors, source: str) -> None:
        """Take weights from a checkpoint: exactly the names and shapes of this supernet, finite values.

        Args:
            tensors: by published name, without prefix.
            source: where they came from, for messages.

        Raises:
            CheckpointError: a name is missing or unknown, a shape differs, or a weight is not finite; names it.
        """
        own = self.tensors()
        kind = f"a checkpoint of space '{self.space.name}'"
        missing, unknown = own.keys() - tensors.keys(), tensors.keys() - own.keys()
        for names, fault in ((missing, "lacks"), (unknown, "has an unknown")):
            if names:
                more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
                raise CheckpointError(f"{source}: {fault} weight '{min(names)}'{more}; it is not {kind}")
        for name, value in tensors.items():
            if value.shape != own[name].shape:
                raise CheckpointError(
                    f"{source}: weight '{name}' has shape {tuple(value.shape)}; space '{self.space.name}' "
                    f"with {self.n_classes} classes needs {tuple(own[name].shape)}"
                )
        spoilt = non_finite_weight({name: tensors[name] for name, _ in self.named_parameters()})
        if spoilt is not None:
            raise CheckpointError(
                f"{source}: weight '{spoilt}' holds numbers that are not finite: its training diverged, or the file is "
                "damaged; name another file"
            )
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)

    @property
    def weights_id(self) -> str:
        """SHA-256 over names and values of all trained weights (first 16 hex digits)."""
        return tensors_id({name: parameter.detach() for name, parameter in self.named_parameters()})


def _container(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that owns ``path``'s last part, made on the way where it is missing."""
    *folders, leaf = path.split(".")
    for folder in folders:
        if not hasattr(root, folder):
            root.add_module(folder, nn.Module())
        root = root.get_submodule(folder)
    return root, leaf


def _register_statistics(owner: nn.Module, channels: int) -> None:
    """Running statistics as a fresh batch norm has them."""
    owner.register_buffer("running_mean", torch.zeros(channels))
    owner.register_buffer("running_var", torch.ones(channels))
    owner.register_buffer("num_batches_tracked", torch.tensor(0))


class _FinalOnly(nn.Module):
    """A network seen through its final classifier, so that ``functional_call`` runs no exit head."""

    def __init__(self, network: EarlyExitNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, masks: DropMasks | None) -> Tensor:
        return self.network.final_logits(images, masks)


def _prefixed(weights: Tensors) -> Tensors:
    return {f"network.{name}": value for name, value in weights.items()}


def initial_weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """A seeded initial value, by role.

    Convolutions and linear layers: normal with variance 2 / fan-in (He et al., ICCV 2015) and
    1 / fan-in.  Batch norm: scale 1, but 0 at the end of each residual branch, so that every block
    starts as its shortcut (Goyal et al., 2017).  Shortcut convolutions: the identity on the channels
    that both sides have, so that backbones whose neighbouring stages are equally wide (and that
    have no such convolution) and those whose are not start alike.  Biases: 0.
    """
    if "shortcut" in name:
        return torch.eye(shape[0], shape[1]).view(shape)
    if len(shape) == 1:
        is_scale = name.endswith("bn.weight") and "project" not in name
        return torch.ones(shape) if is_scale else torch.zeros(shape)
    fan_in = math.prod(shape[1:])
    gain = 2.0 if len(shape) == 4 else 1.0
    return torch.randn(shape, generator=generator) * math.sqrt(gain / fan_in)
