"""tegrastats: what every board prints is read for what it is, and nothing is read for what it is not."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas.datasets.logs.readings import SensorState
from hadas.datasets.logs.tegrastats import parse_line
from hadas.errors import RecordError

from .lines_of_boards import LINES, untraceable

FIXTURES = Path(__file__).resolve().parents[4] / "shared" / "fixtures" / "jetson" / "tegrastats"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"no recorded lines at {FIXTURES}")


def fixture_line(name: str) -> str:
    return (FIXTURES / f"{name}.log").read_text().rstrip("\n")


TOTALS = {
    "tx2_l4t32_root_denver_off": ("VDD_IN", 3056, 3056),
    "agx_xavier_l4t32_root_4core": ("GPU+CPU+SOC+CV+VDDRQ+SYS5V", 3346, 3346),
    "xavier_nx_l4t32_root": ("VDD_IN", 4067, 4067),
    "nano_l4t32_root": ("POM_5V_IN", 1022, 1022),
    "orin_nx_jp5_root_mw": ("VDD_IN", 5299, 5299),
    "agx_orin_r36_root": ("VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0", 12377, 12377),
    "agx_orin_user_mode": ("VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0", 4940 + 988 + 4442, 4940 + 988 + 4442),
    "tx1_l4t28": ("VDD_IN", 2532, 2698),
}


@needs_fixtures
@pytest.mark.parametrize("name", TOTALS)
def test_recorded_lines_give_the_totals_that_are_stated_of_them(name):
    record = parse_line(fixture_line(name))
    assert (record.total.label, record.total.instant_mw, record.total.average_mw) == TOTALS[name]
    assert untraceable(fixture_line(name), record) == []


@needs_fixtures
def test_every_recorded_line_is_covered():
    assert {path.stem for path in FIXTURES.glob("*.log")} == set(TOTALS)


@needs_fixtures
def test_tx2_rails_and_the_denver_cores_that_are_off():
    record = parse_line(fixture_line("tx2_l4t32_root_denver_off"))
    instant = {rail.label: rail.instant_mw for rail in record.rails}
    assert instant == {
        "VDD_SYS_GPU": 152, "VDD_SYS_SOC": 687, "VDD_SYS_CPU": 152, "VDD_SYS_DDR": 883, "VDD_4V0_WIFI": 0, "VDD_IN": 3056,
    }  # fmt: skip
    assert [core.online for core in record.cores] == [True, False, False, True, True, True]
    assert record.cores[1].clock_hz is None
    assert (record.emc_hz, record.gpu_hz) == (1_600_000_000, 624_000_000)


@needs_fixtures
def test_gpu_is_a_rail_and_a_temperature_on_agx_xavier():
    record = parse_line(fixture_line("agx_xavier_l4t32_root_4core"))
    assert record.rail("GPU").instant_mw == 0
    assert next(t for t in record.temperatures if t.name == "GPU").celsius == 37.5
    assert record.rail("CPU").instant_mw == 311
    assert len(record.cores) == 8
    assert record.hottest_c == 40.0, "the PMIC's 100 C is a constant of the firmware"


@needs_fixtures
def test_engines_of_jetpack_6():
    record = parse_line(fixture_line("agx_orin_r36_root"))
    assert record.gpu.clocks_hz == (305_000_000, 305_000_000)
    assert record.engine("NVENC").is_off
    assert record.engine("NVENC").clocks_hz == ()
    assert record.engine("APE").clocks_hz == (174_000_000,)


@needs_fixtures
def test_a_user_sees_no_engine_clocks():
    record = parse_line(fixture_line("agx_orin_user_mode"))
    assert record.gpu.load_percent == 0
    assert (record.gpu_hz, record.emc_hz) == (None, None)


def test_forms_of_jetpack_7_and_thor():
    record = parse_line(LINES["thor jp7"])
    assert record.local_time == datetime(2026, 8, 8, 21, 0, 39)
    assert record.gpu.load_percent is None
    assert record.gpu.clocks_hz == (1_000_000_000, 1_001_000_000, 1_002_000_000)
    assert (record.temperatures[0].celsius, record.temperatures[0].second_c) == (52.9, 53.5)
    rail = record.rail("VDD_GPU")
    assert (rail.instant_mw, rail.average_mw, rail.third_mw) == (37939, 8660, 37940)
    assert record.total is None, "nothing published says which rails make up a Thor module"
    shared = parse_line(LINES["thor shared"])
    assert [core.clock_hz for core in shared.cores] == [2_601_000_000, 2_601_000_000, None]
    assert shared.rail("VDD_GPU").third_mw == 6332
    assert (shared.gpu.clocks_hz, shared.gpu_hz) == ((1_300_000_000, 0), 1_300_000_000)


def test_forms_of_l4t_28():
    record = parse_line(LINES["tx2 jp3"])
    assert record.swap.total_kib == 1024 * 1024
    assert record.rail("VDD_DDR").instant_mw == 2702, "comes after engines that stand between the rails"
    assert record.engine("NVENC").clocks_hz == (716_000_000,)
    assert (record.foreground_percent, record.background_percent) == (3, 9)


def test_sentinels_are_told_apart():
    states = {t.name: t.state for t in parse_line(LINES["tx2 jp3"]).temperatures}
    assert states == {
        "BCPU": SensorState.UNREAD, "CV": SensorState.GATED, "PMIC": SensorState.CONSTANT, "GPU": SensorState.LIVE,
    }  # fmt: skip
    assert parse_line(LINES["tx2 jp3"]).hottest_c == 47.0


@pytest.mark.parametrize(
    ("prefix", "epoch_s", "local_time"),
    [
        ("1739645853.5---", 1739645853.5, None),
        ("1739645853 ", 1739645853.0, None),
        ("01-31-2024 17:05:09 ", None, datetime(2024, 1, 31, 17, 5, 9)),
        ("2024-01-31T17:05:09.250 ", None, datetime(2024, 1, 31, 17, 5, 9, 250000)),
    ],
)
def test_time_stamps(prefix, epoch_s, local_time):
    record = parse_line(prefix + "RAM 1/2MB (lfb 1x4MB)")
    assert (record.epoch_s, record.local_time) == (epoch_s, local_time)


REFUSED = {
    "watts": ("VDD_IN 5W/5W", "VDD_IN"),
    "one number with a unit, one without, cannot be told": ("VDD_IN 5299mW/5299", "VDD_IN"),
    "a rail nobody knows, without a unit": ("FOO_RAIL 12/12", "FOO_RAIL"),
    "a rail that lost its slash would be a clock": ("VDD_IN 25322698", "VDD_IN"),
    "an input rail below what it carries": ("POM_5V_IN 1/1 POM_5V_GPU 0/0 POM_5V_CPU 204/204", "POM_5V_IN"),
    "a kilowatt": ("VDD_IN 3056000/3056000", "VDD_IN"),
    "fahrenheit": ("GPU@99F", "GPU"),
    "a temperature without a unit": ("GPU@37.5", "GPU"),
    "hotter than any board": ("GPU@375C", "GPU"),
    "clock in kHz": ("GR3D_FREQ 0%@76800", "GR3D_FREQ"),
    "load above 100": ("GR3D_FREQ 101%@76", "GR3D_FREQ"),
    "gigabytes": ("SWAP 1/2GB", "SWAP"),
    "more used than there is": ("SWAP 3/2MB", "SWAP"),
    "an engine nobody knows": ("FOO 300", "FOO"),
    "a core in another form": ("CPU [1%@102,2@102]", "CPU"),
    "a rail twice": ("VDD_IN 1/1 VDD_IN 2/2", "VDD_IN"),
    "words": ("hello world", "hello"),
    "month 13": ("", "time stamp"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_told_is_refused_by_column(case):
    text, field = REFUSED[case]
    line = f"RAM 1/2MB (lfb 1x4MB) {text}" if text else "13-31-2024 17:05:09 RAM 1/2MB"
    with pytest.raises(RecordError) as refused:
        parse_line(line, source="board.log", row=7)
    assert "board.log, row 7: column" in str(refused.value)
    assert field in refused.value.field
    column = int(refused.value.field.split(",")[0].removeprefix("column "))
    assert line[column - 1 :].startswith((field, "13-31")), "the column is where the field begins"


def test_a_line_without_memory_is_no_line_of_tegrastats():
    with pytest.raises(RecordError, match="RAM"):
        parse_line("VDD_IN 1/1")


# -- damaged lines ---------------------------------------------------------------------------

_PIECES = ["mW", "W", "%", "@", "/", "C", "F", "kHz", "Hz", "MB", "GB", "[", "]", ",", " ", "  ", "off", "0", "9", "99",
           "GPU", "CPU", "VDD_IN", "NVENC", "-", ".", "\x00", "é", "٣", "RAM", "SWAP", "\t", "1e3", "mW/"]  # fmt: skip


_UNITS = ["mW", "C", "MB", "%", "@", "", "W", "uW", "F", "kB", "GB", "kHz"]


def mutated(line: str, rng: random.Random) -> str:
    """A line with one to three of: digits changed, a piece put in, taken out or in place of others, words swapped,
    a unit put in place of another everywhere, the end cut."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, kind = rng.randrange(len(line) + 1), rng.randrange(9)
        if kind < 3:
            digit = re.search("[0-9]", line[at:])
            if digit:
                at += digit.start()
                line = line[:at] + rng.choice(("", "0", "7", "12")) + line[at + 1 :]
        elif kind == 3:
            line = line[:at] + rng.choice(_PIECES) + line[at:]
        elif kind == 4:
            line = line[:at] + line[at + rng.randint(1, 3) :]
        elif kind == 5:
            line = line[:at] + chr(rng.randrange(32, 127)) + line[at + 1 :]
        elif kind == 6:
            words = line.split(" ")
            i, j = rng.randrange(len(words)), rng.randrange(len(words))
            words[i], words[j] = words[j], words[i]
            line = " ".join(words)
        elif kind == 7:
            line = line.replace(rng.choice(_UNITS[:5]), rng.choice(_UNITS), rng.choice((1, -1)))
        elif rng.random() < 0.2:
            line = line[:at]
    return line


