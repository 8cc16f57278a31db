"""Small things that a reader of the terminal relies on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas.datasets.records import Truth
from hadas.search.report import AccuracySpread
from hadas.study.journal import Check, RoundSummary
from hadas.study.reporting import _spread_in_words
from hadas.study.tables import ranges, round_line


@pytest.mark.parametrize(
    ("numbers", "text"), [((), ""), ((4,), "4"), ((4, 5, 6), "4-6"), ((3, 5, 6, 9), "3, 5-6, 9")]
)
def test_runs_are_drawn_together(numbers, text):
    assert ranges(numbers) == text


@given(st.sets(st.integers(0, 40)))
def test_ranges_name_exactly_the_numbers(numbers):
    named: set[int] = set()
    for part in filter(None, ranges(sorted(numbers)).split(", ")):
        first, _, last = part.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == numbers


def check(quantity: str, predicted: float, measured: float) -> Check:
    return Check(quantity, "a", 1, predicted, predicted - 2.0, predicted + 2.0, sd=1.0, measured=measured)


def test_a_round_counts_what_fell_inside_and_on_which_side():
    """Three of four energies inside their interval; on average half a deviation too low."""
    checks = [check("energy_mj", 5.0, m) for m in (5.0, 6.0, 4.0, 7.5)] + [check("accuracy", 0.5, 0.5)]
    summary = RoundSummary.of_checks(
        checks,
        round=1,
        n_measured=9,
        hypervolume=0.5,
        hypervolume_se=0.1,
        device_seconds=60.0,
        training_seconds=5.0,
    )
    assert summary.coverage_90 == {"energy_mj": 0.75, "accuracy": 1.0}
    assert summary.bias["energy_mj"] == pytest.approx((0.0 + 1.0 - 1.0 + 2.5) / 4)
    assert summary.n_checked == {"energy_mj": 4, "accuracy": 1}
    assert RoundSummary.from_json(summary.to_json()) == summary
    line = round_line(summary, truth=Truth.SIMULATOR)
    assert "energy_mj 75% of 4 (bias +0.6 sd)" in line
    assert "60 s of SIMULATED device" in line


@pytest.mark.parametrize(
    ("spread", "said"),
    [
        (AccuracySpread(0.02, 0.005, 12, 0.3), "4.0 times one measurement's standard error (0.50): enough"),
        (AccuracySpread(0.002, 0.005, 12, 0.3), "too little to search in"),
        (AccuracySpread(0.004, 0.002, 4, 0.003), "No seed backbone is better than guessing"),
        (AccuracySpread(0.0, 0.0, 4, -0.01), "No seed backbone is better than guessing"),
    ],
)
def test_a_spread_is_praised_only_above_chance(spread, said):
    assert said in _spread_in_words(spread)
