"""Cost of whole networks, ours or anybody's, learned from a log: latency, energy, power.

    costs = foreign_costs(store, "jetson-cnn")          # what ``hadas logs import`` brought
    rows = network_rows_of(costs, "latency_ms")
    model = NetworkCostModel.fit(rows, "latency_ms", seed=0)
    low, high = model.interval(model.predict(unmeasured), level=0.9)

The model is an average of Gaussian processes that see the networks in different ways, on and off a roofline
(see ``network_features``); what each is worth is found on networks held out of the training rows.  Rows of one
network err together, so each process has an effect of the network beside its smooth function: without it,
many sizes of one network would count as so many independent witnesses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.stats import norm

from ..datasets.logs.tables import ForeignCost
from ..errors import ModelError
from .average import MixturePaths, stacking_weights
from .models import IntArray, Model, ModelState, group_folds, make_model, model_from_state
from .network_features import NETWORK_FEATURE_VERSION, standard_totals
from .network_inputs import Columns, Inputs, View, inputs_of
from .network_rows import NetworkRows
from .prediction import FloatArray, Paths, Prediction
from .roofline import Roofline, fit_roofline

UNITS: Mapping[str, str] = {"latency_ms": "log ms", "energy_mj": "log mJ", "power_mw": "log mW"}
"""Quantities of a log, and the unit of their logarithms."""

N_FOLDS = 4
MIN_HELD_GROUPS = 8
"""With fewer groups than this nothing is held out: members count alike, and intervals are the model's own."""

MAX_WIDENING = 4.0
MAX_NARROWING = 0.8
"""Limits of the factor that intervals are scaled by after what was seen on networks held out."""

VIEWS: Mapping[str, View] = {
    "totals on a roofline": View("trend+gp", (), shape=False),
    "shape on a roofline": View("trend+gp", ("macs", "n_layers", "input_px"), shape=True),
    "totals": View("gp", (), shape=False),
}
"""The members that are compared and averaged."""


class NetworkCostModel:
    """A quantity of whole networks on one device.

    Attributes:
        quantity: a key of :data:`UNITS`, or any name of a positive quantity.
        unit: of its logarithm.
        columns: what it may be asked about.
        weights: what each of the views is worth, by name.
        widening: factors of the standard deviation: of networks that were trained on, and of others.
        roofline: coefficients of its terms, by name.
    """

    def __init__(
        self, quantity: str, unit: str, columns: Columns, members: Mapping[str, Model],
        weights: Mapping[str, float], networks: Sequence[str], widening: tuple[float, float],
        roofline: Mapping[str, float],
    ) -> None:  # fmt: skip
        self.quantity, self.unit, self.columns = quantity, unit, columns
        self.weights, self.widening, self.roofline = dict(weights), widening, dict(roofline)
        self._members = dict(members)
        self._networks = frozenset(networks)

    @classmethod
    def fit(
        cls, rows: NetworkRows, quantity: str, *, seed: int, groups: Sequence[str] | None = None,
        views: Mapping[str, View] = VIEWS,
    ) -> Self:  # fmt: skip
        """Fit to rows of one device.

        Args:
            rows: their ``value`` is the quantity, NaN where it was not measured.
            groups: (n,) names of what is held out together when members are compared: families, say, where
                the model will be asked about other families; by default the networks.
            views: the members.

        Raises:
            ModelError: rows of several devices, without a value or a total, or a value not above 0.
        """
        value = np.asarray(rows.value, dtype=np.float64)
        bad = np.flatnonzero(np.isinf(value) | (value <= 0))
        if len(bad):
            raise ModelError(f"row {bad[0]}: '{quantity}' is {value[bad[0]]}; it must be positive")
        measured = np.flatnonzero(np.isfinite(value))
        if len(measured) == 0:
            raise ModelError(f"'{quantity}': not one measured row to train on")
        held = np.asarray(rows.networks if groups is None else groups).astype(str)[measured]
        rows = rows.take(measured)
        columns = Columns.of(rows)
        data = _Data(inputs_of(rows, columns), np.log(rows.value), rows.relative_noise**2, rows.groups)
        if not columns.totals:
            views = {name: view for name, view in views.items() if not view.kind.startswith("trend+")}
        unit = UNITS.get(quantity, "log")
        together = np.asarray(np.unique(held, return_inverse=True)[1], dtype=np.int64)
        weights, unseen = _compared(data, views, together, quantity, unit, seed)
        members = {
            name: data.fit(view, np.arange(len(data.y)), quantity, unit, seed)
            for name, view in views.items() if weights[name] > 0
        }  # fmt: skip
        weights = {name: weights[name] for name in members}
        # Members are fitted to all rows, so what fits them to these rows is not seen in their own variances.
        known = float(f"{np.sqrt(len(data.y) / max(len(data.y) - data.inputs.x.shape[1], 1)):.4g}")
        return cls(
            quantity, unit, columns, members, weights, sorted(set(map(str, rows.networks))),
            (min(known, MAX_WIDENING), unseen), data.roofline(),
        )  # fmt: skip

    def predict(self, rows: NetworkRows) -> Prediction:
        """Means and variances (n, 1) of the quantity's logarithm; values of ``rows`` are not looked at.

        Raises:
            ModelError: rows of another device, or with other totals or settings than it was trained on.
        """
        x = inputs_of(rows, self.columns).x
        mixed = mixture([m.predict(x) for m in self._members.values()], list(self.weights.values()))
        known, unknown = self.widening
        factor = (
            np.where([str(name) in self._networks for name in rows.networks], known, unknown)[:, None] ** 2
        )
        return Prediction(
            mixed.mean, factor * mixed.var_epistemic, factor * mixed.var_noise, (self.quantity,), (self.unit,)
        )

    def interval(self, rows: NetworkRows, level: float = 0.9) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Medians (n,) and both ends (n,) of central intervals for a new measurement, in the quantity's unit."""
        found = self.predict(rows)
        mean, sd = found.mean[:, 0], found.sd_total[:, 0]
        half = float(norm.ppf(0.5 + level / 2)) * sd
        return np.exp(mean), np.exp(mean - half), np.exp(mean + half)

    def paths(self, n_draws: int, seed: int) -> NetworkPaths:
        """Joint draws of the noise-free quantity's logarithm, as functions of rows.

        They scatter as the members say: what :meth:`predict` widens its variances by is not in them.
        """
        draws = MixturePaths(
            tuple(self._members.values()), np.array(list(self.weights.values())), n_draws, seed
        )
        return NetworkPaths(draws, self.columns)

    def resource_shares(self, rows: NetworkRows) -> dict[str, FloatArray]:
        """(n,) shares of work, weights, activations and launches in the roofline; empty without totals."""
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
            "kind": "network-cost", "feature_version": NETWORK_FEATURE_VERSION,
            "quantity": self.quantity, "unit": self.unit, "widening": list(self.widening),
            "weights": dict(self.weights), "networks": sorted(self._networks),
            "columns": self.columns.document(), "roofline": dict(self.roofline),
        }  # fmt: skip
        return nested_states(values, {name: model.state() for name, model in self._members.items()})

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
        if values.get("feature_version") != NETWORK_FEATURE_VERSION:
            raise ModelError(
                f"the model was fitted to version {values.get('feature_version')} of the network features; "
                f"this release computes version {NETWORK_FEATURE_VERSION}: fit it again"
            )
        columns = Columns.of_document(values["columns"])
        members = {name: model_from_state(inner) for name, inner in states_in(state).items()}
        weights = {name: float(values["weights"][name]) for name in members}
        known, unknown = (float(factor) for factor in values["widening"])
        return cls(
            str(values["quantity"]), str(values["unit"]), columns, members, weights,
            [str(name) for name in values["networks"]], (known, unknown),
            {str(name): float(c) for name, c in values["roofline"].items()},
        )  # fmt: skip


