"""Dropout and drop-connect of a training pass, drawn beforehand: the network only multiplies.

Masks that come from outside make a pass a pure function of its inputs.  It can then be repeated
after a kill, computes the same on every device, and drops nothing unless masks are given: an
extracted network, a student or an evaluation has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...spaces import Backbone

DROP_CONNECT_STAGES = 2
"""Stages, counted from the last, whose residual branches drop-connect may skip (AttentiveNAS)."""


@dataclass(frozen=True)
class DropMasks:
    """Factors of one pass over n images; each is 0 or 1 / (share that is kept), so means stay.

    Attributes:
        branches: by block index: (n, 1, 1, 1) for the block's residual branch.
        features: (n, c) for what the classifier reads; ``None``: all are kept.
    """

    branches: Mapping[int, Tensor]
    features: Tensor | None


def draw_drop_masks(
    backbone: Backbone, n: int, rng: np.random.Generator, *, dropout: float, drop_connect: float, part: slice,
    device: torch.device,
) -> DropMasks | None:  # fmt: skip
    """Masks of one training pass.

    A residual branch of block i (of L, from 0) is skipped with probability (i + 1) / L times
    ``drop_connect``: stochastic depth (Huang et al., ECCV 2016), per image, in the last two stages.

    Args:
        n: images of the whole step, for all of which masks are drawn.
        dropout: probability that a feature is zero before the classifier.
        part: which of the images to return masks for.

    Returns:
        ``None`` if nothing is ever dropped; then ``rng`` is not used.
    """
    if not dropout and not drop_connect:
        return None

    def factors(shape: tuple[int, ...], rate: float) -> Tensor:
        kept: NDArray[np.bool_] = rng.random(shape, dtype=np.float32) >= rate
        return torch.from_numpy(kept[part].astype(np.float32) / np.float32(1.0 - rate)).to(device)

    branches = {}
    if drop_connect:
        n_blocks = backbone.n_blocks
        for block in range(n_blocks - sum(backbone.depth[-DROP_CONNECT_STAGES:]), n_blocks):
            branches[block] = factors((n, 1, 1, 1), drop_connect * (block + 1) / n_blocks)
    return DropMasks(branches, factors((n, backbone.width[-1]), dropout) if dropout else None)
