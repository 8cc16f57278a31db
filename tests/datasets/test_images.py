from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hadas.datasets.distortions import Distortion, distort
from hadas.datasets.images import DIGITS, ImageData, ImageSplit, load_digits_images, load_images
from hadas.errors import DataError

SHARED_IMAGES = Path(__file__).parents[3] / "shared" / "data" / "images"


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits")


def _splits(data: ImageData) -> tuple[ImageSplit, ImageSplit, ImageSplit]:
    return data.train, data.calibration, data.test


def test_digits_use_every_underlying_image_once_and_keep_copies_together(digits: ImageData) -> None:
    groups = [set(split.group.tolist()) for split in _splits(digits)]
    assert sum(len(g) for g in groups) == len(set.union(*groups)) == 1797
    for split, copies in zip(
        _splits(digits), (DIGITS.train_copies, *(DIGITS.evaluation_copies,) * 2), strict=True
    ):
        assert split.images.dtype == np.uint8
        assert split.images.shape == (len(split), 3, DIGITS.side, DIGITS.side)
        _, counts = np.unique(split.group, return_counts=True)
        assert set(counts) == {copies}
        per_image = split.labels.reshape(-1, copies)
        assert (per_image == per_image[:, :1]).all()
        share = np.bincount(per_image[:, 0], minlength=10) / len(per_image)
        assert share.min() > 0.08
        assert share.max() < 0.12


def test_digits_are_the_same_every_time(digits: ImageData) -> None:
    again = load_images("digits")
    assert again.split_id == digits.split_id
    for one, other in zip(_splits(digits), _splits(again), strict=True):
        np.testing.assert_array_equal(one.images, other.images)


