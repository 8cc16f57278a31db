"""The ``hadas`` command.

Only this module prints.  Heavy libraries are imported inside the commands, so that
``hadas --help`` answers at once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from . import __version__
from .errors import ConfigError, HadasError

if TYPE_CHECKING:
    from .study import Study
    from .study.assembly import ProgressCallback
    from .study.journal import RoundSummary

app = typer.Typer(
    name="hadas",
    help="Find backbone, exits and clocks together, for one edge device and one data set, from few measurements.\n\n"
    "The whole loop on real images in minutes:  hadas demo\n\n"
    "Your own study:  hadas init my.yaml, edit it, hadas run my.yaml",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
console = Console()

StudyFile = Annotated[Path, typer.Argument(help="The study's YAML file (write one with `hadas init`).")]
Adopt = Annotated[
    bool, typer.Option("--adopt", help="Continue although the file differs from what the study began with.")
]


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


@contextmanager
def _progress() -> Iterator[ProgressCallback]:
    """Rich progress bars, one per phase, fed by ``(phase, done, total)``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        tasks: dict[str, int] = {}

        def advance(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total)
                if not console.is_terminal:
                    console.print(f"{phase} ({total})")
            progress.update(tasks[phase], completed=done, total=total)  # type: ignore[arg-type]

        yield advance


def _open(path: Path, adopt: bool = False) -> Study:
    from .study import Study

    return Study.open(path, adopt=adopt)


