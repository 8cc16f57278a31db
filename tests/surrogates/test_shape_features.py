import numpy as np
import pytest

from hadas.errors import ModelError
from hadas.spaces import attentivenas_space, mini_space
from hadas.surrogates.features import backbone_features
from hadas.surrogates.shape_features import (
    N_TOTALS,
    StageTotals,
    coarse_columns,
    n_shape_features,
    receptive_field_px,
    shape_features,
    thermometer,
    workload_totals,
)


def two_stages(**changes):
    totals = {
        "blocks": np.array([[2.0, 0.0], [1.0, 3.0]]), "macs": np.array([[8e6, 0.0], [3e6, 9e6]]),
        "params": np.array([[1e4, 0.0], [5e3, 9e4]]), "network_macs": np.array([9e6, 2e7]),
        "network_params": np.array([2e4, 1e5]), "receptive_field_px": np.array([31.0, 63.0]),
    }  # fmt: skip
    return StageTotals(**(totals | changes))


def test_an_empty_stage_is_a_finite_step_below_one_block():
    rows = shape_features(two_stages(macs_unit=np.array([3e6, 3e6]), params_unit=5e3))
    assert rows.shape == (2, 3 * 2 + N_TOTALS)
    assert np.isfinite(rows).all()
    assert rows[0, 1] == pytest.approx(np.log(0.5))
    assert rows[0, 3] == 0.0
    assert rows[1, 2] == pytest.approx(np.log(2.0))
    assert rows[:, -4:] == pytest.approx(np.log([[2.5, 9e6, 2e4, 31.0], [4.5, 2e7, 1e5, 63.0]]))


@pytest.mark.parametrize(
    "changes",
    [{"macs": np.zeros((2, 3))}, {"network_macs": np.array([1.0, 0.0])}, {"params": np.full((2, 2), np.nan)}],
)
def test_totals_that_do_not_fit_are_refused_by_name(changes):
    with pytest.raises(ModelError, match=next(iter(changes))):
        two_stages(**changes)


def test_a_thermometer_shows_every_level_reached():
    assert thermometer(np.array([[0, 2], [1, 1]]), 3).tolist() == [[0, 1, 0, 1], [1, 1, 0, 0]]
    with pytest.raises(ModelError, match=r"0\.\.1"):
        thermometer(np.array([[2]]), 2)


def test_the_receptive_field_grows_by_kernels_and_strides():
    """By hand for the smallest mini network: each convolution adds (kernel - 1) x its input's distance."""
    space = mini_space()
    workload = space.workload(space.smallest, n_classes=10)
    fields = receptive_field_px(workload)
    assert len(fields) == len(workload.blocks)
    by_hand, image = 1.0, workload.stem.in_shape[1]
    for unit in (workload.stem, *workload.blocks):
        spatial = next(layer for layer in unit.layers if layer.kernel > 1)
        by_hand += (spatial.kernel - 1) * image / spatial.in_shape[1]
    assert fields[-1] == pytest.approx(by_hand)
    assert (np.diff(fields) > 0).all()
    wider_kernels = space.workload(space.largest, n_classes=10)
    assert receptive_field_px(wider_kernels)[-1] > fields[-1]


@pytest.mark.parametrize("space", [mini_space(), attentivenas_space()])
def test_totals_of_a_member_are_its_workload(space):
    backbone = space.largest
    workload = space.workload(backbone, n_classes=10)
    totals = workload_totals(workload)
    assert totals.blocks[0].tolist() == list(backbone.depth)
    assert totals.macs.sum() + workload.stem.macs + workload.tail.macs == workload.macs
    assert totals.params.sum() == sum(block.params for block in workload.blocks)
    row = backbone_features(space, backbone, workload)
    assert len(row) == len(space.variables) + n_shape_features(space)
    coarse = row[list(coarse_columns(space))]
    assert coarse[0] == backbone.resolution
    assert np.exp(coarse[1:4]) == pytest.approx([backbone.n_blocks + 0.5, workload.macs, workload.params])
