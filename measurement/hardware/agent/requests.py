"""Fields of requests, and the workload's replies to them."""

from typing import Optional

from .problems import AgentError
from .wire import Message

_ENVELOPE = ("id", "deadline_s")


def without_envelope(request: Message) -> Message:
    """A request as the workload gets it."""
    return {key: value for key, value in request.items() if key not in _ENVELOPE}


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
