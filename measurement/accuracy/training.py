"""Supernet training: sandwich rule, in-place distillation, resumable at any time.

Recipe: AttentiveNAS (Wang et al., CVPR 2021) after BigNAS (Yu et al., ECCV 2020), scaled down.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...datasets.images import ImageData, ImageSplit
from ...errors import CheckpointError
from ...spaces import Backbone, MBConvSpace
from .augmentation import augment
from .checkpoints import CLASSIFIER, StoredWeights, Tensors, read_checkpoint, write_checkpoint
from .evaluation import network_input, one_thread_workers
from .recipes import SupernetRecipe, content_id, warmup_cosine
from .supernet import Supernet

Progress = Callable[[int, int, float], None]
"""Called after every step with (steps done, steps in all, loss of the largest backbone)."""


@dataclass(frozen=True)
class TrainedSupernet:
    """A finished supernet on disk.

    Attributes:
        path: checkpoint.
        weights_id: SHA-256 over all tensors.
        seconds: wall-clock time its training took, over all sittings; 0 for a published file.
        ema: whether its weights are a published file's exponential moving average.
    """

    path: Path
    weights_id: str
    seconds: float
    ema: bool = False


def train_supernet(
    space: MBConvSpace, data: ImageData, recipe: SupernetRecipe, *, directory: str | Path,
    start: StoredWeights | None = None, device: str = "cpu", progress: Progress | None = None,
    save_every_s: float = 15.0,
) -> TrainedSupernet:  # fmt: skip
    """Train a supernet, or find the finished one, or go on with an unfinished one.

    All randomness of a step follows from (seed, step), so a training that was killed and started
    again ends with exactly the weights of one that was not.

    Args:
        directory: where checkpoints live; the file's name is a hash of space, splits, recipe,
            starting weights and training code.
        start: weights to fine-tune, of ours or published; a classifier for another number of
            classes is replaced by a fresh one.  Without it all weights start fresh.
        device: torch's name of where to compute.
        save_every_s: seconds between saves of an unfinished training; changes no result.

    Raises:
        CheckpointError: the file of that name is not this supernet, or ``start`` is of another space.
    """
    identity = _identity(space, data, recipe, start)
    path = Path(directory) / f"{content_id('supernet', identity)}.pt"
    if path.exists():
        return load_supernet(path, space, data.n_classes)[1]
    supernet = starting_supernet(space, data.n_classes, recipe.seed, start).to(device)
    with one_thread_workers(recipe.threads) as pool:
        return _train(supernet, data, recipe, path, identity, progress, save_every_s, pool)


def load_supernet(
    path: str | Path, space: MBConvSpace, n_classes: int, *, ema: bool = False
) -> tuple[Supernet, TrainedSupernet]:
    """Read a finished supernet: one that hadas trained, or a published checkpoint.

    Args:
        ema: take the exponential moving average of a published file.

    Raises:
        CheckpointError: not a finished supernet, or one of another space or number of classes.
    """
    stored = read_checkpoint(path, ema=ema)
    _check_owner(stored, space, n_classes)
    if stored.record is not None and not stored.record["finished"]:
        raise CheckpointError(
            f"{path}: the training of this supernet is not finished; name a finished checkpoint"
        )
    supernet = Supernet(space, n_classes, seed=0, normalization=stored.normalization)
    supernet.load_tensors(stored.tensors, str(path))
    seconds = 0.0 if stored.record is None else float(stored.record["seconds"])
    return supernet, TrainedSupernet(Path(path), supernet.weights_id, seconds, ema)


def starting_supernet(space: MBConvSpace, n_classes: int, seed: int, start: StoredWeights | None) -> Supernet:
    """A supernet with the weights that a training starts from.

    Raises:
        CheckpointError: ``start`` is of another space; names the weight.
    """
    if start is None:
        return Supernet(space, n_classes, seed=seed)
    supernet = Supernet(space, n_classes, seed=seed, normalization=start.normalization)
    tensors = dict(start.tensors)
    if start.n_classes != n_classes:
        fresh = supernet.tensors()
        tensors.update({name: fresh[name].clone() for name in CLASSIFIER})
    supernet.load_tensors(tensors, str(start.path))
    return supernet


def _train(
    supernet: Supernet, data: ImageData, recipe: SupernetRecipe, path: Path, identity: dict[str, Any],
    progress: Progress | None, save_every_s: float, pool: Executor,
) -> TrainedSupernet:  # fmt: skip
    optimizer = _sgd(supernet, recipe)
    unfinished = path.with_suffix(".part")
    first_step, seconds = 0, 0.0
    if unfinished.exists():
        first_step, seconds = _restore(supernet, optimizer, unfinished)
    began = saved = time.perf_counter()
    for step in range(first_step, recipe.steps):
        loss = _step(supernet, optimizer, data.train, recipe, step, pool)
        if progress is not None:
            progress(step + 1, recipe.steps, loss)
        now = time.perf_counter()
        if now - saved > save_every_s:
            spent = {"step": step + 1, "seconds": seconds + now - began, "finished": False}
            momentum = _momentum(supernet, optimizer)
            _save(unfinished, supernet, {**identity, **spent, "momentum": momentum})
            saved = now
    seconds += time.perf_counter() - began
    _save(path, supernet, {**identity, "step": recipe.steps, "seconds": seconds, "finished": True})
    unfinished.unlink(missing_ok=True)
    return TrainedSupernet(path, supernet.weights_id, seconds)


def _save(path: Path, supernet: Supernet, record: dict[str, Any]) -> None:
    write_checkpoint(path, supernet.tensors(), supernet.normalization, record)


def _step(
    supernet: Supernet, optimizer: torch.optim.Optimizer, train: ImageSplit, recipe: SupernetRecipe, step: int,
    pool: Executor,
) -> float:  # fmt: skip
    """One sandwich step; returns the largest backbone's loss."""
    space = supernet.space
    rng = np.random.default_rng([recipe.seed, step])
    rows = rng.choice(len(train), size=min(recipe.batch_size, len(train)), replace=False)
    images = network_input(
        augment(train.images[rows], rng, max_shift=recipe.max_shift, mirror=recipe.mirror), supernet
    )
    labels = torch.from_numpy(train.labels[rows]).to(supernet.device)
    students = [space.decode(genome) for genome in space.sample(recipe.sampled, rng)]
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * warmup_cosine(step, recipe.steps, recipe.warmup_fraction)
    logits = supernet(images, space.largest)
    loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    teacher = functional.softmax(logits.detach(), dim=1)
    # The students start while the largest backbone's gradient is still being computed.
    jobs = [pool.submit(_gradients, supernet, loss)]
    for student in (*students, space.smallest):
        jobs.append(pool.submit(_student_gradients, supernet, images, student, teacher))
    optimizer.zero_grad(set_to_none=True)
    for job in jobs:  # in this order, whichever ends first: sums in another order round differently
        for parameter, gradient in zip(supernet.shared.values(), job.result(), strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    torch.nn.utils.clip_grad_norm_(supernet.shared.values(), recipe.clip_norm)
    optimizer.step()
    return float(loss.detach())


def _gradients(supernet: Supernet, loss: Tensor) -> tuple[Tensor | None, ...]:
    """One gradient per shared weight; ``None`` for weights that the backbone does not use."""
    return torch.autograd.grad(loss, list(supernet.shared.values()), allow_unused=True)


def _student_gradients(
    supernet: Supernet, images: Tensor, student: Backbone, teacher: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradient of the cross-entropy with the teacher, which is that of the KL divergence."""
    return _gradients(supernet, functional.cross_entropy(supernet(images, student), teacher))


def _sgd(supernet: Supernet, recipe: SupernetRecipe) -> torch.optim.SGD:
    decayed = [p for p in supernet.shared.values() if p.dim() > 1]
    others = [p for p in supernet.shared.values() if p.dim() == 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)


def _momentum(supernet: Supernet, optimizer: torch.optim.Optimizer) -> Tensors:
    """Momentum buffers by the names of their weights; a weight that no step has used has none."""
    buffers = {}
    for name, parameter in supernet.shared.items():
        buffer = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
        if buffer is not None:
            buffers[name] = buffer
    return buffers


def _restore(supernet: Supernet, optimizer: torch.optim.Optimizer, unfinished: Path) -> tuple[int, float]:
    """Weights and momentum of an unfinished training; returns (steps done, seconds spent)."""
    stored = read_checkpoint(unfinished)
    record = _check_owner(stored, supernet.space, supernet.n_classes)
    supernet.load_tensors(stored.tensors, str(unfinished))
    for name, buffer in record["momentum"].items():
        optimizer.state[supernet.shared[name]]["momentum_buffer"] = buffer.to(supernet.device)
    return int(record["step"]), float(record["seconds"])


def space_digest(space: MBConvSpace) -> str:
    """Name and hash of a space's choices: two spaces of one name but other choices differ.

    Exit heads are no part of a supernet, so their width makes no difference.
    """
    base = space.base
    return f"{base.name}-{hashlib.sha256(repr(base.macro).encode()).hexdigest()[:8]}"


def _identity(
    space: MBConvSpace, data: ImageData, recipe: SupernetRecipe, start: StoredWeights | None
) -> dict[str, Any]:
    return {
        "space": space_digest(space),
        "n_classes": data.n_classes,
        "split_id": data.split_id,
        "recipe": recipe.definition,
        "start": None if start is None else start.content_id,
    }


def _check_owner(stored: StoredWeights, space: MBConvSpace, n_classes: int) -> dict[str, Any]:
    """What hadas wrote beside the weights; refuses weights of another space or number of classes."""
    record, wanted = stored.record or {}, space_digest(space)
    if record.get("space", wanted) != wanted:
        raise CheckpointError(f"{stored.path}: a checkpoint of space '{record['space']}', not of '{wanted}'")
    if stored.n_classes != n_classes:
        raise CheckpointError(
            f"{stored.path}: a checkpoint for {stored.n_classes} classes; {n_classes} are asked for. To fine-tune "
            "it with a new classifier, name it as 'accuracy.start' instead of 'accuracy.checkpoint'"
        )
    return record
