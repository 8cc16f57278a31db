"""The weight-shared supernet: one set of weights, every backbone of a space a slice of it.

The weights have the shapes of the largest backbone.  A smaller one takes the first channels of
every tensor, the centre of every depthwise kernel, and the first blocks of every stage, as in
AttentiveNAS.  The network of a backbone is :class:`EarlyExitNetwork` itself, run on the sliced
weights, so a trained slice and the extracted network cannot differ.

Batch norm always uses batch statistics here; none are tracked, because every backbone has its
own.  An extracted network needs :func:`hadas.measurement.accuracy.evaluation.recalibrate_batch_norm`.
"""

from __future__ import annotations

import hashlib
import math
import threading
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...errors import CheckpointError
from ...spaces import Backbone, MBConvSpace
from ...spaces.macro import MacroArchitecture
from .network import EarlyExitNetwork, build_network

Tensors = dict[str, Tensor]


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
    """Name and shape of every shared weight.

    Those of the largest backbone, and a shortcut convolution on the first block of every stage:
    the largest backbone needs none where two of its neighbouring stages happen to be equally wide.
    """
    macro = space.macro
    largest = _skeleton(macro, space.largest, n_classes)
    shapes = {n: p.shape for n, p in largest.named_parameters() if not n.startswith("heads.")}
    in_channels, block = max(macro.stem_widths), 0
    for stage in macro.stages:
        shapes[f"blocks.{block}.shortcut.weight"] = torch.Size((max(stage.widths), in_channels, 1, 1))
        in_channels, block = max(stage.widths), block + max(stage.depths)
    return shapes


class Supernet(nn.Module):
    """All backbones of one space behind one set of weights.

    Attributes:
        space, n_classes: what it is made for.
        shared: the weights, named as in the largest :class:`EarlyExitNetwork` with ``.`` as ``/``;
            block i of stage s has the index that it has in the deepest backbone.  Exit heads are
            not part of it: they are trained per backbone.
    """

    def __init__(self, space: MBConvSpace, n_classes: int, *, seed: int) -> None:
        super().__init__()
        self.space = space
        self.n_classes = n_classes
        generator = torch.Generator().manual_seed(seed)
        self.shared = nn.ParameterDict()
        for name, shape in shared_shapes(space, n_classes).items():
            self.shared[_key(name)] = nn.Parameter(initial_weight(name, shape, generator))

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
            weights[name] = leading_slice(self.shared[_key(shared_name)], parameter.shape)
        return weights

    def forward(self, images: Tensor, backbone: Backbone) -> Tensor:
        """(n, C) final logits of a backbone, batch norm on the statistics of these images.

        Args:
            images: (n, 3, h, w) float32, any size.
        """
        skeleton = _skeleton(self.space.macro, backbone, self.n_classes)
        logits: Tensor = functional_call(_FinalOnly(skeleton), _prefixed(self.weights(backbone)), (images,))
        return logits

    def extract(self, backbone: Backbone) -> EarlyExitNetwork:
        """A network with its own copy of the backbone's weights, batch norm not yet calibrated.

        Exit heads get a fixed initialisation of their own.
        """
        with torch.device("meta"):
            network = build_network(self.space.macro, backbone, self.n_classes)
        network.to_empty(device="cpu")
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
        """The shared weights by name, detached, for a checkpoint."""
        return {name.replace("/", "."): value.detach() for name, value in self.shared.items()}

    def load_tensors(self, tensors: Tensors, source: str) -> None:
        """Take weights from a checkpoint.

        Raises:
            CheckpointError: a name is missing or unknown, or a shape differs; names it.
        """
        own = self.tensors()
        for name in sorted(own.keys() ^ tensors.keys()):
            fault = "lacks" if name in own else "has an unknown"
            raise CheckpointError(
                f"{source}: {fault} weight '{name}'; it is not a checkpoint of space '{self.space.name}'"
            )
        for name, value in tensors.items():
            if value.shape != own[name].shape:
                raise CheckpointError(
                    f"{source}: weight '{name}' has shape {tuple(value.shape)}; space '{self.space.name}' "
                    f"with {self.n_classes} classes needs {tuple(own[name].shape)}"
                )
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)

    @property
    def weights_id(self) -> str:
        """SHA-256 over all names and values (first 16 hex digits)."""
        digest = hashlib.sha256()
        for name, value in sorted(self.tensors().items()):
            digest.update(name.encode())
            digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


class _FinalOnly(nn.Module):
    """A network seen through its final classifier, so that ``functional_call`` runs no exit head."""

    def __init__(self, network: EarlyExitNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.final_logits(images)


def _prefixed(weights: Tensors) -> Tensors:
    return {f"network.{name}": value for name, value in weights.items()}


def _key(name: str) -> str:
    """Parameter containers do not allow dots in names."""
    return name.replace(".", "/")


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
