"""Who predicts accuracy and shares of early-exit networks from 60 published records: ours, and what anybody tries first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from _checkout import make_importable

make_importable()

from _edge_records import BITS, N_TEST, EdgeRecord  # noqa: E402
from _plain_models import KINDS  # noqa: E402
from _predictor_tasks import FloatArray, IntArray  # noqa: E402

from hadas.spaces.quantized import FINAL  # noqa: E402
from hadas.surrogates.exit_inputs import ExitInputs  # noqa: E402
from hadas.surrogates.joint_exits import JointExitModel  # noqa: E402

N_DRAWS = 500


@dataclass(frozen=True)
class Records:
    """n records as arrays; e = exits in use of the network that has most.

    Attributes:
        inputs: what our predictor is told.
        accuracy: (n,).
        shares: (n, e), 0 past the last exit.
        cost: (n, e) published J x cycles up to each exit, 0 past the last exit; NaN where not cumulative.
        positions: per record the mounting points in use; head_types: their heads.
    """

    inputs: ExitInputs
    accuracy: FloatArray
    shares: FloatArray
    cost: FloatArray
    positions: tuple[tuple[int, ...], ...]
    head_types: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, records: Sequence[EdgeRecord], *, knows_threshold: bool) -> Records:
        """From published records; without their thresholds if these are what training decides."""
        n_exits = np.array([len(record.positions) for record in records])
        bits = np.full(int(n_exits.sum()), float(BITS))
        inputs = ExitInputs(
            n_exits=n_exits,
            backbone_macs=_flat([record.backbone_macs for record in records]),
            head_layers=_flat([record.head_types for record in records]),
            segment_step=2.0**-bits,
            head_bits=bits,
            threshold=np.array([record.threshold for record in records]) if knows_threshold else None,
        )
        cost = inputs.padded(_flat([record.costs for record in records]), 0.0)
        cost[[not record.is_cumulative for record in records]] = np.nan
        return cls(
            inputs, np.array([record.accuracy for record in records]),
            inputs.padded(_flat([record.shares for record in records]), 0.0), cost,
            tuple(record.positions for record in records), tuple(record.head_types for record in records),
        )  # fmt: skip

    def take(self, rows: IntArray) -> Records:
        """Some of the records."""
        inputs = self.inputs.take(rows)
        e = int(inputs.n_exits.max())
        return Records(
            inputs, self.accuracy[rows], self.shares[rows, :e], self.cost[rows, :e],
            tuple(self.positions[row] for row in rows), tuple(self.head_types[row] for row in rows),
        )  # fmt: skip


def _flat(values: Sequence[Sequence[float]]) -> FloatArray:
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in values])


@dataclass(frozen=True)
class Said:
    """What a contender says of n networks.

    Attributes:
        accuracy: (n,); shares: (n, e).
        accuracy_draws, shares_draws: (s, n) and (s, n, e) of new measurements; ``None`` where it gives none.
    """

    accuracy: FloatArray
    shares: FloatArray
    accuracy_draws: FloatArray | None = None
    shares_draws: FloatArray | None = None


class Contender(Protocol):
    """Learns from some records what others measured."""

    def __call__(self, seen: Records, asked: Records, seed: int) -> Said: ...


def mean_predictor(seen: Records, asked: Records, seed: int) -> Said:
    """Mean accuracy; of shares, per exit the mean among networks seen with as many exits, or equal ones if none was."""
    shares = np.zeros(asked.shares.shape)
    for row, n_exits in zip(shares, asked.inputs.n_exits, strict=True):
        same = seen.inputs.n_exits == n_exits
        row[:n_exits] = seen.shares[same, :n_exits].mean(axis=0) if same.any() else 1.0 / n_exits
    return Said(np.full(len(shares), seen.accuracy.mean()), shares)


def random_forest(seen: Records, asked: Records, seed: int) -> Said:
    """Forests of 300 trees: accuracy by the genome and its summaries, shares exit by exit, then brought to sum to one."""
    fit = KINDS["random forest"]
    accuracy, _ = fit(_network_columns(seen), seen.accuracy, _network_columns(asked), seed)
    flat = seen.shares[seen.inputs.network, seen.inputs.index]
    found, _ = fit(_exit_columns(seen), flat, _exit_columns(asked), seed)
    shares = asked.inputs.padded(np.asarray(found), 0.0)
    return Said(np.asarray(accuracy), shares / shares.sum(axis=1, keepdims=True))


def _network_columns(records: Records) -> FloatArray:
    """(n, d): head type at every mounting point, number of exits, depths of the first, the mean and the deepest
    early exit, and the threshold if it is known."""
    inputs = records.inputs
    heads = np.zeros((len(inputs), FINAL + 1))
    depths = np.empty((len(inputs), 3))
    relative = inputs.backbone_macs / inputs.backbone_macs.max()
    for k, (positions, types) in enumerate(zip(records.positions, records.head_types, strict=True)):
        heads[k, list(positions)] = types
        early = relative[inputs.network == k][:-1]
        depths[k] = (early[0], early.mean(), early[-1]) if len(early) else (1.0, 1.0, 1.0)
    columns = [heads, inputs.n_exits[:, None], depths]
    if inputs.threshold is not None:
        columns.append(inputs.threshold[:, None])
    return np.hstack(columns)


def _exit_columns(records: Records) -> FloatArray:
    """(r, d) of all exits in use, the final ones too: where each stands, how far behind the one before, which it is,
    of how many, its head, whether it is the final one, and the threshold if it is known."""
    inputs = records.inputs
    total = inputs.backbone_macs.max()
    columns = [
        inputs.backbone_macs / total, inputs.segment_macs / total, inputs.index,
        inputs.n_exits[inputs.network], inputs.head_layers, ~inputs.is_early,
    ]  # fmt: skip
    if inputs.threshold is not None:
        columns.append(inputs.threshold[inputs.network])
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def ours(seen: Records, asked: Records, seed: int) -> Said:
    """The toolkit's, with joint draws of what measuring would find."""
    n_samples = np.full(len(seen.accuracy), N_TEST)
    model = JointExitModel(seed=seed).fit(seen.inputs, seen.accuracy, seen.shares, n_samples)
    accuracy, shares = model.mean(asked.inputs)
    draws = model.draws(asked.inputs, N_DRAWS, seed, noise=True)
    return Said(accuracy, shares, draws.accuracy, draws.shares)


CONTENDERS: Mapping[str, Contender] = {"mean": mean_predictor, "random forest": random_forest, "ours": ours}
