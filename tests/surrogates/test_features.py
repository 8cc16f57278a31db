"""Features: what they count, and that they are the same whatever the batch."""

import numpy as np
import pytest

from hadas.errors import ModelError
from hadas.spaces import (
    CLOCK_TABLES,
    PINNED,
    ClockDomain,
    ClockTable,
    Setting,
    attentivenas_space,
    mini_space,
)
from hadas.surrogates.features import (
    ClockRoles,
    backbone_features,
    cost_features,
    exit_features,
    signature,
    stage_features,
    stage_work,
)


def test_work_totals_add_up_to_the_workload():
    space = attentivenas_space()
    workload = space.workload(space.presets["a3"], n_classes=1000)
    stages = workload.unit_stages()
    work = stage_work([signature(stage) for stage in stages])
    segment = np.array([stage.kind == "segment" for stage in stages])
    assert (work.dense_macs + work.depthwise_macs)[segment].sum() == workload.macs
    assert work.n_layers.sum() == sum(len(stage.layers) for stage in stages)
    assert (work.depthwise_macs[~segment] == 0).all()


def test_equal_blocks_have_equal_signatures_wherever_they_stand():
    space = mini_space()
    small = space.workload(space.presets["m1"], n_classes=10).unit_stages()
    again = space.workload(space.presets["m1"], n_classes=10).unit_stages()
    assert [signature(s) for s in small] == [signature(s) for s in again]
    heads = {signature(s) for s in small if s.kind == "head"}
    assert len(heads) < sum(s.kind == "head" for s in small)


@pytest.mark.parametrize(
    ("table", "compute", "memory"),
    [
        (CLOCK_TABLES["tx2-pascal-gpu"], "gpu", "emc"),
        (CLOCK_TABLES["agx-carmel-cpu"], "cpu", "emc"),
        (PINNED, None, None),
        (ClockTable("own", (ClockDomain("emc", (10**9,)), ClockDomain("npu", (10**9,)))), "npu", "emc"),
        (ClockTable("own", (ClockDomain("cpu", (10**9,)), ClockDomain("gpu", (10**9,)))), "gpu", None),
    ],
)
def test_clock_roles(table, compute, memory):
    roles = ClockRoles.of(table)
    assert (roles.compute, roles.memory) == (compute, memory)


def test_setting_of_another_device_is_refused():
    roles = ClockRoles.of(CLOCK_TABLES["tx2-pascal-gpu"])
    with pytest.raises(ModelError, match=r"\['cpu'\].*\['gpu', 'emc'\]"):
        roles.clocks_ghz([Setting((("cpu", 10**9),))])


@pytest.mark.parametrize("table", [CLOCK_TABLES["tx2-pascal-gpu"], CLOCK_TABLES["agx-carmel-cpu"], PINNED])
def test_cost_features_are_finite_and_move_with_clocks(table):
    space = mini_space()
    signatures = [signature(s) for s in space.workload(space.largest, n_classes=10).unit_stages()]
    roles, n = ClockRoles.of(table), len(signatures)
    rows = []
    for setting in (table.settings[0], table.settings[-1]):
        clocks = np.repeat(roles.clocks_ghz([setting]), n, axis=0)
        rows.append(
            cost_features(stage_features(signatures), stage_work(signatures), clocks, roles, np.zeros((n, 3)))
        )
    assert np.isfinite(rows[0]).all()
    assert (rows[0] != rows[1]).any() == (len(table) > 1)
    assert len(np.unique(rows[0], axis=0)) == len(set(signatures))


def test_exit_features_say_where_the_exit_stands():
    space = mini_space()
    backbone = space.presets["m4"]
    workload = space.workload(backbone, n_classes=10)
    rows = exit_features(space, backbone, workload)
    shared = backbone_features(space, backbone, workload)
    assert rows.shape == (workload.n_positions, len(shared) + 9)
    np.testing.assert_array_equal(rows[:, : len(shared)], np.tile(shared, (len(rows), 1)))
    stage, in_stage, left, depth, share = rows[:, len(shared) : len(shared) + 5].T
    assert stage[-1] == 7
    assert (np.diff(share) > 0).all()
    assert depth[-1] == 1.0
    np.testing.assert_array_equal(in_stage + left + 1, [backbone.depth[int(s) - 1] for s in stage])


def test_backbone_features_are_gene_values_and_the_layout_of_the_work():
    space = attentivenas_space()
    backbone = space.presets["a6"]
    row = backbone_features(space, backbone, space.workload(backbone, n_classes=1000))
    assert row[0] == 288
    shape = row[len(space.variables) :]
    assert np.exp(shape[:7]) - 0.5 == pytest.approx(backbone.depth)
    assert np.exp(shape[-4]) - 0.5 == pytest.approx(backbone.n_blocks)
    assert np.exp(shape[-3]) == pytest.approx(709e6, rel=0.01)
