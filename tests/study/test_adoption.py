"""`hadas init --checkpoint`: a published file, or one of ours, becomes a study."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hadas.cli import app
from hadas.datasets.images import load_images
from hadas.errors import CheckpointError, ConfigError
from hadas.measurement.accuracy.recipes import SMOKE_SUPERNET
from hadas.measurement.accuracy.training import train_supernet
from hadas.spaces import mini_space
from hadas.study import Study
from hadas.study.config import load_config, template, validate_config

from ..measurement.published import published_weights


def _init(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["init", *map(str, arguments)], catch_exceptions=False)
    return result.output


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "attentive nas #1.pth.tar"
    torch.save({"state_dict": published_weights()}, path)
    return path


def test_a_published_file_becomes_a_study_that_fine_tunes_it(tmp_path: Path, imagenet: Path) -> None:
    study = tmp_path / "new" / "study.yaml"
    said = _init(study, "--checkpoint", imagenet, "--data-path", tmp_path)
    assert "fine-tuned with a fresh classifier for the 100 classes of cifar100" in " ".join(said.split())
    config = load_config(study)
    assert (config.space, config.data.name, config.data.path) == ("attentivenas", "cifar100", tmp_path)
    assert (config.accuracy.start, config.accuracy.checkpoint, config.accuracy.preset) == (
        imagenet,
        None,
        "gpu",
    )
    supernet, exits = Study.open(study).parts.recipes
    assert supernet.precision == exits.precision == "bfloat16"


def test_a_file_that_lacks_a_weight_writes_no_study(tmp_path: Path, imagenet: Path) -> None:
    weights = torch.load(imagenet)["state_dict"]
    del weights["module.blocks.36.shortcut.conv.conv.weight"]
    torch.save({"state_dict": weights}, tmp_path / "cut.pt")
    with pytest.raises(
        CheckpointError, match=r"cut\.pt: lacks weight 'blocks\.36\.shortcut\.conv\.conv\.weight'"
    ):
        _init(tmp_path / "study.yaml", "--checkpoint", tmp_path / "cut.pt")
    with pytest.raises(ConfigError, match=r"no data set 'cifar12'; known: \['cifar10'"):
        _init(tmp_path / "study.yaml", "--checkpoint", imagenet, "--data", "cifar12")
    with pytest.raises(ConfigError, match=r"--ema chooses weights within a checkpoint"):
        _init(tmp_path / "study.yaml", "--ema")
    assert [p.name for p in tmp_path.iterdir()] == ["cut.pt"]


def test_a_checkpoint_of_ours_is_used_unchanged_where_the_classes_agree(tmp_path: Path) -> None:
    recipe = dataclasses.replace(SMOKE_SUPERNET, steps=1, batch_size=8, sampled=0)
    trained = train_supernet(mini_space(), load_images("digits", limit=10), recipe, directory=tmp_path)
    assert "used unchanged" in _init(tmp_path / "same.yaml", "--checkpoint", trained.path)
    study = Study.open(tmp_path / "same.yaml")
    assert study.config.accuracy.checkpoint == trained.path
    assert study.parts.trained_supernet(lambda *_: None).weights_id == trained.weights_id
    _init(tmp_path / "other.yaml", "--checkpoint", trained.path, "--data", "cifar100")
    assert load_config(tmp_path / "other.yaml").accuracy.start == trained.path
    content = torch.load(trained.path)
    torch.save({**content, "space": "mini-00000000"}, tmp_path / "older.pt")
    with pytest.raises(
        CheckpointError, match=r"of space 'mini-00000000', which hadas does not know; known: "
    ):
        _init(tmp_path / "third.yaml", "--checkpoint", tmp_path / "older.pt")


def test_a_study_has_one_source_of_weights() -> None:
    with pytest.raises(ConfigError, match=r"name one of the two"):
        validate_config({"accuracy": {"start": "a.pt", "checkpoint": "b.pt"}}, source="f")
    with pytest.raises(ConfigError, match=r"'ema' chooses weights within a checkpoint"):
        validate_config({"accuracy": {"ema": True}}, source="f")


def test_every_preset_writes_a_file_that_reads_back(tmp_path: Path) -> None:
    for preset in ("demo", "smoke", "gpu"):
        path = tmp_path / f"{preset}.yaml"
        path.write_text(template(path.name, preset))
        Study.open(path)
