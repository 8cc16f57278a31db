import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas.errors import ConfigError, InfeasibleError, StudyError
from hadas.search.constraints import NO_CONSTRAINTS, NOTHING_FOUND, Constraints, Extremes

positive = st.floats(0.01, 100.0)


def test_violation_is_the_sum_of_relative_excesses():
    limits = Constraints(max_latency_ms=20.0, max_energy_mj=50.0, min_accuracy=0.8, max_exits=2)
    # 10 % too slow, energy at its limit, 0.2 of 0.8 too inaccurate, one exit of two too many.
    assert limits.violation(0.6, 50.0, 22.0, 3) == pytest.approx(0.1 + 0.0 + 0.25 + 0.5)
    assert limits.violation(0.8, 50.0, 20.0, 2) == 0.0
    # Where the limit is 0 there is nothing to be relative to.
    assert Constraints(max_exits=0).violation(0.5, 1.0, 1.0, 3) == 3.0


@given(
    st.lists(st.tuples(st.floats(0, 1), positive, positive, st.integers(0, 5)), min_size=1, max_size=8),
    positive,
)
def test_feasible_is_what_keeps_every_limit_in_any_shape(rows, limit_ms):
    limits = Constraints(max_latency_ms=limit_ms, min_accuracy=0.5, max_exits=3)
    accuracy, energy, latency, exits = np.array(rows, dtype=float).T[:, None, :]
    violation = limits.violation(accuracy, energy, latency, exits)
    assert violation.shape == accuracy.shape
    keeps = (latency <= limit_ms) & (accuracy >= 0.5) & (exits <= 3)
    assert np.array_equal(violation == 0, keeps)


def test_energy_may_be_unknown_where_it_is_not_limited():
    assert Constraints(max_latency_ms=5.0).violation(0.9, math.nan, 4.0, 1) == 0.0
    assert not NO_CONSTRAINTS.any
    assert NO_CONSTRAINTS.violation(0.1, math.nan, 1e9, 99) == 0.0
    with pytest.raises(ConfigError, match="counts no energy; limit 'max_latency_ms'"):
        Constraints(max_energy_mj=1.0).check_energy(False)


def test_constraints_say_themselves_in_words():
    assert (
        str(Constraints(max_latency_ms=20, min_accuracy=0.9))
        == "latency at most 20 ms, accuracy at least 0.9"
    )
    assert str(Constraints(max_exits=2, max_energy_mj=7.5)) == "energy at most 7.5 mJ, at most 2 exits"
    assert str(NO_CONSTRAINTS) == "no constraints"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_latency_ms": 0.0}, "'max_latency_ms' = 0.0 ms: must be finite and above 0"),
        ({"max_energy_mj": math.inf}, "'max_energy_mj' = inf mJ"),
        ({"min_accuracy": 92}, "'min_accuracy' = 92: a fraction from 0 to 1; write 0.92"),
        ({"min_accuracy": math.nan}, "'min_accuracy' = nan"),
        ({"max_exits": -1}, "'max_exits' = -1: must not be negative"),
    ],
)
def test_impossible_limits_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        Constraints(**fields)


def test_the_error_names_what_cannot_be_met_and_the_best_found():
    limits = Constraints(max_latency_ms=2.0, max_energy_mj=9.0, min_accuracy=0.95)
    best = Extremes.merged(
        [
            Extremes(0.9, 8.0, 3.0, 0.0),
            Extremes.of([0.7, 0.93], [12.0, 10.0], [2.5, 7.0], [1, 2]),
            NOTHING_FOUND,
        ]
    )
    assert best == Extremes(0.93, 8.0, 2.5, 0.0)
    error = limits.infeasible(best)
    assert isinstance(error, StudyError)
    assert error.constraints == ("latency at most 2 ms", "accuracy at least 0.95")
    assert "latency at most 2 ms (best found: 2.5 ms) nor accuracy at least 0.95 (best found: 0.93)" in str(
        error
    )
    assert "energy" not in str(error)


def test_a_verdict_denies_nothing_that_is_measured():
    limits = Constraints(max_energy_mj=2.4, min_accuracy=0.2)
    searched = Extremes(0.185, 1.945, 1.0, 0.0)
    # Measured: one accurate enough but costly, one cheap but poor.
    measured = limits.attained([0.203, 0.15], [2.9, 2.3], [1.0, 1.0], [1, 1])
    assert measured.others_met.energy_mj == 2.9
    assert measured.others_met.accuracy == 0.15
    error = limits.infeasible(searched, measured)
    assert error.constraints == ("energy at most 2.4 mJ", "accuracy at least 0.2")
    assert "energy at most 2.4 mJ (best found alone: 1.945 mJ; with all others met, measured: 2.9 mJ)" in str(
        error
    )
    assert "accuracy at least 0.2 (best found alone: 0.203; with all others met, measured: 0.15)" in str(
        error
    )
    # Of the measured points alone the same is said, by their own best.
    assert "not met together" in limits.missed_by_all(measured)
    assert "(best found alone: 2.3 mJ; with all others met: 2.9 mJ)" in limits.missed_by_all(measured)
    tighter = Constraints(max_energy_mj=2.0, min_accuracy=0.2)
    measured = tighter.attained([0.203, 0.15], [2.9, 2.3], [1.0, 1.0], [1, 1])
    assert tighter.missed_by_all(measured) == (
        "none meets the constraint energy at most 2 mJ (best measured: 2.3 mJ)"
    )
    assert "together" in str(tighter.infeasible(searched, measured))
    # Nothing is called impossible that a measured design does.
    able = limits.attained([0.21], [2.3], [1.0], [1])
    assert "though a measured one meets them" in str(limits.infeasible(searched, able))


def test_limits_that_are_met_one_by_one_but_not_together_are_all_named():
    limits = Constraints(max_latency_ms=2.0, min_accuracy=0.9)
    error = limits.infeasible(Extremes(0.95, 1.0, 1.5, 0.0))
    assert isinstance(error, InfeasibleError)
    assert error.constraints == ("latency at most 2 ms", "accuracy at least 0.9")
    assert "together" in str(error)
    assert "latency at most 2 ms (best found alone: 1.5 ms)" in str(error)
