"""The command line in the process of the tests, which has loaded the libraries already."""

from __future__ import annotations

import gc
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from hadas.cli import main


@dataclass(frozen=True)
class Done:
    """What a finished command leaves behind; the names are those of ``subprocess.CompletedProcess``."""

    returncode: int
    stdout: str
    stderr: str


def hadas(*arguments: object) -> Done:
    """Run a command; an exception that ``main`` lets out, which a user would see as a traceback, is let out."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["hadas", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    code = int(end.value.code or 0)
    del end
    gc.collect()  # a study that the command locked is let go, as at the end of a process
    return Done(code, out.getvalue(), err.getvalue())
