"""The gradient of one supernet training step: the sandwich rule with in-place distillation.

A step runs the largest backbone on the labels, and some random ones and the smallest on the
largest's output (BigNAS: Yu et al., ECCV 2020; AttentiveNAS: Wang et al., CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...datasets.images import ImageSplit
from ...spaces import Backbone
from .augmentation import draw_changes
from .distillation import DistillationLoss, distillation_loss
from .distributed import Processes
from .evaluation import autocast, one_thread_workers
from .inputs import SplitInputs
from .recipes import SupernetRecipe
from .regularization import DropMasks, draw_drop_masks
from .sampling import NearTarget
from .supernet import Supernet

Result = TypeVar("Result")
Gradients = list[Tensor | None]
"""One per shared weight; ``None`` for weights that no backbone of the step uses."""

_DROP_STREAM = 1


class Sandwich:
    """Computes steps for one training; step k depends on the weights and on (seed, k) alone."""

    def __init__(
        self, supernet: Supernet, train: ImageSplit, recipe: SupernetRecipe, workers: Executor,
        processes: Processes,
    ) -> None:  # fmt: skip
        """Args: workers: run the step's backbones side by side; see :func:`step_workers`."""
        self._supernet = supernet
        self._recipe = recipe
        self._workers = workers
        self._processes = processes
        self._images = SplitInputs(train, supernet.device)
        near = recipe.sampling != "uniform" and recipe.sampled > 0
        self._near = NearTarget(supernet.space, supernet.n_classes, recipe.seed) if near else None

    def gradients(self, step: int) -> tuple[Tensor, Gradients]:
        """Loss of the largest backbone, and the gradient summed over the step's backbones.

        Both are means over this process's part of the step's images, times the part's share.
        """
        recipe, supernet = self._recipe, self._supernet
        space = supernet.space
        rng = np.random.default_rng([recipe.seed, step])
        n = min(recipe.batch_size, len(self._images))
        part = self._processes.part(n)
        rows = rng.choice(len(self._images), size=n, replace=False)
        changes = draw_changes(n, rng, max_shift=recipe.max_shift, mirror=recipe.mirror)
        images = self._images.read(rows[part], supernet.normalization, changes.part(part))
        labels = self._images.labels(rows[part])
        masks = draw_drop_masks(
            space.largest, n, np.random.default_rng([recipe.seed, step, _DROP_STREAM]), part=part,
            dropout=recipe.dropout, drop_connect=recipe.drop_connect, device=supernet.device,
        )  # fmt: skip
        logits = self._logits(images, space.largest, masks)
        loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        criterion = distillation_loss(logits.detach(), recipe)
        # The others start while the largest backbone's gradient is still being computed.
        jobs = [self._workers.submit(self._gradients_of, loss)]
        for student in (*self.students(images, labels, rng), space.smallest):
            jobs.append(self._workers.submit(self._student_gradients, images, student, criterion))
        total = _summed(jobs)
        share = len(labels) / n
        if share == 1.0:
            return loss.detach(), total
        return loss.detach() * share, [None if g is None else g.mul_(share) for g in total]

    def students(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> list[Backbone]:
        """The random backbones that a step trains, the same in every process.

        Args:
            images, labels: of this process; candidates compete by their loss on those of all.
        """
        recipe, space = self._recipe, self._supernet.space
        if self._near is None:
            return [space.decode(genome) for genome in space.sample(recipe.sampled, rng)]
        rivals = [self._near.candidates(recipe.candidates, rng) for _ in range(recipe.sampled)]
        jobs = [[self._workers.submit(self._loss, images, labels, b) for b in group] for group in rivals]
        losses = torch.stack([torch.stack([job.result() for job in group]) for group in jobs])
        self._processes.add_up([losses])
        best = losses.argmin(dim=1) if recipe.sampling == "best" else losses.argmax(dim=1)
        return [group[i] for group, i in zip(rivals, best.tolist(), strict=True)]

    def _logits(self, images: Tensor, backbone: Backbone, masks: DropMasks | None = None) -> Tensor:
        with autocast(self._supernet.device, self._recipe.precision):
            logits: Tensor = self._supernet(images, backbone, masks)
        return logits.float()

    @torch.no_grad()
    def _loss(self, images: Tensor, labels: Tensor, backbone: Backbone) -> Tensor:
        """Cross-entropy with the labels, summed over the images: what candidates compete by."""
        return functional.cross_entropy(self._logits(images, backbone), labels, reduction="sum")

    def _student_gradients(
        self, images: Tensor, student: Backbone, criterion: DistillationLoss
    ) -> tuple[Tensor | None, ...]:
        return self._gradients_of(criterion(self._logits(images, student)))

    def _gradients_of(self, loss: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient per shared weight; ``None`` for weights that the backbone does not use."""
        return torch.autograd.grad(loss, list(self._supernet.shared.values()), allow_unused=True)


def _summed(jobs: list[Future[tuple[Tensor | None, ...]]]) -> Gradients:
    """Sums over jobs in their order, whichever ends first: sums in another order round differently."""
    total: Gradients = list(jobs[0].result())
    for job in jobs[1:]:
        for i, gradient in enumerate(job.result()):
            sum_so_far = total[i]
            if gradient is not None:
                total[i] = gradient if sum_so_far is None else sum_so_far.add_(gradient)
    return total


class _CallingThread(Executor):
    """Runs every job at once, where it is handed in: one stream of work for one GPU."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        future: Future[Result] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def step_workers(device: torch.device, threads: int) -> Iterator[Executor]:
    """What runs a step's backbones: threads on a CPU, the calling thread on any other device."""
    if device.type != "cpu":
        yield _CallingThread()
        return
    with one_thread_workers(threads) as pool:
        yield pool
