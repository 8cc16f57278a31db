"""Several devices, one queue: nothing is lost and nothing doubled, whoever dies and whenever one stops."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import pytest

from hadas.datasets.believable import is_anchor, judged
from hadas.datasets.records import CostRecord, Target
from hadas.errors import ConfigError, DeviceBusyError, DeviceError, OffTableFrequencyError
from hadas.measurement.farm.parallel import measure_in_parallel, session_of
from hadas.measurement.hardware.device import MeasurementPlan
from hadas.measurement.hardware.measuring.protocol import QUICK
from hadas.measurement.hardware.measuring.runner import MeasuredDevice
from hadas.spaces import Setting, mini_space

from ..virtual_rig import BROKEN, LOST, Faults, VirtualRig, a_request

FAST = replace(QUICK, n_windows=1, anchor_every=6, n_bootstrap=100)
REQUESTS = tuple(
    a_request(preset, setting_no) for preset in ("m0", "m1", "m2", "m3") for setting_no in range(5)
)
PLAN = MeasurementPlan("lab", REQUESTS, seed=4)


@dataclass
class Virtual:
    """A device of a farm, made of arithmetic."""

    name: str
    rig: VirtualRig
    is_dead: bool = False

    @property
    def device(self) -> MeasuredDevice:
        return MeasuredDevice(self.rig, FAST, space=mini_space(), n_classes=10, clock=self.rig.clock)

    def check(self) -> None:
        if self.is_dead:
            raise LOST


def farm(n: int, fail: Callable[[int, int], Exception | None] = lambda number, load: None) -> list[Virtual]:
    """Devices that all take part: each waits at its first row for the others.

    Args:
        fail: what device ``number`` raises at its ``load``-th row.
    """
    barrier = threading.Barrier(n)
    devices = [Virtual(f"tx2-{number}", VirtualRig(energy=None, seed=number)) for number in range(n)]
    for number, device in enumerate(devices):
        device.rig.faults = Faults(fail_on_load=partial(_load, device, number, barrier, fail))
    return devices


def _load(
    device: Virtual, number: int, barrier: threading.Barrier, fail: Callable[[int, int], Exception | None], load: int
) -> Exception | None:  # fmt: skip
    if load == 0:
        barrier.wait(10)
    error = fail(number, load)
    device.is_dead = error is LOST
    return error


def believed(rows: Sequence[CostRecord]) -> Counter[tuple[str, Setting]]:
    """How often each request has a row to believe, those aside that only repeat one to watch for drift."""
    by_session = sorted(rows, key=lambda row: (row.session, row.row_no))
    return Counter(
        (row.backbone.arch_id, row.requested)
        for row in judged(by_session)
        if row.valid and not is_anchor(row)
    )


EVERY_REQUEST_ONCE = Counter((request.backbone.arch_id, request.setting) for request in REQUESTS)


def resumed(plan: MeasurementPlan, rows: Sequence[CostRecord]) -> MeasurementPlan:
    """The plan as a study makes it anew from the rows it has stored, in the store's order."""
    earlier = tuple(sorted(rows, key=lambda row: (row.session, row.row_no)))
    requests = {
        (request.backbone, request.exits.heads, request.setting): request for request in plan.requests
    }
    done = tuple(requests[row.backbone, row.heads, row.requested] for row in earlier)
    known = believed(earlier)
    wanted = tuple(r for r in plan.requests if not known[r.backbone.arch_id, r.setting])
    return replace(plan, requests=(*done, *wanted), first_row=len(done), earlier=earlier)


def check_identities(rows: Sequence[CostRecord]) -> None:
    """No two rows have one identity, and each device's rows are numbered without gaps."""
    for session in {row.session for row in rows}:
        numbers = [row.row_no for row in rows if row.session == session]
        assert numbers == list(range(len(numbers)))


def test_devices_share_one_queue() -> None:
    rows = list(measure_in_parallel(farm(3), PLAN))
    assert believed(rows) == EVERY_REQUEST_ONCE
    check_identities(rows)
    assert {row.session for row in rows} == {session_of(PLAN, f"tx2-{number}") for number in range(3)}
    assert any(is_anchor(row) for row in rows), "each device watches its own drift"


@pytest.mark.parametrize("dies_at", [0, 1, 3])
def test_a_device_that_dies_gives_back_what_it_owes(dies_at: int) -> None:
    devices = farm(3, lambda number, load: LOST if number == 1 and load >= dies_at else None)
    deaths: list[tuple[str, str]] = []
    rows = list(measure_in_parallel(devices, PLAN, on_death=lambda *death: deaths.append(death)))
    assert believed(rows) == EVERY_REQUEST_ONCE
    check_identities(rows)
    assert deaths == [("tx2-1", str(LOST))]
    assert [row.session for row in rows if not row.valid] == [session_of(PLAN, "tx2-1")], (
        "its last row says why"
    )


