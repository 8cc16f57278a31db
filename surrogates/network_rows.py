"""Measured whole networks, from our own spaces or from anybody's log, as columns.

What is known of a network may be its layers (members of a space of ours) or a few totals (an imported
log); what is known of a setting may be clocks, numbers of cores, or knobs of the operating system.  All of
it lands here under standard names, so that one featurizer and one cost model serve every source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .models import IntArray
from .prediction import FloatArray


@dataclass(frozen=True)
class NetworkRows:
    """n measured networks; every array is (n,).

    Attributes:
        networks: names; rows of one name are one network, perhaps at several input sizes.
        totals: what is known of the networks, by standard name (see ``network_features``); NaN = unknown.
        clocks_ghz: by domain.
        knobs: all further settings by name, as numbers: cores in use, swappiness, ...
        devices: what each row was measured on.
        value: the measured quantity, positive; NaN = not measured.
        relative_noise: known standard error / value, 0 where nothing is known.  Of single runs no model can
            tell it from few rows, and takes what chance made of them for a function of the setting:
            :meth:`repeat_noise` of any rows that were run again says it, and :meth:`with_noise` passes it on.
    """

    networks: NDArray[np.str_]
    totals: Mapping[str, FloatArray]
    clocks_ghz: Mapping[str, FloatArray]
    knobs: Mapping[str, FloatArray]
    devices: NDArray[np.str_]
    value: FloatArray
    relative_noise: FloatArray

    def __len__(self) -> int:
        return len(self.value)

    @property
    def groups(self) -> IntArray:
        """(n,) index of each row's network: rows of a group are held out together."""
        return np.asarray(np.unique(self.networks, return_inverse=True)[1], dtype=np.int64)

    def take(self, rows: IntArray) -> NetworkRows:
        """Some of the rows."""
        return replace(
            self,
            networks=self.networks[rows],
            totals={name: column[rows] for name, column in self.totals.items()},
            clocks_ghz={name: column[rows] for name, column in self.clocks_ghz.items()},
            knobs={name: column[rows] for name, column in self.knobs.items()},
            devices=self.devices[rows],
            value=self.value[rows],
            relative_noise=self.relative_noise[rows],
        )

    def with_noise(self, relative_noise: float) -> NetworkRows:
        """The same rows, each known to at least such a standard error / value.

        Raises:
            ModelError: it is negative, or not finite.
        """
        if not (np.isfinite(relative_noise) and relative_noise >= 0):
            raise ModelError(f"relative noise {relative_noise}: must be finite and not negative")
        return replace(self, relative_noise=np.maximum(self.relative_noise, relative_noise))

    def repeat_noise(self) -> float:
        """Relative standard deviation of single runs, pooled over rows that agree in all but the value.

        Pooled squares of logarithms around their means, over their degrees of freedom.

        Raises:
            ModelError: no two measured rows are of the same network, device and setting.
        """
        measured = self.take(np.flatnonzero(np.isfinite(self.value)))
        settings = (*measured.totals.values(), *measured.clocks_ghz.values(), *measured.knobs.values())
        # By their ranks, among which totals that nobody knows are alike.
        columns = [np.unique(of, return_inverse=True)[1] for of in (measured.networks, measured.devices)]
        columns += [np.unique(of, return_inverse=True)[1] for of in settings]
        alike = np.unique(np.column_stack(columns), axis=0, return_inverse=True)[1].reshape(-1)
        counts, log_value = np.bincount(alike), np.log(measured.value)
        freedom = len(measured) - len(counts)
        if freedom < 1:
            raise ModelError(
                "no setting was run twice, so nothing is known of the noise of single runs; measure some again"
            )
        off = log_value - (np.bincount(alike, log_value) / counts)[alike]
        return float(np.sqrt((off**2).sum() / freedom))
