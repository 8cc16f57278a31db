"""Images for training and evaluation: bundled digits, CIFAR and Tiny ImageNet from disk.

Nothing is downloaded.

Every data set comes in three disjoint splits that are the same on every machine and for every
seed: ``train``, ``calibration`` (what thresholds and the search may look at) and ``test`` (what
only reports use).  Splits are disjoint by underlying image: distorted copies stay together.

Imports with torch, numpy, pyarrow and pillow alone; scikit-learn and torchvision are imported
where their data is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .cifar import CIFAR_CLASSES, read_cifar
from .distortions import Distortion, distort
from .parts import ChooseRows, ImageParts
from .tiny_imagenet import TINY_IMAGENET, read_tiny_imagenet

N_CLASSES = {"digits": 10, **CIFAR_CLASSES, TINY_IMAGENET: 200}
"""Classes, as published, of every data set that :func:`load_images` knows."""

UInt8Array = NDArray[np.uint8]
LabelArray = NDArray[np.int64]


@dataclass(frozen=True)
class ImageSplit:
    """Images of one split.

    Attributes:
        images: (n, 3, h, w) uint8.
        labels: (n,) int64, class index.
        group: (n,) int32, index of the underlying image within the whole data set; copies of
            one image share it.
    """

    images: UInt8Array
    labels: LabelArray
    group: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageData:
    """A data set in its three fixed splits.

    Attributes:
        name: ``digits``, ``cifar10``, ``cifar100`` or ``tiny-imagenet``.
        n_classes, class_names: in order of the labels.
        train, calibration, test: disjoint by underlying image.
        split_id: readable name and a hash of all that defines the splits: the source's content,
            the split rule, distortions and ``limit``.
        source: where the images came from, for people.
    """

    name: str
    n_classes: int
    class_names: tuple[str, ...]
    train: ImageSplit
    calibration: ImageSplit
    test: ImageSplit
    split_id: str
    source: str


@dataclass(frozen=True, slots=True)
class DigitsRecipe:
    """How the bundled 8 x 8 digits become a graded problem.

    Attributes:
        side: pixels of the stored image.
        content_side: pixels that the upscaled digit covers; the rest is its border.
        train_copies, evaluation_copies: distorted copies per underlying image.
        lowest, highest: severities of the first and the last copy; those between are evenly spaced.
        train_slots, calibration_slots, test_slots: of every so many images of a class, in file
            order, how many go into which split.
        distortion: magnitudes at severity 1.
        seed: fixes the distortions; part of the data's definition, not the user's to choose.
    """

    side: int = 24
    content_side: int = 20
    train_copies: int = 16
    evaluation_copies: int = 6
    lowest: float = 0.0
    highest: float = 1.0
    train_slots: int = 6
    calibration_slots: int = 8
    test_slots: int = 4
    distortion: Distortion = Distortion()  # noqa: RUF009 (frozen)
    seed: int = 20230403
    version: int = 1


DIGITS = DigitsRecipe()
"""The digits as the demo uses them."""

_CALIBRATION_EVERY = 5
"""Every fifth training image of a class (file order) belongs to the calibration split, where a data
set comes in a training and a test part."""


def load_images(name: str, *, path: str | Path | None = None, limit: int | None = None) -> ImageData:
    """Load a data set by name.

    Args:
        name: ``digits`` (bundled with scikit-learn), ``cifar10``, ``cifar100`` or ``tiny-imagenet``.
        path: folder that holds the images, as published or as parquet; ``data`` by default.
        limit: at most this many underlying images per split, spread evenly over the classes.

    Raises:
        DataError: unknown name, ``limit`` below the number of classes, missing or corrupt files.
    """
    if name == "digits":
        return load_digits_images(limit)
    folder = Path("data") if path is None else Path(path)
    if name in CIFAR_CLASSES:
        return _load_parts(name, lambda choose: read_cifar(name, folder, choose), limit)
    if name == TINY_IMAGENET:
        return _load_parts(name, lambda choose: read_tiny_imagenet(folder, choose), limit)
    raise DataError(f"no data set '{name}'; known: {sorted(N_CLASSES)}")


def _check_limit(name: str, limit: int | None, n_classes: int) -> None:
    if limit is not None and limit < n_classes:
        raise DataError(
            f"limit = {limit} images per split: '{name}' has {n_classes} classes, give at least that"
        )


def load_digits_images(limit: int | None = None, recipe: DigitsRecipe = DIGITS) -> ImageData:
    """Scikit-learn's 1797 handwritten digits, upscaled and distorted in graded copies."""
    from sklearn.datasets import load_digits

    _check_limit("digits", limit, 10)
    bundle = load_digits()
    raw = np.asarray(bundle.images, dtype=np.float32)
    labels = np.asarray(bundle.target, dtype=np.int64)
    clean = _upscale(raw / 16.0, recipe.side, recipe.content_side)
    ordinal = ordinal_in_class(labels)
    slot = ordinal % (recipe.train_slots + recipe.calibration_slots + recipe.test_slots)
    bounds = np.cumsum([recipe.train_slots, recipe.calibration_slots, recipe.test_slots])
    splits = []
    for number, copies in enumerate(
        (recipe.train_copies, recipe.evaluation_copies, recipe.evaluation_copies)
    ):
        lower = 0 if number == 0 else bounds[number - 1]
        chosen = _first_of_each_class(
            np.flatnonzero((slot >= lower) & (slot < bounds[number])), ordinal, limit
        )
        rng = np.random.default_rng([recipe.seed, number])
        splits.append(_graded_copies(clean[chosen], labels[chosen], chosen, copies, recipe, rng))
    digest = _digest(raw.astype(np.uint8).tobytes() + labels.tobytes(), asdict(recipe), limit)
    return ImageData(
        name="digits",
        n_classes=10,
        class_names=tuple(str(digit) for digit in range(10)),
        train=splits[0],
        calibration=splits[1],
        test=splits[2],
        split_id=f"digits-{digest}",
        source="scikit-learn, bundled",
    )


