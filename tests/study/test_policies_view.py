"""`hadas policies`: what it shows is what was measured."""

import csv
import dataclasses

import numpy as np
import pytest
import yaml

from hadas.errors import StudyError
from hadas.measurement.accuracy.policies import (
    CrossFitter,
    Score,
    ToleranceThresholds,
    apply_controller,
    outcome_at,
)
from hadas.search.designs import evaluate_measured
from hadas.spaces import Exits
from hadas.study import Study
from hadas.study.config import template
from hadas.study.policies_view import (
    PolicyLimits,
    backbone_comparison,
    front_comparisons,
    policy_notes,
)
from hadas.study.reporting import ends_and_middle, report_content

POLICIES = [
    "oracle", "final only", "best single exit", "max-softmax", "margin", "entropy", "MSDNet shares", "patience 2",
    "patience 3", "risk-controlled",
]  # fmt: skip


@pytest.fixture(scope="module")
def study(own_seeds):
    return Study.open(own_seeds)


@pytest.fixture(scope="module")
def neighbour(study):
    """Another study of the same store, with random backbones of its own."""
    document = yaml.safe_load(study.path.read_text())
    path = study.directory / "neighbour.yaml"
    path.write_text(yaml.safe_dump({**document, "study": "neighbour", "seed": 8}))
    measured = Study.open(path)
    measured.measure()
    return measured


