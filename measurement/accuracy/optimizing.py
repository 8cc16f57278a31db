"""Groups of parameters that optimizers treat alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor


def decay_groups(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer of ``torch.optim``, in the given order within each group.

    Args:
        parameters: of the network, any shapes.
        weight_decay: of weights, the parameters of more than one dimension; batch norm and biases have none.
    """
    each = list(parameters)
    return [
        {"params": [p for p in each if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in each if p.dim() == 1], "weight_decay": 0.0},
    ]
