"""An SSH server for tests where no sshd is installed: one user, one key, commands run by the shell.

asyncssh_server.py PORT HOST_KEY AUTHORIZED_KEYS
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import Any

import asyncssh


async def pump(source: Any, sink: Any) -> None:
    """Pass bytes on until the source ends."""
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()


async def feed(source: Any, sink: Any) -> None:
    """The same into a pipe that is to end, and whose reader may be gone."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await pump(source, sink)
    sink.close()


async def run_command(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run one command, its streams those of the channel; its pipes end with the channel, as under sshd."""
    child = await asyncio.create_subprocess_shell(
        process.command or "exit 1",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True, env={**os.environ, **process.env},
    )  # fmt: skip
    tasks = [
        asyncio.ensure_future(feed(process.stdin, child.stdin)),
        asyncio.ensure_future(pump(child.stdout, process.stdout)),
        asyncio.ensure_future(pump(child.stderr, process.stderr)),
    ]
    closed = asyncio.ensure_future(process.channel.wait_closed())
    ended = asyncio.gather(*tasks[1:])
    await asyncio.wait({closed, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not closed.done():
        process.exit(await child.wait())
    for task in (*tasks, ended, closed):
        task.cancel()
    await asyncio.gather(*tasks, ended, closed, return_exceptions=True)
    assert child.stdin is not None
    child.stdin.close()
    await child.wait()


async def serve(port: int, host_key: str, authorized_keys: str) -> None:
    await asyncssh.create_server(
        asyncssh.SSHServer, "127.0.0.1", port, server_host_keys=[host_key],
        authorized_client_keys=authorized_keys, process_factory=run_command, encoding=None,
    )  # fmt: skip
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
