"""Where accuracy is computed: a device by name, what to call it, and how to read the clock there."""

from __future__ import annotations

import time

import torch

from ...errors import ConfigError

DEVICE_NAMES = ("cpu", "cuda", "auto")


def resolve_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is the first GPU of this machine, or its CPU if it has none.

    Args:
        name: ``cpu``, ``cuda``, ``auto``, or torch's name of one device, such as ``cuda:1``.

    Raises:
        ConfigError: a GPU that this machine does not have.
    """
    n_gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if n_gpus else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= n_gpus:
        raise ConfigError(
            f"accuracy.device '{name}': torch finds {n_gpus} CUDA devices on this machine; "
            "set 'accuracy.device' to cpu or auto, or see that torch was installed for CUDA"
        )
    return device


def hardware_name(device: torch.device) -> str:
    """What a job's seconds were spent on, for people and for the ledger."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type} x1 thread"


def seconds_now(device: torch.device) -> float:
    """A clock to take differences of; work queued on a GPU is waited for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