_RESOURCES = (("compute", "work"), ("params", "weights"), ("memory", "activations"), ("launch", "launches"))
"""What a term of the roofline is part of, by the first of these texts that its name holds."""


class NetworkPaths:
    """s joint draws of a quantity's logarithm: same row, same value, whatever the batch."""

    def __init__(self, draws: Paths, columns: Columns) -> None:
        self._draws, self._columns = draws, columns

    def __call__(self, rows: NetworkRows) -> FloatArray:
        """Evaluate every draw at n rows; returns (s, n, 1)."""
        return self._draws(inputs_of(rows, self._columns).x)


@dataclass(frozen=True)
class _Data:
    """Training rows: inputs, (n,) log values, (n,) known variances of these, (n,) networks."""

    inputs: Inputs
    y: FloatArray
    noise: FloatArray
    networks: IntArray

    def roofline(self) -> dict[str, float]:
        """Coefficients of the terms, all of which add up."""
        terms = [i for i, name in enumerate(self.inputs.names) if name.startswith("term:")]
        if not terms:
            return {}
        fitted: Roofline = fit_roofline(self.inputs.x[:, terms], self.y)
        return {self.inputs.names[i]: float(c) for i, c in zip(terms, fitted.coefficients, strict=True)}

    def fit(
        self, view: View, rows: IntArray, quantity: str, unit: str, seed: int, *, quick: bool = False
    ) -> Model:
        networks = self.networks[rows]
        n_networks = len(np.unique(networks))
        design = self.inputs.design(view, network_effect=1 < n_networks < len(rows))
        model = make_model(view.kind, quantity, unit, seed=seed, quick=quick, design=design)
        return model.fit(self.inputs.x[rows], self.y[rows, None], self.noise[rows, None], groups=networks)


