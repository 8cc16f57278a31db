"""A real SSH server on loopback: sshd where there is one that starts, else asyncssh in a process of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from hadas.measurement.hardware.remote.transport import SshTransport


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(path: Path) -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)], check=True
    )
    return path


def _accepts(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether the server says hello, before it ends or ten seconds pass."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            time.sleep(0.05)
    return False


class SshServer:
    """Serves this user by a key that is made for the test."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.host_key = make_key(folder / "host_key")
        self.client_key = make_key(folder / "client_key")
        self.authorized_keys = folder / "authorized_keys"
        shutil.copy(folder / "client_key.pub", self.authorized_keys)
        self.known_hosts = folder / "known_hosts"
        self.know(self.host_key)
        sshd = os.environ.get("HADAS_TEST_SSHD") or shutil.which(
            "sshd", path=os.environ["PATH"] + ":/usr/sbin"
        )
        process = self._start_sshd(sshd) if sshd else None
        self.kind = "sshd" if process else "asyncssh"
        self._process = process or self._start_asyncssh()

    def know(self, host_key: Path) -> None:
        public = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}\n")

    def options(self, **changes: str) -> dict[str, str]:
        """Of the OpenSSH client, so that nothing of this user's own configuration matters."""
        return {
            "IdentityFile": str(self.client_key),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "SetEnv": f"XDG_CACHE_HOME={self.folder / 'cache'}",
            **changes,
        }

    def transport(self, **changes: str) -> SshTransport:
        return SshTransport(
            "127.0.0.1", user=getpass.getuser(), port=self.port, options=self.options(**changes)
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _start_sshd(self, sshd: str) -> subprocess.Popen[bytes] | None:
        """``None`` if it does not start: as root, sshd wants a user and a folder that a package sets up."""
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.host_key}\nPidFile none\n"
            f"AuthorizedKeysFile {self.authorized_keys}\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nAcceptEnv XDG_CACHE_HOME\n"
        )
        log = (self.folder / "sshd.log").open("wb")
        with log:
            process = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=log)
        if _accepts(self.port, process):
            return process
        process.kill()
        process.wait()
        return None

    def _start_asyncssh(self) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("asyncssh_server.py")
        arguments = [str(self.port), str(self.host_key), str(self.authorized_keys)]
        log = (self.folder / "asyncssh.log").open("wb")
        with log:
            process = subprocess.Popen([sys.executable, str(script), *arguments], stdout=log, stderr=log)
        assert _accepts(self.port, process), (self.folder / "asyncssh.log").read_text()
        return process
