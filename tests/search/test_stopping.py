import math

import pytest

from hadas.errors import StudyError
from hadas.search.stopping import RoundProspect, StoppingRule


def prospects(*gains):
    return [RoundProspect(gain, 2.0) for gain in gains]


def test_it_stops_only_after_enough_poor_rounds_in_a_row():
    rule = StoppingRule(min_relative_gain=0.01, rounds=2)
    assert rule.reason([]) is None
    assert rule.reason(prospects(0.001)) is None
    assert rule.reason(prospects(0.001, 0.5, 0.001)) is None
    assert rule.reason(prospects(0.5, 0.02, 0.001)) is None  # exactly 1 % does not fall short
    reason = rule.reason(prospects(0.5, 0.019, 0.001))
    assert "0.950 %, 0.050 %" in reason
    assert "2 round(s)" in reason


def test_while_nothing_counts_yet_it_goes_on():
    assert RoundProspect(0.0, 0.0).relative == math.inf
    assert StoppingRule(rounds=1).reason([RoundProspect(0.0, 0.0)]) is None


def test_a_rule_of_no_gain_never_stops():
    assert StoppingRule(min_relative_gain=0.0, rounds=1).reason(prospects(0.0, 0.0)) is None


def test_bad_rules_are_named():
    with pytest.raises(StudyError, match=r"min_relative_gain = 1\.5"):
        StoppingRule(min_relative_gain=1.5)
    with pytest.raises(StudyError, match="rounds = 0"):
        StoppingRule(rounds=0)
