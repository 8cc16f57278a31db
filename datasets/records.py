"""Typed records: what was measured, on what, how well, and whether it may be believed.

Two kinds of row exist.  A :class:`CostRecord` is one early-exit network run on one device at
one clock setting.  An :class:`AccuracyRecord` is one backbone evaluated on one split, with
the outcome of every sample at every exit; it carries no device, so all devices share it.
A failed measurement is a record too: ``valid`` is false and ``reason`` says why.

Units: ms, mJ, Hz, seconds for what a measurement cost.  Imports with numpy alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import RecordError
from ..spaces import Backbone, Setting
from .evidence import Evidence

Program = Literal["stages", "prefix"]
StageKind = Literal["segment", "head", "prefix"]


class Truth(StrEnum):
    """Where a cost came from.  A study trains on rows of one truth only."""

    DEVICE = "device"
    REPLAY = "replay"
    SIMULATOR = "simulator"

    @property
    def mark(self) -> str:
        """What is written over everything that shows such costs; nothing over measured ones."""
        return {Truth.DEVICE: "", Truth.REPLAY: "REPLAYED", Truth.SIMULATOR: "SIMULATED"}[self]


@dataclass(frozen=True, slots=True)
class Statistic:
    """A measured quantity: its value, the standard error of that value, and how many runs it took."""

    value: float
    standard_error: float
    n: int


@dataclass(frozen=True)
class Target:
    """What a cost belongs to.  Two targets never mix.

    Attributes:
        board, processor: hardware, e.g. ``jetson-tx2`` and ``pascal-gpu``.
        release: firmware or operating-system release, or the simulator's parameter-set hash.
        runtime: what executes the network, with its version.
        dtype: ``fp32``, ``fp16`` ...
        batch: samples per inference.
        pinned: further fixed settings, sorted (name, value) pairs.
    """

    board: str
    processor: str
    release: str
    runtime: str
    dtype: str = "fp32"
    batch: int = 1
    pinned: tuple[tuple[str, str], ...] = ()

    @cached_property
    def target_id(self) -> str:
        """Readable and unique: board, processor and 8 hex digits over all fields."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.board}-{self.processor}-{digest[:8]}"


@dataclass(frozen=True, slots=True)
class StageCost:
    """Cost of one stage of an early-exit network (see :class:`hadas.spaces.Stage`).

    Attributes:
        kind: ``segment`` or ``head``; ``prefix`` in rows of compiled prefix programs, whose costs are
            cumulative: everything from the input up to and including the exit.
        position: exit position (block index) the stage ends at; L for the last segment.
        latency_ms: per inference.
        energy_mj: per inference, gross; ``None`` where the device has no energy counter.
    """

    kind: StageKind
    position: int
    latency_ms: Statistic
    energy_mj: Statistic | None


@dataclass(frozen=True)
class CostRecord:
    """One early-exit network measured on one device at one clock setting.

    Attributes:
        session, row_no: identity of the row.
        backbone, n_classes: what was run.
        heads: (position, type) of the exits in use, ascending.
        program: ``stages`` = one compiled program per stage, decision on the host; ``prefix`` = one
            compiled program per exit, which runs everything up to it.
        requested, actual: clocks asked for and read back.
        target, truth: whose cost this is, and whether it is measured, replayed or simulated.
        stages: cost of every stage, in execution order; empty if only the total was measured.
        latency_ms, energy_mj: the full pass through all stages; energy ``None`` without a counter.
        device_seconds: device time this row took, warm-up and settling included.
        valid, reason: ``valid=False`` rows are kept, never trained on; ``reason`` says why.
        evidence: how it was measured; ``None`` in simulated and older rows.
    """

    session: str
    row_no: int
    backbone: Backbone
    n_classes: int
    heads: tuple[tuple[int, int], ...]
    requested: Setting
    actual: Setting
    target: Target
    truth: Truth
    stages: tuple[StageCost, ...]
    latency_ms: Statistic | None
    energy_mj: Statistic | None
    device_seconds: float
    program: Program = "stages"
    valid: bool = True
    reason: str = ""
    evidence: Evidence | None = None

    def check(self, source: str = "cost record") -> Self:
        """Refuse impossible values in a row that claims to be valid.

        Raises:
            RecordError: names the field, its unit and the row.
        """
        if not self.valid:
            if not self.reason:
                raise RecordError(
                    "an invalid row needs a reason", source=source, row=self.row_no, field="reason", value=""
                )
            return self
        if self.latency_ms is None:
            raise RecordError(
                "a valid row needs a latency", source=source, row=self.row_no, field="latency_ms", unit="ms"
            )
        _check_statistic(self.latency_ms, source, self.row_no, "latency_ms", "ms")
        if self.energy_mj is not None:
            _check_statistic(self.energy_mj, source, self.row_no, "energy_mj", "mJ")
        for i, stage in enumerate(self.stages):
            _check_statistic(stage.latency_ms, source, self.row_no, f"stages[{i}].latency_ms", "ms")
            if stage.energy_mj is not None:
                _check_statistic(stage.energy_mj, source, self.row_no, f"stages[{i}].energy_mj", "mJ")
        return self


