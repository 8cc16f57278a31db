"""Measures what quantized early-exit networks get right: each is trained as a whole, with its exits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import torch

from ...datasets.images import ImageData
from ...datasets.quantized_records import QuantizedRecord
from ...errors import CheckpointError, ConfigError, SpaceError, TrainingError
from ...spaces.quantized import QuantizedExitSpace, QuantizedNetwork
from ..accuracy.checkpoints import Tensors, tensors_id
from ..accuracy.devices import hardware_name, resolve_device
from ..accuracy.evaluation import fixed_threads
from ..accuracy.inputs import SplitInputs
from ..accuracy.jobs import PlaceRefusedError
from ..accuracy.running import ProcessWorkers, cpu_count, run_jobs
from .pictures import read_images, resized_data, write_images
from .recipes import QuantizedRecipe
from .start import Progress, SharedStart, read_tensors, train_start
from .tuning import outcomes

_OF_THE_NETWORK = (SpaceError, TrainingError, FloatingPointError)
"""Errors that come again wherever a network is trained; others are passing faults of a machine."""


@dataclass(frozen=True, slots=True)
class QuantizedSource:
    """What all trainings of one list share, by name: any process of this machine can read it.

    Attributes:
        name, resolution, width, n_classes, bits, n_cores: of the space.
        images: file of :func:`~.pictures.write_images`.
        start, start_id: file of the shared start, and what its content must be.
        recipe, split_id: as records carry them.
        device: torch's name of where to compute.
    """

    name: str
    resolution: int
    width: float
    n_classes: int
    bits: str
    n_cores: int
    images: str
    start: str
    start_id: str
    recipe: QuantizedRecipe
    split_id: str
    device: str = "cpu"

    @property
    def space(self) -> QuantizedExitSpace:
        """The space."""
        return QuantizedExitSpace(
            self.name, resolution=self.resolution, width=self.width, n_classes=self.n_classes,
            bits="pairs" if self.bits == "pairs" else "per-segment", n_cores=self.n_cores,
        )  # fmt: skip


@dataclass(frozen=True)
class _Loaded:
    space: QuantizedExitSpace
    splits: tuple[SplitInputs, ...]
    start: Tensors
    device: torch.device


@lru_cache(maxsize=1)
def _loaded(source: QuantizedSource) -> _Loaded:
    """The parts of the latest source, kept: networks of one list share images and start."""
    device = resolve_device(source.device)
    splits = tuple(SplitInputs(split, device) for split in read_images(Path(source.images)))
    start, _ = read_tensors(Path(source.start))
    if tensors_id(start) != source.start_id:
        raise CheckpointError(f"{source.start}: changed since the measurement began; start it again")
    return _Loaded(source.space, splits, start, device)


@dataclass(frozen=True, slots=True)
class QuantizedJob:
    """One network to train, and the identity of its record."""

    source: QuantizedSource
    network: QuantizedNetwork
    session: str
    row_no: int

    def on(self, device: str) -> QuantizedJob:
        """The same job for another device."""
        return replace(self, source=replace(self.source, device=device))

    def run(self) -> QuantizedRecord:
        """Train and evaluate in this process, on one thread; a network that fails is a record with its reason.

        Raises:
            PlaceRefusedError: images, start or device are not there.
        """
        with fixed_threads(1):
            try:
                loaded = _loaded(self.source)
            except Exception as error:
                raise PlaceRefusedError(f"{type(error).__name__}: {error}") from error
            record = replace(self.failed(""), hardware=hardware_name(loaded.device))
            seconds: dict[str, float] = {}
            try:
                calibration, test = outcomes(
                    loaded.space, self.network, loaded.start, loaded.splits, self.source.recipe, seconds,
                    start_path=Path(self.source.start),
                )  # fmt: skip
            except Exception as error:  # one network's failure must not end the others' measurement
                passing = not isinstance(error, _OF_THE_NETWORK)
                reason = f"{type(error).__name__}: {error}"
                return replace(record, seconds=seconds, reason=reason, passing=passing)
        return replace(record, calibration=calibration, test=test, seconds=seconds, valid=True, passing=False)

    def failed(self, reason: str) -> QuantizedRecord:
        """The record of this job if it could not be done, for no fault of the network that is known."""
        source = self.source
        return QuantizedRecord(
            session=self.session, row_no=self.row_no, network=self.network, recipe_id=source.recipe.recipe_id,
            split_id=source.split_id, calibration=None, test=None, valid=False, reason=reason, passing=True,
            start_id=source.start_id,
        )  # fmt: skip


class QuantizedMeter:
    """Trains networks of one space on one data set with one recipe.

    The record of a network depends on the network, the data and the recipe alone: not on its place in a list,
    and not on the number of workers, because every training runs on one thread.

    Args:
        space: of the networks.
        data: images of any size; they are resized to the space's resolution once.
        recipe: of the shared start and of each network.
        directory: where the shared start and the resized images are kept.
        device: torch's name of where to compute, or ``auto``.
        n_workers: processes that train side by side; by default one per processor, or one on a GPU.  With one,
            it is this process.

    Raises:
        ConfigError: a device that is not there, a number of workers below 1, images of another number of
            classes, or fewer training images than one step takes.
    """

    def __init__(
        self, space: QuantizedExitSpace, data: ImageData, recipe: QuantizedRecipe, *, directory: str | Path,
        device: str = "cpu", n_workers: int | None = None,
    ) -> None:  # fmt: skip
        self._device = resolve_device(device)
        if n_workers is not None and n_workers < 1:
            raise ConfigError(f"n_workers = {n_workers}: give at least 1")
        if data.n_classes != space.n_classes:
            raise ConfigError(
                f"'{data.name}' has {data.n_classes} classes and the heads of space '{space.name}' {space.n_classes}; "
                "make the space with the same n_classes"
            )
        if len(data.train) < recipe.batch_size:
            raise ConfigError(
                f"'{data.name}' has {len(data.train)} training images, and a step takes batch_size = "
                f"{recipe.batch_size}; lower it, or raise the limit on images"
            )
        self.space = space
        self._data = data
        self._recipe = recipe
        self._directory = Path(directory)
        self._n_workers = n_workers or (cpu_count() if self._device.type == "cpu" else 1)

    @property
    def recipe_id(self) -> str:
        """Hash of the recipe."""
        return self._recipe.recipe_id

    @property
    def split_id(self) -> str:
        """The data's splits."""
        return self._data.split_id

    def start(self, progress: Progress | None = None) -> SharedStart:
        """The shared start; trained now, unless it is there.

        Raises:
            CheckpointError, TrainingError: as :func:`~.start.train_start`.
        """
        return train_start(
            self.space, self._resized, self._recipe, directory=self._directory, device=self._device,
            progress=progress,
        )  # fmt: skip

    @cached_property
    def _resized(self) -> ImageData:
        return resized_data(self._data, self.space.resolution)

    def measure(
        self, networks: Sequence[QuantizedNetwork], progress: Progress | None = None, *, session: str = "",
        first_row: int = 0,
    ) -> Iterator[QuantizedRecord]:  # fmt: skip
        """Yield one record per network, in order; one that fails yields an invalid record with the reason.

        A place without images, start or device says nothing about networks: it makes no records.

        Args:
            progress: told of the start's steps and of networks that are done.
            session, first_row: identity of the records.

        Raises:
            CheckpointError, TrainingError: no start to tune from.
            PlaceRefusedError: images, start or device are not there, or not in any worker.
        """
        if not networks:
            return
        source = self._source(self.start(progress))
        jobs = [
            QuantizedJob(source, network, session, row_no)
            for row_no, network in enumerate(networks, start=first_row)
        ]
        for done, record in enumerate(self._records(jobs), start=1):
            if progress is not None:
                progress("networks", done, len(jobs))
            yield record

    def _records(self, jobs: Sequence[QuantizedJob]) -> Iterator[QuantizedRecord]:
        n_workers = min(self._n_workers, len(jobs))
        if n_workers == 1:
            return map(QuantizedJob.run, jobs)
        workers: ProcessWorkers[QuantizedRecord] = ProcessWorkers([str(self._device)] * n_workers)
        return run_jobs(jobs, workers, refusals_are_records=False)

    def _source(self, start: SharedStart) -> QuantizedSource:
        space = self.space
        images = write_images(self._resized, space.resolution, self._directory)
        return QuantizedSource(
            name=space.name, resolution=space.resolution, width=space.width, n_classes=space.n_classes,
            bits=space.bits, n_cores=space.n_cores, images=str(images.resolve()), start=str(start.path.resolve()),
            start_id=start.start_id, recipe=self._recipe, split_id=self._data.split_id, device=str(self._device),
        )  # fmt: skip
