"""Optimizer steps that the shared start and the tuning of networks have in common."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...errors import TrainingError
from ..accuracy.augmentation import draw_changes
from ..accuracy.evaluation import autocast
from ..accuracy.inputs import SplitInputs
from ..accuracy.optimizing import decay_groups
from ..accuracy.recipes import warmup_cosine
from .network import Heads, QuantizedExitNet
from .recipes import QuantizedRecipe


def stream_seed(seed: int, name: str) -> int:
    """A seed of its own for everything that has a name, the same wherever it stands in a sequence."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class StepTrainer:
    """Trains one network; step k depends on the weights, the momentum and (seed, k) alone.

    Args:
        net: on its device.
        train: training images, on the same device.
        n_steps, learning_rate: of the whole training.
        seed: of the order and the changes of the images.
        name: of what is trained, for messages.
        remedy: which field to change when it diverges.
    """

    def __init__(
        self, net: QuantizedExitNet, train: SplitInputs, recipe: QuantizedRecipe, *, n_steps: int,
        learning_rate: float, seed: int, name: str, remedy: str,
    ) -> None:  # fmt: skip
        self.net = net
        self.optimizer = _sgd(net, recipe, learning_rate)
        self._train = train
        self._recipe = recipe
        self._n_steps = n_steps
        self._learning_rate = learning_rate
        self._seed = seed
        self._name = name
        self._remedy = remedy

    def step(self, number: int, exits: Heads) -> float:
        """One step on the heads of ``exits``.

        Returns:
            The weighted loss.

        Raises:
            TrainingError: a loss or a gradient that is no finite number; names the step.
        """
        recipe = self._recipe
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate * warmup_cosine(number, self._n_steps, recipe.warmup_fraction)
        images, labels = self._batch(number)
        with autocast(self.net.device, recipe.precision):
            logits = self.net.logits(images, exits)
        loss = _joint_loss(logits, labels, recipe)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip_norm)
        value, size = torch.stack([loss.detach(), norm]).tolist()  # the one wait for a GPU in a step
        if not math.isfinite(value + size):
            raise TrainingError(
                f"{self._name}: step {number + 1} of {self._n_steps}: loss {value:g}, norm of the gradient {size:g}: "
                f"the training diverged. Lower {self._remedy} of the recipe, or raise its warmup_fraction"
            )
        self.optimizer.step()
        return float(value)

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a step: a pass over all images in random order, then another."""
        n, size = len(self._train), min(self._recipe.batch_size, len(self._train))
        per_pass = n // size
        order = np.random.default_rng([self._seed, 1, number // per_pass]).permutation(n)
        begin = number % per_pass * size
        rows = np.ascontiguousarray(order[begin : begin + size])
        rng = np.random.default_rng([self._seed, 2, number])
        changes = draw_changes(size, rng, max_shift=self._recipe.max_shift, mirror=self._recipe.mirror)
        return self._train.read(rows, self.net.normalization, changes), self._train.labels(rows)


def exit_weights(n_exits: int, depth_weight: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(e,) weights of the exits' losses, which sum to 1."""
    raw = (np.arange(1, n_exits + 1) / n_exits) ** depth_weight
    return np.asarray(raw / raw.sum())


def _joint_loss(logits: list[Tensor], labels: Tensor, recipe: QuantizedRecipe) -> Tensor:
    """Weighted sum of the exits' cross-entropies (BranchyNet, Teerapittayanon et al., ICPR 2016)."""
    loss = torch.zeros((), device=labels.device)
    weights = exit_weights(len(logits), recipe.depth_weight)
    for weight, values in zip(weights, logits, strict=True):
        entropy = functional.cross_entropy(values.float(), labels, label_smoothing=recipe.label_smoothing)
        loss = loss + float(weight) * entropy
    return loss


def _sgd(net: QuantizedExitNet, recipe: QuantizedRecipe, learning_rate: float) -> torch.optim.SGD:
    groups = decay_groups(net.parameters(), recipe.weight_decay)
    return torch.optim.SGD(groups, lr=learning_rate, momentum=recipe.momentum, nesterov=True)
