"""Accuracy of backbones, measured for real: extract, calibrate, train exits, evaluate."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future

import numpy as np

from ...datasets.images import ImageData
from ...datasets.records import AccuracyRecord, OutcomeMatrix
from ...spaces import Backbone, MBConvSpace
from .devices import hardware_name, resolve_device, seconds_now
from .evaluation import (
    evaluate_splits,
    one_thread_workers,
    recalibrate_batch_norm,
)
from .exits import train_exits
from .feature_cache import check_feature_caches
from .inputs import SplitInputs
from .network import EarlyExitNetwork
from .recipes import ExitRecipe
from .training import TrainedSupernet, load_supernet


class SupernetMeter:
    """Measures backbones of one space as slices of one trained supernet.

    A record depends on backbone, weights, data and recipe alone: its seed follows from the
    recipe's and the backbone's ``arch_id``.
    """

    def __init__(
        self, space: MBConvSpace, data: ImageData, trained: TrainedSupernet, recipe: ExitRecipe, *,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        """Load the supernet.

        Args:
            device: where to compute, as in :func:`~.devices.resolve_device`; changes rounding only.

        Raises:
            CheckpointError: it is of another space or number of classes.
            ConfigError: this machine has no such device.
        """
        self._device = resolve_device(device)
        supernet, found = load_supernet(trained.path, space, data.n_classes, ema=trained.ema)
        self._supernet = supernet.to(self._device)
        self._space = space
        self._split_id = data.split_id
        self._train, self._calibration, self._test = (
            SplitInputs(split, self._device) for split in (data.train, data.calibration, data.test)
        )
        self._recipe = recipe
        self._weights_id = found.weights_id

    @property
    def weights_id(self) -> str:
        """Hash of the supernet's weights."""
        return self._weights_id

    @property
    def recipe_id(self) -> str:
        """Hash of the exit recipe."""
        return self._recipe.recipe_id

    @property
    def split_id(self) -> str:
        """The data's splits."""
        return self._split_id

    def measure(
        self, backbones: Sequence[Backbone], *, session: str, first_row: int = 0
    ) -> Generator[AccuracyRecord, None, None]:
        """Yield one record per backbone; one that fails yields an invalid record with the reason.

        Raises:
            ConfigError: the features that the recipe wants to keep do not fit into memory.
        """
        jobs: deque[Future[AccuracyRecord]] = deque()
        # Side by side on a GPU, jobs would wait for each other and count the other's seconds.
        threads = self._recipe.threads if self._device.type == "cpu" else 1
        check_feature_caches(
            self._space, backbones, self._recipe, n_classes=self._supernet.n_classes, n_train=len(self._train),
            device=self._device, side_by_side=threads,
        )  # fmt: skip
        with one_thread_workers(threads) as pool:
            for row_no, backbone in enumerate(backbones, start=first_row):
                jobs.append(pool.submit(self.record, backbone, session=session, row_no=row_no))
                if len(jobs) > threads:  # no further ahead than needed: a kill loses little
                    yield jobs.popleft().result()
            while jobs:
                yield jobs.popleft().result()

    def record(self, backbone: Backbone, *, session: str, row_no: int) -> AccuracyRecord:
        """Measure one backbone in this thread; what fails is an invalid record with the reason."""
        seconds: dict[str, float] = {}
        calibration = test = None
        reason = ""
        try:
            calibration, test = self._outcomes(backbone, seconds)
        except Exception as error:  # one backbone's failure must not end the others' measurement
            reason = f"{type(error).__name__}: {error}"
        return AccuracyRecord(
            session=session,
            row_no=row_no,
            backbone=backbone,
            weights_id=self.weights_id,
            recipe_id=self.recipe_id,
            split_id=self.split_id,
            first_exit=self._space.first_exit,
            calibration=calibration,
            test=test,
            seconds=seconds,
            hardware=hardware_name(self._device),
            valid=not reason,
            reason=reason,
        )

    def _outcomes(self, backbone: Backbone, seconds: dict[str, float]) -> tuple[OutcomeMatrix, OutcomeMatrix]:
        network = self._trained_network(backbone, seconds)
        began = seconds_now(self._device)
        calibration, test = evaluate_splits(network, self._calibration, self._test, self._recipe)
        seconds["evaluate"] = seconds_now(self._device) - began
        return calibration, test

    def _trained_network(self, backbone: Backbone, seconds: dict[str, float]) -> EarlyExitNetwork:
        recipe, train = self._recipe, self._train
        self._space.encode(backbone)  # a backbone of another space has no slice here
        began = seconds_now(self._device)
        network = self._supernet.extract(backbone)
        network.requires_grad_(False)
        rng = np.random.default_rng(_seed(recipe.seed, backbone))
        n_calibration = min(len(train), recipe.calibration_batches * recipe.calibration_batch_size)
        rows = rng.choice(len(train), n_calibration, replace=False)
        batches = train.batches(recipe.calibration_batch_size, network.normalization, rows)
        recalibrate_batch_norm(network, network.final_logits, batches)
        seconds["calibrate"] = seconds_now(self._device) - began
        began = seconds_now(self._device)
        rows = rng.choice(len(train), min(len(train), recipe.train_images), replace=False)
        network.heads.requires_grad_(True)
        train_exits(network, train, rows, recipe, seed=_seed(recipe.seed, backbone))
        network.requires_grad_(False)
        seconds["exits"] = seconds_now(self._device) - began
        return network


def _seed(seed: int, backbone: Backbone) -> int:
    """A seed of its own for every backbone, the same wherever it stands in a sequence."""
    digest = hashlib.sha256(f"{seed}/{backbone.arch_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
