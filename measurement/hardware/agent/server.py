"""The agent's loop: requests of the host one at a time, and the board restored however it ends."""

import os
import platform
import queue
import signal
import sys
import time
import traceback
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Tuple

from . import probing, rails, sensors
from .clocks import Clocks
from .describe import agent_version, describe, journal_flags, now
from .journal import Journal, Restored
from .lock import BoardLock
from .problems import AgentError
from .requests import programs_key, result_of, seconds_of, without_envelope
from .sysfs import SysFs
from .wire import BAD_LINE, ENDED, REQUEST, Inbox, LineReader, LineWriter, Message
from .worker import GONE, QUIT_S, REPLY, Worker, unended

PROTOCOL = 1
TICK_S = 0.1
FLUSH_S = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Options(NamedTuple):
    """How the agent was started.

    Attributes:
        allow_dvfs: whether anything on the board may be written.
        journal: file of the journal.
        watchdog_s: silence of the host after which the board is restored.
    """

    allow_dvfs: bool
    journal: str
    watchdog_s: float


class StoppingError(Exception):
    """The agent has to end: signal, silence or end of the connection."""


class Server:
    """Serves one host until it goes away.

    Args:
        fs: the board's files.
        input_fd, output_fd: where requests come from and where replies go.
    """

    def __init__(self, fs: SysFs, options: Options, input_fd: int = 0, output_fd: int = 1) -> None:
        self.fs = fs
        self.options = options
        self.inbox: "Inbox[Tuple[str, Any]]" = queue.Queue()
        self.waiting: Deque[Tuple[Message, float]] = deque()
        self.signalled = ""
        self.reader = LineReader(input_fd, self.inbox)
        self.out = LineWriter(output_fd, self.inbox)
        self.journal = Journal(fs, options.journal)
        self.restored = Restored((), ())
        self.worker: Optional[Worker] = None
        self.loaded: Optional[Tuple[str, Message]] = None
        self.in_use = False
        self.looping = False
        self.gone_reason = ""
        self.stuck: List[Worker] = []
        self.flags: List[str] = []
        self.sampler: Optional[sensors.Sampler] = None
        self.noticed: List[str] = []
        self.wanted_hz: Dict[str, int] = {}
        self.engines: Optional[List[Dict[str, str]]] = None
        self.clocks: Clocks
        self.sensor: Optional[rails.PowerSensor] = None

    # --- the loop

    def serve(self) -> int:
        """Run until the host says ``quit`` or is gone; the exit status."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        try:
            lock = BoardLock(self.fs, self.options.journal, self.options.allow_dvfs)
        except AgentError as error:
            return self._refuse(error)
        try:
            self._start()
            while not self._answer(*self._next_request()):
                pass
        except StoppingError as reason:
            sys.stderr.write("agent: %s\n" % reason)  # never waits: see Log
        except AgentError as error:
            return self._refuse(error)
        finally:
            problems = self._end()
            lock.release()
        return 1 if problems else 0

    def _start(self) -> None:
        """Before anything else, put back what an agent that was killed left behind."""
        self.journal.load()
        if self.options.allow_dvfs:
            self.restored = self.journal.restore()
        self.clocks = Clocks(self.fs, self.journal, self._pause)
        self.sensor = rails.discover_rails(self.fs)
        self.flags = journal_flags(self.journal, self.options.allow_dvfs)

    def _end(self) -> Tuple[str, ...]:
        """Leave the board as it was found; what could not be put back, or be ended.

        The workload goes first: it must not run on clocks that change below it.
        """
        self._stop_sampler()
        if self.worker is not None and not self.worker.kill():
            self.stuck.append(self.worker)
        problems = self._restore().problems
        for problem in problems:
            sys.stderr.write("agent: not restored: %s\n" % problem)
        stuck = unended(self.stuck)
        if stuck:
            sys.stderr.write("agent: %s\n" % stuck)
            problems += (stuck,)
        self.out.close(FLUSH_S)
        sys.stderr.flush()
        return problems

    def _refuse(self, error: AgentError) -> int:
        """Tell the host why on its first request, then leave."""
        try:
            request, _ = self._next_request()
            self.out.send({"id": request.get("id"), "ok": False, "error": error.to_wire()})
        except StoppingError:
            pass
        self.out.close(FLUSH_S)
        return 3

    def _on_signal(self, number: int, _: Any) -> None:
        self.signalled = "signal %d" % number  # seen within a tick: nothing is cut short half-way

    def _next_request(self) -> Tuple[Message, float]:
        """The next request and when it came."""
        while not self.waiting:
            self._next(None)
        return self.waiting.popleft()

    def _next(self, until_s: Optional[float]) -> Tuple[str, Any]:
        """What comes next into the inbox; requests are set aside as well.

        Returns:
            ``("late", None)`` once the time is past.

        Raises:
            StoppingError: the host is gone or silent, or a signal came.
        """
        while True:
            now = time.monotonic()
            if self.signalled:
                raise StoppingError(self.signalled)
            silence_s = now - self.reader.last_line_s
            if silence_s > self.options.watchdog_s:
                raise StoppingError("no line from the host for %.1f s" % silence_s)
            if until_s is not None and now >= until_s:
                return "late", None
            try:
                rest_s = TICK_S if until_s is None else min(TICK_S, until_s - now)
                kind, content = self.inbox.get(timeout=rest_s)
            except queue.Empty:
                continue
            if kind == ENDED:
                raise StoppingError(content)
            if kind == BAD_LINE:
                error = AgentError("bad-request", content)
                self.out.send({"id": None, "ok": False, "error": error.to_wire()})
                continue
            if kind == REQUEST:
                self.waiting.append(content)
            if kind == GONE and content[0] is self.worker:
                self._workload_gone(content[1])
            return kind, content

    def _pause(self, seconds: float) -> None:
        """Wait, and notice meanwhile that the agent has to end."""
        until_s = time.monotonic() + seconds
        while self._next(until_s)[0] != "late":
            pass

    def _answer(self, request: Message, received_s: float) -> bool:
        """Carry out one request and reply; whether it was the last."""
        number, op = request.get("id"), request.get("op")
        handler: Optional[Callable[[Message, Optional[float]], Message]]
        handler = getattr(self, "_op_" + op, None) if isinstance(op, str) and op.isidentifier() else None
        try:
            if handler is None:
                known = sorted(name[4:] for name in dir(self) if name.startswith("_op_"))
                raise AgentError(
                    "bad-request", "no operation %r" % (op,), field="op", value=op, allowed=known
                )
            limit_s = seconds_of(request, "deadline_s", None)
            result = handler(request, None if limit_s is None else received_s + limit_s)
        except StoppingError:
            raise
        except Exception as error:
            if not isinstance(error, AgentError):  # a bug must not keep the host waiting
                traceback.print_exc()
                error = AgentError("io", "the agent failed: %s: %s" % (type(error).__name__, error))
            self.out.send({"id": number, "ok": False, "error": error.to_wire()})
        else:
            self.out.send({"id": number, "ok": True, "result": result})
        return bool(op == "quit")

    # --- about the board

    def _op_hello(self, _: Message, __: Optional[float]) -> Message:
        return {
            "protocol": PROTOCOL,
            "agent": agent_version(),
            "python": platform.python_version(),
            "pid": os.getpid(),
            "restored": list(self.restored.files),
            **now(),
        }

    def _op_discover(self, _: Message, until_s: Optional[float]) -> Message:
        if self.options.allow_dvfs:
            self.clocks.power_up()
        if self.engines is None:
            rest_s = probing.PROBE_S if until_s is None else max(0.0, until_s - time.monotonic())
            engines, complete = probing.engines(self._pause, min(rest_s, probing.PROBE_S))
            self.engines = engines if complete else None
        else:
            engines = self.engines
        found = describe(self.fs, self.clocks, self.sensor, engines)
        found["allow_dvfs"] = self.options.allow_dvfs
        found["flags"] += self.flags + ([] if self.engines is not None else ["engines-unknown"])
        return found

    def _op_state(self, _: Message, __: Optional[float]) -> Message:
        actual, flags = self.clocks.read()
        celsius = sensors.temperatures(self.fs)
        found = list(flags) + sensors.alarms(self.fs, self.sensor.rails if self.sensor else ())
        if self.sampler is not None:
            found += self.sampler.flags
        found += self.noticed  # by samplers that have ended since the last time
        self.noticed = []
        return {
            "temperature_c": sensors.hottest(celsius),
            "temperatures": celsius,
            "overcurrent_events": sensors.overcurrent_events(self.fs),
            "actual": actual,
            "flags": sorted(set(found)),
            **now(),
        }

    # --- clocks

    def _op_set_clocks(self, request: Message, _: Optional[float]) -> Message:
        wanted = request.get("clocks_hz")
        if not isinstance(wanted, dict) or not all(type(hz) is int for hz in wanted.values()):
            raise AgentError(
                "bad-request", "clocks_hz maps domains to integers in Hz", field="clocks_hz", value=wanted
            )
        self.clocks.check(wanted)
        self._allowed()
        result = self.clocks.set(wanted)
        self.wanted_hz.update(wanted)
        return {"requested": result.requested, "actual": result.actual, "flags": list(result.flags)}

    def _op_restore(self, _: Message, __: Optional[float]) -> Message:
        restored = self._restore()
        if restored.problems:
            raise AgentError(
                "not-verified",
                "; ".join(restored.problems),
                remedy="the journal is kept: the next start of the agent tries again",
            )
        return {"restored": list(restored.files)}

    def _restore(self) -> Restored:
        self.wanted_hz = {}
        return self.journal.restore() if self.options.allow_dvfs else Restored((), ())

    def _allowed(self) -> None:
        if not self.options.allow_dvfs:
            raise AgentError(
                "not-allowed",
                "the agent was started without --allow-dvfs, so it writes nothing on the board",
                field="clocks_hz",
                remedy="allow clock changes for this device (allow_dvfs: true)",
            )

    # --- workload

    def _op_load(self, request: Message, until_s: Optional[float]) -> Message:
        """Start a process and load programs, unless the one of before has just these loaded.

        An engine is imported and set up once for all the clocks that a network is measured at in a row.
        """
        key = programs_key(request)
        if self.worker is not None and self.loaded is not None and self.loaded[0] == key and not self.looping:
            self.in_use = True
            return self.loaded[1]
        self._stop_worker()
        stuck = unended(self.stuck)
        if stuck:  # it may still hold the GPU, and no measurement beside it would be worth anything
            raise AgentError("workload", stuck, remedy="see what it waits for (dmesg), or reboot the board")
        self.gone_reason = ""
        self.worker = Worker(self.inbox, self.out.send)
        self.in_use, self.looping, self.loaded = True, False, None
        self.loaded = (key, self._ask_worker(without_envelope(request), until_s))
        return self.loaded[1]

    def _op_loop_start(self, request: Message, _: Optional[float]) -> Message:
        worker = self._loaded()
        self._stop_sampler()
        if request.get("sample", False):
            self._start_sampler()
        self.looping = True
        worker.send({**without_envelope(request), "op": "loop"})
        return {}

    def _op_loop_stop(self, _: Message, until_s: Optional[float]) -> Message:
        try:
            self._ask_worker({"op": "stop"}, until_s)
            self.looping = False
        finally:
            sampler = self._stop_sampler()
        return {"trace": None if sampler is None else sampler.trace()}

    def _op_idle(self, request: Message, until_s: Optional[float]) -> Message:
        seconds = seconds_of(request, "seconds", 0.0)
        end_s = time.monotonic() + (seconds or 0.0)
        if until_s is not None and end_s > until_s:
            raise AgentError("deadline", "idling longer than the deadline", field="seconds", value=seconds)
        self._stop_sampler()
        sampler = self._start_sampler()
        try:
            self._pause(end_s - time.monotonic())
        finally:
            self._stop_sampler()
        return {"trace": sampler.trace()}

    def _op_decision(self, request: Message, until_s: Optional[float]) -> Message:
        return self._ask_worker(without_envelope(request), until_s)

    def _op_unload(self, _: Message, __: Optional[float]) -> Message:
        self._stop_sampler()
        if self.loaded is None or self.looping:  # of no use to the next load
            self._stop_worker()
        self.in_use = False
        return {}

    def _op_quit(self, _: Message, __: Optional[float]) -> Message:
        self._stop_sampler()
        self._stop_worker()
        self._op_restore({}, None)
        stuck = unended(self.stuck)
        if stuck:
            raise AgentError("workload", stuck, remedy="the clocks are restored; reboot the board")
        return {}

    def _loaded(self) -> Worker:
        if self.worker is None or not self.in_use:
            reason = "nothing is loaded" + (
                ": the workload ended, " + self.gone_reason if self.gone_reason else ""
            )
            raise AgentError("workload", reason, remedy="load programs first")
        return self.worker

    def _ask_worker(self, message: Message, until_s: Optional[float]) -> Message:
        """Send, and wait for the reply; at the deadline the workload is ended with all its children."""
        worker = self._loaded()
        worker.send(message)
        while True:
            kind, content = self._next(until_s)
            if kind == "late":
                self._workload_gone("no answer to '%s' before the deadline" % message["op"])
                raise AgentError(
                    "deadline",
                    "the workload did not answer '%s' in time and was ended" % message["op"],
                    remedy="load it again; allow more time if the device is slow",
                )
            if kind == GONE and content[0] is worker:
                raise AgentError(
                    "workload", "the workload ended during '%s': %s" % (message["op"], content[1])
                )
            if kind == REPLY and content[0] is worker:
                return result_of(content[1])

    def _workload_gone(self, reason: str) -> None:
        """The workload is of no use any more: make sure that it is gone, and tell the host."""
        self._stop_sampler()
        self.gone_reason = reason
        if self.worker is not None:
            if not self.worker.kill():
                self.stuck.append(self.worker)
            self.worker = None
            self.out.send({"event": "workload-ended", "reason": reason})

    def _stop_worker(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None and not worker.quit(QUIT_S):
            self.stuck.append(worker)

    def _start_sampler(self) -> sensors.Sampler:
        self.sampler = sensors.Sampler(self.fs, self.sensor, self.clocks.read, self.wanted_hz).start()
        return self.sampler

    def _stop_sampler(self) -> Optional[sensors.Sampler]:
        sampler, self.sampler = self.sampler, None
        if sampler is not None:
            sampler.stop()
            self.noticed += sampler.flags
        return sampler
