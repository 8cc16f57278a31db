"""The measuring protocol at work: any rig becomes a device whose rows can be believed.

The rig sets clocks, runs programs and reads sensors.  Here is decided in which order, how long, what is
measured again, and what each row is worth (:mod:`.protocol`, :mod:`.queue`, :mod:`.row`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ....datasets.records import CostRecord, Program, Target, Truth
from ....spaces import BackboneSpace, ClockTable
from ..device import MeasurementPlan
from ..rig import Rig
from .protocol import FULL, MeasuringProtocol, check_plan
from .queue import Queue, judge_anchor
from .row import Clock, RowMeter

REAL_TIME = Clock()


class MeasuredDevice:
    """A device measured by the protocol.

    A row's latency is the sum of its stages (``stages``) or the last prefix program's (``prefix``), without
    the decisions between them: predictors add stages up, and what a decision costs stands by itself
    in ``evidence.decision_ms``.

    Args:
        rig: reserved for this device; :meth:`close` gives it back.
        space: where backbones come from.
        n_classes: outputs of each classifier.
        program: what is compiled, see :class:`~hadas.datasets.records.CostRecord`.
        raw_directory: where the power readings of every row are kept; ``None`` = nowhere.
        check: called before every row; what it raises ends the session (a lease that was lost).
        clock: time, for tests.
    """

    def __init__(
        self, rig: Rig, protocol: MeasuringProtocol = FULL, *, space: BackboneSpace, n_classes: int,
        program: Program = "stages", raw_directory: Path | None = None,
        check: Callable[[], None] = lambda: None, clock: Clock = REAL_TIME,
    ) -> None:  # fmt: skip
        self.rig = rig
        self.protocol = protocol
        self.space = space
        self.n_classes = n_classes
        self.program = program
        self.raw_directory = raw_directory
        self._check = check
        self._clock = clock

    @property
    def target(self) -> Target:
        """The rig's."""
        return self.rig.target

    @property
    def truth(self) -> Truth:
        """The rig's."""
        return self.rig.truth

    @property
    def counts_energy(self) -> bool:
        """Whether the rig has a live energy source."""
        return self.rig.energy is not None

    def clock_table(self) -> ClockTable:
        """Read from the rig."""
        return self.rig.clock_table()

    def close(self) -> None:
        """Leave the device as it was found."""
        self.rig.close()

    def measure(self, plan: MeasurementPlan) -> Iterator[CostRecord]:
        """Yield rows as they are measured; see :meth:`.Device.measure`.

        The first request is measured first, the others in random order; the anchor (the first valid row's request)
        comes again every ``anchor_every`` rows, and at the end of a session that is half as long.  An anchor that
        moved is measured once more; if it moved indeed, the rows since the last good anchor are
        undone (:mod:`hadas.datasets.believable`) and measured again.  So is, once, every request whose row is
        invalid.

        Raises:
            OffTableFrequencyError, SpaceError: before anything is measured, for any request of the plan.
            ConnectionLostError: after the row that the device was lost in; the plan can be gone on with.
        """
        check_plan(plan, self.clock_table(), self.space)
        return self._rows(plan)

    def _rows(self, plan: MeasurementPlan) -> Iterator[CostRecord]:
        queue = Queue(plan, self.protocol)
        meter = RowMeter(
            self.rig, self.protocol, self.program, self.n_classes, self._clock, plan.session,
            warmest_c=_warmest(plan.earlier), raw_directory=self.raw_directory,
        )  # fmt: skip
        row_no = plan.first_row
        while (job := queue.next()) is not None:
            self._check()
            if job.anchor:
                meter.begin_batch()
            record = meter.measure(job, row_no)
            reference = queue.reference()
            if job.anchor and reference is not None:
                record = judge_anchor(record, reference, again=queue.doubted, protocol=self.protocol)
            queue.add(record)
            yield record
            row_no += 1
            if meter.lost is not None:
                raise meter.lost


def _warmest(rows: tuple[CostRecord, ...]) -> float | None:
    """Temperature that the warmest row ended at, those that started hot aside."""
    ended_c = [
        row.evidence.temperature_c[1]
        for row in rows
        if row.evidence is not None and row.evidence.temperature_c and "hot" not in row.evidence.flags
    ]
    return max(ended_c, default=None)
