"""Golden values of the AttentiveNAS space and round trips in both spaces."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas.errors import SpaceError
from hadas.spaces import attentivenas_space, genome_from_values, mini_space, space_by_name

PUBLISHED_MEGA_MACS = {"a0": 203, "a1": 279, "a2": 317, "a3": 357, "a4": 444, "a5": 491, "a6": 709}
seeds = st.integers(0, 2**32 - 1)
spaces = st.sampled_from([attentivenas_space(), mini_space()])


def test_cardinality_is_the_published_product():
    assert attentivenas_space().cardinality == 4 * 1536 * 6912 * 128 * 81
    assert len(attentivenas_space().variables) == 28


@pytest.mark.parametrize(("name", "mega_macs"), PUBLISHED_MEGA_MACS.items())
def test_preset_macs_match_the_published_ones_within_one_percent(name, mega_macs):
    space = attentivenas_space()
    macs = space.workload(space.presets[name], n_classes=1000).macs
    assert macs == pytest.approx(mega_macs * 1e6, rel=0.01)


def test_a0_has_the_exit_positions_of_the_released_measurements():
    workload = attentivenas_space().workload(attentivenas_space().presets["a0"], n_classes=100)
    assert (len(workload.blocks), workload.first_exit, workload.n_positions) == (17, 5, 12)


def test_block_counts_span_the_published_range():
    space = attentivenas_space()
    assert (space.smallest.n_blocks, space.max_blocks) == (17, 37)


@given(spaces, seeds)
def test_decode_inverts_encode(space, seed):
    genome = space.sample(1, np.random.default_rng(seed))[0]
    assert np.array_equal(space.encode(space.decode(genome)), genome)


@given(seeds)
def test_mini_backbones_keep_their_promises(seed):
    space = mini_space()
    backbone = space.decode(space.sample(1, np.random.default_rng(seed))[0])
    workload = space.workload(backbone, n_classes=10)
    assert 12 <= len(workload.blocks) <= 18
    assert min(workload.blocks[-1].out_shape[1:]) >= 4


@given(spaces, seeds, st.data())
def test_stages_partition_the_network(space, seed, data):
    """Whatever exits are in use, segments run every unit exactly once and each exit has its head."""
    backbone = space.decode(space.sample(1, np.random.default_rng(seed))[0])
    workload = space.workload(backbone, n_classes=10)
    everywhere = range(workload.first_exit, len(workload.blocks))
    positions = sorted(data.draw(st.sets(st.sampled_from(list(everywhere)))))
    stages = workload.stages(positions)
    run = [unit.name for stage in stages if stage.kind == "segment" for unit in stage.units]
    assert run == ["stem", *(block.name for block in workload.blocks), "tail"]
    assert [stage.position for stage in stages if stage.kind == "head"] == positions
    heads_macs = sum(workload.heads[p - workload.first_exit].macs for p in positions)
    assert sum(unit.macs for stage in stages for unit in stage.units) == workload.macs + heads_macs


def test_presets_grow():
    for space in (attentivenas_space(), mini_space()):
        macs = [space.workload(b, n_classes=10).macs for b in space.presets.values()]
        assert macs == sorted(macs)


def test_arch_id_tells_backbones_and_spaces_apart():
    rng = np.random.default_rng(0)
    backbones = {
        space.decode(g) for space in (attentivenas_space(), mini_space()) for g in space.sample(200, rng)
    }
    assert len({b.arch_id for b in backbones}) == len(backbones)


def test_unknown_gene_value_is_named():
    space = attentivenas_space()
    with pytest.raises(SpaceError, match=r"resolution.*200.*192"):
        space.encode(replace(space.presets["a0"], resolution=200))
    with pytest.raises(SpaceError, match=r"expand\.mb6"):
        space.encode(replace(space.presets["a0"], expand=(1, 4, 4, 4, 4, 5, 6)))


def test_named_gene_values():
    space = mini_space()
    values = {v.name: v.choices[0] for v in space.variables}
    assert space.decode(genome_from_values(space, values)) == space.smallest
    with pytest.raises(SpaceError, match=r"kernel\.mb3.*7"):
        genome_from_values(space, {**values, "kernel.mb3": 7})
    with pytest.raises(SpaceError, match="unknown gene 'kernels'"):
        genome_from_values(space, {**values, "kernels": 3})
    with pytest.raises(SpaceError, match=r"depth\.mb1.*missing"):
        genome_from_values(space, {k: v for k, v in values.items() if k != "depth.mb1"})


def test_backbone_of_another_space_is_refused():
    with pytest.raises(SpaceError, match=r"'mini'.*'attentivenas'"):
        attentivenas_space().encode(mini_space().smallest)
    with pytest.raises(SpaceError, match="no space 'resnet'"):
        space_by_name("resnet")


@pytest.mark.parametrize(("name", "default"), [("mini", 5), ("attentivenas", 224)])
def test_head_width_changes_the_heads_work_alone_and_every_identity(name: str, default: int) -> None:
    space = space_by_name(name)
    wide = space.with_head_width(16)
    preset, backbone = next(iter(space.presets.items()))
    widened = wide.presets[preset]
    assert wide.name == f"{name}-head16"
    assert widened.arch_id != backbone.arch_id
    assert np.array_equal(wide.encode(widened), space.encode(backbone))
    with pytest.raises(SpaceError, match=f"space '{name}', not to '{name}-head16'"):
        wide.encode(backbone)
    before, after = (s.workload(b, n_classes=10) for s, b in ((space, backbone), (wide, widened)))
    assert after.macs == before.macs
    for narrow_head, wide_head in zip(before.heads, after.heads, strict=True):
        channels, side, _ = wide_head.in_shape
        assert wide_head.macs == channels * 9 * 16 * (side - 2) ** 2 + 16 * 10
        assert narrow_head.macs == channels * 9 * default * (side - 2) ** 2 + default * 10


def test_a_space_with_another_head_width_is_found_by_its_name() -> None:
    wide = space_by_name("mini-head16")
    assert wide.macro == mini_space().with_head_width(16).macro
    assert wide.presets == mini_space().with_head_width(16).presets
    assert wide.with_head_width(8).name == "mini-head8"
    for same in (wide.with_head_width(5), mini_space().with_head_width(5), space_by_name("mini-head5")):
        assert same is mini_space()


@pytest.mark.parametrize("name", ["mini-head", "mini-head0", "mini-head-1", "mini-headwide", "resnet-head16"])
def test_an_impossible_head_width_is_refused(name: str) -> None:
    with pytest.raises(SpaceError, match=r"mini"):
        space_by_name(name)
