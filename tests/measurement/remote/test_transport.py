"""Commands and files through a shell here and through a real SSH server on loopback."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hadas.errors import ConnectionLostError, DeviceError, UnreachableDeviceError
from hadas.measurement.hardware.remote.client import AgentClient, explain_end, install_agent
from hadas.measurement.hardware.remote.jetson import tensorrt_version
from hadas.measurement.hardware.remote.transport import (
    LocalTransport,
    SshTransport,
    Transport,
    agent_directory,
    copy_file,
    explain_ssh_failure,
)

from ..agent.trees import build_tx2
from .ssh_server import SshServer, free_port, make_key

FAKE_BOARD = Path(__file__).parents[1] / "agent" / "serve_fake_board.py"


@pytest.fixture(params=["local", "ssh"], scope="module")
def transport(request: pytest.FixtureRequest, ssh_server: SshServer) -> Iterator[Transport]:
    transport: Transport = LocalTransport() if request.param == "local" else ssh_server.transport()
    yield transport
    transport.close()


def test_commands_get_input_and_arguments_untouched(transport: Transport) -> None:
    awkward = "a 'quoted' \"word\" $HOME * \n;second"
    process = transport.start(["sh", "-c", 'printf "%s" "$1"; cat; echo wrong >&2; exit 7', "sh", awkward])
    output, errors = process.communicate(b"\x00\xffbytes")
    assert output == awkward.encode() + b"\x00\xffbytes"
    assert errors == b"wrong\n"
    assert process.returncode == 7


def test_a_failing_script_says_what_it_wrote(transport: Transport) -> None:
    with pytest.raises(DeviceError, match="no room"):
        transport.shell("echo no room >&2; exit 3")


def test_a_script_that_hangs_is_given_up(transport: Transport) -> None:
    with pytest.raises(ConnectionLostError, match="no answer within"):
        transport.shell("sleep 30", timeout_s=0.3)


def test_a_file_is_copied_once_and_again_when_it_changed(transport: Transport, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    there = tmp_path / "a folder" / "agent's file"
    copy_file(transport, content, str(there))
    assert there.read_bytes() == content
    stamp = there.stat().st_mtime_ns
    copy_file(transport, content, str(there))
    assert there.stat().st_mtime_ns == stamp, "the same bytes are not sent again"
    copy_file(transport, content[:-1] + b"!", str(there))
    assert there.read_bytes() == content[:-1] + b"!"
    assert [path.name for path in there.parent.iterdir()] == [there.name], "nothing half-written stays"


def test_two_clients_may_copy_at_once(transport: Transport, tmp_path: Path) -> None:
    content = os.urandom(200_000)
    there = tmp_path / "agent.pyz"
    errors: list[BaseException] = []

    def copy() -> None:
        try:
            copy_file(transport, content, str(there))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=copy) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert there.read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(transport: Transport, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(DeviceError, match="taken"):
        copy_file(transport, b"x", str(tmp_path / "taken" / "agent.pyz"))


class GreetingTransport(LocalTransport):
    """A device whose login shell greets everybody."""

    def shell(self, script: str, *, stdin: bytes = b"", timeout_s: float = 60.0) -> str:
        return "Welcome to Ubuntu 18.04.6 LTS!\n" + super().shell(script, stdin=stdin, timeout_s=timeout_s)


def test_a_shell_that_greets_does_not_confuse_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    transport = GreetingTransport()
    assert agent_directory(transport) == str(tmp_path / "hadas-agent")
    copy_file(transport, b"bytes", str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b"bytes"
    assert Path(install_agent(transport)).parent == tmp_path / "hadas-agent"


def failure(transport: SshTransport) -> UnreachableDeviceError:
    with pytest.raises(UnreachableDeviceError) as caught:
        transport.shell("true")
    transport.close()
    return caught.value


def test_what_keeps_ssh_from_connecting_is_told_apart(ssh_server: SshServer, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    refused = failure(ssh_server.transport(IdentityFile=str(other)))
    assert refused.cause == "key-refused"
    assert "ssh-copy-id" in str(refused)

    changed = tmp_path / "changed"
    public = " ".join(other.with_suffix(".pub").read_text().split()[:2])
    changed.write_text(f"[127.0.0.1]:{ssh_server.port} {public}\n")
    assert failure(ssh_server.transport(UserKnownHostsFile=str(changed))).cause == "host-key-changed"

    empty = tmp_path / "empty"
    empty.touch()
    assert failure(ssh_server.transport(UserKnownHostsFile=str(empty))).cause == "host-key-unknown"

    assert failure(SshTransport("127.0.0.1", port=free_port())).cause == "refused"
    assert failure(SshTransport("no-such-host.invalid")).cause == "host-unknown"


def test_a_failure_that_is_not_known_is_passed_on() -> None:
    error = explain_ssh_failure("tx2", "kex_exchange: something new\n")
    assert error.cause == "refused"
    assert "something new" in str(error)


def test_the_sockets_of_a_connection_are_private_and_go_with_it(ssh_server: SshServer) -> None:
    transport = ssh_server.transport()
    transport.shell("true")
    process_id = transport.process_id
    assert process_id is not None
    arguments = Path(f"/proc/{process_id}/cmdline").read_text().split("\0")
    socket = Path(next(word for word in arguments if "ControlPath=" in word).partition("=")[2])
    assert socket.is_socket()
    assert socket.parent.stat().st_mode & 0o077 == 0
    assert len(str(socket)) < 80
    transport.close()
    assert not socket.parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


def test_a_device_without_python_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "sh").symlink_to("/bin/sh")
    with pytest.raises(UnreachableDeviceError, match="apt install python3") as caught:
        AgentClient(LocalTransport())
    assert caught.value.cause == "no-python"


def test_a_python_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "python3").write_text("#!/bin/sh\necho 3 5\n")
    (tmp_path / "python3").chmod(0o755)
    with pytest.raises(UnreachableDeviceError, match=r"3\.5 there; the agent needs 3\.6"):
        AgentClient(LocalTransport())


def test_a_warning_of_sudo_is_no_refusal() -> None:
    log = ["sudo: unable to resolve host tx2: Name or service not known", "agent: signal 15"]
    lost = explain_end("tx2", "its agent ended", 255, log, greeted=True)
    assert isinstance(lost, ConnectionLostError)
    assert isinstance(explain_end("tx2", "its agent ended", 255, log, greeted=False), ConnectionLostError)
    asks = ["sudo: unable to resolve host tx2", "sudo: a password is required"]
    assert isinstance(explain_end("tx2", "its agent ended", 1, asks, greeted=False), UnreachableDeviceError)
    # An agent that has answered was let in: whatever a program prints then, the link is what is lost.
    assert isinstance(explain_end("tx2", "its agent ended", 1, asks, greeted=True), ConnectionLostError)


def test_what_a_library_prints_between_the_replies_is_log(tmp_path: Path) -> None:
    build_tx2(tmp_path / "tx2")
    noise = tmp_path / "noise"
    noise.write_text('7\nnull\n[1]\n{"id": [1], "ok": true}\n{"id": 1}\n{"event": "log"}\nloading ...\n')
    agent = shlex.join([sys.executable, str(FAKE_BOARD), str(tmp_path / "tx2"), "--"])
    with AgentClient(
        LocalTransport(), program=("sh", "-c", f'cat {noise}; exec {agent} "$@"', "agent")
    ) as client:
        assert client.hello["protocol"] == 1
        assert client.request("state")["actual"]


TRTEXEC_8 = "#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec --help'\n"
TRTEXEC_7 = "#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec # /usr/src/tensorrt/bin/trtexec --help'\n"
NO_PACKAGE = "#!/bin/sh\necho 'TensorRT '\nexit 1\n"  # known to the package manager, not installed


@pytest.mark.parametrize(
    ("trtexec", "dpkg", "libraries", "version"),
    [
        (TRTEXEC_8, NO_PACKAGE, (), "TensorRT v8201"),
        (TRTEXEC_7, "#!/bin/sh\necho 'TensorRT 7.1.3-1+cuda10.2'\n", (), "TensorRT 7.1.3-1+cuda10.2"),
        (TRTEXEC_7, NO_PACKAGE, ("libnvinfer.so", "libnvinfer.so.7", "libnvinfer.so.7.1.3"), "TensorRT 7.1.3"),
        (TRTEXEC_7, NO_PACKAGE, ("libnvinfer_plugin.so.7.1.3",), None),
    ],
)  # fmt: skip
def test_the_version_of_tensorrt_is_found_where_trtexec_does_not_tell(
    trtexec: str, dpkg: str, libraries: tuple[str, ...], version: str | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, script in (("trtexec", trtexec), ("dpkg-query", dpkg)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    for name in libraries:
        (tmp_path / name).touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{tmp_path}")
    if version is None:
        with pytest.raises(DeviceError, match="version of TensorRT"):
            tensorrt_version(LocalTransport())
    else:
        assert tensorrt_version(LocalTransport()) == version


def test_sudo_that_asks_for_a_password_says_what_to_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where sudo speaks the user's language, as it does by the locale alone."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    (tmp_path / "sudo").write_text(
        "#!/bin/sh\n"
        'test "$LC_ALL" = C && echo "sudo: a password is required" >&2 || echo "sudo: Ein Passwort ist notwendig" >&2\n'
        "exit 1\n"
    )
    (tmp_path / "sudo").chmod(0o755)
    with pytest.raises(UnreachableDeviceError, match="NOPASSWD") as caught:
        AgentClient(LocalTransport(), sudo=True)
    assert caught.value.cause == "no-sudo"