@pytest.fixture
def hadas(run_in_process):
    """Exit status, output as it was written, and errors on one line."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code, out, errors = run_in_process(*arguments)
        return code, out, " ".join(errors.split())

    return run


def test_rows_agree_with_the_report_of_the_same_designs(study):
    """Oracle, final and max-softmax are what the report says; dropping a useless head only saves."""
    points = study.findings.front(study.findings.loop_points())
    compared = front_comparisons(study)
    assert len(compared) == len(points) > 0
    for point, comparison in zip(points, compared, strict=True):
        judged = evaluate_measured(
            point.design, point.accuracy, point.cost, split="test", controller=study.parts.controller
        )
        rows = {row.policy: row for row in comparison.rows}
        assert list(rows) == POLICIES
        for name, expected in (
            ("oracle", judged.oracle), ("final only", judged.no_exit), ("max-softmax", judged.controller),
        ):  # fmt: skip
            row = rows[name]
            assert row.accuracy.value == pytest.approx(expected.accuracy)
            assert row.accuracy.standard_error == pytest.approx(expected.accuracy_se)
            assert row.shares == pytest.approx(expected.shares)
            energy, latency = row.costs["energy_mj"], row.costs["latency_ms"]
            assert (energy.value, latency.value) <= (expected.energy_mj + 1e-9, expected.latency_ms + 1e-9)
            if name != "max-softmax":
                assert energy.value == pytest.approx(expected.energy_mj)
                assert latency.standard_error == pytest.approx(expected.latency_se)
        assert comparison.title.endswith("(SIMULATED device)")


def test_the_report_shows_the_ends_and_the_middle_of_the_front(study):
    cheapest, *others = sorted(
        study.findings.loop_points(), key=lambda point: point.outcome.controller.energy_mj
    )
    points = [*others[:2], cheapest, *others[2:]]  # as a front stands, but with the cheapest inside it
    exits = points[-1].design.exits
    none = Exits(exits.first_exit, (0,) * len(exits.types))
    bare = dataclasses.replace(points[-1], design=dataclasses.replace(points[-1].design, exits=none))
    shown = ends_and_middle([*points, bare])
    assert list(shown) == ["cheapest", "middle", "most accurate"]
    assert shown["cheapest"] is cheapest
    assert shown["most accurate"] is points[-1]
    assert any(shown["middle"] is point for point in others[1:-1])
    assert list(ends_and_middle([cheapest, points[-1]])) == ["cheapest", "most accurate"]
    assert ends_and_middle([bare]) == {}
    # What the report holds is what the command shows of the same networks.
    front = study.findings.front(study.findings.loop_points())
    compared = dict(zip([id(p.design) for p in front], front_comparisons(study), strict=True))
    assert list(report_content(study).policies.values()) == [
        compared[id(point.design)] for point in ends_and_middle(front).values()
    ]
    assert list(ends_and_middle([cheapest])) == ["cheapest and most accurate"]


def test_limits_reach_the_policies(study):
    lower = []
    for backbone in dict.fromkeys(row.backbone for row in study.findings.cost_records(1)):
        strict, lax = (
            {row.policy: row for row in backbone_comparison(study, backbone.arch_id, limits).rows}
            for limits in (PolicyLimits(0.0, 0.001, 0.01), PolicyLimits(0.5, 0.9, 0.5))
        )
        assert strict["risk-controlled"].shares[-1] == 1.0
        assert lax["risk-controlled"].shares[-1] < 1.0
        assert lax["max-softmax"].shares[0] >= strict["max-softmax"].shares[0]
        assert strict["patience 2"] == lax["patience 2"]
        lower.append(lax["max-softmax"] != strict["max-softmax"])
    assert any(lower)


def test_without_a_measured_cost_multiply_accumulates_are_counted(study, neighbour):
    own = {row.backbone.arch_id for row in neighbour.findings.cost_records(1)}
    backbone = next(row.backbone for row in study.findings.cost_records(1) if row.backbone.arch_id not in own)
    comparison = backbone_comparison(neighbour, backbone.arch_id)
    assert "SIMULATED" not in comparison.title
    assert comparison.columns == ["policy", "accuracy, %", "MACs, M", "leave after block, %"]
    rows = {row.policy: row for row in comparison.rows}
    work = study.parts.space.workload(backbone, n_classes=10)
    assert rows["final only"].costs["macs"].value == work.macs
    best = rows["best single exit"].shares.index(1.0)
    blocks = work.first_exit + best + 1
    expected = work.stem.macs + sum(b.macs for b in work.blocks[:blocks]) + work.heads[best].macs
    assert rows["best single exit"].costs["macs"].value == expected
    # Where the first study measured it, its costs are in mJ and ms, at maximum clocks.
    measured = backbone_comparison(study, backbone.arch_id)
    assert list(measured.rows[0].costs) == ["energy_mj", "latency_ms"]
    assert measured.setting == study.parts.table.default
    assert [row.accuracy for row in measured.rows] != []
    assert measured.rows[3].accuracy == rows["max-softmax"].accuracy


def test_the_command_prints_every_policy_and_writes_them(study, hadas, tmp_path):
    target = tmp_path / "policies.csv"
    code, said, _ = hadas("policies", study.path, "--backbone", "largest", "--csv", target)
    assert code == 0
    assert all(name.split()[0] in said for name in POLICIES)
    assert "SIMULATED" in said
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["policy"] for row in rows] == POLICIES
    for row in rows:
        assert float(row["accuracy_low_95"]) <= float(row["accuracy"]) <= float(row["accuracy_high_95"])
        assert sum(map(float, row["shares"].split())) == pytest.approx(1.0)
        assert (row["backbone"], row["cost_truth"], row["macs"]) == ("largest", "SIMULATED", "")


def test_what_is_not_measured_is_refused_with_the_remedy(study, hadas, tmp_path):
    with pytest.raises(StudyError, match=r"'m5' is not measured \(no accuracy row\).*largest.*hadas measure"):
        backbone_comparison(study, "m5")
    empty = tmp_path / "study.yaml"
    empty.write_text(template("study.yaml", "smoke"))
    for option in ((), ("--backbone", "m0")):
        code, _, said = hadas("policies", empty, *option)
        assert (code, "nothing is measured yet; run: hadas measure" in said) == (2, True)
    code, _, said = hadas("policies", study.path, "--epsilon", 0)
    assert (code, "epsilon = 0.0" in said) == (2, True)
    code, _, said = hadas("policies", study.path, "--csv", tmp_path / "none" / "p.csv")
    assert (code, "existing folder" in said) == (2, True)


@pytest.mark.parametrize("name", ["margin", "entropy"])
def test_the_controller_compares_the_score_that_the_study_names(study, name):
    """Thresholds, shares and the search's leave bits are those of the named score, and differ from max-softmax."""
    document = yaml.safe_load(study.path.read_text())
    path = study.directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**document, "study": name, "policy": {"score": name}}))
    named = Study.open(path)
    named.measure()  # the accuracies are in the store already
    policy = ToleranceThresholds(Score(name, 10), named.config.policy.tolerance)
    ours, default = named.findings.points(0), study.findings.points(0)
    for point in ours:
        calibration, test, mask = point.accuracy.calibration, point.accuracy.test, point.design.mask
        rule = policy.fit(calibration, mask)
        assert point.outcome.thresholds == tuple(rule.thresholds[:-1][mask])
        judged = evaluate_measured(
            point.design, point.accuracy, point.cost, split="test", controller=named.parts.controller
        )
        expected = outcome_at(test.correct, rule.leaves_at(test))
        assert judged.controller.shares == tuple(expected.shares[np.append(mask, True)])
        assert judged.controller.accuracy == expected.accuracy
    assert [p.outcome.thresholds for p in ours] != [p.outcome.thresholds for p in default]

    worlds = named.worlds()
    tables = worlds.mean.tables([point.design.backbone for point in ours])
    for i, point in enumerate(ours):
        matrix, p = point.accuracy.calibration, tables.n_positions[i]
        fitter = CrossFitter(policy.score.values(matrix), matrix.group)
        leaves = fitter.leaves(matrix.correct, policy.tolerance)
        assert (tables.leaves[i, [*range(p), -1]] == leaves.T).all()
        shares = apply_controller(matrix.correct, leaves, point.design.mask).shares
        assert point.outcome.controller.shares == tuple(shares[np.append(point.design.mask, True)])
        # A backbone that borrows exactly these fractions from itself borrows the leave bits too.
        donor = worlds.library.nearest_donors(matrix.fractions, 1)[0]
        assert (worlds.library.borrowed_from(donor, matrix.fractions).leaves == leaves.T).all()


def test_another_score_is_another_study(study):
    document = yaml.safe_load(study.path.read_text())
    changed = study.directory / "changed.yaml"
    changed.write_text(yaml.safe_dump({**document, "policy": {"score": "margin"}}))
    with pytest.raises(StudyError, match=r"policy\.score: 'max-softmax' -> 'margin'"):
        Study.open(changed)


def test_weights_are_not_needed_to_look_at_what_is_measured(study, hadas, tmp_path):
    """A store that came without its weights is enough for the tables; nothing is trained for them."""
    path = tmp_path / "study.yaml"
    store = study.directory / "store.sqlite"
    path.write_text(study.path.read_text().replace("store: store.sqlite", f"store: {store}"))
    for command in (("policies", path, "--backbone", "largest"), ("status", path)):
        code, said, complained = hadas(*command)
        assert (code, complained) == (0, ""), said
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("temperature", ["one", "fitted"])
def test_notes_say_that_risk_control_does_not_cover_fitted_temperatures(tmp_path, temperature):
    document = yaml.safe_load(template("study.yaml", "smoke"))
    document["accuracy"]["exits"] = {"temperature": temperature}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(document))
    said = [note for note in policy_notes(Study.open(path)) if note.startswith("risk-controlled")]
    assert ["temperatures fitted on that split" in note for note in said] == [temperature == "fitted"]
