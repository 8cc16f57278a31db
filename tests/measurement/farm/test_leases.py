"""Leases: one holder at a time whatever happens, in order, and free again when the holder is gone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hadas.datasets.leases import Leases
from hadas.datasets.store import Store
from hadas.errors import DeviceBusyError, DeviceError, StoreError


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "store.sqlite")


@pytest.fixture
def leases(url: str) -> Iterator[Leases]:
    store = Store(url)
    yield Leases(store)
    store.close()


def test_a_device_has_one_holder_who_is_told_to_the_others(leases: Leases) -> None:
    lease = leases.acquire("tx2", owner="ana@desk", ttl_s=30)
    with pytest.raises(DeviceBusyError, match=f"held by ana@desk until {lease.expires_utc}"):
        leases.acquire("tx2", owner="ben@desk")
    assert leases.acquire("agx", owner="ben@desk").owner == "ben@desk"
    assert [held.device for held in leases.active()] == ["agx", "tx2"]
    leases.release(lease)
    again = leases.acquire("tx2", owner="ben@desk")
    leases.release(lease)  # an old lease gives nothing away
    assert again in leases.active()


def test_a_lease_whose_holder_is_silent_runs_out(leases: Leases) -> None:
    stale = leases.acquire("tx2", owner="ana", ttl_s=0.3)
    began = time.monotonic()
    fresh = leases.acquire("tx2", owner="ben", ttl_s=30, wait_s=5)
    assert 0.2 < time.monotonic() - began < 2
    with pytest.raises(DeviceBusyError, match="ben holds it now"):
        leases.renew(stale)
    leases.release(stale)
    assert leases.active() == (fresh,)


def test_a_lease_that_ran_out_is_renewed_while_nobody_took_the_device(leases: Leases) -> None:
    lease = leases.acquire("tx2", owner="ana", ttl_s=0.05)
    time.sleep(0.1)
    assert leases.active() == ()
    renewed = leases.renew(lease, 30)
    assert [held.lease_id for held in leases.active()] == [lease.lease_id]
    assert renewed.expires_at > lease.expires_at + 29


def test_a_heartbeat_keeps_a_lease_longer_than_its_time_to_live(leases: Leases) -> None:
    with leases.hold("tx2", owner="ana", ttl_s=0.3) as held:
        time.sleep(0.8)
        held.check()
        with pytest.raises(DeviceBusyError):
            leases.acquire("tx2", owner="ben")
    assert leases.active() == ()


def test_a_holder_learns_that_the_lease_was_lost(leases: Leases) -> None:
    with leases.hold("tx2", owner="ana", ttl_s=0.3) as held:
        leases.release(held.lease)  # as if it had run out while this machine slept
        leases.acquire("tx2", owner="ben")
        time.sleep(0.5)
        with pytest.raises(DeviceBusyError, match="ben holds it now"):
            held.check()
    assert [lease.owner for lease in leases.active()] == ["ben"], "leaving gives away nothing of ben's"


def test_who_waits_is_served_by_priority_and_then_in_order(leases: Leases) -> None:
    first = leases.acquire("tx2", owner="holder", ttl_s=30)
    served: list[str] = []

    def wait(owner: str, priority: int) -> None:
        lease = leases.acquire("tx2", owner=owner, priority=priority, wait_s=20)
        served.append(owner)
        leases.release(lease)

    waiting = [("low-1", 0), ("low-2", 0), ("high", 5), ("low-3", 0)]
    threads = [threading.Thread(target=wait, args=entry) for entry in waiting]
    for thread in threads:
        thread.start()
        time.sleep(0.05)  # they arrive in this order
    leases.release(first)
    for thread in threads:
        thread.join()
    assert served == ["high", "low-1", "low-2", "low-3"]


def test_nobody_jumps_the_queue(leases: Leases) -> None:
    first = leases.acquire("tx2", owner="holder", ttl_s=30)
    waiter = threading.Thread(target=lambda: leases.acquire("tx2", owner="waiter", wait_s=20))
    waiter.start()
    time.sleep(0.15)
    leases.release(first)
    with pytest.raises(DeviceBusyError, match="waiter"):
        leases.acquire("tx2", owner="hasty")
    waiter.join()


def test_waiting_ends(leases: Leases) -> None:
    leases.acquire("tx2", owner="ana", ttl_s=30)
    began = time.monotonic()
    with pytest.raises(DeviceBusyError, match="held by ana"):
        leases.acquire("tx2", owner="ben", wait_s=0.3)
    assert 0.25 < time.monotonic() - began < 2


WAITER = """
import sys
from hadas.datasets.leases import Leases
from hadas.datasets.store import Store
leases = Leases(Store(sys.argv[1]))
print("waiting", flush=True)
leases.acquire("tx2", owner="killed", priority=9, wait_s=60)
"""


def test_a_waiter_that_was_killed_holds_nobody_up(leases: Leases, url: str) -> None:
    first = leases.acquire("tx2", owner="holder", ttl_s=60)
    waiter = subprocess.Popen([sys.executable, "-c", WAITER, url], stdout=subprocess.PIPE)
    assert waiter.stdout is not None
    assert waiter.stdout.readline() == b"waiting\n"
    time.sleep(0.3)
    waiter.kill()
    waiter.wait()
    waiter.stdout.close()
    leases.release(first)
    with pytest.raises(DeviceBusyError, match="killed waits"):
        leases.acquire("tx2", owner="ana")
    assert leases.acquire("tx2", owner="ana", wait_s=10).owner == "ana"


CONTENDERS = """
import os, sys, time
from hadas.datasets.leases import Leases
from hadas.datasets.store import Store
url, witness = sys.argv[1:]

