"""Devices from the command line: listing them, measuring on one, a study on several or on a log."""

import gzip
import hashlib
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from hadas.datasets.logs.jsonl import read_records
from hadas.datasets.records import Truth
from hadas.errors import ConfigError
from hadas.measurement.farm import opening
from hadas.measurement.farm.devices import HostCpuConfig
from hadas.measurement.hardware.measuring.protocol import PROTOCOLS, QUICK
from hadas.measurement.hardware.measuring.runner import MeasuredDevice
from hadas.spaces import mini_space
from hadas.study import Study
from hadas.study.config import template, validate_config

from ..measurement.agent.trees import build_tx2
from ..measurement.virtual_rig import VirtualRig
from .running import hadas


@pytest.fixture(autouse=True)
def own_leases(tmp_path_factory, monkeypatch):
    """Leases of this machine's devices are the user's; tests keep theirs apart."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_host_networks_are_measured_into_a_log_which_continues(tmp_path):
    log = tmp_path / "host.jsonl"
    command = ("measure", "--device", "host", "--space", "mini", "--networks", "m0,smallest", "--protocol", "quick",
               "--log", log)  # fmt: skip
    once = hadas(*command)
    assert once.returncode == 0, once.stderr
    rows = read_records(log)
    assert {row.truth for row in rows} == {Truth.DEVICE}
    assert all(row.latency_ms.value > 0 and len(row.stages) == 5 for row in rows if row.valid)
    again = hadas(*command, "--repeat", "2")
    # On a machine with other things to do rows are invalid, which is said instead.
    assert again.stdout.count("measured again") + again.stdout.count("nothing to compare") >= 2
    assert read_records(log)[: len(rows)] == rows
    other = hadas(*command, "--program", "prefix")
    assert other.returncode == 2
    assert "name another log" in other.stderr


BOARD_SCRIPT = Path(__file__).parents[1] / "measurement" / "agent" / "serve_fake_board.py"


def test_power_readings_are_kept_beside_the_rows(tmp_path, monkeypatch):
    (tmp_path / "light").mkdir()
    (tmp_path / "light" / "torch.py").write_text(
        "__version__ = '0'\n"
    )  # the real one takes seconds to import
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "light"))
    agent = [sys.executable, str(BOARD_SCRIPT), str(build_tx2(tmp_path / "tx2")), "--"]
    board = {"kind": "jetson", "agent": agent, "engine": "onnxruntime", "processor": "cpu"}
    board |= {"allow_dvfs": True, "domains": {"cpu": ["cpu0"]}}
    (tmp_path / "lab.yaml").write_text(yaml.safe_dump({"left": board}))
    protocol = replace(QUICK, n_windows=1, window_s=0.5, window_intervals=1, idle_s=0.6)
    monkeypatch.setitem(PROTOCOLS, "quick", protocol)
    log = tmp_path / "left.jsonl"
    done = hadas("measure", "--device", "left", "--devices", tmp_path / "lab.yaml", "--space", "mini", "--networks", "m0",
                 "--exits", "none", "--protocol", "quick", "--log", log)  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = read_records(log)[0]
    assert row.valid, row.reason
    content = (tmp_path / "left.power" / row.evidence.raw_file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == row.evidence.raw_sha256
    header, *lines = gzip.decompress(content).decode().splitlines()
    assert "VDD_IN [W]" in header
    assert {line.partition(",")[0] for line in lines} >= {"idle"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--device host"),
        (["--device", "hots"], "did you mean 'host'"),
        (["--device", "host", "--program", "whole"], "stages or prefix"),
        (["--device", "host", "--protocol", "fast"], "known are full, quick"),
        (["--device", "host", "--networks", "a9"], "no network 'a9'"),
        (["--device", "host", "--clocks", "gpu=1300500000"], "must be max, min, all"),
        (["study.yaml", "--device", "cuda"], "--compute cuda"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, said):
    done = hadas("measure", *arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_devices_are_listed_with_their_holder(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text("desk: {kind: host-cpu}\n")
    with opening.leases_of(path).hold("desk", owner="somebody"):
        listed = hadas("devices", "--devices", path)
        checked = hadas("devices", "--devices", path, "--check")
    assert listed.returncode == 0
    assert "somebody" in listed.stdout
    assert "left alone" in checked.stdout
    opening.leases_of(path).quarantine("desk", "smoke came out")
    listed = " ".join(hadas("devices", "--devices", path).stdout.split())
    assert "QUARANTINE: smoke" in listed
    assert "--release desk" in re.sub(r"[^\w./-]+", " ", listed)
    released = hadas("devices", "--devices", path, "--release", "desk")
    assert "QUARANTINE" not in released.stdout
    assert hadas("devices", "--release", "desk").returncode == 2


def study_on(tmp_path, study, **device):
    document = yaml.safe_load(template("study.yaml", "smoke")) | {"study": study, "baselines": False}
    document["device"] |= device
    document["learning"] |= {"seed_backbones": 3}
    path = tmp_path / f"{study}.yaml"
    path.write_text(yaml.safe_dump(document))
    return Study.open(path)


@dataclass(frozen=True)
class Board:
    """A device of a farm whose rig is made of arithmetic."""

    name: str
    device: MeasuredDevice

    def check(self):
        """It is always well."""


def test_a_study_on_several_devices_and_its_replay(tmp_path):
    study = study_on(tmp_path, "farm", kind="host-cpu")
    rigs = {name: VirtualRig(space=study.parts.space) for name in ("left", "right")}
    boards = [
        Board(name, MeasuredDevice(rig, QUICK, space=study.parts.space, n_classes=10, clock=rig.clock))
        for name, rig in rigs.items()
    ]
    study.parts.device = opening.SeveralDevices(boards, opening.leases_of(tmp_path / "lab.yaml"))
    study.measure()
    rows = study.findings.cost_rows(0)
    assert {row.session for row in rows} == {"farm/0@left", "farm/0@right"}
    planned = study.findings.event("plan:0")["designs"]
    n_points = len(study.findings.points(0))
    assert {row.reason for row in rows} == {""}
    assert (n_points, len({(row.backbone, row.requested) for row in rows})) == (len(planned), len(planned))
    assert Study.open(study.path).findings.n_measured_rounds == 1

    done = hadas("logs", "export", study.path, "-o", tmp_path / "rows.jsonl")
    assert done.returncode == 0, done.stderr
    replay = study_on(tmp_path, "again", kind="replay", log="rows.jsonl")
    replay.measure()
    assert {row.truth for row in replay.findings.cost_rows(0)} == {Truth.REPLAY}
    # Which clocks the seeds are tried at is drawn anew, and the log does not hold every pair of them.
    answered = [row for row in replay.findings.cost_rows(0) if row.valid]
    assert len(replay.findings.points(0)) == len(answered) >= 3
    assert all("recorded" in row.reason for row in replay.findings.cost_rows(0) if not row.valid)


def test_one_processor_is_measured_on_once_at_a_time(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text("left: {kind: host-cpu}\nright: {kind: host-cpu, threads: 2}\n")
    measure = ("measure", "--space", "mini", "--networks", "m0", "--protocol", "quick", "--devices", path)
    both = hadas(*measure, "--device", "left,right")
    assert "are both the CPU of" in both.stderr
    with opening.hold_devices(["host"], None, QUICK, space=mini_space(), n_classes=10):
        other = hadas(*measure, "--device", "left")
    assert other.returncode == 2
    assert "device 'the CPU of" in other.stderr


def test_a_study_says_what_its_device_lacks():
    good = {"kind": "jetson", "name": "left", "devices": "lab.yaml"}
    assert validate_config({"device": good}, source="s").device.names == ("left",)
    for device, said in (
        ({"kind": "jetson"}, "needs 'devices'"),
        ({"kind": "replay"}, "'log'"),
        ({"kind": "simulator", "log": "x.jsonl"}, "go together"),
        ({"kind": "simulator", "devices": "lab.yaml"}, "no use for 'devices'"),
        ({"kind": "simulator", "protocol": "quick"}, "no use for 'protocol'"),
        ({"kind": "jetsen"}, "jetsen"),
    ):
        with pytest.raises(ConfigError, match=said):
            validate_config({"device": device}, source="s")


def test_a_limit_on_energy_that_is_not_counted_is_refused_before_anything_is_trained(tmp_path):
    path = study_on(tmp_path, "mine", kind="host-cpu").path
    document = yaml.safe_load(path.read_text())
    document["search"]["constraints"] = {"max_energy_mj": 5.0}
    path.write_text(yaml.safe_dump(document))
    study = Study.open(path)
    rig = VirtualRig(space=study.parts.space, energy=None)
    study.parts.device = MeasuredDevice(rig, QUICK, space=study.parts.space, n_classes=10, clock=rig.clock)
    with pytest.raises(ConfigError, match="counts no energy; limit 'max_latency_ms'"):
        study.measure()
    assert study.store.study_config("mine") is None
    assert not (tmp_path / "weights").exists()


def test_a_study_refuses_another_machine(tmp_path, monkeypatch):
    study = study_on(tmp_path, "mine", kind="host-cpu")
    study._check_device()
    monkeypatch.setitem(opening.LOCAL_DEVICES, "host", HostCpuConfig(kind="host-cpu", threads=2))
    changed = hadas("measure", study.path)
    assert changed.returncode == 2
    assert "began on another device" in changed.stderr
    assert dict(study.findings.event("device")["target"]["pinned"])["threads"] == "1"
    assert study.store.costs() == ()
