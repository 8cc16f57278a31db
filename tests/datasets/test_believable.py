"""Which rows a drift undoes, by hand."""

from __future__ import annotations

from hadas.datasets.believable import believable, is_anchor, judged
from hadas.datasets.evidence import Evidence
from hadas.datasets.records import CostRecord, Statistic, Target, Truth
from hadas.spaces import CLOCK_TABLES, mini_space

SETTING = CLOCK_TABLES["tx2-pascal-gpu"].default


def row(row_no: int, kind: str = "", session: str = "s") -> CostRecord:
    """``bad``, ``good``, ``moved``, ``drift`` and ``failed`` (the last four anchors), or a plain row."""
    flags = (kind,) if kind in ("moved", "drift") else ()
    anchor = kind in ("good", "moved", "drift", "failed")
    valid = kind not in ("bad", "drift", "failed")
    return CostRecord(
        session, row_no, mini_space().presets["m0"], 10, (), SETTING, SETTING, Target("b", "p", "r", "t"), Truth.DEVICE,
        (), Statistic(1.0, 0.0, 3), None, 1.0, valid=valid, reason="" if valid else kind,
        evidence=Evidence("e", "p", "", (), anchor=anchor, flags=flags),
    )  # fmt: skip


def numbers(kinds: list[str]) -> list[int]:
    return [r.row_no for r in believable(row(i, kind) for i, kind in enumerate(kinds))]


def test_a_drift_undoes_what_follows_the_last_good_anchor():
    assert numbers(["", "", "bad", "good", "", "", "moved", "drift", "", "good"]) == [0, 1, 3, 8, 9]
    # Without a good anchor, the first valid row is the last time that the device was known to be well.
    assert numbers(["bad", "", "", "bad", "moved", "failed", "drift", ""]) == [1, 7]
    assert numbers(["", "", "moved", "good", "", "failed", "", "drift"]) == [0, 1, 2, 3]
    assert numbers(["", "", "drift", "", "moved", "drift"]) == [0]
    assert numbers(["drift"]) == []


def test_sessions_have_nothing_to_do_with_each_other_and_stored_rows_stay():
    rows = [row(0), row(0, session="t"), row(1), row(1, session="t"), row(2, "drift")]
    found = judged(rows)
    assert [(r.session, r.row_no, r.valid) for r in found] == [
        ("s", 0, True), ("t", 0, True), ("s", 1, False), ("t", 1, True), ("s", 2, False),
    ]  # fmt: skip
    assert found[2].reason == "the anchor had drifted when row 2 repeated it"
    assert rows[2].valid
    assert is_anchor(rows[4])
    assert not is_anchor(rows[0])


def test_rows_without_evidence_are_believed_if_valid():
    from dataclasses import replace

    rows = [replace(row(i, kind), evidence=None) for i, kind in enumerate(["", "bad", ""])]
    assert [r.row_no for r in believable(rows)] == [0, 2]
