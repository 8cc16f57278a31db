"""Features of whole networks from totals, as the columns of a log give them.

A total that a source does not know is NaN in all its rows and leaves out what needs it; totals that follow
from others are derived.  Features are logarithms, as costs are products of powers of work to first order;
``terms`` are times of a roofline up to their coefficients (Williams et al. 2009, "Roofline"): work, weights
and activations each pass through something of a certain speed, and every layer costs a launch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import ModelError
from .prediction import FloatArray

NETWORK_FEATURE_VERSION = 1
"""Raised whenever the meaning of a column changes: models fitted to other columns are refused."""

TOTALS: Mapping[str, str] = {
    "input_px": "side of the square input image, pixels",
    "macs": "multiply-accumulates",
    "dense_macs": "multiply-accumulates if every convolution joined all channels: far above `macs` where "
    "convolutions are depthwise or grouped, which keep a processor less busy",
    "params": "all trainable scalars",
    "conv_params": "trainable scalars of convolutions",
    "norm_params": "trainable scalars of normalisation layers",
    "fc_params": "trainable scalars of fully connected layers",
    "activations": "elements of all layers' outputs",
    "activation_bytes": "bytes of all layers' outputs",
    "weight_bytes": "bytes of all weights",
    "n_layers": "layers of any kind",
    "n_convs": "convolutions",
    "n_norms": "normalisation layers",
    "n_fcs": "fully connected layers",
}
"""Standard names of what may be known of a whole network, and what they mean."""

LOG_NAMES: Mapping[str, tuple[str, float]] = {
    "flops": ("macs", 0.5), "params_conv": ("conv_params", 1.0), "params_bn": ("norm_params", 1.0),
    "params_fc": ("fc_params", 1.0), "n_conv": ("n_convs", 1.0), "n_bn": ("n_norms", 1.0),
    "n_fc": ("n_fcs", 1.0), "sum_activations": ("activations", 1.0),
    "weighted_sum_neurons": ("dense_macs", 1.0),
}  # fmt: skip
"""Names that public logs give to totals: the standard name, and what a value is multiplied by (1 MAC = 2 FLOP)."""

_OFFSET = {"fc_params": 1e3, "norm_params": 1e2, "n_fcs": 1.0, "n_norms": 1.0, "n_convs": 1.0}
"""Added before the logarithm to totals that may be 0: small against values that matter."""

_RATIOS = (
    ("macs_per_activation", "macs", "activations"),
    ("macs_per_conv_param", "macs", "conv_params"),
    ("activations_per_conv_param", "activations", "conv_params"),
    ("activations_per_layer", "activations", "n_layers"),
    ("dense_share", "dense_macs", "macs"),
)
"""What a network is like whatever its size: reuse of values and of weights, width, depthwise or dense."""


@dataclass(frozen=True)
class NetworkFeatures:
    """What a model is given of n networks.

    Attributes:
        totals: logarithms of known totals, (n,) each.
        shape: logarithms of ratios of totals, (n,) each.
        terms: quantities that are never negative and that time and energy are made of, (n,) each; by the
            resource that does the work: ``compute``, ``memory`` or ``launch``, before the dot.
    """

    totals: Mapping[str, FloatArray]
    shape: Mapping[str, FloatArray]
    terms: Mapping[str, FloatArray]


def standard_totals(columns: Mapping[str, float]) -> dict[str, float]:
    """Totals under their standard names, from a log's; columns that are no totals are left out."""
    found = {}
    for name, value in columns.items():
        standard, factor = LOG_NAMES.get(name, (name, 1.0))
        if standard in TOTALS:
            found[standard] = float(value) * factor
    return found


def known_totals(totals: Mapping[str, FloatArray]) -> tuple[str, ...]:
    """Names of totals that are known in at least one row, in standard order.

    Raises:
        ModelError: a name that is no standard one.
    """
    unknown = sorted(set(totals) - set(TOTALS))
    if unknown:
        raise ModelError(f"totals {unknown} are not among the standard names {sorted(TOTALS)}")
    return tuple(name for name in TOTALS if name in totals and np.isfinite(totals[name]).any())


