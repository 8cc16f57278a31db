"""How a process is started that must not outlive the one which starts it."""

import ctypes
import os
import signal
from typing import Callable

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def dies_with_parent() -> Callable[[], None]:
    """What a child runs before its program, so that it is killed when this process ends, however that is.

    The kernel looks at the thread that starts the child: it must be one that lasts, the main thread.
    """
    parent = os.getpid()
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return lambda: None

    def in_child() -> None:
        prctl(_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before it could be asked for
            os._exit(1)

    return in_child