def _compared(
    data: _Data, views: Mapping[str, View], held: IntArray, quantity: str, unit: str, seed: int
) -> tuple[dict[str, float], float]:
    """Weights of the members, and how much wider than they say their errors are, on groups held out."""
    n_groups = len(np.unique(held))
    if n_groups < MIN_HELD_GROUPS:
        return dict.fromkeys(views, 1.0 / len(views)), 1.0
    folds = group_folds(held, N_FOLDS, np.random.default_rng(seed))
    shape = (len(data.y), len(views))
    mean, var_epistemic, var_noise = np.empty(shape), np.empty(shape), np.empty(shape)
    for fold in range(N_FOLDS):
        test = np.flatnonzero(folds == fold)
        for column, view in enumerate(views.values()):
            model = data.fit(view, np.flatnonzero(folds != fold), quantity, unit, seed, quick=True)
            found = model.predict(data.inputs.x[test])
            mean[test, column] = found.mean[:, 0]
            var_epistemic[test, column] = found.var_epistemic[:, 0]
            var_noise[test, column] = found.var_noise[:, 0]
    weight = stacking_weights(mean - data.y[:, None], data.noise)
    mixed = mixture(
        [
            Prediction(mean[:, [k]], var_epistemic[:, [k]], var_noise[:, [k]], (quantity,), (unit,))
            for k in range(len(views))
        ],
        list(weight),
    )
    z = np.abs(mixed.mean[:, 0] - data.y) / mixed.sd_total[:, 0]
    widening = float(np.quantile(z, 0.9)) / float(norm.ppf(0.95))
    return (
        {name: float(w) for name, w in zip(views, weight, strict=True)},
        float(np.clip(float(f"{widening:.4g}"), MAX_NARROWING, MAX_WIDENING)),
    )


def mixture(found: Sequence[Prediction], weights: Sequence[float]) -> Prediction:
    """Moments of the weighted mixture; members that disagree widen it."""
    share = np.array(weights)
    means = np.stack([member.mean for member in found])
    mean = np.einsum("k,knm->nm", share, means)
    within = np.einsum("k,knm->nm", share, np.stack([member.var_epistemic for member in found]))
    between = np.einsum("k,knm->nm", share, (means - mean) ** 2)
    noise = np.einsum("k,knm->nm", share, np.stack([member.var_noise for member in found]))
    return Prediction(mean, within + between, noise, found[0].names, found[0].units)


def nested_states(values: Mapping[str, object], states: Mapping[str, ModelState]) -> ModelState:
    """One state that holds several, by name, beside ``values``."""
    arrays: dict[str, FloatArray] = {}
    boosters: dict[str, bytes] = {}
    for i, state in enumerate(states.values()):
        arrays |= {f"member{i}.{key}": array for key, array in state.arrays.items()}
        boosters |= {f"member{i}.{key}": data for key, data in state.boosters.items()}
    members = [{"name": name, "values": dict(state.values)} for name, state in states.items()]
    return ModelState({**values, "members": members}, arrays, boosters)


def states_in(state: ModelState) -> dict[str, ModelState]:
    """The inverse of :func:`nested_states`.

    Raises:
        KeyError, TypeError: the state is damaged.
    """
    members: Any = state.values["members"]
    found = {}
    for i, member in enumerate(members):
        prefix = f"member{i}."
        arrays = {k.removeprefix(prefix): a for k, a in state.arrays.items() if k.startswith(prefix)}
        boosters = {k.removeprefix(prefix): b for k, b in state.boosters.items() if k.startswith(prefix)}
        found[str(member["name"])] = ModelState(member["values"], arrays, boosters)
    return found


def network_rows_of(costs: Sequence[ForeignCost], quantity: str) -> NetworkRows:
    """What a log says of a quantity, as rows to learn from.

    Args:
        costs: of networks that no space of ours contains (``datasets.logs.tables.foreign_costs``).
        quantity: ``latency_ms``, ``energy_mj`` or ``power_mw``.

    Raises:
        ModelError: an unknown quantity, or rows of which different clocks are known.
    """
    if quantity not in UNITS:
        raise ModelError(f"no quantity '{quantity}' in logs; known: {list(UNITS)}")
    domains = {tuple(name for name, _ in cost.clocks_hz) for cost in costs}
    if len(domains) > 1:
        raise ModelError(f"rows name different clocks {sorted(domains)}; fit them one after the other")
    known = [standard_totals(cost.features) for cost in costs]
    names = sorted(set().union(*known))
    value = np.array([_or_nan(getattr(cost, quantity)) for cost in costs])
    error = np.array([_or_nan(getattr(cost, quantity.replace("_m", "_error_m"), None)) for cost in costs])
    return NetworkRows(
        np.array([cost.network for cost in costs], dtype=np.str_),
        {name: np.array([totals.get(name, np.nan) for totals in known]) for name in names},
        {
            name: np.array([dict(cost.clocks_hz)[name] / 1e9 for cost in costs])
            for name in next(iter(domains), ())
        },
        {},
        np.array([cost.target.target_id for cost in costs], dtype=np.str_),
        value,
        np.nan_to_num(error / value, nan=0.0),
    )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)
