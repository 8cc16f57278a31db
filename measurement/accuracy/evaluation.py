"""Batch-norm re-calibration and evaluation of an early-exit network to an outcome matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...datasets.images import ImageSplit
from ...datasets.records import OutcomeMatrix
from .inputs import SplitInputs, inputs_of
from .network import EarlyExitNetwork
from .recipes import ExitRecipe

Batch = TypeVar("Batch")

TEMPERATURE_BOUNDS = (0.05, 20.0)
_TEMPERATURES_TRIED = 121


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Run a block with a given number of torch threads: sums over threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread_workers(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose workers run torch on one thread each.

    Networks this small gain little from threads inside an operation, and stall where another
    process holds a core; whole networks side by side gain more, and because each of them runs on
    one thread, no result depends on their number.
    """
    with fixed_threads(1):
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Run a block's convolutions and matrix products in a recipe's precision, on any device."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@torch.no_grad()
def recalibrate_batch_norm(
    module: nn.Module, run: Callable[[Batch], object], batches: Iterable[Batch]
) -> None:
    """Set the batch-norm statistics of a module to their cumulative average over batches.

    The module is left in evaluation mode.

    Args:
        module: whose batch norms are reset and calibrated.
        run: the part of its forward pass to calibrate (``module`` itself, or a method of it).
        batches: its inputs, on its device.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative average
    module.train()
    for batch in batches:
        run(batch)
    module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def evaluate_splits(
    network: EarlyExitNetwork, calibration: ImageSplit | SplitInputs, test: ImageSplit | SplitInputs,
    recipe: ExitRecipe,
) -> tuple[OutcomeMatrix, OutcomeMatrix]:  # fmt: skip
    """Outcomes on both splits as a recipe wants them; temperatures come from ``calibration`` alone.

    Args:
        network: heads trained, batch norm calibrated.
    """
    batch_size, precision = recipe.evaluation_batch_size, recipe.precision
    calibration, test = (inputs_of(split, network.device) for split in (calibration, test))
    temperature = None
    if recipe.temperature == "fitted":
        labels = torch.split(calibration.labels(slice(None)), batch_size)
        logits = logit_batches(network, calibration, batch_size, precision)
        temperature = fitted_temperature(zip(logits, labels, strict=True))
    before, after = (
        evaluate(network, split, batch_size, temperature=temperature, precision=precision)
        for split in (calibration, test)
    )
    return before, after


@torch.no_grad()
def logit_batches(
    network: EarlyExitNetwork, split: ImageSplit | SplitInputs, batch_size: int, precision: str = "float32"
) -> Iterator[Tensor]:
    """(b, e, C) float32 logits of the e exits, the final classifier last, for images in order."""
    network.eval()
    for batch in inputs_of(split, network.device).batches(batch_size, network.normalization):
        with autocast(network.device, precision):
            logits = network(batch)
        yield logits.float()


@torch.no_grad()
def fitted_temperature(batches: Iterable[tuple[Tensor, Tensor]]) -> NDArray[np.float32]:
    """The temperature of each exit that minimises its mean negative log-likelihood.

    Temperature scaling (Guo et al., ICML 2017) on every exit.  Below 1 where an exit is less sure
    than it is right, as label smoothing leaves it.

    The loss is convex in 1 / T, so it has one minimum in log T; it is found in a single pass: the
    losses at evenly spaced log T, then the parabola through the least and its neighbours.  What is
    held is one batch and one loss per exit and temperature, never all logits.

    Args:
        batches: (b, e, C) logits and (b,) int64 labels.

    Returns:
        (e,) float32, within :data:`TEMPERATURE_BOUNDS`.
    """
    lowest, highest = np.log(TEMPERATURE_BOUNDS)
    grid = np.linspace(lowest, highest, _TEMPERATURES_TRIED)
    losses = np.zeros((1, len(grid)))
    for logits, labels in batches:
        losses = losses + _summed_losses(logits, labels, np.exp(grid))
    least = losses.argmin(axis=1)
    middle = np.clip(least, 1, len(grid) - 2)
    rows = np.arange(len(losses))
    left, centre, right = (losses[rows, middle + side] for side in (-1, 0, 1))
    curvature = left - 2.0 * centre + right
    shift = 0.5 * (left - right) / np.where(curvature > 0, curvature, np.inf)
    inside = least == middle  # a minimum at either bound stays there
    log_temperature = np.where(inside, grid[middle] + shift * (grid[1] - grid[0]), grid[least])
    return np.asarray(np.exp(log_temperature), dtype=np.float32)


def _summed_losses(logits: Tensor, labels: Tensor, temperatures: NDArray[np.float64]) -> NDArray[np.float64]:
    """(e, t) cross-entropy summed over a batch, for each exit and temperature."""
    chosen = labels.to(logits.device).view(-1, 1, 1).expand(-1, logits.shape[1], 1)
    columns = []
    for temperature in temperatures:
        log_p = functional.log_softmax(logits / float(temperature), dim=2)
        columns.append(-log_p.gather(2, chosen).sum(dim=(0, 2), dtype=torch.float64))
    return torch.stack(columns, dim=1).cpu().numpy()


@torch.no_grad()
def evaluate(
    network: EarlyExitNetwork,
    split: ImageSplit | SplitInputs,
    batch_size: int,
    *,
    temperature: NDArray[np.float32] | None = None,
    precision: str = "float32",
) -> OutcomeMatrix:
    """What every exit and the final classifier say about every image of a split.

    Args:
        network: heads trained, batch norm calibrated.
        batch_size: images per forward pass; changes rounding only.
        temperature: (e,) what to divide each exit's logits by; ``None`` = ones.
        precision: of the forward passes, as in :class:`~.recipes.ExitRecipe`.

    Raises:
        FloatingPointError: confidences that are no numbers; names the exits.
    """
    if temperature is None:
        temperature = np.ones(len(network.heads) + 1, dtype=np.float32)
    inputs = inputs_of(split, network.device)
    names = [f"exit {network.first_exit + i}" for i in range(len(network.heads))] + ["the final classifier"]
    batches = logit_batches(network, inputs, batch_size, precision)
    return outcomes_of(batches, inputs.split, names, temperature)


@torch.no_grad()
def outcomes_of(
    batches: Iterable[Tensor], split: ImageSplit, names: Sequence[str], temperature: NDArray[np.float32]
) -> OutcomeMatrix:
    """The outcome matrix of some logits.

    Args:
        batches: (b, e, C) float32 logits of all images of the split, in order.
        names: of the e exits, for messages.
        temperature: (e,) what to divide each exit's logits by.

    Raises:
        FloatingPointError: confidences that are no numbers; names the exits.
    """
    parts: list[tuple[Tensor, ...]] = []
    for logits in batches:
        divisor = torch.from_numpy(temperature).to(logits.device).view(1, -1, 1)
        log_p = functional.log_softmax(logits / divisor, dim=2)
        p = log_p.exp()
        top = p.topk(2, dim=2)
        entropy = -(p * log_p).sum(dim=2)
        parts.append(
            (top.values[..., 0], top.values[..., 0] - top.values[..., 1], entropy, top.indices[..., 0])
        )
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    confidence, margin, spread, predicted = columns
    _check_finite(confidence + margin + spread, names)
    return OutcomeMatrix(
        correct=np.asarray(predicted == split.labels[:, None]),
        confidence=confidence.astype(np.float16),
        margin=margin.astype(np.float16),
        entropy=spread.astype(np.float16),
        predicted=predicted.astype(np.int16),
        group=split.group,
        temperature=temperature,
    )


def _check_finite(scores: NDArray[np.float32], names: Sequence[str]) -> None:
    """Refuse what a network says when the training of its exits diverged: (n, e) scores, final exit last."""
    finite: NDArray[np.bool_] = np.all(np.isfinite(scores), axis=0)
    if finite.all():
        return
    at_fault = ", ".join(name for name, good in zip(names, finite, strict=True) if not good)
    raise FloatingPointError(
        f"confidences that are no finite numbers from {at_fault}: the training diverged; lower the exits' "
        "learning_rate or set their clip_norm"
    )
