"""Cost of few networks under many settings: clocks, cores, knobs of the operating system.

    model = SettingCostModel.fit(rows, "latency_ms", seed=0)
    median, low, high = model.interval(unmeasured, level=0.9)

The model is an average of Gaussian processes and boosted trees on a roofline, and a Gaussian process without
one, weighted by what they are worth on rows held out.  The same held-out errors say how much wider than they
claim their intervals have to be, for a roofline that was fitted to the rows knows them better than others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.stats import norm

from ..errors import ModelError
from .average import MixturePaths, stacking_weights
from .models import Design, IntArray, Model, ModelState, group_folds, make_model, model_from_state
from .network_rows import NetworkRows
from .prediction import FloatArray, Paths, Prediction
from .setting_features import SettingFeatures

SETTING_FEATURE_VERSION = 1
"""Raised whenever the meaning of a column changes: models fitted to other columns are refused."""

N_FOLDS = 5
MIN_ROWS = 12
"""With fewer rows than this nothing is held out: members count alike, and intervals are the models' own."""

WIDENING = (0.5, 4.0)
"""Least and largest factor on standard deviations."""


@dataclass(frozen=True)
class Member:
    """One of the models that are averaged.

    Attributes:
        kind: of the model.
        additive: whether effects of single settings have functions of their own.
    """

    kind: str
    additive: bool


MEMBERS: Mapping[str, Member] = {
    "roofline and effects": Member("trend+gp", additive=True),
    "roofline": Member("trend+gp", additive=False),
    "effects": Member("gp", additive=True),
    "roofline and trees": Member("trend+xgb", additive=False),
}


class SettingCostModel:
    """A positive quantity of known networks on one device, under settings.

    Attributes:
        quantity: ``latency_ms`` or any other name.
        features: what it may be asked about.
        device: what it was measured on.
        weights: what each member is worth, by name.
        widening: factor of the members' standard deviation.
    """

    def __init__(
        self, quantity: str, features: SettingFeatures, device: str, models: Mapping[str, Model],
        weights: Mapping[str, float], widening: float,
    ) -> None:  # fmt: skip
        self.quantity, self.features, self.device = quantity, features, device
        self.weights, self.widening = dict(weights), widening
        self._models = dict(models)

    @classmethod
    def fit(cls, rows: NetworkRows, quantity: str, *, seed: int) -> Self:
        """Fit to the rows whose ``value`` is not NaN.

        Raises:
            ModelError: rows of several devices, no measured row, a value not above 0, or settings that
                :class:`.setting_features.SettingFeatures` refuses.
        """
        bad = np.flatnonzero(np.isinf(rows.value) | (rows.value <= 0))
        if len(bad):
            raise ModelError(f"row {bad[0]}: '{quantity}' is {rows.value[bad[0]]}; it must be positive")
        rows = rows.take(np.flatnonzero(np.isfinite(rows.value)))
        if len(rows) == 0:
            raise ModelError(f"'{quantity}': not one measured row to train on")
        devices = sorted(set(map(str, rows.devices)))
        if len(devices) != 1:
            raise ModelError(f"rows of several devices {devices}: fit one model per device")
        features = SettingFeatures.of(rows)
        data = _Data(
            features(rows), np.log(rows.value)[:, None], rows.relative_noise[:, None] ** 2,
            features.design(quantity), quantity, seed,
        )  # fmt: skip
        weights, widening = _compared(data)
        models = {name: data.fit(MEMBERS[name]) for name, weight in weights.items() if weight > 0}
        return cls(quantity, features, devices[0], models, {name: weights[name] for name in models}, widening)

    def predict(self, rows: NetworkRows) -> Prediction:
        """Means and variances (n, 1) of the quantity's logarithm; values of ``rows`` are not looked at.

        Raises:
            ModelError: rows of another device, or settings and networks that were not in training.
        """
        return _mixture(
            [model.predict(self._inputs(rows)) for model in self._models.values()],
            list(self.weights.values()), self.widening,
        )  # fmt: skip

    def interval(self, rows: NetworkRows, level: float = 0.9) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Medians (n,) and both ends (n,) of central intervals for a new measurement, in the quantity's unit."""
        found = self.predict(rows)
        mean, half = found.mean[:, 0], float(norm.ppf(0.5 + level / 2)) * found.sd_total[:, 0]
        return np.exp(mean), np.exp(mean - half), np.exp(mean + half)

    def paths(self, n_draws: int, seed: int) -> SettingPaths:
        """Joint draws of the noise-free quantity's logarithm, as functions of rows; not widened."""
        weights = np.array(list(self.weights.values()))
        return SettingPaths(self, MixturePaths(tuple(self._models.values()), weights, n_draws, seed))

    def _inputs(self, rows: NetworkRows) -> FloatArray:
        others = sorted(set(map(str, rows.devices)) - {self.device})
        if others:
            raise ModelError(f"rows of {others}; the model was trained on '{self.device}'")
        return self.features(rows)

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit; no code."""
        arrays: dict[str, FloatArray] = {}
        boosters: dict[str, bytes] = {}
        inner = {}
        for i, (name, model) in enumerate(self._models.items()):
            state = model.state()
            inner[name] = dict(state.values)
            arrays |= {f"member{i}.{key}": array for key, array in state.arrays.items()}
            boosters |= {f"member{i}.{key}": data for key, data in state.boosters.items()}
        features = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.features).items()}
        values: dict[str, object] = {
            "kind": "setting-cost", "feature_version": SETTING_FEATURE_VERSION, "quantity": self.quantity,
            "device": self.device, "features": features, "weights": dict(self.weights),
            "widening": self.widening, "members": inner,
        }  # fmt: skip
        return ModelState(values, arrays, boosters)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The inverse of :meth:`state`.

        Raises:
            ModelError: another kind of model, or one of another version of the features.
            KeyError, ValueError, TypeError: the state is damaged (the persistence layer says which file).
        """
        values: Any = state.values
        if values.get("kind") != "setting-cost":
            raise ModelError(f"a model of kind '{values.get('kind')}' is no cost model of settings")
        if values.get("feature_version") != SETTING_FEATURE_VERSION:
            raise ModelError(
                f"the model was fitted to version {values.get('feature_version')} of the setting features; "
                f"this release computes version {SETTING_FEATURE_VERSION}: fit it again"
            )
        saved = values["features"]
        features = SettingFeatures(
            tuple(map(str, saved["clocks"])), tuple(map(str, saved["knobs"])),
            {str(name): float(value) for name, value in saved["fixed"].items()},
            tuple(map(str, saved["networks"])), bool(saved["by_pixels"]),
        )  # fmt: skip
        models: dict[str, Model] = {}
        for i, (name, inner) in enumerate(values["members"].items()):
            prefix = f"member{i}."
            arrays = {k.removeprefix(prefix): a for k, a in state.arrays.items() if k.startswith(prefix)}
            boosters = {k.removeprefix(prefix): b for k, b in state.boosters.items() if k.startswith(prefix)}
            models[str(name)] = model_from_state(ModelState(inner, arrays, boosters))
        weights = {name: float(values["weights"][name]) for name in models}
        return cls(
            str(values["quantity"]), features, str(values["device"]), models, weights,
            float(values["widening"]),
        )  # fmt: skip


