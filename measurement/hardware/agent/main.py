"""The agent's command line: ``serve``, ``workload``, ``restore`` and ``discover``."""

import argparse
import json
import os
import sys
import time
from typing import List, Optional, TextIO, cast

from . import probing, rails
from .clocks import Clocks
from .describe import describe, journal_flags
from .journal import HOME_PLACE, PLACE, Journal
from .lock import BoardLock
from .log import Log
from .problems import AgentError
from .server import Options, Server
from .sysfs import SysFs
from .workload import main as run_workload


def main(argv: List[str], fs: Optional[SysFs] = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name.
        fs: the board's files in place of those at ``--sysroot``.

    Returns:
        Exit status: 0 = done, board as it was found; 1 = something could not be put back;
        3 = another agent owns the board, or its journal cannot be read.
    """
    if argv[:1] == ["workload"]:
        return run_workload(argv[1:])
    arguments = _parser().parse_args(argv)
    files = fs or SysFs(arguments.sysroot)
    journal = os.path.abspath(arguments.journal) if arguments.journal else default_journal(files)
    options = Options(arguments.allow_dvfs, journal, arguments.watchdog_s)
    if arguments.command == "serve":
        sys.stderr = cast(TextIO, Log(2))
        return Server(files, options).serve()
    try:
        return restore(files, options) if arguments.command == "restore" else discover(files, options)
    except AgentError as error:
        _print({"error": error.to_wire()})
        return 3


def default_journal(fs: SysFs) -> str:
    """On the board's own disk; a user who may not write there keeps it at home."""
    if fs.root == "/" and os.geteuid() != 0:
        return os.path.join(os.path.expanduser("~"), HOME_PLACE)
    return fs.full(PLACE)


def restore(fs: SysFs, options: Options) -> int:
    """Put back what a killed agent left behind; asking for it is the permission to write."""
    lock = BoardLock(fs, options.journal, may_write=True)
    try:
        journal = Journal(fs, options.journal)
        journal.load(sets_aside=True)
        restored = journal.restore()
    finally:
        lock.release()
    _print({"restored": restored.files, "problems": restored.problems, "flags": journal.flags})
    return 1 if restored.problems else 0


def discover(fs: SysFs, options: Options) -> int:
    """Print what the board has; a gated GPU is powered up for it, if that is allowed."""
    lock = BoardLock(fs, options.journal, options.allow_dvfs)
    try:
        journal = Journal(fs, options.journal)
        journal.load()
        if options.allow_dvfs:
            journal.restore()
        flags = journal_flags(journal, options.allow_dvfs)
        clocks = Clocks(fs, journal)
        try:
            if options.allow_dvfs:
                clocks.power_up()
            engines, complete = probing.engines(time.sleep)
            found = describe(fs, clocks, rails.discover_rails(fs), engines)
        finally:
            problems = journal.restore().problems if options.allow_dvfs else ()
    finally:
        lock.release()
    found["allow_dvfs"] = options.allow_dvfs
    found["flags"] += flags + ([] if complete else ["engines-unknown"])
    _print(found)
    return 1 if problems else 0


def _print(document: object) -> None:
    sys.stdout.write(json.dumps(document) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hadas-agent", description="What runs on a device that is measured."
    )
    parser.add_argument("command", choices=("serve", "workload", "restore", "discover"))
    parser.add_argument("--sysroot", default="/", help="folder that stands for the root of the system")
    parser.add_argument("--allow-dvfs", action="store_true", help="allow clocks to be changed")
    parser.add_argument("--journal", help="file that keeps what was there before")
    parser.add_argument(
        "--watchdog-s", type=float, default=15.0, help="silence after which to restore and exit"
    )
    return parser
