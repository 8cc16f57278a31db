"""How the command shows things: the console, tables, progress bars, the mark of costs that are not measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ..study import Study
    from ..study.assembly import ProgressCallback

console = Console()


@contextmanager
def showing_progress() -> Iterator[ProgressCallback]:
    """Rich progress bars, one per phase, with a note of how it stands behind each."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    note_column = TextColumn("{task.fields[note]}")
    columns = (
        TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), note_column,
    )  # fmt: skip
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        tasks: dict[str, int] = {}

        def advance(phase: str, done: int, total: int, note: str = "") -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total, note=note)
                if not console.is_terminal:
                    console.print(f"{phase} ({total})")
            progress.update(tasks[phase], completed=done, total=total, note=note)  # type: ignore[arg-type]
            if note and done == total and not console.is_terminal:  # in a log, how it ended
                console.print(f"{phase}: {note}", highlight=False)

        yield advance


def say(line: str) -> None:
    """Print a line as it is, however long."""
    console.print(escape(line), soft_wrap=True, highlight=False)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of text as they are, brackets too; what is too wide for a narrow terminal goes on in the next line."""
    table = Table(title=escape(title))
    for column in columns:
        table.add_column(escape(column), overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def cost_mark(study: Study) -> str:
    """What a title says after it if the study's costs are simulated or replayed."""
    from ..study.tables import marked

    return marked(study.truth.mark)
