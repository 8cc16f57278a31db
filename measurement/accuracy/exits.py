"""Training of exit heads at all positions of a frozen backbone, in one pass."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...datasets.images import ImageSplit
from .evaluation import input_batches, recalibrate_batch_norm
from .network import EarlyExitNetwork
from .recipes import ExitRecipe, warmup_cosine
from .supernet import initial_weight


def train_exits(
    network: EarlyExitNetwork, train: ImageSplit, rows: NDArray[np.int64], recipe: ExitRecipe, seed: int
) -> None:
    """Train ``network.heads`` in place; nothing else of the network changes.

    The backbone runs once over the chosen images in evaluation mode and its features are kept, so
    a step costs only the heads.  Loss, equation 4 of HADAS: the mean over exits of cross-entropy
    with the label plus cross-entropy with the final classifier's softmax.

    Args:
        network: batch norm of the backbone calibrated; (n, P + 1, C) logits.
        rows: (m,) which images of ``train`` to learn from.
        seed: order of the images and initial weights.
    """
    generator = torch.Generator().manual_seed(seed)
    _initialise(network.heads, generator)
    features, teacher = _cached_features(network, train, rows, recipe.evaluation_batch_size)
    labels = torch.from_numpy(train.labels[rows])
    optimizer = _adam(network.heads, recipe)
    n_steps = recipe.epochs * math.ceil(len(rows) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, n_steps, recipe.warmup_fraction)
    )
    network.heads.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(rows), generator=generator)
        for chosen in torch.split(order, recipe.batch_size):
            loss = torch.zeros(())
            for head, feature in zip(network.heads, features, strict=True):
                logits = head(feature[chosen])
                loss = loss + functional.cross_entropy(logits, labels[chosen])
                loss = loss + functional.cross_entropy(logits, teacher[chosen])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss / len(features))
            optimizer.step()
            schedule.step()
    for head, feature in zip(network.heads, features, strict=True):
        recalibrate_batch_norm(head, head, torch.split(feature, recipe.evaluation_batch_size))


@torch.no_grad()
def _cached_features(
    network: EarlyExitNetwork, train: ImageSplit, rows: NDArray[np.int64], batch_size: int
) -> tuple[list[Tensor], Tensor]:
    """What each head reads, P tensors (m, c, s, s), and the teacher's softmax (m, C)."""
    network.eval()
    kept: list[list[Tensor]] = []
    teacher = []
    for batch in input_batches(train.images[rows], batch_size, network):
        seen, final = network.features(batch)
        kept.append(seen)
        teacher.append(functional.softmax(final, dim=1))
    features = [
        torch.cat(column).contiguous(memory_format=torch.channels_last) for column in zip(*kept, strict=True)
    ]
    return features, torch.cat(teacher)


def _initialise(heads: nn.ModuleList, generator: torch.Generator) -> None:
    with torch.no_grad():
        for name, parameter in heads.named_parameters():
            parameter.copy_(initial_weight(name, parameter.shape, generator))


def _adam(heads: nn.ModuleList, recipe: ExitRecipe) -> torch.optim.Optimizer:
    """Weight decay acts on weights, not on batch norm and biases."""
    weights = [p for p in heads.parameters() if p.dim() > 1]
    others = [p for p in heads.parameters() if p.dim() == 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)
