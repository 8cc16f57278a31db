"""Accuracy jobs: one backbone each, described by names alone, so that any machine can run them.

A job holds no tensors and no images: it names files, and what their content must be.  The process
that runs it loads them once and keeps them for the jobs that follow.  A machine whose files or
whose hadas differ would measure something else; it refuses, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from ...datasets.images import load_images
from ...datasets.records import AccuracyRecord
from ...errors import CheckpointError, ConfigError, DataError, HadasError, SpaceError
from ...spaces import Backbone, space_by_name
from .evaluation import fixed_threads
from .recipes import ExitRecipe
from .supernet_meter import SupernetMeter
from .training import TrainedSupernet, space_digest


@dataclass(frozen=True, slots=True)
class SupernetSource:
    """What all jobs of one list share: where its parts are, and what they must turn out to be.

    Attributes:
        space, space_digest: name of the space, and :func:`~.training.space_digest` of it.
        checkpoint, ema: the supernet's file, and whether to take its moving average.
        data, data_path, data_limit: as in :func:`hadas.datasets.images.load_images`.
        recipe: of the exits.
        weights_id, recipe_id, split_id: what records of these parts carry.
        device: where to compute, as in :func:`~.devices.resolve_device`, on the machine of the job.
    """

    space: str
    space_digest: str
    checkpoint: str
    ema: bool
    data: str
    data_path: str | None
    data_limit: int | None
    recipe: ExitRecipe
    weights_id: str
    recipe_id: str
    split_id: str
    device: str = "cpu"

    def load(self) -> SupernetMeter:
        """The meter of these parts, on this machine.

        Raises:
            SpaceError, CheckpointError, DataError, ConfigError: a part that is missing here, or that
                is not what was asked for.
        """
        space = space_by_name(self.space)
        if space_digest(space) != self.space_digest:
            raise SpaceError(f"space '{self.space}' has other choices here; {_SAME_HADAS}")
        if self.recipe.recipe_id != self.recipe_id:
            raise ConfigError(
                f"recipe {self.recipe_id} is {self.recipe.recipe_id} here: other code trains the exits; {_SAME_HADAS}"
            )
        data = load_images(self.data, path=self.data_path, limit=self.data_limit)
        if data.split_id != self.split_id:
            raise DataError(
                f"{data.source}: splits {data.split_id} here, {self.split_id} asked for; {_SAME_FILES}"
            )
        trained = TrainedSupernet(Path(self.checkpoint), self.weights_id, 0.0, self.ema)
        meter = SupernetMeter(space, data, trained, self.recipe, device=self.device)
        if meter.weights_id != self.weights_id:
            raise CheckpointError(
                f"{self.checkpoint}: weights {meter.weights_id} here, {self.weights_id} asked for; {_SAME_FILES}"
            )
        return meter


_SAME_HADAS = "install the same version of hadas on every machine"
_SAME_FILES = "give every machine the same files under the same paths"


@dataclass(frozen=True, slots=True)
class AccuracyJob:
    """One backbone to measure, and the identity of its record."""

    source: SupernetSource
    backbone: Backbone
    session: str
    row_no: int

    def on(self, device: str) -> AccuracyJob:
        """The same job for another device."""
        return replace(self, source=replace(self.source, device=device))

    def run(self) -> AccuracyRecord:
        """See :func:`execute_job`."""
        return execute_job(self)

    def failed(self, reason: str) -> AccuracyRecord:
        """The record of this job if it could not be done."""
        source = self.source
        return AccuracyRecord(
            session=self.session,
            row_no=self.row_no,
            backbone=self.backbone,
            weights_id=source.weights_id,
            recipe_id=source.recipe_id,
            split_id=source.split_id,
            first_exit=space_by_name(source.space).first_exit,
            calibration=None,
            test=None,
            valid=False,
            reason=reason,
        )


class PlaceRefusedError(HadasError):
    """A process or machine that cannot measure what is asked for, whatever the backbone."""


@lru_cache(maxsize=1)
def _loaded(source: SupernetSource) -> SupernetMeter:
    """The meter of the latest source, kept: jobs of one list share supernet and images."""
    return source.load()


def execute_job(job: AccuracyJob) -> AccuracyRecord:
    """Measure one backbone in this process, on one thread of it; one that fails is a record with its reason.

    Raises:
        PlaceRefusedError: this machine lacks a part, or has another one; the job may do well elsewhere.
    """
    with fixed_threads(1):
        try:
            meter = _loaded(job.source)
        except Exception as error:
            raise PlaceRefusedError(f"{type(error).__name__}: {error}") from error
        return meter.record(job.backbone, session=job.session, row_no=job.row_no)
