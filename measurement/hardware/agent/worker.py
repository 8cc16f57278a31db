"""The workload's process: started in a group of its own, relayed, and ended with all its children."""

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any, Callable, List, Sequence, Tuple

from .children import dies_with_parent
from .wire import Inbox, Message

REPLY, GONE = "workload-reply", "workload-gone"
QUIT_S = 5.0
KILL_S = 3.0  # the driver takes its time to free a GPU's memory

_FROM_SOURCES = (
    "import importlib.util as u, sys\n"
    "spec = u.spec_from_file_location('hadas_agent', sys.argv[1])\n"
    "sys.modules['hadas_agent'] = package = u.module_from_spec(spec)\n"
    "spec.loader.exec_module(package)\n"
    "from hadas_agent.main import main\n"
    "sys.exit(main(sys.argv[2:]))\n"
)


def agent_file() -> str:
    """The zip file that this code runs from; empty when it runs from a folder of sources."""
    return str(getattr(sys.modules[__name__].__loader__, "archive", ""))


def workload_command() -> List[str]:
    """What starts this same code as the workload."""
    archive = agent_file()
    if archive:
        return [sys.executable, archive, "workload"]
    package = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__init__.py")
    return [sys.executable, "-c", _FROM_SOURCES, package, "workload"]


class Worker:
    """One workload process.

    Args:
        inbox: gets ``(REPLY, (worker, message))``, and once ``(GONE, (worker, reason))``.
        relay: called with every event but its last words, from the reading thread.
    """

    def __init__(self, inbox: "Inbox[Tuple[str, Any]]", relay: Callable[[Message], None]) -> None:
        self._inbox = inbox
        self._relay = relay
        # A session of its own makes a process group of its own, which is ended as a whole.
        self._process = subprocess.Popen(
            workload_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=dies_with_parent(),
        )
        for work in (self._read, self._read_log):
            threading.Thread(target=work, daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the process, and of the group that it leads."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def send(self, message: Message) -> None:
        """Pass a request on; a process that is gone is reported by :data:`GONE` instead."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return

    def quit(self, limit_s: float) -> bool:
        """Ask it to end, and end it if it does not, children included; whether it is gone."""
        self.send({"op": "quit"})
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            pass
        return self.kill()

    def kill(self) -> bool:
        """End the process and everything that it started.

        Returns:
            Whether it is gone: one that waits in a driver does not even end by SIGKILL, and nobody may
            wait for it in turn.
        """
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except OSError:
            pass  # nobody is left in the group
        try:
            self._process.wait(KILL_S)
        except subprocess.TimeoutExpired:
            return False
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # what was still to be sent has no reader any more
        return True

    def _read_log(self) -> None:
        """Pass on what engines print; never let them wait for the link to the host."""
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                sys.stderr.write("workload: %s\n" % line.decode("utf-8", "replace").rstrip())

    def _read(self) -> None:
        assert self._process.stdout is not None
        last_words = ""
        with self._process.stdout as stream:
            for line in stream:
                try:
                    message = json.loads(line.decode("utf-8", "replace"))
                except ValueError:
                    message = None
                if not isinstance(message, dict):
                    sys.stderr.write("workload: %s\n" % line.decode("utf-8", "replace").rstrip())
                elif message.get("event") == "workload-ended":
                    last_words = str(message.get("reason", ""))
                elif "event" in message:
                    self._relay(message)
                else:
                    self._inbox.put((REPLY, (self, message)))
        code = self._process.wait()
        reason = "it was ended by signal %d" % -code if code < 0 else "it exited with status %d" % code
        self._inbox.put((GONE, (self, last_words or reason)))


def unended(workers: Sequence[Worker]) -> str:
    """Says which of those that were killed are there all the same; empty if none is."""
    pids = [str(worker.pid) for worker in workers if not worker.has_ended]
    if not pids:
        return ""
    return "the workload (process %s) was killed and does not end: it waits in the kernel" % ", ".join(pids)
