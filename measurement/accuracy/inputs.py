"""Images of a split as network input: read by rows, changed or not, on the device that computes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...datasets.images import ImageSplit
from .augmentation import ImageChanges, apply_changes
from .network import Normalization, images_to_input

Rows = NDArray[np.int64] | slice

MAX_RESIDENT_BYTES = 2_000_000_000
"""Images of a split up to this size stay on the GPU."""


class SplitInputs:
    """A split for one device.

    Labels always lie on the device.  Images do on a GPU if they fit there, and a step moves row
    numbers alone; larger splits stay in main memory, and the images that are read are moved.
    What a step moves does not wait for the GPU to end the step before (``non_blocking``; memory that
    is not pinned is copied before the call returns, so it may change or go afterwards).  Threads may
    read at the same time.

    Attributes:
        split: what is read.
        device: where inputs and labels come out.
    """

    def __init__(self, split: ImageSplit, device: torch.device) -> None:
        self.split = split
        self.device = device
        resident = device.type == "cpu" or split.images.nbytes <= MAX_RESIDENT_BYTES
        pixels = _as_tensor(split.images)
        self._pixels = pixels.to(device) if resident else pixels
        self._labels = _as_tensor(split.labels).to(device)

    def __len__(self) -> int:
        return len(self.split)

    def labels(self, rows: Rows) -> Tensor:
        """(n,) int64 on the device."""
        return _selected(self._labels, rows)

    def read(self, rows: Rows, normalization: Normalization, changes: ImageChanges | None = None) -> Tensor:
        """Network input of some images.

        Args:
            rows: (n,) of the split, or a slice of it.
            changes: of these n images; ``None``: they stay as they are.

        Returns:
            (n, 3, h, w) float32 on the device, in the layout that convolutions run fastest on, on
            CPUs and on tensor cores.
        """
        stored = _selected(self._pixels, rows).to(self.device, non_blocking=True)
        if changes is not None:
            stored = apply_changes(stored, changes)
        return images_to_input(stored, normalization).contiguous(memory_format=torch.channels_last)

    def batches(
        self, batch_size: int, normalization: Normalization, rows: NDArray[np.int64] | None = None
    ) -> Iterator[Tensor]:
        """Network inputs of ``rows``, or of all images, in order."""
        for start in range(0, len(self) if rows is None else len(rows), batch_size):
            piece = slice(start, start + batch_size)
            yield self.read(piece if rows is None else rows[piece], normalization)


def inputs_of(split: ImageSplit | SplitInputs, device: torch.device) -> SplitInputs:
    """The split for a device, unless it is already for one: whoever reads it often makes it once."""
    return split if isinstance(split, SplitInputs) else SplitInputs(split, device)


def _as_tensor(array: NDArray[np.uint8] | NDArray[np.int64]) -> Tensor:
    # torch shares memory with arrays that may be written to; others are copied.
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _selected(tensor: Tensor, rows: Rows) -> Tensor:
    if isinstance(rows, slice):
        return tensor[rows]
    return tensor[_as_tensor(rows).to(tensor.device, non_blocking=True)]