class SettingPaths:
    """s joint draws of a quantity's logarithm: same row, same value, whatever the batch."""

    def __init__(self, model: SettingCostModel, draws: Paths) -> None:
        self._model, self._draws = model, draws

    def __call__(self, rows: NetworkRows) -> FloatArray:
        """Evaluate every draw at n rows; returns (s, n, 1)."""
        return self._draws(self._model._inputs(rows))


@dataclass(frozen=True)
class _Data:
    """Training rows: (n, d) inputs, (n, 1) log values and their known variances, what is known of columns."""

    x: FloatArray
    y: FloatArray
    noise: FloatArray
    design: Design
    quantity: str
    seed: int

    def take(self, rows: IntArray) -> _Data:
        return replace(self, x=self.x[rows], y=self.y[rows], noise=self.noise[rows])

    def fit(self, member: Member, *, quick: bool = False) -> Model:
        parts = self.design.parts
        if not member.additive:
            # The last part sees all smooth columns; knobs keep their linear one.
            parts = (*(part for part in parts[:-1] if part.kernel == "linear"), parts[-1])
        model = make_model(
            member.kind, self.quantity, "log", seed=self.seed, quick=quick,
            design=replace(self.design, parts=parts),
        )  # fmt: skip
        return model.fit(self.x, self.y, self.noise)


def _compared(data: _Data) -> tuple[dict[str, float], float]:
    """Weights of the members, and how much wider than they say their errors are, on rows held out."""
    n_rows = len(data.y)
    if n_rows < MIN_ROWS:
        return dict.fromkeys(MEMBERS, 1.0 / len(MEMBERS)), 1.0
    folds = group_folds(np.arange(n_rows), N_FOLDS, np.random.default_rng(data.seed))
    found: list[list[Prediction]] = []
    order = [np.flatnonzero(folds == fold) for fold in range(N_FOLDS)]
    for held in order:
        kept = data.take(np.setdiff1d(np.arange(n_rows), held))
        found.append([kept.fit(m, quick=True).predict(data.x[held]) for m in MEMBERS.values()])
    rows = np.concatenate(order)
    error = np.concatenate([np.hstack([p.mean for p in fold]) for fold in found]) - data.y[rows]
    weights = stacking_weights(error, data.noise[rows, 0])
    mixed = [_mixture(fold, list(weights), 1.0) for fold in found]
    z = np.abs(np.concatenate([p.mean for p in mixed]) - data.y[rows])[:, 0]
    z /= np.concatenate([p.sd_total for p in mixed])[:, 0]
    # The rank that holds for a new row if rows are exchangeable (split conformal prediction).
    level = min(1.0, 0.9 * (n_rows + 1) / n_rows)
    widening = float(np.clip(np.quantile(z, level) / norm.ppf(0.95), *WIDENING))
    return dict(zip(MEMBERS, map(float, weights), strict=True)), float(f"{widening:.4g}")


def _mixture(found: list[Prediction], weights: list[float], widening: float) -> Prediction:
    """Moments of the weighted mixture; members that disagree widen it."""
    share = np.array(weights)
    means = np.stack([member.mean for member in found])
    mean = np.einsum("k,knm->nm", share, means)
    within = np.einsum("k,knm->nm", share, np.stack([member.var_epistemic for member in found]))
    between = np.einsum("k,knm->nm", share, (means - mean) ** 2)
    noise = np.einsum("k,knm->nm", share, np.stack([member.var_noise for member in found]))
    factor = widening**2
    return Prediction(mean, factor * (within + between), factor * noise, found[0].names, found[0].units)
