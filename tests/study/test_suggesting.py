"""What a study plans next, beside what it has planned, and what it says of it."""

import gc
import shutil

import pytest
import yaml

from hadas.errors import StudyError
from hadas.search.strategies import STRATEGIES
from hadas.spaces import SwitchingCost
from hadas.study import Study
from hadas.study.config import Strategy
from hadas.study.predicted_front import (
    FrontOutlook,
    exit_clock_front,
    journalled_confidence,
    predicted_rows,
)
from hadas.study.predicted_tables import predicted_columns, predicted_front_note, predicted_front_rows

from .running import hadas


def silent(phase, done, total, note=""):
    pass


def test_open_plans_are_pending_and_each_round_is_closed(own_seeds):
    """Points planned beside an open plan are others, and one command measures all of them."""
    done = hadas("suggest", own_seeds, "-n", 2, "--explain")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "1. " in said
    assert "given those before it" in said
    assert "Costs" in said
    assert "Proposed by the search on" in said
    # What is planned is explained again, and nothing is planned anew.
    again = hadas("suggest", own_seeds, "--explain")
    told = " ".join(again.stdout.split("measure next")[1].split())
    assert told.replace(
        "This plan was open already; nothing new was chosen (more points beside it: hadas suggest --more). ",
        "",
    ) == " ".join(done.stdout.split("measure next")[1].split())

    study = Study.open(own_seeds)
    assert not study.suggest(2)  # the plan that is open has as many
    with pytest.raises(StudyError, match="--more"):
        study.suggest(3)
    first = study.pending_designs()
    study.suggest(2, more=True)
    pending = study.pending_designs()
    assert (len(first), len(pending), len(set(pending))) == (2, 4, 4)
    study.measure()
    assert study.findings.n_measured_rounds == 3
    assert study.pending_designs() == []
    measured = [point.design for r in (1, 2) for point in study.findings.points(r)]
    assert sorted(map(str, measured)) == sorted(map(str, pending))


def test_another_strategy_chooses_by_its_name(smoke_seeds, tmp_path):
    shutil.copytree(smoke_seeds, tmp_path / "study")
    path = tmp_path / "study" / "study.yaml"
    document = yaml.safe_load(path.read_text())
    document["learning"]["strategy"] = "variance"
    path.write_text(yaml.safe_dump(document))
    study = Study.open(path, adopt=True)
    study.suggest(3)
    plan = study.findings.event("plan:1")
    assert [why["why"] for why in plan["suggestions"]] == ["variance"] * 3
    assert all("strategy variance" in why["explanation"]["why"] for why in plan["suggestions"])


def test_shares_of_a_gain_are_of_the_hypervolume_that_is_noted_beside_them(smoke_seeds, tmp_path):
    shutil.copytree(smoke_seeds, tmp_path / "study")
    study = Study.open(tmp_path / "study" / "study.yaml")
    study.suggest(3)
    plan = study.findings.event("plan:1")
    assert plan["hypervolume"] >= study.findings.hypervolume(study.findings.loop_points())
    for why in plan["suggestions"]:
        assert why["explanation"]["gain_share"] == pytest.approx(why["expected_gain"] / plan["hypervolume"])


def test_the_configuration_knows_every_strategy():
    assert set(Strategy.__args__) == set(STRATEGIES)


def test_the_predicted_front_says_how_sure_it_is_and_what_clocks_per_exit_bring(own_seeds):
    done = hadas("search", own_seeds, "--clocks-per-exit", "--switching-ms", 0, "--switching-mj", 0)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "a change costs 0 ms and 0 mJ" in said
    # What the gain is a gain over is shown, and what kind of figure stands there.
    assert said.index("predicted front, one setting per design") < said.index(
        "predicted front, clocks per exit"
    )
    assert "the predicted median of every stage's cost" in said
    study = Study.open(own_seeds)
    found, chances = study.search(), journalled_confidence(study)
    assert len(chances) == len(found.front)
    assert all(0.0 <= chance <= 1.0 for chance in chances)
    assert max(chances) > 0.5
    assert [row.probability_non_dominated for row in predicted_rows(study)] == chances
    assert [1 - row.accuracy for row in predicted_rows(study)] == [c.objectives[0] for c in found.front]
    # Free changes of clocks can only help, and dear ones bring nothing.
    free, dear = (exit_clock_front(study, silent, SwitchingCost(cost, cost)) for cost in (0.0, 1e9))
    assert free.hypervolume >= free.single_hypervolume
    assert free.single_members == dear.single_members
    assert not any(member.n_changes for member in free.single_members)
    assert dear.hypervolume == pytest.approx(dear.single_hypervolume)
    refused = hadas("search", own_seeds, "--clocks-per-exit")
    assert (refused.returncode, "--switching-ms and --switching-mj" in " ".join(refused.stderr.split())) == (
        2,
        True,
    )


def test_the_predicted_front_shows_what_is_limited_and_names_its_figures(own_seeds, tmp_path):
    path = shutil.copytree(own_seeds.parent, tmp_path / "study") / own_seeds.name
    document = yaml.safe_load(path.read_text())
    document["search"]["constraints"] = {"max_latency_ms": 1000.0}
    document["search"]["overrides"] = {"statistic": "quantile", "quantile": 0.8, "draws": 2}
    path.write_text(yaml.safe_dump(document))
    study = Study.open(path, adopt=True)
    outlook = FrontOutlook.of(study, silent)
    assert predicted_columns(study, outlook) == [
        "accuracy, % (20 % quantile)",
        "energy, mJ (80 % quantile)",
        "latency, ms (median)",
        "meets constraints",
    ]
    first = predicted_front_rows(study, outlook)[0]
    assert first[-2:] == [f"{outlook.latency_ms[0]:.3g}", f"{outlook.probability_feasible[0]:.0%}"]
    assert "latency at most 1000 ms" in predicted_front_note(study)
    # Scores do not say what a user pays: accuracy and energy stand beside them.
    document["search"] |= {"constraints": {}, "overrides": {"objective": "hadas-code"}}
    path.write_text(yaml.safe_dump(document))
    del study
    gc.collect()
    study = Study.open(path, adopt=True)
    outlook = FrontOutlook.of(study, silent)
    assert predicted_columns(study, outlook) == [
        "exits' accuracy, %",
        "exits' energy, mJ",
        "exits' latency, ms",
        "accuracy, % (median)",
        "energy, mJ (median)",
    ]
    assert predicted_front_rows(study, outlook)[0][-2] == f"{100 * outlook.accuracy[0]:.1f}"
