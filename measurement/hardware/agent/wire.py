"""JSON lines in and out, by threads of their own, so that a stalled link never holds the agent up."""

import json
import os
import queue
import threading
import time
from typing import Any, Dict, List, Tuple

Message = Dict[str, Any]
Inbox = queue.Queue  # of (kind, content) pairs

REQUEST, BAD_LINE, ENDED = "request", "bad-line", "ended"
HEARTBEAT = "heartbeat"


class LineReader:
    """Puts what the host sends into the inbox and notes when the last line came.

    Reads the descriptor itself: a buffered reader that is still waiting when the interpreter ends
    would bring it down.
    """

    def __init__(self, descriptor: int, inbox: "Inbox[Tuple[str, Any]]") -> None:
        self.last_line_s = time.monotonic()
        self._descriptor = descriptor
        self._inbox = inbox
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        rest = b""
        while True:
            try:
                chunk = os.read(self._descriptor, 65536)
            except OSError:
                chunk = b""
            if not chunk:
                self._inbox.put((ENDED, "the host closed the connection"))
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        self.last_line_s = time.monotonic()
        if not line.strip():
            return
        try:
            message = json.loads(line.decode("utf-8"))
        except ValueError as error:
            self._inbox.put((BAD_LINE, "not a line of JSON: %s" % error))
            return
        if not isinstance(message, dict):
            self._inbox.put((BAD_LINE, "a request is a JSON object"))
        elif message.get("op") != HEARTBEAT:
            self._inbox.put((REQUEST, (message, self.last_line_s)))


class LineWriter:
    """Sends objects to the host in the order in which they are given, without ever blocking the giver."""

    def __init__(self, descriptor: int, inbox: "Inbox[Tuple[str, Any]]") -> None:
        self._descriptor = descriptor
        self._inbox = inbox
        self._queue: List[bytes] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def send(self, message: Message) -> None:
        """Queue one object."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._changed:
            self._queue.append(line)
            self._changed.notify()

    def close(self, limit_s: float) -> None:
        """Send what is queued, unless that takes longer than the limit: the host may be gone."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(limit_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._queue:
                    return
                line = self._queue.pop(0)
            while line:
                try:
                    line = line[os.write(self._descriptor, line) :]
                except OSError:
                    self._inbox.put((ENDED, "the host no longer reads"))
                    return
