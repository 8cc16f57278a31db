"""The archive search in worlds that are known whole: what counts as reached, and what the verdict hangs on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import edge_search
from _edge_world import ExitMasks
from edge_search import Run, judgement, run_random, shares_reached

from hadas.search.metrics import HypervolumeReference

REFERENCE = HypervolumeReference(("error", "et", "heads"), (False, True, False), (1.0, 3.0, 1.0))


def test_shares_reached_are_those_of_all_points_until_then():
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(0.1, 0.9, 40), rng.uniform(1.5, 15.0, 40), rng.uniform(0, 1, 40)], axis=1)
    exact = REFERENCE.hypervolume(points)
    found = shares_reached(points, 6, REFERENCE, exact)
    plain = [REFERENCE.hypervolume(points[:k]) / exact for k in range(6, 41)]
    # It ends where the largest share is reached.
    assert plain[len(found) - 1] >= 0.99 > plain[len(found) - 2]
    assert found.tolist() == pytest.approx(plain[: len(found)])


def test_random_choice_does_not_pay_again_for_the_seeds_it_has():
    rng = np.random.default_rng(1)
    points = np.stack([rng.uniform(0.1, 0.9, 30), rng.uniform(1.5, 15.0, 30), rng.uniform(0, 1, 30)], axis=1)
    best = np.array([[0.0, 1.01, 0.0]])  # dominates all, so that a search ends with it
    points = np.concatenate([points, best])
    needed = [run_random(points, np.arange(25), REFERENCE, seed).needed(0.99) for seed in range(40)]
    # Six others are left, the best among them: it comes first as often as last.
    assert set(needed) == {26, 27, 28, 29, 30, 31}


def test_without_the_records_it_says_so_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(edge_search, "RECORDS_FILE", tmp_path / "records.jsonl")
    monkeypatch.setattr(sys, "argv", ["edge_search.py"])
    with pytest.raises(SystemExit, match=r"records\.jsonl is not there"):
        edge_search.main()


def run(*share):
    return Run(np.array(share), 10, 0.9, 1.0)


def test_what_was_not_reached_counts_as_one_evaluation_more_than_were_made():
    assert run(0.5, 0.96, 0.97).needed(0.95) == 11
    assert run(0.5, 0.96, 0.97).needed(0.5) == 10
    assert run(0.5, 0.96, 0.97).needed(0.99) == 13


def test_the_verdict_hangs_on_half_of_random_choice_and_on_mean_only(capsys):
    fast, slow = run(0.9, 0.995), run(*np.linspace(0.1, 0.9, 30), 0.995)
    good = judgement([{"ours": fast, "mean": fast, "random": slow}] * 2, "space", [0, 1], quick=True)
    assert good["holds"]
    assert good["figures"]["evaluations"]["99 %"]["ratio_to_random"] == pytest.approx(11 / 40)
    assert "2 of 2" in capsys.readouterr().out
    no_better = judgement([{"ours": fast, "mean": fast, "random": fast}] * 2, "space", [0, 1], quick=True)
    assert no_better["fails"] == ["to 95 %: 1.000 of random's", "to 99 %: 1.000 of random's"]
    behind = judgement(
        [{"ours": run(*[0.1] * 5, 0.995), "mean": fast, "random": slow}] * 2, "s", [0, 1], quick=True
    )
    assert behind["fails"] == ["to 95 %: mean-only needs fewer", "to 99 %: mean-only needs fewer"]


@pytest.mark.parametrize(("n_seeds", "fails"), [(2, []), (10, ["to 99 %: mean-only needs fewer"])])
def test_two_seeds_that_happen_to_agree_prove_nothing(n_seeds, fails):
    mean, slow = run(0.96, 0.97, 0.995), run(*np.linspace(0.1, 0.9, 60), 0.995)
    ours = [run(*[0.96] * k, 0.995) for k in (7, 8)]  # 5 and 6 evaluations more than mean-only
    results = [{"ours": ours[i % 2], "mean": mean, "random": slow} for i in range(n_seeds)]
    assert judgement(results, "space", range(n_seeds), quick=False)["fails"] == fails


def test_a_genome_is_its_networks_exits_and_finds_its_row():
    space = ExitMasks("BDI", (0, 1, 2))
    assert len(space.genomes) == 27
    assert np.array_equal(space.rows(space.genomes), np.arange(27))
    network = space.decode(np.array([1, 0, 2]))
    assert network.letters == "B,I,K"
    assert [network.heads[i] for i in network.exits] == [1, 2, 1]
