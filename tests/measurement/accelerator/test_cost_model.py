"""Costs of networks are sums over layers and moves between cores, whatever the layers cost."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hadas.errors import AcceleratorError
from hadas.measurement.accelerator import (
    Accelerator,
    AcceleratorCostModel,
    FillReport,
    LayerTable,
    edge_accelerator,
    layer_signature,
)
from hadas.spaces import QuantizedExitSpace, QuantizedNetwork, edge_space

MIXED, EQUAL = edge_accelerator("quad-mixed"), edge_accelerator("quad-edge-tpu")
SPACE = edge_space("mobilenetv2-small", bits="per-segment", n_cores=4)


def move(accelerator: Accelerator, segment) -> np.ndarray:
    bits = int(np.prod(segment.units[-1].out_shape)) * segment.bits
    return np.array([bits * accelerator.link_pj_per_bit, -(-bits // int(accelerator.link_bits_per_cycle))])


def by_hand(space: QuantizedExitSpace, accelerator: Accelerator, network: QuantizedNetwork, cost: Callable):
    """(energy pJ, cycles) of the segments since the previous exit, and of the head: (e, 2) each."""

    def layers(units, bits: int, core: int) -> np.ndarray:
        found = [
            cost(accelerator.cores[core], layer_signature(layer, bits)) for u in units for layer in u.layers
        ]
        return np.array([sum(c.energy_pj for c in found), sum(c.cycles for c in found)])

    segments, heads, before = [], [], None
    for stage in space.stages(network):
        total = np.zeros(2)
        for segment in stage.segments:
            total += layers(segment.units, segment.bits, segment.core)
            if before is not None and before.core != segment.core:
                total += move(accelerator, before)
            before = segment
        head = layers([stage.head], stage.head_bits, stage.head_core)
        if before.core != stage.head_core:
            head += move(accelerator, before)
        segments.append(total)
        heads.append(head)
    return np.array(segments), np.array(heads)


def test_costs_are_the_sums_of_layers_and_moves(invented) -> None:
    model = AcceleratorCostModel(SPACE, MIXED, invented.table(SPACE, MIXED.cores))
    networks = [SPACE.decode(genome) for genome in SPACE.sample(40, np.random.default_rng(7))]
    costs = model.costs(networks)
    for row, network in enumerate(networks):
        segments, heads = by_hand(SPACE, MIXED, network, invented.cost)
        e = len(network.exits)
        assert tuple(costs.positions[row]) == network.exits + (-1,) * (costs.positions.shape[1] - e)
        np.testing.assert_allclose(costs.segment_energy_mj[row, :e], segments[:, 0] * 1e-9, rtol=1e-12)
        np.testing.assert_allclose(costs.head_energy_mj[row, :e], heads[:, 0] * 1e-9, rtol=1e-12)
        np.testing.assert_array_equal(costs.segment_cycles[row, :e], segments[:, 1])
        np.testing.assert_array_equal(costs.head_cycles[row, :e], heads[:, 1])
        together = np.cumsum(segments + heads, axis=0)
        np.testing.assert_allclose(costs.et[row, :e], together[:, 0] * 1e-12 * together[:, 1], rtol=1e-12)
        for padded in (costs.segment_energy_mj, costs.head_cycles, costs.cumulative_energy_mj, costs.et):
            assert not padded[row, e:].any()
        assert costs.full_latency_ms[row] == pytest.approx(together[-1, 1] / 500e6 * 1e3)


def test_static_costs_are_those_of_the_network_with_its_last_exit_alone(invented) -> None:
    model = AcceleratorCostModel(SPACE, MIXED, invented.table(SPACE, MIXED.cores))
    networks = [SPACE.decode(genome) for genome in SPACE.sample(20, np.random.default_rng(8))]
    alone = [replace(network, heads=(0,) * 10 + network.heads[-1:]) for network in networks]
    with_exits, without = model.costs(networks), model.costs(alone)
    np.testing.assert_allclose(with_exits.static_energy_mj, without.full_energy_mj, rtol=1e-12)
    np.testing.assert_array_equal(with_exits.static_cycles, without.cumulative_cycles[:, 0])
    np.testing.assert_allclose(without.static_et, without.et[:, 0], rtol=1e-12)


def test_on_equal_cores_allocation_changes_the_moves_alone(invented) -> None:
    model = AcceleratorCostModel(SPACE, EQUAL, invented.table(SPACE, EQUAL.cores))
    rng = np.random.default_rng(9)
    network = SPACE.network("D,F,I", head_types=(1, 2, 1, 1))
    spread = [replace(network, cores=tuple(rng.integers(0, 4, 12).tolist())) for _ in range(30)]
    at_home = model.costs([network])
    costs = model.costs(spread)
    np.testing.assert_allclose(
        costs.full_energy_mj - costs.transfer_energy_mj, np.full(30, at_home.full_energy_mj[0]), rtol=1e-12
    )
    np.testing.assert_array_equal(
        costs.cumulative_cycles[:, -1] - costs.transfer_cycles, np.full(30, at_home.cumulative_cycles[0, -1])
    )
    assert at_home.transfer_energy_mj == 0.0 == at_home.transfer_cycles
    assert len(np.unique(costs.transfer_cycles)) > 1
    other = AcceleratorCostModel(SPACE, MIXED, invented.table(SPACE, MIXED.cores[2:])).costs(spread)
    assert len(np.unique(other.full_energy_mj - other.transfer_energy_mj)) > 1


def test_means_weigh_products_by_shares(invented) -> None:
    model = AcceleratorCostModel(SPACE, MIXED, invented.table(SPACE, MIXED.cores))
    costs = model.costs([SPACE.network("B,H"), SPACE.network("C")])
    shares = np.array([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]])
    np.testing.assert_allclose(costs.et_average(shares), (shares * costs.et).sum(axis=1))
    draws = np.stack([shares, shares[:, ::-1] * [[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]])[:1]
    assert costs.expected_energy_mj(draws).shape == (1, 2)
    left_last = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(costs.expected_latency_ms(left_last), costs.full_latency_ms)
    heads = costs.head_energy_mj.sum(axis=1) / costs.full_energy_mj
    np.testing.assert_allclose(costs.head_share(left_last), heads)


def test_layers_that_only_move_data_can_be_left_out(invented) -> None:
    table = invented.table(SPACE, EQUAL.cores)
    network = SPACE.network("D", head_types=(2, 1))
    whole, bare = (
        AcceleratorCostModel(SPACE, EQUAL, table, data_movement=movement).costs([network])
        for movement in (True, False)
    )
    stages = SPACE.stages(network)
    units = [unit for stage in stages for segment in stage.segments for unit in segment.units]
    units += [stage.head for stage in stages]
    moving = [layer for unit in units for layer in unit.layers if layer.kind in ("pool", "elementwise")]
    cycles = sum(invented.cost(EQUAL.cores[0], layer_signature(layer, 8)).cycles for layer in moving)
    assert whole.cumulative_cycles[0, -1] - bare.cumulative_cycles[0, -1] == cycles > 0


def test_one_network_costs_the_same_alone_and_among_others(invented) -> None:
    model = AcceleratorCostModel(SPACE, MIXED, invented.table(SPACE, MIXED.cores))
    networks = [SPACE.decode(genome) for genome in SPACE.sample(12, np.random.default_rng(10))]
    together = model.costs(networks)
    for row, network in enumerate(networks):
        alone = model.costs([network])
        e = len(network.exits)
        np.testing.assert_array_equal(alone.et[0], together.et[row, :e])


def test_what_cannot_be_costed_is_refused(invented) -> None:
    model = AcceleratorCostModel(SPACE, MIXED, invented.table(SPACE, MIXED.cores))
    with pytest.raises(AcceleratorError, match="no networks"):
        model.costs([])
    with pytest.raises(AcceleratorError, match="belongs to space 'mobilenetv2'"):
        model.costs([edge_space("mobilenetv2").network("D")])
    far = replace(SPACE.network("D"), cores=(0,) * 11 + (4,))
    with pytest.raises(AcceleratorError, match=r"names core 4; accelerator 'quad-mixed' has 4"):
        model.costs([far])
    with pytest.raises(AcceleratorError, match="maps to 4 cores; accelerator 'one' has 1"):
        AcceleratorCostModel(SPACE, replace(MIXED, name="one", cores=MIXED.cores[:1]), model.table)
    costs = model.costs([SPACE.network("B,H"), SPACE.network("C")])
    with pytest.raises(AcceleratorError, match="shape"):
        costs.et_average(np.array([0.5, 0.5]))
    with pytest.raises(AcceleratorError, match="exits that a network does not have"):
        costs.et_average(np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]))


class Asked(LayerTable):
    """An empty table that says what it was asked to fill."""

    asked: frozenset = frozenset()

    def fill(self, wanted, progress=None) -> FillReport:
        self.asked |= {*wanted}
        return FillReport(0, 0.0)


def needed(space: QuantizedExitSpace, cores, networks) -> set:
    found = set()
    for network in networks:
        for stage in space.stages(network):
            parts = [(unit, s.bits, s.core) for s in stage.segments for unit in s.units]
            parts.append((stage.head, stage.head_bits, stage.head_core))
            found |= {
                (cores[core], layer_signature(layer, bits)) for u, bits, core in parts for layer in u.layers
            }
    return found


def single_exits(space: QuantizedExitSpace, n_cores: int) -> list[QuantizedNetwork]:
    """Networks of one early exit at every point: all head types, bits of the space, and one core for all."""
    heads = [
        (0,) * at + (early,) + (0,) * (9 - at) + (last,)
        for at in range(10)
        for early in (1, 2)
        for last in (1, 2)
    ]
    segment_bits, head_bits = space.bit_choices
    return [
        QuantizedNetwork(space.name, each, (bits,) * 11, of_heads, (core,) * 12)
        for each in heads
        for bits in segment_bits
        for of_heads in head_bits
        for core in range(n_cores)
    ]


@pytest.mark.parametrize("n_cores", [1, 3, 4])
@pytest.mark.parametrize("bits", ["pairs", "per-segment"])
def test_fill_asks_for_all_that_the_space_can_need_and_no_more(bits, n_cores, store) -> None:
    space = edge_space("mobilenetv2-small", bits=bits, n_cores=n_cores)
    table = Asked(store)
    AcceleratorCostModel(space, MIXED, table).fill()
    assert table.asked == needed(space, MIXED.cores, single_exits(space, n_cores))
    some = [space.decode(genome) for genome in space.sample(5, np.random.default_rng(11))]
    asked_for = Asked(store)
    AcceleratorCostModel(space, MIXED, asked_for).fill(some)
    assert asked_for.asked == needed(space, MIXED.cores, some) < table.asked


@pytest.mark.parametrize(
    "change", [{"cores": ()}, {"core_hz": 0}, {"link_bits_per_cycle": 0.0}, {"link_pj_per_bit": -1.0}]
)
def test_accelerators_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(AcceleratorError, match="'quad-mixed'"):
        replace(MIXED, **change)


def test_an_accelerator_that_is_not_known_is_named() -> None:
    with pytest.raises(AcceleratorError, match="no accelerator 'octo'"):
        edge_accelerator("octo")
