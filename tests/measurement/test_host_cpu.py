from __future__ import annotations

import pytest
import torch

from hadas.datasets.records import CostRecord, Truth
from hadas.errors import ConfigError, SpaceError
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.host_cpu import HostCpuDevice, disturbance
from hadas.spaces import CLOCK_TABLES, PINNED, Backbone, Exits, Setting, attentivenas_space, mini_space

MINI = mini_space()


def _request(backbone: Backbone, setting: Setting = PINNED.default) -> CostRequest:
    exits = Exits.at((5, 8), first_exit=MINI.first_exit, n_blocks=backbone.n_blocks)
    return CostRequest(backbone, exits, setting)


@pytest.fixture(scope="module")
def records() -> tuple[CostRecord, ...]:
    requests = tuple(_request(MINI.presets[name]) for name in ("m0", "m6", "m6"))
    return tuple(HostCpuDevice(MINI, 10).measure(MeasurementPlan("host", requests, first_row=1)))


def test_rows_are_complete_and_real(records: tuple[CostRecord, ...]) -> None:
    assert [record.row_no for record in records] == [1, 2]
    for record in records:
        assert record.valid or "process time" in record.reason
        assert record.truth is Truth.DEVICE
        assert [cost.kind for cost in record.stages] == ["segment", "head"] * 2 + ["segment"]
        assert all(cost.energy_mj is None and cost.latency_ms.value > 0 for cost in record.stages)
        assert record.energy_mj is None
        assert record.latency_ms is not None
        assert record.latency_ms.value == pytest.approx(sum(c.latency_ms.value for c in record.stages))
        # Blocks and warm-up take time, and the record owns up to it.
        assert record.device_seconds > 5 * 0.05


def test_segments_cost_more_than_heads(records: tuple[CostRecord, ...]) -> None:
    for record in records:
        segments = [c.latency_ms.value for c in record.stages if c.kind == "segment"]
        heads = [c.latency_ms.value for c in record.stages if c.kind == "head"]
        assert min(segments) > max(heads)


def test_measuring_leaves_threads_and_the_global_generator_alone() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    plan = MeasurementPlan("host", (_request(MINI.presets["m0"]),))
    next(iter(HostCpuDevice(MINI, 10, threads=threads + 1).measure(plan)))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_target_tells_thread_counts_apart() -> None:
    one, two = (HostCpuDevice(MINI, 10, threads=n) for n in (1, 2))
    assert one.clock_table() is PINNED
    assert one.target == HostCpuDevice(MINI, 10).target
    assert one.target.target_id != two.target.target_id


def test_a_row_measured_while_others_held_the_core_says_so() -> None:
    assert disturbance(0.97) == ""
    assert disturbance(0.5) == ""
    assert "31% of wall time" in disturbance(0.31)


def test_bad_requests_are_refused_before_anything_is_measured() -> None:
    device = HostCpuDevice(MINI, 10)
    clocked = _request(MINI.presets["m0"], CLOCK_TABLES["tx2-pascal-gpu"].default)
    with pytest.raises(ConfigError, match="pinned"):
        device.measure(MeasurementPlan("host", (clocked,)))
    foreign = attentivenas_space().presets["a0"]
    exits = Exits.at((5,), first_exit=5, n_blocks=foreign.n_blocks)
    with pytest.raises(SpaceError, match="attentivenas"):
        device.measure(MeasurementPlan("host", (CostRequest(foreign, exits, PINNED.default),)))
