"""Whatever ends the agent, the next one puts every file back."""

import itertools
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from hadas.measurement.hardware.agent import clocks, journal
from hadas.measurement.hardware.agent.clocks import Clocks
from hadas.measurement.hardware.agent.journal import BOOT_ID, HOME_PLACE, PLACE, Journal
from hadas.measurement.hardware.agent.lock import BoardLock
from hadas.measurement.hardware.agent.main import main
from hadas.measurement.hardware.agent.problems import AgentError
from hadas.measurement.hardware.agent.sysfs import SysFs

from .fake_board import FLAVOURS, FakeBoard, contents
from .trees import GPU, TX2_CPU_HZ, TX2_EMC_HZ, TX2_GPU_HZ, build_tx2

CAP_HZ = 1_331_200_000
JOURNAL = "var/journal.json"


@pytest.fixture
def tree(memory_path):
    root = build_tx2(memory_path / "tx2", emc_cap_hz=CAP_HZ)
    (root / "sys/kernel/debug/bpmp/debug/clk/emc/rate").write_text(f"{CAP_HZ}\n")
    return root


def a_session(board: FakeBoard) -> None:
    """Raise every clock from where it is, lower every one, and restore."""
    journal = Journal(board, board.full(JOURNAL))
    clocks = Clocks(board, journal, pause=lambda seconds: None, settle_s=0.0)
    clocks.set({"gpu": TX2_GPU_HZ[-1], "cpu1": TX2_CPU_HZ[-1], "emc": TX2_EMC_HZ[-1]})
    clocks.set({"gpu": TX2_GPU_HZ[0], "cpu1": TX2_CPU_HZ[0], "emc": TX2_EMC_HZ[3]})
    assert journal.restore().problems == ()


