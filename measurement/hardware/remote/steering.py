"""Whether the clocks of a board may be set by this session, and when."""

from __future__ import annotations

from collections.abc import Sequence

from ....errors import DeviceError

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
