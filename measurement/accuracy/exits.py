"""Training of exit heads at all positions of a frozen backbone, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...datasets.images import ImageSplit
from .augmentation import ImageChanges, draw_changes
from .evaluation import autocast, recalibrate_batch_norm
from .feature_cache import check_room, feature_cache_bytes
from .inputs import SplitInputs, inputs_of
from .network import EarlyExitNetwork
from .optimizing import decay_groups
from .recipes import ExitRecipe, warmup_cosine, warmup_linear
from .supernet import initial_weight

Frozen = tuple[list[Tensor], Tensor]
"""What each head reads, P tensors (n, c, s, s), and the final classifier's softmax, (n, C)."""


def train_exits(
    network: EarlyExitNetwork, train: ImageSplit | SplitInputs, rows: NDArray[np.int64], recipe: ExitRecipe,
    seed: int,
) -> None:  # fmt: skip
    """Train ``network.heads`` in place; nothing else of the network changes.

    All heads learn from the same frozen forward pass: one per step or, with
    ``recipe.cache_features``, one over all chosen images before the first step.  Loss, equation 4
    of HADAS (Bouzidi et al., DATE 2023): the mean over exits of cross-entropy with the label plus
    cross-entropy with the final classifier's softmax.

    Args:
        network: batch norm of the backbone calibrated; on any device.
        train: for several networks best as :class:`~.inputs.SplitInputs`, moved to the device once.
        rows: (m,) which images of ``train`` to learn from.
        seed: order and changes of the images, and initial weights.

    Raises:
        ConfigError: the cache of features does not fit into memory.
    """
    if recipe.cache_features:
        read = network.plans[network.first_exit :]
        needed = feature_cache_bytes(read, network.n_classes, len(rows), recipe.precision)
        check_room(needed, network.backbone.arch_id, len(read), len(rows), network.device)
    generator = torch.Generator().manual_seed(seed)
    _initialise(network.heads, generator)
    frozen = _FrozenBackbone(
        network, inputs_of(train, network.device), rows, recipe, np.random.default_rng([seed, 1])
    )
    optimizer = _optimizer(network.heads, recipe)
    decay = warmup_cosine if recipe.schedule == "cosine" else warmup_linear
    n_steps = recipe.epochs * len(_batches(torch.arange(len(rows)), recipe.batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: decay(step, n_steps, recipe.warmup_fraction)
    )
    network.heads.train()
    with _batch_statistics(network, recipe.backbone_norm == "batch"):
        for _ in range(recipe.epochs):
            order = torch.randperm(len(rows), generator=generator)
            for chosen in _batches(order, recipe.batch_size):
                _step(network.heads, frozen, chosen, optimizer, recipe)
                schedule.step()
    n_calibration = min(len(rows), recipe.calibration_batches * recipe.calibration_batch_size)
    parts = _batches(torch.arange(n_calibration), recipe.calibration_batch_size)
    calibration = (frozen.read(part)[0] for part in parts)
    recalibrate_batch_norm(network.heads, lambda seen: _head_logits(network.heads, seen, recipe), calibration)


def _step(
    heads: nn.ModuleList, frozen: _FrozenBackbone, chosen: Tensor, optimizer: torch.optim.Optimizer,
    recipe: ExitRecipe,
) -> None:  # fmt: skip
    seen, teacher = frozen.read(chosen, changed=True)
    labels = frozen.labels(chosen)
    loss = torch.zeros((), device=teacher.device)
    for logits in _head_logits(heads, seen, recipe):
        loss = loss + functional.cross_entropy(logits, labels) + functional.cross_entropy(logits, teacher)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss / len(heads))
    if recipe.clip_norm:
        torch.nn.utils.clip_grad_norm_(heads.parameters(), recipe.clip_norm)
    optimizer.step()


def _head_logits(heads: nn.ModuleList, seen: list[Tensor], recipe: ExitRecipe) -> list[Tensor]:
    """(n, C) float32 logits of every head on what it reads."""
    with autocast(seen[0].device, recipe.precision):
        logits = [head(feature) for head, feature in zip(heads, seen, strict=True)]
    return [values.float() for values in logits]


