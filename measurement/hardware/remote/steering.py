"""Whether the clocks of a board may be set by this session, and when."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ....errors import DeviceError, HotDeviceError
from .client import AgentClient, AgentReplyError

_SETTING_S = 30.0
_COOLING_S = 120.0  # as long as a row waits for a cool device
_LOOKING_S = 1.0

_BY_HAND = "by hand: sudo python3 ~/.cache/hadas-agent/*.pyz restore"
_REMEDIES = {
    "stale-journal": "an agent that was killed left clocks set there. Let this one put them back (allow_dvfs: true), "
    f"or do it {_BY_HAND}; a reboot does it as well",
    "restore-incomplete": "an agent that was killed left clocks set there, and this one could not put all of them "
    f"back. Do it {_BY_HAND}; a reboot does it as well",
    "journal-corrupt": "what an agent that was killed changed there cannot be read any more. Reboot it, which puts "
    f"everything back, then set that journal aside {_BY_HAND}",
    "other-journal": "another user's agent was killed there and left clocks set. Do it as that user, or as root with "
    f"--journal and the journal's path, {_BY_HAND}; a reboot does it as well, and that user's next session, or you, "
    "remove the journal",
}


def refuse_leftovers(name: str, flags: Sequence[str]) -> None:
    """Measure nothing at clocks that somebody else set and did not put back.

    Args:
        name: what messages call the board.
        flags: of its discovery.

    Raises:
        DeviceError: the journal of an earlier agent is still there.
    """
    for flag in flags:
        remedy = _REMEDIES.get(flag.partition(":")[0])
        if remedy:
            raise DeviceError(f"{name}: {flag}: {remedy}")


def set_when_cool(client: AgentClient, clocks_hz: Mapping[str, int]) -> dict[str, Any]:
    """Have clocks set; while the board is being cooled, wait.

    Its limits are then not those to put back, so that the agent sets none for the first time.

    Returns:
        The agent's answer.

    Raises:
        HotDeviceError: it is still being cooled after two minutes; nothing was written.
        OffTableFrequencyError, AgentReplyError, ConnectionLostError: as :meth:`.client.AgentClient.request`.
    """
    end_s = time.monotonic() + _COOLING_S
    while True:
        try:
            return client.request("set_clocks", deadline_s=_SETTING_S, clocks_hz=dict(clocks_hz))
        except AgentReplyError as error:
            if error.kind != "cooling":
                raise
            if time.monotonic() >= end_s:
                raise HotDeviceError(f"{error} (after {_COOLING_S:g} s)") from error
        time.sleep(_LOOKING_S)
