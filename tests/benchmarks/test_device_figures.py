from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hadas.datasets.records import CostRecord, Program, StageCost, StageKind, Statistic, Target, Truth
from hadas.spaces import PINNED, mini_space

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from _device_rows import cumulative_ms, with_exits
from device_table import LONGEST_WINDOW_S, N_STAGES, judge, line_of, table_protocol
from program_gap import SMALL, T_975, Pairs, interval, is_monotone

MINI = mini_space()


def _row(program: Program, stages: list[tuple[StageKind, int, float]], error: float = 0.0) -> CostRecord:
    costs = tuple(StageCost(kind, at, Statistic(ms, error, 20), None) for kind, at, ms in stages)
    total = (
        costs[-1].latency_ms if program == "prefix" else Statistic(sum(ms for *_, ms in stages), error, 20)
    )
    backbone = MINI.presets["m0"]
    heads = tuple((at, 1) for kind, at, _ in stages if kind == "head")
    return CostRecord(
        session="s", row_no=0, backbone=backbone, n_classes=10, heads=heads, requested=PINNED.default,
        actual=PINNED.default, target=Target("host", "cpu", "r", "t"), truth=Truth.DEVICE, stages=costs,
        latency_ms=total, energy_mj=None, device_seconds=1.0, program=program,
    )  # fmt: skip


STAGES = _row("stages", [("segment", 3, 2.0), ("head", 3, 0.5), ("segment", 7, 1.0), ("head", 7, 0.25), ("segment", 12, 3.0)])  # fmt: skip
PREFIX = _row("prefix", [("prefix", 3, 2.0), ("prefix", 7, 3.0), ("prefix", 12, 6.0)])


def test_stages_add_up_with_every_head_on_the_way_and_prefixes_hold_them_already() -> None:
    assert cumulative_ms(STAGES) == {3: 2.5, 7: 3.75, 12: 6.75}
    assert cumulative_ms(PREFIX) == {3: 2.0, 7: 3.0, 12: 6.0}
    assert cumulative_ms(PREFIX, [1.0, 2.0, 3.0]) == {3: 1.0, 7: 2.0, 12: 3.0}


def test_ratios_are_paired_by_position() -> None:
    pairs = Pairs([(STAGES, PREFIX)] * 3)
    assert pairs.positions == [3, 7, 12]
    np.testing.assert_allclose(pairs.ratios(7, of="medians"), [1.25] * 3)
    lost = replace(PREFIX, stages=(), latency_ms=None, valid=False, reason="lost")
    assert len(Pairs([(STAGES, lost), (STAGES, PREFIX)]).complete) == 1


def test_the_interval_of_a_ratio_is_students() -> None:
    for freedom, quantile in T_975.items():
        assert quantile == pytest.approx(stats.t.ppf(0.975, freedom), abs=5e-4)
    ratios = np.array([1.0, 1.1, 1.2, 1.3])
    middle, low, high = interval(ratios)
    ends = stats.t.interval(0.95, 3, np.log(ratios).mean(), stats.sem(np.log(ratios)))
    assert middle == pytest.approx(stats.gmean(ratios))
    assert np.log([low, high]) == pytest.approx(ends, abs=1e-3)
    assert interval(np.array([1.5])) == (pytest.approx(1.5), 0.0, math.inf)


def test_a_prefix_is_not_monotone_only_beyond_its_intervals() -> None:
    falling: list[tuple[StageKind, int, float]] = [("prefix", 3, 2.0), ("prefix", 7, 1.9)]
    assert not is_monotone(_row("prefix", falling, error=0.02))
    assert is_monotone(_row("prefix", falling, error=0.05))
    assert is_monotone(PREFIX)


def test_exits_are_spread_over_the_network_from_the_first_position_on() -> None:
    for name, backbone in MINI.presets.items():
        for n_exits in (1, 2, 3):
            positions = with_exits(MINI, name, n_exits).exits.positions
            assert len(positions) == n_exits
            assert positions[0] == MINI.first_exit
            assert positions[-1] < backbone.n_blocks


class _Rig:
    def __init__(self, averaging_s: float | None) -> None:
        self.energy = None if averaging_s is None else type("Source", (), {"averaging_s": averaging_s})


@pytest.mark.parametrize("averaging_s", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("budget_s", [150.0, 300.0, 480.0, 2000.0])
def test_windows_fit_the_budget(budget_s: float, averaging_s: float) -> None:
    rig: Any = _Rig(averaging_s)
    protocol = table_protocol(budget_s, 7, rig)
    assert protocol.window_s <= LONGEST_WINDOW_S
    row_s = protocol.expected_seconds(N_STAGES, True, averaging_s=averaging_s)
    if protocol.window_s > 2.0:
        assert 7 * row_s < budget_s - 20
    if budget_s >= 480 and averaging_s == 0:
        assert protocol.window_s == LONGEST_WINDOW_S


def test_a_table_with_a_hole_does_not_hold() -> None:
    def energetic(ms: float) -> CostRecord:
        row = _row("stages", [("segment", 3, ms), ("head", 3, 0.1), ("segment", 7, ms), ("head", 7, 0.1), ("segment", 12, ms)])  # fmt: skip
        return replace(row, energy_mj=Statistic(5 * ms, 0.1, 9))

    rows = {"m0": [energetic(1.0)], "m3": [energetic(2.0)], "m6": [energetic(3.0)]}
    lines = [line_of(name, SMALL, found) for name, found in rows.items()]
    assert all(judge(lines, SMALL, "cuda", ("a", "a")).values())
    assert not judge(lines, SMALL, "cuda", ("a", "b"))["settings_unchanged"]
    assert not judge(lines[::-1], SMALL, "cuda", ("a", "a"))["largest_takes_longer"]
    empty = line_of("m6", SMALL, [replace(rows["m6"][0], valid=False, reason="others held the core")])
    assert empty["reasons"] == ["others held the core"]
    checks = judge([*lines[:2], empty], SMALL, "cuda", ("a", "a"))
    assert not checks["all_networks"]
    assert not checks["energies"]
    assert not judge([*lines[:2], empty], SMALL, "host", (None, None))["largest_takes_longer"]
