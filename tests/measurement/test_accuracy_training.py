from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hadas.datasets.images import ImageData, ImageSplit, load_images
from hadas.errors import CheckpointError, ConfigError, TrainingError
from hadas.measurement.accuracy.augmentation import apply_changes, draw_changes
from hadas.measurement.accuracy.checkpoints import read_checkpoint
from hadas.measurement.accuracy.evaluation import fixed_threads
from hadas.measurement.accuracy.recipes import SMOKE_SUPERNET, ExitRecipe, SupernetRecipe, warmup_cosine
from hadas.measurement.accuracy.training import load_supernet, train_supernet
from hadas.spaces import MBConvSpace, attentivenas_space, mini_space

RECIPE = dataclasses.replace(SMOKE_SUPERNET, steps=3, batch_size=16, sampled=1, threads=1)
ALL_ON = dataclasses.replace(
    RECIPE, max_shift=1, mirror=True, sampling="best", candidates=2, distillation="alpha", dropout=0.2,
    drop_connect=0.2, precision="bfloat16",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with fixed_threads(1):
        yield


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", limit=10)


def _train(
    data: ImageData, directory: Path, recipe: SupernetRecipe = RECIPE, **options: object
) -> tuple[str, Path]:
    trained = train_supernet(mini_space(), data, recipe, directory=directory, **options)  # type: ignore[arg-type]
    return trained.weights_id, trained.path


class _KilledError(Exception):
    pass


@pytest.mark.parametrize(("recipe", "last_step"), [(RECIPE, 2), (ALL_ON, 1)])
def test_interrupted_training_ends_with_the_same_weights(
    digits: ImageData, tmp_path: Path, recipe: SupernetRecipe, last_step: int
) -> None:
    whole, _ = _train(digits, tmp_path / "whole", recipe)
    directory = tmp_path / "killed"

    def kill(step: int, _steps: int, _loss: float) -> None:
        if step > last_step:
            raise _KilledError

    with pytest.raises(_KilledError):
        _train(digits, directory, recipe, progress=kill, save_every_s=0.0)
    assert [p.suffix for p in directory.iterdir()] == [".part"]
    steps: list[int] = []
    again, path = _train(digits, directory, recipe, progress=lambda step, *_: steps.append(step))
    assert again == whole
    assert steps == list(range(last_step + 1, recipe.steps + 1))
    assert list(directory.iterdir()) == [path]


def test_a_training_that_diverges_stops_at_its_step_and_leaves_no_supernet(
    digits: ImageData, tmp_path: Path
) -> None:
    wild = dataclasses.replace(RECIPE, learning_rate=1e30, warmup_fraction=0.0)
    with pytest.raises(TrainingError, match=r"step \d of 3: loss .*Lower learning_rate \(1e\+30\)"):
        _train(digits, tmp_path, wild, save_every_s=0.0)
    assert not list(tmp_path.glob("*.pt"))
    last = dataclasses.replace(wild, steps=1, learning_rate=1e38, weight_decay=1e10)
    with pytest.raises(TrainingError, match=r"step 1 of 1: weight '.*' holds numbers that are not finite"):
        _train(digits, tmp_path, last)
    assert not list(tmp_path.glob("*.pt"))


def test_recipes_refuse_numbers_that_are_not_finite() -> None:
    for recipe in (SupernetRecipe, ExitRecipe):
        for field in dataclasses.fields(recipe):
            if field.type == "float":
                for value in (float("nan"), float("inf")):
                    with pytest.raises(
                        ConfigError, match=rf"{field.name} = {value}: must be a finite number"
                    ):
                        recipe(**{field.name: value})


def test_only_as_many_processes_as_began_a_training_go_on_with_it(digits: ImageData, tmp_path: Path) -> None:
    unfinished = _killed(digits, tmp_path)
    content = torch.load(unfinished)
    assert content["n_processes"] == 1
    torch.save({**content, "n_processes": 2}, unfinished)
    with pytest.raises(CheckpointError, match=r"begun by 2 process\(es\), now there are 1"):
        _train(digits, tmp_path)


def test_what_kills_during_saves_left_is_removed(digits: ImageData, tmp_path: Path) -> None:
    unfinished = _killed(digits, tmp_path)
    dead = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    stale = tmp_path / f"{unfinished.name}.{dead}.tmp"
    living, other = tmp_path / f"{unfinished.name}.1.tmp", tmp_path / f"else.part.{dead}.tmp"
    for part in (stale, living, other):
        part.write_bytes(b"")
    _, path = _train(digits, tmp_path)
    assert set(tmp_path.iterdir()) == {path, living, other}


def _killed(data: ImageData, directory: Path) -> Path:
    """The unfinished training that a kill after two steps leaves."""

    def kill(step: int, _steps: int, _loss: float) -> None:
        if step == 2:
            raise _KilledError

    with pytest.raises(_KilledError):
        _train(data, directory, progress=kill, save_every_s=0.0)
    (unfinished,) = directory.iterdir()
    return unfinished


def test_a_finished_training_is_found_and_another_recipe_is_not(digits: ImageData, tmp_path: Path) -> None:
    first, path = _train(digits, tmp_path)
    steps: list[int] = []
    assert _train(digits, tmp_path, progress=lambda step, *_: steps.append(step)) == (first, path)
    assert steps == []
    other, other_path = _train(digits, tmp_path, dataclasses.replace(RECIPE, seed=1))
    assert other != first
    assert other_path != path


def test_gradients_computed_side_by_side_give_the_same_weights(digits: ImageData, tmp_path: Path) -> None:
    one, _ = _train(digits, tmp_path / "one")
    three, path = _train(digits, tmp_path / "three", dataclasses.replace(RECIPE, threads=3))
    assert three == one
    assert path.name in {p.name for p in (tmp_path / "one").iterdir()}


def test_every_option_changes_what_is_trained(digits: ImageData, tmp_path: Path) -> None:
    """An option that a training would not obey would leave its weights as they are without it."""
    base = dataclasses.replace(RECIPE, steps=1)
    found = {_train(digits, tmp_path, base)[0]}
    for field in ("max_shift", "mirror", "sampling", "distillation", "dropout", "drop_connect", "precision"):
        changed = dataclasses.replace(base, **{field: getattr(ALL_ON, field)})
        found.add(_train(digits, tmp_path, changed)[0])
    assert len(found) == 8


def test_bfloat16_trains_float32_weights_to_nearly_the_same_loss(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=3, batch_size=16, learning_rate=0.1)
    losses: dict[str, list[float]] = {}
    for precision in ("float32", "bfloat16"):
        seen = losses[precision] = []
        chosen = dataclasses.replace(recipe, precision=precision)
        _, path = _train(
            _dark_and_bright(), tmp_path, chosen, progress=lambda *a, seen=seen: seen.append(a[2])
        )
        assert {t.dtype for t in read_checkpoint(path).tensors.values()} == {torch.float32, torch.int64}
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.05, atol=0.02)
    assert losses["bfloat16"][-1] < losses["bfloat16"][0]


