"""CIFAR-10/100 from disk: torchvision's own batch files, or parquet files as data hubs keep them.

Only rows that a split needs are decoded.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Part = Literal["train", "test"]
ChooseRows = Callable[[Part, NDArray[np.int64]], NDArray[np.int64]]

CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
_BATCH_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
_LABEL_COLUMNS = {"cifar10": ("label",), "cifar100": ("fine_label", "label")}
_IMAGE_COLUMNS = ("img", "image")
_SIDE = 32


@dataclass(frozen=True)
class CifarPart:
    """Decoded rows of the training or the test file.

    Attributes:
        rows: (n,) row numbers in file order.
        images: (n, 3, 32, 32) uint8.
        all_labels: (all rows,) labels of the whole part, decoded or not.
    """

    rows: NDArray[np.int64]
    images: NDArray[np.uint8]
    all_labels: NDArray[np.int64]


@dataclass(frozen=True)
class CifarParts:
    """Both parts, the class names, and a hash of the files' content."""

    train: CifarPart
    test: CifarPart
    class_names: tuple[str, ...]
    content_sha256: str
    source: str


def read_cifar(name: str, path: Path, choose: ChooseRows) -> CifarParts:
    """Read CIFAR from ``path``.

    Args:
        name: ``cifar10`` or ``cifar100``.
        path: folder; torchvision's batch folder inside it (or itself) is preferred, then
            ``<name>-train*.parquet`` and ``<name>-test*.parquet``, then ``train*.parquet`` and
            ``test*.parquet`` (shards in the order of their names).
        choose: given ``train`` or ``test`` and the labels of all its rows, the rows to decode.

    Raises:
        DataError: no files, or files that do not hold what they should.
    """
    folder = _BATCH_FOLDERS[name]
    for root in (path, path.parent) if path.name == folder else (path,):
        if (root / folder).is_dir():
            return _read_batches(name, root, choose)
    for prefix in (f"{name}-", ""):
        shards = {part: sorted(path.glob(f"{prefix}{part}*.parquet")) for part in ("train", "test")}
        if all(shards.values()):
            return _read_parquet(name, shards["train"], shards["test"], choose)
    looked = [
        path / folder,
        *(path / f"{p}{part}*.parquet" for p in (f"{name}-", "") for part in ("train", "test")),
    ]
    raise DataError(
        f"no {name} images found; looked for {', '.join(map(str, looked))}. hadas downloads nothing: on a "
        f"machine with a network run `torchvision.datasets.{name.upper()}('data', download=True)` or fetch "
        "the parquet files of a data hub, copy the folder here, and give its path."
    )


def _read_batches(name: str, root: Path, choose: ChooseRows) -> CifarParts:
    """Torchvision checks the files against published MD5 sums before it unpickles anything."""
    from torchvision import datasets as tv

    kind = {"cifar10": tv.CIFAR10, "cifar100": tv.CIFAR100}[name]
    parts: dict[str, CifarPart] = {}
    digest = hashlib.sha256()
    for part in ("train", "test"):
        try:
            source = kind(str(root), train=part == "train", download=False)
        except (RuntimeError, OSError, KeyError, EOFError) as error:
            raise DataError(
                f"{root / _BATCH_FOLDERS[name]}: not the published {name} files ({error}); "
                "copy them again from a complete download"
            ) from error
        labels = np.asarray(source.targets, dtype=np.int64)
        rows = choose("train" if part == "train" else "test", labels)
        images = np.asarray(source.data)[rows].transpose(0, 3, 1, 2)
        parts[part] = CifarPart(rows, np.ascontiguousarray(images), labels)
        digest.update(np.asarray(source.data).tobytes())
        digest.update(labels.tobytes())
    return CifarParts(
        parts["train"], parts["test"], tuple(source.classes), digest.hexdigest(), str(root / _BATCH_FOLDERS[name])
    )  # fmt: skip


