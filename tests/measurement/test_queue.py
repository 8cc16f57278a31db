"""Order, anchors, drift, and what is measured again: sessions on a virtual rig of latency alone."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas.datasets.believable import believable, is_anchor, is_drift, judged
from hadas.errors import ConnectionLostError
from hadas.measurement.hardware.device import MeasurementPlan
from hadas.measurement.hardware.measuring.protocol import FULL
from hadas.measurement.hardware.measuring.runner import MeasuredDevice
from hadas.spaces import mini_space

from .virtual_rig import BROKEN, LOST, TABLE, Faults, VirtualRig, a_request

MINI = mini_space()
FAST = replace(FULL, name="fast", settle_s=0.0, warm_up_s=0.0, warm_up_runs=1, stage_warm_up_s=0.0, block_s=0.01, least_blocks=4, n_bootstrap=100)  # fmt: skip
REQUESTS = tuple(
    a_request(f"m{preset}", setting_no, positions=())
    for preset in range(7)
    for setting_no in range(len(TABLE.settings))
)  # 42 of them


def device(rig, protocol=FAST):
    return MeasuredDevice(rig, protocol, space=MINI, n_classes=10, clock=rig.clock)


def quiet_rig(**faults):
    return VirtualRig(energy=None, noise=0.0005, faults=Faults(**faults))


def key(thing):
    """Of a row or of a request."""
    heads = thing.heads if hasattr(thing, "heads") else thing.exits.heads
    setting = thing.requested if hasattr(thing, "requested") else thing.setting
    return thing.backbone.arch_id, heads, setting


def by_row(change):
    """A fault that looks at how many networks were loaded so far: the row in work is n_loads - 1."""
    rig = quiet_rig()
    rig.faults = replace(rig.faults, slower=lambda now: change(rig.n_loads - 1))
    return rig


# --- order ------------------------------------------------------------------------------------------


def test_the_order_is_a_seeded_permutation_that_begins_with_the_anchor():
    def order(seed, session="s", requests=REQUESTS, **more):
        plan = MeasurementPlan(session, requests, seed=seed, **more)
        return [key(row) for row in device(quiet_rig()).measure(plan) if not is_anchor(row)]

    first = order(0)
    assert Counter(first) == Counter(key(request) for request in REQUESTS)
    assert first[0] == key(REQUESTS[0])
    assert first == order(0)
    assert first != [key(request) for request in REQUESTS]
    assert len({tuple(first), tuple(order(1)), tuple(order(0, "t"))}) == 3
    # Some of the requests keep the order that they have among all.
    some = order(0, requests=REQUESTS[:20])
    assert some[1:] == [k for k in first[1:] if k in set(some)]


# --- anchors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "every", "anchors"),
    [
        (42, 20, [21, 42]),  # row 0, 20 rows, anchor, 20 rows, anchor, 1 row
        (35, 20, [21, 36]),  # 14 rows after the first anchor are half of 20: watched over, too
        (30, 20, [21]),
        (11, 20, [11]),
        (10, 20, []),
        (8, 3, [4, 8]),
        (8, 0, []),
    ],
)
def test_anchors_come_where_they_should(n, every, anchors):
    protocol = replace(FAST, anchor_every=every)
    rows = list(device(quiet_rig(), protocol).measure(MeasurementPlan("s", REQUESTS[:n])))
    assert [row.row_no for row in rows if is_anchor(row)] == anchors
    assert {key(row) for row in rows if is_anchor(row)} <= {key(REQUESTS[0])}
    assert [row.row_no for row in rows] == list(range(n + len(anchors)))
    assert believable(rows) == tuple(rows)


def test_the_idle_device_is_read_again_in_every_batch():
    rig = VirtualRig(noise=0.001)
    protocol = replace(FAST, anchor_every=4, window_s=1.0, window_intervals=0)
    requests = tuple(a_request(f"m{i}", positions=()) for i in range(7))
    rows = list(device(rig, protocol).measure(MeasurementPlan("s", requests)))
    assert [row.row_no for row in rows if is_anchor(row)] == [5, 8]
    assert rig.log.count("idle") == 6  # before and after rows 0, 5 and 8, all at one setting


# --- drift ------------------------------------------------------------------------------------------


def test_a_confirmed_drift_undoes_the_rows_since_the_last_good_anchor_and_no_others():
    """Anchors at rows 6 and 12; the device is slower by 5 % from row 9 on, for good."""
    rig = by_row(lambda row: 1.05 if row >= 9 else 1.0)
    protocol = replace(FAST, anchor_every=5)
    rows = list(device(rig, protocol).measure(MeasurementPlan("s", REQUESTS[:12])))
    moved = [row.row_no for row in rows if row.evidence and "moved" in row.evidence.flags]
    assert moved == [12]
    assert [row.row_no for row in rows if is_drift(row)] == [13]
    assert not rows[13].valid
    assert "the anchor moved in latency by +5.0% since row 0" in rows[13].reason
    undone = {row.row_no for row in rows} - {row.row_no for row in believable(rows)}
    assert undone == {7, 8, 9, 10, 11, 12, 13}
    assert "drifted when row 13" in judged(rows)[8].reason
    assert rows[8].valid  # as it is stored
    # The undone ones are measured again, after the one that was left, and anchors now compare with row 13.
    again = [key(row) for row in rows[14:] if not is_anchor(row)]
    assert sorted(map(str, again)) == sorted(str(key(row)) for row in (*rows[7:12], *rows[14:15]))
    assert [row.evidence.attempt for row in rows[15:] if not is_anchor(row)] == [1] * 5
    good = {key(row) for row in believable(rows) if not is_anchor(row)}
    assert good == {key(request) for request in REQUESTS[:12]}
    assert all("moved" not in row.evidence.flags for row in rows[14:])


def test_an_anchor_that_was_disturbed_once_undoes_nothing():
    rig = by_row(lambda row: 1.05 if row == 6 else 1.0)
    rows = list(device(rig, replace(FAST, anchor_every=5)).measure(MeasurementPlan("s", REQUESTS[:8])))
    assert [row.row_no for row in rows if is_anchor(row)] == [6, 7]
    assert "moved" in rows[6].evidence.flags
    assert rows[7].evidence.flags == ()
    assert believable(rows) == tuple(rows)
    assert len(rows) == 10


def test_a_move_within_its_own_interval_is_no_drift():
    """Blocks scatter by 20 %: 3 % is nothing there."""
    rig = VirtualRig(energy=None, noise=0.2)
    protocol = replace(FAST, anchor_every=5, latency_limit_s=0.1)
    rows = list(device(rig, protocol).measure(MeasurementPlan("s", REQUESTS[:30])))
    anchors = [row for row in rows if is_anchor(row)]
    first = rows[0].latency_ms.value
    assert any(abs(row.latency_ms.value / first - 1) > 0.03 for row in anchors)
    assert sum("moved" in row.evidence.flags for row in anchors) <= 2


def test_a_device_that_creeps_is_caught_though_each_anchor_moves_little():
    """0.4 % a row: 2 % from anchor to anchor, but 4 % from the first to the third."""
    rig = by_row(lambda row: 1.004**row)
    rows = list(device(rig, replace(FAST, anchor_every=5)).measure(MeasurementPlan("s", REQUESTS[:20])))
    assert any(is_drift(row) for row in rows)


def test_energy_drifts_too():
    rig = VirtualRig(noise=0.0005)
    rig.stage_w = lambda i: (3.3 if rig.n_loads > 4 else 3.0, 2.0, 0.7)
    protocol = replace(FAST, anchor_every=3, window_s=1.0, window_intervals=0)
    rows = list(device(rig, protocol).measure(MeasurementPlan("s", REQUESTS[:6])))
    (drift,) = [row for row in rows if is_drift(row)]
    assert "energy by +6." in drift.reason
    assert "latency" not in drift.reason


# --- measured again -----------------------------------------------------------------------------------


def test_what_fails_always_is_measured_twice_and_no_more():
    bad = REQUESTS[3]
    rig = quiet_rig()
    rig.faults = replace(rig.faults, unverified=(bad.setting,))
    rows = list(device(rig).measure(MeasurementPlan("s", REQUESTS[:12])))
    counts = Counter(key(row) for row in rows if not is_anchor(row))
    assert {k: n for k, n in counts.items() if n != 1} == {
        key(request): 2 for request in REQUESTS[:12] if request.setting == bad.setting
    }
    # Again means at the end, when whatever disturbed it may be over.
    assert [row.evidence.attempt for row in rows if not is_anchor(row)] == [0] * 12 + [1] * 2


def test_a_request_that_stands_twice_is_measured_twice():
    plan = MeasurementPlan("s", (REQUESTS[0], REQUESTS[1], REQUESTS[0]))
    rig = quiet_rig(fail_on_load=lambda row: BROKEN if row == 0 else None)
    rows = list(device(rig).measure(plan))
    assert Counter((key(row) == key(REQUESTS[0]), row.valid) for row in rows) == {
        (True, False): 1, (True, True): 2, (False, True): 1,
    }  # fmt: skip


def test_an_anchor_that_fails_is_tried_three_times_and_then_waits():
    failing = {4, 5, 6}
    rig = quiet_rig(fail_on_load=lambda row: BROKEN if row in failing else None)
    rows = list(device(rig, replace(FAST, anchor_every=3)).measure(MeasurementPlan("s", REQUESTS[:9])))
    assert [(row.row_no, row.valid) for row in rows if is_anchor(row)] == [
        (4, False), (5, False), (6, False), (10, True), (13, True),
    ]  # fmt: skip
    assert Counter(key(row) for row in rows if not is_anchor(row)) == Counter(map(key, REQUESTS[:9]))


def test_a_first_row_that_fails_leaves_the_anchor_to_the_next():
    rig = quiet_rig(fail_on_load=lambda row: BROKEN if row == 0 else None)
    rows = list(device(rig, replace(FAST, anchor_every=3)).measure(MeasurementPlan("s", REQUESTS[:6])))
    anchors = [row for row in rows if is_anchor(row)]
    assert anchors
    assert {key(row) for row in anchors} == {key(rows[1])}


# --- going on after a kill ------------------------------------------------------------------------------


def resume(rig, rows, wanted, protocol):
    """What a study asks for when it is started again: the wanted requests without a believable row."""
    known = {key(row) for row in believable(rows)}
    known_requests = {key(request): request for request in wanted}
    done = tuple(known_requests[key(row)] for row in rows)
    missing = tuple(request for request in wanted if key(request) not in known)
    plan = MeasurementPlan("s", (*done, *missing), first_row=len(rows), earlier=tuple(rows))
    return device(rig, protocol).measure(plan)


def check_session(rows, wanted, n_restarts):
    assert [row.row_no for row in rows] == list(range(len(rows)))
    good = {key(row) for row in believable(rows) if not is_anchor(row)}
    assert good == {key(request) for request in wanted}
    measured = Counter(key(row) for row in rows if not is_anchor(row))
    assert max(measured.values()) <= 2 + n_restarts + sum(is_drift(row) for row in rows)


DRIFTING = replace(FAST, anchor_every=4)


def drifting_rig():
    """5 % slower from the 8th network on, and the 3rd fails."""
    rig = by_row(lambda row: 1.05 if row >= 7 else 1.0)
    rig.faults = replace(rig.faults, fail_on_load=lambda row: BROKEN if row == 2 else None)
    return rig


def test_a_session_killed_at_any_row_goes_on_to_a_believable_row_for_every_request():
    wanted = REQUESTS[:11]
    whole = list(device(drifting_rig(), DRIFTING).measure(MeasurementPlan("s", wanted)))
    check_session(whole, wanted, 0)
    assert any(is_drift(row) for row in whole)
    for killed_at in range(len(whole) + 1):
        rig = drifting_rig()
        sitting = device(rig, DRIFTING).measure(MeasurementPlan("s", wanted))
        rows = list(islice(sitting, killed_at))
        rows += resume(rig, rows, wanted, DRIFTING)
        check_session(rows, wanted, 1)
        assert len(rows) <= len(whole) + 2
        # A finished session has nothing left to do.
        assert list(resume(rig, rows, wanted, DRIFTING)) == []


def until_lost(sitting):
    """Rows until the device is lost, if it is."""
    with suppress(ConnectionLostError):
        yield from sitting


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 14), st.integers(1, 6))
def test_sessions_end_whatever_fails_and_whenever_they_are_killed(seed, n, every):
    """Random failures, drifts and kills; once the device is well, a last sitting completes the session."""
    rng = np.random.default_rng(seed)
    failing = set(rng.integers(0, 30, 6).tolist())
    lost = int(rng.integers(0, 30))
    steps = np.cumprod(np.where(rng.random(200) < 0.1, 1.05, 1.0))
    rig = by_row(lambda row: float(steps[min(row, 199)]))

    def fails(row):
        return LOST if row == lost else BROKEN if row in failing else None

    rig.faults = replace(rig.faults, fail_on_load=fails)
    protocol, wanted = replace(FAST, anchor_every=every), REQUESTS[:n]
    sitting = device(rig, protocol).measure(MeasurementPlan("s", wanted))
    rows = list(islice(until_lost(sitting), int(rng.integers(0, 20))))
    for _ in range(3):
        rows += islice(until_lost(resume(rig, rows, wanted, protocol)), int(rng.integers(0, 20)))
    assert len(rows) < 80
    rig.faults = replace(rig.faults, slower=lambda now: 1.0, fail_on_load=lambda row: None)
    for _ in range(3):  # a last drift, back to where it was, may be found only now
        rows += resume(rig, rows, wanted, protocol)
    check_session(rows, wanted, 7)