@app.command(epilog="Example:  hadas init my.yaml --preset demo")
def init(
    study: StudyFile,
    preset: Annotated[
        str, typer.Option(help="demo: minutes on a laptop; smoke: seconds, to try things out.")
    ] = "demo",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented study file."""
    from .study.config import template

    if study.exists() and not force:
        raise ConfigError(f"{study} exists; --force overwrites it")
    text = template(study.name, preset)
    study.parent.mkdir(parents=True, exist_ok=True)
    study.write_text(text)
    console.print(f"Wrote {study}. Next: hadas run {study}", soft_wrap=True)


@app.command(epilog="Example:  hadas measure my.yaml")
def measure(study: StudyFile, adopt: Adopt = False) -> None:
    """Measure what is planned: the seed points first, later what `suggest` asked for."""
    opened = _open(study, adopt)
    with _progress() as progress:
        opened.measure(progress)
    _print_round(opened, opened.findings.summaries()[-1])


@app.command(epilog="Example:  hadas fit my.yaml")
def fit(study: StudyFile, adopt: Adopt = False) -> None:
    """Fit the predictors to all valid rows; show the cross-validated choice per quantity."""
    from .study.tables import model_rows

    opened = _open(study, adopt)
    with _progress() as progress:
        opened.fit(progress)
    table = Table("quantity", "model", "rows", "cross-validated scores", title="predictors")
    for row in model_rows(opened):
        table.add_row(*row)
    console.print(table)


@app.command(epilog="Example:  hadas search my.yaml")
def search(study: StudyFile, adopt: Adopt = False) -> None:
    """Run the nested search on the predictors and show the predicted front."""
    from .study.tables import design_columns, predicted_columns, predicted_front_rows

    opened = _open(study, adopt)
    with _progress() as progress:
        opened.search(progress)
    columns = (*design_columns(opened), *predicted_columns(opened))
    table = Table(*columns, title=f"predicted front{_mark(opened)}")
    for row in predicted_front_rows(opened):
        table.add_row(*row)
    console.print(table)


@app.command(epilog="Example:  hadas suggest my.yaml -n 8")
def suggest(
    study: StudyFile,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="How many points; default: the study's batch.")
    ] = None,
    design: Annotated[
        Path | None,
        typer.Option(help="Plan the designs of this YAML file instead (preset or genes, exits, clocks_hz)."),
    ] = None,
    adopt: Adopt = False,
) -> None:
    """Pick the points most worth measuring next, and say why."""
    from .study.tables import design_columns, suggestion_rows
    from .study.wishes import read_designs

    opened = _open(study, adopt)
    with _progress() as progress:
        if design is None:
            opened.suggest(n, progress)
        else:
            opened.plan(read_designs(design, opened.parts.space, opened.parts.table), progress)
    table = Table(*design_columns(opened), "expected gain", "cost, s", "why", title="measure next")
    for row in suggestion_rows(opened):
        table.add_row(*row)
    console.print(table)
    console.print(f"Next: hadas measure {study}", soft_wrap=True)


@app.command(epilog="Example:  hadas run my.yaml      (interrupt at any time; the same command continues)")
def run(study: StudyFile, adopt: Adopt = False) -> None:
    """Do the whole loop: seeds, rounds of fit, search, suggest, measure, then baselines and report."""
    _run(_open(study, adopt))


@app.command(epilog="Example:  hadas status my.yaml")
def status(study: StudyFile) -> None:
    """Say what the study has measured, what it cost, and what comes next."""
    opened = _open(study)
    table = Table(title=f"study {opened.config.study}{_mark(opened)}", show_header=False)
    from .study.tables import status_rows

    for name, value in status_rows(opened):
        table.add_row(name, value)
    console.print(table)


@app.command(epilog="Example:  hadas report my.yaml")
def report(study: StudyFile, adopt: Adopt = False) -> None:
    """Write report.html (one file, opens offline) with PNG and CSV beside it."""
    from .study.reporting import write_study_report

    with _progress() as progress:
        page = write_study_report(_open(study, adopt), progress)
    console.print(f"Report: {page}", soft_wrap=True)


@app.command(epilog="Example:  hadas demo")
def demo(
    directory: Annotated[Path, typer.Option(help="Where the study, its store and its report go.")] = Path(
        "runs/demo"
    ),
    preset: Annotated[str, typer.Option(help="demo: about 5 minutes on 2 cores; smoke: seconds.")] = "demo",
) -> None:
    """Run the whole loop on the bundled digits images and a simulated Jetson TX2 GPU."""
    from .study.config import template

    path = directory / "study.yaml"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template(path.name, preset))
    console.print(
        f"The whole loop on real images (scikit-learn's digits) and a [bold]SIMULATED[/] Jetson TX2 GPU: "
        f"about 5 minutes on 2 cores, nothing more to download. Interrupt at any time; the same command continues. "
        f"Study file: {path}",
        soft_wrap=True,
    )
    _run(_open(path))


@app.command(epilog="Example:  hadas space attentivenas")
def space(
    name: Annotated[str, typer.Argument(help="attentivenas or mini")],
    classes: Annotated[int, typer.Option(help="Classes of the classifier.")] = 1000,
) -> None:
    """Describe a backbone space: its size, its genes, its named backbones and their work."""
    from .spaces import space_by_name

    chosen = space_by_name(name)
    console.print(
        f"{name}: {chosen.cardinality:,} backbones of up to {chosen.max_blocks} blocks, "
        f"{len(chosen.variables)} genes, exits after block {chosen.first_exit} or later"
    )
    genes = Table("gene", "choices")
    for variable in chosen.variables:
        genes.add_row(variable.name, " ".join(map(str, variable.choices)))
    console.print(genes)
    presets = Table(
        "preset",
        "blocks",
        "exit positions",
        "MACs, M",
        "parameters, M",
        "resolution",
        title=f"at {classes} classes",
    )
    for preset, backbone in chosen.presets.items():
        work = chosen.workload(backbone, n_classes=classes)
        presets.add_row(
            preset,
            str(backbone.n_blocks),
            str(work.n_positions),
            f"{work.macs / 1e6:.1f}",
            f"{work.params / 1e6:.2f}",
            str(backbone.resolution),
        )
    console.print(presets)


def _mark(study: Study) -> str:
    return " (SIMULATED device)" if study.simulated else ""


def _run(study: Study) -> None:
    from .study.reporting import statements, write_study_report

    with _progress() as progress:
        for summary in study.run(progress):
            _print_round(study, summary)
        page = write_study_report(study, progress)
    for line in statements(study):
        console.print(f"- {line}", soft_wrap=True, highlight=False)
    console.print(f"Report: {page}", soft_wrap=True)


def _print_round(study: Study, summary: RoundSummary) -> None:
    from .study.tables import cost_columns, design_columns, front_rows, round_line

    columns = (*design_columns(study), "accuracy, %", *cost_columns(study))
    table = Table(*columns, title=f"round {summary.round}: measured front{_mark(study)}")
    for row in front_rows(study, summary.round + 1):
        table.add_row(*row)
    console.print(table)
    console.print(round_line(summary), soft_wrap=True, highlight=False)


def main() -> None:
    """Entry point: errors of the input end with one line and exit status 2."""
    # GPyTorch and BoTorch import a deprecated part of torch; that is none of the user's business.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.*")
    try:
        app(standalone_mode=True)
    except HadasError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {error}", soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
