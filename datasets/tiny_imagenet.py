"""Tiny ImageNet from disk: the published folder, or parquet files as data hubs keep them.

200 classes, 64 x 64 pixels, 500 training and 50 validation images each.  The published test part
has no labels, so the validation part is what hadas tests on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..errors import DataError
from .parquet import ParquetLayout, find_shards, read_parquet
from .parts import ChooseRows, ImagePart, ImageParts, Part, decode_image

TINY_IMAGENET = "tiny-imagenet"
_FOLDER = "tiny-imagenet-200"
_SIDE = 64
_SUFFIXES = (".jpeg", ".jpg")
_ANNOTATIONS = Path("val", "val_annotations.txt")
_COPY_AGAIN = "copy the folder again from a complete download"

_File = tuple[Path, int, int]
"""Path, size in bytes, label."""


def read_tiny_imagenet(path: Path, choose: ChooseRows) -> ImageParts:
    """Read Tiny ImageNet from ``path``; the part ``test`` is the published validation part.

    Labels follow the sorted WordNet ids, as in hub files and in torchvision's ``ImageFolder``.

    Args:
        path: the folder ``tiny-imagenet-200`` or one that holds it; or a folder with
            ``train*.parquet`` and ``val*.parquet`` (``valid``, ``validation``), both perhaps
            with ``tiny-imagenet-`` before (shards in the order of their names).
        choose: which rows of a part to decode.

    Raises:
        DataError: no files, or files that do not hold what they should; names file, line or row.
    """
    for root in (path / _FOLDER, path):
        if (root.name == _FOLDER and root.is_dir()) or (root / "wnids.txt").is_file():
            return _read_folder(root, choose)
    looked = [path / _FOLDER / "wnids.txt", path / "wnids.txt"]
    for prefix in (f"{TINY_IMAGENET}-", ""):
        patterns: dict[Part, str] = {"train": f"{prefix}train*.parquet", "test": f"{prefix}val*.parquet"}
        shards = find_shards(path, patterns)
        if shards is not None:
            parts = read_parquet(ParquetLayout(TINY_IMAGENET, ("label",), _SIDE), shards, choose)
            return _all_classes_learnt(parts)
        looked += [path / pattern for pattern in patterns.values()]
    raise DataError(
        f"no {TINY_IMAGENET} images found; looked for {', '.join(map(str, looked))}. hadas downloads nothing: "
        f"on a machine with a network fetch http://cs231n.stanford.edu/{_FOLDER}.zip and unpack it, or fetch "
        "the parquet files of a data hub, copy the folder here, and give its path."
    )


def _all_classes_learnt(parts: ImageParts) -> ImageParts:
    """Refuse labels that do not fit the class names: a class without training images."""
    counts = np.bincount(parts.train.all_labels, minlength=len(parts.class_names))
    if not counts.all():
        absent = int(np.argmin(counts))
        raise DataError(
            f"{parts.source}: no training image has label {absent} ('{parts.class_names[absent]}') of "
            f"{len(parts.class_names)} classes; fetch all training files, with labels from 0 on"
        )
    return parts


def _read_folder(root: Path, choose: ChooseRows) -> ImageParts:
    """The published layout.

    The hash covers name, size and label of every file, and the bytes of those that are decoded:
    two data sets that share it have the same splits, and the other files need not be opened.
    """
    wnids = _wnids(root)
    label_of = {wnid: label for label, wnid in enumerate(sorted(wnids))}
    digest = hashlib.sha256()
    train = _decode_part("train", _training_files(root, label_of), root, choose, digest)
    test = _decode_part("test", _validation_files(root, label_of), root, choose, digest)
    names = _class_names(root, label_of)
    digest.update("\n".join(names).encode())
    return ImageParts(train, test, names, digest.hexdigest(), str(root))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file; {_COPY_AGAIN}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); {_COPY_AGAIN}") from error


def _wnids(root: Path) -> list[str]:
    """WordNet ids of the classes, each once."""
    wnids: list[str] = []
    for number, line in enumerate(_lines(root / "wnids.txt"), start=1):
        wnid = line.strip()
        if wnid in wnids:
            raise DataError(
                f"{root / 'wnids.txt'}, line {number}: '{wnid}' for the second time; {_COPY_AGAIN}"
            )
        if wnid:
            wnids.append(wnid)
    if not wnids:
        raise DataError(f"{root / 'wnids.txt'}: names no classes; {_COPY_AGAIN}")
    return wnids


def _class_names(root: Path, label_of: dict[str, int]) -> tuple[str, ...]:
    """First word for each class, the WordNet id for one that ``words.txt`` lacks."""
    words = dict(line.split("\t", 1) for line in _lines(root / "words.txt") if "\t" in line)
    return tuple(words.get(wnid, wnid).split(",")[0].strip() for wnid in label_of)


def _images_in(folder: Path) -> dict[str, int]:
    """Size in bytes of every image in a folder, by name, sorted."""
    try:
        with os.scandir(folder) as entries:
            sizes = {e.name: e.stat().st_size for e in entries if e.name.lower().endswith(_SUFFIXES)}
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); {_COPY_AGAIN}") from error
    if not sizes:
        raise DataError(f"{folder}: holds no .JPEG images; {_COPY_AGAIN}")
    return dict(sorted(sizes.items()))


def _training_files(root: Path, label_of: dict[str, int]) -> list[_File]:
    """Classes in order of their labels, files in order of their names."""
    if (root / "train").is_dir():
        unlisted = sorted(entry.name for entry in os.scandir(root / "train") if entry.is_dir())
        unlisted = [name for name in unlisted if name not in label_of]
        if unlisted:
            raise DataError(
                f"{root / 'train' / unlisted[0]}: not one of the {len(label_of)} classes in "
                f"{root / 'wnids.txt'}; {_COPY_AGAIN}"
            )
    files: list[_File] = []
    for wnid, label in label_of.items():
        folder = root / "train" / wnid / "images"
        files += [(folder / name, size, label) for name, size in _images_in(folder).items()]
    return files


def _validation_files(root: Path, label_of: dict[str, int]) -> list[_File]:
    """Files in the order of their annotations: name, WordNet id, and a box that is not used."""
    sizes = _images_in(root / "val" / "images")
    files: list[_File] = []
    for number, line in enumerate(_lines(root / _ANNOTATIONS), start=1):
        where = f"{root / _ANNOTATIONS}, line {number}"
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0].strip()
        if not line.strip():
            continue
        if wnid not in label_of:
            raise DataError(f"{where}: unknown class '{wnid}'; {root / 'wnids.txt'} does not list it")
        if name not in sizes:
            raise DataError(f"{where}: no image '{name}' in {root / 'val' / 'images'}, or named twice")
        files.append((root / "val" / "images" / name, sizes.pop(name), label_of[wnid]))
    if sizes:
        raise DataError(
            f"{root / _ANNOTATIONS}: {len(sizes)} of the images have no label, '{next(iter(sizes))}' first; "
            f"{_COPY_AGAIN}"
        )
    return files


def _decode_part(
    part: Part, files: list[_File], root: Path, choose: ChooseRows, digest: hashlib._Hash
) -> ImagePart:
    digest.update(_listing(files, root))
    labels = np.asarray([label for _, _, label in files], dtype=np.int64)
    rows = choose(part, labels)
    images = np.empty((len(rows), 3, _SIDE, _SIDE), dtype=np.uint8)
    for i, row in enumerate(rows):
        file = files[row][0]
        where = f"{file} (row {int(row)} of {part})"
        try:
            data = file.read_bytes()
        except OSError as error:
            raise DataError(f"{where}: cannot be read ({error.strerror}); {_COPY_AGAIN}") from error
        digest.update(data)
        images[i] = decode_image(data, _SIDE, where)
    return ImagePart(rows, images, labels)


def _listing(files: Iterable[_File], root: Path) -> bytes:
    """One line per file: its path within the data set, size and label."""
    lines = (f"{file.relative_to(root).as_posix()}\t{size}\t{label}\n" for file, size, label in files)
    return "".join(lines).encode()
