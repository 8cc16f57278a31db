"""Clocks are set as the kernel wants it, verified, and put back, whatever the kernel does."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hadas.measurement.hardware.agent import clocks as clocks_module
from hadas.measurement.hardware.agent.clocks import Clocks, nearest
from hadas.measurement.hardware.agent.journal import Journal, write_range
from hadas.measurement.hardware.agent.problems import AgentError

from .fake_board import FLAVOURS, OVERCURRENT_KHZ, FakeBoard, contents
from .trees import EMC, EMC_CAP, GPU, TX2_CPU_HZ, TX2_EMC_HZ, TX2_GPU_HZ, build_tx2

TABLES = {"gpu": TX2_GPU_HZ, "cpu0": TX2_CPU_HZ, "cpu1": TX2_CPU_HZ, "emc": TX2_EMC_HZ}

several_settings = st.lists(
    st.fixed_dictionaries({}, optional={name: st.sampled_from(table) for name, table in TABLES.items()}),
    min_size=1,
    max_size=3,
)
shared_tree = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def open_clocks(board: FakeBoard, settle_s: float = 1.0) -> tuple[Clocks, Journal]:
    journal = Journal(board, str(Path(board.root) / "var/journal.json"))
    return Clocks(board, journal, pause=lambda seconds: None, settle_s=settle_s), journal


@pytest.fixture
def tree(memory_path):
    return build_tx2(memory_path / "tx2")


@pytest.mark.parametrize("flavour", FLAVOURS)
@given(low=st.sampled_from(TX2_GPU_HZ), high=st.sampled_from(TX2_GPU_HZ), target=st.sampled_from(TX2_GPU_HZ))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_limits_reach_any_target_from_any_start_without_a_refusal(tree, flavour, low, high, target):
    low, high = sorted((low, high))
    shutil.rmtree(tree / ".fake", ignore_errors=True)
    (tree / GPU / "min_freq").write_text(f"{low}\n")
    (tree / GPU / "max_freq").write_text(f"{high}\n")
    board = FakeBoard(str(tree), flavour)

    assert write_range(board, f"{GPU}/min_freq", f"{GPU}/max_freq", f"{target}\n", f"{target}\n")

    assert board.refused == []
    assert (tree / GPU / "min_freq").read_text() == (tree / GPU / "max_freq").read_text() == f"{target}\n"
    # Raising goes upper limit first, lowering lower limit first.
    if target > high or target < low:
        first = "max_freq" if target > high else "min_freq"
        assert board.written[0][0].endswith(first)
    # And back to any pair of limits.
    assert write_range(board, f"{GPU}/min_freq", f"{GPU}/max_freq", f"{low}\n", f"{high}\n")
    assert board.refused == []
    assert int((tree / GPU / "min_freq").read_text()) == low
    assert int((tree / GPU / "max_freq").read_text()) == high


@pytest.mark.parametrize("flavour", FLAVOURS)
@given(wanted=several_settings)
@shared_tree
def test_any_sequence_of_settings_is_verified_and_then_undone(tree, flavour, wanted):
    before = contents(tree)
    board = FakeBoard(str(tree), flavour)
    clocks, journal = open_clocks(board)
    for clocks_hz in wanted:
        result = clocks.set(clocks_hz)
        assert {name: result.actual[name] for name in clocks_hz} == clocks_hz
        assert result.flags == ()
        for name in ("gpu", "cpu0", "cpu1"):
            domain = clocks.domains[name]
            if name in clocks_hz:
                for folder in domain.folders:
                    units = str(clocks_hz[name] // domain.hz_per_unit)
                    assert [board.value(path) for path in domain.limits(folder)] == [units, units]
    assert board.refused == []

    restored = journal.restore()

    assert restored.problems == ()
    assert contents(tree) == before
    assert not Path(journal.path).exists()
    assert board.refused == []


def test_domains_that_are_not_named_are_left_alone(tree):
    board = FakeBoard(str(tree))
    clocks, _ = open_clocks(board)
    clocks.set({"gpu": TX2_GPU_HZ[3]})
    touched = {path for path, _ in board.written}
    assert touched == {f"{GPU}/min_freq", f"{GPU}/max_freq", "sys/devices/17000000.gp10b/railgate_enable"}


@pytest.mark.parametrize(
    ("clocks_hz", "kind", "field"),
    [
        ({"gpu": TX2_GPU_HZ[3], "cpu0": 950_000_000}, "off-table", "clocks_hz.cpu0"),
        ({"gpu": TX2_GPU_HZ[3], "emc": 1_600_000}, "off-table", "clocks_hz.emc"),  # kHz for Hz
        ({"gpu": TX2_GPU_HZ[3], "cpu2": TX2_CPU_HZ[0]}, "bad-request", "clocks_hz.cpu2"),
    ],
)
def test_what_the_board_does_not_list_is_refused_before_anything_is_written(tree, clocks_hz, kind, field):
    before = contents(tree)
    board = FakeBoard(str(tree))
    clocks, journal = open_clocks(board)
    with pytest.raises(AgentError) as refusal:
        clocks.set(clocks_hz)
    assert (refusal.value.kind, refusal.value.field) == (kind, field)
    assert board.written == []
    assert contents(tree) == before
    assert not Path(journal.path).exists()


def test_a_user_is_told_to_be_root_before_anything_is_written(tree):
    before = contents(tree)
    board = FakeBoard(str(tree), faults=("user",))
    clocks, journal = open_clocks(board)
    assert set(clocks.domains) == {"gpu", "cpu0", "cpu1"}  # debugfs is closed
    assert clocks.found.flags == ("emc-not-readable",)
    with pytest.raises(AgentError) as refusal:
        clocks.set({"gpu": TX2_GPU_HZ[0]})
    assert (refusal.value.kind, refusal.value.field) == ("not-writable", f"/{GPU}/min_freq")
    assert contents(tree) == before
    assert not Path(journal.path).exists()
    actual, flags = clocks.read()
    assert actual["cpu0"] == TX2_CPU_HZ[2]
    assert flags == ("unverified:cpu0", "unverified:cpu1")


def test_memory_is_locked_before_its_rate_and_the_cap_leads_up_and_follows_down(tmp_path):
    cap_hz = 1_331_200_000
    tree = build_tx2(tmp_path / "tx2", emc_cap_hz=cap_hz)
    (tree / EMC / "rate").write_text(f"{cap_hz}\n")
    before = contents(tree)
    board = FakeBoard(str(tree))
    clocks, journal = open_clocks(board)
    assert clocks.found.flags == (f"emc-capped:{cap_hz}",)

    def written():
        names = [
            f"{Path(path).name}={text.strip()}" for path, text in board.written if "17000000" not in path
        ]
        board.written.clear()
        return names

    assert clocks.set({"emc": 1_866_000_000}).flags == ()
    assert written() == ["emc_iso_cap=1866000000", "mrq_rate_locked=1", "state=1", "rate=1866000000"]
    assert clocks.set({"emc": 408_000_000}).flags == ()
    assert written() == ["mrq_rate_locked=1", "state=1", "rate=408000000", f"emc_iso_cap={cap_hz}"]
    clocks.set({"emc": 1_866_000_000})
    written()
    assert journal.restore().problems == ()
    assert written() == [f"rate={cap_hz}", f"emc_iso_cap={cap_hz}", "state=1", "mrq_rate_locked=0"]
    assert contents(tree) == before


def test_memory_that_was_locked_before_stays_locked_at_its_rate(tree):
    (tree / EMC / "mrq_rate_locked").write_text("1\n")
    before = contents(tree)
    clocks, journal = open_clocks(FakeBoard(str(tree)))
    clocks.set({"emc": 204_000_000})
    assert journal.restore().problems == ()
    assert contents(tree) == before


@pytest.mark.parametrize(
    ("fault", "clocks_hz", "actual_hz", "flags"),
    [
        (
            "emc-ignores",
            {"emc": 408_000_000},
            1_600_000_000,
            ("emc-ignored", "rounded:emc", "unverified:emc"),
        ),
        (
            "overcurrent",
            {"cpu0": 960_000_000},
            1000 * OVERCURRENT_KHZ,
            ("clamped:cpu0", "overcurrent-suspected:cpu0", "overcurrent-suspected:cpu1", "unverified:cpu0"),
        ),
    ],
)
def test_a_clock_that_is_not_what_was_asked_for_is_read_back_and_flagged(
    tree, fault, clocks_hz, actual_hz, flags, monkeypatch
):
    monkeypatch.setattr(clocks_module, "EMC_S", 0.01)
    before = contents(tree)
    clocks, journal = open_clocks(FakeBoard(str(tree), faults=(fault,)), settle_s=0.05)
    result = clocks.set(clocks_hz)
    (name,) = clocks_hz
    assert result.actual[name] == actual_hz
    assert result.flags == flags
    assert journal.restore().problems == ()
    assert contents(tree) == before


def test_a_clock_that_is_not_pinned_may_lag_behind_what_is_shown_of_it(tree):
    cpufreq = tree / "sys/devices/system/cpu/cpu1/cpufreq"
    (cpufreq / "scaling_cur_freq").write_text(f"{TX2_CPU_HZ[-1] // 1000}\n")
    clocks, _ = open_clocks(FakeBoard(str(tree)))
    assert clocks.read()[1] == ()
    (cpufreq / "cpuinfo_cur_freq").write_text("242000\n")
    (tree / "sys/devices/system/cpu/cpu2/cpufreq/cpuinfo_cur_freq").write_text("242000\n")
    assert clocks.read()[1] == ("overcurrent-suspected:cpu1",)


def test_a_cap_that_somebody_else_holds_shows_as_clamped(tree, monkeypatch):
    monkeypatch.setattr(clocks_module, "EMC_S", 0.01)
    other = tree / "sys/kernel/nvpmodel_clk_cap/emc"
    other.parent.mkdir()
    other.write_text("1331200000\n")
    clocks, _ = open_clocks(FakeBoard(str(tree)), settle_s=0.05)
    result = clocks.set({"emc": 1_866_000_000})
    assert result.actual["emc"] == 1_331_200_000
    assert result.flags == ("clamped:emc", "unverified:emc")
    assert (tree / EMC_CAP).read_text() == "0\n"


def test_a_lost_write_is_repeated_once(tree):
    before = contents(tree)
    clocks, journal = open_clocks(FakeBoard(str(tree), faults=("writes-lost",)))
    assert clocks.set({"gpu": TX2_GPU_HZ[5], "cpu1": TX2_CPU_HZ[0]}).flags == ()
    assert journal.restore().problems == ()
    assert contents(tree) == before


def test_a_governor_that_does_not_follow_is_replaced_and_put_back(tree):
    before = contents(tree)
    clocks, journal = open_clocks(FakeBoard(str(tree), faults=("lazy-governor",)), settle_s=0.05)
    result = clocks.set({"gpu": TX2_GPU_HZ[5], "cpu0": TX2_CPU_HZ[4]})
    assert result.flags == ()
    assert result.actual["gpu"] == TX2_GPU_HZ[5]
    assert (tree / GPU / "governor").read_text() == "performance\n"
    assert (tree / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text() == "schedutil\n"
    assert journal.restore().problems == ()
    assert contents(tree) == before


def test_a_gpu_gated_since_boot_is_powered_up_and_gated_again(tree):
    board = FakeBoard(str(tree), faults=("late-devfreq",))
    gate = tree / "sys/devices/17000000.gp10b/railgate_enable"
    clocks, journal = open_clocks(board)
    assert "gpu" not in clocks.domains
    assert clocks.found.flags == ("gpu-railgated",)

    clocks.power_up()

    assert clocks.domains["gpu"].frequencies_hz == TX2_GPU_HZ
    assert clocks.found.flags == ()
    assert gate.read_text() == "0\n"
    assert clocks.set({"gpu": TX2_GPU_HZ[1]}).flags == ()
    assert journal.restore().problems == ()
    assert gate.read_text() == "1\n"


def test_a_reading_is_a_step_of_the_table_only_if_it_is_near_one():
    orin_cpu_hz = (2_188_800_000, 2_201_600_000)
    assert nearest(2_190_000_000, orin_cpu_hz) == 2_188_800_000
    assert nearest(2_199_000_000, orin_cpu_hz) == 2_201_600_000
    assert nearest(305_999_756, (306_000_000, 408_000_000)) == 306_000_000
    assert nearest(242_000_000, TX2_CPU_HZ) == 242_000_000
