"""How commands and files reach a device: a shell here, or one behind the OpenSSH client.

The user's own OpenSSH configuration applies: host aliases, jump hosts, agents, known hosts.  All
commands share one connection; files travel through ``cat``, so that no further service is needed.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ....errors import ConnectionLostError, DeviceError, UnreachableDeviceError

AGENT_DIRECTORY = '"${XDG_CACHE_HOME:-$HOME/.cache}/hadas-agent"'
"""Where agents and programs lie on a device, as its shell reads it."""

_COMMAND_S = 60.0
_SSH_FAILED = 255  # exit status of ssh itself


class Transport(Protocol):
    """A way to run commands on a device and to bring files there."""

    @property
    def name(self) -> str:
        """What messages call the device."""
        ...

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command with pipes to its standard input, output and errors.

        Raises:
            UnreachableDeviceError: the device cannot be reached; says why.
        """
        ...

    def shell(self, script: str, *, stdin: bytes = b"", timeout_s: float = _COMMAND_S) -> str:
        """What a shell script prints on the device.

        Raises:
            UnreachableDeviceError: the device cannot be reached; says why.
            ConnectionLostError: the link broke, or nothing came in time.
            DeviceError: the script failed; has what it wrote to its standard error.
        """
        ...

    def close(self) -> None:
        """End the connection; running commands lose it."""
        ...


def copy_file(transport: Transport, content: bytes, destination: str) -> None:
    """Bring a file to an absolute path on the device, unless the same bytes are there already.

    It appears whole or not at all, also where two clients bring it at once.

    Raises:
        DeviceError: it cannot be written there, or arrived changed.
    """
    digest = hashlib.sha256(content).hexdigest()
    path = shlex.quote(destination)
    digest_there = f"sha256sum {path} 2>/dev/null | cut -c1-64"
    if last_line(transport.shell(digest_there)) == digest:
        return
    partial = f"{path}.$$"
    written = transport.shell(
        f"mkdir -p -- {shlex.quote(os.path.dirname(destination))} && cat > {partial} && mv -- {partial} {path} && {digest_there}",
        stdin=content, timeout_s=_COMMAND_S + len(content) / 100_000,
    )  # fmt: skip
    if last_line(written) != digest:
        raise DeviceError(f"{transport.name}: {destination} arrived changed; see that the disk is not full")


def agent_directory(transport: Transport) -> str:
    """Absolute path of the directory of agents and programs on the device; it is made where missing."""
    script = f"umask 077 && mkdir -p -- {AGENT_DIRECTORY} && cd -- {AGENT_DIRECTORY} && pwd"
    return last_line(transport.shell(script))


def last_line(output: str) -> str:
    """What a script printed last: a login shell may greet before."""
    return (output.strip().splitlines() or [""])[-1].strip()


class LocalTransport:
    """This machine."""

    name = "this machine"

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """See :meth:`Transport.start`."""
        try:
            return _piped(command)
        except OSError as error:
            raise DeviceError(f"{self.name}: cannot run {command[0]} ({error.strerror})") from error

    def shell(self, script: str, *, stdin: bytes = b"", timeout_s: float = _COMMAND_S) -> str:
        """See :meth:`Transport.shell`."""
        status, output, errors = _completed(self.start(("sh", "-c", script)), stdin, timeout_s, self.name)
        return _checked(self.name, script, status, output, errors)

    def close(self) -> None:
        """Nothing to end."""


