"""Features of settings: clocks, cores in use, knobs of the operating system; and of few networks at known sizes.

For logs that vary the setting of few networks and know little of these but a name and an input size.  What
is known of physics: a clock's work takes a time of one over the clock; host (CPU), compute and memory clocks
drive resources that overlap; more cores share the host's work, and the fixed share of cycles that the
operating system takes weighs more on slow and few cores; convolutions work in proportion to the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..errors import ModelError
from .models import Design, KernelPart
from .network_rows import NetworkRows
from .prediction import FloatArray

CORES = "n_cores"
"""Name of the knob that says how many CPU cores were in use."""

HOST = "cpu"
"""Clock domain of the host where another domain computes."""

MAX_NETWORKS = 20
"""Networks that may be told apart by their names alone: each has coefficients of its own."""

REFERENCE_PX = 224.0


@dataclass(frozen=True)
class SettingFeatures:
    """Which columns of settings say something, decided on training rows; what never varied is left out.

    Attributes:
        clocks, knobs: names of those that varied.
        fixed: all other settings, with the value they always had.
        networks: names, where there are several; each gets an indicator and physical terms of its own.
        by_pixels: whether the input size varied.
    """

    clocks: tuple[str, ...]
    knobs: tuple[str, ...]
    fixed: Mapping[str, float]
    networks: tuple[str, ...]
    by_pixels: bool

    @classmethod
    def of(cls, rows: NetworkRows) -> Self:
        """From training rows.

        Raises:
            ModelError: a setting that is not finite, a clock or size not above 0, more networks than can be
                told apart by name, or nothing that varies.
        """
        for name, column in {**rows.clocks_ghz, **rows.knobs}.items():
            _finite(name, column, positive=name in rows.clocks_ghz or name == CORES)
        settings = {**rows.clocks_ghz, **rows.knobs}
        fixed = {name: float(column[0]) for name, column in settings.items() if np.ptp(column) == 0}
        networks = tuple(str(name) for name in np.unique(rows.networks))
        if len(networks) > MAX_NETWORKS:
            raise ModelError(
                f"{len(networks)} networks, and at most {MAX_NETWORKS} can be told apart by name; add totals "
                "(MACs, parameters, layers) and fit a cost model of networks"
            )
        found = cls(
            tuple(name for name in rows.clocks_ghz if name not in fixed),
            tuple(name for name in rows.knobs if name not in fixed),
            fixed, networks if len(networks) > 1 else (), bool(np.ptp(_pixels(rows)) > 0),
        )  # fmt: skip
        if not found.names:
            raise ModelError(
                "no clock, knob, input size or network varies in these rows: nothing to learn from"
            )
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Of the d columns: features first, then ``term:`` columns."""
        return (*self._feature_names, *(f"term:{name}" for name in self._term_names))

    @property
    def _feature_names(self) -> tuple[str, ...]:
        pixels = ("log input_px",) if self.by_pixels else ()
        clocks = tuple(f"log {name}" for name in self.clocks)
        knobs = tuple("1/n_cores^2" if name == CORES else name for name in self.knobs)
        return (*pixels, *clocks, *knobs, *(f"is {name}" for name in self.networks))

    @property
    def _resources(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Per resource its name and its terms, as products of the factors in :meth:`_factors`."""
        sized = ("", "px*") if self.by_pixels else ("",)
        found = []
        serial = next((name for name in self.clocks if name not in (HOST, "emc")), None)
        for name in self.clocks:
            terms = [f"{size}1/{name}" for size in sized]
            if name == HOST and CORES in self.knobs:
                terms += [f"1/({name}*cores)", f"1/({name}*cores)^2"]
            if name == (serial or self.clocks[0]):
                # What no clock speeds up happens between kernels, in line with the computing.
                terms += [f"{size}1" for size in sized]
            found.append((name, tuple(terms)))
        return tuple(found)

    @property
    def _term_names(self) -> tuple[str, ...]:
        owners = [f"{name}:" for name in self.networks] or [""]
        return tuple(f"{owner}{term}" for _, terms in self._resources for term in terms for owner in owners)

    def design(self, quantity: str) -> Design:
        """What is known of the columns.

        Effects add up on the log scale to first order (a function of each column alone, with all knobs but
        the cores, and all networks, sharing one), and one function of all columns holds what does not.

        Args:
            quantity: only of ``latency_ms`` it is certain that it falls with every clock.
        """
        names = self._feature_names
        knobs = tuple(i for i, name in enumerate(names) if name in self.knobs)
        networks = tuple(i for i, name in enumerate(names) if name.startswith("is "))
        smooth = tuple(i for i in range(len(names)) if i not in knobs)
        parts = [KernelPart((i,)) for i in smooth if i not in networks]
        if networks:
            parts.append(KernelPart(networks, "categorical"))
        if knobs:
            parts.append(KernelPart(knobs, "linear"))
        if len(smooth) > 1:
            parts.append(KernelPart(smooth))
        sign = dict.fromkeys(self.names, 0)
        if quantity == "latency_ms":
            sign |= {f"log {name}": -1 for name in self.clocks} | {"log input_px": 1}
        owners = max(1, len(self.networks))
        resources = [r for r, (_, terms) in enumerate(self._resources) for _ in range(len(terms) * owners)]
        first = len(names)
        return Design(
            tuple(parts), tuple(sign[name] for name in self.names),
            tuple(range(first, first + len(resources))), tuple(resources),
        )  # fmt: skip

    def __call__(self, rows: NetworkRows) -> FloatArray:
        """Columns (n, d), see :attr:`names`.

        Raises:
            ModelError: other settings than in training, a network that was not in it, a setting that never
                varied at another value, or values that are not finite.
        """
        self._check(rows)
        columns: list[FloatArray] = [np.log(_pixels(rows))] if self.by_pixels else []
        columns += [np.log(rows.clocks_ghz[name]) for name in self.clocks]
        # A second core takes off the first what contends with it, and further ones find little left: the
        # inverse square puts one core far from all others.
        columns += [rows.knobs[k] ** -2.0 if k == CORES else rows.knobs[k] for k in self.knobs]
        indicators = [np.asarray(rows.networks == name, dtype=np.float64) for name in self.networks]
        columns += indicators
        factors = self._factors(rows)
        for _, terms in self._resources:
            for term in terms:
                columns += [factors[term] * owner for owner in indicators or [np.ones(len(rows))]]
        return np.column_stack(columns)

    def _factors(self, rows: NetworkRows) -> dict[str, FloatArray]:
        pixels = (_pixels(rows) / REFERENCE_PX) ** 2 if self.by_pixels else np.ones(len(rows))
        found = {"1": np.ones(len(rows)), "px*1": pixels}
        for name in self.clocks:
            clock = rows.clocks_ghz[name]
            found |= {f"1/{name}": 1 / clock, f"px*1/{name}": pixels / clock}
            if CORES in self.knobs:
                speed = clock * rows.knobs[CORES]
                found |= {f"1/({name}*cores)": 1 / speed, f"1/({name}*cores)^2": 1 / speed**2}
        return found

    def _check(self, rows: NetworkRows) -> None:
        settings = {**rows.clocks_ghz, **rows.knobs}
        wanted = {*self.clocks, *self.knobs, *self.fixed}
        if set(settings) != wanted:
            raise ModelError(f"settings are {sorted(settings)}; the model was trained on {sorted(wanted)}")
        for name, column in settings.items():
            _finite(name, column, positive=name in rows.clocks_ghz or name == CORES)
        for name, value in self.fixed.items():
            off = np.flatnonzero(~np.isclose(settings[name], value, rtol=1e-3))
            if len(off):
                raise ModelError(
                    f"row {off[0]}: '{name}' is {settings[name][off[0]]:g}; in training it was always "
                    f"{value:g}, so nothing is known of its influence. Add measurements at other values"
                )
        unknown = sorted(set(map(str, rows.networks)) - set(self.networks))
        if self.networks and unknown:
            raise ModelError(
                f"networks {unknown} were not among the training rows, and nothing but a name is known of them; "
                f"known: {list(self.networks)}"
            )


def _pixels(rows: NetworkRows) -> FloatArray:
    """(n,) input sizes; 1 where they are not known."""
    pixels = rows.totals.get("input_px")
    if pixels is None or np.isnan(pixels).all():
        return np.ones(len(rows))
    _finite("input_px", pixels, positive=True)
    return np.asarray(pixels, dtype=np.float64)


def _finite(name: str, column: FloatArray, *, positive: bool) -> None:
    bad = np.flatnonzero(~np.isfinite(column) | (positive & (column <= 0)))
    if len(bad):
        wanted = "finite and above 0" if positive else "finite"
        raise ModelError(f"row {bad[0]}: '{name}' is {column[bad[0]]}; it must be {wanted}")
