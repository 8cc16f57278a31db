"""CIFAR-10/100 from disk: torchvision's own batch files, or parquet files as data hubs keep them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ..errors import DataError
from .parquet import ParquetLayout, find_shards, read_parquet
from .parts import PARTS, ChooseRows, ImagePart, ImageParts, Part

CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
_BATCH_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
_LABEL_COLUMNS = {"cifar10": ("label",), "cifar100": ("fine_label", "label")}
_SIDE = 32


def read_cifar(name: str, path: Path, choose: ChooseRows) -> ImageParts:
    """Read CIFAR from ``path``.

    Args:
        name: ``cifar10`` or ``cifar100``.
        path: folder; torchvision's batch folder inside it (or itself) is preferred, then
            ``<name>-train*.parquet`` and ``<name>-test*.parquet``, then ``train*.parquet`` and
            ``test*.parquet`` (shards in the order of their names).
        choose: which rows of a part to decode.

    Raises:
        DataError: no files, or files that do not hold what they should.
    """
    folder = _BATCH_FOLDERS[name]
    for root in (path, path.parent) if path.name == folder else (path,):
        if (root / folder).is_dir():
            return _read_batches(name, root, choose)
    layout = ParquetLayout(name, _LABEL_COLUMNS[name], _SIDE, CIFAR_CLASSES[name])
    looked = [path / folder]
    for prefix in (f"{name}-", ""):
        patterns: dict[Part, str] = {part: f"{prefix}{part}*.parquet" for part in PARTS}
        shards = find_shards(path, patterns)
        if shards is not None:
            return read_parquet(layout, shards, choose)
        looked += [path / pattern for pattern in patterns.values()]
    raise DataError(
        f"no {name} images found; looked for {', '.join(map(str, looked))}. hadas downloads nothing: on a "
        f"machine with a network run `torchvision.datasets.{name.upper()}('data', download=True)` or fetch "
        "the parquet files of a data hub, copy the folder here, and give its path."
    )


def _read_batches(name: str, root: Path, choose: ChooseRows) -> ImageParts:
    """Torchvision checks the files against published MD5 sums before it unpickles anything."""
    from torchvision import datasets as tv

    kind = {"cifar10": tv.CIFAR10, "cifar100": tv.CIFAR100}[name]
    parts: dict[Part, ImagePart] = {}
    digest = hashlib.sha256()
    for part in PARTS:
        try:
            source = kind(str(root), train=part == "train", download=False)
        except (RuntimeError, OSError, KeyError, EOFError) as error:
            raise DataError(
                f"{root / _BATCH_FOLDERS[name]}: not the published {name} files ({error}); "
                "copy them again from a complete download"
            ) from error
        labels = np.asarray(source.targets, dtype=np.int64)
        rows = choose(part, labels)
        images = np.asarray(source.data)[rows].transpose(0, 3, 1, 2)
        parts[part] = ImagePart(rows, np.ascontiguousarray(images), labels)
        digest.update(np.asarray(source.data).tobytes())
        digest.update(labels.tobytes())
    return ImageParts(
        parts["train"], parts["test"], tuple(source.classes), digest.hexdigest(), str(root / _BATCH_FOLDERS[name])
    )  # fmt: skip