class SshTransport:
    """A device behind the OpenSSH client.

    One master connection is kept as a child process, and every command runs through its socket.

    Args:
        host: alias of the user's configuration, or address.
        user, port: where they differ from the user's configuration.
        options: OpenSSH options as of ``ssh -o``, e.g. ``{"IdentityFile": "~/.ssh/lab"}``.
        connect_timeout_s: to reach the host.
    """

    def __init__(
        self, host: str, *, user: str | None = None, port: int | None = None,
        options: Mapping[str, str] | None = None, connect_timeout_s: int = 10,
    ) -> None:  # fmt: skip
        self.name = host if user is None else f"{user}@{host}"
        self._host = host
        self._connect_timeout_s = connect_timeout_s
        # Short, as the path of a socket may have no more than 104 bytes; private, as it is the key.
        self._directory = Path(tempfile.mkdtemp(prefix="hadas-", dir="/tmp"))
        self._errors = self._directory / "errors"
        options_of_ours = {
            "BatchMode": "yes",  # never ask: nobody sits there
            "ConnectTimeout": str(connect_timeout_s),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ControlPath": str(self._directory / "s"),
            "ControlPersist": "no",
            "ClearAllForwardings": "yes",
            "RemoteCommand": "none",
        }
        # The first of two values counts, so that ours come first.
        pairs = [*options_of_ours.items(), *(options or {}).items()]
        self._options = [f"-o{key}={value}" for key, value in pairs]
        self._options += ([] if user is None else ["-l", user]) + ([] if port is None else ["-p", str(port)])
        self._master: subprocess.Popen[bytes] | None = None

    @property
    def process_id(self) -> int | None:
        """Of the master connection, once there is one."""
        return None if self._master is None else self._master.pid

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """See :meth:`Transport.start`."""
        self._connect()
        # Without its master a command would quietly connect by itself; the proxy command forbids that.
        options = [*self._options, "-oControlMaster=no", "-oProxyCommand=false", "-T"]
        return _piped(["ssh", *options, "--", self._host, shlex.join(command)])

    def shell(self, script: str, *, stdin: bytes = b"", timeout_s: float = _COMMAND_S) -> str:
        """See :meth:`Transport.shell`."""
        process = self.start(("sh", "-c", script))
        status, output, errors = _completed(process, stdin, timeout_s, self.name)
        if status == _SSH_FAILED and not self._is_connected():
            raise ConnectionLostError(f"{self.name}: the connection was lost; {self._last_error()}")
        return _checked(self.name, script, status, output, errors)

    def close(self) -> None:
        """See :meth:`Transport.close`."""
        if self._master is not None:
            _end(self._master)
            self._master = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def _is_connected(self) -> bool:
        return self._master is not None and self._master.poll() is None

    def _connect(self) -> None:
        """Start the master connection and wait until it takes commands."""
        if self._master is not None:
            if self._is_connected():
                return
            raise ConnectionLostError(f"{self.name}: the connection was lost; {self._last_error()}")
        self._directory.mkdir(mode=0o700, exist_ok=True)
        with self._errors.open("wb") as errors:
            try:
                # It reads from a pipe of ours, so that it ends with us however we end.
                self._master = subprocess.Popen(
                    ["ssh", *self._options, "-oControlMaster=yes", "-T", "--", self._host, "cat > /dev/null"],
                    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors,
                    start_new_session=True,  # Ctrl-C is for hadas, which then restores the device
                )  # fmt: skip
            except FileNotFoundError as error:
                raise UnreachableDeviceError(
                    "no ssh on this machine; install the OpenSSH client", "refused"
                ) from error
        # The time-out of ssh covers neither a jump host nor a server that accepts and then is silent.
        deadline = time.monotonic() + 3 * self._connect_timeout_s
        while not (self._directory / "s").exists():
            if self._master.poll() is not None:
                self._fail(self._errors.read_text(errors="replace"))
            if time.monotonic() > deadline:
                self._fail("Connection timed out")
            time.sleep(0.02)

    def _fail(self, errors: str) -> None:
        if self._master is not None:
            _end(self._master)
            self._master = None
        raise explain_ssh_failure(self.name, errors)

    def _last_error(self) -> str:
        lines = self._errors.read_text(errors="replace").splitlines() if self._errors.exists() else []
        return lines[-1] if lines else "ssh gave no reason"


_SSH_FAILURES = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "host-key-changed",
     "the host shows another key than before. If it was set up anew, forget the old key with: ssh-keygen -R {host}"),
    ("Host key verification failed", "host-key-unknown",
     "its host key is not known yet. Connect once by hand (ssh {host}) and compare the key"),
    ("Could not resolve hostname", "host-unknown", "no host of that name. Correct the name, or add it to ~/.ssh/config"),
    ("Permission denied", "key-refused",
     "it refused every key. Add yours with: ssh-copy-id {host}; passwords are never asked for"),
    ("Too many authentication failures", "key-refused",
     "it was offered too many keys. Name one by IdentityFile, with IdentitiesOnly yes"),
    ("Connection refused", "refused", "no SSH server listens there. Start sshd, or correct the port"),
    ("timed out", "host-silent", "it does not answer. See that it is on and in reach"),
    ("No route to host", "host-silent", "it does not answer. See that it is on and in reach"),
    ("Network is unreachable", "host-silent", "it does not answer. See that it is on and in reach"),
)  # fmt: skip


def explain_ssh_failure(host: str, errors: str) -> UnreachableDeviceError:
    """The error of a connection that ssh could not make, from what it wrote."""
    for sign, cause, remedy in _SSH_FAILURES:
        if sign in errors:
            return UnreachableDeviceError(f"{host}: {remedy.format(host=host)}.", cause)
    last = (errors.strip().splitlines() or ["no reason given"])[-1]
    return UnreachableDeviceError(f"{host}: ssh cannot connect ({last}).", "refused")


def _piped(command: Sequence[str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)


def _completed(
    process: subprocess.Popen[bytes], stdin: bytes, timeout_s: float, name: str
) -> tuple[int, str, str]:
    try:
        output, errors = process.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        _end(process)
        raise ConnectionLostError(f"{name}: no answer within {timeout_s:.0f} s") from error
    return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")


def _checked(name: str, script: str, status: int, output: str, errors: str) -> str:
    if status != 0:
        last = (errors.strip().splitlines() or [f"exit status {status}"])[-1]
        raise DeviceError(f"{name}: {script[:60]!r} failed ({last})")
    return output


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
