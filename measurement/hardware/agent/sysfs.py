"""The only place that touches the board's files: sysfs, debugfs, procfs and /etc below one root."""

import os
import re
from typing import List, Set

from .problems import FileError


class SysFs:
    """Files of the kernel.

    Paths are relative to the root and have no leading slash.

    Args:
        root: ``/`` on a board; a folder that looks like one in tests.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def full(self, path: str) -> str:
        """Where a path is on this system."""
        return os.path.join(self.root, path)

    def read(self, path: str) -> str:
        """The text of a file, exactly.

        Raises:
            FileError: the file cannot be read.
        """
        try:
            return self.read_file(path)
        except OSError as error:
            raise FileError(path, error, writing=False) from error

    def write(self, path: str, text: str) -> None:
        """Write a file that exists; nothing is ever created.

        Raises:
            FileError: the file cannot be written, or the kernel refuses the value.
        """
        try:
            self.write_file(path, text)
        except OSError as error:
            raise FileError(path, error, writing=True) from error

    def read_file(self, path: str) -> str:
        """As :meth:`read`, with the operating system's own error."""
        with open(self.full(path), "rb") as file:
            return file.read().decode("utf-8", "replace")

    def write_file(self, path: str, text: str) -> None:
        """As :meth:`write`, with the operating system's own error."""
        descriptor = os.open(self.full(path), os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there and can be looked at."""
        return os.path.exists(self.full(path))

    def writable(self, path: str) -> bool:
        """Whether the file may be written, as far as permissions tell."""
        return os.access(self.full(path), os.W_OK)

    def names(self, folder: str, pattern: str = "") -> List[str]:
        """Names in a folder that match a regular expression as a whole, numbers in numeric order.

        A folder that is missing or closed is empty.
        """
        try:
            found = os.listdir(self.full(folder))
        except OSError:
            return []
        if pattern:
            found = [name for name in found if re.match(pattern + r"\Z", name)]
        return sorted(found, key=_numeric)

    def resolve(self, path: str) -> str:
        """The path without symbolic links, so that two ways to one file are seen to be one."""
        return os.path.relpath(os.path.realpath(self.full(path)), os.path.realpath(self.root))

    def value(self, path: str) -> str:
        """The text of a file without blanks, line ends and the device tree's NULs around it.

        Raises:
            FileError: the file cannot be read.
        """
        return self.read(path).strip(" \t\r\n\0")

    def value_or(self, path: str, default: str = "") -> str:
        """As :meth:`value`, or the default where the file cannot be read."""
        try:
            return self.value(path)
        except FileError:
            return default

    def integer(self, path: str) -> int:
        """The one number in a file.

        Raises:
            FileError: the file cannot be read, or holds something else.
        """
        text = self.value(path)
        try:
            return int(text)
        except ValueError:
            raise FileError(path, OSError(5, "not a number: %r" % text[:40]), writing=False) from None

    def integers(self, path: str) -> List[int]:
        """All whole numbers in a file, in its order.

        Raises:
            FileError: the file cannot be read.
        """
        return [int(word) for word in self.value(path).split() if word.isdigit()]


def _numeric(name: str) -> List[object]:
    """A sorting key by which ``zone10`` comes after ``zone9``."""
    return [(1, int(part)) if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def parse_cores(text: str) -> List[int]:
    """Core numbers from ``0 3 4 5``, ``0-3,5`` or a mixture; ascending."""
    cores: Set[int] = set()
    for part in re.split(r"[\s,]+", text.strip()):
        first, _, last = part.partition("-")
        if first.isdigit() and (last.isdigit() or not last):
            cores.update(range(int(first), int(last or first) + 1))
    return sorted(cores)
