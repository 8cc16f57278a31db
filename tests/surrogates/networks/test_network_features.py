"""Features of whole networks from a log's columns."""

import numpy as np
import pytest

from hadas.errors import ModelError
from hadas.surrogates.network_features import (
    network_features,
    standard_totals,
)

LOGGED = {
    "input_px": 224.0, "params_conv": 3.0e6, "params_bn": 3.0e4, "params_fc": 1.0e6, "flops": 6.0e8,
    "n_layers": 93.0, "n_conv": 28.0, "n_bn": 27.0, "n_fc": 1.0, "sum_activations": 1.7e7,
    "weighted_sum_neurons": 9.0e9,
}  # fmt: skip


def columns(*networks):
    return {name: np.array([network[name] for network in networks]) for name in networks[0]}


def test_flops_are_twice_macs_and_columns_that_are_no_totals_are_left_out():
    assert standard_totals({"flops": 8.0, "accuracy": 0.7}) == {"macs": 4.0}


def test_features_are_logarithms_of_totals_and_of_their_ratios():
    features = network_features(columns(standard_totals(LOGGED)))
    assert features.totals["macs"][0] == pytest.approx(np.log(3.0e8))
    assert features.shape["macs_per_activation"][0] == pytest.approx(np.log(3.0e8 / 1.7e7))
    assert features.shape["dense_share"][0] == pytest.approx(np.log(30.0))
    # What is unknown beside is derived: all parameters are those of the three kinds of layers.
    assert features.totals["params"][0] == pytest.approx(np.log(3.0e6 + 3.0e4 + 1.0e6))


def test_terms_are_never_negative_and_grow_with_the_work():
    small, large = dict(LOGGED), {**LOGGED, "input_px": 448.0, "flops": 2.4e9, "sum_activations": 6.8e7}
    terms = network_features(columns(standard_totals(small), standard_totals(large))).terms
    assert {name.split(".")[0] for name in terms} == {"compute", "memory", "launch"}
    for column in terms.values():
        assert (column >= 0).all()
    assert terms["compute.macs"][1] == 4 * terms["compute.macs"][0]
    assert terms["memory.conv_params"][1] == terms["memory.conv_params"][0]


def test_unknown_total_leaves_out_what_needs_it():
    known = {k: v for k, v in standard_totals(LOGGED).items() if k != "activations"}
    features = network_features(columns({**known, "activations": np.nan}))
    assert "activations" not in features.totals
    assert not any("activation" in name for name in (*features.shape, *features.terms))


@pytest.mark.parametrize(
    ("totals", "told"),
    [
        ({"macs": [1.0, np.nan]}, r"row 1: total 'macs'.*every network, or of none"),
        ({"macs": [1.0, -2.0]}, r"row 1: total 'macs'.*-2"),
        ({"flop": [1.0]}, r"totals \['flop'\] are not among the standard names"),
        ({"macs": [np.nan]}, "nothing is known"),
    ],
)
def test_totals_that_are_no_totals_are_refused(totals, told):
    with pytest.raises(ModelError, match=told):
        network_features({name: np.array(column) for name, column in totals.items()})
