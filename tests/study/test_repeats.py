"""Designs measured again count once, and points that miss a constraint count not at all."""

import shutil

import numpy as np
import pytest
import yaml

from hadas.datasets.records import Statistic
from hadas.study import Study
from hadas.study.repeats import mean_of, once_each
from hadas.study.reporting import report_content
from hadas.study.suggesting import journal_plan
from hadas.study.tables import constraints_line, front_rows, status_rows


def constrained(smoke_seeds, directory, **constraints):
    """The same rows in a study that had these constraints from the beginning."""
    shutil.copytree(smoke_seeds, directory)
    document = yaml.safe_load((smoke_seeds / "study.yaml").read_text())
    document["search"]["constraints"] |= constraints
    path = directory / "study.yaml"
    path.write_text(yaml.safe_dump(document))
    return Study.open(path, adopt=True)


def test_the_error_of_a_mean_is_that_of_its_parts_or_of_their_scatter():
    alike = mean_of([Statistic(1.0, 0.3, 9), Statistic(1.1, 0.4, 7)])
    assert (alike.value, alike.standard_error, alike.n) == (pytest.approx(1.05), pytest.approx(0.25), 16)
    apart = mean_of([Statistic(1.0, 0.01, 9), Statistic(2.0, 0.01, 9)])
    assert apart.standard_error == pytest.approx(0.5)


def test_a_design_measured_again_counts_once_at_its_mean(smoke_seeds, tmp_path):
    shutil.copytree(smoke_seeds, tmp_path / "copy")
    study = Study.open(tmp_path / "copy" / "study.yaml")
    again = study.findings.points(0)[1].design
    journal_plan(study, [again], [{"expected_gain": 0.0, "cost_s": 1.0, "why": "repeat"}])
    study.measure()
    points = study.findings.loop_points()
    rows = [point for point in points if point.design == again]
    assert [point.round for point in rows] == [0, 1]
    costs = [point.cost.latency_ms.value for point in rows]
    assert costs[0] != costs[1]
    merged = {point.design: point for point in once_each(points, study.parts.controller)}
    assert len(merged) == len(points) - 1
    assert merged[again].cost.latency_ms.value == pytest.approx(np.mean(costs))
    outcomes = [point.outcome.controller.latency_ms for point in rows]
    assert merged[again].outcome.controller.latency_ms == pytest.approx(np.mean(outcomes))
    assert merged[again].outcome.controller.accuracy == rows[0].outcome.controller.accuracy
    assert study.findings.hypervolume(points) == study.findings.hypervolume(list(merged.values()))
    # Predictors are trained on both rows.
    assert sum(row.requested == again.setting and row.backbone == again.backbone
               for row in study.findings.cost_records(2)) == 2  # fmt: skip


def test_a_constraint_keeps_points_off_the_front_and_is_said(smoke_seeds, tmp_path):
    latencies = sorted(
        p.outcome.controller.latency_ms for p in Study.open(smoke_seeds / "study.yaml").findings.loop_points()
    )
    limit = float(np.mean(latencies[3:5]))
    study = constrained(smoke_seeds, tmp_path / "study", max_latency_ms=limit)
    points = study.findings.loop_points()
    kept = study.findings.comparable(points)
    assert {p.design for p in kept} == {p.design for p in points if p.outcome.controller.latency_ms <= limit}
    assert len(kept) == 4
    assert all(p.outcome.controller.latency_ms <= limit for p in study.findings.front(points))
    assert study.findings.hypervolume(points) == study.findings.hypervolume(kept)
    said = dict(status_rows(study))["constraints"]
    assert said == f"4 of {len(points)} measured points meet the constraints (latency at most {limit:g} ms)"
    content = report_content(study)
    assert sum(row.meets_constraints for row in content.designs) == 4
    assert any("4 of" in line and "meet the constraints" in line for line in content.statements)


def test_where_nothing_is_feasible_the_constraint_and_the_best_are_named(smoke_seeds, tmp_path):
    study = constrained(smoke_seeds, tmp_path / "study", max_latency_ms=1e-3)
    points = study.findings.loop_points()
    best = min(p.outcome.controller.latency_ms for p in points)
    assert study.findings.front(points) == []
    assert study.findings.hypervolume(points) == 0.0
    assert front_rows(study) == []
    line = constraints_line(study)
    assert line.startswith(f"none of {len(points)} measured points counts: ")
    assert "latency at most 0.001 ms" in line
    assert f"{best:.4g} ms" in line
    assert report_content(study).chosen == ()
