"""The ``hadas`` command: its commands with their examples, in the order of ``hadas --help``.

Heavy libraries are imported inside the commands, so that ``hadas --help`` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .. import __version__
from ..errors import HadasError
from . import accuracy, beginning, devices, logs, predicting, searching, steps
from .printing import console

app = typer.Typer(
    name="hadas",
    help="Find backbone, exits and clocks together, for one edge device and one data set, from few measurements.\n\n"
    "The whole loop on real images in minutes:  hadas demo\n\n"
    "The same for exits, quantization and mapping on an edge accelerator:  hadas demo --system edge\n\n"
    "Your own study:  hadas init my.yaml, edit it, hadas run my.yaml",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
_INTERRUPTED = 130
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def _version(show: bool) -> None:
    if show:
        console.print(f"hadas {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


_COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (
        beginning.init,
        "Examples:  hadas init my.yaml --preset demo;  hadas init my.yaml --checkpoint attentive_nas.pth.tar "
        "--data cifar100 --data-path data;  hadas init edge.yaml --preset edge",
    ),
    (
        accuracy.train,
        "Examples:  hadas train my.yaml      (interrupt at any time; the same command continues)\n\n"
        "On all GPUs of a machine:  torchrun --nproc-per-node 4 -m hadas.cli train my.yaml",
    ),
    (
        steps.measure,
        "Examples:  hadas measure my.yaml;  hadas measure my.yaml --accuracy --workers processes --n-workers 4;  "
        "hadas measure my.yaml --accuracy --cluster tcp://host:8786\n\n"
        "Without a study:  hadas measure --device host --networks a0,a3 --exits even:2 --repeat 2;  "
        "hadas measure --device tx2-left --devices lab.yaml --clocks all --log tx2.jsonl",
    ),
    (devices.devices, "Examples:  hadas devices;  hadas devices --devices lab.yaml --check"),
    (accuracy.plan, "Example:  hadas plan my.yaml --budget 24h"),
    (steps.fit, "Examples:  hadas fit my.yaml;  hadas fit my.yaml --new-only      (after hadas logs import)"),
    (
        searching.search,
        "Examples:  hadas search my.yaml;  hadas search my.yaml --clocks-per-exit --switching-ms 0.8 --switching-mj 2",
    ),
    (
        searching.suggest,
        "Examples:  hadas suggest my.yaml -n 8 --explain;  hadas suggest my.yaml --design examples/designs.yaml",
    ),
    (
        predicting.predict,
        "Examples:  hadas predict my.yaml --networks m2,largest --exits 5,8 --clocks 'gpu=854250000 emc=1600000000'\n\n"
        "hadas predict my.yaml --design examples/designs.yaml --json",
    ),
    (
        steps.run,
        "Examples:  hadas run my.yaml      (interrupt at any time; the same command continues)\n\n"
        "hadas run my.yaml --budget 24h;  hadas status my.yaml      (what is spent, and what the rest buys)",
    ),
    (steps.status, "Example:  hadas status my.yaml"),
    (steps.report, "Example:  hadas report my.yaml"),
    (
        accuracy.policies,
        "Examples:  hadas policies my.yaml\n\n"
        "hadas policies my.yaml --backbone largest --tolerance 0.02 --csv policies.csv",
    ),
    (beginning.demo, "Examples:  hadas demo;  hadas demo --system edge"),
    (beginning.space, "Examples:  hadas space attentivenas;  hadas space mobilenetv2"),
)
for _command, _examples in _COMMANDS:
    app.command(epilog=_examples)(_command)
app.add_typer(logs.logs_app)


@contextmanager
def _ending_by_signals() -> Iterator[None]:
    """Let a signal that would end the process at once end it by an exception, so that devices are put back.

    Python does that for Ctrl-C alone.  What is ignored stays so (``nohup``).  Processes that are forked
    off meanwhile end as they would have.
    """
    owner = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        for other in taken:
            signal.signal(other, signal.SIG_IGN)  # a second one must not cut the putting back short
        raise SystemExit(128 + number)

    taken = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def main() -> None:
    """Entry point: errors of the input end with one line and exit status 2, an interrupt with 130, SIGTERM with 143."""
    # GPyTorch and BoTorch import a deprecated part of torch; that is none of the user's business.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.*")
    errors = Console(stderr=True, highlight=False)
    try:
        with _ending_by_signals():
            app(standalone_mode=True)
    except HadasError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            errors.print("interrupted; the same command continues")
        raise
