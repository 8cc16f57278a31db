"""Supernet training: sandwich rule, in-place distillation, resumable at any time.

Recipe: AttentiveNAS (Wang et al., CVPR 2021) after BigNAS (Yu et al., ECCV 2020), scaled down.
"""

from __future__ import annotations

import hashlib
import os
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
from .evaluation import one_thread_workers, to_channels_last
from .recipes import SupernetRecipe, content_id, warmup_cosine
from .supernet import Supernet, Tensors

Progress = Callable[[int, int, float], None]
"""Called after every step with (steps done, steps in all, loss of the largest backbone)."""

_FORMAT = "hadas-supernet-1"


@dataclass(frozen=True)
class TrainedSupernet:
    """A finished supernet on disk.

    Attributes:
        path: checkpoint.
        weights_id: SHA-256 over all tensors.
        seconds: wall-clock time its training took, over all sittings.
    """

    path: Path
    weights_id: str
    seconds: float


def train_supernet(
    space: MBConvSpace, data: ImageData, recipe: SupernetRecipe, *, directory: str | Path,
    progress: Progress | None = None, save_every_s: float = 15.0,
) -> TrainedSupernet:  # fmt: skip
    """Train a supernet, or find the finished one, or go on with an unfinished one.

    All randomness of a step follows from (seed, step), so a training that was killed and started
    again ends with exactly the weights of one that was not.

    Args:
        directory: where checkpoints live; the file's name is a hash of space, splits, recipe and
            training code.
        save_every_s: seconds between saves of an unfinished training; changes no result.

    Raises:
        CheckpointError: the file of that name is not this supernet.
    """
    identity = _identity(space, data, recipe)
    path = Path(directory) / f"{content_id('supernet', identity)}.pt"
    if path.exists():
        return load_supernet(path, space, data.n_classes)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with one_thread_workers(recipe.threads) as pool:
        return _train(space, data, recipe, path, identity, progress, save_every_s, pool)


def load_supernet(path: str | Path, space: MBConvSpace, n_classes: int) -> tuple[Supernet, TrainedSupernet]:
    """Read a finished supernet.

    Raises:
        CheckpointError: not a finished hadas supernet, or one of another space or number of classes.
    """
    content = _read(Path(path))
    _check_owner(content, Path(path), space, n_classes)
    if not content["finished"]:
        raise CheckpointError(
            f"{path}: the training of this supernet is not finished; name a finished checkpoint"
        )
    supernet = Supernet(space, n_classes, seed=0)
    supernet.load_tensors(content["tensors"], str(path))
    return supernet, TrainedSupernet(Path(path), supernet.weights_id, content["seconds"])


def _train(
    space: MBConvSpace, data: ImageData, recipe: SupernetRecipe, path: Path, identity: dict[str, Any],
    progress: Progress | None, save_every_s: float, pool: Executor,
) -> TrainedSupernet:  # fmt: skip
    supernet = Supernet(space, data.n_classes, seed=recipe.seed)
    optimizer = _sgd(supernet, recipe)
    unfinished = path.with_suffix(".part")
    first_step, seconds = 0, 0.0
    if unfinished.exists():
        first_step, seconds = _restore(supernet, optimizer, unfinished, space, data.n_classes)
    began = saved = time.perf_counter()
    for step in range(first_step, recipe.steps):
        loss = _step(supernet, optimizer, data.train, recipe, step, pool)
        if progress is not None:
            progress(step + 1, recipe.steps, loss)
        now = time.perf_counter()
        if now - saved > save_every_s:
            spent = {"step": step + 1, "seconds": seconds + now - began, "finished": False}
            momentum = _momentum(supernet, optimizer)
            _save(unfinished, {**identity, **spent, "tensors": supernet.tensors(), "momentum": momentum})
            saved = now
    seconds += time.perf_counter() - began
    spent = {"step": recipe.steps, "seconds": seconds, "finished": True}
    _save(path, {**identity, **spent, "tensors": supernet.tensors()})
    unfinished.unlink(missing_ok=True)
    return TrainedSupernet(path, supernet.weights_id, seconds)


