"""A budget says where a study stops, and nothing else."""

import math
import shutil

import pytest
import yaml

from hadas.study import Study
from hadas.study.budget import Budget, BudgetSpent, Prices, standing
from hadas.study.ledger import duration
from hadas.study.stopping import stop_reason
from hadas.study.tables import status_rows

from .running import hadas


class Clock:
    """A clock that goes on only where it is told to."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def study_file(smoke_seeds, tmp_path):
    shutil.copytree(smoke_seeds, tmp_path / "study")
    return tmp_path / "study" / "study.yaml"


def changed(path, **learning):
    document = yaml.safe_load(path.read_text())
    document["learning"] |= learning
    path.write_text(yaml.safe_dump(document))
    return path


def with_prices(monkeypatch, **prices):
    for name, value in prices.items():
        monkeypatch.setattr(Prices, name, value)


def test_jobs_are_begun_by_halves_of_what_fits(study_file, monkeypatch):
    """Of 1000 s, 20 are kept for the report; jobs of 100 s, two at a time."""
    with_prices(monkeypatch, backbone_s=100.0, n_workers=2, spent_s=lambda self: 0.0)
    clock = Clock()
    budget = Budget(Study.open(study_file), 1000.0, clock)
    assert [budget.n_jobs(100), budget.n_jobs(3)] == [8, 3]  # 9 turns fit, 4 are begun
    clock.seconds = 870.0
    assert budget.n_jobs(100) == 2
    clock.seconds = 881.0
    with pytest.raises(BudgetSpent, match="the next accuracy job") as spent:
        budget.n_jobs(100)
    assert spent.value.needs_s == 100.0


@pytest.mark.parametrize(("budget_s", "n"), [(10_000.0, 4), (700.0, 3), (430.0, 3), (420.0, None)])
def test_seeds_take_half_of_the_budget_and_are_three_at_least(study_file, monkeypatch, budget_s, n):
    """Four are configured, at 100 s each with two points of 20 s; 2 % are kept for the report."""
    with_prices(monkeypatch, backbone_s=100.0, n_workers=1, point_s=20.0, spent_s=lambda self: 0.0)
    budget = Budget(Study.open(study_file), budget_s, Clock())
    if n is None:
        with pytest.raises(BudgetSpent, match="3 seed backbones"):
            budget.n_seeds()
    else:
        assert budget.n_seeds() == n


def test_fewer_seeds_are_written_down_with_the_plan(study_file, monkeypatch):
    with_prices(monkeypatch, backbone_s=100.0, n_workers=1, spent_s=lambda self: 0.0)
    document = yaml.safe_load(study_file.read_text())
    second = study_file.parent / "second.yaml"
    second.write_text(yaml.safe_dump({**document, "study": "second"}))
    study = Study.open(second)
    budget = Budget(study, 650.0, Clock())
    assert study.store.study_config("second") is None  # a budget alone begins no study
    study.measure(budget=budget)
    assert Budget.journalled(study) == 650.0
    plan = study.findings.event("plan:0")
    assert plan["n_backbones"] == 3
    assert len({str(design["backbone"]) for design in plan["designs"]}) == 3
    assert len(plan["designs"]) == 6
    assert study.findings.n_measured_rounds == 1


@pytest.fixture(scope="module")
def whole(own_seeds):
    """A study that did its one round in one go."""
    study = Study.open(own_seeds)
    list(study.run())
    return study


def test_a_study_that_a_budget_stopped_measures_the_same_as_one_in_one_go(study_file, whole, monkeypatch):
    """It stops between two cost rows, then after a round, and each time goes on where it stopped."""
    with_prices(monkeypatch, spent_s=lambda self: 0.0, round_s=50.0, planning_s=0.0)
    study, clock = Study.open(study_file), Clock()
    add_cost = study.store.add_cost

    def add(record):
        add_cost(record)
        clock.seconds = 99.0

    monkeypatch.setattr(study.store, "add_cost", add)
    budget = Budget(study, 100.0, clock)
    assert [summary.round for summary in study.run(budget=budget)] == [0]
    assert budget.stopped.step == "the next cost row"
    assert "stopped before the next cost row: 99 s of the budget of 100 s are spent" in budget.verdict()
    assert study.findings.n_planned_rounds == 2
    assert len(study.findings.cost_rows(1)) == 1

    study = Study.open(study_file)
    budget = Budget(study, 40.0, Clock())  # enough to finish this round, not for another
    running = study.run(budget=budget)
    assert next(running).round == 0
    assert len(study.findings.cost_rows(1)) == 1  # what was known is shown before anything is measured
    assert [summary.round for summary in running] == [1]
    assert budget.stopped.step == "the next round"
    assert "takes about 50 s" in budget.verdict()
    assert "--budget 103s would buy about 2 rounds of 2 points (50 s each), or" in budget.verdict()
    assert [p.outcome for p in study.findings.points(1)] == [p.outcome for p in whole.findings.points(1)]
    assert study.findings.event("budget:0") == {"budget_s": 100.0}
    assert study.findings.event("budget:1") == {"budget_s": 40.0}


def test_spent_kept_and_left_add_up_and_no_round_is_promised_before_one_is_planned(study_file, monkeypatch):
    with_prices(monkeypatch, backbone_s=40.0, n_workers=1, spent_s=lambda self: 19.0)
    study = Study.open(study_file)
    unknown = "rounds of 2 points (how many is known once one is planned)"
    assert standing(study, 60.0) == (
        "19 s of 60 s spent, 1.2 s kept for the report, 39.8 s left: "
        + unknown
        + ", or no backbones with 2 points each"
    )
    assert standing(study, 19.1) == "19 s of 19.1 s spent, 0.1 s kept for the report, 0 s left"
    budget = Budget(study, 60.0, Clock())
    with pytest.raises(BudgetSpent) as spent:
        budget.check_round()  # as if the two points were of new backbones
    budget.stopped = spent.value
    assert "next round, which takes at least 80 s" in budget.verdict()
    study.journal("plan:1", {"designs": [], "predictions": [], "seconds": 30.0})
    assert "39.8 s left: no whole round of 2 points (110 s each), or" in standing(study, 60.0)


def test_a_training_that_is_cut_short_says_what_is_left_of_it(study_file, monkeypatch):
    """Of 100 steps, the first ten of this sitting took 9.9 s: the other 80 take 79.2."""
    clock = Clock()
    monkeypatch.setattr(Prices, "spent_s", lambda self: 0.0)
    budget = Budget(Study.open(study_file), 10.0, clock)
    advance = budget.watching(lambda phase, done, total, note="": None)
    advance("training", 10, 100)
    clock.seconds = 9.9
    with pytest.raises(BudgetSpent, match="the end of the supernet's training") as spent:
        advance("training", 20, 100)
    assert spent.value.needs_s == pytest.approx(79.2)


def test_a_budget_too_small_for_the_training_ends_without_a_report_and_without_an_error(study_file, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    path = shutil.copy(study_file, alone)
    done = hadas("run", path, "--budget", "0.01s")
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert "stopped before the end of the supernet's training, which takes about " in said
    assert "is about enough for that; what the seeds take is known once some are measured" in said
    assert "no report is written: the seeds are not measured yet" in said
    assert "writing the report" not in said
    assert not (alone / "report.html").exists()


def test_what_is_spent_is_what_rows_and_plans_took(study_file):
    study = Study.open(study_file)
    trained = study.findings.event("supernet")
    jobs = [
        sum(row.seconds.values()) for row in study.store.accuracy_expenses(study.parts.recipes[1].recipe_id)
    ]
    assert len(jobs) == 4
    prices = Prices(study)
    before_s = prices.spent_s()
    assert before_s == pytest.approx(trained["seconds"] + sum(jobs) / prices.n_workers)
    study.journal("plan:1", {"designs": [], "predictions": [], "seconds": 100.0})
    study.journal("time:0", {"seconds": 1000.0})
    assert Prices(study).spent_s() == pytest.approx(before_s + 1100.0)
    # Simulated rows take no time, so what is left buys backbones whatever their points.
    n = int(3600.0 / prices.backbone_s) * prices.n_workers
    assert f"{n} backbones with 2 points each" in prices.buys(3600.0)


def test_a_supernet_that_was_there_is_not_paid_again(study_file):
    document = yaml.safe_load(study_file.read_text())
    second = study_file.parent / "second.yaml"
    second.write_text(yaml.safe_dump({**document, "study": "second"}))
    study = Study.open(second)
    study.train()
    assert study.findings.event("supernet")["found"]
    assert Prices(study).spent_s() == 0.0
    assert not Study.open(study_file).findings.event("supernet")["found"]


def test_the_command_says_where_it_stands_and_writes_the_report(study_file):
    # So little is left that no round fits, however fast the machine.
    budget_s = math.ceil(100.0 * Prices(Study.open(study_file)).spent_s()) / 100.0
    done = hadas("run", study_file, "--budget", f"{budget_s:.2f}s")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "budget: " in said
    assert "stopped before" in said
    assert "The same command with a larger budget goes on from here: --budget" in said
    assert (study_file.parent / "report.html").is_file()
    assert Study.open(study_file).findings.n_planned_rounds == 1
    status = " ".join(hadas("status", study_file).stdout.split())
    assert f"of {duration(budget_s)} spent" in status
    refused = hadas("run", study_file, "--budget", "24")
    assert (refused.returncode, "with its unit" in " ".join(refused.stderr.split())) == (2, True)


def test_the_loop_stops_when_the_best_batch_promises_too_little(study_file, whole):
    """And would go on, with the same batch, if the rule were relaxed."""
    study = Study.open(changed(study_file, stop_gain=0.99, stop_rounds=1))
    list(study.run())
    assert study.findings.n_planned_rounds == 1
    stopped = study.findings.event("stop:0")
    assert 0.0 <= stopped["expected_gain"] < 0.99 * stopped["hypervolume"]
    assert stopped["expected_gain"] == whole.findings.event("plan:1")["expected_gain"]
    status = dict(status_rows(study))
    assert "less than 99 % each" in status["stopped"]
    assert status["next"] == "hadas report"
    keys = study.store.event_keys("smoke")
    list(Study.open(study_file).run())
    assert study.store.event_keys("smoke") == keys
    relaxed = Study.open(changed(study_file, stop_gain=0.0))
    assert stop_reason(relaxed) == ""
    assert dict(status_rows(relaxed))["next"] == "hadas suggest"
