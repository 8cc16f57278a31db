"""The space of quantized early-exit networks: genomes, identities, and work as published."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.errors import SpaceError
from hadas.spaces import QuantizedExitSpace, QuantizedNetwork, edge_space
from hadas.spaces.quantized import BIT_PAIRS, LETTERS, N_POINTS

# (parameters, MACs) of the backbone up to each mounting point, published for the 32 px network
CUMULATIVE = (
    (1_824, 1_703_936), (6_960, 6_520_832), (15_792, 14_925_824), (25_792, 24_510_464), (40_640, 38_862_848),
    (61_696, 48_742_400), (115_968, 62_210_048), (197_952, 82_755_584), (339_264, 118_292_480),
    (517_568, 140_152_832), (1_388_288, 195_325_952),
)  # fmt: skip
SPACES = [
    edge_space("mobilenetv2"),
    edge_space("mobilenetv2-small", bits="per-segment"),
    edge_space("mobilenetv2", bits="per-segment", n_cores=4),
]


def test_work_up_to_every_mounting_point_is_as_published() -> None:
    space = edge_space("mobilenetv2")
    stages = space.stages(space.network("ABCDEFGHIJK"))
    assert tuple((s.cumulative_params, s.cumulative_macs) for s in stages) == CUMULATIVE


@pytest.mark.parametrize(
    ("letter", "head_type", "params", "macs"),
    [("A", 1, 2_570, 2_560), ("K", 1, 51_210, 51_200), ("A", 2, 34_186, 34_048), ("D", 2, 133_898, 133_632),
     ("E", 2, 133_898, 133_632), ("K", 2, 13_135_370, 13_132_800)],
)  # fmt: skip
def test_heads_are_as_published(letter: str, head_type: int, params: int, macs: int) -> None:
    head = edge_space("mobilenetv2").head(LETTERS.index(letter), head_type)
    assert (head.params, head.macs) == (params, macs)


@given(seed=st.integers(0, 2**32 - 1), which=st.integers(0, len(SPACES) - 1))
@settings(max_examples=30)
def test_genomes_and_networks_translate_into_each_other(seed: int, which: int) -> None:
    space = SPACES[which]
    genomes = space.sample(4, np.random.default_rng(seed))
    networks = [space.decode(genome) for genome in genomes]
    assert all(np.array_equal(space.encode(n), g) for n, g in zip(networks, genomes, strict=True))
    same_genome = {tuple(genome) for genome in genomes}
    assert len({n.network_id for n in networks}) == len(same_genome)


def test_ids_tell_all_small_differences_apart() -> None:
    space = edge_space("mobilenetv2", bits="per-segment", n_cores=2)
    base = space.network("D,F,I,K")
    changed = [base]
    genome = space.encode(base)
    for gene, variable in enumerate(space.variables):
        for choice in range(len(variable.choices)):
            other = genome.copy()
            other[gene] = choice
            changed.append(space.decode(other))
    assert len({n.network_id for n in changed}) == len({*changed})
    assert base.network_id == "mobilenetv2:D1F1I1K1:8+8"
    moved = next(n for n in changed if any(n.cores))
    assert moved.trained_id == base.trained_id != moved.network_id


def test_pairs_are_the_published_ones() -> None:
    space = edge_space("mobilenetv2")
    found = set()
    for choice in range(len(BIT_PAIRS)):
        genome = np.zeros(len(space.variables), dtype=np.int64)
        genome[-1] = choice
        network = space.decode(genome)
        found.add((network.segment_bits[0], network.head_bits))
    assert found == {(32, 32), (8, 8), (8, 4), (4, 8), (4, 4)}
    assert space.cardinality == 3**10 * 2 * 5


def test_segments_partition_the_backbone() -> None:
    space = edge_space("mobilenetv2-small")
    stages = space.stages(space.network("DFI", head_types=(2, 1, 1, 2)))
    assert [s.position for s in stages] == [3, 5, 8, 10]
    assert [[segment.position for segment in s.segments] for s in stages] == [
        [0, 1, 2, 3],
        [4, 5],
        [6, 7, 8],
        [9, 10],
    ]
    units = [unit for s in stages for segment in s.segments for unit in segment.units]
    assert len(units) == 13  # the stem and twelve blocks
    for before, after in pairwise(units):
        assert before.out_shape == after.in_shape
    assert stages[-1].cumulative_macs == sum(unit.macs for unit in units) == sum(s.macs for s in stages)
    assert [len(s.head.layers) for s in stages] == [3, 2, 2, 3]


def test_letters_read_as_people_write_them() -> None:
    space = edge_space("mobilenetv2")
    assert space.network("d, f,i").letters == "D,F,I,K"
    assert space.network("").letters == "K"


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: edge_space("resnet"), "no edge space 'resnet'"),
        (lambda: QuantizedExitSpace("odd", resolution=20), "multiple of 16 px"),
        (lambda: QuantizedExitSpace("thin", width=0.0), "positive factor"),
        (lambda: edge_space("mobilenetv2").network("D,L"), "no mounting points"),
        (lambda: edge_space("mobilenetv2").network("D", head_types=(1, 2, 1)), "3 head types for 2 exits"),
        (lambda: edge_space("mobilenetv2").network("D", bits=6), "gene 'bits' = 608"),
        (lambda: edge_space("mobilenetv2").network("D", cores=(1,) * 12), "has one core"),
        (lambda: edge_space("mobilenetv2").network("D", bits=(4,) * 5 + (8,) * 6), "per-segment"),
        (lambda: edge_space("mobilenetv2").stages(edge_space("mobilenetv2-small").network("D")), "belongs to space"),
        (lambda: edge_space("mobilenetv2").decode(np.zeros(3, dtype=np.int64)), "genome has 3 genes"),
        (lambda: edge_space("mobilenetv2").decode(np.full(12, 9)), "choice index 9"),
        (lambda: QuantizedNetwork("s", (1,) * 10 + (0,), (8,) * 11, 8), "final exit K has no head"),
        (lambda: QuantizedNetwork("s", (1,) * N_POINTS, (8,) * 3, 8), "'segment_bits' has 3 values"),
    ],
)  # fmt: skip
def test_what_is_no_network_is_refused(make, part: str) -> None:
    with pytest.raises(SpaceError, match=part):
        make()
