"""Device logs: import what was measured elsewhere, export what the store has."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..datasets.logs.examples import ASSUMED_NOISE, EXAMPLE
from ..errors import ConfigError
from . import series as series_models
from .opening import open_store
from .printing import console

if TYPE_CHECKING:
    from ..datasets.logs.importing import ImportProgress, ImportSummary

logs_app = typer.Typer(
    name="logs",
    help="Import device logs into a store, export its cost rows; fit and ask cost models of networks of others.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
_DEFAULT_STORE = "store.sqlite"


@logs_app.command(
    "import",
    epilog="Examples:  hadas logs import rig.jsonl --store my/study.yaml;  hadas logs import board.log --series tx2;  "
    "hadas logs import sweep.csv.gz --map sweep.yaml\n\nA column map (--map) for networks of a space of ours (for others "
    f"see docs/devices.md):\n\n```yaml\n{EXAMPLE}```",
)
def import_files(
    files: Annotated[
        list[Path], typer.Argument(help="Our own log (JSON lines), tegrastats, or CSV; each also as .gz.")
    ],
    store: Annotated[
        str, typer.Option(help="Where to: a store (file or database URL), or a study's file.")
    ] = _DEFAULT_STORE,
    map_file: Annotated[
        Path | None, typer.Option("--map", help="What the columns of CSV files mean, and their units (YAML).")
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="What the log is called in the store; default: the file's name.")
    ] = None,
) -> None:
    """Import device logs: every row once, however often a file is imported or was cut short.

    Units are checked row by row; what cannot be believed goes to FILE.rejects.csv with its reason.
    Ends with 1 if a file was of no use at all.
    """
    from ..datasets.logs.columns import load_column_map
    from ..datasets.logs.importing import import_log

    column_map = None if map_file is None else load_column_map(map_file)
    opened, _ = open_store(store)
    summaries = []
    try:
        for path in files:
            with _ImportBar(path) as bar:
                summaries.append(
                    import_log(opened, path, series=series, column_map=column_map, on_progress=bar.show)
                )
    finally:
        opened.close()
        if summaries:
            _print_summaries(summaries, store)
    useless = [s.path.name for s in summaries if not s.imported and not s.known]
    if useless:
        _say(f"nothing of {', '.join(useless)} came in")
        raise typer.Exit(1)


def _print_summaries(summaries: list[ImportSummary], store: str) -> None:
    from rich.table import Table

    columns = ("kind", "imported", "known already", "rejected", "seconds")
    table = Table("file", *columns, title=escape(f"imported into {store}"))
    table.columns[0].overflow = "fold"  # the ends of paths are what tells them apart
    folder = _common_folder([summary.path for summary in summaries])
    for s in summaries:
        shown = str(s.path.absolute().relative_to(folder))
        counts = (f"{s.imported:,}", f"{s.known:,}", f"{s.rejected:,}", f"{s.seconds:.1f}")
        table.add_row(escape(shown), s.kind, *counts)
    console.print(table)
    for summary in summaries:
        if summary.into:
            _say(f"- {summary.path} went into {', '.join(summary.into)}{_reader(summary, store)}")
        if summary.assumed_errors:
            _say(
                f"- {summary.path}: {summary.assumed_errors:,} rows state no standard error; {100 * ASSUMED_NOISE:g} % of "
                "the value is assumed (say 'error' or 'noise' in the column map)"
            )
        if summary.rejects is not None:
            _say(f"- {summary.path}: rejected rows and their reasons are in {summary.rejects}")
        if summary.unfinished:
            _say(
                f"- {summary.path}: its last line is cut and was left out; import the file again when it is whole"
            )


def _common_folder(paths: list[Path]) -> Path:
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))


def _reader(summary: ImportSummary, store: str) -> str:
    """What reads what was imported; cost rows are for studies."""
    if summary.holds == "costs":
        return "; `hadas fit STUDY --new-only` adopts the rows of a study's own device"
    option = f"--{summary.holds}"
    lines = [
        f"hadas logs export {shlex.quote(store)} {option} --series {shlex.quote(name)} -o {shlex.quote(name)}.csv"
        for name in summary.into
    ]
    told = f", which no study reads; for other tools:  {'; '.join(lines)}"
    if summary.holds == "foreign":
        fits = [f"hadas logs fit {shlex.quote(store)} --series {shlex.quote(name)}" for name in summary.into]
        told += f"; for cost models:  {'; '.join(fits)}"
    return told


@logs_app.command(
    "export",
    epilog="Examples:  hadas logs export my/study.yaml -o rows.jsonl;  "
    "hadas logs export store.sqlite --session log:rig/0 -o rows.csv",
)
def export(
    store: Annotated[
        str, typer.Argument(help="A store (file or database URL), or a study's file: its own rows.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="A new file: .jsonl keeps everything, .csv the totals.")
    ],
    session: Annotated[str | None, typer.Option(help="Only rows of this session.")] = None,
    target: Annotated[str | None, typer.Option(help="Only rows of this target (its target_id).")] = None,
    truth: Annotated[
        str | None, typer.Option(help="Only rows of this truth: device, replay, simulator.")
    ] = None,
    telemetry: Annotated[
        bool, typer.Option("--telemetry", help="Imported lines of tegrastats instead, as CSV.")
    ] = False,
    foreign: Annotated[
        bool,
        typer.Option("--foreign", help="Imported costs of networks of no space of ours instead, as CSV."),
    ] = False,
    series: Annotated[str | None, typer.Option(help="Only this series of --telemetry or --foreign.")] = None,
) -> None:
    """Write the cost rows of a store, or of a study, valid and invalid; or what else logs brought into it."""
    from ..datasets.logs.exporting import export_foreign, export_rows, export_telemetry
    from ..datasets.records import Truth

    if telemetry and foreign:
        raise ConfigError("--telemetry, --foreign: one at a time, each into a file of its own")
    is_other = telemetry or foreign
    if is_other and (session or target or truth):
        raise ConfigError("--session, --target, --truth: choose among cost rows; use --series here")
    if series is not None and not is_other:
        raise ConfigError("--series: is of --telemetry and --foreign; choose cost rows by --session")

    if truth is not None and truth not in list(Truth):
        raise ConfigError(f"--truth {truth}: must be one of {', '.join(Truth)}")
    opened, prefix = open_store(store, must_exist=True)
    try:
        if is_other:
            write = export_telemetry if telemetry else export_foreign
            n_rows = write(opened, output, series=series)
        else:
            n_rows = export_rows(
                opened, output, session=session, target_id=target, truth=None if truth is None else Truth(truth),
                prefix="" if session is not None else prefix,
            )  # fmt: skip
    finally:
        opened.close()
    _say(f"{n_rows:,} rows are in {output}")


class _ImportBar:
    """Progress of one file: share of its bytes, rows, and rows a second."""

    def __init__(self, path: Path) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows, {task.fields[rate]:,.0f} rows/s"), TimeRemainingColumn(),
        )  # fmt: skip
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(escape(path.name), total=None, rows=0, rate=0.0)

    def __enter__(self) -> _ImportBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, progress: ImportProgress) -> None:
        """Draw how far the import is."""
        rate = progress.rows / max(progress.seconds, 1e-9)
        self._progress.update(
            self._task,
            completed=progress.bytes_done,
            total=progress.bytes_total,
            rows=progress.rows,
            rate=rate,
        )


def _say(text: str) -> None:
    console.print(escape(text), soft_wrap=True, highlight=False)


logs_app.command(
    "fit",
    epilog="Examples:  hadas logs fit store.sqlite --series sweep;  hadas logs fit my/study.yaml --series jetson-cnn --json",
)(series_models.fit)
logs_app.command(
    "predict",
    epilog="Examples:  hadas logs predict store.sqlite --series sweep --networks resnet50 --clocks 'max gpu=854.25MHz';  "
    "hadas logs predict store.sqlite --series cnn --rows mine.csv --map cnn.yaml --json",
)(series_models.predict)
