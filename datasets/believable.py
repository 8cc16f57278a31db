"""Which cost rows may be believed: valid, and not undone by a drift that was found after them.

A session repeats its anchor from time to time.  Rows are stored as they come and never changed, so
it is the anchor's row that says that the device has drifted; the rows since the last good anchor are
then not to be believed, however well they looked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .records import CostRecord

DRIFT = "drift"
"""Flag of an anchor that moved, was measured again, and had moved indeed."""

MOVED = "moved"
"""Flag of an anchor that moved, before it was measured again."""


def judged(rows: Iterable[CostRecord]) -> tuple[CostRecord, ...]:
    """All rows, those that a drift undid marked invalid with the reason; the stored rows stay as they are.

    The first valid row of a session is its first good anchor.

    Args:
        rows: of any sessions; each session's in the order of its row numbers.
    """
    found = list(rows)
    since: dict[str, list[int]] = {}
    for i, row in enumerate(found):
        if is_drift(row):
            for j in since.get(row.session, ()):
                if found[j].valid:
                    found[j] = replace(
                        found[j],
                        valid=False,
                        reason=f"the anchor had drifted when row {row.row_no} repeated it",
                    )
            since[row.session] = []
        elif is_good_anchor(row) or (row.valid and row.session not in since):
            since[row.session] = []
        elif row.session in since:
            since[row.session].append(i)
    return tuple(found)


def believable(rows: Iterable[CostRecord]) -> tuple[CostRecord, ...]:
    """The rows that may be believed, anchors among them; see :func:`judged`."""
    return tuple(row for row in judged(rows) if row.valid)


def is_anchor(row: CostRecord) -> bool:
    """Whether a row repeats the session's anchor; the row that it repeats is none."""
    return row.evidence is not None and row.evidence.anchor


def is_drift(row: CostRecord) -> bool:
    """Whether a row says that the device has drifted."""
    return row.evidence is not None and row.evidence.anchor and DRIFT in row.evidence.flags


def is_good_anchor(row: CostRecord) -> bool:
    """Whether a row says that the device is as it was."""
    return row.evidence is not None and row.evidence.anchor and row.valid and MOVED not in row.evidence.flags