def _check_statistic(statistic: Statistic, source: str, row: int, name: str, unit: str) -> None:
    if not math.isfinite(statistic.value) or statistic.value <= 0:
        raise RecordError(
            "must be a positive finite number",
            source=source,
            row=row,
            field=name,
            unit=unit,
            value=statistic.value,
        )
    if not math.isfinite(statistic.standard_error) or statistic.standard_error < 0:
        raise RecordError(
            "must be a finite number, not negative",
            source=source, row=row, field=f"{name}.standard_error", unit=unit, value=statistic.standard_error,
        )  # fmt: skip


@dataclass(frozen=True)
class OutcomeMatrix:
    """What every exit says about every sample: enough to compute any runtime policy offline.

    Columns are exits in order of depth; the last column is the final classifier.
    n = samples, e = exit positions + 1.

    Attributes:
        correct: (n, e) bool.
        confidence: (n, e) float16, largest softmax probability.
        margin: (n, e) float16, largest minus second largest probability.
        entropy: (n, e) float16, nats.
        predicted: (n, e) int16, class index.
        group: (n,) int32, index of the underlying image; copies of one image share it, and
            error bars count groups.
        temperature: (e,) float32, what each exit's logits were divided by before the softmax that
            confidence, margin and entropy are of; ones unless given.
    """

    correct: NDArray[np.bool_]
    confidence: NDArray[np.float16]
    margin: NDArray[np.float16]
    entropy: NDArray[np.float16]
    predicted: NDArray[np.int16]
    group: NDArray[np.int32]
    temperature: NDArray[np.float32] = field(default_factory=lambda: np.ones(0, dtype=np.float32))

    def __post_init__(self) -> None:
        if not self.temperature.size:
            object.__setattr__(self, "temperature", np.ones(self.n_exits, dtype=np.float32))

    @property
    def n_samples(self) -> int:
        """Number of samples, n."""
        return int(self.correct.shape[0])

    @property
    def n_exits(self) -> int:
        """Exit positions + 1 (the final classifier), e."""
        return int(self.correct.shape[1])

    @cached_property
    def fractions(self) -> NDArray[np.float64]:
        """(e,) fraction of samples that each exit classifies correctly: the paper's N_i."""
        return np.asarray(self.correct.mean(axis=0), dtype=np.float64)

    def standard_errors(self) -> NDArray[np.float64]:
        """(e,) standard errors of :attr:`fractions`, clustered by underlying image."""
        return np.array(
            [clustered_standard_error(self.correct[:, i], self.group) for i in range(self.n_exits)]
        )

    def to_bytes(self) -> bytes:
        """A compressed npz archive (no pickle inside)."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, shape=np.array(self.correct.shape), correct=np.packbits(self.correct), confidence=self.confidence,
            margin=self.margin, entropy=self.entropy, predicted=self.predicted, group=self.group,
            temperature=self.temperature,
        )  # fmt: skip
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of :meth:`to_bytes`."""
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            n, e = (int(v) for v in archive["shape"])
            correct = np.unpackbits(archive["correct"], count=n * e).reshape(n, e).astype(bool)
            # Rows written before temperatures were fitted have none: they were all 1.
            temperature = archive["temperature"] if "temperature" in archive else np.ones(e, dtype=np.float32)
            return cls(
                correct, archive["confidence"], archive["margin"], archive["entropy"], archive["predicted"],
                archive["group"], temperature,
            )  # fmt: skip


def clustered_standard_error(values: NDArray[Any], group: NDArray[np.int32]) -> float:
    """Standard error of a mean whose samples come in groups (copies of one image).

    Args:
        values: (n,) per-sample values.
        group: (n,) group index.

    Formula: the cluster-robust variance of a mean, sum over groups of the squared sum of
    residuals, over n squared, times g / (g - 1) for g groups.
    """
    residuals = np.asarray(values, dtype=np.float64) - float(np.mean(values))
    _, inverse = np.unique(group, return_inverse=True)
    sums = np.bincount(inverse, weights=residuals)
    n_groups = len(sums)
    if n_groups < 2:
        return math.nan
    return math.sqrt(float(np.sum(sums**2)) * n_groups / (n_groups - 1)) / len(residuals)


@dataclass(frozen=True)
class AccuracyRecord:
    """One backbone, its exits trained at all positions, evaluated on two disjoint splits.

    Attributes:
        session, row_no: identity of the row.
        backbone: the subnet.
        weights_id: hash of the supernet weights it took.
        recipe_id: hash of how exits were trained and batch norm re-calibrated.
        split_id: data set, split and distortion.
        first_exit: block index of the first exit column.
        calibration: outcomes on the split that thresholds and the search may use.
        test: outcomes on the split that only reports use.
        seconds: what it cost, by step: ``calibrate``, ``exits``, ``evaluate``.
        valid, reason: as in :class:`CostRecord`; an invalid row has no matrices.
        hardware: what ``seconds`` were spent on; empty in rows written before it was noted.
    """

    session: str
    row_no: int
    backbone: Backbone
    weights_id: str
    recipe_id: str
    split_id: str
    first_exit: int
    calibration: OutcomeMatrix | None
    test: OutcomeMatrix | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    valid: bool = True
    reason: str = ""
    hardware: str = ""


def cross_fit_folds(group: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Split samples into two halves by underlying image, so that thresholds fitted on one half
    are judged on the other.

    Returns:
        (n,) bool: True for the second half.  The same image always falls into the same half.
    """
    return np.asarray(np.asarray(group) % 2 == 1)
