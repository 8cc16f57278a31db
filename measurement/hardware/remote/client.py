"""The host's end of the wire to an agent: requests with deadlines, heartbeats, events, typed errors.

The agent is started through a transport and lives as long as its pipe.  Whatever breaks, it restores
the device by itself: on the end of the pipe at once, on silence after its watchdog's time.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import queue
import re
import shlex
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Self

from ....errors import (
    ConnectionLostError,
    DeviceBusyError,
    DeviceError,
    OffTableFrequencyError,
    UnreachableDeviceError,
)
from ..agent.bundle import bundle_agent
from .transport import Transport, agent_directory, copy_file, last_line

HEARTBEAT_S = 3.0
WATCHDOG_S = 15.0
PROTOCOL = 1
_ANSWER_S = 20.0
_GRACE_S = 10.0  # past a deadline, for an agent that kills a process and answers
_STARTING_S = 30.0  # a slow board restores a stale journal first
_N_LOG_LINES = 40
_SUDO = ("env", "LC_ALL=C", "sudo", "-n", "--")  # in English, so that a refusal can be told
# Sudo warns of harmless things as well, such as a host name that it cannot resolve.
_SUDO_REFUSALS = "a password is required|a terminal is required|not in the sudoers file|not allowed to"


class AgentReplyError(DeviceError):
    """A request that the agent refused or could not do.

    Attributes:
        kind: ``not-allowed``, ``not-writable``, ``not-verified``, ``cooling``, ``bad-request``,
            ``deadline``, ``workload`` or ``io``.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class AgentClient:
    """One agent, running on a device.

    Args:
        transport: how the device is reached; the client closes it.
        allow_dvfs: whether the agent may write anything.
        sudo: start it by ``sudo -n``, as clocks and most sensors are root's.
        python: interpreter there that runs the agent and the programs; an engine in a virtual environment needs its.
        sysroot: where the device's file system lies, for a recorded or emulated board.
        watchdog_s: silence after which the agent restores the device and leaves.
        program: command that runs an agent which is on the device already; by default this hadas's
            agent is copied there.
    """

    def __init__(
        self, transport: Transport, *, allow_dvfs: bool = False, sudo: bool = False, python: str = "python3",
        sysroot: str = "/",        watchdog_s: float = WATCHDOG_S, program: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.name = transport.name
        self._transport = transport
        self._ids = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._log: collections.deque[str] = collections.deque(maxlen=_N_LOG_LINES)
        self._broken = ""
        self._reported = False
        self._greeted = False
        self._allow_dvfs = allow_dvfs
        self._closing = threading.Event()
        self._heartbeat_s = min(HEARTBEAT_S, watchdog_s / 5)
        try:
            if program is None:
                program = (python, install_agent(transport, python))
            command = [*(_SUDO if sudo else ()), *program, "serve"]
            command += ["--watchdog-s", f"{watchdog_s:g}", *(("--allow-dvfs",) if allow_dvfs else ())]
            command += () if sysroot == "/" else ("--sysroot", sysroot)
            self._process = transport.start(command)
        except BaseException:
            transport.close()
            raise
        self._threads = [
            threading.Thread(target=work, name=f"{work.__name__} {self.name}", daemon=True)
            for work in (self._read, self._read_log, self._beat)
        ]
        for thread in self._threads:
            thread.start()
        try:
            self.hello = self._greet()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def transport(self) -> Transport:
        """What reaches the device."""
        return self._transport

    @property
    def is_alive(self) -> bool:
        """Whether the agent answers as far as is known."""
        return not self._broken and not self._closing.is_set()

    def request(self, op: str, *, deadline_s: float = _ANSWER_S, **arguments: Any) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Args:
            deadline_s: the agent gives up after that long, and kills its workload if that hangs.

        Raises:
            OffTableFrequencyError: a frequency that the device does not list; nothing was written.
            AgentReplyError: the agent refused, or could not do it; says why.
            ConnectionLostError: the link broke, or no answer came by the deadline and some grace.
        """
        number = next(self._ids)
        answer: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            self._waiting[number] = answer
            if self._broken:
                answer.put(None)
        try:
            self._send({"id": number, "op": op, "deadline_s": deadline_s, **arguments})
            try:
                reply = answer.get(timeout=deadline_s + _GRACE_S)
            except queue.Empty:
                self._break(f"no answer to '{op}' within {deadline_s + _GRACE_S:.0f} s")
                reply = None
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        if reply is None:
            raise self._lost()
        if not reply["ok"]:
            raise _as_error(self.name, op, reply["error"])
        result: dict[str, Any] = reply["result"]
        return result

    def event(self, timeout_s: float) -> dict[str, Any] | None:
        """The next event of the agent; ``None`` if none comes in time.

        Raises:
            ConnectionLostError: the link broke.
        """
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if event is None:
            self._events.put(None)
            raise self._lost()
        return event

    def drop_events(self) -> None:
        """Forget events that nobody read: those of a loop that is over."""
        while not self._events.empty():
            if self._events.get() is None:
                self._events.put(None)
                return

    def close(self) -> None:
        """Let the agent restore the device and leave; then end the connection.

        Raises:
            DeviceError: the agent could not put everything back, or may not have, and nobody was told yet that
                it is out of reach.
        """
        if self._closing.is_set():
            return
        trouble, is_certain, was_reported = "", False, self._reported
        try:
            self.request("quit", deadline_s=_STARTING_S)
        except AgentReplyError as error:
            trouble, is_certain = str(error), True
        except DeviceError as error:
            trouble = str(error)  # the end of its pipe tells it the same
        finally:
            self._closing.set()
            self._end_process()
            self._transport.close()
        if not trouble or self._process.returncode == 0:  # it tries once more before it leaves
            return
        by_hand = "sudo python3 ~/.cache/hadas-agent/*.pyz restore; a reboot does it as well"
        if is_certain:
            raise DeviceError(
                f"the device was not left as it was found. {trouble}. By hand, there: {by_hand}"
            )
        if self._allow_dvfs and self._greeted and not was_reported:
            raise DeviceError(
                f"whether the device was left as it was found is not known. {trouble}. Its agent restores it when "
                f"it misses the link, or at its next start; by hand, there: {by_hand}"
            )

    def _greet(self) -> dict[str, Any]:
        hello = self.request("hello", deadline_s=_STARTING_S)
        if hello.get("protocol") != PROTOCOL:
            raise DeviceError(
                f"{self.name}: its agent speaks protocol {hello.get('protocol')}, this hadas speaks {PROTOCOL}; "
                "start the agent that comes with it"
            )
        self._greeted = True
        return hello

    def _send(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            with self._writing:
                assert self._process.stdin is not None
                self._process.stdin.write(line)
                self._process.stdin.flush()
        except (OSError, ValueError):
            self._break("the pipe to its agent is closed")

    def _beat(self) -> None:
        while not self._closing.wait(self._heartbeat_s) and not self._broken:
            self._send({"op": "heartbeat"})

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._take(line)
        except (OSError, ValueError):
            pass  # closed from this end
        self._break("its agent ended")

    def _take(self, line: bytes) -> None:
        """Pass on a reply or an event; anything else was printed there by something else, and is log."""
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if isinstance(message, dict) and "event" in message:
            if message["event"] == "log":
                self._log.append(str(message.get("message")))
            else:
                self._events.put(message)
        elif isinstance(message, dict) and "ok" in message and isinstance(message.get("id"), int | None):
            with self._lock:
                answer = self._waiting.get(message.get("id", 0))
            if answer is not None:
                answer.put(message)
        else:
            self._log.append(line.decode(errors="replace").rstrip())

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        try:
            for line in self._process.stderr:
                self._log.append(line.decode(errors="replace").rstrip())
        except (OSError, ValueError):
            pass  # closed from this end

    def _break(self, reason: str) -> None:
        """Note that nothing more will come, and tell all who wait."""
        with self._lock:
            if self._broken or self._closing.is_set():
                return
            self._broken = reason
            waiting = list(self._waiting.values())
        for answer in waiting:
            answer.put(None)
        self._events.put(None)

    def _lost(self) -> DeviceError:
        """The error of a broken link: by what the agent, or ssh, wrote last, it may say more."""
        self._reported = True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)  # so that its last words are in
        self._threads[1].join(1.0)
        return explain_end(
            self.name, self._broken, self._process.poll(), list(self._log), greeted=self._greeted
        )

    def _end_process(self) -> None:
        process = self._process
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join(HEARTBEAT_S + 1.0)
        for output in (process.stdout, process.stderr):
            if output is not None:
                output.close()


def install_agent(transport: Transport, python: str = "python3") -> str:
    """Bring this hadas's agent to the device, unless it is there; its path.

    Raises:
        UnreachableDeviceError: no Python there that can run it.
    """
    shown = f"{shlex.quote(python)} -c 'import sys; print(*sys.version_info[:2])' 2>&1 || true"
    found = last_line(transport.shell(shown)).split()
    if len(found) != 2 or not all(part.isdigit() for part in found):
        raise UnreachableDeviceError(
            f"{transport.name}: no {python} there; install it with: sudo apt install python3", "no-python"
        )
    if (int(found[0]), int(found[1])) < (3, 6):
        raise UnreachableDeviceError(
            f"{transport.name}: {python} is {'.'.join(found)} there; the agent needs 3.6 or newer",
            "no-python",
        )
    bundle = bundle_agent()
    path = f"{agent_directory(transport)}/{bundle.sha256}.pyz"
    copy_file(transport, bundle.content, path)
    return path


def explain_end(
    name: str, reason: str, status: int | None, log: Sequence[str], *, greeted: bool
) -> DeviceError:  # fmt: skip
    """The error of an agent that is gone, from its exit status and what it wrote last.

    Args:
        greeted: whether it had answered before: then it was there, and is lost now.
    """
    text = "\n".join(log)
    if not greeted and re.search(_SUDO_REFUSALS, text):
        return UnreachableDeviceError(
            f"{name}: sudo asks for a password there. Let this user run the agent without one: "
            "a NOPASSWD rule in /etc/sudoers.d",
            "no-sudo",
        )
    if not greeted and ((status == 127 and "not found" in text) or "command not found" in text):
        return UnreachableDeviceError(f"{name}: {log[-1]}", "no-python")
    last = f" ({log[-1]})" if log else ""
    return ConnectionLostError(f"{name}: connection lost: {reason}{last}")


def _as_error(name: str, op: str, error: Mapping[str, Any]) -> DeviceError | OffTableFrequencyError:
    """The typed error of an error reply."""
    kind, value, allowed = str(error.get("type", "io")), error.get("value"), error.get("allowed")
    if kind == "off-table" and isinstance(value, int) and allowed:
        return OffTableFrequencyError(str(error.get("field", "")), value, tuple(allowed))
    if kind == "busy":
        return DeviceBusyError(f"{name}: {error.get('message')}")
    remedy = f"; {error['remedy']}" if error.get("remedy") else ""
    return AgentReplyError(f"{name}: {op}: {error.get('message', kind)}{remedy}", kind)
