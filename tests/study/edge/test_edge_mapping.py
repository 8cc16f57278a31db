"""Which core runs each segment: what is chosen, against all that could be."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from hadas.datasets.store import Store
from hadas.measurement.accelerator.cores import CORE_STYLES, edge_accelerator
from hadas.measurement.accelerator.cost_model import AcceleratorCostModel
from hadas.measurement.accelerator.table import LayerTable
from hadas.spaces.quantized import edge_space
from hadas.study.edge.judging import Limits
from hadas.study.edge.mapping import SegmentMapper

from .conftest import fill_layer_costs

SPACE = edge_space("mobilenetv2-small", bits="per-segment", n_cores=4)
N = 3


@pytest.fixture(scope="module")
def costs_on(tmp_path_factory):
    """Cost models of four cores of some styles."""
    directory = tmp_path_factory.mktemp("mapping")
    fill_layer_costs(directory)

    def made(*styles):
        cores = tuple(CORE_STYLES[style] for style in styles)
        accelerator = replace(edge_accelerator("quad-edge-tpu"), cores=cores)
        return AcceleratorCostModel(SPACE, accelerator, LayerTable(Store(str(directory / "store.sqlite"))))

    return made


@pytest.fixture(scope="module")
def asked():
    """Networks that are not mapped yet, and shares (n, e) of samples that leave at their exits."""
    rng = np.random.default_rng(4)
    networks = [replace(SPACE.decode(genome), cores=(0,) * 12) for genome in SPACE.sample(N, rng)]
    shares = np.zeros((N, max(len(network.exits) for network in networks)))
    for row, network in zip(shares, networks, strict=True):
        row[: len(network.exits)] = rng.dirichlet(np.ones(len(network.exits)))
    return networks, shares


def test_no_mapping_costs_less_on_cores_of_two_styles(costs_on, asked):
    costs, (networks, shares) = costs_on("eyeriss", "eyeriss", "edge-tpu", "eyeriss"), asked
    mapped, of_mapped = SegmentMapper(costs, Limits()).mapped(networks, shares)
    for i, network in enumerate(networks):
        every = costs.costs([replace(network, cores=cores) for cores in product((0, 2), repeat=12)])
        least = every.et_average(np.tile(shares[i, : every.et.shape[1]], (len(every.et), 1))).min()
        assert of_mapped.et_average(shares)[i] == pytest.approx(least, rel=1e-12)
        assert set(mapped[i].cores) == {0, 2}
        assert replace(mapped[i], cores=network.cores) == network


def test_nothing_moves_on_equal_cores(costs_on, asked):
    mapped, costs = SegmentMapper(costs_on(*["edge-tpu"] * 4), Limits()).mapped(*asked)
    assert {network.cores for network in mapped} == {(0,) * 12}
    assert not costs.transfer_cycles.any()


def test_a_mapping_that_is_fast_enough_goes_before_a_cheaper_one(costs_on, asked):
    costs, (networks, shares) = costs_on("eyeriss", "edge-tpu", "eyeriss", "eyeriss"), asked
    _, free = SegmentMapper(costs, Limits()).mapped(networks, shares)
    _, fastest = SegmentMapper(costs, Limits(max_latency_ms=1e-9)).mapped(networks, shares)
    slow, fast = free.expected_latency_ms(shares), fastest.expected_latency_ms(shares)
    i = int(np.argmax(slow - fast))
    assert fast[i] < slow[i]
    limit = (fast[i] + slow[i]) / 2
    _, kept = SegmentMapper(costs, Limits(max_latency_ms=limit)).mapped(networks, shares)
    assert kept.expected_latency_ms(shares)[i] <= limit
    assert free.et_average(shares)[i] < kept.et_average(shares)[i]
    unlimited = slow <= limit
    np.testing.assert_array_equal(kept.et_average(shares)[unlimited], free.et_average(shares)[unlimited])
