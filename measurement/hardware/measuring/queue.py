"""What to measure next: a random order, an anchor now and then, and each failed row once more.

The queue keeps nothing of its own: what comes next follows from the plan and the rows of the session, so
a session that was killed goes on as if it had not been.  This is the one place where rows are queued again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from itertools import takewhile

from ....datasets.believable import DRIFT, MOVED, is_anchor, is_drift, is_good_anchor, judged
from ....datasets.records import CostRecord
from ..device import CostRequest, MeasurementPlan, RequestKey, request_key
from .protocol import MeasuringProtocol
from .statistics import relative_move

_MOST_ANCHORS = 3  # in a row: one that moved, one that failed, one that decides


@dataclass(frozen=True, slots=True)
class Job:
    """One row to measure.

    Attributes:
        anchor: whether it repeats the session's anchor.
        attempt: how often the session has measured this request before, anchors aside.
    """

    request: CostRequest
    anchor: bool
    attempt: int


class Queue:
    """What one call of :meth:`.Device.measure` has still to do."""

    def __init__(self, plan: MeasurementPlan, protocol: MeasuringProtocol) -> None:
        """Wanted are ``plan.requests`` from ``plan.first_row`` on, each as often as it stands there."""
        self._protocol = protocol
        self._known = {request.key: request for request in plan.requests}
        self._wanted = Counter(request.key for request in plan.requests[plan.first_row :])
        self._order = sorted(self._wanted, key=lambda key: _rank(plan, self._known[key]))
        self.rows = list(plan.earlier)
        self._n_earlier = len(self.rows)
        self._believed_before = {row.row_no for row in judged(self.rows) if row.valid}
        if not self._believed_before and plan.requests[plan.first_row :]:
            # The first request of a plan is measured first, and is what later anchors repeat.
            first = plan.requests[plan.first_row].key
            self._order.sort(key=lambda key: key != first)

    def add(self, row: CostRecord) -> None:
        """Take note of a row that was measured."""
        self.rows.append(row)

    def next(self) -> Job | None:
        """What to measure next; ``None`` when all is done."""
        anchor, every = self._anchor(), self._protocol.anchor_every
        tail = self._anchors_at_the_end()
        if anchor is None or not every:
            return self._pending()
        if tail:
            settled = is_good_anchor(tail[0]) or is_drift(tail[0])
            if not settled and len(tail) < _MOST_ANCHORS:
                return Job(anchor, True, 0)
        since = self._rows_since_anchor()
        if since >= every:
            return Job(anchor, True, 0)
        pending = self._pending()
        if pending is None and 2 * since >= every:
            return Job(anchor, True, 0)  # the last rows of a session are watched over, too
        return pending

    @property
    def doubted(self) -> bool:
        """Whether the anchors just measured include one that moved."""
        return any(MOVED in _flags(row) for row in self._anchors_at_the_end())

    def _anchor(self) -> CostRequest | None:
        reference = self.reference()
        return None if reference is None else self._known.get(request_key(reference))

    def _anchors_at_the_end(self) -> list[CostRecord]:
        """Anchors measured since the last other row, latest first."""
        return list(takewhile(is_anchor, reversed(self.rows)))

    def _rows_since_anchor(self) -> int:
        """Rows since an anchor was last measured; the row that anchors repeat is one."""
        if any(is_anchor(row) for row in self.rows):
            return sum(1 for _ in takewhile(lambda row: not is_anchor(row), reversed(self.rows)))
        first_valid = next(i for i, row in enumerate(self.rows) if row.valid)
        return len(self.rows) - 1 - first_valid

    def reference(self) -> CostRecord | None:
        """The row that anchors are compared with: the session's first valid one, or the last drifted anchor,
        where a new stretch of the session began."""
        first = next((row for row in self.rows if row.valid), None)
        return next((row for row in reversed(self.rows) if is_drift(row)), first)

    def _pending(self) -> Job | None:
        """First attempts in the plan's random order; then, once, those whose row is not to be believed."""
        verdicts = judged(self.rows)
        measured: dict[RequestKey, list[bool]] = {}
        lost: Counter[RequestKey] = Counter()
        before: Counter[RequestKey] = Counter()
        for i, row in enumerate(verdicts):
            if is_anchor(row):
                continue
            key = request_key(row)
            if i >= self._n_earlier:
                measured.setdefault(key, []).append(row.valid)
                continue
            before[key] += 1
            if row.row_no in self._believed_before and not row.valid:
                lost[key] += 1  # a drift found now undid a row of before
        for key in self._order:
            n_done = len(measured.get(key, ()))
            if n_done < self._wanted[key]:
                return Job(self._known[key], False, before[key] + n_done)
        for key in dict.fromkeys((*self._order, *lost)):
            done, wanted = measured.get(key, []), self._wanted[key]
            n_failed = sum(not valid for valid in done[:wanted])
            if len(done) < wanted + n_failed + lost[key] and key in self._known:
                return Job(self._known[key], False, before[key] + len(done))
        return None


def judge_anchor(
    row: CostRecord, reference: CostRecord, *, again: bool, protocol: MeasuringProtocol
) -> CostRecord:
    """Mark an anchor that moved.

    It moved when its latency or energy is further from the reference's than the limit of the protocol and than
    the 95 % interval of the difference.

    Args:
        reference: see :meth:`Queue.reference`.
        again: whether the anchor just before had moved, too: then the device has drifted.
    """
    if not row.valid or row.evidence is None:
        return row
    moves = []
    pairs = (
        ("latency", reference.latency_ms, row.latency_ms),
        ("energy", reference.energy_mj, row.energy_mj),
    )
    for name, old, new in pairs:
        if old is not None and new is not None:
            move, reach = relative_move(old, new)
            if abs(move) > max(protocol.drift, reach):
                moves.append(f"{name} by {move:+.1%}")
    if not moves:
        return row
    if not again:
        return replace(row, evidence=replace(row.evidence, flags=(*row.evidence.flags, MOVED)))
    reason = (
        f"drift: the anchor moved in {' and in '.join(moves)} since row {reference.row_no}, and again when it was "
        "measured once more; the rows since the last good anchor are measured again"
    )
    return replace(
        row, valid=False, reason=reason, evidence=replace(row.evidence, flags=(*row.evidence.flags, DRIFT))
    )


def _flags(row: CostRecord) -> tuple[str, ...]:
    return row.evidence.flags if row.evidence is not None else ()


def _rank(plan: MeasurementPlan, request: CostRequest) -> bytes:
    """Where a request stands in the random order; the order of some of them is that within all of them."""
    text = repr((plan.seed, plan.session, request.key))
    return hashlib.sha256(text.encode()).digest()
