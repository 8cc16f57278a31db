"""Identities that hold in the published records of early-exit networks on edge accelerators."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from _edge_records import RECORDS_FILE, costs_are_cumulative, edge_records, focus_records  # noqa: E402

from hadas.spaces import edge_space  # noqa: E402

needs_records = pytest.mark.skipif(
    not RECORDS_FILE.exists(), reason="the published records are not beside this checkout"
)


@needs_records
def test_shares_and_branch_accuracies_give_the_controllers_accuracy() -> None:
    records = edge_records()
    assert len(records) == 96
    for record in records:
        assert sum(record.shares) == pytest.approx(1.0, abs=1e-12)
        left = sum(
            share * branch for share, branch in zip(record.shares, record.branch_accuracy, strict=True)
        )
        assert left == pytest.approx(record.accuracy, abs=1e-12)


@needs_records
def test_work_of_every_record_is_that_of_the_space() -> None:
    space = edge_space("mobilenetv2")
    for record in edge_records():
        stages = space.stages(record.network(space.name))
        assert tuple(s.cumulative_macs for s in stages) == record.backbone_macs
        assert tuple(s.cumulative_params for s in stages) == record.backbone_params
        assert tuple(s.head.macs for s in stages) == record.head_macs
        assert tuple(s.head.params for s in stages) == record.head_params


@needs_records
def test_records_whose_costs_are_not_cumulative_are_recognised() -> None:
    odd = [record for record in edge_records() if not record.is_cumulative]
    assert len(odd) == 17
    assert all(not record.is_focus for record in odd)
    assert all(record.mean_cost != record.mean_cost for record in odd)


@needs_records
def test_the_focus_models_are_thirteen_and_the_published_one_among_them() -> None:
    records = {record.letters: record for record in focus_records()}
    assert len(records) == 13
    assert records["D,F,I,K"].accuracy == pytest.approx(0.885, abs=5e-4)
    assert records["A,B,F,K"].mean_cost == pytest.approx(542.83, abs=0.01)


@pytest.mark.parametrize(
    ("costs", "cumulative"), [((1.0, 2.0, 3.0), True), ((1.0, 3.0, 2.0), False), ((1.0,), True)]
)
def test_costs_are_cumulative_where_they_rise(costs: tuple[float, ...], cumulative: bool) -> None:
    assert costs_are_cumulative(costs) is cumulative
