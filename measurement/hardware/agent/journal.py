"""What every file held before it was first written, kept on disk until it has been put back.

Nothing on the board is written before the journal of it has reached the disk, so that the next
agent can restore the board even if this one is killed between any two writes.
"""

import hashlib
import json
import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .problems import AgentError, FileError
from .sensors import cooling
from .sysfs import SysFs

BOOT_ID = "proc/sys/kernel/random/boot_id"
PLACE = "var/lib/hadas-agent/journal.json"
HOME_PLACE = ".cache/hadas-agent/journal.json"
"""Below the home of a user who may not write to the first one."""
VERSION = 2
READ_BACK_S = 0.03
LEAST_LOOKS = 4

# What a file is decides when it is restored.  ``low`` and ``high`` come in pairs (one folder each).
LOW, HIGH, GOVERNOR, RAILGATE = "low", "high", "governor", "railgate"
RATE, CAP, STATE, LOCK = "rate", "cap", "state", "lock"
# The memory: its rate while it is still locked, the cap below which it then is, the lock last.
_LAST = (GOVERNOR, RAILGATE, RATE, CAP, STATE, LOCK)


class Entry(NamedTuple):
    """One file before its first write; ``text`` is ``None`` for a file that can only be written."""

    path: str
    role: str
    text: Optional[str]


class Restored(NamedTuple):
    """What restoring did: files put back, and what went wrong (empty = all verified)."""

    files: Tuple[str, ...]
    problems: Tuple[str, ...]


