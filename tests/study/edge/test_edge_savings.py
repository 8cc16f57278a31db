"""What early exits save, and how it is said, on made-up points."""

from dataclasses import replace

import pytest

from hadas.cli.printing import console, print_table
from hadas.spaces.quantized import edge_space
from hadas.study.edge.findings import EdgeCheck, EdgePoint
from hadas.study.edge.judging import JudgedNetwork
from hadas.study.edge.savings import headline, saving_rows, saving_sentences, savings
from hadas.study.edge.tables import FRONT_COLUMNS, front_sentences, shown_cores, too_few

SPACE = edge_space("mobilenetv2-small")


def judged(accuracy, et, **changes):
    values = {
        "accuracy": accuracy, "accuracy_se": 0.01, "shares": (1.0,), "branch_accuracy": (accuracy,),
        "thresholds": (0.0,), "et_average": et, "et_average_se": 0.0, "energy_mj": 1.0, "latency_ms": 2.0,
        "head_share": 0.1, "et_exits": (1.25 * et,), "et_static": 2.0 * et,
    }  # fmt: skip
    return JudgedNetwork(**{**values, **changes})


def point(number, letters, bits, accuracy, et, *, test=None, heads=1, feasible=True):
    """One trained network; on the test split as on the calibration split, unless said otherwise."""
    network = SPACE.network(letters, head_types=heads, bits=bits, head_bits=bits)
    found = judged(accuracy, et)
    is_static = letters == "K" and heads == 1
    final = found if test is None else judged(test, et)
    return EdgePoint(number, 0, network, found, final, is_static, feasible)


STATIC_32, STATIC_8 = point(1, "K", 32, 0.90, 100.0), point(2, "K", 8, 0.91, 20.0, test=0.88)


def test_networks_without_exits_save_nothing_by_exits():
    """The static network of fewer bits, and one with another final head, are cheaper and as accurate."""
    other_head = point(3, "K", 32, 0.92, 50.0, heads=2)
    for saving in savings([STATIC_32, STATIC_8, other_head]):
        assert saving.bars == [("either way", None)]
    assert headline([STATIC_32, STATIC_8, other_head]) is None


def test_a_saving_is_the_cheapest_network_that_is_accurate_enough():
    points = [
        STATIC_8, point(3, "D,K", 8, 0.91, 18.0), point(4, "F,K", 8, 0.901, 16.0), point(5, "G,K", 8, 0.899, 14.0),
        point(6, "A,K", 8, 0.95, 12.0, feasible=False), point(7, "D,K", 4, 0.95, 10.0), point(8, "I,K", 8, 0.95, 21.0),
    ]  # fmt: skip
    own, any_bits = savings(points)
    assert (own.strict.number, own.within.number, own.same_bits, own.limits_decide) == (3, 4, True, True)
    assert [name for name, _ in own.bars] == ["within 1 se", "strictly"]
    assert own.reduction(own.within)[0] == pytest.approx(1 - 16 / 20)
    assert (any_bits.strict.number, any_bits.within.number, any_bits.same_bits) == (7, 7, False)
    assert any_bits.bars[0][0] == "either way"
    assert not any_bits.limits_decide


def test_the_headline_is_of_own_bits_chosen_before_the_test_split_is_seen():
    early_32, early_8 = point(3, "D,K", 32, 0.90, 70.0), point(4, "D,K", 8, 0.91, 18.0)
    fewer_bits = point(5, "D,K", 4, 0.92, 5.0)
    saving = headline([STATIC_32, STATIC_8, early_32, early_8, fewer_bits])
    # 8 bits are the more accurate on the calibration split, 32 on the test split, where they save more, too.
    assert (saving.static, saving.within) == (STATIC_8, early_8)
    assert headline([STATIC_32, STATIC_8, early_32]).static == STATIC_32


def test_sentences_show_the_accuracy_of_the_test_split_and_what_constraints_decide():
    found = point(3, "D,K", 8, 0.91, 15.0, test=0.86)
    said, _ = saving_sentences([STATIC_8, found], "MODELLED")
    assert "25.0 ± 0.0 % less ET_avg at 86.0 ± 1.0 % (-2.0 points) on the test split" in said
    refused = replace(found, feasible=False)
    said, _ = saving_sentences([replace(STATIC_8, feasible=False), refused], "MODELLED")
    assert "within the constraints is as accurate" in said
    assert "misses the constraints)" in said
    assert saving_rows([STATIC_8, refused])[0][3] == "none within the constraints"
    assert saving_rows([STATIC_8])[0][3] == "none"


def test_reductions_are_told_apart_by_final_head():
    front = [point(1, "D,K", 8, 0.9, 10.0), point(2, "G,K", 8, 0.9, 10.0, heads=2)]
    one, two = front_sentences(front, "MODELLED")
    assert "final head of one layer (1) have 50.0 % less" in one
    assert "20.0 % less than themselves run to the end" in one
    assert "35 to 48 %" in one
    assert "final head of two layers (1)" in two
    assert "35 to 48 %" not in two
    assert front_sentences([STATIC_8], "MODELLED") == []


def test_a_certain_value_puts_no_prediction_to_the_test():
    known = EdgeCheck("et_average", "x", 1, predicted=0.3, low_90=0.3, high_90=0.3, found=0.3)
    assert known.certain
    assert not replace(known, high_90=0.31).certain


@pytest.mark.parametrize(
    ("inside", "n", "few"), [(1, 4, True), (2, 4, False), (3, 4, False), (0, 1, False), (84, 100, True)]
)
def test_too_few_predictions_held(inside, n, few):
    assert too_few(inside, n) == few


def test_bits_and_cores_of_segments_are_one_digit_each():
    bits = (8,) * 5 + (4,) * 6
    network = edge_space("mobilenetv2-small", bits="per-segment").network("K", bits=bits, head_bits=4)
    one = replace(STATIC_8, network=network)
    assert one.bits == "88888444444+4"
    assert shown_cores(one) == "0"
    assert (
        shown_cores(replace(one, network=replace(network, cores=(0,) * 5 + (3,) * 6 + (0,))))
        == "00000333333+0"
    )


def test_a_narrow_terminal_shows_every_digit(capsys, monkeypatch):
    """Long bits go on in the next line; nothing is cut."""
    monkeypatch.setattr(console, "width", 80)
    rows = [
        [
            "static1",
            "A1 B1 C1 K1 at 88888444444+4",
            "90.0 ± 1.0 %",
            "0.123 ± 0.001",
            "50.0 %",
            "10.0 %",
            "9 1 0 90",
        ]
    ]
    print_table("front", FRONT_COLUMNS, rows)
    said = capsys.readouterr().out
    assert "…" not in said
    assert max(map(len, said.splitlines())) == 80
    column = "".join(line.split("│")[2].strip() for line in said.splitlines() if line.startswith("│"))
    assert column.endswith("at88888444444+4")