def test_later_copies_are_harder(digits: ImageData) -> None:
    """A nearest-class-mean classifier, fitted on clean copies, fails more and more often."""
    train, test = digits.train, digits.test
    clean = train.images[:: DIGITS.train_copies, 0].reshape(-1, DIGITS.side**2).astype(float)
    labels = train.labels[:: DIGITS.train_copies]
    means = np.stack([clean[labels == k].mean(axis=0) for k in range(10)])
    pixels = test.images[:, 0].reshape(len(test), -1).astype(float)
    nearest = ((pixels[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    right = (nearest == test.labels).reshape(-1, DIGITS.evaluation_copies).mean(axis=0)
    assert right[0] > 0.8
    assert (np.diff(right) < 0.02).all()
    assert right[-1] < right[0] - 0.2


def test_split_id_names_all_that_defines_the_splits(digits: ImageData) -> None:
    harder = replace(DIGITS, distortion=replace(DIGITS.distortion, noise=0.5))
    others = {load_digits_images(recipe=harder).split_id, load_images("digits", limit=50).split_id}
    assert len(others | {digits.split_id}) == 3
    assert all(split_id.startswith("digits-") for split_id in others)


def test_limit_counts_underlying_images_evenly_over_classes() -> None:
    data = load_images("digits", limit=20)
    for split in _splits(data):
        assert len(set(split.group.tolist())) == 20
        labels = split.labels[np.unique(split.group, return_index=True)[1]]
        assert np.bincount(labels, minlength=10).tolist() == [2] * 10


@given(severity=st.floats(0, 1), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_distortions_stay_in_range_and_follow_the_seed(severity: float, seed: int) -> None:
    images = np.random.default_rng(seed).random((4, 12, 12), dtype=np.float32)
    grade = np.full(4, severity, dtype=np.float32)
    one, other = (distort(images, grade, Distortion(), np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 1


def test_severity_zero_is_the_clean_image() -> None:
    images = np.random.default_rng(0).random((3, 12, 12), dtype=np.float32)
    same = distort(images, np.zeros(3, dtype=np.float32), Distortion(), np.random.default_rng(0))
    np.testing.assert_allclose(same, images, atol=1e-5)


def test_unknown_name_and_too_small_limit_are_refused() -> None:
    with pytest.raises(DataError, match=r"no data set 'mnist'.*cifar10"):
        load_images("mnist")
    with pytest.raises(DataError, match=r"limit = 5 .*10 classes"):
        load_images("digits", limit=5)


@pytest.mark.parametrize(("name", "n_classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_from_hub_parquet(name: str, n_classes: int) -> None:
    if not SHARED_IMAGES.is_dir():
        pytest.skip("the shared facts are not beside this checkout")
    data = load_images(name, path=SHARED_IMAGES, limit=200)
    groups = [set(split.group.tolist()) for split in _splits(data)]
    assert len(set.union(*groups)) == 600
    for split in _splits(data):
        assert split.images.shape == (200, 3, 32, 32)
        assert np.bincount(split.labels, minlength=n_classes).tolist() == [200 // n_classes] * n_classes
    assert data.class_names[0] == {"cifar10": "airplane", "cifar100": "apple"}[name]
    # Colours arrive as red, green, blue: over all classes, CIFAR's blue is darkest, its red brightest.
    red, _, blue = data.test.images.mean(axis=(0, 2, 3))
    assert 100 < blue < red < 150


def _png(value: int, side: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (value, 0, 255 - value)).save(buffer, "PNG")
    return buffer.getvalue()


def _write_parquet(folder: Path, part: str, rows: list[tuple[Any, Any]]) -> None:
    table = pa.table({"img": [{"bytes": b, "path": None} for b, _ in rows], "label": [y for _, y in rows]})
    names = json.dumps([f"class {k}" for k in range(10)])
    pq.write_table(table.replace_schema_metadata({"class_names": names}), folder / f"cifar10-{part}.parquet")


def _write_both(folder: Path, fault: tuple[Any, Any] | None = None) -> None:
    rows: list[tuple[Any, Any]] = [(_png(i), i % 10) for i in range(60)]
    _write_parquet(folder, "train", rows)
    if fault is not None:
        rows[7] = fault
    _write_parquet(folder, "test", rows)


def test_parquet_rows_keep_pixels_labels_and_place(tmp_path: Path) -> None:
    _write_both(tmp_path)
    data = load_images("cifar10", path=tmp_path)
    assert data.class_names[3] == "class 3"
    assert (len(data.train), len(data.calibration), len(data.test)) == (40, 20, 60)
    for split in (data.train, data.calibration):
        # The red channel of image i is i, its label i % 10, and its group its row.
        np.testing.assert_array_equal(split.images[:, 0, 5, 5], split.group)
        np.testing.assert_array_equal(split.labels, split.group % 10)
    np.testing.assert_array_equal(data.test.images[:, 0, 0, 0], np.arange(60))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((b"not an image", 7), r"cifar10-test\.parquet, row 7: corrupt image bytes"),
        ((_png(7)[:60], 7), r"cifar10-test\.parquet, row 7: corrupt image bytes"),
        ((None, 7), r"cifar10-test\.parquet, row 7: the image has no bytes"),
        ((_png(7, side=31), 7), r"cifar10-test\.parquet, row 7: image of 31 x 31 pixels"),
        ((_png(7), 10), r"cifar10-test\.parquet, row 7: label = 10; cifar10 has classes 0\.\.9"),
        ((_png(7), None), r"cifar10-test\.parquet, row 7: label = None"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, fault: tuple[Any, Any], message: str) -> None:
    _write_both(tmp_path, fault)
    with pytest.raises(DataError, match=message):
        load_images("cifar10", path=tmp_path)


def test_missing_files_say_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_images("cifar100", path=tmp_path)
    assert str(tmp_path / "cifar-100-python") in str(caught.value)
    assert str(tmp_path / "cifar100-train*.parquet") in str(caught.value)
    assert "downloads nothing" in str(caught.value)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    _write_both(tmp_path)
    (tmp_path / "cifar10-test.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match=r"cifar10-test\.parquet: not a readable parquet file"):
        load_images("cifar10", path=tmp_path)


def _write_batches(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for number, batch in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        pixels = np.zeros((20, 3072), dtype=np.uint8)
        pixels[:, :1024] = np.arange(20)[:, None] + 20 * number  # the red plane comes first
        content = {"data": pixels, "labels": [i % 10 for i in range(20)]}
        (folder / batch).write_bytes(pickle.dumps(content))
    meta = {"label_names": [f"name {k}" for k in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))


def test_altered_batch_files_are_never_unpickled(tmp_path: Path) -> None:
    _write_batches(tmp_path)
    with pytest.raises(DataError, match=r"cifar-10-batches-py: not the published cifar10 files"):
        load_images("cifar10", path=tmp_path)


def test_cifar_from_torchvision_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files in the published layout; only the check against the published sums is lifted."""
    _write_batches(tmp_path)
    monkeypatch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    for path in (tmp_path, tmp_path / "cifar-10-batches-py"):
        data = load_images("cifar10", path=path)
        assert (len(data.train), len(data.calibration), len(data.test)) == (80, 20, 20)
        np.testing.assert_array_equal(data.train.images[:, 0, 3, 3], data.train.group)
        assert data.train.images[:, 1:].max() == 0
        assert data.test.images[4, 0, 0, 0] == 104
        assert data.class_names[9] == "name 9"
