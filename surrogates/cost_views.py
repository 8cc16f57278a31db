"""Ways to look at measured whole networks: the columns of a model's inputs, and what each member sees of them.

* :class:`NetworkViews`: networks known by totals (work, weights, activations, layers), on and off a roofline whose
  terms are divided by the clock that drives them; settings that changed stand beside the totals.  They answer for
  networks that were never measured.
* :class:`SettingViews`: few networks known by a name, and perhaps their input size, under many settings; each
  network has physical terms of its own, and host, computing and memory overlap.

:func:`views_for` chooses by what is known of the training rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .models import Design, IntArray, KernelPart, Model, make_model
from .network_features import NETWORK_FEATURE_VERSION
from .network_inputs import SAME_CLOCK, Columns, View, inputs_of
from .network_rows import NetworkRows
from .prediction import FloatArray
from .setting_features import MAX_NETWORKS, SettingFeatures
from .stacking import HoldOut, Training

SETTING_FEATURE_VERSION = 1
"""Raised whenever the meaning of a setting column changes: models fitted to other columns are refused."""

MIN_HELD_GROUPS = 8
"""With fewer networks than this none is held out."""

MIN_SETTING_ROWS = 12
"""With fewer rows under several settings nothing is held out."""


class CostViews(Protocol):
    """What a cost model looks at.

    Attributes:
        kind: ``network`` or ``setting``; version: of its features.
        columns: what it may be asked about.
        hold_out: how its members are compared.
        by_rows: whether rows are held out one by one, or else whole networks.
    """

    kind: ClassVar[str]
    version: ClassVar[int]

    @property
    def columns(self) -> Columns: ...
    @property
    def hold_out(self) -> HoldOut: ...
    @property
    def by_rows(self) -> bool: ...
    @property
    def names(self) -> tuple[str, ...]:
        """Of the members."""
        ...

    def knows(self, rows: NetworkRows) -> NDArray[np.bool_]:
        """(n,) whether enough is known of the network to be asked about it."""
        ...

    def inputs(self, rows: NetworkRows) -> FloatArray:
        """(n, d) inputs of rows.

        Raises:
            ModelError: rows of another kind than those that were trained on.
        """
        ...

    def training(self, rows: NetworkRows, quantity: str, unit: str, seed: int) -> Training:
        """Rows whose values are all positive, ready for the members."""
        ...

    def document(self) -> dict[str, object]:
        """For JSON, all that :meth:`inputs` needs."""
        ...


@dataclass(frozen=True)
class NetworkViews:
    """Networks by their totals; see the module.

    Attributes:
        members: views, by name.
    """

    columns: Columns
    members: Mapping[str, View]
    by_rows: bool = False
    kind: ClassVar[str] = "network"
    version: ClassVar[int] = NETWORK_FEATURE_VERSION

    @property
    def hold_out(self) -> HoldOut:
        if self.by_rows:
            return HoldOut(5, MIN_SETTING_ROWS, 0.8, 4.0, exchangeable=True)
        return HoldOut(4, MIN_HELD_GROUPS, 0.8, 4.0, exchangeable=False)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.members)

    def knows(self, rows: NetworkRows) -> NDArray[np.bool_]:
        return np.ones(len(rows), dtype=np.bool_)

    def inputs(self, rows: NetworkRows) -> FloatArray:
        return inputs_of(rows, self.columns).x

    def training(self, rows: NetworkRows, quantity: str, unit: str, seed: int) -> Training:
        inputs, networks = inputs_of(rows, self.columns), rows.groups

        def fresh(member: str, some: IntArray, *, quick: bool) -> Model:
            n_networks = len(np.unique(networks[some]))
            view = self.members[member]
            # Rows of one network err together: without an effect of the network its sizes would count as so
            # many independent witnesses.
            design = inputs.design(view, network_effect=1 < n_networks < len(some))
            return make_model(view.kind, quantity, unit, seed=seed, quick=quick, design=design)

        return Training(inputs.x, np.log(rows.value), rows.relative_noise**2, networks, fresh)

    def document(self) -> dict[str, object]:
        return {"kind": self.kind, "version": self.version}


@dataclass(frozen=True)
class SettingView:
    """How one member sees settings.

    Attributes:
        kind: of the model.
        additive: whether effects of single settings have functions of their own.
    """

    kind: str
    additive: bool


SETTING_VIEWS: Mapping[str, SettingView] = {
    "roofline and effects": SettingView("trend+gp", additive=True),
    "roofline": SettingView("trend+gp", additive=False),
    "effects": SettingView("gp", additive=True),
    "roofline and trees": SettingView("trend+xgb", additive=False),
}


@dataclass(frozen=True)
class SettingViews:
    """Settings of few networks known by name; see the module.

    Attributes:
        features: columns of settings.
        networks: names of those in training; nothing is known of others.
        input_px: the one input size in training; NaN if it varied, or is not known.
    """

    columns: Columns
    features: SettingFeatures
    networks: tuple[str, ...]
    input_px: float
    by_rows: bool = True
    kind: ClassVar[str] = "setting"
    version: ClassVar[int] = SETTING_FEATURE_VERSION

    @classmethod
    def of(cls, rows: NetworkRows, columns: Columns) -> Self:
        """From training rows.

        Raises:
            ModelError: settings that :class:`.setting_features.SettingFeatures` refuses.
        """
        features = SettingFeatures.of(rows)
        known = "input_px" in columns.totals and not features.by_pixels
        pixels = float(rows.totals["input_px"][0]) if known else float("nan")
        return cls(columns, features, tuple(map(str, np.unique(rows.networks))), pixels)

    @property
    def hold_out(self) -> HoldOut:
        return HoldOut(5, MIN_SETTING_ROWS, 0.5, 4.0, exchangeable=True)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(SETTING_VIEWS)

    def knows(self, rows: NetworkRows) -> NDArray[np.bool_]:
        return np.isin(rows.networks, self.networks)

    def inputs(self, rows: NetworkRows) -> FloatArray:
        self.columns.check(rows)
        if unknown := sorted(set(map(str, rows.networks[~self.knows(rows)]))):
            raise ModelError(
                f"networks {unknown} were not among the training rows, and nothing but a name is known of them; "
                f"known: {list(self.networks)}"
            )
        x = self.features(rows)
        if np.isfinite(self.input_px):
            pixels = rows.totals["input_px"]
            off = np.flatnonzero(~np.isclose(pixels, self.input_px, rtol=SAME_CLOCK))
            if len(off):
                raise ModelError(
                    f"row {off[0]}: 'input_px' is {pixels[off[0]]:g}; in training it was always {self.input_px:g}, so "
                    "nothing is known of its influence. Add measurements at other sizes"
                )
        return x

    def training(self, rows: NetworkRows, quantity: str, unit: str, seed: int) -> Training:
        design = self.features.design(quantity)

        def fresh(member: str, some: IntArray, *, quick: bool) -> Model:
            view = SETTING_VIEWS[member]
            seen = design if view.additive else replace(design, parts=_together(design))
            return make_model(view.kind, quantity, unit, seed=seed, quick=quick, design=seen)

        x = self.features(rows)
        return Training(x, np.log(rows.value), rows.relative_noise**2, None, fresh)

    def document(self) -> dict[str, object]:
        features = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.features).items()}
        pixels = self.input_px if np.isfinite(self.input_px) else None
        return {
            "kind": self.kind, "version": self.version, "features": features,
            "networks": list(self.networks), "input_px": pixels,
        }  # fmt: skip


def _together(design: Design) -> tuple[KernelPart, ...]:
    """The last part, which sees all smooth columns, and the linear one of knobs."""
    return (*(part for part in design.parts[:-1] if part.kernel == "linear"), design.parts[-1])


def views_for(rows: NetworkRows, columns: Columns, members: Mapping[str, View]) -> CostViews:
    """What is to be looked at in training rows.

    Few networks known by no more than their input size, under settings that changed: their settings.  All else:
    the networks, with settings that changed beside them.  Where these are networks too few to be held out,
    members are compared on rows.

    Args:
        members: the views of networks.
    """
    varied = bool(columns.clocks or columns.knobs)
    described = bool({*columns.totals} - {"input_px"})
    n_networks = len(np.unique(rows.networks))
    if varied and not described and n_networks <= MAX_NETWORKS:
        return SettingViews.of(rows, columns)
    if not columns.totals:
        members = {"settings": View("gp", (), shape=False)}
    return NetworkViews(columns, members, by_rows=varied and n_networks < MIN_HELD_GROUPS)


def views_of_document(saved: Any, columns: Columns) -> CostViews:
    """The inverse of :meth:`CostViews.document`.

    Raises:
        ModelError: another kind, or one of another version of the features.
        KeyError, ValueError, TypeError: the document is damaged.
    """
    versions = {views.kind: views.version for views in (NetworkViews, SettingViews)}
    kind = saved["kind"]
    if kind not in versions:
        raise ModelError(f"no views of kind '{kind}'; known: {sorted(versions)}")
    if saved["version"] != versions[kind]:
        raise ModelError(
            f"the model was fitted to version {saved['version']} of the {kind} features; this release computes "
            f"version {versions[kind]}: fit it again"
        )
    if kind == "network":
        return NetworkViews(columns, {})
    inner = saved["features"]
    features = SettingFeatures(
        tuple(map(str, inner["clocks"])), tuple(map(str, inner["knobs"])),
        {str(name): float(value) for name, value in inner["fixed"].items()},
        tuple(map(str, inner["networks"])), bool(inner["by_pixels"]),
    )  # fmt: skip
    pixels = float("nan") if saved["input_px"] is None else float(saved["input_px"])
    return SettingViews(columns, features, tuple(map(str, saved["networks"])), pixels)
