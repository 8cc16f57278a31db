"""Data-parallel training under ``torchrun``: processes that share the images of every step.

Every process holds all weights, computes the gradient on its own part of the step's images, and
one all-reduce over one flat buffer adds the gradients up.  torch's DistributedDataParallel does
this with hooks on a module's parameters during one ``backward``; a sandwich step has four
sub-networks whose gradients are computed by ``autograd.grad`` on views of the shared weights, and
adds them up itself.  No hook would fire, so this module does what those hooks do, once per step.

Batch norm uses the statistics of each process's own images, as with DistributedDataParallel: the
recipe's batch size is that of the whole step, and weights trained by another number of processes
differ as those of another batch-norm batch do.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from ...errors import ConfigError

COMMAND = "torchrun --nproc-per-node N -m hadas.cli train STUDY"
"""How several processes are started."""


@dataclass(frozen=True, slots=True)
class Processes:
    """One of the processes that train together, seen from inside.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
        device: torch's name of where this one computes.
    """

    rank: int
    size: int
    device: str

    @property
    def is_first(self) -> bool:
        """Whether this one writes checkpoints and speaks to the user."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """This process's share of n images, as large as the others' give or take one.

        Raises:
            ConfigError: fewer images than processes.
        """
        if n < self.size:
            raise ConfigError(
                f"{n} images per step are too few for {self.size} processes: raise batch_size, or start fewer"
            )
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one exchange.

        Args:
            tensors: float32, of the same shapes in the same order in every process.
        """
        if self.size == 1:
            return
        buffer = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(buffer)
        start = 0
        for tensor in tensors:
            tensor.copy_(buffer[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def wait(self) -> None:
        """Go on only when all processes have come here."""
        if self.size > 1:
            torch.distributed.barrier()


def launched_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Rank that ``torchrun`` gave to this process; 0 without it."""
    return _launched(environment)[0]


def join_processes(device: str, environment: Mapping[str, str] = os.environ) -> Processes:
    """Join the processes that ``torchrun`` started; without it this process is alone.

    They talk by NCCL on GPUs, one each (``cuda:LOCAL_RANK``), and by Gloo on CPUs, until this process
    ends: torchrun's meeting point admits each process once.

    Args:
        device: torch's name of where to compute; a CUDA index is replaced by the process's own.

    Raises:
        ConfigError: CUDA without a GPU, or with fewer than there are processes on this machine.
    """
    rank, size, local_rank = _launched(environment)
    kind = torch.device(device).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{device}': torch finds no CUDA GPU here; use 'cpu'")
    if size == 1:
        return Processes(0, 1, device)
    if kind == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local_rank} of this machine has no GPU of its own: torch finds "
                f"{torch.cuda.device_count()}; start no more processes than that (--nproc-per-node)"
            )
        device = f"cuda:{local_rank}"
        torch.cuda.set_device(local_rank)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
        atexit.register(torch.distributed.destroy_process_group)
    return Processes(rank, size, device)


def _launched(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """(rank, number of processes, rank on this machine); (0, 1, 0) without torchrun's variables.

    Raises:
        ConfigError: some of the variables are there and others are not, or are no numbers.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    found = [environment.get(name) for name in names]
    if found[0] is None and found[1] is None:
        return 0, 1, 0
    for name, value in zip(names, found, strict=True):
        if value is None or not value.isdecimal():
            raise ConfigError(
                f"{name} = {value!r} in the environment: not as torchrun sets it; use: {COMMAND}"
            )
    rank, size, local_rank = (int(value) for value in found if value is not None)
    return rank, size, local_rank
