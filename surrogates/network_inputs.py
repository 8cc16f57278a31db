"""Rows of whole networks as the inputs of a model: which columns there are, and what each member sees of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .models import Design, KernelPart
from .network_features import known_totals, network_features
from .network_rows import NetworkRows
from .prediction import FloatArray

SAME_CLOCK = 1e-3
"""Relative difference up to which a setting that never changed in training counts as the same."""


@dataclass(frozen=True)
class View:
    """How one member sees a network.

    Attributes:
        kind: of the model.
        totals: the totals in it, by name; empty = all that are known.
        shape: whether it sees what the network is like whatever its size.
    """

    kind: str
    totals: tuple[str, ...]
    shape: bool


@dataclass(frozen=True)
class Columns:
    """What the columns of a model's inputs are; a model is asked about rows of the same kind only.

    Attributes:
        totals: names of the networks' totals.
        clocks, knobs: names of settings that changed in training.
        fixed: settings that did not, with their value.
        devices: what the rows were measured on.
    """

    totals: tuple[str, ...]
    clocks: tuple[str, ...]
    knobs: tuple[str, ...]
    fixed: Mapping[str, float]
    devices: tuple[str, ...]

    @classmethod
    def of(cls, rows: NetworkRows) -> Self:
        """Of training rows.

        Raises:
            ModelError: rows of several devices.
        """
        devices = tuple(str(device) for device in np.unique(rows.devices))
        if len(devices) != 1:
            raise ModelError(
                f"rows of several devices {list(devices)}: fit one model per device, or carry one over to "
                "another with 'transfer'"
            )
        settings = {**rows.clocks_ghz, **rows.knobs}
        fixed = {name: float(column[0]) for name, column in settings.items() if np.ptp(column) == 0}
        return cls(
            known_totals(rows.totals),
            tuple(name for name in rows.clocks_ghz if name not in fixed),
            tuple(name for name in rows.knobs if name not in fixed),
            fixed, devices,
        )  # fmt: skip

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "totals": list(self.totals), "clocks": list(self.clocks), "knobs": list(self.knobs),
            "fixed": dict(self.fixed), "devices": list(self.devices),
        }  # fmt: skip

    @classmethod
    def of_document(cls, saved: Any) -> Self:
        """The inverse of :meth:`document`.

        Raises:
            KeyError, ValueError, TypeError: the document is damaged.
        """
        fixed = {str(name): float(value) for name, value in saved["fixed"].items()}
        totals, clocks, knobs, devices = (
            tuple(str(name) for name in saved[key]) for key in ("totals", "clocks", "knobs", "devices")
        )
        return cls(totals, clocks, knobs, fixed, devices)

    def check(self, rows: NetworkRows) -> None:
        """Refuse rows that the model was not made for.

        Raises:
            ModelError: names what differs.
        """
        given = known_totals(rows.totals)
        if set(given) != set(self.totals):
            raise ModelError(
                f"networks are known by {sorted(given)}; the model was trained on {sorted(self.totals)}"
            )
        settings = {**rows.clocks_ghz, **rows.knobs}
        wanted = {*self.clocks, *self.knobs, *self.fixed}
        if set(settings) != wanted:
            raise ModelError(f"settings are {sorted(settings)}; the model was trained on {sorted(wanted)}")
        for name, value in self.fixed.items():
            off = np.flatnonzero(np.abs(settings[name] - value) > SAME_CLOCK * max(abs(value), 1e-12))
            if len(off):
                raise ModelError(
                    f"row {off[0]}: '{name}' is {settings[name][off[0]]:g}; in training it was always {value:g}, "
                    "so nothing is known of its influence. Add measurements at other values"
                )
        others = sorted(set(map(str, rows.devices)) - set(self.devices))
        if others:
            raise ModelError(f"rows of {others}; the model was trained on {list(self.devices)}")


@dataclass(frozen=True)
class Inputs:
    """Rows as numbers.

    Attributes:
        x: (n, d).
        names: of the d columns; terms of the roofline begin with ``term:``.
    """

    x: FloatArray
    names: tuple[str, ...]

    def design(self, view: View, *, network_effect: bool) -> Design:
        """What a member sees of the columns."""
        kept = [
            i for i, name in enumerate(self.names)
            if (name.startswith("total:") and (not view.totals or name.removeprefix("total:") in view.totals))
            or (name.startswith("shape:") and view.shape) or name.startswith("setting:")
        ]  # fmt: skip
        parts = [KernelPart(tuple(kept))] if kept else []
        if network_effect:
            parts.append(KernelPart((self.names.index("network"),), "categorical"))
        terms = tuple(i for i, name in enumerate(self.names) if name.startswith("term:"))
        return Design(parts=tuple(parts), terms=terms)


def inputs_of(rows: NetworkRows, columns: Columns) -> Inputs:
    """Features of rows that ``columns`` describes.

    Raises:
        ModelError: see :meth:`Columns.check`.
    """
    columns.check(rows)
    found: dict[str, FloatArray] = {}
    speed = {"compute": np.ones(len(rows)), "memory": np.ones(len(rows)), "launch": np.ones(len(rows))}
    for name in columns.clocks:
        clock = rows.clocks_ghz[name]
        found[f"setting:log {name}"] = np.log(clock)
        found[f"setting:1/{name}"] = 1.0 / clock
    for resource, domains in (("compute", ("gpu", "cpu")), ("memory", ("emc",)), ("launch", ("cpu", "gpu"))):
        domain = next((d for d in domains if d in columns.clocks), None)
        if domain is not None:
            speed[resource] = rows.clocks_ghz[domain]
    for name in columns.knobs:
        found[f"setting:{name}"] = np.asarray(rows.knobs[name], dtype=np.float64)
    if columns.totals:
        features = network_features({name: rows.totals[name] for name in columns.totals})
        found |= {f"total:{name}": column for name, column in features.totals.items()}
        found |= {f"shape:{name}": column for name, column in features.shape.items()}
        found |= {
            f"term:{name}": column / speed[name.split(".")[0]] for name, column in features.terms.items()
        }
    found["network"] = network_codes(rows.networks)
    return Inputs(np.column_stack(list(found.values())), tuple(found))


def network_codes(networks: NDArray[np.str_]) -> FloatArray:
    """(n,) numbers that are equal where names are, whatever other names there are."""
    unique, inverse = np.unique(networks, return_inverse=True)
    codes = [int.from_bytes(hashlib.blake2b(str(n).encode(), digest_size=6).digest()) for n in unique]
    return np.array(codes, dtype=np.float64)[inverse]
