"""Features from physics: what drives cost and accuracy, on the scales it acts on.

Changing what a column means invalidates saved models: raise :data:`FEATURE_VERSION`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ModelError
from ..spaces import Backbone, BackboneSpace, ClockTable, Layer, Setting, Stage, Workload
from .prediction import FloatArray
from .shape_features import shape_features, workload_totals

FEATURE_VERSION = 2

Signature = tuple[str, tuple[Layer, ...]]
"""What a stage costs depends on: its kind and its layers, not where on which backbone they stand."""

N_STAGE_FEATURES = 17
N_SHARES = 3

_COUNTED_KINDS = ("conv", "depthwise", "linear", "pool", "elementwise")


def signature(stage: Stage) -> Signature:
    """Identity of a stage as far as its cost goes."""
    return stage.kind, stage.layers


@dataclass(frozen=True)
class StageWork:
    """Totals of r stages that the cost of a stage is made of; all arrays (r,).

    Attributes:
        dense_macs, depthwise_macs: multiply-accumulates of dense layers (linear included)
            and of depthwise ones, which keep a processor far less busy.
        bytes_moved: activations and weights.
        n_layers: kernel launches.
    """

    dense_macs: FloatArray
    depthwise_macs: FloatArray
    bytes_moved: FloatArray
    n_layers: FloatArray

    def take(self, rows: np.ndarray) -> StageWork:
        """The totals of the given stages, repeats allowed."""
        return StageWork(
            self.dense_macs[rows], self.depthwise_macs[rows], self.bytes_moved[rows], self.n_layers[rows]
        )


def stage_work(signatures: Sequence[Signature]) -> StageWork:
    """Work totals of stages."""
    rows = []
    for _, layers in signatures:
        depthwise = sum(layer.macs for layer in layers if layer.kind == "depthwise")
        rows.append(
            (
                sum(layer.macs for layer in layers) - depthwise,
                depthwise,
                sum(layer.bytes_moved for layer in layers),
                len(layers),
            )
        )
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return StageWork(*columns)


def stage_features(signatures: Sequence[Signature]) -> FloatArray:
    """Setting-free features (r, 17) of stages: work, layer counts, shapes; logs of counts throughout."""
    rows = []
    for kind, layers in signatures:
        depthwise = sum(layer.macs for layer in layers if layer.kind == "depthwise")
        dense = sum(layer.macs for layer in layers) - depthwise
        moved = sum(layer.bytes_moved for layer in layers)
        counts = [sum(layer.kind == counted for layer in layers) for counted in _COUNTED_KINDS]
        largest = max(layers, key=lambda layer: layer.macs)
        rows.append(
            [
                float(kind == "head"),
                *np.log1p([dense, depthwise, moved, sum(layer.params for layer in layers)]),
                *np.log1p(counts),
                *np.log([layers[0].in_shape[0], layers[0].in_shape[1]]),
                *np.log([layers[-1].out_shape[0], max(layer.out_shape[1] for layer in layers)]),
                np.log(largest.out_shape[0]),
                np.log1p(largest.macs),
                np.log1p(dense + depthwise) - np.log1p(moved),
            ]
        )
    return np.array(rows, dtype=np.float64).reshape(-1, N_STAGE_FEATURES)


@dataclass(frozen=True)
class ClockRoles:
    """Which clock domain computes and which moves data; ``None`` where a device has no such clock.

    The compute clock is ``gpu``, else ``cpu``, else the first that is not ``emc``.
    """

    domains: tuple[str, ...]
    compute: str | None
    memory: str | None

    @classmethod
    def of(cls, table: ClockTable) -> ClockRoles:
        """From the domains of a clock table."""
        names = tuple(domain.name for domain in table.domains)
        others = [name for name in ("gpu", "cpu", *names) if name in names and name != "emc"]
        return cls(names, others[0] if others else None, "emc" if "emc" in names else None)

    def clocks_ghz(self, settings: Sequence[Setting]) -> FloatArray:
        """Clock frequencies (F, number of domains), GHz.

        Raises:
            ModelError: a setting whose domains are not the table's.
        """
        for setting in settings:
            if tuple(name for name, _ in setting.clocks_hz) != self.domains:
                raise ModelError(
                    f"setting '{setting}' names clocks {[name for name, _ in setting.clocks_hz]}; "
                    f"the model was made for {list(self.domains)}"
                )
        flat = [[hz / 1e9 for _, hz in setting.clocks_hz] for setting in settings]
        return np.array(flat, dtype=np.float64).reshape(len(settings), len(self.domains))

    def column(self, clocks_ghz: FloatArray, role: str | None) -> FloatArray:
        """(n,) GHz of one role; 1 where the device has no such clock."""
        if role is None:
            return np.ones(len(clocks_ghz))
        return clocks_ghz[:, self.domains.index(role)]


def cost_features(
    stage_rows: FloatArray, work: StageWork, clocks_ghz: FloatArray, roles: ClockRoles, shares: FloatArray
) -> FloatArray:
    """Features of paired rows: a stage at a setting.

    Args:
        stage_rows: (n, 17) from :func:`stage_features`; work: n totals; clocks_ghz: (n, domains).
        shares: (n, 3) shares of compute, memory and launches in the baseline latency.

    Returns:
        (n, d): the stage, the shares, each clock's log and inverse, and logs of compute time,
        memory time, launch time and the ratio of the first two (up to constants).  Where no
        clock is controlled, the stage and the shares alone.
    """
    if not roles.domains:
        return np.hstack([stage_rows, shares])
    compute = np.log(roles.column(clocks_ghz, roles.compute))
    memory = np.log(roles.column(clocks_ghz, roles.memory))
    compute_time = np.log1p(work.dense_macs + work.depthwise_macs) - compute
    memory_time = np.log1p(work.bytes_moved) - memory
    launch_time = np.log(work.n_layers) - compute
    derived = np.stack([compute_time, memory_time, launch_time, compute_time - memory_time], axis=1)
    return np.hstack([stage_rows, shares, np.log(clocks_ghz), 1.0 / clocks_ghz, derived])


def backbone_features(space: BackboneSpace, backbone: Backbone, workload: Workload) -> FloatArray:
    """Features (d,) of a backbone: the values its genes choose, then how its work is laid out over stages."""
    genome = space.encode(backbone)
    values = [variable.choices[int(index)] for variable, index in zip(space.variables, genome, strict=True)]
    return np.concatenate([np.array(values, dtype=np.float64), shape_features(workload_totals(workload))[0]])


def exit_features(space: BackboneSpace, backbone: Backbone, workload: Workload) -> FloatArray:
    """Features (P, d) of a backbone's exit positions: the backbone's, and where the exit stands."""
    macs = workload.stem.macs + np.cumsum([block.macs for block in workload.blocks])
    n_blocks = len(workload.blocks)
    rows = []
    for position in range(workload.first_exit, n_blocks):
        block = workload.blocks[position]
        in_stage = max(b.index_in_stage for b in workload.blocks if b.stage == block.stage)
        channels, side, _ = block.out_shape
        rows.append(
            [
                float(block.stage),
                float(block.index_in_stage),
                float(in_stage - block.index_in_stage),
                (position + 1) / n_blocks,
                float(macs[position] / workload.macs),
                float(np.log(macs[position])),
                float(np.log(channels)),
                float(np.log(side)),
                float(np.log(workload.heads[position - workload.first_exit].macs)),
            ]
        )
    where = np.array(rows, dtype=np.float64).reshape(-1, 9)
    shared = np.tile(backbone_features(space, backbone, workload), (len(rows), 1))
    return np.hstack([shared, where])
