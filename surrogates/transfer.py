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
from scipy.stats import norm

from ..errors import ModelError
from .average import MixturePaths
from .models import Design, IntArray, KernelPart, Model, ModelState, make_model, model_from_state
from .network_cost import NetworkCostModel, NetworkPaths, mixture, nested_states, states_in
from .network_features import network_features
from .network_inputs import Columns
from .network_rows import NetworkRows
from .prediction import FloatArray, Prediction

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

    def __init__(
        self, source: NetworkCostModel, columns: Columns, members: Mapping[str, Model], n_rows: int
    ) -> None:
        self.source, self.columns, self.n_rows = source, columns, n_rows
        self._members = dict(members)

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
        model = cls(source, columns, {}, len(rows))
        base, x, views = model._inputs(rows)
        noise = base.var_epistemic[:, 0] + rows.relative_noise**2
        residual = np.log(rows.value) - base.mean[:, 0]
        for name, view in views.items():
            design = Design((KernelPart(tuple(int(column) for column in view)),))
            member = make_model("gp", source.quantity, source.unit, seed=seed, design=design)
            model._members[name] = member.fit(x, residual[:, None], noise[:, None])
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
        share = 1.0 / len(self._members)
        residual = mixture([m.predict(x) for m in self._members.values()], [share] * len(self._members))
        # A function of a few columns that was chosen by a few rows fits these better than it fits others.
        chosen = x.shape[1] / len(views)
        factor = self.n_rows / max(self.n_rows - chosen, 1.0)
        return replace(
            residual,
            mean=base.mean + residual.mean,
            var_epistemic=base.var_epistemic + factor * residual.var_epistemic,
            var_noise=factor * residual.var_noise,
        )

    def interval(self, rows: NetworkRows, level: float = 0.9) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Medians (n,) and both ends (n,) of central intervals for a new measurement, in the quantity's unit."""
        found = self.predict(rows)
        mean, sd = found.mean[:, 0], found.sd_total[:, 0]
        half = float(norm.ppf(0.5 + level / 2)) * sd
        return np.exp(mean), np.exp(mean - half), np.exp(mean + half)

    def paths(self, n_draws: int, seed: int) -> TransferredPaths:
        """Joint draws of the noise-free quantity's logarithm, as functions of rows.

        They scatter as the members say: what :meth:`predict` widens its variances by is not in them.
        """
        weights = np.full(len(self._members), 1.0 / len(self._members))
        residual = MixturePaths(tuple(self._members.values()), weights, n_draws, seed + 1)
        return TransferredPaths(self, self.source.paths(n_draws, seed), residual)

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit; no code."""
        states = {name: model.state() for name, model in self._members.items()}
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
        members = {name: model_from_state(inner) for name, inner in states.items()}
        return cls(source, Columns.of_document(values["columns"]), members, int(values["n_rows"]))


class TransferredPaths:
    """s joint draws: of the other board's cost and of the ratio, which are taken as independent."""

    def __init__(self, model: TransferredCostModel, source: NetworkPaths, residual: MixturePaths) -> None:
        self._model, self._source, self._residual = model, source, residual

    def __call__(self, rows: NetworkRows) -> FloatArray:
        """Evaluate every draw at n rows; returns (s, n, 1)."""
        _, x, _ = self._model._inputs(rows)
        return self._source(self._model._as_of_source(rows)) + self._residual(x)
