"""Work counted on the modules that really run."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def count_macs(module: nn.Module, inputs: Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers, counted while they run."""
    counted = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal counted
        if isinstance(layer, nn.Conv2d):
            counted += layer.weight.numel() * out.shape[2] * out.shape[3]
        elif isinstance(layer, nn.Linear):
            counted += layer.weight.numel()

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    with torch.no_grad():
        module(inputs)
    for hook in hooks:
        hook.remove()
    return counted
