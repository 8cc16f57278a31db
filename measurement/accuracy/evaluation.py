"""Batch-norm re-calibration and evaluation of an early-exit network to an outcome matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...datasets.images import ImageSplit
from ...datasets.records import OutcomeMatrix
from .network import EarlyExitNetwork, Normalization, images_to_input


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


class ImageConsumer(Protocol):
    """A network or a supernet: it knows where it lies and what input it expects."""

    @property
    def normalization(self) -> Normalization: ...
    @property
    def device(self) -> torch.device: ...


def input_batches(images: np.ndarray, batch_size: int, consumer: ImageConsumer) -> Iterator[Tensor]:
    """Network inputs, (batch_size, 3, h, w) float32, of (n, 3, h, w) uint8 images in order."""
    for start in range(0, len(images), batch_size):
        yield network_input(images[start : start + batch_size], consumer)


def network_input(images: np.ndarray, consumer: ImageConsumer) -> Tensor:
    """Network input of (n, 3, h, w) uint8 images, on the consumer's device.

    Its layout is the one that convolutions run fastest on, on CPUs and on tensor cores.
    """
    stored = torch.from_numpy(np.ascontiguousarray(images)).to(consumer.device)
    x = images_to_input(stored, consumer.normalization)
    return x.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def recalibrate_batch_norm(
    module: nn.Module, run: Callable[[Tensor], Tensor], batches: Iterable[Tensor]
) -> None:
    """Set the batch-norm statistics of a module to their cumulative average over batches.

    The module is left in evaluation mode.

    Args:
        module: whose batch norms are reset and calibrated.
        run: the part of its forward pass to calibrate (``module`` itself, or a method of it).
        batches: its inputs.
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


@torch.no_grad()
def evaluate(network: EarlyExitNetwork, split: ImageSplit, batch_size: int) -> OutcomeMatrix:
    """What every exit and the final classifier say about every image of a split.

    Args:
        network: heads trained, batch norm calibrated.
        batch_size: images per forward pass; changes rounding only.
    """
    network.eval()
    parts: list[tuple[Tensor, ...]] = []
    for batch in input_batches(split.images, batch_size, network):
        log_p = functional.log_softmax(network(batch), dim=2)
        p = log_p.exp()
        top = p.topk(2, dim=2)
        entropy = -(p * log_p).sum(dim=2)
        parts.append(
            (top.values[..., 0], top.values[..., 0] - top.values[..., 1], entropy, top.indices[..., 0])
        )
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    confidence, margin, spread, predicted = columns
    return OutcomeMatrix(
        correct=np.asarray(predicted == split.labels[:, None]),
        confidence=confidence.astype(np.float16),
        margin=margin.astype(np.float16),
        entropy=spread.astype(np.float16),
        predicted=predicted.astype(np.int16),
        group=split.group,
    )
