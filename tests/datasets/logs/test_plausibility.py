"""Rows whose figures cannot be of one inference, or contradict each other, stay out; odd but possible ones come in."""

from __future__ import annotations

import copy
import json

import pytest

from hadas.datasets.logs.checking import RowReader
from hadas.datasets.logs.jsonl import record_line
from hadas.datasets.records import StageCost, Statistic
from hadas.errors import RecordError

from .rows import failed_row, measured_row, simulated_rows

PREFIXES = tuple(
    StageCost("prefix", position, Statistic(latency, 0.01, 40), Statistic(energy, 0.1, 3))
    for position, latency, energy in ((5, 1.3, 10.0), (measured_row().backbone.n_blocks, 3.25, 22.5))
)


def line_with(path: str, value: object, row: object = None) -> str:
    """A line of a log with one value changed; ``path`` is like ``stages.0.latency_ms.value``."""
    document = json.loads(record_line(row or measured_row()))  # type: ignore[arg-type]
    *above, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    place = document
    for part in above:
        place = place[part]
    place[last] = value
    return json.dumps(document)


NO_EVIDENCE = measured_row(evidence=None)
NO_TOTAL = measured_row(evidence=None, energy_mj=None)
TOTALS_ONLY = measured_row(evidence=None, stages=())
AS_PREFIXES = measured_row(evidence=None, stages=PREFIXES, program="prefix")
BROKEN = {
    "a total in seconds": ("latency_ms.value", 0.00325, None, "latency_ms", "its stages add up to 3.25 ms"),
    "a total in microseconds": ("latency_ms.value", 3250.0, None, "latency_ms", "in another unit?"),
    "a stage in microseconds": ("stages.1.latency_ms.value", 200.0, NO_EVIDENCE, "latency_ms", "stages add up"),
    "one stage of 500 ms": ("stages.0.latency_ms.value", 500.0, NO_EVIDENCE, "latency_ms", "stages add up"),
    "a total of joules": ("energy_mj.value", 0.02, None, "energy_mj", "add up to 22 mJ"),
    "no energy of this world": ("energy_mj.value", 2.5e10, TOTALS_ONLY, "energy_mj", "W; devices draw"),
    "joules without stages": ("energy_mj.value", 0.0000225, TOTALS_ONLY, "energy_mj", "is the unit right?"),
    "a stage of kilojoules": ("stages.0.energy_mj.value", 1e7, NO_TOTAL, "stages[0].energy_mj", "W; devices"),
    "latency below a microsecond": ("latency_ms.value", 1e-30, TOTALS_ONLY, "latency_ms", "between a microsecond"),
    "latency of weeks": ("latency_ms.value", 1e9, TOTALS_ONLY, "latency_ms", "and an hour"),
    "a last prefix in seconds": ("stages.1.latency_ms.value", 0.00325, AS_PREFIXES, "latency_ms", "its last prefix"),
    "an endless error": ("latency_ms.standard_error", 1e9, None, "latency_ms.standard_error", "more than 10 times"),
    "an endless error of a stage": ("stages.2.energy_mj.standard_error", 1e9, None, "stages[2].energy_mj", "more than"),
    "a stage for no head": ("heads", [], None, "stages", "its heads make the stages segment"),
    "a head without a stage": ("heads", [[5, 1], [6, 1]], None, "stages", "head 6"),
    "stages out of order": ("stages.1.kind", "segment", None, "stages", "head 5"),
    "prefixes of a row of stages": ("program", "stages", AS_PREFIXES, "stages", "segment 5"),
    "no stage but evidence of three": ("stages", [], None, "evidence.stages", "0 stages"),
    "a median of another world": ("evidence.stages.0.latency.median_ms", 9e9, None, "evidence.stages[0]", "not around"),
    "an interval the wrong way round": ("evidence.stages.1.latency.interval95_ms", [5, 3], None, "evidence.stages[1]", "wrong way"),
    "evidence in seconds": (
        "evidence.stages.1.latency", {**json.loads(record_line(measured_row()))["evidence"]["stages"][1]["latency"],
        "median_ms": 0.0002, "interval95_ms": [0.0002, 0.0002]}, None, "evidence.stages[1]", "the stage's latency is 0.2 ms",
    ),
    "clocks that nobody asked for": ("requested", {"clocks_hz": []}, None, "actual", "other clocks than 'requested'"),
    "a pinned name twice": ("target.pinned", [["threads", "2"], ["threads", "4"]], None, "target.pinned", "twice"),
    "a clock twice": ("actual", {"clocks_hz": [["gpu", 1300500000]] * 2}, None, "actual", "twice"),
}  # fmt: skip


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("case", BROKEN)
def test_a_row_that_contradicts_itself_is_refused_by_field(case, warm):
    path, value, row, field, reason = BROKEN[case]
    reader = RowReader("rig.jsonl")
    if warm:
        for fine in (measured_row(), NO_EVIDENCE, TOTALS_ONLY, AS_PREFIXES):
            reader.read(1, record_line(fine))
    with pytest.raises(RecordError) as refused:
        reader.read(2, line_with(path, value, row))
    assert refused.value.field.startswith(field)
    assert reason in str(refused.value)


POSSIBLE = {
    "rounded stages": ("stages.0.latency_ms.value", 1.0, None),
    "a whole pass slower than its stages": ("latency_ms.value", 3.8, None),
    "a whole network that was fused": ("latency_ms.value", 2.4, None),
    "a whole network slowed by what joins it": ("latency_ms.value", 4.3, None),
    "a stage that runs faster in its network": ("stages.0.latency_ms.value", 4.0, NO_EVIDENCE),
    "less energy than its stages": ("energy_mj.value", 15.0, None),
    "a noisy stage": ("stages.2.latency_ms", {"value": 3.0, "standard_error": 0.5, "n": 3}, NO_EVIDENCE),
    "a stage whose energy is not known": ("stages.0.energy_mj", None, None),
    "a median at the end of its interval": ("evidence.stages.0.latency.interval95_ms", [1.05, 1.1], None),
    "no error": ("latency_ms.standard_error", 0.0, None),
}


@pytest.mark.parametrize("case", POSSIBLE)
def test_a_row_that_is_only_odd_comes_in(case):
    path, value, row = POSSIBLE[case]
    RowReader("rig.jsonl").read(1, line_with(path, value, row))


def test_rows_as_devices_and_the_simulator_make_them_are_plausible():
    reader = RowReader("rig.jsonl")
    for row in (NO_EVIDENCE, TOTALS_ONLY, AS_PREFIXES, failed_row(), *simulated_rows(30)):
        reader.read(1, record_line(row))


def test_an_invalid_row_may_hold_whatever_was_seen():
    seen = copy.deepcopy(measured_row(valid=False, reason="throttled", latency_ms=Statistic(1e9, 0.0, 1)))
    RowReader("rig.jsonl").read(1, record_line(seen))
