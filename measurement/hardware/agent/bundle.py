"""Pack the agent into one file that any Python from 3.6 on runs; done on the host.

The same sources give the same bytes, so that the digest tells which agent a device has.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

NAME = "hadas-agent.pyz"
PACKAGE = "hadas_agent"
_HOST_ONLY = {"bundle.py"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold
_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = f"import sys\n\nfrom {PACKAGE}.main import main\n\nsys.exit(main(sys.argv[1:]))\n"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The agent as one file.

    Attributes:
        content: bytes of the file.
        sha256: their digest, hexadecimal.
    """

    content: bytes
    sha256: str

    def write(self, folder: Path) -> Path:
        """Write the file into a folder, executable; its path."""
        path = folder / NAME
        path.write_bytes(self.content)
        path.chmod(0o755)
        return path


def device_sources() -> tuple[Path, ...]:
    """Sources that run on the device."""
    folder = Path(__file__).parent
    return tuple(path for path in sorted(folder.glob("*.py")) if path.name not in _HOST_ONLY)


def bundle_agent() -> Bundle:
    """Pack the device's sources: sorted, uncompressed (compressors differ), all of one date and mode."""
    buffer = io.BytesIO()
    buffer.write(_SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        for path in device_sources():
            _add(archive, f"{PACKAGE}/{path.name}", path.read_bytes())
    content = buffer.getvalue()
    return Bundle(content, hashlib.sha256(content).hexdigest())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # Unix, whatever the host is
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, content)