def _dark_and_bright() -> ImageData:
    """Two classes that only brightness tells apart."""
    labels = np.arange(64) % 2
    images = np.random.default_rng(0).integers(0, 100, (64, 3, 16, 16)) + 120 * labels[:, None, None, None]
    split = ImageSplit(images.astype(np.uint8), labels, np.arange(64, dtype=np.int32))
    return ImageData("toy", 2, ("dark", "bright"), split, split, split, "toy", "test")


def test_training_learns(tmp_path: Path) -> None:
    """The loss must fall far below chance, 0.69."""
    recipe = SupernetRecipe(
        steps=15, batch_size=32, learning_rate=0.1, sampled=1, label_smoothing=0.0, threads=1
    )
    losses: list[float] = []
    _train(_dark_and_bright(), tmp_path, recipe, progress=lambda *a: losses.append(a[2]))
    assert losses[-1] < 0.2 < losses[0]


def test_foreign_checkpoints_are_refused_by_name(digits: ImageData, tmp_path: Path) -> None:
    _, path = _train(digits, tmp_path)
    with pytest.raises(CheckpointError, match=r"space 'mini-.*', not of 'attentivenas-"):
        load_supernet(path, attentivenas_space(), 10)
    with pytest.raises(CheckpointError, match=r"for 10 classes; 100 are asked for"):
        load_supernet(path, mini_space(), 100)
    macro = dataclasses.replace(mini_space().macro, tail_widths=(40, 80))
    with pytest.raises(CheckpointError, match=r"space 'mini-.*', not of 'mini-"):
        load_supernet(path, MBConvSpace("mini", macro), 10)
    with pytest.raises(CheckpointError, match=r"no such checkpoint"):
        load_supernet(tmp_path / "absent.pt", mini_space(), 10)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"readable checkpoint, or cut short.*name another file"):
        load_supernet(path, mini_space(), 10)


def test_augmentation_shifts_and_mirrors_without_inventing_pixels() -> None:
    images = np.zeros((200, 3, 9, 9), dtype=np.uint8)
    images[:, :, 4, 3] = 255
    rng = np.random.default_rng(0)
    moved = apply_changes(torch.from_numpy(images), draw_changes(200, rng, max_shift=2, mirror=True)).numpy()
    assert moved.shape == images.shape
    assert (moved.reshape(200, 3, -1).max(axis=2) == 255).all()
    n, y, x = np.nonzero(moved[:, 0])
    assert n.tolist() == list(range(200))
    assert set(y) == set(range(2, 7))
    assert set(x) == set(range(1, 8))  # column 3 or, mirrored, 5, each two either way
    unchanged = apply_changes(torch.from_numpy(images), draw_changes(200, rng))
    np.testing.assert_array_equal(unchanged.numpy(), images)


def test_learning_rate_warms_up_and_falls() -> None:
    factors = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert (np.diff(factors[10:]) < 0).all()
    assert factors[-1] < 0.01


@pytest.mark.parametrize("field", ["steps", "learning_rate", "threads"])
def test_an_impossible_recipe_names_its_field(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"SupernetRecipe\.{field} = 0: must be positive"):
        SupernetRecipe(**{field: 0})


def test_a_clip_that_equal_distributions_would_meet_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"SupernetRecipe\.alpha_clip = 0\.5: must be at least 1"):
        SupernetRecipe(alpha_clip=0.5)