def network_features(totals: Mapping[str, FloatArray]) -> NetworkFeatures:
    """Features of n networks.

    Args:
        totals: (n,) each, by standard name; a total must be known of all networks or of none.

    Raises:
        ModelError: no total at all, one known in some rows only, or one that is negative.
    """
    known = {name: _checked(name, totals[name]) for name in known_totals(totals)}
    if not known:
        raise ModelError(f"nothing is known of the networks; name some of the totals {sorted(TOTALS)}")
    _derive(known)
    logs = {name: np.log(np.maximum(column, 1e-9) + _OFFSET.get(name, 0.0)) for name, column in known.items()}
    shape = {}
    for name, above, below in _RATIOS:
        if above in logs and below in logs:
            # A log's own counts may contradict each other; dense work is never less than work.
            ratio = logs[above] - logs[below]
            shape[name] = np.maximum(ratio, 0.0) if name == "dense_share" else ratio
    # Bytes say the same as elements once both are logarithms.
    doubles = {"activation_bytes": "activations", "weight_bytes": "params"}
    return NetworkFeatures(
        {name: column for name, column in logs.items() if doubles.get(name) not in logs}, shape, _terms(known)
    )


def _checked(name: str, column: FloatArray) -> FloatArray:
    column = np.asarray(column, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(column) | (column < 0))
    if len(bad):
        raise ModelError(
            f"row {bad[0]}: total '{name}' ({TOTALS[name]}) is {column[bad[0]]}; it must be known of every "
            "network, or of none, and not be negative. Fill it in, or leave the column out"
        )
    return column


def _derive(known: dict[str, FloatArray]) -> None:
    """Add totals that follow from others."""
    if "params" not in known and "conv_params" in known:
        parts = (known[name] for name in ("conv_params", "norm_params", "fc_params") if name in known)
        known["params"] = np.sum(list(parts), axis=0)
    if "conv_params" not in known and "params" in known:
        known["conv_params"] = np.maximum(known["params"] - known.get("fc_params", 0.0), 0.0)
    if "params" not in known and "weight_bytes" in known:
        known["params"] = known["weight_bytes"] / 4
    if "activations" not in known and "activation_bytes" in known:
        known["activations"] = known["activation_bytes"] / 4


def _terms(known: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    terms: dict[str, FloatArray] = {}
    n = len(next(iter(known.values())))
    if "macs" in known:
        terms["compute.macs"] = known["macs"]
        if "dense_macs" in known:
            # Between the work itself and what a dense kernel would do: what sparse connections waste.
            dense = np.maximum(known["dense_macs"], known["macs"])
            terms["compute.sparse_macs"] = np.sqrt(dense * known["macs"])
    if "input_px" in known:
        terms["memory.pixels"] = known["input_px"] ** 2
    for name in ("conv_params", "fc_params") if "conv_params" in known else ("params",):
        if name in known:
            terms[f"memory.{name}"] = known[name]
    if "activations" in known:
        terms["memory.activations"] = known["activations"]
        if {"n_layers", "n_convs", "n_norms"} <= known.keys():
            layers = np.maximum(known["n_layers"], 1.0)
            # Normalisation and its activation are fused into a convolution; what is neither moves data alone.
            alone = np.maximum(layers - known["n_convs"] - 2 * known["n_norms"], 0.0)
            terms["memory.conv_activations"] = (
                known["activations"] * np.minimum(known["n_convs"], layers) / layers
            )
            terms["memory.other_activations"] = known["activations"] * alone / layers
    if "n_layers" in known:
        terms["launch.layers"] = known["n_layers"]
    terms["launch.run"] = np.ones(n)
    return terms
