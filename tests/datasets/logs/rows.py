"""Cost rows as devices write them, for the tests of logs."""

from __future__ import annotations

from dataclasses import replace

from hadas.datasets.evidence import EnergyEvidence, Evidence, LatencyEvidence, StageEvidence
from hadas.datasets.records import CostRecord, StageCost, Statistic, Target, Truth
from hadas.measurement.hardware.device import CostRequest, MeasurementPlan
from hadas.measurement.hardware.simulation.simulator import simulated_device
from hadas.spaces import CLOCK_TABLES, Exits, mini_space

SPACE = mini_space()
TARGET = Target("jetson-tx2", "pascal-gpu", "L4T 32.7.5", "torch 1.10", "fp16", pinned=(("cpu0", "max"),))
SETTING = CLOCK_TABLES["tx2-pascal-gpu"].default
EVIDENCE = Evidence(
    "torch 1.10.0", "full-1a2b3c4d", "2026-11-21T10:00:00Z",
    (
        StageEvidence(
            LatencyEvidence((1.0, 1.1), 40, 1.05, (1.0, 1.1), 1.2, 1.4, 0.01, 3, "interval", 3.0),
            EnergyEvidence(10.0, 6.0, 1.9, ("VDD_IN",), (("VDD_IN", 10.0), ("VDD_SYS_GPU", 3.0)), 12.5, 1, 250, 31, 0.42),
        ),
        StageEvidence(LatencyEvidence((0.2, 0.2), 400, 0.2, (0.2, 0.2), 0.2, 0.3, 0.0, 0, "count", 3.0), None),
        StageEvidence(
            LatencyEvidence((2.0, 2.01), 20, 2.0, (1.98, 2.02), 2.1, 2.4, 0.01, 0, "interval", 3.0),
            EnergyEvidence(12.0, 8.2, 1.9, ("VDD_IN",), (("VDD_IN", 12.0), ("VDD_SYS_GPU", 4.0)), 12.5, 1, 250, 31, 0.42),
        ),
    ),
    0.03, True, (41.5, 44.0), 0, False, 1, ("hot",), (("steal", 0.0),), "raw/0.csv.gz", "ab" * 32,
)  # fmt: skip


def measured_row(**changes: object) -> CostRecord:
    """A row of one exit with everything that a board's row has."""
    backbone = SPACE.presets["m1"]
    row = CostRecord(
        session="rig/0", row_no=0, backbone=backbone, n_classes=10, heads=((5, 1),), requested=SETTING, actual=SETTING,
        target=TARGET, truth=Truth.DEVICE,
        stages=(
            StageCost("segment", 5, Statistic(1.05, 0.01, 40), Statistic(10.0, 0.1, 3)),
            StageCost("head", 5, Statistic(0.2, 0.001, 400), None),
            StageCost("segment", backbone.n_blocks, Statistic(2.0, 0.01, 40), Statistic(12.0, 0.1, 3)),
        ),
        latency_ms=Statistic(3.25, 0.02, 40), energy_mj=Statistic(22.5, 0.2, 3), device_seconds=51.25,
        evidence=EVIDENCE,
    )  # fmt: skip
    return replace(row, **changes)  # type: ignore[arg-type]


def failed_row(**changes: object) -> CostRecord:
    """A row of a failed measurement."""
    return measured_row(
        valid=False,
        reason="over-current",
        latency_ms=None,
        energy_mj=None,
        stages=(),
        evidence=None,
        **changes,
    )


def simulated_rows(n: int, session: str = "rig/0") -> list[CostRecord]:
    """Rows of presets with one exit at the two ends of the clocks, as the simulated TX2 measures them."""
    device = simulated_device("tx2-pascal-gpu", space=SPACE, n_classes=10)
    settings = (device.clock_table().settings[-5], device.clock_table().default)
    requests = []
    for i in range(n):
        backbone = SPACE.presets[f"m{i % 7}"]
        exits = Exits.at([4 + i % 3], first_exit=SPACE.first_exit, n_blocks=backbone.n_blocks)
        requests.append(CostRequest(backbone, exits, settings[i % 2]))
    return list(device.measure(MeasurementPlan(session, tuple(requests))))
