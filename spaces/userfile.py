"""Text files that a user names: read whole, or refused with what to do about it."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError


def read_user_text(path: Path, what: str, *, if_absent: str = "correct the path") -> str:
    """The text of a UTF-8 file.

    Args:
        what: what the file is to the user, e.g. ``study file``; starts every message.
        if_absent: the remedy when there is no such file.

    Raises:
        ConfigError: missing, a folder, unreadable, or not UTF-8.
    """
    if path.is_dir():
        raise ConfigError(f"{what} {path}: is a folder; name a file")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{what} {path}: no such file; {if_absent}") from error
    except OSError as error:
        raise ConfigError(f"{what} {path}: cannot be read ({error.strerror}); correct the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} {path}: byte {error.start} is not UTF-8 text; save the file as UTF-8"
        ) from error
