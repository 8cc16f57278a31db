"""What the readers of image files share: which rows to decode, what comes back, one decoder."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Part = Literal["train", "test"]
PARTS: tuple[Part, Part] = ("train", "test")
ChooseRows = Callable[[Part, NDArray[np.int64]], NDArray[np.int64]]
"""Given a part and the labels of all its rows, the rows to decode, ascending."""


@dataclass(frozen=True)
class ImagePart:
    """Decoded rows of the training or the test part of a data set.

    Attributes:
        rows: (n,) row numbers in the order of the files.
        images: (n, 3, s, s) uint8.
        all_labels: (all rows,) labels of the whole part, decoded or not.
    """

    rows: NDArray[np.int64]
    images: NDArray[np.uint8]
    all_labels: NDArray[np.int64]


@dataclass(frozen=True)
class ImageParts:
    """Both parts, the class names in order of the labels, and a hash of the content."""

    train: ImagePart
    test: ImagePart
    class_names: tuple[str, ...]
    content_sha256: str
    source: str


def decode_image(data: Any, side: int, where: str) -> NDArray[np.uint8]:
    """Pixels of one encoded image; a greyscale one is repeated over the three channels.

    Args:
        data: the bytes of a PNG, JPEG or WebP file.
        side: pixels that it must have, either way.
        where: file and row, for messages.

    Returns:
        (3, side, side) uint8.

    Raises:
        DataError: no bytes, bytes that are no image, or an image of another size.
    """
    from PIL import Image

    if not isinstance(data, bytes) or not data:
        raise DataError(f"{where}: the image has no bytes; fetch the file again, with images embedded")
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{where}: corrupt image bytes ({error}); fetch the file again") from error
    if pixels.shape[:2] != (side, side):
        raise DataError(
            f"{where}: image of {pixels.shape[1]} x {pixels.shape[0]} pixels instead of {side} x {side}"
        )
    return pixels.transpose(2, 0, 1)
