from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hadas.datasets.images import load_images
from hadas.errors import CheckpointError
from hadas.measurement.accuracy.checkpoints import CLASSIFIER, read_checkpoint, write_checkpoint
from hadas.measurement.accuracy.evaluation import fixed_threads
from hadas.measurement.accuracy.network import Normalization, images_to_input
from hadas.measurement.accuracy.recipes import SMOKE_SUPERNET
from hadas.measurement.accuracy.supernet import Supernet
from hadas.measurement.accuracy.training import load_supernet, starting_supernet, train_supernet
from hadas.spaces import attentivenas_space, mini_space

from .published import published_shapes, published_weights


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with fixed_threads(1):
        yield


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return published_weights()


def _save(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def test_the_supernet_has_exactly_the_published_names_and_shapes() -> None:
    own = {n: tuple(v.shape) for n, v in Supernet(attentivenas_space(), 1000, seed=0).state_dict().items()}
    published = published_shapes()
    assert own.keys() == published.keys()
    assert own == published
    assert len({name.split(".")[1] for name in own if name.startswith("blocks.")}) == 37


@pytest.mark.parametrize(
    ("layout", "ema"),
    [
        ("published", False),
        ("without prefix", False),
        ("ema beside", True),
        ("ema alone", False),
        ("bare", False),
    ],
)
def test_a_published_file_loads_unchanged(
    tmp_path: Path, weights: dict[str, Tensor], layout: str, ema: bool
) -> None:
    plain = {name.removeprefix("module."): value for name, value in weights.items()}
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    content: dict[str, Any] = {
        "published": {"epoch": 360, "state_dict": weights, "acc1": 80.7},
        "without prefix": {"state_dict": plain},
        "ema beside": {"state_dict": other, "state_dict_ema": plain},
        "ema alone": {"state_dict_ema": plain},
        "bare": weights,
    }[layout]
    path = _save(tmp_path / "attentive_nas.pth.tar", content)
    supernet, trained = load_supernet(path, attentivenas_space(), 1000, ema=ema)
    loaded = supernet.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in plain.items())
    assert supernet.normalization is Normalization.IMAGENET
    assert (trained.path, trained.seconds) == (path, 0.0)


