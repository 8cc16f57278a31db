"""A study of exits and bits, from killed to reported."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from hadas.datasets.records import Statistic
from hadas.errors import InfeasibleError, StudyError
from hadas.measurement.quantized.policy import QuantizedOutcome
from hadas.spaces.quantized import edge_space
from hadas.study.edge import EdgeStudy
from hadas.study.edge.beliefs import exit_inputs
from hadas.study.edge.judging import effective_samples
from hadas.study.edge.problem import EdgeProblem
from hadas.study.edge.reporting import write_edge_report
from hadas.study.edge.seeds import bit_pairs, fewest_seeds, initial_networks, static_networks
from hadas.study.edge.tables import statements, status_rows
from hadas.surrogates.exit_inputs import network_rows

from .conftest import TRAINED_BEFORE_THE_KILL, new_study


def test_a_killed_study_trains_nothing_twice(continued):
    rows = continued.parts.rows.records("edge-smoke/networks")
    ids = [row.network.trained_id for row in rows]
    assert len(ids) == len(set(ids)) == 6
    assert len(ids) > TRAINED_BEFORE_THE_KILL
    assert all(row.valid for row in rows)
    assert continued.ended() == "1 round(s) were asked for"


def test_the_same_study_under_another_name_makes_the_same_choices_and_trains_nothing(continued):
    path = new_study(continued.directory, study="again")
    again = EdgeStudy.open(path)
    again.run()
    assert not again.parts.rows.records("again/networks")
    assert [p.network for p in again.findings.points()] == [p.network for p in continued.findings.points()]
    assert again.findings.plans() == continued.findings.plans()


def test_points_keep_the_identities_that_define_them(continued):
    for point in continued.findings.points():
        for found in (point.search, point.test):
            shares, branch = np.array(found.shares), np.array(found.branch_accuracy)
            assert shares.sum() == pytest.approx(1.0)
            assert shares @ branch == pytest.approx(found.accuracy)
            # The mean of products, not the product of means.
            assert shares @ np.array(found.et_exits) == pytest.approx(found.et_average)
            assert np.all(np.diff(found.et_exits) > 0)
        if point.is_static:
            assert point.test.reduction == pytest.approx(0.0)


def test_every_pair_of_bits_has_its_static_network(continued):
    points = continued.findings.points()
    assert [p.bits for p in points if p.is_static] == ["8+8", "8+4", "4+8", "4+4"]


def test_predictions_were_made_before_the_round_and_are_checked(continued):
    checks = continued.findings.checks(1)
    assert [check.quantity for check in checks] == ["accuracy", "et_average", "head_share"]
    (point,) = [p for p in continued.findings.points() if p.round == 1]
    for check in checks:
        assert check.found == getattr(point.search, check.quantity)
        assert check.low_90 <= check.high_90
    accuracy = checks[0]
    assert 0.0 <= accuracy.low_90 <= accuracy.predicted <= accuracy.high_90 <= 1.0


def test_the_report_marks_every_cost_modelled(continued):
    page = write_edge_report(continued, lambda *_: None)
    text = page.read_text()
    assert text.count("MODELLED") > 10
    assert any("MODELLED" in line for line in statements(continued.findings))
    assert "measured ET_avg" not in text
    with (page.parent / "networks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["truth"] for row in rows} == {"MODELLED"}
    assert len(rows) == 6
    for name, expected in (("rounds", {"MODELLED"}), ("predictions", {"measured", "MODELLED"})):
        with (page.parent / f"{name}.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        assert {row["truth"] for row in found} == expected
        assert all(
            (row["truth"] == "measured") == (row["quantity"] == "accuracy")
            for row in found
            if "quantity" in row
        )
    # What is measured alone bears no mark: where samples leave.
    for key, marked in (("front", True), ("exits", False), ("shares", False)):
        if f'<section id="{key}">' in text:
            heading = text.split(f'<section id="{key}">')[1].split("</h2>")[0]
            assert ("MODELLED" in heading) == marked, key
    assert {path.stem for path in page.parent.glob("*.png")} >= {"front", "predictions", "hypervolume"}


def test_status_says_what_is_trained_and_what_comes_next(continued):
    rows = dict(status_rows(continued))
    assert rows["rounds trained"] == "2 (seeds included)"
    assert rows["next"] == "hadas report"
    assert "MODELLED" in rows["accelerator"]
    assert "core 0 runs everything" in rows["accelerator"]
    held, of, needed = rows["layers modelled"].split()[:3]
    assert (held, of) == (needed, "of")


def test_status_of_a_study_that_was_interrupted_says_what_is_there(continued):
    study = EdgeStudy.open(new_study(continued.directory, study="interrupted"))
    study.begin()
    seeds = continued.findings.event("plan:0")["genomes"]
    new = continued.parts.space.encode(
        edge_space("mobilenetv2-small", bits="per-segment").network("B,E,K", bits=8)
    )
    study.journal_once("plan:0", {"genomes": [*seeds, new.tolist()]})
    rows = dict(status_rows(study))
    assert rows["unfinished"] == "the seeds, of which 5 of 6 networks are trained"
    held, of, needed = rows["layers modelled"].split()[:3]
    assert (held, of) == (needed, "of")
    assert rows["next"] == "hadas run"
    new_study(continued.directory)


def test_a_changed_file_is_refused_with_what_differs(continued):
    path = new_study(continued.directory, policy={"tolerance": 0.02})
    with pytest.raises(StudyError, match=r"policy.tolerance: 0.01 -> 0.02"):
        EdgeStudy.open(path)
    new_study(continued.directory)


def test_constraints_that_nothing_meets_are_named_after_the_report(continued, run_in_process):
    path = new_study(
        continued.directory, study="strict", learning={"seeds": 5, "rounds": 0},
        search={"constraints": {"min_accuracy": 0.999}},
    )  # fmt: skip
    code, said, error = run_in_process("run", path)
    assert code == 2
    assert "accuracy at least 99.9 %" in " ".join(error.split())
    assert "0 of 5 trained networks meet them" in " ".join(said.split())
    rows = dict(status_rows(EdgeStudy.open(path)))
    assert "accuracy at least 99.9 %" in rows["ended"]
    assert "--adopt" in rows["next"]
    new_study(continued.directory)


def test_adopted_constraints_and_policies_are_searched_for(continued):
    """Nothing is said of one configuration that was worked out for another."""

    def adopt(learning, **changes):
        path = new_study(
            continued.directory, study="other", learning={"seeds": 5, "batch": 1, **learning}, **changes
        )
        EdgeStudy.open(path, adopt=True)
        return EdgeStudy.open(path)

    def at_least(accuracy):
        return adopt({"rounds": 0}, search={"constraints": {"min_accuracy": accuracy}})

    with pytest.raises(InfeasibleError):
        at_least(0.999).run()
    study = at_least(0.01)
    study.run()
    rows = dict(status_rows(study))
    assert (study.infeasible(), study.ended()) == ("", "0 round(s) were asked for")
    assert "min_accuracy: 0.999 -> 0.01; rounds began anew with 5 trained networks" in rows["adopted"]
    (seeds,) = study.findings.summaries()
    assert seeds.hypervolume > 0
    study = at_least(0.998)
    with pytest.raises(InfeasibleError, match=r"99.8 %"):
        study.run()
    rows = dict(status_rows(study))
    assert study.ended() == ""
    assert "99.8 %" in rows["ended"]
    assert "99.9 %" not in str(rows)

    study = adopt({"rounds": 1}, policy={"kind": "exit"})
    assert study.findings.points() == []
    study.run()
    # The round was predicted and judged under the new policy, and has all earlier networks behind it.
    assert [one.number for one in study.findings.summaries()] == [0, 1]
    assert len(study.findings.planned(0)) == 5
    assert {check.round for check in study.findings.checks(1)} == {1}
    assert "policy.kind: 'network' -> 'exit'" in dict(status_rows(study))["adopted"]
    new_study(continued.directory)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"data": {"limit": 110}}, "began with other images"), ({"bits": "pairs"}, "another space")],
)
def test_what_cannot_be_adopted_changes_nothing(changes, said, continued):
    wanted = {"learning": {"seeds": 6, "batch": 1}, **changes}
    with pytest.raises(StudyError, match=said):
        EdgeStudy.open(new_study(continued.directory, **wanted), adopt=True)
    study = EdgeStudy.open(new_study(continued.directory))
    assert study.findings.adopted is None
    assert study.ended() == continued.ended()


def test_a_report_of_nothing_names_the_remedy(tmp_path):
    study = EdgeStudy.open(new_study(tmp_path))
    with pytest.raises(StudyError, match="nothing is trained yet; run: hadas run"):
        write_edge_report(study, lambda *_: None)


# -- what needs no training ------------------------------------------------------------------------


def test_seeds_begin_with_the_static_networks_and_published_exits():
    space = edge_space("mobilenetv2")
    assert bit_pairs(space) == ((32, 32), (8, 8), (8, 4), (4, 8), (4, 4))
    assert [network.letters for network in static_networks(space)] == ["K"] * 5
    networks = initial_networks(space, 12)
    assert [network.letters for network in networks[5:]] == ["D,F,I,K", "A,E,F,H,K", "G,K"]
    assert len({network.network_id for network in networks}) == 8
    assert len(initial_networks(space, 6)) == fewest_seeds(space) == 6


def test_predictors_are_told_macs_and_bits_of_each_stretch():
    space = edge_space("mobilenetv2", bits="per-segment")
    bits = (4, 8, 8, 8, 4, 4, 8, 8, 8, 8, 4)
    mixed = space.network("A,C", head_types=(1, 2, 2), bits=bits, head_bits=4)
    plain = space.network("K", bits=8)
    inputs = exit_inputs(space, [mixed, plain])
    assert inputs.n_exits.tolist() == [3, 1]
    stages = (*space.stages(mixed), *space.stages(plain))
    assert inputs.backbone_macs.tolist() == [stage.cumulative_macs for stage in stages]
    assert inputs.head_layers.tolist() == [1, 2, 2, 1]
    assert inputs.head_bits.tolist() == [4, 4, 4, 8]
    for i, stage in enumerate(stages):
        step = sum(segment.macs * 2.0**-segment.bits for segment in stage.segments) / stage.macs
        assert inputs.segment_step[i] == pytest.approx(step)


def test_exits_do_not_change_what_predictors_are_told_of_the_backbones_precision():
    space = edge_space("mobilenetv2", bits="per-segment")
    bits = (8, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4)
    networks = [space.network(letters, bits=bits) for letters in ("K", "G,K", "F,K", "D,F,I,K")]
    rows = network_rows(exit_inputs(space, networks))
    macs = np.array([sum(unit.macs for unit in units) for units in space.segments])
    step = macs @ 2.0 ** -np.array(bits, dtype=float) / macs.sum()
    np.testing.assert_allclose(rows[:, 9], step)


def test_samples_of_copied_images_count_for_less_than_as_many_images():
    outcome = QuantizedOutcome(
        accuracy=Statistic(0.9, 0.03, 400), shares=np.array([0.5, 0.5]), share_errors=np.array([0.05, 0.05]),
        branch_accuracy=np.array([0.9, 0.9]), branch_counts=np.array([200, 200]), thresholds=np.array([0.8, 0.0]),
        final_accuracy=Statistic(0.9, 0.03, 400),
    )  # fmt: skip
    # (0.9 x 0.1 + 2 x 0.5 x 0.5) / (0.03^2 + 2 x 0.05^2)
    assert effective_samples(outcome) == pytest.approx(100.0)
    errorless = replace(outcome, accuracy=Statistic(1.0, 0.0, 400), share_errors=np.zeros(2))
    assert effective_samples(errorless) == 400.0


# -- what is known of trained networks, and where they run ------------------------------------------


def test_what_is_known_of_a_trained_network_is_not_predicted(continued):
    networks = [network for r in range(2) for network in continued.findings.planned(r)]
    genomes = np.array([continued.parts.space.encode(network) for network in networks])
    problem = EdgeProblem(
        continued.parts, continued.trained, seed=1, on_seeds=lambda _: None, progress=lambda *_: None
    )
    found = list(problem.evaluate(genomes))
    beliefs = problem.fit(found)
    points = np.array([evaluation.points for evaluation in found])
    np.testing.assert_allclose(beliefs.mean(genomes).points, points, rtol=1e-12)
    for drawn in (beliefs.draws(genomes, 3, 0), beliefs.outcomes(genomes, 3, 0)):
        np.testing.assert_allclose(drawn.points, np.tile(points, (3, 1, 1)), rtol=1e-12)
    new = continued.parts.space.encode(replace(networks[-1], heads=(2, *networks[-1].heads[1:])))
    both = beliefs.outcomes(np.array([new, genomes[0]]), 20, 0).points
    assert both[:, 0, 0].std() > 0
    np.testing.assert_allclose(both[:, 1], np.tile(points[0], (20, 1)), rtol=1e-12)
    assert (problem.prices(np.array([new, new + 0])).now() == 1.0).all()


def test_mapping_segments_trains_new_networks_in_every_round(continued):
    """The seeds are found again; each plan of a round is a training, and cores are chosen for what it found."""
    styles = {"cores": ["edge-tpu", "eyeriss"], "map_segments": True}
    path = new_study(continued.directory, study="mapped", accelerator=styles)
    study = EdgeStudy.open(path)
    told = []
    study.run(on_round=told.append)
    new_study(continued.directory)
    points, rows = study.findings.points(), study.parts.rows.records("mapped/networks")
    ids = [point.network.trained_id for point in points]
    assert len(ids) == len(set(ids)) == told[-1].n_trained == 6
    assert {row.network.trained_id for row in rows} == {
        point.network.trained_id for point in points if point.round
    } - {point.network.trained_id for point in continued.findings.points()}
    assert [point.network.trained_id for point in points[:5]] == [
        point.network.trained_id for point in continued.findings.points()[:5]
    ]
    assert sum(one.seconds for one in told) == pytest.approx(
        sum(sum(study.trained.record(point.network).seconds.values()) for point in points)
    )
    for point in points:
        assert set(point.network.cores) == {0, 1}
        shares = np.array([point.search.shares])
        for core in (0, 1):
            still = study.parts.costs.costs([replace(point.network, cores=(core,) * 12)])
            assert point.search.et_average < still.et_average(shares)[0]
