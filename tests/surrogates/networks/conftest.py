"""Made-up networks whose cost is known: a sum of times, and a factor of each network's own."""

import numpy as np
import pytest

from hadas.surrogates.network_rows import NetworkRows

SPEEDS = {"macs": 4e-9, "conv_params": 1.2e-6, "activations": 3e-7, "n_layers": 3e-3}
"""Milliseconds per unit of each total."""


def _made_up_rows(
    n_networks=12, sizes=(64, 128, 224, 448), *, seed=0, speeds=SPEEDS, own=0.05, noise=0.01, device="toy"
):
    """Rows of networks at several input sizes; ``own``: standard deviation of each network's own log factor."""
    rng = np.random.default_rng(seed)
    columns = {name: [] for name in ("input_px", "macs", "conv_params", "activations", "n_layers")}
    names, value = [], []
    for network in range(n_networks):
        params = np.exp(rng.uniform(13, 17))
        density, width, n_layers = rng.uniform(0.5, 4), np.exp(rng.uniform(3, 5)), rng.integers(20, 200)
        factor = np.exp(own * rng.standard_normal())
        for px in sizes:
            row = {
                "input_px": px, "macs": density * params * (px / 32) ** 2, "conv_params": params,
                "activations": width * px**2, "n_layers": float(n_layers),
            }  # fmt: skip
            for name, cell in row.items():
                columns[name].append(cell)
            names.append(f"net{network}")
            cost = sum(speed * row[name] for name, speed in speeds.items())
            value.append(cost * factor * np.exp(noise * rng.standard_normal()))
    return NetworkRows(
        np.array(names), {name: np.array(column, dtype=float) for name, column in columns.items()}, {}, {},
        np.full(len(names), device), np.array(value), np.zeros(len(names)),
    )  # fmt: skip


@pytest.fixture(scope="session")
def made_up_rows():
    """The function above."""
    return _made_up_rows


@pytest.fixture(scope="session")
def speeds():
    """Of the made-up board."""
    return SPEEDS
