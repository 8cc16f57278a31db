"""What goes to standard error, by a thread of its own: nobody may have to wait for a log.

The host reads it over the same link as everything else.  Once that stalls, the pipe is full, and
whoever writes to it stands still: the agent before it has restored the board, or the workload in
the middle of a measurement.  Here what does not fit is dropped, and counted.
"""

import io
import os
import threading
import time
from typing import List

MOST_BYTES = 1 << 18


class Log(io.TextIOBase):
    """A text stream that never blocks, to stand in for ``sys.stderr``.

    Args:
        descriptor: where the text goes; left as it is, since others may share it.
    """

    def __init__(self, descriptor: int, flush_s: float = 0.5) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._flush_s = flush_s
        self._chunks: List[bytes] = []
        self._n_bytes = 0
        self._n_dropped = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Queue text, unless too much is waiting already."""
        chunk = text.encode("utf-8", "replace")
        with self._changed:
            if self._n_bytes + len(chunk) > MOST_BYTES:
                self._n_dropped += len(chunk)
                return len(text)
            if self._n_dropped:
                chunk = b"[%d bytes of the log were dropped]\n" % self._n_dropped + chunk
                self._n_dropped = 0
            self._chunks.append(chunk)
            self._n_bytes += len(chunk)
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Wait a moment for what is queued; no longer, since nobody may read it."""
        end = time.monotonic() + self._flush_s
        with self._changed:
            while self._n_bytes and time.monotonic() < end:
                self._changed.wait(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._chunks:
                    self._changed.wait()
                chunk = self._chunks.pop(0)
            rest = chunk
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                pass  # nobody reads any more; what comes is dropped
            with self._changed:
                self._n_bytes -= len(chunk)
                self._changed.notify_all()