def outcome(line: str) -> str:
    """``refused``, ``read``; anything else fails the test."""
    try:
        record = parse_line(line)
    except RecordError:
        return "refused"
    assert untraceable(line, record) == [], line
    return "read"


def test_100_000_damaged_lines_are_refused_or_read_for_what_they_say():
    rng, lines = random.Random(0), list(LINES.values())
    outcomes = Counter(outcome(mutated(lines[i % len(lines)], rng)) for i in range(100_000))
    assert set(outcomes) == {"refused", "read"}
    assert min(outcomes.values()) > 10_000, "a fuzzer that breaks every line, or none, shows nothing"


@given(st.sampled_from(sorted(LINES)), st.data())
def test_any_text_put_into_a_line_is_refused_or_read_for_what_it_says(name, data):
    line = LINES[name]
    at = data.draw(st.integers(0, len(line)))
    text = data.draw(st.text(max_size=8) | st.from_regex(r"[0-9mWC@%/\[\], ]{1,8}", fullmatch=True))
    outcome(line[:at] + text + line[at + data.draw(st.integers(0, 6)) :])


@given(st.text(max_size=200))
def test_any_text_is_refused_or_read(text):
    outcome(text)


@pytest.mark.parametrize("name", LINES)
def test_the_independent_reading_agrees_on_whole_lines(name):
    assert untraceable(LINES[name], parse_line(LINES[name])) == []


def test_the_independent_reading_notices_a_wrong_unit():
    line = LINES["orin jp5"]
    record = parse_line(line)
    rail, engine, sensor, core = record.rails[0], record.engines[1], record.temperatures[0], record.cores[0]
    wrong = {
        "power in uW": replace(record, rails=(replace(rail, instant_mw=rail.instant_mw * 1000), *record.rails[1:])),
        "clock in kHz": replace(record, engines=(replace(engine, clocks_hz=(611_000,)),)),
        "sensor in F": replace(record, temperatures=(replace(sensor, celsius=114.5),)),
        "core in kHz": replace(record, cores=(replace(core, clock_hz=729_000), *record.cores[1:])),
        "memory in kB": replace(record, ram=replace(record.ram, used_kib=6334)),
    }  # fmt: skip
    for what, damaged in wrong.items():
        assert untraceable(line, damaged), what
    assert untraceable(line.replace("5299mW/5200mW", "5299W/5200W"), record), "watts read as milliwatts"
    assert untraceable(line.replace("GR3D_FREQ 0%@611", "GR3D_FREQ 0%@611kHz"), record), "kHz read as MHz"
