"""Rows of the measuring protocol on a virtual rig whose truth is known."""

from __future__ import annotations

import pytest

from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.runner import MeasuredDevice
from hadas.spaces import Exits, mini_space
from .rig_contract import check_device, check_rig
from .virtual_rig import TABLE, VirtualRig

MINI = mini_space()


def request(preset: str = "m0", setting_no: int = -1, positions: tuple[int, ...] = (5, 8)) -> CostRequest:
    backbone = MINI.presets[preset]
    exits = Exits.at(positions, first_exit=MINI.first_exit, n_blocks=backbone.n_blocks)
    return CostRequest(backbone, exits, TABLE.settings[setting_no])


@pytest.mark.parametrize("program", ["stages", "prefix"])
def test_the_virtual_rig_keeps_the_contract(program):
    check_rig(VirtualRig(), request(), space=MINI, n_classes=10, program=program)


def device(rig: VirtualRig, **kwargs) -> MeasuredDevice:
    return MeasuredDevice(rig, space=MINI, n_classes=10, clock=rig.clock, **kwargs)


def test_a_measured_device_keeps_the_contract():
    rows = check_device(device(VirtualRig()), [request(setting_no=i) for i in (5, 0, 3)], space=MINI)
    assert all(row.valid for row in rows)