def test_a_missing_or_misshapen_key_is_named(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    space, key = attentivenas_space(), "blocks.30.mobile_inverted_conv.depth_conv.se.fc.reduce.bias"
    lacking = {name: value for name, value in weights.items() if name != f"module.{key}"}
    path = _save(tmp_path / "lacking.pt", {"state_dict": lacking})
    with pytest.raises(CheckpointError, match=rf"lacking\.pt: lacks weight '{key}'; it is not"):
        load_supernet(path, space, 1000)
    path = _save(tmp_path / "other.pt", {"state_dict": {**weights, f"module.{key}": torch.zeros(3)}})
    with pytest.raises(CheckpointError, match=rf"weight '{key}' has shape \(3,\).*needs \(328,\)"):
        load_supernet(path, space, 1000)
    path = _save(tmp_path / "more.pt", {"state_dict": {**weights, "module.gate.weight": torch.zeros(3)}})
    with pytest.raises(CheckpointError, match=r"has an unknown weight 'gate\.weight'"):
        load_supernet(path, space, 1000)
    with pytest.raises(CheckpointError, match=r"has no 'state_dict_ema'"):
        load_supernet(path, space, 1000, ema=True)
    path = _save(tmp_path / "whole.pt", {"state_dict": weights})
    with pytest.raises(CheckpointError, match=r"for 1000 classes; 100 are asked for.*accuracy\.start"):
        load_supernet(path, space, 100)
    with pytest.raises(CheckpointError, match=r"not a checkpoint of space 'mini'|it is not"):
        load_supernet(path, mini_space(), 1000)


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    key = "blocks.3.mobile_inverted_conv.point_linear.conv.conv.weight"
    spoilt = weights[f"module.{key}"].clone()
    spoilt[0, 0] = float("nan")
    path = _save(tmp_path / "nan.pt", {"state_dict": {**weights, f"module.{key}": spoilt}})
    with pytest.raises(CheckpointError, match=rf"nan\.pt: weight '{key}' holds numbers that are not finite"):
        load_supernet(path, attentivenas_space(), 1000)


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    exact = {"w": torch.arange(6.0).view(2, 3), "count": torch.tensor(7)}
    expected = read_checkpoint(_save(tmp_path / "float.pt", {"state_dict": exact})).content_id
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        other = {**exact, "w": exact["w"].to(dtype)}
        stored = read_checkpoint(_save(tmp_path / "other.pt", {"state_dict": other}))
        assert stored.content_id == expected
        assert [t.dtype for t in stored.tensors.values()] == [torch.float32, torch.int64]


def test_damaged_files_are_refused_in_words(tmp_path: Path) -> None:
    path = _save(tmp_path / "scalar.pt", {"state_dict": {CLASSIFIER[0]: torch.tensor(1.0)}})
    with pytest.raises(
        CheckpointError, match=r"weight 'classifier.*' has shape \(\), not \(classes, features\)"
    ):
        load_supernet(path, mini_space(), 10)
    write_checkpoint(
        path, {"w": torch.zeros(1)}, Normalization.IMAGENET,
        {"space": "mini", "n_classes": 10, "finished": True, "seconds": 1.0},
    )  # fmt: skip
    _save(path, {**torch.load(path), "normalization": "whitened"})
    with pytest.raises(
        CheckpointError, match=r"normalization 'whitened' is none of \['symmetric', 'imagenet'\]"
    ):
        read_checkpoint(path)
    path.write_text("epoch loss\n1 2\n")
    with pytest.raises(CheckpointError, match=r"cut short \(not written by torch\.save\)"):
        read_checkpoint(path)
    path.write_text("hello")
    with pytest.raises(CheckpointError, match=r"cut short \(not written by torch\.save\)"):
        read_checkpoint(path)


def test_files_with_python_objects_are_refused_with_the_remedy(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    path = _save(tmp_path / "objects.pt", {"state_dict": weights, "args": SimpleNamespace(lr=0.1)})
    with pytest.raises(CheckpointError, match=r"hadas runs no code from a file.*torch\.save"):
        read_checkpoint(path)
    path = _save(tmp_path / "list.pt", {"state_dict": [1, 2]})
    with pytest.raises(CheckpointError, match=r"no tensors under 'state_dict'"):
        read_checkpoint(path)


def test_another_number_of_classes_gets_a_fresh_classifier_and_keeps_the_rest(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    path = _save(tmp_path / "imagenet.pt", {"state_dict": weights})
    started = starting_supernet(attentivenas_space(), 100, seed=3, start=read_checkpoint(path))
    loaded = started.state_dict()
    assert loaded["classifier.linear.linear.weight"].shape == (100, 1984)
    for name, value in weights.items():
        if "classifier" not in name:
            assert torch.equal(loaded[name.removeprefix("module.")], value), name
    again = starting_supernet(attentivenas_space(), 100, seed=3, start=read_checkpoint(path))
    assert again.weights_id == started.weights_id
    same = starting_supernet(attentivenas_space(), 1000, seed=3, start=read_checkpoint(path))
    assert torch.equal(
        same.state_dict()["classifier.linear.linear.weight"],
        weights["module.classifier.linear.linear.weight"],
    )


def test_fine_tuning_starts_from_the_given_weights_and_is_found_again(tmp_path: Path) -> None:
    data = load_images("digits", limit=10)
    recipe = dataclasses.replace(SMOKE_SUPERNET, steps=2, batch_size=8, sampled=1)
    first = train_supernet(mini_space(), data, recipe, directory=tmp_path / "first")
    stored = read_checkpoint(first.path)
    gentle = dataclasses.replace(recipe, learning_rate=1e-6, weight_decay=0.0)
    tuned = train_supernet(mini_space(), data, gentle, directory=tmp_path / "tuned", start=stored)
    fresh = train_supernet(mini_space(), data, gentle, directory=tmp_path / "tuned")
    assert tuned.path != fresh.path
    before, after = stored.tensors, read_checkpoint(tuned.path).tensors
    moved = max((before[n].float() - after[n].float()).abs().max().item() for n in before)
    assert 0 < moved < 1e-3
    again = train_supernet(mini_space(), data, gentle, directory=tmp_path / "tuned", start=stored)
    assert (again.path, again.weights_id) == (tuned.path, tuned.weights_id)


def test_imagenet_normalisation_is_the_usual_one_and_travels_with_the_network(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    pixels = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    scaled = images_to_input(pixels, Normalization.IMAGENET)
    assert scaled[0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-6)
    path = _save(tmp_path / "imagenet.pt", {"state_dict": weights})
    supernet, _ = load_supernet(path, attentivenas_space(), 1000)
    assert supernet.extract(attentivenas_space().presets["a0"]).normalization is Normalization.IMAGENET


def test_published_weights_run_at_batch_one_and_as_a_static_network(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    path = _save(tmp_path / "imagenet.pt", {"state_dict": weights})
    supernet, _ = load_supernet(path, attentivenas_space(), 1000)
    backbone = attentivenas_space().presets["a0"]
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8))
    x = images_to_input(image, supernet.normalization)
    network = supernet.extract(backbone)
    with torch.no_grad():
        assert supernet(x, backbone).shape == (1, 1000)
        static = network.train().final_logits(x)
        torch.testing.assert_close(static, supernet(x, backbone), rtol=1e-5, atol=1e-5)
        assert network.eval()(x).shape == (1, backbone.n_blocks - 5 + 1, 1000)