def killed(act, *arguments) -> bool:
    """Run in a child process; whether it was killed (and not merely done)."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act(*arguments)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def restart(tree: Path, flavour: str, kill_at_write: int = 0) -> tuple[str, ...]:
    """What the next agent does first."""
    board = FakeBoard(str(tree), flavour, kill_at_write=kill_at_write)
    journal = Journal(board, board.full(JOURNAL))
    journal.load()
    restored = journal.restore()
    assert restored.problems == ()
    assert journal.flags == []
    assert board.refused == []
    return restored.files


@pytest.fixture
def clock_of_looks(monkeypatch):
    """Time that passes by looking at it: files of a fake board lag by reads, and however busy the machine is,
    no limit of time may decide how often something is written."""
    looks = itertools.count()
    time = SimpleNamespace(monotonic=lambda: 1e-3 * next(looks), sleep=lambda seconds: None)
    for module in (clocks, journal):
        monkeypatch.setattr(module, "time", time)


@pytest.mark.usefixtures("clock_of_looks")
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_killed_at_any_write_the_next_start_restores_every_file(tree, flavour):
    before = contents(tree)
    rehearsal = FakeBoard(str(tree), flavour)
    a_session(rehearsal)
    n_writes = len(rehearsal.written)
    assert n_writes > 30
    assert contents(tree) == before
    changed = 0
    for write in range(1, n_writes + 1):
        assert killed(a_session, FakeBoard(str(tree), flavour, kill_at_write=write)), write
        changed += contents(tree) != before
        # The first agent after it is killed as well, somewhere in its restoring.
        killed(restart, tree, flavour, 1 + write % 9)
        restart(tree, flavour)
        assert contents(tree) == before, write
        assert not (tree / JOURNAL).exists()
        assert list((tree / "var").iterdir()) == []
    assert changed > n_writes / 2


def test_nothing_is_written_before_its_journal_is_on_disk(tree, monkeypatch):
    """The journal is complete, renamed and synced, folder included, at the moment of every write."""
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    board = FakeBoard(str(tree))
    write_file = board.write_file

    def checked(path: str, text: str) -> None:
        document = json.loads((tree / JOURNAL).read_text())
        listed = {entry[0]: entry[2] for entry in document["body"]["files"]}
        assert path in listed
        assert synced[-1] == str(tree / "var")
        assert synced[-2].startswith(str(tree / JOURNAL))
        write_file(path, text)

    monkeypatch.setattr(board, "write_file", checked)
    originals = contents(tree)
    clocks = Clocks(board, Journal(board, board.full(JOURNAL)), pause=lambda seconds: None, settle_s=0.0)
    clocks.set({"gpu": TX2_GPU_HZ[4], "emc": TX2_EMC_HZ[-1]})
    clocks.set({"cpu0": TX2_CPU_HZ[4], "gpu": TX2_GPU_HZ[6]})
    assert len(board.written) > 10
    listed = json.loads((tree / JOURNAL).read_text())["body"]["files"]
    assert all(originals[path] == text for path, _, text in listed)


def test_an_unfinished_journal_is_worthless_and_harmless(tree):
    board = FakeBoard(str(tree))
    (tree / "var").mkdir()
    (tree / f"{JOURNAL}.new").write_text('{"version": 1, "body": {"boo')
    journal = Journal(board, board.full(JOURNAL))
    journal.load()
    assert journal.restore().files == ()
    a_session(board)
    assert list((tree / "var").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "changed", "other"])
def test_a_damaged_journal_forbids_every_write_until_it_is_set_aside(tree, damage, capsys):
    board = FakeBoard(str(tree))
    clocks = Clocks(board, Journal(board, board.full(JOURNAL)), pause=lambda seconds: None, settle_s=0.0)
    clocks.set({"gpu": TX2_GPU_HZ[4]})
    text = (tree / JOURNAL).read_text()
    damaged = {"truncated": text[:-9], "changed": text.replace("114750000", "114750001"), "other": "[1, 2]"}
    (tree / JOURNAL).write_text(damaged[damage])
    n_written = len(board.written)
    for _ in range(2):  # it is as true for the next agent
        journal = Journal(board, board.full(JOURNAL))
        journal.load()
        assert journal.flags == ["journal-corrupt"]
        assert journal.restore().files == ()
        clocks = Clocks(board, journal, pause=lambda seconds: None, settle_s=0.0)
        with pytest.raises(AgentError, match=r"cannot be read.*no clock was changed"):
            clocks.set({"gpu": TX2_GPU_HZ[5]})
        assert (tree / JOURNAL).read_text() == damaged[damage]
    assert len(board.written) == n_written
    assert main(["restore", "--journal", board.full(JOURNAL)], board) == 0
    assert json.loads(capsys.readouterr().out)["flags"] == ["journal-corrupt"]
    assert len(board.written) == n_written
    assert (tree / f"{JOURNAL}.corrupt").read_text() == damaged[damage]
    clocks = Clocks(board, Journal(board, board.full(JOURNAL)), pause=lambda seconds: None, settle_s=0.0)
    clocks.journal.load()
    assert clocks.set({"gpu": TX2_GPU_HZ[5]}).flags == ()


def test_after_a_reboot_the_kernel_has_restored_everything_itself(tree):
    boot = tree / BOOT_ID
    boot.parent.mkdir(parents=True)
    boot.write_text("one\n")
    board = FakeBoard(str(tree))
    clocks = Clocks(board, Journal(board, board.full(JOURNAL)), pause=lambda seconds: None, settle_s=0.0)
    clocks.set({"gpu": TX2_GPU_HZ[4]})
    boot.write_text("two\n")
    (tree / GPU / "min_freq").write_text("318750000\n")  # another power mode since
    journal = Journal(board, board.full(JOURNAL))
    journal.load()
    assert journal.restore().files == ()
    assert journal.flags == ["rebooted"]
    assert (tree / GPU / "min_freq").read_text() == "318750000\n"
    assert not (tree / JOURNAL).exists()


def test_what_cannot_be_put_back_stays_in_the_journal(tree):
    before = contents(tree)
    board = FakeBoard(str(tree))
    clocks = Clocks(board, Journal(board, board.full(JOURNAL)), pause=lambda seconds: None, settle_s=0.0)
    clocks.set({"gpu": TX2_GPU_HZ[4], "cpu1": TX2_CPU_HZ[4]})
    core = tree / "sys/devices/system/cpu/cpu2"
    (core / "cpufreq").rename(core / "away")  # the core goes offline
    again = Journal(board, board.full(JOURNAL))
    again.load()
    restored = again.restore()
    assert any("cpu2/cpufreq" in problem and "ENOENT" in problem for problem in restored.problems)
    assert (tree / GPU / "max_freq").read_text() == f"{TX2_GPU_HZ[-1]}\n"  # the rest is as it was
    # A new session in between does not make today's clocks the ones to go back to.
    again.remember([(f"{GPU}/min_freq", "low")])
    (core / "away").rename(core / "cpufreq")
    restart(tree, "4.9")
    assert contents(tree) == before


def test_a_journal_that_cannot_be_written_forbids_every_write(tree):
    before = contents(tree)
    board = FakeBoard(str(tree))
    (tree / "var").write_text("a file where the folder should be")
    clocks = Clocks(board, Journal(board, board.full(JOURNAL)), pause=lambda seconds: None, settle_s=0.0)
    with pytest.raises(AgentError, match="no clock was changed") as refusal:
        clocks.set({"gpu": TX2_GPU_HZ[4]})
    assert "--journal" in refusal.value.remedy
    assert board.written == []
    assert contents(tree) == before


def pinned(tree: Path, journal: Path) -> None:
    """What an agent does that is killed afterwards."""
    board = FakeBoard(str(tree))
    Clocks(board, Journal(board, str(journal)), pause=lambda seconds: None, settle_s=0.0).set(
        {"gpu": TX2_GPU_HZ[4]}
    )


def test_a_journal_restores_only_the_system_that_it_is_of(tree, tmp_path):
    other = build_tx2(tmp_path / "other")
    pinned(other, tmp_path / "journal.json")
    text, before = (tmp_path / "journal.json").read_text(), contents(tree)
    journal = Journal(FakeBoard(str(tree)), str(tmp_path / "journal.json"))
    with pytest.raises(AgentError, match=r"is of the system at .*/other, not of that at .*/tx2"):
        journal.load()
    assert journal.restore().files == ()
    assert contents(tree) == before
    assert (tmp_path / "journal.json").read_text() == text


def test_what_another_user_s_agent_left_behind_is_told(tree, monkeypatch):
    """Its clocks are about to be taken for original."""
    (tree / "etc").mkdir()
    (tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nodd\n")
    boot = tree / BOOT_ID
    boot.parent.mkdir(parents=True)
    boot.write_text("one\n")
    left = tree / "home/ann" / HOME_PLACE
    pinned(tree, left)

    def flags(place: str) -> list[str]:
        board = FakeBoard(str(tree))
        journal = Journal(board, board.full(place))
        journal.load()
        return journal.flags

    assert flags(PLACE) == [f"other-journal:/home/ann/{HOME_PLACE}"]
    assert flags(f"home/ann/{HOME_PLACE}") == []
    monkeypatch.setattr("builtins.open", closed(left))
    assert flags(PLACE) == [f"other-journal:/home/ann/{HOME_PLACE}"]
    monkeypatch.undo()
    boot.write_text("two\n")
    assert flags(PLACE) == []


def closed(path: Path):
    """``open`` for a user to whom one file is closed; root may read them all."""
    really = open

    def opened(name, *arguments, **fields):
        if str(name) == str(path):
            raise PermissionError(13, "permission denied")
        return really(name, *arguments, **fields)

    return opened


def test_limits_that_cooling_holds_down_are_not_taken_for_the_user_s(tree):
    state = tree / "sys/class/thermal/cooling_device0/cur_state"
    state.parent.mkdir()
    (state.parent / "type").write_text("thermal-cpufreq-0\n")
    state.write_text("2\n")
    before = contents(tree)
    board = FakeBoard(str(tree), "5.x", faults=("cooling",))
    clocks = Clocks(board, Journal(board, board.full(JOURNAL)), pause=lambda seconds: None, settle_s=0.0)
    with pytest.raises(
        AgentError, match=r"is being cooled .thermal-cpufreq-0.*no clock was changed"
    ) as refusal:
        clocks.set({"cpu0": TX2_CPU_HZ[2]})
    assert refusal.value.kind == "cooling"  # the host waits
    assert board.written == []
    assert not (tree / JOURNAL).exists()

    # What was journaled before it began is put back, and seen to be once it is over.
    state.write_text("0\n")
    clocks.set({"cpu0": TX2_CPU_HZ[2]})
    state.write_text("2\n")
    clocks.set({"cpu0": TX2_CPU_HZ[3]})
    assert any("scaling_max_freq is 1190400 and was 2035200" in p for p in clocks.journal.restore().problems)
    assert contents(tree) == before
    state.write_text("0\n")
    assert clocks.journal.restore().problems == ()
    assert not (tree / JOURNAL).exists()


def test_one_board_has_one_owner(tree):
    fs, journal = SysFs(str(tree)), str(tree / JOURNAL)
    for may_write in (False, True):
        first = BoardLock(fs, journal, may_write)
        for other in (journal, journal + "2"):
            with pytest.raises(AgentError, match="another agent") as refusal:
                BoardLock(fs, other, may_write)
            assert refusal.value.kind == "busy"
        assert (tree / f"{JOURNAL}.lock").exists() is may_write
        first.release()
        BoardLock(fs, journal, may_write).release()


def test_a_container_with_a_sysfs_of_its_own_is_told_apart_by_the_journal_s_folder(tree, tmp_path):
    """One board, whose sysfs is mounted twice: the inodes of its root differ, as those of two folders."""
    journal = str(tmp_path / "journal.json")
    again = build_tx2(tmp_path / "again")
    first = BoardLock(SysFs(str(tree)), journal, may_write=True)
    for may_write in (False, True):
        with pytest.raises(AgentError, match="another agent"):
            BoardLock(SysFs(str(again)), journal, may_write)
    first.release()
    BoardLock(SysFs(str(again)), journal, may_write=True).release()
