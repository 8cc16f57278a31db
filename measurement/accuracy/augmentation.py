"""Random changes of training images: drawn on the host, applied wherever the images lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class ImageChanges:
    """What happens to each of n images.

    Attributes:
        flips: (n,) bool, whether an image is mirrored; ``None``: none is.
        shifts: (2, n) int64, rows and columns by which each image is read further down and right,
            after mirroring; edges repeat.  ``None``: none moves.
    """

    flips: NDArray[np.bool_] | None
    shifts: NDArray[np.int64] | None

    @property
    def nothing(self) -> bool:
        """Whether all images stay as they are."""
        return self.flips is None and self.shifts is None

    def part(self, rows: slice) -> ImageChanges:
        """The changes of some of the images."""
        flips = None if self.flips is None else self.flips[rows]
        return ImageChanges(flips, None if self.shifts is None else self.shifts[:, rows])


def draw_changes(
    n: int, rng: np.random.Generator, *, max_shift: int = 0, mirror: bool = False
) -> ImageChanges:
    """Changes of n images.

    Args:
        max_shift: pixels by which an image moves at most, either way.
        mirror: whether half of them are mirrored.
    """
    flips = rng.random(n) < 0.5 if mirror else None
    if not max_shift:
        return ImageChanges(flips, None)
    down, right = (rng.integers(0, 2 * max_shift + 1, n) - max_shift for _ in range(2))
    return ImageChanges(flips, np.stack([down, right]))


def apply_changes(images: Tensor, changes: ImageChanges) -> Tensor:
    """Changed copies of (n, 3, h, w) images of any type, on their device; themselves without changes."""
    if changes.nothing:
        return images
    n, _, height, width = images.shape
    y = torch.arange(height, device=images.device).expand(n, height)
    x = torch.arange(width, device=images.device).expand(n, width)
    if changes.shifts is not None:
        down, right = torch.from_numpy(changes.shifts).to(images.device, non_blocking=True)[:, :, None]
        y, x = (y + down).clamp(0, height - 1), (x + right).clamp(0, width - 1)
    if changes.flips is not None:
        flips = torch.from_numpy(changes.flips).to(images.device, non_blocking=True)
        x = torch.where(flips[:, None], width - 1 - x, x)
    image = torch.arange(n, device=images.device)[:, None, None]
    return images[image, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