def _upscale(images: NDArray[np.float32], side: int, content_side: int) -> NDArray[np.float32]:
    """(n, 8, 8) -> (n, side, side): bicubic to ``content_side``, then a border of background."""
    import torch
    from torch.nn import functional

    x = torch.from_numpy(images).unsqueeze(1)
    x = functional.interpolate(x, size=(content_side, content_side), mode="bicubic").clamp_(0.0, 1.0)
    before = (side - content_side) // 2
    after = side - content_side - before
    return functional.pad(x, (before, after, before, after)).squeeze(1).numpy()


def _graded_copies(
    clean: NDArray[np.float32], labels: LabelArray, group: NDArray[np.int64], copies: int, recipe: DigitsRecipe,
    rng: np.random.Generator,
) -> ImageSplit:  # fmt: skip
    """Copies of every image at evenly spaced severities; the copies of one image stand together."""
    severity = np.tile(np.linspace(recipe.lowest, recipe.highest, copies, dtype=np.float32), len(clean))
    grey = distort(np.repeat(clean, copies, axis=0), severity, recipe.distortion, rng)
    pixels = np.rint(grey * 255.0).astype(np.uint8)
    return ImageSplit(
        images=np.repeat(pixels[:, None], 3, axis=1),
        labels=np.repeat(labels, copies),
        group=np.repeat(group, copies).astype(np.int32),
    )


def _load_parts(name: str, read: Callable[[ChooseRows], ImageParts], limit: int | None) -> ImageData:
    """The splits of a data set that comes in a training and a test part."""

    def choose(part: str, labels: LabelArray) -> LabelArray:
        _check_limit(name, limit, CIFAR_CLASSES.get(name, len(np.unique(labels))))
        ordinal = ordinal_in_class(labels)
        if part == "test":
            return _first_of_each_class(np.arange(len(labels)), ordinal, limit)
        held_out = ordinal % _CALIBRATION_EVERY == 0
        kept = [_first_of_each_class(np.flatnonzero(m), ordinal, limit) for m in (~held_out, held_out)]
        return np.sort(np.concatenate(kept))

    parts = read(choose)
    train, test = parts.train, parts.test
    held_out = ordinal_in_class(train.all_labels)[train.rows] % _CALIBRATION_EVERY == 0
    # Test images get group numbers after all training images: a group names one underlying image.
    offset = len(train.all_labels)

    def split(mask: NDArray[np.bool_]) -> ImageSplit:
        rows = train.rows[mask]
        return ImageSplit(train.images[mask], train.all_labels[rows], rows.astype(np.int32))

    definition = {"rule": "every fifth of a class", "every": _CALIBRATION_EVERY, "version": 1}
    return ImageData(
        name=name,
        n_classes=len(parts.class_names),
        class_names=parts.class_names,
        train=split(~held_out),
        calibration=split(held_out),
        test=ImageSplit(test.images, test.all_labels[test.rows], (test.rows + offset).astype(np.int32)),
        split_id=f"{name}-{_digest(parts.content_sha256.encode(), definition, limit)}",
        source=parts.source,
    )


def ordinal_in_class(labels: LabelArray) -> LabelArray:
    """(n,) how many earlier images have the same label: the base of every split rule."""
    ordinal = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ordinal[members] = np.arange(len(members))
    return ordinal


def _first_of_each_class(rows: LabelArray, ordinal: LabelArray, limit: int | None) -> LabelArray:
    """At most ``limit`` of ``rows``, the earliest of each class first, in file order."""
    if limit is None or len(rows) <= limit:
        return rows
    return np.sort(rows[np.argsort(ordinal[rows], kind="stable")][:limit])


def _digest(content: bytes, definition: dict[str, object], limit: int | None) -> str:
    text = json.dumps({**definition, "limit": limit}, sort_keys=True)
    return hashlib.sha256(hashlib.sha256(content).digest() + text.encode()).hexdigest()[:12]