class _FrozenBackbone:
    """What the frozen backbone says of training images: computed when asked, or kept from one pass."""

    def __init__(
        self, network: EarlyExitNetwork, inputs: SplitInputs, rows: NDArray[np.int64], recipe: ExitRecipe,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """Args: rng: of the images' random changes."""
        self._network = network
        self._inputs = inputs
        self._rows = rows
        self._recipe = recipe
        self._rng = rng
        self._cache: Frozen | None = None
        network.eval()
        if recipe.cache_features:
            self._cache = self._all()

    def labels(self, chosen: Tensor) -> Tensor:
        """(n,) labels of the images ``rows[chosen]``."""
        return self._inputs.labels(self._rows[chosen.numpy()])

    def read(self, chosen: Tensor, *, changed: bool = False) -> Frozen:
        """What heads learn from, for the images ``rows[chosen]``.

        Args:
            chosen: (n,) int64 on the CPU.
            changed: with the random changes that the recipe asks for.
        """
        if self._cache is not None:
            seen, teacher = self._cache
            chosen = chosen.to(teacher.device, non_blocking=True)
            return [feature[chosen] for feature in seen], teacher[chosen]
        changes = None
        if changed:
            recipe = self._recipe
            changes = draw_changes(len(chosen), self._rng, max_shift=recipe.max_shift, mirror=recipe.mirror)
        return self._run(self._rows[chosen.numpy()], changes)

    @torch.no_grad()
    def _run(self, rows: NDArray[np.int64], changes: ImageChanges | None = None) -> Frozen:
        images = self._inputs.read(rows, self._network.normalization, changes)
        with autocast(self._network.device, self._recipe.precision):
            seen, final = self._network.features(images)
        return seen, functional.softmax(final.float(), dim=1)

    def _all(self) -> Frozen:
        """All chosen images, written batch by batch into place, so that nothing is held twice."""
        n, size = len(self._rows), self._recipe.evaluation_batch_size
        whole: list[Tensor] = []
        for start in range(0, n, size):
            seen, teacher = self._run(self._rows[start : start + size])
            parts = [*seen, teacher]
            if not whole:
                whole = [_room_for(part, n) for part in parts]
            for kept, part in zip(whole, parts, strict=True):
                kept[start : start + len(part)] = part
        return whole[:-1], whole[-1]


def _room_for(part: Tensor, n: int) -> Tensor:
    """Memory for n rows like those of a batch, in the layout that convolutions run fastest on."""
    layout = torch.channels_last if part.dim() == 4 else torch.contiguous_format
    return torch.empty((n, *part.shape[1:]), dtype=part.dtype, device=part.device, memory_format=layout)


@contextmanager
def _batch_statistics(network: EarlyExitNetwork, wanted: bool) -> Iterator[None]:
    """Run the backbone's batch norms on the statistics of each batch; their running ones stay."""
    norms = [
        module
        for part in (network.stem, network.blocks, network.tail)
        for module in part.modules()
        if wanted and isinstance(module, nn.BatchNorm2d)
    ]
    for norm in norms:
        norm.train()
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.eval()
            norm.track_running_stats = True


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """``order`` in pieces of ``size``; one image left over joins the piece before it.

    Batch norm in training cannot work on one image whose features are one pixel.
    """
    pieces = list(torch.split(order, size))
    if len(pieces) > 1 and len(pieces[-1]) == 1:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    return pieces


def _initialise(heads: nn.ModuleList, generator: torch.Generator) -> None:
    with torch.no_grad():
        for name, parameter in heads.named_parameters():
            parameter.copy_(initial_weight(name, parameter.shape, generator))


def _optimizer(heads: nn.ModuleList, recipe: ExitRecipe) -> torch.optim.Optimizer:
    groups = decay_groups(heads.parameters(), recipe.weight_decay)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)
