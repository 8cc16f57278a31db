"""Fields of requests, and the workload's replies to them."""

import json
import os
from typing import List, Optional, Tuple

from .problems import AgentError
from .wire import Message

_ENVELOPE = ("id", "deadline_s")


def without_envelope(request: Message) -> Message:
    """A request as the workload gets it."""
    return {key: value for key, value in request.items() if key not in _ENVELOPE}


def programs_key(request: Message) -> str:
    """Tells two loads apart: by the engine and all its settings, and by the files as they are now."""
    files: List[Optional[Tuple[int, ...]]] = []
    for program in request.get("programs") or []:
        try:
            found = os.stat(str(program["path"]))
        except (OSError, KeyError, TypeError):
            files.append(None)  # the workload says what is wrong
            continue
        files.append((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))
    return json.dumps([without_envelope(request), files], sort_keys=True)


def seconds_of(request: Message, field: str, default: Optional[float]) -> Optional[float]:
    """A number of seconds in a request.

    Raises:
        AgentError: ``bad-request``.
    """
    value = request.get(field, default)
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0):
        return value
    raise AgentError("bad-request", "%s is a number of seconds" % field, field=field, value=value)


def result_of(reply: Message) -> Message:
    """What the workload answers.

    Raises:
        AgentError: its error as ours.
    """
    if reply.get("ok", False):
        result = reply.get("result", {})
        return result if isinstance(result, dict) else {}
    error = reply.get("error", {})
    raise AgentError(
        "workload",
        str(error.get("message", "the workload failed")),
        field=str(error.get("field", "") or ""),
        value=error.get("value"),
        allowed=error.get("allowed"),
        remedy=str(error.get("remedy", "") or ""),
    )
