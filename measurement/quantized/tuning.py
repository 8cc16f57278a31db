"""One network: from the shared start, tuned with its quantizers, to its outcome matrices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...datasets.records import OutcomeMatrix
from ...spaces.quantized import LETTERS, QuantizedExitSpace, QuantizedNetwork
from ..accuracy.checkpoints import Tensors
from ..accuracy.devices import seconds_now
from ..accuracy.evaluation import autocast, outcomes_of, recalibrate_batch_norm
from ..accuracy.inputs import SplitInputs
from ..accuracy.precision import cuda_arithmetic
from .network import QuantizedExitNet, network_module
from .recipes import QuantizedRecipe
from .start import load_start
from .steps import StepTrainer, stream_seed


def tuned_network(
    space: QuantizedExitSpace, network: QuantizedNetwork, start: Tensors, train: SplitInputs,
    recipe: QuantizedRecipe, *, start_path: Path,
) -> QuantizedExitNet:  # fmt: skip
    """A network trained as a whole, in evaluation mode.

    Args:
        start: tensors of the shared start.
        train: images at the space's resolution; the network lies on their device.
        start_path: of the start, for messages.

    Raises:
        SpaceError: a network of another space, or bits that cannot be trained.
        CheckpointError: a start of another space.
        TrainingError: a loss that is no finite number any more; names the step.
    """
    net = network_module(space, network)
    load_start(net, start, start_path)
    net.to(train.device).to(memory_format=torch.channels_last)
    seed = stream_seed(recipe.seed, network.trained_id)
    trainer = StepTrainer(
        net, train, recipe, n_steps=recipe.tune_steps, learning_rate=recipe.tune_learning_rate, seed=seed,
        name=network.trained_id, remedy=f"tune_learning_rate ({recipe.tune_learning_rate:g})",
    )  # fmt: skip
    net.train()
    with cuda_arithmetic(recipe.precision):
        for step in range(recipe.tune_steps):
            trainer.step(step, net.exits)
        rng = np.random.default_rng([seed, 3])
        n_rows = min(len(train), recipe.norm_batches * recipe.batch_size)
        rows = rng.choice(len(train), n_rows, replace=False)
        with autocast(train.device, recipe.precision):
            recalibrate_batch_norm(net, net, train.batches(recipe.batch_size, net.normalization, rows))
    return net


def evaluated(
    net: QuantizedExitNet, split: SplitInputs, network: QuantizedNetwork, batch_size: int
) -> OutcomeMatrix:
    """What every exit in use says about every image of a split; in float32, whatever the training was in.

    Raises:
        FloatingPointError: confidences that are no numbers; names the exits.
    """
    names = [f"exit {LETTERS[position]}" for position in network.exits]
    ones = np.ones(len(names), dtype=np.float32)
    with cuda_arithmetic("float32"):
        return outcomes_of(_logits(net, split, batch_size), split.split, names, ones)


@torch.no_grad()
def _logits(net: QuantizedExitNet, split: SplitInputs, batch_size: int) -> Iterator[Tensor]:
    net.eval()
    for images in split.batches(batch_size, net.normalization):
        yield net(images)


def outcomes(
    space: QuantizedExitSpace, network: QuantizedNetwork, start: Tensors, splits: tuple[SplitInputs, ...],
    recipe: QuantizedRecipe, seconds: dict[str, float], *, start_path: Path,
) -> tuple[OutcomeMatrix, OutcomeMatrix]:  # fmt: skip
    """Train one network and evaluate it on both splits.

    Args:
        splits: train, calibration, test, at the space's resolution and on one device.
        seconds: receives what the steps took.
    """
    train, calibration, test = splits
    began = seconds_now(train.device)
    net = tuned_network(space, network, start, train, recipe, start_path=start_path)
    tuned = seconds_now(train.device)
    seconds["tune"] = tuned - began
    matrices = tuple(
        evaluated(net, split, network, recipe.evaluation_batch_size) for split in (calibration, test)
    )
    seconds["evaluate"] = seconds_now(train.device) - tuned
    return matrices[0], matrices[1]
