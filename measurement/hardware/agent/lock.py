"""Only one agent owns a board."""

import errno
import fcntl
import os
from typing import List

from .problems import AgentError
from .sysfs import SysFs

_SHARED = ("sys", "sys/kernel/debug")


class BoardLock:
    """Holds a board until it is released, or the process ends, however that happens.

    The roots of sysfs and, for root, of debugfs are locked: they need no writable place and hold between
    users.  A container that has not the host's network namespace has a sysfs of its own, and often no
    debugfs; it is told apart by the file beside the journal alone, so that it needs the host's folder of that.

    Args:
        journal: file whose neighbour ``.lock`` is locked as well.
        may_write: whether that may be made; it stays, since removing it would let two agents in.

    Raises:
        AgentError: ``busy``, another agent has it.
    """

    def __init__(self, fs: SysFs, journal: str, may_write: bool) -> None:
        self._descriptors: List[int] = []
        shared = [path for path in _SHARED if fs.exists(path)] or [""]
        for path in shared:
            self._take(fs.full(path), os.O_RDONLY)
        if may_write:
            try:
                os.makedirs(os.path.dirname(journal), exist_ok=True)
            except OSError:
                pass  # then no journal can be written there, and so no clock
        self._take(journal + ".lock", os.O_RDWR | os.O_CREAT if may_write else os.O_RDONLY)

    def release(self) -> None:
        """Let others have the board."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _take(self, path: str, how: int) -> None:
        try:
            descriptor = os.open(path, how, 0o644)
        except OSError:
            return  # closed to this user, or not there
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # a file system that has no locks
            self.release()
            raise AgentError(
                "busy",
                "another agent owns this board",
                remedy="wait until it has ended: at most its watchdog's time after its link was lost",
            ) from error
