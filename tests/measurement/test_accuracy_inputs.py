"""Images as network input: the same pixels, however and wherever they are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hadas.datasets.images import ImageSplit
from hadas.measurement.accuracy import inputs
from hadas.measurement.accuracy.augmentation import draw_changes
from hadas.measurement.accuracy.inputs import SplitInputs, inputs_of
from hadas.measurement.accuracy.network import Normalization

CPU = torch.device("cpu")
SYMMETRIC = Normalization.SYMMETRIC


@pytest.fixture
def split() -> ImageSplit:
    images = np.random.default_rng(0).integers(0, 256, (11, 3, 6, 5)).astype(np.uint8)
    images.flags.writeable = False  # as of a memory-mapped file: torch must not warn
    return ImageSplit(images, np.arange(11) % 4, np.arange(11, dtype=np.int32))


def _pixels(x: torch.Tensor) -> np.ndarray:
    return ((x + 1.0) * 127.5).round().to(torch.uint8).numpy()


def test_rows_slices_and_batches_read_the_same_images(split: ImageSplit) -> None:
    source = SplitInputs(split, CPU)
    rows = np.array([7, 0, 7, 10, 3])
    np.testing.assert_array_equal(_pixels(source.read(rows, SYMMETRIC)), split.images[rows])
    np.testing.assert_array_equal(_pixels(source.read(slice(2, 5), SYMMETRIC)), split.images[2:5])
    assert source.labels(rows).tolist() == split.labels[rows].tolist()
    every = list(source.batches(4, SYMMETRIC))
    assert [len(batch) for batch in every] == [4, 4, 3]
    np.testing.assert_array_equal(_pixels(torch.cat(every)), split.images)
    some = list(source.batches(2, SYMMETRIC, rows))
    assert torch.equal(torch.cat(some), source.read(rows, SYMMETRIC))
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in every + some)


def test_changes_belong_to_the_rows_that_are_read(split: ImageSplit) -> None:
    source, rows = SplitInputs(split, CPU), np.array([5, 2, 9])
    changes = draw_changes(3, np.random.default_rng(1), max_shift=1, mirror=True)
    assert changes.flips is not None
    assert changes.shifts is not None
    changed = _pixels(source.read(rows, SYMMETRIC, changes))
    for image, row, flip, down, right in zip(changed, rows, changes.flips, *changes.shifts, strict=True):
        kept = split.images[row][:, :, ::-1] if flip else split.images[row]
        y, x = (np.arange(6) + down).clip(0, 5), (np.arange(5) + right).clip(0, 4)
        np.testing.assert_array_equal(image, kept[:, y][:, :, x])


@pytest.mark.parametrize("resident", [True, False])
def test_what_fits_is_moved_once_and_only_then(
    split: ImageSplit, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's device without memory, which computes shapes and places alone, as a GPU would have them."""
    monkeypatch.setattr(inputs, "MAX_RESIDENT_BYTES", split.images.nbytes - (not resident))
    meta = torch.device("meta")
    source = SplitInputs(split, meta)
    assert source._pixels.device == (meta if resident else CPU)
    changes = draw_changes(2, np.random.default_rng(0), max_shift=1, mirror=True)
    for x in (
        source.read(np.array([1, 3]), SYMMETRIC, changes),
        source.read(slice(4, 6), Normalization.IMAGENET),
        *source.batches(2, SYMMETRIC, np.array([8, 9])),
    ):
        assert x.device == meta
        assert x.shape == (2, 3, 6, 5)
    assert source.labels(np.array([1])).device == meta
    assert inputs_of(source, meta) is source
