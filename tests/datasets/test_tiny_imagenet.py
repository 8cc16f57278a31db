from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hadas.datasets.images import ImageData, load_images
from hadas.errors import DataError
from hadas.study.assembly import Assembly
from hadas.study.config import validate_config

# Listed in another order than sorted; five classes stand for the published 200.
WNIDS = ("n02124075", "n01443537", "n04067472", "n01629819", "n04540053")
N_TRAIN, N_VALIDATION = 10, 4


def _encoded(red: int, file_format: str = "JPEG", *, mode: str = "RGB", side: int = 64) -> bytes:
    buffer = io.BytesIO()
    colour = (red, 40, 200) if mode == "RGB" else red
    Image.new(mode, (side, side), colour).save(buffer, file_format)
    return buffer.getvalue()


def _write_published(folder: Path) -> Path:
    """A data set in the published layout: the red of an image is its number within its class, times 20."""
    root = folder / "tiny-imagenet-200"
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (root / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\nn00001740\tentity\n")
    annotations = []
    for c, wnid in enumerate(WNIDS):
        images = root / "train" / wnid / "images"
        images.mkdir(parents=True)
        for i in range(N_TRAIN):
            (images / f"{wnid}_{i}.JPEG").write_bytes(_encoded(20 * i))
        for i in range(N_VALIDATION):
            name = f"val_{i * len(WNIDS) + c}.JPEG"
            (root / "val" / "images" / name).write_bytes(_encoded(50 * i))
            annotations.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    return root


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return _write_published(tmp_path)


def _splits_are_sound(data: ImageData, n_classes: int) -> None:
    groups = [set(split.group.tolist()) for split in (data.train, data.calibration, data.test)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == n_classes * (N_TRAIN + N_VALIDATION)
    for split, per_class in ((data.train, 8), (data.calibration, 2), (data.test, N_VALIDATION)):
        assert split.images.shape == (n_classes * per_class, 3, 64, 64)
        assert np.bincount(split.labels).tolist() == [per_class] * n_classes


def test_published_folder(published: Path) -> None:
    data = load_images("tiny-imagenet", path=published.parent)
    assert data.n_classes == 5
    assert data.class_names == ("goldfish", *sorted(WNIDS)[1:])
    _splits_are_sound(data, 5)
    # Of every class, images 0 and 5 are held out; JPEG moves a plain colour by a few steps at most.
    for split, reds in ((data.calibration, [0, 100]), (data.test, [0, 50, 100, 150])):
        for label in range(5):
            of_class = np.sort(split.images[split.labels == label][:, 0, 30, 30]).astype(int)
            np.testing.assert_allclose(of_class, reds, atol=4)
    inside = load_images("tiny-imagenet", path=published)
    assert inside.split_id == data.split_id


def test_labels_follow_sorted_wnids_not_the_order_of_lists(published: Path) -> None:
    """As in hub files and ImageFolder, so weights and records of either fit the other."""
    file = published / "train" / "n04540053" / "images" / "n04540053_3.JPEG"
    file.write_bytes(_encoded(255))
    data = load_images("tiny-imagenet", path=published)
    brightest = int(data.train.images[:, 0, 0, 0].argmax())
    assert data.train.labels[brightest] == sorted(WNIDS).index("n04540053") == 4


def test_greyscale_images_become_three_equal_channels(published: Path) -> None:
    file = published / "val" / "images" / "val_1.JPEG"
    file.write_bytes(_encoded(77, mode="L"))
    data = load_images("tiny-imagenet", path=published)
    grey = [image for image in data.test.images if (image == image[:1]).all()]
    assert len(grey) == 1
    assert abs(int(grey[0][2, 5, 5]) - 77) < 3


def test_a_limit_opens_only_what_it_needs(published: Path) -> None:
    data = load_images("tiny-imagenet", path=published, limit=5)
    assert [len(split) for split in (data.train, data.calibration, data.test)] == [5, 5, 5]
    for wnid in WNIDS:
        (published / "train" / wnid / "images" / f"{wnid}_9.JPEG").write_bytes(b"cut short")
    load_images("tiny-imagenet", path=published, limit=5)
    with pytest.raises(DataError, match="corrupt image bytes"):
        load_images("tiny-imagenet", path=published)
    with pytest.raises(DataError, match=r"limit = 4 .*'tiny-imagenet' has 5 classes"):
        load_images("tiny-imagenet", path=published, limit=4)


def _swap_two_labels(root: Path) -> None:
    file = root / "val" / "val_annotations.txt"
    first, second, *rest = file.read_text().splitlines()
    moved = [first.replace(WNIDS[0], WNIDS[1]), second.replace(WNIDS[1], WNIDS[0])]
    file.write_text("\n".join([*moved, *rest]) + "\n")


def _change_pixels_at_equal_size(root: Path) -> None:
    file = root / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_2.JPEG"
    size = file.stat().st_size
    replacement = next(data for red in range(41, 60) if len(data := _encoded(red)) == size)
    file.write_bytes(replacement)


def _drop_an_image(root: Path) -> None:
    (root / "train" / WNIDS[2] / "images" / f"{WNIDS[2]}_9.JPEG").unlink()


@pytest.mark.parametrize("change", [_swap_two_labels, _change_pixels_at_equal_size, _drop_an_image])
def test_split_id_tells_data_sets_apart(
    published: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    copy = tmp_path / "copy" / "tiny-imagenet-200"
    shutil.copytree(published, copy)
    one = load_images("tiny-imagenet", path=published)
    assert load_images("tiny-imagenet", path=copy).split_id == one.split_id
    assert load_images("tiny-imagenet", path=published, limit=5).split_id != one.split_id
    change(copy)
    assert load_images("tiny-imagenet", path=copy).split_id != one.split_id


def _spoil(root: Path, case: str) -> None:
    annotations = root / "val" / "val_annotations.txt"
    images = root / "train" / WNIDS[1] / "images"
    lines = annotations.read_text().splitlines(keepends=True)
    match case:
        case "corrupt":
            file = images / f"{WNIDS[1]}_1.JPEG"
            file.write_bytes(file.read_bytes()[:90])
        case "size":
            (images / f"{WNIDS[1]}_1.JPEG").write_bytes(_encoded(0, side=32))
        case "unknown class":
            lines[9] = lines[9].replace(WNIDS[2], "n09999999")
            annotations.write_text("".join(lines))
        case "twice":
            annotations.write_text("".join([*lines, lines[0]]))
        case "unlabelled":
            annotations.write_text("".join(lines[1:]))
        case "no annotations":
            annotations.unlink()
        case "no wnids":
            (root / "wnids.txt").unlink()
        case "class gone":
            shutil.rmtree(root / "train" / WNIDS[1])
        case "class extra":
            (root / "train" / "n09999999" / "images").mkdir(parents=True)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("corrupt", r"n01443537_1\.JPEG \(row 1 of train\): corrupt image bytes"),
        ("size", r"n01443537_1\.JPEG \(row 1 of train\): image of 32 x 32 pixels instead of 64 x 64"),
        ("unknown class", r"val_annotations\.txt, line 10: unknown class 'n09999999'"),
        ("twice", r"val_annotations\.txt, line 21: no image 'val_0\.JPEG' .* or named twice"),
        ("unlabelled", r"val_annotations\.txt: 1 of the images have no label, 'val_0\.JPEG' first"),
        ("no annotations", r"val_annotations\.txt: no such file"),
        ("no wnids", r"wnids\.txt: no such file"),
        ("class gone", r"train.n01443537.images: cannot be listed"),
        ("class extra", r"train.n09999999: not one of the 5 classes in .*wnids\.txt"),
    ],
)
def test_a_faulty_folder_is_named(published: Path, case: str, message: str) -> None:
    _spoil(published, case)
    with pytest.raises(DataError, match=message):
        load_images("tiny-imagenet", path=published.parent)


def _write_parquet(file: Path, rows: list[tuple[bytes, int]], metadata: dict[str, str] | None = None) -> None:
    cells = [{"bytes": data, "path": f"{i}.jpg"} for i, (data, _) in enumerate(rows)]
    table = pa.table({"image": cells, "label": [label for _, label in rows]})
    pq.write_table(table.replace_schema_metadata(metadata), file)


def _hub_metadata(names: list[str]) -> dict[str, str]:
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def _hub_rows(per_class: int) -> list[tuple[bytes, int]]:
    """Grouped by class; the red of row i is i."""
    return [(_encoded(i, "PNG"), i // per_class) for i in range(4 * per_class)]


@pytest.mark.parametrize("part", ["valid", "validation", "val"])
def test_hub_parquet(tmp_path: Path, part: str) -> None:
    names = ["n01443537", "n01629819", "n02124075", "n04540053"]
    rows = _hub_rows(N_TRAIN)
    _write_parquet(tmp_path / "train-00000-of-00002.parquet", rows[:15], _hub_metadata(names))
    _write_parquet(tmp_path / "train-00001-of-00002.parquet", rows[15:], _hub_metadata(names))
    _write_parquet(tmp_path / f"{part}-00000-of-00001.parquet", _hub_rows(N_VALIDATION), _hub_metadata(names))
    data = load_images("tiny-imagenet", path=tmp_path)
    assert data.class_names == tuple(names)
    _splits_are_sound(data, 4)
    for split in (data.train, data.calibration):
        np.testing.assert_array_equal(split.images[:, 0, 63, 0], split.group)
        np.testing.assert_array_equal(split.labels, split.group // N_TRAIN)
    assert load_images("tiny-imagenet", path=tmp_path, limit=8).split_id != data.split_id
    rows[3] = (_encoded(99, "PNG"), 0)
    _write_parquet(tmp_path / "train-00000-of-00002.parquet", rows[:15], _hub_metadata(names))
    assert load_images("tiny-imagenet", path=tmp_path).split_id != data.split_id


def test_parquet_without_names_counts_its_labels(tmp_path: Path) -> None:
    _write_parquet(tmp_path / "tiny-imagenet-train.parquet", _hub_rows(N_TRAIN))
    _write_parquet(tmp_path / "tiny-imagenet-val.parquet", _hub_rows(N_VALIDATION))
    data = load_images("tiny-imagenet", path=tmp_path)
    assert data.class_names == ("0", "1", "2", "3")
    _splits_are_sound(data, 4)


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (0, 1, r"val\.parquet, row 12: label = 4; tiny-imagenet has classes 0\.\.3"),
        (1, 0, r"no training image has label 0 \('0'\) of 5 classes"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, train: int, validation: int, message: str
) -> None:
    """Validation labels that training never shows, and labels that count from 1."""
    for part, shift, per_class in (("train", train, N_TRAIN), ("val", validation, N_VALIDATION)):
        shifted = [(data, label + shift) for data, label in _hub_rows(per_class)]
        _write_parquet(tmp_path / f"{part}.parquet", shifted)
    with pytest.raises(DataError, match=message):
        load_images("tiny-imagenet", path=tmp_path)


def test_missing_files_say_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_images("tiny-imagenet", path=tmp_path)
    for looked in ("tiny-imagenet-200/wnids.txt", "tiny-imagenet-train*.parquet", "val*.parquet"):
        assert str(tmp_path / looked) in str(caught.value)
    assert "downloads nothing" in str(caught.value)


def test_a_study_reads_it_by_name(published: Path) -> None:
    config = validate_config({"data": {"name": "tiny-imagenet", "path": published.name}}, source="this test")
    assert Assembly(config, published.parent).data.n_classes == 5
