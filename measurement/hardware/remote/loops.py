"""Programs on a board, and the loop over one of them, as the measuring protocol sees them.

Units: seconds, W.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ....errors import DeviceError
from ..programs import ProgramFile
from ..rig import Block, LoadedStage, PowerTrace
from .client import AgentClient, AgentReplyError

STOPPING_S = 15.0
_ENGINE_START_S = 30.0
_HUNG_S = 1.0
_N_DECISIONS = 200


class RemotePrograms:
    """The programs of one network on the board (see :class:`hadas.measurement.hardware.rig.Programs`)."""

    def __init__(
        self, client: AgentClient, files: tuple[ProgramFile, ...], engine: str, decides: int | None,
        rails: tuple[str, ...], block_s: float,
    ) -> None:  # fmt: skip
        self._client = client
        self._files = files
        self._decides = decides
        self._rails = rails
        self._block_s = block_s
        self.engine = engine
        self.stages = tuple(LoadedStage(file.kind, file.position) for file in files)

    @contextmanager
    def loop(self, index: int, runs_per_block: int, expected_s: float) -> Iterator[RemoteLoop]:
        """See :meth:`hadas.measurement.hardware.rig.Programs.loop`."""
        self._client.drop_events()
        self._client.request(
            "loop_start", program=program_name(self._files[index]), runs_per_block=runs_per_block, expected_s=expected_s,
            sample=bool(self._rails),
        )  # fmt: skip
        # trtexec reads its engine first, and tells what it saw in the end.
        silent_s = expected_s + _ENGINE_START_S if self.engine.startswith("trtexec") else 0.0
        loop = RemoteLoop(self._client, self._rails, self._block_s + silent_s)
        try:
            yield loop
        finally:
            loop.stop()

    def decision_s(self) -> float | None:
        """See :meth:`hadas.measurement.hardware.rig.Programs.decision_s`."""
        if self._decides is None:
            return None
        reply = self._client.request("decision", deadline_s=60.0, n_classes=self._decides, runs=_N_DECISIONS)
        return float(reply["seconds"])


class RemoteLoop:
    """One program running on the board (see :class:`hadas.measurement.hardware.rig.Loop`).

    The board sends its power readings when the program stops: asking for them stops it.
    """

    def __init__(self, client: AgentClient, rails: tuple[str, ...], patience_s: float) -> None:
        self._client = client
        self._rails = rails
        self._patience_s = patience_s
        self._waiting: deque[Block] = deque()
        self._stopped: dict[str, Any] | None = None
        self._failed = False

    def __iter__(self) -> Iterator[Block]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            self._receive()

    def trace(self) -> PowerTrace | None:
        """Power readings since the loop began; ends the loop."""
        reply = self.stop()
        return power_trace(reply["trace"], self._rails) if self._rails else None

    def stop(self) -> dict[str, Any]:
        """End the loop, once; the agent's answer."""
        if self._stopped is None:
            self._stopped = {"trace": None}
            if self._client.is_alive and not self._failed:
                self._stopped = self._client.request("loop_stop", deadline_s=STOPPING_S)
        return self._stopped

    def _receive(self) -> None:
        """Wait for blocks.

        Raises:
            DeviceError: the program failed or hangs; the agent has ended it.
            ConnectionLostError: the link broke.
        """
        event = self._client.event(self._patience_s)
        if event is None:
            self._failed = True
            with contextlib.suppress(AgentReplyError):  # it does not stop: at this deadline it is killed
                self._client.request("loop_stop", deadline_s=_HUNG_S)
            raise DeviceError(
                f"{self._client.name}: the program gave no result for {self._patience_s:g} s and was ended; "
                "run it once by hand on the device"
            )
        if event["event"] == "workload-ended":
            self._failed = True
            raise DeviceError(f"{self._client.name}: the program ended: {event['reason']}")
        if event["event"] == "blocks":
            self._waiting.extend(Block(start, end, tuple(runs)) for start, end, runs in event["blocks"])


def program_name(file: ProgramFile) -> str:
    """What a program is called on the wire."""
    return f"{file.kind}-{file.position}"


def power_trace(reply: Mapping[str, Any] | None, rails: tuple[str, ...]) -> PowerTrace | None:
    """The readings that an agent sends, rails in the given order."""
    if reply is None:
        return None
    power_w = tuple(tuple(reply["power_w"].get(rail, ())) for rail in rails)
    return PowerTrace(tuple(reply["time_s"]), power_w)
