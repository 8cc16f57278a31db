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
        relative_noise: known standard error / value, 0 where nothing is known.
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
