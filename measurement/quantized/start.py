"""The shared start: full-precision weights of the backbone and of all heads, trained once per recipe.

Every step trains one head at each of the eleven mounting points, of either type in turn.  The file's name is
a hash of all that the weights depend on; an unfinished training is saved beside it and goes on after a kill
to the same weights.  Files are safetensors: reading one runs no code.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from ...datasets.images import ImageData
from ...errors import CheckpointError
from ...spaces.quantized import N_POINTS, QuantizedExitSpace
from ..accuracy.checkpoints import Tensors, remove_stale_parts, tensors_id
from ..accuracy.evaluation import fixed_threads
from ..accuracy.inputs import SplitInputs
from ..accuracy.precision import cuda_arithmetic
from .network import QuantizedExitNet, start_module
from .recipes import QuantizedRecipe, content_id
from .steps import StepTrainer

Progress = Callable[[str, int, int], None]
"""Called with (what is being done: ``start`` or ``networks``, how much of it is done, how much there is)."""

_MOMENTUM = "momentum/"


@dataclass(frozen=True)
class SharedStart:
    """Finished starting weights on disk.

    Attributes:
        path: a safetensors file.
        start_id: hash of all tensors.
        seconds: what its training took, over all sittings.
    """

    path: Path
    start_id: str
    seconds: float


def train_start(
    space: QuantizedExitSpace, data: ImageData, recipe: QuantizedRecipe, *, directory: str | Path,
    device: torch.device, progress: Progress | None = None, save_every_s: float = 15.0,
) -> SharedStart:  # fmt: skip
    """Train the shared start, or find the finished one, or go on with an unfinished one.

    On one thread, so that its weights do not depend on how many processors there are.

    Args:
        data: images at the space's resolution.
        directory: where such files live; others that train into it at the same time are waited for.
        save_every_s: seconds between saves of an unfinished training; changes no result.

    Raises:
        CheckpointError: a file of that name that is damaged.
        TrainingError: a loss that is no finite number any more; names the step.
    """
    identity = {
        "space": repr((space.name, space.resolution, space.n_classes, space.stem_channels, space.blocks)),
        "split_id": data.split_id,
        "recipe": recipe.start_definition,
    }
    path = Path(directory) / f"{content_id('start', identity)}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            with fixed_threads(1), cuda_arithmetic(recipe.precision):
                _train(space, data, recipe, path, device, progress, save_every_s)
    tensors, record = read_tensors(path)
    return SharedStart(path, tensors_id(tensors), float(record["seconds"]))


def _train(
    space: QuantizedExitSpace, data: ImageData, recipe: QuantizedRecipe, path: Path, device: torch.device,
    progress: Progress | None, save_every_s: float,
) -> None:  # fmt: skip
    net = start_module(space, recipe.seed).to(device).to(memory_format=torch.channels_last)
    trainer = StepTrainer(
        net, SplitInputs(data.train, device), recipe, n_steps=recipe.start_steps,
        learning_rate=recipe.start_learning_rate, seed=recipe.seed, name="shared start",
        remedy=f"start_learning_rate ({recipe.start_learning_rate:g})",
    )  # fmt: skip
    unfinished = path.with_suffix(".part")
    remove_stale_parts(path, unfinished)
    first, seconds = _restore(net, trainer.optimizer, unfinished)
    net.train()
    began = saved = time.perf_counter()
    for step in range(first, recipe.start_steps):
        # Neighbouring points have heads of different types, and every point the other type at the next step.
        trainer.step(step, [(position, 1 + (step + position) % 2) for position in range(N_POINTS)])
        if progress is not None:
            progress("start", step + 1, recipe.start_steps)
        now = time.perf_counter()
        if now - saved > save_every_s:
            state = {**_weights(net), **_momentum(net, trainer.optimizer)}
            _write(unfinished, state, {"step": step + 1, "seconds": seconds + now - began})
            saved = now
    _write(path, _weights(net), {"seconds": seconds + time.perf_counter() - began})
    unfinished.unlink(missing_ok=True)


def _weights(net: QuantizedExitNet) -> Tensors:
    return {name: value.detach() for name, value in net.state_dict().items()}


def _momentum(net: QuantizedExitNet, optimizer: torch.optim.SGD) -> Tensors:
    """Momentum buffers by the names of their weights; a weight that no step has used has none."""
    found = {}
    for name, parameter in net.named_parameters():
        buffer = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
        if buffer is not None:
            found[_MOMENTUM + name] = buffer
    return found


def _restore(net: QuantizedExitNet, optimizer: torch.optim.SGD, unfinished: Path) -> tuple[int, float]:
    """Weights and momentum of an unfinished training, if there is one; (steps done, seconds spent)."""
    if not unfinished.exists():
        return 0, 0.0
    tensors, record = read_tensors(unfinished)
    parameters = dict(net.named_parameters())
    weights: Tensors = {}
    for name, value in tensors.items():
        if name.startswith(_MOMENTUM):
            parameter = parameters[name.removeprefix(_MOMENTUM)]
            optimizer.state[parameter]["momentum_buffer"] = _like(value, parameter)
        else:
            weights[name] = value
    _load(net, weights, unfinished)
    return int(record["step"]), float(record["seconds"])


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """On the device, and in the memory layout, of a parameter."""
    return torch.empty_like(parameter).copy_(value)


def load_start(net: QuantizedExitNet, tensors: Tensors, path: Path) -> None:
    """Give a network the weights of the shared start that it has a place for.

    Raises:
        CheckpointError: a weight that the file lacks, or has in another shape.
    """
    wanted = net.state_dict()
    for name in wanted:
        if name not in tensors:
            raise CheckpointError(f"{path}: lacks weight '{name}', so it is no start of this space")
    _load(net, {name: tensors[name] for name in wanted}, path)


def _load(net: QuantizedExitNet, weights: Tensors, path: Path) -> None:
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its weights do not fit this space ({' '.join(str(error).split())[:300]}); move the file away to "
            "train the start again"
        ) from error


def _write(path: Path, tensors: Tensors, record: dict[str, Any]) -> None:
    """So that a reader, or a kill, sees the old file or the new one, never a part."""
    from safetensors.torch import save_file

    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(plain, temporary, metadata={name: repr(value) for name, value in record.items()})
    os.replace(temporary, path)


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors of a file by name, and what was written beside them.

    Raises:
        CheckpointError: no file, or not such a one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            # A copy: the file is mapped into memory, and may be replaced.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); move it away to train the start again"
        ) from error
