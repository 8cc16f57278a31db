"""Graded, seeded distortions that make easy images hard: geometry, blur, contrast, noise, occlusion.

Severity runs from 0 (the clean image) to 1; every magnitude is proportional to it.  Shapes:
n images of one channel, h x w pixels, values in 0 .. 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Distortion:
    """Largest magnitudes, reached at severity 1; each image draws uniformly up to them.

    Attributes:
        rotation_degrees: rotation either way.
        shift: translation either way along each axis, fraction of the side.
        log_scale: natural logarithm of the zoom, either way.
        shear: horizontal shear either way.
        blur: weight of the blurred image in its blend with the sharp one.
        contrast_loss: share of the contrast that is lost around a random grey level.
        noise: standard deviation of Gaussian pixel noise, fraction of the value range.
        occlusion: side of a grey square, fraction of the image's side.
    """

    rotation_degrees: float = 25.0
    shift: float = 0.1
    log_scale: float = 0.2
    shear: float = 0.2
    blur: float = 1.0
    contrast_loss: float = 0.5
    noise: float = 0.1
    occlusion: float = 0.3


def distort(
    images: FloatArray, severity: FloatArray, distortion: Distortion, rng: np.random.Generator
) -> FloatArray:
    """Distort every image by its own random draw.

    Args:
        images: (n, h, w) in 0 .. 1.
        severity: (n,) in 0 .. 1.
        rng: source of all randomness; the draw order is fixed, so a seed fixes the result.

    Returns:
        (n, h, w) in 0 .. 1.
    """
    x = torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1)
    grade = np.asarray(severity, dtype=np.float32)
    x = _warp(x, grade, distortion, rng)
    x = _blur(x, grade, distortion, rng)
    x = _fade(x, grade, distortion, rng)
    x = _occlude(x, grade, distortion, rng)
    noise = rng.standard_normal(tuple(x.shape), dtype=np.float32)
    sd = _column(_up_to(distortion.noise * grade, rng))
    return (x + sd * torch.from_numpy(noise)).clamp_(0.0, 1.0).squeeze(1).numpy()


def _up_to(largest: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(n,) uniform between 0 and ``largest``."""
    return largest * rng.random(len(largest), dtype=np.float32)


def _either_way(largest: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(n,) uniform between -``largest`` and ``largest``."""
    return largest * (2.0 * rng.random(len(largest), dtype=np.float32) - 1.0)


def _column(values: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).view(-1, 1, 1, 1)


def _warp(x: Tensor, grade: FloatArray, distortion: Distortion, rng: np.random.Generator) -> Tensor:
    angle = _either_way(math.radians(distortion.rotation_degrees) * grade, rng)
    zoom = np.exp(_either_way(distortion.log_scale * grade, rng))
    shear = _either_way(distortion.shear * grade, rng)
    # A shift of the whole side is 2 in the sampling grid's coordinates, which run from -1 to 1.
    shift_x = _either_way(2.0 * distortion.shift * grade, rng)
    shift_y = _either_way(2.0 * distortion.shift * grade, rng)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    rows = [[cos, shear * cos - sin, shift_x], [sin, shear * sin + cos, shift_y]]
    matrices = torch.from_numpy(np.array(rows, dtype=np.float32).transpose(2, 0, 1).copy())
    grid = functional.affine_grid(matrices, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _blur(x: Tensor, grade: FloatArray, distortion: Distortion, rng: np.random.Generator) -> Tensor:
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0  # binomial: close to a Gaussian of 1 pixel
    soft = functional.conv2d(functional.pad(x, (2, 2, 0, 0), "replicate"), taps.view(1, 1, 1, 5))
    soft = functional.conv2d(functional.pad(soft, (0, 0, 2, 2), "replicate"), taps.view(1, 1, 5, 1))
    weight = _column(_up_to(distortion.blur * grade, rng))
    return x + weight * (soft - x)


def _fade(x: Tensor, grade: FloatArray, distortion: Distortion, rng: np.random.Generator) -> Tensor:
    loss = _column(_up_to(distortion.contrast_loss * grade, rng))
    grey = _column(rng.random(len(grade), dtype=np.float32))
    return x + loss * (grey - x)


def _occlude(x: Tensor, grade: FloatArray, distortion: Distortion, rng: np.random.Generator) -> Tensor:
    height, width = x.shape[-2:]
    half = _column(_up_to(0.5 * distortion.occlusion * grade, rng))
    centre_y = _column(rng.random(len(grade), dtype=np.float32))
    centre_x = _column(rng.random(len(grade), dtype=np.float32))
    grey = _column(rng.random(len(grade), dtype=np.float32))
    y = ((torch.arange(height) + 0.5) / height).view(1, 1, -1, 1)
    z = ((torch.arange(width) + 0.5) / width).view(1, 1, 1, -1)
    inside = ((y - centre_y).abs() < half) & ((z - centre_x).abs() < half)
    return torch.where(inside, grey.expand_as(x), x)
