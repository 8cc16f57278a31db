"""From a configuration to working parts: space, images, device, accuracy meter, search settings.

Everything is built when first asked for, so that a command pays only for what it uses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import CheckpointError, ConfigError
from ..spaces import Backbone, ClockTable, MBConvSpace, space_by_name
from ..spaces.dvfs import load_clock_table
from .config import StudyConfig
from .identity import DeviceIdentity

if TYPE_CHECKING:
    from ..datasets.images import ImageData
    from ..datasets.records import AccuracyRecord
    from ..measurement.accuracy.checkpoints import StoredWeights
    from ..measurement.accuracy.jobs import SupernetSource
    from ..measurement.accuracy.meter import AccuracyMeter
    from ..measurement.accuracy.policies import ToleranceThresholds
    from ..measurement.accuracy.recipes import ExitRecipe, SupernetRecipe
    from ..measurement.accuracy.running import Workers
    from ..measurement.accuracy.training import TrainedSupernet
    from ..measurement.hardware.device import Device
    from ..search.outer import SearchSettings

Recipe = TypeVar("Recipe", "SupernetRecipe", "ExitRecipe")


class ProgressCallback(Protocol):
    """Told how far a phase has come."""

    def __call__(self, phase: str, done: int, total: int, note: str = "") -> None:
        """Of ``total`` steps so many are done; the note says how it stands, such as the hypervolume."""


class Assembly:
    """The parts that one configuration names."""

    def __init__(self, config: StudyConfig, directory: Path) -> None:
        """Args: directory: where relative paths of the configuration start."""
        self.config = config
        self.directory = directory
        self.device: Device | None = None
        """A caller's own device, measured on instead of the one that the configuration names."""
        self.known_device: DeviceIdentity | None = None
        """What the study wrote down of its device; without it the device itself is asked."""

    def check(self) -> None:
        """Refuse a configuration whose parts do not exist, before anything is stored or trained.

        Raises:
            ConfigError, SpaceError, CheckpointError, OffTableFrequencyError: what is wrong, by name.
        """
        _ = self.space, self.search_settings, self.recipes, self.clock_table_file
        if self.config.device.kind == "simulator":
            from ..measurement.hardware.simulation.simulator import simulated_device

            # The number of classes does not matter for what is checked here.
            simulated_device(
                self.config.device.name, space=self.space, n_classes=2, table=self.clock_table_file
            )
        for field in ("checkpoint", "start"):
            weights = self._path(getattr(self.config.accuracy, field))
            if weights is not None and not weights.is_file():
                raise CheckpointError(f"'accuracy.{field}': no file {weights}")

    @cached_property
    def clock_table_file(self) -> ClockTable | None:
        """The user's clock table, ``None`` if the device's own is used."""
        path = self._path(self.config.device.clocks)
        return None if path is None else load_clock_table(path)

    @cached_property
    def space(self) -> MBConvSpace:
        """The backbone space, with exit heads of the configured width."""
        space, width = space_by_name(self.config.space), self.config.head_width
        return space if width is None else space.with_head_width(width)

    @cached_property
    def data(self) -> ImageData:
        """Images with their fixed splits."""
        from ..datasets.images import load_images

        data = self.config.data
        return load_images(data.name, path=self._path(data.path), limit=data.limit)

    @contextmanager
    def held_device(self) -> Iterator[Device]:
        """The device to measure costs on, held for this process while the context lasts.

        Raises:
            HadasError: it is held by somebody else, cannot be reached, or is not what the study needs.
        """
        device = self.config.device
        if self.device is not None:
            yield self.device
        elif device.kind == "simulator":
            from ..measurement.hardware.simulation.simulator import simulated_device

            yield simulated_device(
                device.name, space=self.space, n_classes=self.data.n_classes, table=self.clock_table_file
            )
        elif device.log is not None:
            from ..measurement.hardware.replay import ReplayDevice

            yield self._narrowed(
                ReplayDevice.from_log(
                    self.directory / device.log, space=self.space, n_classes=self.data.n_classes
                )
            )
        else:
            from ..measurement.farm.opening import hold_devices
            from ..measurement.hardware.measuring.protocol import PROTOCOLS

            with hold_devices(
                device.names, self._path(device.devices), PROTOCOLS[device.measuring_protocol], space=self.space,
                n_classes=self.data.n_classes, purpose=f"study {self.config.study}",
                raw_directory=self.directory / f"{self.config.study}.power",
            ) as held:  # fmt: skip
                yield self._narrowed(held)

    def _narrowed(self, device: Device) -> Device:
        from ..measurement.hardware.narrowed import NarrowedDevice

        return device if self.clock_table_file is None else NarrowedDevice(device, self.clock_table_file)

    @property
    def device_identity(self) -> DeviceIdentity:
        """The device's, as the study knows it or, before the study begins, as the device says."""
        if self.known_device is None:
            with self.held_device() as device:
                self.known_device = DeviceIdentity.of(device)
        return self.known_device

    @property
    def table(self) -> ClockTable:
        """The device's clock table."""
        return self.device_identity.table

    @property
    def counts_energy(self) -> bool:
        """Whether the device counts energy."""
        return self.device_identity.counts_energy

    @cached_property
    def search_settings(self) -> SearchSettings:
        """The search preset with the configuration's constraints and overrides.

        Raises:
            ConfigError: a setting that there is not, or constraints among the overrides.
        """
        from ..search.outer import search_settings

        search = self.config.search
        if "constraints" in search.overrides:
            raise ConfigError("'search.overrides.constraints': write it as 'search.constraints'")
        return search_settings(
            search.preset, {**search.overrides, "constraints": search.constraints.model_dump()}
        )

    @cached_property
    def controller(self) -> ToleranceThresholds:
        """What decides when a sample leaves, in everything that the search and its measured designs count on."""
        from ..measurement.accuracy.policies import Score, ToleranceThresholds

        policy = self.config.policy
        return ToleranceThresholds(Score(policy.score, self.data.n_classes), policy.tolerance)

    @cached_property
    def recipes(self) -> tuple[SupernetRecipe, ExitRecipe]:
        """How the supernet and the exits are trained."""
        from ..measurement.accuracy import recipes

        accuracy = self.config.accuracy
        supernet, exits = recipes.RECIPE_PRESETS[accuracy.preset]
        return (
            _override(supernet, accuracy.supernet, "accuracy.supernet"),
            _override(exits, accuracy.exits, "accuracy.exits"),
        )

    def trained_supernet(
        self, progress: ProgressCallback, on_loss: Callable[[float], None] | None = None
    ) -> TrainedSupernet:
        """The configured checkpoint, or a supernet trained here (found again if it is finished).

        Args:
            on_loss: told the largest backbone's loss before each step's progress.

        Raises:
            CheckpointError: a checkpoint of another space or, if it is not to be fine-tuned, of
                another number of classes.
        """
        from ..measurement.accuracy.devices import resolve_device
        from ..measurement.accuracy.training import train_supernet

        def report(done: int, total: int, loss: float) -> None:
            if on_loss is not None:
                on_loss(loss)
            progress("training the supernet", done, total)

        if self.config.accuracy.checkpoint is not None:
            return self._loaded_checkpoint(self.config.accuracy.checkpoint)
        return train_supernet(
            self.space,
            self.data,
            self.recipes[0],
            directory=self._weights_directory,
            start=self._starting_weights(),
            device=str(resolve_device(self.config.accuracy.device)),
            progress=report,
        )

    def finished_supernet(self) -> TrainedSupernet | None:
        """What :meth:`trained_supernet` would give, ``None`` if it would have to train.

        Raises:
            CheckpointError: as there.
        """
        from ..measurement.accuracy.training import finished_supernet

        if self.config.accuracy.checkpoint is not None:
            return self._loaded_checkpoint(self.config.accuracy.checkpoint)
        return finished_supernet(
            self.space,
            self.data,
            self.recipes[0],
            directory=self._weights_directory,
            start=self._starting_weights(),
        )

    def _loaded_checkpoint(self, checkpoint: Path) -> TrainedSupernet:
        from ..measurement.accuracy.training import load_supernet

        path, ema = self.directory / checkpoint, self.config.accuracy.ema
        return load_supernet(path, self.space, self.data.n_classes, ema=ema)[1]

    @property
    def _weights_directory(self) -> Path:
        """Where supernets that are trained here are kept."""
        return self.directory / "weights"

    def _starting_weights(self) -> StoredWeights | None:
        from ..measurement.accuracy.checkpoints import read_checkpoint

        start = self._path(self.config.accuracy.start)
        return None if start is None else read_checkpoint(start, ema=self.config.accuracy.ema)

    def meter(self, trained: TrainedSupernet) -> AccuracyMeter:
        """The accuracy meter on a trained supernet, where the configuration wants it to run."""
        accuracy, exits = self.config.accuracy, self.recipes[1]
        if accuracy.workers == "threads":
            from ..measurement.accuracy.supernet_meter import SupernetMeter

            recipe = replace(exits, threads=accuracy.n_workers or exits.threads)
            return SupernetMeter(self.space, self.data, trained, recipe, device=accuracy.device)
        from ..measurement.accuracy.running import JobMeter

        return JobMeter(self._source(trained), self._workers, check=self.check_memory)

    def check_places(self) -> None:
        """Refuse places for accuracy jobs that are not there, before anything is trained for them.

        Raises:
            ConfigError: no such device is here, it lacks memory for the largest backbone, or no scheduler
                answers at the cluster's address.
        """
        self.check_memory([self.space.largest])
        if self.config.accuracy.cluster is not None:
            self._workers().close()

    def check_memory(self, backbones: Sequence[Backbone]) -> None:
        """Refuse backbones whose accuracy this machine has not the memory for, before one is measured.

        Nothing is said of the machines of a cluster; there, a job that finds no room is a row with its reason.

        Raises:
            ConfigError: the frozen features that ``accuracy.exits`` wants to keep do not fit, or no
                such device is here.
        """
        from ..measurement.accuracy.devices import resolve_device
        from ..measurement.accuracy.feature_cache import check_feature_caches

        side_by_side = Counter(resolve_device(place) for place in self._places())
        for device, n_jobs in side_by_side.items():
            check_feature_caches(
                self.space, backbones, self.recipes[1], n_classes=self.data.n_classes,
                n_train=len(self.data.train), device=device, side_by_side=n_jobs,
            )  # fmt: skip

    def _source(self, trained: TrainedSupernet) -> SupernetSource:
        """What accuracy jobs must know; paths are whole, because workers have folders of their own."""
        from ..measurement.accuracy.jobs import SupernetSource
        from ..measurement.accuracy.training import space_digest

        data, exits = self.config.data, self.recipes[1]
        path = self._path(data.path) or Path("data")
        return SupernetSource(
            space=self.space.name,
            space_digest=space_digest(self.space),
            checkpoint=str(trained.path.resolve()),
            ema=trained.ema,
            data=data.name,
            data_path=str(path.resolve()),
            data_limit=data.limit,
            recipe=exits,
            weights_id=trained.weights_id,
            recipe_id=exits.recipe_id,
            split_id=self.data.split_id,
            device=self.config.accuracy.device,
        )

    def _workers(self) -> Workers[AccuracyRecord]:
        accuracy = self.config.accuracy
        if accuracy.cluster is not None:
            from ..measurement.accuracy.cluster import DaskWorkers

            return DaskWorkers(accuracy.cluster, accuracy.n_workers)
        from ..measurement.accuracy.running import ProcessWorkers

        return ProcessWorkers(self._places())

    def _places(self) -> Sequence[str]:
        """The device of every accuracy job that may run on this machine at one time."""
        from ..measurement.accuracy.running import cpu_count, gpu_places

        accuracy = self.config.accuracy
        if accuracy.workers == "dask":
            return ()
        if accuracy.workers == "gpus":
            import torch

            return gpu_places(accuracy.n_workers, torch.cuda.device_count())
        if accuracy.workers == "processes":
            return [accuracy.device] * (accuracy.n_workers or cpu_count())
        return [accuracy.device] * (accuracy.n_workers or self.recipes[1].threads)

    def _path(self, path: Path | None) -> Path | None:
        return None if path is None else self.directory / path


def _override(preset: Recipe, changes: dict[str, Any], where: str) -> Recipe:
    """A recipe with some fields replaced.

    Raises:
        ConfigError: a field that it does not have, or a value that it may not have.
    """
    known = {field.name: getattr(preset, field.name) for field in fields(preset)}
    for name, value in changes.items():
        if name not in known:
            raise ConfigError(f"'{where}.{name}': no such field; known: {sorted(known)}")
        wanted = type(known[name])
        # Words are among a few that the recipe knows and names itself.
        if type(value) is not wanted and wanted is not str and not (wanted is float and type(value) is int):
            raise ConfigError(f"'{where}.{name}' = {value!r}: must be {wanted.__name__}")
    try:
        return replace(preset, **changes)
    except ConfigError as error:
        raise ConfigError(f"'{where}': {error}") from error
