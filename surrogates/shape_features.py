"""What the accuracy of a network depends on besides its genes: how its work is laid out over stages.

A network is a chain of blocks in stages of falling resolution, whether it is a member of one of our
spaces or of a table made by others.  Accuracy saturates with depth and width, stage by stage, so
everything counts on the log scale, where the same factor is the same step.

Shapes: k networks, S stages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..spaces import BackboneSpace, Workload
from .prediction import FloatArray

N_TOTALS = 4
"""Last columns of :func:`shape_features`: those of the whole network."""


@dataclass(frozen=True)
class StageTotals:
    """Work of k networks by stage.

    Attributes:
        blocks: (k, S) blocks in each stage; 0 = none.
        macs, params: (k, S) multiply-accumulates and parameters of these blocks.
        network_macs, network_params: (k,) of the whole networks, positive.
        receptive_field_px: (k,) side of the square of the input that the last block sees, pixels.
        macs_unit, params_unit: (S,) or a number: the work of a stage's smallest block, the scale
            below which differences in a stage's work stop to count.
    """

    blocks: FloatArray
    macs: FloatArray
    params: FloatArray
    network_macs: FloatArray
    network_params: FloatArray
    receptive_field_px: FloatArray
    macs_unit: FloatArray | float = 1.0
    params_unit: FloatArray | float = 1.0

    def __post_init__(self) -> None:
        k, n_stages = np.shape(self.blocks)
        for name, shape in (
            ("macs", (k, n_stages)), ("params", (k, n_stages)),
            ("network_macs", (k,)), ("network_params", (k,)), ("receptive_field_px", (k,)),
        ):  # fmt: skip
            values = np.asarray(getattr(self, name))
            if values.shape != shape:
                raise ModelError(f"stage totals: '{name}' is {values.shape}; with 'blocks' {(k, n_stages)} "
                                 f"it must be {shape}")  # fmt: skip
            lowest = 0.0 if values.ndim == 2 else np.finfo(float).tiny
            if not np.isfinite(values).all() or (values < lowest).any():
                raise ModelError(f"stage totals: '{name}' must be finite and "
                                 f"{'not negative' if values.ndim == 2 else 'positive'}")  # fmt: skip


def shape_features(totals: StageTotals) -> FloatArray:
    """Features (k, 3 S + 4), all logs.

    By stage: blocks (half a block added, so that none is a finite step below one), MACs and
    parameters of its blocks in units of its smallest block (one added); then blocks, MACs and
    parameters of the network, and its receptive field.
    """
    return np.hstack(
        [
            np.log(0.5 + totals.blocks),
            np.log1p(totals.macs / totals.macs_unit),
            np.log1p(totals.params / totals.params_unit),
            np.log(0.5 + totals.blocks.sum(axis=1, keepdims=True)),
            np.log(totals.network_macs)[:, None],
            np.log(totals.network_params)[:, None],
            np.log(totals.receptive_field_px)[:, None],
        ]
    )


def thermometer(choices: NDArray[np.int64], n_levels: int) -> FloatArray:
    """Ordered choices (k, g) as (k, g (n_levels - 1)) bits: of each gene, whether it is at least 1, 2, ...

    Unlike the index itself this lets every step have an effect of its own, and unlike one bit per
    level it keeps neighbouring levels closer than distant ones.

    Raises:
        ModelError: a choice outside 0..n_levels - 1.
    """
    choices = np.asarray(choices)
    if choices.size and (choices.min() < 0 or choices.max() >= n_levels):
        raise ModelError(
            f"choices run from {choices.min()} to {choices.max()}; with {n_levels} levels: 0..{n_levels - 1}"
        )
    return np.hstack([(choices >= level).astype(np.float64) for level in range(1, n_levels)])


def receptive_field_px(workload: Workload) -> list[float]:
    """Side of the receptive field after each block, pixels.

    Every convolution adds (kernel - 1) x the distance in the input between neighbours of what it reads.
    """
    fields, field = [], 1.0
    image_side = workload.stem.in_shape[1]
    for unit in (workload.stem, *workload.blocks):
        for layer in unit.layers:
            # Squeeze-and-excitation reads pooled values: a side of 1, and kernels of 1.
            if layer.kernel > 1:
                field += (layer.kernel - 1) * image_side / layer.in_shape[1]
        fields.append(field)
    return fields[1:]


def n_shape_features(space: BackboneSpace) -> int:
    """Columns of :func:`shape_features` for a space's members: three per stage, and the totals."""
    return 3 * sum(variable.name.startswith("depth.") for variable in space.variables) + N_TOTALS


def coarse_columns(space: BackboneSpace) -> tuple[int, ...]:
    """Columns of :func:`.features.backbone_features` that alone say most: input resolution, and the
    network's totals (blocks, MACs, parameters, receptive field)."""
    n_features = len(space.variables) + n_shape_features(space)
    resolution = [i for i, variable in enumerate(space.variables) if variable.name == "resolution"]
    return (*resolution, *range(n_features - N_TOTALS, n_features))


def workload_totals(workload: Workload) -> StageTotals:
    """Totals (k = 1) of a member of one of our spaces."""
    stage = np.array([block.stage for block in workload.blocks]) - 1
    n_stages = int(workload.tail.stage) - 1

    def by_stage(values: list[float]) -> FloatArray:
        return np.bincount(stage, weights=values, minlength=n_stages)[None, :].astype(np.float64)

    return StageTotals(
        by_stage([1.0] * len(stage)),
        by_stage([float(block.macs) for block in workload.blocks]),
        by_stage([float(block.params) for block in workload.blocks]),
        np.array([float(workload.macs)]),
        np.array([float(workload.params)]),
        np.array([receptive_field_px(workload)[-1]]),
    )