def _read_parquet(name: str, train: Sequence[Path], test: Sequence[Path], choose: ChooseRows) -> CifarParts:
    parts: dict[str, CifarPart] = {}
    digest = hashlib.sha256()
    class_names: tuple[str, ...] = ()
    for part, files in (("train", train), ("test", test)):
        tables = [_open_table(file, name) for file in files]
        labels = np.concatenate([_labels(t, f, name) for t, f in zip(tables, files, strict=True)])
        rows = choose("train" if part == "train" else "test", labels)
        images = np.empty((len(rows), 3, _SIDE, _SIDE), dtype=np.uint8)
        start = done = 0
        for table, file in zip(tables, files, strict=True):
            inside = rows[(rows >= start) & (rows < start + table.num_rows)] - start
            images[done : done + len(inside)] = _decode_rows(table, file, inside)
            done += len(inside)
            start += table.num_rows
            digest.update(file.read_bytes())
        parts[part] = CifarPart(rows, images, labels)
        class_names = class_names or _class_names(tables[0], files[0], name)
    return CifarParts(
        parts["train"], parts["test"], class_names, digest.hexdigest(), ", ".join(map(str, (*train, *test)))
    )  # fmt: skip


def _open_table(file: Path, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable parquet file ({error}); fetch it again") from error
    for needed in (_IMAGE_COLUMNS, _LABEL_COLUMNS[name]):
        if not set(needed) & set(table.column_names):
            raise DataError(
                f"{file}: no column {' or '.join(map(repr, needed))} among {table.column_names}; is it {name}?"
            )
    return table


def _column(table: Any, names: Sequence[str]) -> Any:
    return table.column(next(name for name in names if name in table.column_names))


def _labels(table: Any, file: Path, name: str) -> NDArray[np.int64]:
    values = _column(table, _LABEL_COLUMNS[name]).to_pylist()
    for row, value in enumerate(values):
        if not isinstance(value, int) or not 0 <= value < CIFAR_CLASSES[name]:
            raise DataError(
                f"{file}, row {row}: label = {value!r}; {name} has classes 0..{CIFAR_CLASSES[name] - 1}"
            )
    return np.asarray(values, dtype=np.int64)


def _decode_rows(table: Any, file: Path, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(n, 3, 32, 32) of the given rows of one file."""
    cells = _column(table, _IMAGE_COLUMNS).take(rows).to_pylist()
    images = np.empty((len(rows), 3, _SIDE, _SIDE), dtype=np.uint8)
    for i, (row, cell) in enumerate(zip(rows, cells, strict=True)):
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        images[i] = _decode(data, f"{file}, row {int(row)}")
    return images


def _decode(data: Any, where: str) -> NDArray[np.uint8]:
    """(3, 32, 32) of one encoded image."""
    from PIL import Image

    if not isinstance(data, bytes) or not data:
        raise DataError(f"{where}: the image has no bytes; fetch the file again, with images embedded")
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{where}: corrupt image bytes ({error}); fetch the file again") from error
    if pixels.shape[:2] != (_SIDE, _SIDE):
        raise DataError(f"{where}: image of {pixels.shape[1]} x {pixels.shape[0]} pixels; CIFAR has 32 x 32")
    return pixels.transpose(2, 0, 1)


def _class_names(table: Any, file: Path, name: str) -> tuple[str, ...]:
    """From the schema's metadata (``class_names``, or a hub's feature description), else numbers."""
    metadata = table.schema.metadata or {}
    names: Any = None
    try:
        if b"class_names" in metadata:
            names = json.loads(metadata[b"class_names"])
        elif b"huggingface" in metadata:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            names = next(features[c].get("names") for c in _LABEL_COLUMNS[name] if c in features)
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise DataError(f"{file}: class names in the schema's metadata cannot be read ({error!r})") from error
    if names is None:
        return tuple(str(i) for i in range(CIFAR_CLASSES[name]))
    if not isinstance(names, list) or len(names) != CIFAR_CLASSES[name]:
        raise DataError(f"{file}: class names in the schema's metadata are not {CIFAR_CLASSES[name]} names")
    return tuple(map(str, names))
