"""What tests of the command line share."""

import sys

import pytest

from hadas.cli import main


@pytest.fixture
def run_in_process(monkeypatch, capsys):
    """Run a command in this process; returns exit status, output and errors as they were written."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hadas", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        written = capsys.readouterr()
        return int(end.value.code or 0), written.out, written.err

    return run
