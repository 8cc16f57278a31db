"""Training of whole networks from one shared start."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hadas.measurement.quantized.meter
from hadas.datasets.images import ImageData, load_images
from hadas.datasets.quantized_records import QuantizedRecord
from hadas.errors import CheckpointError, ConfigError
from hadas.measurement.accuracy.inputs import SplitInputs
from hadas.measurement.accuracy.jobs import PlaceRefusedError
from hadas.measurement.accuracy.running import NoPlaceLeftError, ProcessWorkers, run_jobs
from hadas.measurement.quantized import QUANTIZED_RECIPES, QuantizedMeter, QuantizedRecipe
from hadas.measurement.quantized.meter import QuantizedJob
from hadas.measurement.quantized.network import network_module, start_module
from hadas.measurement.quantized.pictures import resized_data
from hadas.measurement.quantized.start import load_start, train_start
from hadas.measurement.quantized.steps import StepTrainer
from hadas.spaces.quantized import QuantizedExitSpace

SPACE = QuantizedExitSpace("tiny", resolution=16, width=0.1, n_cores=2)
SMOKE = QUANTIZED_RECIPES["smoke"]
NETWORKS = [
    SPACE.network("D,F,I", bits=4, head_bits=8),
    SPACE.network("B", head_types=(2, 1), bits=32, head_bits=32),
]


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", limit=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantized")


@pytest.fixture(scope="module")
def measured(digits: ImageData, folder: Path) -> list[QuantizedRecord]:
    return list(meter(digits, folder).measure(NETWORKS, session="s", first_row=5))


def meter(
    data: ImageData, folder: Path, recipe: QuantizedRecipe = SMOKE, n_workers: int = 1
) -> QuantizedMeter:
    return QuantizedMeter(SPACE, data, recipe, directory=folder, n_workers=n_workers)


def content(record: QuantizedRecord) -> dict[str, Any]:
    """Everything in a record but what it took and where it stands."""
    found = {f.name: getattr(record, f.name) for f in fields(record) if f.name not in ("seconds", "row_no")}
    for name in ("calibration", "test"):
        found[name] = found[name] and found[name].to_bytes()
    return found


def test_a_record_has_a_column_for_every_exit_in_use(
    measured: list[QuantizedRecord], digits: ImageData
) -> None:
    assert [record.row_no for record in measured] == [5, 6]
    for record, network in zip(measured, NETWORKS, strict=True):
        assert record.check().valid, record.reason
        assert record.network == network
        assert record.calibration is not None
        assert record.test is not None
        assert record.test.correct.shape == (len(digits.test), len(network.exits))
        assert np.array_equal(record.calibration.group, digits.calibration.group)
        assert (record.recipe_id, record.split_id) == (SMOKE.recipe_id, digits.split_id)
        assert set(record.seconds) == {"tune", "evaluate"}


def test_a_record_depends_on_the_network_alone(
    measured: list[QuantizedRecord], digits: ImageData, folder: Path
) -> None:
    """Neither on the order, nor on the cores, nor on the process."""
    source = meter(digits, folder)._source(meter(digits, folder).start())
    moved = replace(NETWORKS[0], cores=(1,) * 12)
    jobs = [QuantizedJob(source, network, "s", 0) for network in (NETWORKS[1], moved)]
    second, first = run_jobs(jobs, ProcessWorkers(["cpu"]), refusals_are_records=False)
    assert content(second) == content(measured[1])
    assert content(first) == {**content(measured[0]), "network": moved}
    assert content(measured[0])["test"] != content(measured[1])["test"]


def test_tuning_differs_from_the_start_and_between_seeds(
    measured: list[QuantizedRecord], digits: ImageData, folder: Path, tmp_path: Path
) -> None:
    longer = meter(digits, folder, replace(SMOKE, tune_steps=5))
    (record,) = longer.measure(NETWORKS[1:])
    assert record.start_id == measured[1].start_id  # tuned otherwise, from the same start
    assert content(record)["test"] != content(measured[1])["test"]
    assert meter(digits, tmp_path, replace(SMOKE, seed=1)).start().start_id != record.start_id


def test_a_diverging_network_is_a_record_and_the_others_go_on(digits: ImageData, tmp_path: Path) -> None:
    wild = meter(digits, tmp_path, replace(SMOKE, tune_learning_rate=1e30, clip_norm=1e30))
    stranger = replace(NETWORKS[0], space="elsewhere")
    records = list(wild.measure([NETWORKS[1], stranger]))
    assert [record.valid for record in records] == [False, False]
    assert not any(record.passing for record in records)  # they would fail again
    assert "TrainingError: tiny:B2K1:32+32: step " in records[0].reason
    assert "Lower tune_learning_rate (1e+30)" in records[0].reason
    assert "SpaceError: network belongs to space 'elsewhere'" in records[1].reason


def test_a_killed_start_goes_on_to_the_same_weights(digits: ImageData, tmp_path: Path) -> None:
    data, device = resized_data(digits, 16), torch.device("cpu")
    seen: list[int] = []

    def killed_at_three(_: str, done: int, __: int) -> None:
        seen.append(done)
        if done == 3 and len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_start(
            SPACE, data, SMOKE, directory=tmp_path, device=device, progress=killed_at_three, save_every_s=0.0
        )
    resumed = train_start(
        SPACE, data, SMOKE, directory=tmp_path, device=device, progress=killed_at_three, save_every_s=0.0
    )
    assert seen == [1, 2, 3, 3, 4]  # the third step was done, but not yet saved
    whole = train_start(SPACE, data, SMOKE, directory=tmp_path / "other", device=device)
    assert resumed.start_id == whole.start_id
    assert [path.suffix for path in sorted(tmp_path.glob("start-*"))] == [".lock", ".safetensors"]


def test_a_damaged_start_is_named(digits: ImageData, tmp_path: Path) -> None:
    start = meter(digits, tmp_path).start()
    start.path.write_bytes(start.path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"not a readable safetensors file .*move it away"):
        meter(digits, tmp_path).start()


class InThisProcess:
    """Workers that do each job at once, here; the real ones only differ in where."""

    poll_s = None

    def __init__(self, devices: Sequence[str]) -> None:
        self._places = [f"place {i}" for i, _ in enumerate(devices)]
        self.given: list[str] = []

    def places(self) -> Sequence[str]:
        if not self._places:
            raise NoPlaceLeftError
        return tuple(self._places)

    def drop(self, place: str) -> None:
        self._places.remove(place)

    def submit(self, place: str, job: QuantizedJob) -> "Future[QuantizedRecord]":
        self.given.append(place)
        future: Future[QuantizedRecord] = Future()
        try:
            future.set_result(job.run())
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        pass


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_place_that_refuses_makes_no_rows(
    digits: ImageData, tmp_path: Path, n_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hadas.measurement.quantized.meter, "ProcessWorkers", InThisProcess)
    here = meter(digits, tmp_path, n_workers=n_workers)
    here.start()
    images = tmp_path / f"images-{digits.split_id}-16px.npz"
    for damage in (b"", b"PK\x03\x04 is how such a file begins", b"no archive at all"):
        images.write_bytes(damage)
        found: list[QuantizedRecord] = []
        with pytest.raises(
            PlaceRefusedError, match=r"DataError: .*npz: not a readable file of images .*remove it"
        ):
            found.extend(here.measure(NETWORKS))
        assert found == []
    images.unlink()
    assert [record.valid for record in here.measure(NETWORKS)] == [True, True]


def test_what_was_done_before_the_last_place_refused_is_kept(digits: ImageData, folder: Path) -> None:
    """One place does the first job, and refuses the second, for which there is no other."""
    source = meter(digits, folder)._source(meter(digits, folder).start())
    good = QuantizedJob(source, NETWORKS[0], "s", 0)
    found: list[QuantizedRecord] = []
    workers = InThisProcess(["cpu"])
    jobs = [good, replace(good, source=replace(source, start="gone"), row_no=1), replace(good, row_no=2)]
    with pytest.raises(
        PlaceRefusedError, match="no worker is left that takes it; place 0: CheckpointError: gone"
    ):
        found.extend(run_jobs(jobs, workers, refusals_are_records=False))
    assert [(record.row_no, record.valid) for record in found] == [(0, True)]
    assert workers.given == ["place 0"] * 2


def test_a_fault_of_the_machine_may_pass(
    digits: ImageData, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a worker that dies, or memory that runs out: the reason says nothing about the network."""
    job = QuantizedJob(meter(digits, folder)._source(meter(digits, folder).start()), NETWORKS[0], "s", 0)
    assert job.failed("its worker died 3 times").passing

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError("2 GiB")

    monkeypatch.setattr(hadas.measurement.quantized.meter, "outcomes", no_memory)
    record = job.run()
    assert (record.valid, record.passing, record.reason) == (False, True, "MemoryError: 2 GiB")


