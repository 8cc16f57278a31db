"""Labelled images in parquet files, as data hubs keep them: an image column, a label column.

Only rows that a split needs are decoded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .parts import PARTS, ChooseRows, ImagePart, ImageParts, Part, decode_image

_IMAGE_COLUMNS = ("img", "image")


@dataclass(frozen=True, slots=True)
class ParquetLayout:
    """What the parquet files of one data set hold.

    Attributes:
        name: of the data set.
        label_columns: names that the label column may have, the preferred one first.
        side: pixels of an image, either way.
        n_classes: number of classes; ``None`` where the files say it: as many as they name, or
            one more than the highest label of the training part.
    """

    name: str
    label_columns: tuple[str, ...]
    side: int
    n_classes: int | None = None


def find_shards(path: Path, patterns: dict[Part, str]) -> dict[Part, list[Path]] | None:
    """Files of both parts in the order of their names, or ``None`` where a part has none."""
    shards = {part: sorted(path.glob(patterns[part])) for part in PARTS}
    return shards if all(shards.values()) else None


def read_parquet(layout: ParquetLayout, shards: dict[Part, list[Path]], choose: ChooseRows) -> ImageParts:
    """Read the parts of a data set from their parquet files.

    Args:
        shards: files of each part, in the order of their rows.
        choose: which rows of a part to decode.

    Raises:
        DataError: a file that is not parquet, lacks a column, or has a bad label or image; names
            file and row.
    """
    tables = {part: [_open_table(file, layout) for file in shards[part]] for part in PARTS}
    class_names = _class_names(layout, tables["train"], shards["train"])
    parts: dict[Part, ImagePart] = {}
    for part in PARTS:
        pairs = list(zip(tables[part], shards[part], strict=True))
        labels = np.concatenate([_labels(table, file, layout, len(class_names)) for table, file in pairs])
        rows = choose(part, labels)
        images = np.empty((len(rows), 3, layout.side, layout.side), dtype=np.uint8)
        start = done = 0
        for table, file in pairs:
            inside = rows[(rows >= start) & (rows < start + table.num_rows)] - start
            _decode_rows(table, file, inside, images[done : done + len(inside)])
            done += len(inside)
            start += table.num_rows
        parts[part] = ImagePart(rows, images, labels)
    files = [file for part in PARTS for file in shards[part]]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return ImageParts(
        parts["train"], parts["test"], class_names, digest.hexdigest(), ", ".join(map(str, files))
    )


def _open_table(file: Path, layout: ParquetLayout) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable parquet file ({error}); fetch it again") from error
    for needed in (_IMAGE_COLUMNS, layout.label_columns):
        if not set(needed) & set(table.column_names):
            raise DataError(
                f"{file}: no column {' or '.join(map(repr, needed))} among {table.column_names}; "
                f"is it {layout.name}?"
            )
    return table


def _column(table: Any, names: Sequence[str]) -> Any:
    return table.column(next(name for name in names if name in table.column_names))


def _labels(table: Any, file: Path, layout: ParquetLayout, n_classes: int) -> NDArray[np.int64]:
    values = _column(table, layout.label_columns).to_pylist()
    for row, value in enumerate(values):
        if not isinstance(value, int) or not 0 <= value < n_classes:
            raise DataError(
                f"{file}, row {row}: label = {value!r}; {layout.name} has classes 0..{n_classes - 1}"
            )
    return np.asarray(values, dtype=np.int64)


def _decode_rows(table: Any, file: Path, rows: NDArray[np.int64], images: NDArray[np.uint8]) -> None:
    """Decode the given rows of one file into ``images``, (n, 3, s, s)."""
    cells = _column(table, _IMAGE_COLUMNS).take(rows).to_pylist()
    for i, (row, cell) in enumerate(zip(rows, cells, strict=True)):
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        images[i] = decode_image(data, images.shape[-1], f"{file}, row {int(row)}")


def _class_names(layout: ParquetLayout, tables: Sequence[Any], files: Sequence[Path]) -> tuple[str, ...]:
    """From the first file's schema, else numbers."""
    names = _names_in_schema(tables[0], files[0], layout)
    n_classes = layout.n_classes
    if names is None:
        if n_classes is None:
            columns = [_column(table, layout.label_columns).to_pylist() for table in tables]
            n_classes = 1 + max((v for values in columns for v in values if isinstance(v, int)), default=-1)
        return tuple(str(i) for i in range(n_classes))
    if not isinstance(names, list) or not names or len(names) != (n_classes or len(names)):
        wanted = "a list of names" if n_classes is None else f"{n_classes} names"
        raise DataError(f"{files[0]}: class names in the schema's metadata are not {wanted}")
    return tuple(map(str, names))


def _names_in_schema(table: Any, file: Path, layout: ParquetLayout) -> Any:
    """``class_names`` of the schema's metadata, or those of a hub's feature description."""
    metadata = table.schema.metadata or {}
    try:
        if b"class_names" in metadata:
            return json.loads(metadata[b"class_names"])
        if b"huggingface" in metadata:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            return next(features[c].get("names") for c in layout.label_columns if c in features)
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise DataError(f"{file}: class names in the schema's metadata cannot be read ({error!r})") from error
    return None
