"""Cost of whole networks, ours or anybody's, learned from a log: latency, energy, power.

    costs = foreign_costs(store, "jetson-cnn")          # what ``hadas logs import`` brought, see ``log_rows``
    rows = network_rows_of(costs, "latency_ms")
    model = NetworkCostModel.fit(rows, "latency_ms", seed=0)
    median, low, high = model.interval(unmeasured, level=0.9)

The model is an average of members that see the rows in different ways; which ways there are, is chosen by what is
known of the rows (see ``cost_views``), and what each is worth is found on rows held out (see ``stacking``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from ..errors import ModelError
from .cost_views import CostViews, NetworkViews, views_for, views_of_document
from .log_rows import UNITS
from .models import IntArray, ModelState
from .network_inputs import Columns, View, inputs_of
from .network_rows import NetworkRows
from .prediction import FloatArray, Prediction
from .roofline import fit_roofline
from .stacking import (
    HoldOut,
    Stack,
    Training,
    WidenedPaths,
    compare,
    interval,
    nested_states,
    stack_from_states,
    states_in,
    widened,
)

VIEWS: Mapping[str, View] = {
    "all on a roofline": View("trend+gp", (), shape=True),
    "shape on a roofline": View("trend+gp", ("macs", "n_layers", "input_px"), shape=True),
}
"""The members that see networks by their totals.  The first is the better where networks of like kind were measured,
the second where none was; the weights say which."""

MIN_NETWORKS = 3
"""With fewer networks than this none is held out of the others."""


class NetworkCostModel:
    """A quantity of whole networks on one device.

    Attributes:
        quantity: a key of :data:`.log_rows.UNITS`, or any name of a positive quantity.
        unit: of its logarithm.
        views: how its members see rows.
        stack: the members, and what each is worth.
        networks: names of those that were trained on.
        widening: factors of the standard deviation: of networks that were trained on, and of others.
        roofline: coefficients of its terms, by name; empty where networks are not known by totals.
    """

    def __init__(
        self, quantity: str, unit: str, views: CostViews, stack: Stack, networks: Sequence[str],
        widening: tuple[float, float], roofline: Mapping[str, float],
    ) -> None:  # fmt: skip
        self.quantity, self.unit, self.views, self.stack = quantity, unit, views, stack
        self.networks, self.widening, self.roofline = frozenset(networks), widening, dict(roofline)

    @property
    def columns(self) -> Columns:
        """What it may be asked about."""
        return self.views.columns

    @property
    def weights(self) -> Mapping[str, float]:
        """What each member is worth, by name."""
        return self.stack.weights

    @classmethod
    def fit(
        cls, rows: NetworkRows, quantity: str, *, seed: int, groups: Sequence[str] | None = None,
        views: Mapping[str, View] = VIEWS,
    ) -> Self:  # fmt: skip
        """Fit to rows of one device; looks at totals of networks, at settings, or at both, as they are known.

        Args:
            rows: their ``value`` is the quantity, NaN where it was not measured.
            groups: (n,) names of what is held out together when members are compared: families, say, where
                the model will be asked about other families; by default the networks, and single rows where
                few networks were measured under many settings.
            views: the members that see networks by their totals.

        Raises:
            ModelError: rows of several devices, without a value or a total, a value not above 0, or settings
                that :class:`.setting_features.SettingFeatures` refuses.
        """
        value = np.asarray(rows.value, dtype=np.float64)
        bad = np.flatnonzero(np.isinf(value) | (value <= 0))
        if len(bad):
            raise ModelError(f"row {bad[0]}: '{quantity}' is {value[bad[0]]}; it must be positive")
        measured = np.flatnonzero(np.isfinite(value))
        if len(measured) == 0:
            raise ModelError(f"'{quantity}': not one measured row to train on")
        rows = rows.take(measured)
        unit = UNITS.get(quantity, "log")
        looked_at = views_for(rows, Columns.of(rows), views)
        data = looked_at.training(rows, quantity, unit, seed)
        if groups is not None:
            together = np.unique(np.asarray(groups).astype(str)[measured], return_inverse=True)[1]
        else:
            together = np.arange(len(rows)) if looked_at.by_rows else rows.groups
        weights, unseen = compare(data, looked_at.names, together, looked_at.hold_out, seed)
        if looked_at.by_rows:
            # Held-out rows of the same networks say nothing of others.
            known, unseen = unseen, max(unseen, _widening_of_others(data, looked_at, rows.groups, seed))
        else:
            # How wide intervals have to be for networks that were measured at other sizes, single rows held out say.
            _, known = compare(data, looked_at.names, np.arange(len(rows)), looked_at.hold_out, seed)
        networks = sorted(set(map(str, rows.networks)))
        return cls(
            quantity, unit, looked_at, Stack.fit(data, weights), networks, (known, unseen),
            _roofline(rows, looked_at),
        )  # fmt: skip

    def predict(self, rows: NetworkRows) -> Prediction:
        """Means and variances (n, 1) of the quantity's logarithm; values of ``rows`` are not looked at.

        Raises:
            ModelError: rows of another device, or with other totals or settings than it was trained on.
        """
        return widened(self.stack.predict(self.views.inputs(rows)), self._factor(rows))

    def _factor(self, rows: NetworkRows) -> FloatArray:
        """(n, 1) factors of the standard deviation."""
        known, unknown = self.widening
        return np.where([str(name) in self.networks for name in rows.networks], known, unknown)[:, None]

    def interval(self, rows: NetworkRows, level: float = 0.9) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Medians (n,) and both ends (n,) of central intervals for a new measurement, in the quantity's unit."""
        return interval(self.predict(rows), level)

    def paths(self, n_draws: int, seed: int) -> NetworkPaths:
        """Joint draws of the noise-free quantity's logarithm, as functions of rows; they scatter as predicted."""
        return NetworkPaths(self, WidenedPaths(self.stack, n_draws, seed))

    def resource_shares(self, rows: NetworkRows) -> dict[str, FloatArray]:
        """(n,) shares of work, weights, activations and launches in the roofline; empty without totals."""
        if not self.roofline:
            return {}
        inputs = inputs_of(rows, self.columns)
        parts: dict[str, FloatArray] = {}
        for name, coefficient in self.roofline.items():
            part = coefficient * inputs.x[:, inputs.names.index(name)]
            resource = next(r for key, r in _RESOURCES if key in name)
            parts[resource] = parts.get(resource, np.zeros(len(rows))) + part
        whole = np.maximum(np.sum(list(parts.values()), axis=0), 1e-300)
        return {name: part / whole for name, part in parts.items()}

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit; no code."""
        values: dict[str, object] = {
            "kind": "network-cost", "views": self.views.document(), "quantity": self.quantity,
            "unit": self.unit, "widening": list(self.widening), "weights": dict(self.weights),
            "networks": sorted(self.networks), "columns": self.columns.document(),
            "roofline": dict(self.roofline),
        }  # fmt: skip
        return nested_states(values, {name: model.state() for name, model in self.stack.members.items()})

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The inverse of :meth:`state`.

        Raises:
            ModelError: another kind of model, or one of another version of the features.
            KeyError, ValueError, TypeError: the state is damaged (the persistence layer says which file).
        """
        values: Any = state.values
        if values.get("kind") != "network-cost":
            raise ModelError(f"a model of kind '{values.get('kind')}' is no cost model of whole networks")
        views = views_of_document(values["views"], Columns.of_document(values["columns"]))
        known, unknown = (float(factor) for factor in values["widening"])
        return cls(
            str(values["quantity"]), str(values["unit"]), views,
            stack_from_states(states_in(state), values["weights"]),
            [str(name) for name in values["networks"]], (known, unknown),
            {str(name): float(c) for name, c in values["roofline"].items()},
        )  # fmt: skip


