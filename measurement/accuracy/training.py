"""Supernet training: the loop over :mod:`.sandwich` steps, resumable at any time.

Recipe: AttentiveNAS (Wang et al., CVPR 2021) after BigNAS (Yu et al., ECCV 2020), scaled down.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...datasets.images import ImageData
from ...errors import CheckpointError, TrainingError
from ...spaces import MBConvSpace
from .checkpoints import (
    CLASSIFIER,
    StoredWeights,
    Tensors,
    non_finite_weight,
    read_checkpoint,
    remove_stale_parts,
    write_checkpoint,
)
from .distributed import Processes, join_processes
from .optimizing import decay_groups
from .precision import cuda_arithmetic
from .recipes import SupernetRecipe, content_id, warmup_cosine
from .sandwich import Sandwich, step_workers
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

    Processes that ``torchrun`` started train together (:mod:`.distributed`): each calls this with the
    same arguments, the first writes, all return when the file is there.  Another number of processes
    gives other weights, under the same name; the file notes how many they were.

    Args:
        directory: where checkpoints live, the same for all processes; the file's name is a hash of
            space, splits, recipe, starting weights and training code.
        start: weights to fine-tune, of ours or published; a classifier for another number of
            classes is replaced by a fresh one.  Without it all weights start fresh.
        device: torch's name of where to compute; under ``torchrun`` ``cuda`` is each process's own.
        progress: called in every process.
        save_every_s: seconds between saves of an unfinished training; changes no result.

    Raises:
        CheckpointError: the file of that name is not this supernet, ``start`` is of another space, or
            the processes do not see the same unfinished training, or another number of them began it.
        TrainingError: loss or weights are no finite numbers any more; names the step.
        ConfigError: a device that is not there, or fewer images per step than processes.
    """
    identity = _identity(space, data, recipe, start)
    path = _checkpoint_path(directory, identity)
    if path.exists():
        return load_supernet(path, space, data.n_classes)[1]
    processes = join_processes(device)
    supernet = starting_supernet(space, data.n_classes, recipe.seed, start).to(processes.device)
    with cuda_arithmetic(recipe.precision), step_workers(supernet.device, recipe.threads) as workers:
        sandwich = Sandwich(supernet, data.train, recipe, workers, processes)
        return _train(supernet, sandwich, recipe, path, identity, progress, save_every_s, processes)


def finished_supernet(
    space: MBConvSpace, data: ImageData, recipe: SupernetRecipe, *, directory: str | Path,
    start: StoredWeights | None = None,
) -> TrainedSupernet | None:  # fmt: skip
    """The finished supernet that :func:`train_supernet` would find, ``None`` if it would have to train.

    Raises:
        CheckpointError: the file of that name is not this supernet.
    """
    path = _checkpoint_path(directory, _identity(space, data, recipe, start))
    return load_supernet(path, space, data.n_classes)[1] if path.exists() else None


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
    supernet: Supernet, sandwich: Sandwich, recipe: SupernetRecipe, path: Path, identity: dict[str, Any],
    progress: Progress | None, save_every_s: float, processes: Processes,
) -> TrainedSupernet:  # fmt: skip
    optimizer = _sgd(supernet, recipe)
    unfinished = path.with_suffix(".part")
    identity = {**identity, "n_processes": processes.size}
    first_step, seconds = 0, 0.0
    if unfinished.exists():
        first_step, seconds = _restore(supernet, optimizer, unfinished, processes.size)
    if processes.is_first:
        remove_stale_parts(path, unfinished)
    _begin_together(processes, first_step, unfinished, supernet.device)
    began = saved = time.perf_counter()
    for step in range(first_step, recipe.steps):
        loss, norm = _step(supernet, sandwich, optimizer, recipe, step, processes)
        if not math.isfinite(loss + norm):
            raise _diverged(path, recipe, step + 1, f"loss {loss:g}, norm of the gradient {norm:g}")
        if progress is not None:
            progress(step + 1, recipe.steps, loss)
        now = time.perf_counter()
        if processes.is_first and now - saved > save_every_s:
            spent = {"step": step + 1, "seconds": seconds + now - began, "finished": False}
            momentum = _momentum(supernet, optimizer)
            _save(unfinished, supernet, {**identity, **spent, "momentum": momentum})
            saved = now
    name = non_finite_weight(supernet.shared)
    if name is not None:  # a last step can still overflow
        raise _diverged(path, recipe, recipe.steps, f"weight '{name}' holds numbers that are not finite")
    weights_id = supernet.weights_id  # reads all weights: every step has ended then, on a GPU too
    seconds += time.perf_counter() - began
    if processes.is_first:
        _save(path, supernet, {**identity, "step": recipe.steps, "seconds": seconds, "finished": True})
        unfinished.unlink(missing_ok=True)
    processes.wait()  # the file is there when any of them returns
    return TrainedSupernet(path, weights_id, seconds)


