"""Side files with the time-stamped power readings of a row."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path

from ....errors import DataError
from ..rig import PowerTrace


def write_power_readings(
    directory: Path, session: str, row_no: int, rails: Sequence[str], traces: Sequence[tuple[str, PowerTrace]]
) -> tuple[str, str]:
    """Write a compressed CSV: phase, time_s, and the power of every rail in W.

    Args:
        traces: (phase, readings) in order of time.

    Returns:
        Name of the file within the directory, and its sha256; the same readings give the same bytes.

    Raises:
        DataError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["phase", "time_s", *(f"{label} [W]" for label in rails)])
    for phase, trace in traces:
        for i, time_s in enumerate(trace.time_s):
            writer.writerow([phase, repr(time_s), *(repr(rail[i]) for rail in trace.power_w)])
    content = gzip.compress(text.getvalue().encode(), mtime=0)
    name = f"{re.sub(r'[^A-Za-z0-9._-]+', '_', session)}-{row_no:05d}.csv.gz"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    except OSError as error:
        raise DataError(
            f"power readings {directory / name}: cannot be written ({error.strerror}); free the disk, or name "
            "another folder"
        ) from error
    return name, hashlib.sha256(content).hexdigest()
