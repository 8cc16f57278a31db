"""The comparison of batch choices: its problems, and what its verdict hangs on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import batch_choice
from batch_choice import Outcome, Repetition, joint_draws, judgement, ours, problem_of


def test_draws_pass_through_what_is_known_and_vary_elsewhere():
    rng = np.random.default_rng(0)
    known, y = rng.random((8, 6)), rng.normal(size=(8, 3))
    x = np.concatenate([known[:3], rng.random((3, 6)) + 2.0])
    draws = joint_draws(x, known, y, 400, rng)
    assert draws[:, :3].mean(axis=0) == pytest.approx(y[:3], abs=1e-2)
    assert draws[:, :3].std(axis=0).max() < 0.01
    assert draws[:, 3:].std(axis=0).min() > 0.6


def test_a_chosen_batch_is_measured_in_worlds_that_the_choice_has_not_seen():
    problem = problem_of(100)
    assert problem.draws.shape == (batch_choice.N_DRAWS, batch_choice.N_POOL, 3)
    assert problem.truths.shape[0] == batch_choice.N_TRUTHS
    assert not (problem.truths[:1] == problem.draws).all(axis=(1, 2)).any()
    found = ours(problem)
    before = problem.reference.hypervolume(problem.measured)
    assert len(set(found.chosen)) == batch_choice.BATCH
    assert (found.hypervolume >= before).all()
    # Better than any eight, by the worlds that decide.
    rng = np.random.default_rng(1)
    some = [rng.choice(batch_choice.N_POOL, batch_choice.BATCH, replace=False) for _ in range(5)]
    assert found.expected > max(batch_choice.after_measuring(problem, rows.tolist()).mean() for rows in some)


def outcome(seconds, volume):
    return Outcome(seconds, seconds + 1.0, (1, 2), np.array([volume, volume + 0.1]))


@pytest.mark.parametrize(
    ("ours_s", "ours_volume", "holds"),
    [(0.1, 2.0, True), (0.1, 2.1, True), (0.7, 2.0, False), (0.1, 1.99, False)],
)
def test_it_holds_only_if_it_is_both_faster_and_as_good(capsys, ours_s, ours_volume, holds):
    results = [
        Repetition(outcome(ours_s, ours_volume), outcome(10.0, 2.0), {"random": 1.0}),
        Repetition(outcome(0.1, 2.0), outcome(4.0, 2.0), {"random": 2.05}),
    ]
    found = judgement(results, [0, 1], quick=True)
    assert found["holds"] is holds
    assert found["figures"]["times_faster"] == pytest.approx(14.0 / (ours_s + 0.1))
    assert found["figures"]["times_faster_with_build"] == pytest.approx(16.0 / (ours_s + 0.1))
    assert found["figures"]["hypervolume_gain_over"]["random"] == pytest.approx(
        (ours_volume + 0.05 - 1.0) / 2
    )
    assert f"{14.0 / (ours_s + 0.1):.0f} times faster" in capsys.readouterr().out
