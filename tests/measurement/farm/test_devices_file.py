"""The devices file: what it holds, and what is said of every bad field."""

from __future__ import annotations

from pathlib import Path

import pytest

from hadas.errors import ConfigError
from hadas.measurement.farm import devices as devices_module
from hadas.measurement.farm.devices import (
    CudaConfig,
    HostCpuConfig,
    JetsonConfig,
    SshConfig,
    load_devices,
    with_tag,
)

FULL = """\
tx2-left:
  kind: jetson
  transport: {ssh: tx2-left.lan, user: nvidia, port: 2222, options: {IdentityFile: ~/.ssh/lab}}
  allow_dvfs: true
  sudo: true
  domains: {gpu: [gpu], emc: [emc]}
  pinned: {cpu0: max, cpu1: 345600000}
  engine: trtexec
  dtype: fp16
  agent: [/usr/local/bin/hadas-agent]
  tags: [lab, tx2]
board-here:
  kind: jetson
desk:
  kind: host-cpu
  threads: 2
  tags: [lab]
card:
  kind: cuda
"""


def load(tmp_path: Path, text: str) -> dict[str, devices_module.DeviceConfig]:
    path = tmp_path / "devices.yaml"
    path.write_text(text)
    return load_devices(path)


def complaint(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"devices file {tmp_path / 'devices.yaml'}")
    return message


def test_every_kind_of_device_is_read(tmp_path: Path) -> None:
    devices = load(tmp_path, FULL)
    assert list(devices) == ["tx2-left", "board-here", "desk", "card"]
    left = devices["tx2-left"]
    assert isinstance(left, JetsonConfig)
    assert left.transport == SshConfig(
        ssh="tx2-left.lan", user="nvidia", port=2222, options={"IdentityFile": "~/.ssh/lab"}
    )
    assert left.settings.domains == {"gpu": ("gpu",), "emc": ("emc",)}
    assert left.settings.pinned == {"cpu0": "max", "cpu1": 345_600_000}
    assert (left.settings.engine, left.settings.dtype, left.settings.processor) == ("trtexec", "fp16", "gpu")
    assert left.agent == ("/usr/local/bin/hadas-agent",)
    here = devices["board-here"]
    assert isinstance(here, JetsonConfig)
    assert (here.transport, here.allow_dvfs, here.sudo) == ("local", False, False)
    assert devices["desk"] == HostCpuConfig(kind="host-cpu", threads=2, tags=("lab",))
    assert devices["card"] == CudaConfig(kind="cuda")


def test_devices_are_chosen_by_tag(tmp_path: Path) -> None:
    devices = load(tmp_path, FULL)
    assert list(with_tag(devices, "lab")) == ["tx2-left", "desk"]
    with pytest.raises(ConfigError, match="no device has the tag 'attic'; tags are lab, tx2"):
        with_tag(devices, "attic")


def test_the_documented_example_is_valid(tmp_path: Path) -> None:
    text = devices_module.__doc__
    assert text is not None
    example = text.partition(".. code-block:: yaml\n")[2]
    assert list(load(tmp_path, example)) == ["tx2-left", "desk", "card"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {kind: host-cpu, thread: 2}", "'a.thread': no such field; did you mean 'threads'?"),
        ("a: {kind: jetsen}", "'a.kind' = 'jetsen': known kinds are jetson, host-cpu, cuda; did you mean 'jetson'?"),
        ("a: {threads: 2}", "'a.kind' is missing; known kinds are jetson, host-cpu, cuda"),
        ("a: {kind: host-cpu, threads: 0}", "'a.threads' = 0: Input should be greater than or equal to 1"),
        ("a: {kind: host-cpu, threads: true}", "'a.threads' = True"),
        ("a: {kind: jetson, engine: trtexe}", "'a.engine' = 'trtexe'"),
        ("a: {kind: jetson, engine: trtexe}", "did you mean 'trtexec'?"),
        ("a: {kind: jetson, transport: {ssh: x, prot: 22}}", "'a.transport.prot': no such field; did you mean 'port'?"),
        ("a: {kind: jetson, transport: {ssh: x, port: 70000}}", "'a.transport.port' = 70000"),
        ("a: {kind: jetson, transport: {user: x}}", "'a.transport.ssh' is missing"),
        ("a: {kind: jetson, transport: {ssh: -oProxyCommand=x}}", "'a.transport.ssh' = '-oProxyCommand=x'"),
        ("a: {kind: jetson, transport: serial}", "'a.transport' = 'serial'"),
        ("a: {kind: jetson, domains: {gpu: [gpu]}}", "'domains' and 'pinned' set clocks: that needs 'allow_dvfs: true'"),
        (
            "a: {kind: jetson, allow_dvfs: true, domains: {gpu: [gpu]}, pinned: {gpu: max}}",
            "clocks are named twice in 'domains' and 'pinned': gpu",
        ),
        (
            "a: {kind: jetson, allow_dvfs: true, pinned: {gpu: 1300500}}",
            "'pinned.gpu' = 1300500: Hz expected, this looks like kHz; multiply by 1000",
        ),
        ("a: {kind: jetson, allow_dvfs: true, pinned: {gpu: fastest}}", "'a.pinned.gpu' = 'fastest'"),
        ("a: {kind: jetson, allow_dvfs: true, domains: {dla: [dla]}}", "'domains.dla': clocks to search over are gpu"),
        ("a: {kind: jetson, processor: cpu}", "'processor: cpu' needs the domain 'cpu' in 'domains'"),
        ("a: {kind: host-cpu}\na: {kind: cuda}", "line 2: not YAML that can be used ('a' stands there twice)"),
        ("a: {kind: host-cpu, threads: 1, threads: 2}", "'threads' stands there twice"),
        ("a: [host-cpu]", "'a': a device is a mapping of fields"),
        ("a b: {kind: host-cpu}", "'a b': a name has letters"),
        ("", "maps names of devices to their fields"),
        ("- host-cpu", "maps names of devices to their fields"),
        ("a: {kind: host-cpu", "line 1: not YAML that can be used"),
    ],
)  # fmt: skip
def test_every_bad_field_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(tmp_path, text)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    message = complaint(tmp_path, "a: {kind: jetson, enjine: x, port: 1}\nb: {kind: host-cpu, threads: -1}\n")
    for field in ("'a.enjine'", "'a.port'", "'b.threads'"):
        assert field in message


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_devices(tmp_path / "none.yaml")
