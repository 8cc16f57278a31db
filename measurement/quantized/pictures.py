"""Images at a space's resolution, in a file that all processes of a measurement read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from ...datasets.images import ImageData, ImageSplit
from ...errors import DataError
from ..accuracy.network import resize_square

SPLITS = ("train", "calibration", "test")
_BATCH = 1000


def resized_data(data: ImageData, resolution: int) -> ImageData:
    """The same data with square images of a resolution in px; itself where they are that already.

    Bicubic, antialiased where it shrinks, rounded to pixel values again.
    """
    train, calibration, test = (_resized(getattr(data, name), resolution) for name in SPLITS)
    return replace(data, train=train, calibration=calibration, test=test)


def _resized(split: ImageSplit, resolution: int) -> ImageSplit:
    if split.images.shape[2:] == (resolution, resolution):
        return split
    parts = [
        resize_square(torch.from_numpy(split.images[i : i + _BATCH]).float(), resolution)
        for i in range(0, len(split), _BATCH)
    ]
    pixels = torch.cat(parts).round_().clamp_(0.0, 255.0).to(torch.uint8)
    return replace(split, images=pixels.numpy())


def write_images(data: ImageData, resolution: int, directory: Path) -> Path:
    """Write the images of all splits, unless they are there; returns the file.

    Args:
        data: images at ``resolution``, which with the splits names the file.
    """
    path = directory / f"images-{data.split_id}-{resolution}px.npz"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npz")
        arrays = {
            f"{name}.{field}": getattr(getattr(data, name), field)
            for name in SPLITS
            for field in ("images", "labels", "group")
        }
        np.savez(temporary, **arrays)
        os.replace(temporary, path)
    return path


def read_images(path: Path) -> tuple[ImageSplit, ImageSplit, ImageSplit]:
    """Train, calibration and test split of a file that :func:`write_images` wrote.

    Raises:
        DataError: no file, or not such a one.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            train, calibration, test = (
                ImageSplit(archive[f"{n}.images"], archive[f"{n}.labels"], archive[f"{n}.group"])
                for n in SPLITS
            )
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise DataError(
            f"{path}: not a readable file of images ({error}); remove it, and it is written again"
        ) from error
    return train, calibration, test
