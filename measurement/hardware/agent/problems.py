"""What can go wrong on the board, as the host gets to read it."""

import errno
from typing import Any, Dict, Optional, Sequence


class AgentError(Exception):
    """A request that cannot be carried out.

    Args:
        kind: one of the protocol's error types: ``off-table``, ``not-allowed``, ``not-writable``,
            ``not-verified``, ``cooling``, ``bad-request``, ``deadline``, ``workload``, ``busy``, ``io``.
        message: what happened.
        field, value: the part of the request, or the file, that is at fault.
        allowed: what would have been accepted.
        remedy: what to do about it.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        field: str = "",
        value: Any = None,
        allowed: Optional[Sequence[Any]] = None,
        remedy: str = "",
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.value = value
        self.allowed = allowed
        self.remedy = remedy

    def to_wire(self) -> Dict[str, Any]:
        """The ``error`` member of a reply; empty members are left out."""
        wire: Dict[str, Any] = {"type": self.kind, "message": self.message}
        if self.field:
            wire["field"] = self.field
        if self.value is not None:
            wire["value"] = self.value
        if self.allowed is not None:
            wire["allowed"] = list(self.allowed)
        if self.remedy:
            wire["remedy"] = self.remedy
        return wire


class FileError(AgentError):
    """A file of the kernel that could not be read or written.

    Attributes:
        code: symbolic errno, e.g. ``EACCES``.
        path: file, from the root of the system.
    """

    def __init__(self, path: str, error: OSError, writing: bool) -> None:
        self.code = errno.errorcode.get(error.errno or 0, "EIO")
        self.path = path
        denied = self.code in ("EACCES", "EPERM", "EROFS")
        verb = "written" if writing else "read"
        super().__init__(
            "not-writable" if denied and writing else "io",
            "/%s cannot be %s: %s%s" % (path, verb, self.code, _MEANINGS.get(self.code, "")),
            field="/" + path,
            remedy=_REMEDIES.get(self.code, ""),
        )


_MEANINGS = {
    "EACCES": " (permission denied)",
    "EPERM": " (permission denied)",
    "EROFS": " (mounted read-only)",
    "EINVAL": " (the kernel refuses the value)",
    "ENOENT": " (no such file)",
    "EAGAIN": " (not ready: the unit is powered down)",
}
_REMEDIES = {
    "EACCES": "run the agent as root",
    "EPERM": "run the agent as root",
    "EROFS": "mount sysfs and debugfs writable (a container needs them passed through)",
    "ENOENT": "discover again: files move between releases, and with cores that go offline",
    "EAGAIN": "read again once the unit is powered",
}
