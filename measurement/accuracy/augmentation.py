"""Random changes of training images."""

from __future__ import annotations

import numpy as np


def augment(
    images: np.ndarray, rng: np.random.Generator, *, max_shift: int = 0, mirror: bool = False
) -> np.ndarray:
    """Mirror and shift images at random; edges repeat.

    Args:
        images: (n, 3, h, w), any type.
        max_shift: pixels by which an image moves at most, either way.
        mirror: whether half of them are mirrored.

    Returns:
        (n, 3, h, w); the input itself if neither is asked for.
    """
    if mirror:
        flip = rng.random(len(images)) < 0.5
        images = np.where(flip[:, None, None, None], images[..., ::-1], images)
    if max_shift:
        m = max_shift
        height, width = images.shape[2:]
        padded = np.pad(images, ((0, 0), (0, 0), (m, m), (m, m)), mode="edge")
        y = rng.integers(0, 2 * m + 1, len(images))[:, None] + np.arange(height)
        x = rng.integers(0, 2 * m + 1, len(images))[:, None] + np.arange(width)
        n = np.arange(len(images))[:, None, None]
        images = padded[n, :, y[:, :, None], x[:, None, :]].transpose(0, 3, 1, 2)
    return images