_RESOURCES = (("compute", "work"), ("params", "weights"), ("memory", "activations"), ("launch", "launches"))
"""What a term of the roofline is part of, by the first of these texts that its name holds."""


def _widening_of_others(data: Training, views: CostViews, networks: IntArray, seed: int) -> float:
    """Factor for networks that were not trained on, where these are few: each is held out once.

    A single one, or two, say nothing of others: the widest.
    """
    n_networks, widest = len(np.unique(networks)), views.hold_out.widest
    if isinstance(views, NetworkViews) and n_networks >= MIN_NETWORKS:
        how = HoldOut(n_networks, MIN_NETWORKS, 1.0, widest, exchangeable=False)
        return compare(data, views.names, networks, how, seed)[1]
    return widest


def _roofline(rows: NetworkRows, views: CostViews) -> dict[str, float]:
    """Coefficients of the terms, all of which add up."""
    if not isinstance(views, NetworkViews):
        return {}
    inputs = inputs_of(rows, views.columns)
    terms = [i for i, name in enumerate(inputs.names) if name.startswith("term:")]
    if not terms:
        return {}
    fitted = fit_roofline(inputs.x[:, terms], np.log(rows.value))
    return {inputs.names[i]: float(c) for i, c in zip(terms, fitted.coefficients, strict=True)}


class NetworkPaths:
    """s joint draws of a quantity's logarithm: same row, same value, whatever the batch."""

    def __init__(self, model: NetworkCostModel, draws: WidenedPaths) -> None:
        self._model, self._draws = model, draws

    def __call__(self, rows: NetworkRows) -> FloatArray:
        """Evaluate every draw at n rows; returns (s, n, 1)."""
        return self._draws(self._model.views.inputs(rows), self._model._factor(rows))