def _begin_together(processes: Processes, first_step: int, unfinished: Path, device: torch.device) -> None:
    """Go on when all processes have read the unfinished training, if they read the same one."""
    steps = torch.zeros(processes.size, device=device)
    steps[processes.rank] = first_step
    processes.add_up([steps])
    if (steps != first_step).any():
        raise CheckpointError(
            f"{unfinished}: the processes would go on from different steps ({steps.int().tolist()}); give them one "
            "folder that all of them see"
        )


def _save(path: Path, supernet: Supernet, record: dict[str, Any]) -> None:
    write_checkpoint(path, supernet.tensors(), supernet.normalization, record)


def _step(
    supernet: Supernet, sandwich: Sandwich, optimizer: torch.optim.Optimizer, recipe: SupernetRecipe, step: int,
    processes: Processes,
) -> tuple[float, float]:  # fmt: skip
    """One optimizer step of all processes together.

    Returns:
        The largest backbone's loss, and the norm of the gradient before it is clipped.
    """
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * warmup_cosine(step, recipe.steps, recipe.warmup_fraction)
    loss, gradients = sandwich.gradients(step)
    processes.add_up([loss, *(gradient for gradient in gradients if gradient is not None)])
    for parameter, gradient in zip(supernet.shared.values(), gradients, strict=True):
        parameter.grad = gradient
    norm = torch.nn.utils.clip_grad_norm_(supernet.shared.values(), recipe.clip_norm)
    optimizer.step()
    loss_value, norm_value = torch.stack([loss, norm]).tolist()  # the one wait for a GPU in a step
    return loss_value, norm_value


def _diverged(path: Path, recipe: SupernetRecipe, step: int, what: str) -> TrainingError:
    return TrainingError(
        f"{path.name}: step {step} of {recipe.steps}: {what}: the training diverged. Lower learning_rate "
        f"({recipe.learning_rate:g}) or clip_norm ({recipe.clip_norm:g}) of the supernet's recipe, or raise its "
        "warmup_fraction"
    )


def _sgd(supernet: Supernet, recipe: SupernetRecipe) -> torch.optim.SGD:
    groups = decay_groups(supernet.shared.values(), recipe.weight_decay)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)


def _momentum(supernet: Supernet, optimizer: torch.optim.Optimizer) -> Tensors:
    """Momentum buffers by the names of their weights; a weight that no step has used has none."""
    buffers = {}
    for name, parameter in supernet.shared.items():
        buffer = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
        if buffer is not None:
            buffers[name] = buffer
    return buffers


def _restore(
    supernet: Supernet, optimizer: torch.optim.Optimizer, unfinished: Path, n_processes: int
) -> tuple[int, float]:
    """Weights and momentum of an unfinished training; returns (steps done, seconds spent)."""
    stored = read_checkpoint(unfinished)
    record = _check_owner(stored, supernet.space, supernet.n_classes)
    if record["n_processes"] != n_processes:
        raise CheckpointError(
            f"{unfinished}: begun by {record['n_processes']} process(es), now there are {n_processes}; the weights "
            f"would be neither's. Go on with {record['n_processes']} (torchrun --nproc-per-node), or move the file "
            "away to train again"
        )
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


def _checkpoint_path(directory: str | Path, identity: dict[str, Any]) -> Path:
    return Path(directory) / f"{content_id('supernet', identity)}.pt"


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
