from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from hadas.datasets.records import CostRecord, Program, Truth
from hadas.errors import ConfigError, DeviceError, SpaceError
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.local.host_cpu import HostCpuDevice, HostCpuRig
from hadas.measurement.hardware.local.torch_rig import (
    ENGINES,
    Engine,
    failures_named,
    numpy_decision,
    torch_decision,
)
from hadas.measurement.hardware.measuring.protocol import QUICK
from hadas.measurement.hardware.measuring.runner import MeasuredDevice
from hadas.spaces import CLOCK_TABLES, PINNED, Backbone, Exits, Setting, attentivenas_space, mini_space

from .rig_contract import check_device, check_rig

MINI = mini_space()
FAST = replace(QUICK, name="fast", warm_up_limit_s=0.06, latency_limit_s=0.12)


def _request(backbone: Backbone, setting: Setting = PINNED.default) -> CostRequest:
    exits = Exits.at((5, 8), first_exit=MINI.first_exit, n_blocks=backbone.n_blocks)
    return CostRequest(backbone, exits, setting)


@pytest.fixture(scope="module")
def records() -> list[CostRecord]:
    requests = [_request(MINI.presets[name]) for name in ("m0", "m6")]
    return check_device(HostCpuDevice(MINI, 10, protocol=FAST), requests, space=MINI)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("program", ["stages", "prefix"])
def test_every_engine_keeps_the_contract(engine: Engine, program: str) -> None:
    rig = HostCpuRig(MINI, 10, engine=engine)
    assert rig.target.runtime.startswith("onnxruntime" if engine == "onnxruntime" else "torch")
    check_rig(
        rig, _request(MINI.presets["m0"]), space=MINI, n_classes=10, program=cast(Program, program), idle_s=0.05
    )  # fmt: skip


def test_rows_are_complete_and_real(records: list[CostRecord]) -> None:
    for record in records:
        assert record.valid or "process time" in record.reason or "drift" in record.reason
        assert record.truth is Truth.DEVICE
        assert [cost.kind for cost in record.stages] == ["segment", "head"] * 2 + ["segment"]
        assert record.evidence is not None
        assert record.evidence.decision_ms is not None
        assert 0 < record.evidence.decision_ms < 10
        measures = dict(record.evidence.machine)
        assert measures["process_cpu_share"] > 0.05
        # Blocks and warm-up take time, and the record owns up to it.
        assert record.device_seconds > 5 * 0.05


def test_segments_cost_more_than_heads(records: list[CostRecord]) -> None:
    for record in records:
        segments = [c.latency_ms.value for c in record.stages if c.kind == "segment"]
        heads = [c.latency_ms.value for c in record.stages if c.kind == "head"]
        assert min(segments) > max(heads)


def test_measuring_leaves_threads_and_the_global_generator_alone() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    rig = HostCpuRig(MINI, 10, threads=threads + 1)
    with rig.load(_request(MINI.presets["m0"]), "stages") as programs:
        assert torch.get_num_threads() == threads + 1
        with programs.loop(0, 1, 0.1) as loop:
            next(iter(loop))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


