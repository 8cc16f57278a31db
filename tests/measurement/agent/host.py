"""The host's side of the wire, as plain as it gets: one agent process, requests and replies."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("serve_fake_board.py")


class Host:
    """An agent on a fake board, in a process of its own.

    Args:
        board: options of ``serve_fake_board.py`` before the ``--``.
        agent: options of ``serve``.
        stderr: where its log goes; by default it is kept for :meth:`stderr`.
    """

    def __init__(
        self, tree: Path, board: tuple[str, ...] = (), agent: tuple[str, ...] = ("--allow-dvfs",),
        stderr: int = subprocess.PIPE,
    ) -> None:  # fmt: skip
        command = [sys.executable, str(SCRIPT), str(tree), *board, "--", "serve", *agent]
        self._open(command, stderr)

    @classmethod
    def running(cls, command: list[str]) -> Host:
        """An agent started by any command."""
        host = cls.__new__(cls)
        host._open(command)
        return host

    def _open(self, command: list[str], stderr: int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        self.lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.events: list[dict[str, Any]] = []
        self.number = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def post(self, op: str, **fields: Any) -> int:
        """Send a request without waiting; its id."""
        self.number += 1
        self.send(json.dumps({"id": self.number, "op": op, **fields}))
        return self.number

    def receive(self, limit_s: float = 20.0) -> dict[str, Any] | None:
        """The next line; ``None`` once the agent has ended."""
        return self.lines.get(timeout=limit_s)

    def reply(self, number: int | None, limit_s: float = 20.0) -> dict[str, Any]:
        """The reply to a request; events before it are kept."""
        while True:
            line = self.receive(limit_s)
            assert line is not None, f"the agent ended: {self.stderr()}"
            if "event" in line:
                self.events.append(line)
                continue
            assert line["id"] == number, line
            return line

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """The result of a request that succeeds."""
        line = self.reply(self.post(op, **fields))
        assert line["ok"], line
        result: dict[str, Any] = line["result"]
        return result

    def refused(self, op: str, **fields: Any) -> dict[str, Any]:
        """The error of a request that fails."""
        line = self.reply(self.post(op, **fields))
        assert not line["ok"], line
        error: dict[str, Any] = line["error"]
        return error

    def await_event(self, name: str, limit_s: float = 20.0) -> dict[str, Any]:
        """The next event of a kind."""
        end = time.monotonic() + limit_s
        while True:
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    return event
            line = self.receive(end - time.monotonic())
            assert line is not None, f"the agent ended: {self.stderr()}"
            assert "event" in line, line
            self.events.append(line)

    def drop(self) -> None:
        """Close the connection, as a lost link does."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def ended(self, limit_s: float = 20.0) -> int:
        """Wait for the end; the exit status."""
        return self.process.wait(limit_s)

    def stderr(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue
