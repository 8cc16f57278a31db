"""A study on recorded rows: its costs are what the rows say, and no device is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hadas.cli import app
from hadas.datasets.logs.jsonl import write_records
from hadas.datasets.records import CostRecord, Truth
from hadas.study import Study
from hadas.study.config import template
from hadas.study.ledger import Ledger

from .running import hadas


@pytest.fixture(scope="module")
def rows(smoke_seeds) -> tuple[CostRecord, ...]:
    """What the simulator says of a smoke study's seeds."""
    return Study.open(smoke_seeds / "study.yaml").findings.loop_rows(1)


def replay(directory: Path, rows: Sequence[CostRecord]) -> Path:
    write_records(directory / "rows.jsonl", rows)
    document = yaml.safe_load(template("study.yaml", "smoke"))
    document |= {"device": {"kind": "replay", "log": "rows.jsonl"}, "baselines": False}
    path = directory / "study.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def report(study: Path) -> tuple[str, str]:
    assert hadas("report", study).returncode == 0
    page = (study.parent / "report.html").read_text()
    return page.split("<script")[0], (study.parent / "designs.csv").read_text()


def test_replayed_simulated_rows_stay_simulated(rows, tmp_path):
    path = replay(tmp_path, rows)
    assert Study.open(path).truth is Truth.SIMULATOR  # before anything is measured, too
    done = hadas("measure", path)
    assert "measured front (SIMULATED device)" in " ".join(done.stdout.split())
    assert "s of SIMULATED device" in hadas("status", path).stdout
    page, designs = report(path)
    assert page.count("SIMULATED") > 5
    assert "simulated device time" in page
    assert all(line.endswith(",SIMULATED") for line in designs.splitlines()[1:])


def test_replayed_measured_rows_are_marked_and_take_no_time(rows, tmp_path):
    """Some of them are not in the log: they are no points, no times, and said to be missing."""
    recorded = [replace(row, truth=Truth.DEVICE, device_seconds=50.0 + i) for i, row in enumerate(rows[:5])]
    path = replay(tmp_path, recorded)
    done = hadas("measure", path)
    said = " ".join(done.stdout.split())
    found = Study.open(path).findings.loop_rows(1)
    n = sum(row.valid for row in found)
    assert 0 < n < len(found)
    assert f"{len(found) - n} of {len(found)} cost rows are not in the log rows.jsonl" in said
    assert "(REPLAYED costs)" in said
    assert "no device time (REPLAYED;" in said

    ledger = Ledger(Study.open(path))
    price = ledger.point_cost()
    assert price is not None
    assert price.n == n
    assert price.low_s >= 50.0
    assert "REPLAYED, no real time, when recorded" in price.hardware
    assert f"for {n} cost rows" in dict(ledger.spent())["device"]
    # Points take no time, so a budget buys as many as its backbones want.
    splits = {split.name: split for split in ledger.splits(10 * ledger.backbone_s())}
    assert splits["2 points per backbone"].n_points == 2 * splits["all on backbones"].n_backbones
    run = CliRunner().invoke(app, ["plan", str(path), "--budget", "1h"], env={"COLUMNS": "200"})
    assert "what 1h buys (REPLAYED costs)" in " ".join(run.output.split())

    page, designs = report(path)
    assert "SIMULATED" not in page
    assert page.count("REPLAYED") > 5
    assert "the loop used none" in page
    assert all(line.endswith(",REPLAYED") for line in designs.splitlines()[1:])