def test_a_request_that_fails_on_a_device_that_is_well_has_failed() -> None:
    devices = farm(2, lambda number, load: BROKEN)
    rows = list(measure_in_parallel(devices, replace(PLAN, requests=REQUESTS[:6])))
    assert not any(row.valid for row in rows)
    assert {row.evidence.attempt for row in rows if row.evidence} == {0, 1}
    assert len(rows) == 2 * 6, "each is tried twice, and then not again on the other device"


def test_when_all_devices_die_the_rows_are_kept_and_the_rest_is_told() -> None:
    devices = farm(2, lambda number, load: LOST if load >= 2 else None)
    rows: list[CostRecord] = []
    with pytest.raises(
        DeviceError, match=r"16 requests were not measured: no device is left \(tx2-.: the link"
    ):
        rows.extend(measure_in_parallel(devices, PLAN))
    assert sum(believed(rows).values()) == 4


@dataclass
class Taken(Virtual):
    """A device whose lease somebody else took after two rows."""

    n_checks: int = 0

    def check(self) -> None:
        self.n_checks += 1
        if self.n_checks > 2:
            raise DeviceBusyError(f"device '{self.name}': somebody else holds it now")


def test_a_device_that_somebody_took_is_not_called_dead() -> None:
    first, second, third = farm(3)
    taken = Taken(second.name, second.rig)
    deaths: list[tuple[str, str]] = []
    rows = list(
        measure_in_parallel([first, taken, third], PLAN, on_death=lambda *death: deaths.append(death))
    )
    assert believed(rows) == EVERY_REQUEST_ONCE
    assert sum(row.session == session_of(PLAN, taken.name) for row in rows) == 3
    assert deaths == []


def test_when_all_devices_are_taken_the_devices_are_busy() -> None:
    (alone,) = farm(1)
    deaths: list[tuple[str, str]] = []
    with pytest.raises(
        DeviceBusyError, match=r"17 requests were not measured: .* somebody else holds it now"
    ):
        list(
            measure_in_parallel(
                [Taken("tx2-0", alone.rig)], PLAN, on_death=lambda *death: deaths.append(death)
            )
        )
    assert deaths == []


@pytest.mark.parametrize("n_rows", [1, 7, 15, 22])
def test_a_plan_that_was_cut_off_goes_on_where_it_was(n_rows: int) -> None:
    sitting = measure_in_parallel(farm(2), PLAN)
    first = list(islice(sitting, n_rows))
    sitting.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("measuring on")]
    rest = list(measure_in_parallel(farm(2), resumed(PLAN, first)))
    rows = [*first, *rest]
    assert believed(rows) == EVERY_REQUEST_ONCE
    check_identities(rows)


def test_rows_of_other_sessions_are_not_numbered_among_ours() -> None:
    first = list(measure_in_parallel(farm(1), replace(PLAN, requests=REQUESTS[:5])))
    (alone,) = farm(1)
    newcomer = Virtual("tx2-new", alone.rig)
    rest = list(measure_in_parallel([newcomer], resumed(PLAN, first)))
    assert believed([*first, *rest]) == EVERY_REQUEST_ONCE
    assert rest[0].row_no == 0


def test_a_fault_of_the_program_reaches_the_caller() -> None:
    devices = farm(2, lambda number, load: RuntimeError("a bug") if number else None)
    with pytest.raises(RuntimeError, match="a bug"):
        list(measure_in_parallel(devices, PLAN))


class OtherRig(VirtualRig):
    @property
    def target(self) -> Target:
        return replace(super().target, release="2")


def test_devices_of_different_kinds_are_not_mixed() -> None:
    devices = [Virtual("a", VirtualRig(energy=None)), Virtual("b", OtherRig(energy=None))]
    with pytest.raises(ConfigError, match="'a' and 'b' are not of one kind: release is '1' and '2'"):
        measure_in_parallel(devices, PLAN)
    with pytest.raises(ConfigError, match="no device"):
        measure_in_parallel([], PLAN)


def test_a_request_off_the_table_is_refused_before_anything_is_measured() -> None:
    (alone,) = farm(1)
    off = replace(REQUESTS[0], setting=Setting((("gpu", 1), ("emc", 800_000_000))))
    with pytest.raises(OffTableFrequencyError):
        measure_in_parallel([alone], replace(PLAN, requests=(*REQUESTS, off)))
    assert alone.rig.n_loads == 0
