"""Cost on a new board: many rows of another board, and a few of its own.

    source = NetworkCostModel.fit(nano_rows, "latency_ms", seed=0)
    model = TransferredCostModel.fit(source, thirty_tx2_rows, seed=0)
    median, low, high = model.interval(unmeasured, level=0.9)

log(cost on the new board) = log(cost on the old board, as its model says) + residual.  Where the network was
measured on the old board that model is all but sure of it, elsewhere its doubt is carried over.  The residual is
the logarithm of a ratio of speeds.  Boards differ by another factor in each resource, so the ratio depends on how
much of the cost each resource takes on the old board, on what the network is like, and on how large it is:
one Gaussian process for each of these views, averaged, as a few dozen rows cannot say which is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np

from ..errors import ModelError
from .models import Design, IntArray, KernelPart, Model, ModelState, make_model
from .network_cost import NetworkCostModel, NetworkPaths
from .network_features import network_features
from .network_inputs import Columns
from .network_rows import NetworkRows
from .prediction import FloatArray, Prediction
from .stacking import Stack, WidenedPaths, interval, nested_states, stack_from_states, states_in, widened

MIN_ROWS = 3
"""Rows of the new board below which there is no telling a ratio from noise."""

SIZES = ("conv_params", "params", "macs", "activations", "n_layers")
SHAPES = ("macs_per_activation", "macs_per_conv_param", "dense_share")


class TransferredCostModel:
    """A quantity of whole networks on a board of which few rows are known.

    Attributes:
        source: the model of the other board.
        columns: what it may be asked about.
        n_rows: of the new board that it was fitted to.
    """

    def __init__(self, source: NetworkCostModel, columns: Columns, stack: Stack, n_rows: int) -> None:
        self.source, self.columns, self.n_rows = source, columns, n_rows
        self._stack = stack

    @property
    def quantity(self) -> str:
        """What is predicted."""
        return self.source.quantity

    @classmethod
    def fit(cls, source: NetworkCostModel, rows: NetworkRows, *, seed: int) -> Self:
        """Learn how the new board differs.

        Args:
            rows: of the new board; ``value`` is the source's quantity, NaN where it was not measured.

        Raises:
            ModelError: too few rows, rows of several boards, a value not above 0, or networks known by other
                totals than the source's.
        """
        value = np.asarray(rows.value, dtype=np.float64)
        bad = np.flatnonzero(np.isinf(value) | (value <= 0))
        if len(bad):
            raise ModelError(f"row {bad[0]}: '{source.quantity}' is {value[bad[0]]}; it must be positive")
        rows = rows.take(np.asarray(np.flatnonzero(np.isfinite(value)), dtype=np.int64))
        if len(rows) < MIN_ROWS:
            raise ModelError(
                f"{len(rows)} measured rows of the new board; at least {MIN_ROWS} are needed to compare it with "
                f"{list(source.columns.devices)}"
            )
        columns = Columns.of(rows)
        model = cls(source, columns, _evenly({}), len(rows))
        base, x, views = model._inputs(rows)
        noise = base.var_epistemic[:, 0] + rows.relative_noise**2
        residual = np.log(rows.value) - base.mean[:, 0]
        members: dict[str, Model] = {}
        for name, view in views.items():
            design = Design((KernelPart(tuple(int(column) for column in view)),))
            member = make_model("gp", source.quantity, source.unit, seed=seed, design=design)
            members[name] = member.fit(x, residual[:, None], noise[:, None])
        model._stack = _evenly(members)
        return model

    def _inputs(self, rows: NetworkRows) -> tuple[Prediction, FloatArray, dict[str, IntArray]]:
        """What the source says of n rows, features (n, d) of the residual, and the columns of each view."""
        self.columns.check(rows)
        asked = self._as_of_source(rows)
        base = self.source.predict(asked)
        features = network_features({name: rows.totals[name] for name in self.source.columns.totals})
        groups = {
            "size": {
                "source": base.mean[:, 0], **{k: v for k, v in features.totals.items() if k in SIZES},
                **self._settings(rows),
            },
            "shape": {
                "source ": base.mean[:, 0], **{k: v for k, v in features.shape.items() if k in SHAPES},
            },
            "resources": self.source.resource_shares(asked),
        }  # fmt: skip
        columns, views, start = [], {}, 0
        for name, group in groups.items():
            if group:
                columns += list(group.values())
                views[name] = np.arange(start, start + len(group), dtype=np.int64)
                start += len(group)
        return base, np.column_stack(columns), views

    def _settings(self, rows: NetworkRows) -> dict[str, FloatArray]:
        """Settings that changed on the new board."""
        found = {f"log {name}": np.log(rows.clocks_ghz[name]) for name in self.columns.clocks}
        return found | {name: rows.knobs[name] for name in self.columns.knobs}

    def _as_of_source(self, rows: NetworkRows) -> NetworkRows:
        """The same networks on the other board, at the settings it was measured at where these never changed."""
        source, n = self.source.columns, len(rows)
        missing = sorted(({*source.clocks} - rows.clocks_ghz.keys()) | ({*source.knobs} - rows.knobs.keys()))
        if missing:
            raise ModelError(
                f"on {list(source.devices)} {missing} changed and matter; the new rows do not say what they were"
            )
        fixed = {name: np.full(n, value) for name, value in source.fixed.items()}
        return replace(
            rows,
            clocks_ghz={**{name: rows.clocks_ghz[name] for name in source.clocks}},
            knobs={**{name: rows.knobs[name] for name in source.knobs}, **fixed},
            devices=np.full(n, source.devices[0]),
        )

    def predict(self, rows: NetworkRows) -> Prediction:
        """Means and variances (n, 1) of the quantity's logarithm; values of ``rows`` are not looked at.

        Raises:
            ModelError: rows of another board, or with other totals or settings than it was trained on.
        """
        base, x, views = self._inputs(rows)
        residual = widened(self._stack.predict(x), self._factor(x, len(views)))
        return replace(
            residual,
            mean=base.mean + residual.mean,
            var_epistemic=base.var_epistemic + residual.var_epistemic,
        )

    def _factor(self, x: FloatArray, n_views: int) -> float:
        """Of the residual's standard deviation.

        A function of a few columns that was chosen by a few rows fits these better than it fits others.
        """
        chosen = x.shape[1] / n_views
        return float(np.sqrt(self.n_rows / max(self.n_rows - chosen, 1.0)))

    def interval(self, rows: NetworkRows, level: float = 0.9) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Medians (n,) and both ends (n,) of central intervals for a new measurement, in the quantity's unit."""
        return interval(self.predict(rows), level)

    def paths(self, n_draws: int, seed: int) -> TransferredPaths:
        """Joint draws of the noise-free quantity's logarithm, as functions of rows; they scatter as predicted."""
        residual = WidenedPaths(self._stack, n_draws, seed + 1)
        return TransferredPaths(self, self.source.paths(n_draws, seed), residual)

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit; no code."""
        states = {name: model.state() for name, model in self._stack.members.items()}
        return nested_states(
            {"kind": "transferred-cost", "columns": self.columns.document(), "n_rows": self.n_rows},
            {"source": self.source.state(), **states},
        )

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The inverse of :meth:`state`.

        Raises:
            ModelError: another kind of model, or one of another version of the features.
            KeyError, ValueError, TypeError: the state is damaged (the persistence layer says which file).
        """
        values: Any = state.values
        if values.get("kind") != "transferred-cost":
            raise ModelError(f"a model of kind '{values.get('kind')}' is no transferred cost model")
        states = states_in(state)
        source = NetworkCostModel.from_state(states.pop("source"))
        stack = stack_from_states(states, dict.fromkeys(states, 1.0 / len(states)))
        return cls(source, Columns.of_document(values["columns"]), stack, int(values["n_rows"]))


def _evenly(members: Mapping[str, Model]) -> Stack:
    """A few dozen rows cannot say what each member is worth."""
    return Stack(members, dict.fromkeys(members, 1.0 / max(len(members), 1)))


class TransferredPaths:
    """s joint draws: of the other board's cost and of the ratio, which are taken as independent."""

    def __init__(self, model: TransferredCostModel, source: NetworkPaths, residual: WidenedPaths) -> None:
        self._model, self._source, self._residual = model, source, residual

    def __call__(self, rows: NetworkRows) -> FloatArray:
        """Evaluate every draw at n rows; returns (s, n, 1)."""
        _, x, views = self._model._inputs(rows)
        residual = self._residual(x, self._model._factor(x, len(views)))
        return self._source(self._model._as_of_source(rows)) + residual