class Journal:
    """The journal of one board.

    Args:
        path: file on the board's own disk; it and its folder are made when they are first needed.

    Attributes:
        flags: ``journal-corrupt`` (cannot be restored), ``rebooted`` (dropped, since a
            boot puts back every file that it lists), ``other-journal:`` (another user's agent was killed
            here: what it left behind would be taken for original).
    """

    def __init__(self, fs: SysFs, path: str) -> None:
        self.fs = fs
        self.path = path
        self.flags: List[str] = []
        self._entries: Dict[str, Entry] = {}
        self._is_blocked = False
        self._boot = fs.value_or(BOOT_ID)

    @property
    def entries(self) -> Tuple[Entry, ...]:
        """In the order in which they were first to be written."""
        return tuple(self._entries.values())

    def load(self, sets_aside: bool = False) -> None:
        """Take over what an agent that was killed has left behind.

        Args:
            sets_aside: whether a corrupt journal makes room for a new one.  While it stays nothing is journaled, and
                so nothing written: what the files hold now may not be what the user set.

        Raises:
            AgentError: the journal cannot be read, or is of another system.
        """
        self.flags.extend("other-journal:" + path for path in other_journals(self.fs, self.path))
        try:
            with open(self.path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise AgentError("io", "the journal %s cannot be read: %s" % (self.path, error)) from error
        found = _parse(content)
        if found is None:
            self.flags.append("journal-corrupt")
            self._is_blocked = not sets_aside
            if sets_aside:
                os.replace(self.path, self.path + ".corrupt")
        elif found.root != _root(self.fs):
            raise AgentError(
                "io",
                "the journal %s is of the system at %s, not of that at %s"
                % (self.path, found.root, _root(self.fs)),
                remedy="name another file with --journal, or restore that system first",
            )
        elif found.boot != self._boot:
            self._remove()
            self.flags.append("rebooted")
        else:
            self._entries = {entry.path: entry for entry in found.entries}

    def remember(self, files: List[Tuple[str, str]]) -> None:
        """Journal the files (path, role) that are not yet, durably, before any of them is written.

        Raises:
            FileError: a file cannot be read, so that it could not be put back; none is journaled.
            AgentError: the journal cannot be written, a corrupt one is there, or limits are shown lower than the user set them.
        """
        new: Dict[str, Entry] = {}
        for path, role in files:
            resolved = self.fs.resolve(path)
            if resolved not in self._entries:
                new[resolved] = Entry(resolved, role, self._text(resolved, role))
        if any(entry.role in (LOW, HIGH) for entry in new.values()):
            self._refuse_while_cooling()
        if new and self._is_blocked:
            raise AgentError(
                "not-verified",
                "the journal %s of an earlier agent cannot be read: what it changed may still be set; no clock was "
                "changed" % self.path,
                remedy="reboot the board, which puts everything back, then set the journal aside with: restore",
            )
        if new:
            entries = dict(self._entries)
            entries.update(new)
            self._save(tuple(entries.values()))
            self._entries = entries

    def restore(self) -> Restored:
        """Put every file back, verify, and forget those that are as they were.

        What cannot be put back stays in the journal, and the next start tries again.
        """
        problems: List[str] = []
        for _ in range(2):  # a limit may move while it is being written
            problems = []
            self._put_back(problems)
            problems.extend(self._differences())
            if not problems:
                break
        files = tuple("/" + path for path in self._entries)
        if not problems and self._entries:
            self._remove()
            self._entries = {}
        return Restored(files, tuple(problems))

    # --- restoring

    def _put_back(self, problems: List[str]) -> None:
        for low, high in self._pairs():
            try:
                write_range(self.fs, low.path, high.path, low.text or "", high.text or "")
            except FileError as error:
                problems.append(error.message)
        for role in _LAST:
            for entry in self.entries:
                if entry.role == role and entry.text is not None:
                    try:
                        self.fs.write(entry.path, entry.text)
                    except FileError as error:
                        problems.append(error.message)

    def _pairs(self) -> List[Tuple[Entry, Entry]]:
        highs = {os.path.dirname(entry.path): entry for entry in self.entries if entry.role == HIGH}
        return [(entry, highs[os.path.dirname(entry.path)]) for entry in self.entries if entry.role == LOW]

    def _differences(self) -> List[str]:
        """Files that do not hold what they held."""
        unlocked = any(entry.role == LOCK and (entry.text or "").strip() == "0" for entry in self.entries)
        different = []
        for entry in self.entries:
            if entry.text is None or (entry.role == RATE and unlocked):
                continue  # a memory clock without a lock goes where its load takes it
            try:
                now = self.fs.value(entry.path)
            except FileError as error:
                different.append(error.message)
                continue
            if now != entry.text.strip():
                different.append("/%s is %s and was %s" % (entry.path, now, entry.text.strip()))
        return different

    # --- on disk

    def _refuse_while_cooling(self) -> None:
        """A limit's file shows the lowest that anybody asks for; putting back a cooling's would make it the user's."""
        limiting = cooling(self.fs)
        if limiting:
            raise AgentError(
                "cooling",
                "the board is being cooled (%s): the limits that it shows are not those to put back; no clock was "
                "changed" % ", ".join(limiting),
                remedy="let it cool down, then try again",
            )

    def _text(self, path: str, role: str) -> Optional[str]:
        try:
            return self.fs.read(path)
        except FileError:
            if role != RATE:
                raise
            return None  # t210's request file; unlocking puts the rate back

    def _save(self, entries: Tuple[Entry, ...]) -> None:
        body = {"root": _root(self.fs), "boot": self._boot, "files": [list(entry) for entry in entries]}
        text = json.dumps({"version": VERSION, "sha256": _digest(body), "body": body})
        folder = os.path.dirname(os.path.abspath(self.path))
        try:
            os.makedirs(folder, exist_ok=True)
            with open(self.path + ".new", "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.path + ".new", self.path)
            _sync_folder(folder)
        except OSError as error:
            raise AgentError(
                "io",
                "the journal %s cannot be written: %s; no clock was changed" % (self.path, error),
                remedy="name a writable file on the board's disk with --journal",
            ) from error

    def _remove(self) -> None:
        os.unlink(self.path)
        _sync_folder(os.path.dirname(os.path.abspath(self.path)))


def write_range(fs: SysFs, low_path: str, high_path: str, low: str, high: str) -> bool:
    """Set a lower and an upper limit so that at no moment the lower is above the upper.

    Kernel 4.9 refuses such a moment with EINVAL.  Newer ones allow it and clamp, and may show one
    limit clamped by the other, so both are written even if they already look right.

    Args:
        low, high: texts to write; numbers in the files' own unit.

    Returns:
        Whether both read back as written.

    Raises:
        FileError: refused twice, or a file cannot be read or written.
    """
    for attempt in range(2):
        low_now = fs.integer(low_path)
        steps = [(high_path, high), (low_path, low)]
        if low_now > int(high):
            steps.reverse()
        try:
            for path, text in steps:
                fs.write(path, text)
        except FileError as error:
            # Somebody else may have moved a limit since it was read.
            if error.code != "EINVAL" or attempt == 1:
                raise
            continue
        if _read_back(fs, steps):
            return True
    return False


def _read_back(fs: SysFs, written: List[Tuple[str, str]]) -> bool:
    """Whether files hold what was written; cpufreq of newer kernels takes a moment to show it."""
    end = time.monotonic() + READ_BACK_S
    looks = 0
    while True:
        if all(fs.value(path) == text.strip() for path, text in written):
            return True
        looks += 1
        if looks >= LEAST_LOOKS and time.monotonic() >= end:
            return False
        time.sleep(0.002)


def _digest(body: Dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class _Content(NamedTuple):
    """What a journal says."""

    root: str
    boot: str
    entries: List[Entry]


def _parse(content: bytes) -> Optional[_Content]:
    """``None`` for what is no journal."""
    try:
        document = json.loads(content.decode())
        body = document["body"]
        if document["version"] != VERSION or document["sha256"] != _digest(body):
            return None
        return _Content(body["root"], body["boot"], [Entry(*fields) for fields in body["files"]])
    except (ValueError, KeyError, TypeError):
        return None


def _root(fs: SysFs) -> str:
    """Which system a journal is of, if one kernel has several in folders."""
    return os.path.realpath(fs.root)


def other_journals(fs: SysFs, own: str) -> List[str]:
    """Journals of this boot which agents of other users left in their usual places."""
    places = [PLACE]
    for line in fs.value_or("etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) > 5 and fields[5].startswith("/"):
            places.append(os.path.join(fields[5].lstrip("/"), HOME_PLACE))
    found = []
    for place in sorted(set(places)):
        path = fs.full(place)
        if os.path.exists(path) and os.path.realpath(path) != os.path.realpath(own):
            try:
                with open(path, "rb") as file:
                    content = _parse(file.read())
            except OSError:
                found.append("/" + place)  # not for this user to read
                continue
            if content is not None and content.boot == fs.value_or(BOOT_ID):
                found.append("/" + place)
    return found


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