def _step(
    supernet: Supernet, optimizer: torch.optim.Optimizer, train: ImageSplit, recipe: SupernetRecipe, step: int,
    pool: Executor,
) -> float:  # fmt: skip
    """One sandwich step; returns the largest backbone's loss."""
    space = supernet.space
    rng = np.random.default_rng([recipe.seed, step])
    rows = rng.choice(len(train), size=min(recipe.batch_size, len(train)), replace=False)
    images = to_channels_last(augment(train.images[rows], recipe, rng))
    labels = torch.from_numpy(train.labels[rows])
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
        for parameter, gradient in zip(supernet.parameters(), job.result(), strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    torch.nn.utils.clip_grad_norm_(supernet.parameters(), recipe.clip_norm)
    optimizer.step()
    return float(loss.detach())


def _gradients(supernet: Supernet, loss: Tensor) -> tuple[Tensor | None, ...]:
    """One gradient per shared weight; ``None`` for weights that the backbone does not use."""
    return torch.autograd.grad(loss, list(supernet.parameters()), allow_unused=True)


def _student_gradients(
    supernet: Supernet, images: Tensor, student: Backbone, teacher: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradient of the cross-entropy with the teacher, which is that of the KL divergence."""
    return _gradients(supernet, functional.cross_entropy(supernet(images, student), teacher))


def augment(images: np.ndarray, recipe: SupernetRecipe, rng: np.random.Generator) -> np.ndarray:
    """Mirror and shift (n, 3, h, w) images at random, as far as the recipe asks; edges repeat."""
    if recipe.mirror:
        flip = rng.random(len(images)) < 0.5
        images = np.where(flip[:, None, None, None], images[..., ::-1], images)
    if recipe.max_shift:
        m = recipe.max_shift
        height, width = images.shape[2:]
        padded = np.pad(images, ((0, 0), (0, 0), (m, m), (m, m)), mode="edge")
        y = rng.integers(0, 2 * m + 1, len(images))[:, None] + np.arange(height)
        x = rng.integers(0, 2 * m + 1, len(images))[:, None] + np.arange(width)
        n = np.arange(len(images))[:, None, None]
        images = padded[n, :, y[:, :, None], x[:, None, :]].transpose(0, 3, 1, 2)
    return images


def _sgd(supernet: Supernet, recipe: SupernetRecipe) -> torch.optim.SGD:
    decayed = [p for p in supernet.parameters() if p.dim() > 1]
    others = [p for p in supernet.parameters() if p.dim() == 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)


def _momentum(supernet: Supernet, optimizer: torch.optim.Optimizer) -> Tensors:
    """Momentum buffers by the names of their weights; a weight that no step has used has none."""
    buffers = {}
    for name, parameter in supernet.named_parameters():
        buffer = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
        if buffer is not None:
            buffers[name] = buffer
    return buffers


def _restore(
    supernet: Supernet, optimizer: torch.optim.Optimizer, unfinished: Path, space: MBConvSpace, n_classes: int
) -> tuple[int, float]:
    """Weights and momentum of an unfinished training; returns (steps done, seconds spent)."""
    content = _read(unfinished)
    _check_owner(content, unfinished, space, n_classes)
    supernet.load_tensors(content["tensors"], str(unfinished))
    parameters = dict(supernet.named_parameters())
    for name, buffer in content["momentum"].items():
        optimizer.state[parameters[name]]["momentum_buffer"] = buffer
    return int(content["step"]), float(content["seconds"])


def space_digest(space: MBConvSpace) -> str:
    """Name and hash of a space's choices: two spaces of one name but other choices differ."""
    return f"{space.name}-{hashlib.sha256(repr(space.macro).encode()).hexdigest()[:8]}"


def _identity(space: MBConvSpace, data: ImageData, recipe: SupernetRecipe) -> dict[str, Any]:
    return {
        "space": space_digest(space),
        "n_classes": data.n_classes,
        "split_id": data.split_id,
        "recipe": recipe.definition,
    }


def _save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint so that a reader, or a kill, sees the old file or the new one, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    torch.save({"format": _FORMAT, **content}, temporary)
    os.replace(temporary, path)


_OTHER_FILE = "name another file, or move this one away if hadas wrote it, to train again"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; train one, or correct the path") from error
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise CheckpointError(
            f"{path}: not a readable checkpoint, or cut short ({_first_line(error)}); {_OTHER_FILE}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: not a hadas supernet checkpoint; {_OTHER_FILE}")
    for key in ("space", "n_classes", "tensors", "finished", "seconds"):
        if key not in content:
            raise CheckpointError(f"{path}: lacks '{key}', so it is damaged; {_OTHER_FILE}")
    return content


def _check_owner(content: dict[str, Any], path: Path, space: MBConvSpace, n_classes: int) -> None:
    wanted = space_digest(space)
    if content["space"] != wanted:
        raise CheckpointError(f"{path}: a checkpoint of space '{content['space']}', not of '{wanted}'")
    if content["n_classes"] != n_classes:
        raise CheckpointError(
            f"{path}: a checkpoint for {content['n_classes']} classes; {n_classes} are asked for"
        )