_PAGE_FAULTS = """
import resource
from itertools import islice
from hadas.measurement.hardware.device import CostRequest
from hadas.measurement.hardware.local.host_cpu import HostCpuRig
from hadas.spaces import PINNED, Exits, attentivenas_space

space = attentivenas_space()
backbone = space.presets["a0"]
exits = Exits.at((5,), first_exit=space.first_exit, n_blocks=backbone.n_blocks)
request = CostRequest(backbone, exits, PINNED.default)
with HostCpuRig(space, 10).load(request, "stages") as programs, programs.loop(0, 2, 0.1) as loop:
    blocks = iter(loop)
    list(islice(blocks, 2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    list(islice(blocks, 5))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""


def test_the_first_network_of_a_process_takes_no_fresh_memory_at_every_inference() -> None:
    """About 1,500 page faults per inference, and twice the time, unless the C library keeps what is freed."""
    script = subprocess.run([sys.executable, "-c", _PAGE_FAULTS], capture_output=True, text=True, check=True)
    assert float(script.stdout) < 100


def test_the_target_tells_thread_counts_and_engines_apart() -> None:
    one, two = (HostCpuDevice(MINI, 10, threads=n) for n in (1, 2))
    other = HostCpuDevice(MINI, 10, engine="onnxruntime")
    assert one.clock_table() is PINNED
    assert one.target == HostCpuDevice(MINI, 10).target
    assert len({device.target.target_id for device in (one, two, other)}) == 3
    with pytest.raises(ConfigError, match="eager, torchscript, onnxruntime"):
        HostCpuRig(MINI, 10, engine=cast(Engine, "tensorrt"))


def test_bad_requests_are_refused_before_anything_is_measured() -> None:
    device = HostCpuDevice(MINI, 10)
    clocked = _request(MINI.presets["m0"], CLOCK_TABLES["tx2-pascal-gpu"].default)
    with pytest.raises(ConfigError, match="pinned"):
        device.measure(MeasurementPlan("host", (clocked,)))
    foreign = attentivenas_space().presets["a0"]
    exits = Exits.at((5,), first_exit=5, n_blocks=foreign.n_blocks)
    with pytest.raises(SpaceError, match="attentivenas"):
        device.measure(MeasurementPlan("host", (CostRequest(foreign, exits, PINNED.default),)))
    with pytest.raises(ConfigError):
        device.rig.set_clocks(CLOCK_TABLES["tx2-pascal-gpu"].default)


def test_decisions_of_both_kinds_are_the_same() -> None:
    for n_classes in (2, 10, 1000):
        assert torch_decision(n_classes, torch.device("cpu"))() == numpy_decision(n_classes)()


def test_what_an_engine_raises_becomes_an_error_of_the_device() -> None:
    with pytest.raises(DeviceError, match=r"^torch: .*mat1 and mat2"), failures_named("torch"):
        torch.ones(2, 3) @ torch.ones(2, 3)
    import onnxruntime

    with pytest.raises(DeviceError, match=r"^onnxruntime: "), failures_named("onnxruntime"):
        onnxruntime.InferenceSession(b"no model")
    with pytest.raises(KeyError), failures_named("torch"):
        raise KeyError("a mistake of the program stays one")


@contextmanager
def _powercap(root: Path, power_w: float) -> Iterator[Path]:
    """A package whose counter counts so many watts, and comes round the end of its range."""
    zone = root / "intel-rapl:0"
    zone.mkdir()
    (zone / "name").write_text("package-0\n")
    largest_uj, stop, began_s = 3_000_000, threading.Event(), time.monotonic()
    (zone / "max_energy_range_uj").write_text(f"{largest_uj}\n")

    def write() -> None:
        counted_uj = round(1e6 * power_w * (time.monotonic() - began_s))
        (zone / "new").write_text(f"{counted_uj % largest_uj}\n")
        (zone / "new").replace(zone / "energy_uj")

    def count() -> None:
        while not stop.wait(0.01):
            write()

    write()
    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield root
    finally:
        stop.set()
        thread.join()


def test_a_living_counter_gives_energies(tmp_path: Path) -> None:
    with _powercap(tmp_path, 10.0) as root:
        rig = HostCpuRig(MINI, 10, powercap=root)
        device = MeasuredDevice(rig, replace(FAST, n_windows=1), space=MINI, n_classes=10)
        assert device.counts_energy
        backbone = MINI.presets["m0"]
        exits = Exits.at((), first_exit=MINI.first_exit, n_blocks=backbone.n_blocks)
        request = CostRequest(backbone, exits, PINNED.default)
        record = next(iter(device.measure(MeasurementPlan("energy", (request,)))))
    assert record.energy_mj is not None, record.reason
    assert record.latency_ms is not None
    # 10 W, whatever runs; mean time per run in the energy windows, median over blocks in the latency.
    assert record.evidence is not None
    energy = record.evidence.stages[0].energy
    assert energy is not None
    assert energy.scope == ("package-0",)
    assert energy.idle_w == pytest.approx(10.0, rel=0.15)
    assert record.energy_mj.value >= 0.8 * 10.0 * record.latency_ms.value


def test_without_a_counter_it_is_said_why(tmp_path: Path) -> None:
    rig = HostCpuRig(MINI, 10, powercap=tmp_path)
    assert rig.energy is None
    assert rig.idle(0.01) is None
    assert "no intel-rapl zone" in rig.notes[0]