def test_images_of_any_size_are_resized_once() -> None:
    rng = np.random.default_rng(0)
    data = load_images("digits", limit=10)
    wide = replace(data.test, images=rng.integers(0, 256, (len(data.test), 3, 20, 40), dtype=np.uint8))
    resized = resized_data(replace(data, test=wide), 16)
    assert resized.train.images.shape[1:] == resized.test.images.shape[1:] == (3, 16, 16)
    assert resized.train.images.dtype == np.uint8
    # The mean brightness stays.
    assert abs(float(resized.test.images.mean()) - float(wide.images.mean())) < 1.0
    assert resized_data(data, 24).train is data.train


def test_what_cannot_be_measured_is_refused_before_any_training(digits: ImageData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_workers = 0"):
        meter(digits, tmp_path, n_workers=0)
    with pytest.raises(ConfigError, match=r"160 training images, and a step takes batch_size = 500"):
        meter(digits, tmp_path, replace(SMOKE, batch_size=500))
    with pytest.raises(ConfigError, match=r"'digits' has 10 classes and the heads of space 'tiny' 7"):
        QuantizedMeter(
            QuantizedExitSpace("tiny", resolution=16, width=0.1, n_classes=7), digits, SMOKE,
            directory=tmp_path,
        )  # fmt: skip
    with pytest.raises(ConfigError, match=r"QuantizedRecipe\.batch_size = 1"):
        replace(SMOKE, batch_size=1)
    with pytest.raises(ConfigError, match=r"tune_learning_rate = nan: must be a finite number"):
        replace(SMOKE, tune_learning_rate=float("nan"))
    for field, value, wanted in (
        ("tune_steps", 2.5, "a whole number"), ("seed", True, "a whole number"), ("momentum", "0.9", "a number"),
        ("mirror", "no", "true or false"), ("precision", 32, "a word"), ("weight_decay", None, "a number"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=rf"QuantizedRecipe\.{field} = {value!r}: must be {wanted}"):
            replace(SMOKE, **{field: value})
    assert replace(SMOKE, clip_norm=5).recipe_id == replace(SMOKE, clip_norm=5.0).recipe_id
    if torch.cuda.device_count() == 0:
        with pytest.raises(ConfigError, match="'cuda': torch finds 0 CUDA devices"):
            QuantizedMeter(SPACE, digits, SMOKE, directory=tmp_path, device="cuda")


def test_bfloat16_trains(digits: ImageData, tmp_path: Path) -> None:
    (record,) = meter(digits, tmp_path, replace(SMOKE, precision="bfloat16")).measure(NETWORKS[:1])
    assert record.valid, record.reason


def test_four_bits_learn(digits: ImageData) -> None:
    """Rounding passes gradients on: the loss falls well below that of guessing, ln 10 = 2.3."""
    net = network_module(SPACE, SPACE.network("D,I", bits=4, head_bits=4))
    load_start(net, start_module(SPACE, 0).state_dict(), Path("none"))
    few = replace(digits.train, images=digits.train.images[:64], labels=digits.train.labels[:64])
    train = SplitInputs(resized_data(replace(digits, train=few), 16).train, torch.device("cpu"))
    recipe = replace(SMOKE, batch_size=32)
    trainer = StepTrainer(
        net, train, recipe, n_steps=16, learning_rate=0.05, seed=0, name="four bits", remedy="nothing"
    )
    losses = [trainer.step(step, net.exits) for step in range(16)]
    assert np.mean(losses[:4]) > 1.8
    assert np.mean(losses[-4:]) < 1.0
