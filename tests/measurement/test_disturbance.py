"""What a device says of itself, and what a row is worth then."""

from __future__ import annotations

import pytest

from hadas.measurement.hardware.measuring.disturbance import judge_states
from hadas.measurement.hardware.measuring.protocol import FULL
from hadas.measurement.hardware.rig import DeviceState
from hadas.spaces import PINNED, Setting

WELL = DeviceState()
GPU = Setting((("gpu", 854_250_000),))


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("slow-clock:gpu", "clock 'gpu' fell below what was set"),
        ("overcurrent-suspected:cpu1", "clock 'cpu1' ran below its lower limit, as after an over-current event"),
        ("current-critical:VDD_IN", "the current of rail 'VDD_IN' was critical"),
        ("cooling:cpu-throttle-alert", "thermal governor 'cpu-throttle-alert' was at work"),
    ],
)  # fmt: skip
def test_what_limits_the_device_spoils_the_row(flag: str, reason: str) -> None:
    found = judge_states([WELL, DeviceState(flags=(flag,)), WELL], [], PINNED.default, FULL)
    assert found.reason == reason
    assert found.flags == ("throttled", flag)


@pytest.mark.parametrize("flag", ["cooling:hot-surface-alert", "rails-unreadable", "emc-capped:1331200000"])
def test_what_limits_nothing_is_said_and_no_more(flag: str) -> None:
    found = judge_states([WELL, DeviceState(flags=(flag,))], [], PINNED.default, FULL)
    assert (found.reason, found.flags) == ("", (flag,))


def test_a_row_does_not_answer_for_what_was_before_it() -> None:
    hot = DeviceState(flags=("cooling:gpu-throttle-alert",))
    assert judge_states([hot, WELL, WELL], [], PINNED.default, FULL).reason == ""


def test_a_clock_that_only_software_tells_of_is_not_verified() -> None:
    shown = DeviceState(actual=GPU, flags=("unverified:cpu0",))
    found = judge_states([shown, shown], [], GPU, FULL)
    assert (found.reason, found.clocks_verified) == ("", False)
    assert judge_states([DeviceState(actual=GPU)] * 2, [], GPU, FULL).clocks_verified is True


def test_a_held_clock_is_compared_with_what_it_is_held_at() -> None:
    held = DeviceState(actual=GPU, held_hz=(("cpu1", 2_035_200_000, 2_033_000_000),))
    assert judge_states([held, held], [], GPU, FULL).reason == "", "a processor's own count scatters"
    fallen = DeviceState(actual=GPU, held_hz=(("cpu1", 2_035_200_000, 242_000_000),))
    found = judge_states([held, fallen], [], GPU, FULL)
    assert found.reason == "clocks ran at cpu1 242 MHz instead of 2035.2 MHz while measuring"
    assert (found.flags, found.clocks_verified) == (("throttled",), False)