def contend(name):
    leases = Leases(Store(url))
    for turn in range(4):
        lease = leases.acquire("tx2", owner=name, wait_s=60)
        # The witness can be made once: a second holder would fail here.
        os.close(os.open(witness, os.O_CREAT | os.O_EXCL))
        time.sleep(0.005)
        os.unlink(witness)
        leases.release(lease)
        os.write(1, f"{name} {turn}\\n".encode())

children = []
for number in range(8):
    child = os.fork()
    if child == 0:
        try:
            contend(f"process-{number}")
            os._exit(0)
        finally:
            os._exit(1)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def test_eight_processes_never_hold_one_device_together(tmp_path: Path, url: str, leases: Leases) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONTENDERS, url, str(tmp_path / "witness")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert leases.active() == ()
    assert sorted(done.stdout.split("\n")[:-1]) == [
        f"process-{number} {turn}" for number in range(8) for turn in range(4)
    ]


def test_three_failures_in_a_row_put_a_device_into_quarantine(leases: Leases) -> None:
    leases.report("tx2", "no answer")
    leases.report("tx2", "no answer")
    assert leases.report("tx2").failures == 0, "a check that passes begins anew"
    for number in range(3):
        assert not leases.health("tx2").quarantined
        assert leases.report("tx2", f"no answer {number}").failures == number + 1
    with pytest.raises(DeviceError, match=r"in quarantine \(no answer 2\)"):
        leases.acquire("tx2", owner="ana")
    leases.report("tx2")
    assert leases.health("tx2").quarantined, "a device that works now and then does not release itself"
    leases.end_quarantine("tx2")
    assert leases.acquire("tx2", owner="ana").device == "tx2"


def test_a_device_goes_into_quarantine_at_once_where_it_died(leases: Leases) -> None:
    lease = leases.acquire("tx2", owner="ana")
    leases.quarantine("tx2", "connection lost")
    assert lease in leases.active(), "its holder may put it in order"
    leases.release(lease)
    with pytest.raises(DeviceError, match="connection lost"):
        leases.acquire("tx2", owner="ben", wait_s=30)


def test_a_store_that_is_gone_is_a_typed_error(url: str, leases: Leases) -> None:
    Path(url).unlink()
    Path(url).mkdir()
    with pytest.raises(StoreError):
        Leases(Store(url))
