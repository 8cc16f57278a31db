"""The ``hadas`` command.

Only this module prints.  Heavy libraries are imported inside the commands, so that
``hadas --help`` answers at once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
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
_INTERRUPTED = 130

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


def _open(path: Path, adopt: bool = False, places: Mapping[str, Any] | None = None) -> Study:
    """Open a study to work on it, as the only process that does."""
    from .study import Study

    study = Study.open(path, adopt=adopt, places=places)
    study.lock()
    return study


def _print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*map(escape, columns), title=escape(title))
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _write_study_file(path: Path, preset: str, changes: Mapping[str, Any] | None = None) -> None:
    """Write a preset's study file, with some fields changed, and the folders above it.

    Raises:
        ConfigError: no such preset (then nothing is written), or no place for a file.
    """
    from .study.config import template

    text = template(path.name, preset, changes)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file in it, e.g. {path / 'study.yaml'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}: {error.filename}); name a file in a folder of yours"
        ) from error


@app.command(
    epilog="Examples:  hadas init my.yaml --preset demo;  hadas init my.yaml --checkpoint attentive_nas.pth.tar "
    "--data cifar100 --data-path data"
)
def init(
    study: StudyFile,
    preset: Annotated[
        str | None,
        typer.Option(
            help="demo: minutes on a laptop; smoke: seconds, to try things out; gpu: CIFAR in the AttentiveNAS "
            "space.  [default: demo, or with --checkpoint what suits it]"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A supernet's weights: a published AttentiveNAS file, or one that hadas trained. Used unchanged if "
            "it is for as many classes as the images have, else fine-tuned with a fresh classifier."
        ),
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take state_dict_ema of the checkpoint.")] = False,
    data: Annotated[
        str | None, typer.Option(help="Images: digits (embedded), cifar10, cifar100, tiny-imagenet.")
    ] = None,
    data_path: Annotated[Path | None, typer.Option(help="Folder that holds the images.")] = None,
) -> None:
    """Write a commented study file; check the checkpoint that it is to start from."""
    if study.is_file() and not force:
        raise ConfigError(f"{study} exists; --force overwrites it")
    changes: dict[str, Any] = {}
    if checkpoint is not None:
        from .study.adoption import adopt_checkpoint

        changes, found = adopt_checkpoint(checkpoint, data=data, data_path=data_path, ema=ema)
        console.print(escape(found), soft_wrap=True, highlight=False)
        preset = preset or ("gpu" if changes["space"] == "attentivenas" else "demo")
    elif ema:
        raise ConfigError("--ema chooses weights within a checkpoint; name one with --checkpoint FILE")
    elif data or data_path:
        folder = None if data_path is None else str(data_path.resolve())
        changes = {"data": {k: v for k, v in (("name", data), ("path", folder)) if v}}
    _write_study_file(study, preset or "demo", changes)
    console.print(escape(f"Wrote {study}. Next: hadas run {study}"), soft_wrap=True)


@app.command(
    epilog="Examples:  hadas train my.yaml      (interrupt at any time; the same command continues)\n\n"
    "On all GPUs of a machine:  torchrun --nproc-per-node 4 -m hadas.cli train my.yaml"
)
def train(study: StudyFile, adopt: Adopt = False) -> None:
    """Train the study's supernet, go on with an unfinished one, or find the finished one.

    `measure` and `run` do this too when they need it; several processes train only here.
    """
    from .measurement.accuracy.distributed import launched_rank

    if launched_rank() == 0:
        _train(_open(study, adopt))
    else:
        _train_along(study)


def _train(study: Study) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
    )
    losses: list[float] = []
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", loss=float("nan"))
        trained = study.parts.trained_supernet(
            lambda _, done, total: bar.update(task, completed=done, total=total, loss=losses[-1]),
            losses.append,
        )
    took = f"its training took {trained.seconds:.1f} s" if trained.seconds else "trained elsewhere"
    said = f"last loss of the largest backbone {losses[-1]:.3f}" if losses else "finished before"
    console.print(
        escape(f"Supernet: {trained.path} (weights {trained.weights_id}; {said}; {took})"), soft_wrap=True
    )


def _train_along(path: Path) -> None:
    """Take part in the training of the first process, which alone locks, stores, prints and complains."""
    from .study.assembly import Assembly
    from .study.config import load_config

    try:
        Assembly(load_config(path), path.parent).trained_supernet(lambda phase, done, total: None)
    except HadasError:
        sys.exit(2)


@app.command(
    epilog="Examples:  hadas measure my.yaml;  hadas measure my.yaml --accuracy --workers processes --n-workers 4;  "
    "hadas measure my.yaml --accuracy --cluster tcp://host:8786"
)
def measure(
    study: StudyFile,
    accuracy: Annotated[
        bool,
        typer.Option("--accuracy", help="Measure only accuracies; a later `hadas measure` does the costs."),
    ] = False,
    workers: Annotated[
        str | None,
        typer.Option(help="Measure accuracies on: threads, processes, gpus (a process each), dask."),
    ] = None,
    n_workers: Annotated[int | None, typer.Option(min=1, help="How many of them.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, whose workers measure accuracies.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where each of them computes: cpu, cuda, auto.")] = None,
    adopt: Adopt = False,
) -> None:
    """Measure what is planned: the seed points first, later what `suggest` asked for.

    Options override the study file's section `accuracy` for this time.
    """
    given = {"workers": workers, "n_workers": n_workers, "cluster": cluster, "device": device}
    opened = _open(study, adopt, {name: value for name, value in given.items() if value is not None})
    if accuracy:
        _measure_accuracy(opened)
        return
    with _progress() as progress:
        opened.measure(progress)
    _print_round(opened, opened.findings.summaries()[-1])


def _measure_accuracy(study: Study) -> None:
    with _progress() as progress:
        records = study.measure_accuracy(progress)
    if not records:
        console.print("Nothing is planned that is not measured. Next: hadas suggest")
        return
    failed = [record for record in records if not record.valid]
    console.print(
        escape(
            f"accuracies of {len(records)} backbones are in the store, {len(failed)} of them invalid. "
            f"Next: hadas measure {study.path}"
        ),
        soft_wrap=True,
        highlight=False,
    )
    for record in failed:
        console.print(escape(f"- {study.findings.name(record.backbone)}: {record.reason}"), soft_wrap=True)


@app.command(epilog="Example:  hadas plan my.yaml --budget 24h")
def plan(
    study: StudyFile,
    budget: Annotated[str, typer.Option(help="Time to spend: 3600s, 90m, 24h, 1.5d.")],
    per_backbone_points: Annotated[
        int | None,
        typer.Option(min=1, help="Cost rows per backbone; default: the study's learning.seed_settings."),
    ] = None,
) -> None:
    """Say what was spent, what one backbone and one device point cost, and how many a budget buys."""
    from .study import Study
    from .study.ledger import Ledger, parse_budget
    from .study.tables import split_rows, unit_cost_rows

    budget_s = parse_budget(budget)
    ledger = Ledger(Study.open(study))
    splits = ledger.splits(budget_s, per_backbone_points)
    _print_table("spent so far", ("on", "how much"), ledger.spent())
    columns = ("one", "on", "n", "median", "range", "measured by")
    _print_table("unit costs", columns, unit_cost_rows(ledger))
    mark = " (SIMULATED device)" if ledger.simulated else ""
    side = f", {ledger.n_workers} accuracy jobs at a time" if ledger.n_workers > 1 else ""
    title = f"what {budget} buys{side}{mark}"
    _print_table(title, ("split", "backbones", "device points", "takes"), split_rows(splits))
    left_s = ledger.training_s_left()
    if left_s:
        console.print(escape(f"A supernet's training comes first: {left_s:.0f} s of it."), soft_wrap=True)


@app.command(epilog="Example:  hadas fit my.yaml")
def fit(study: StudyFile, adopt: Adopt = False) -> None:
    """Fit the predictors to all valid rows; show the cross-validated choice per quantity."""
    from .study.tables import model_rows

    opened = _open(study, adopt)
    with _progress() as progress:
        opened.fit(progress)
    columns = ("quantity", "model", "rows", "cross-validated scores")
    _print_table(f"predictors{_mark(opened)}", columns, model_rows(opened))


@app.command(epilog="Example:  hadas search my.yaml")
def search(study: StudyFile, adopt: Adopt = False) -> None:
    """Run the nested search on the predictors and show the predicted front."""
    from .study.tables import design_columns, predicted_columns, predicted_front_rows

    opened = _open(study, adopt)
    with _progress() as progress:
        opened.search(progress)
    columns = (*design_columns(opened), *predicted_columns(opened))
    _print_table(f"predicted front{_mark(opened)}", columns, predicted_front_rows(opened))


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

    if n is not None and design is not None:
        raise ConfigError("-n and --design exclude each other: a file is planned whole; drop one of the two")
    opened = _open(study, adopt)
    with _progress() as progress:
        if design is None:
            opened.suggest(n, progress)
        else:
            opened.plan(read_designs(design, opened.parts.space, opened.parts.table), progress)
    columns = (*design_columns(opened), "expected gain", "cost, s", "why")
    _print_table(f"measure next{_mark(opened)}", columns, suggestion_rows(opened))
    console.print(escape(f"Next: hadas measure {study}"), soft_wrap=True)


@app.command(epilog="Example:  hadas run my.yaml      (interrupt at any time; the same command continues)")
def run(study: StudyFile, adopt: Adopt = False) -> None:
    """Do the whole loop: seeds, rounds of fit, search, suggest, measure, then baselines and report."""
    _run(_open(study, adopt))


@app.command(epilog="Example:  hadas status my.yaml")
def status(study: StudyFile) -> None:
    """Say what the study has measured, what it cost, and what comes next."""
    from .study import Study
    from .study.tables import status_rows

    opened = Study.open(study)
    table = Table(title=f"study {opened.config.study}{_mark(opened)}", show_header=False)
    for name, value in status_rows(opened):
        table.add_row(escape(name), escape(value))
    console.print(table)


@app.command(epilog="Example:  hadas report my.yaml")
def report(study: StudyFile, adopt: Adopt = False) -> None:
    """Write report.html (one file, opens offline) with PNG and CSV beside it."""
    from .study.reporting import write_study_report

    with _progress() as progress:
        page = write_study_report(_open(study, adopt), progress)
    console.print(escape(f"Report: {page}"), soft_wrap=True)


@app.command(
    epilog="Examples:  hadas policies my.yaml\n\n"
    "hadas policies my.yaml --backbone largest --tolerance 0.02 --csv policies.csv"
)
def policies(
    study: StudyFile,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="A measured backbone (preset, smallest, largest, arch_id) with all its exits; default: the front."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, max=0.5, help="Accuracy thresholds may lose, a fraction; default: the study's."),
    ] = None,
    epsilon: Annotated[
        float, typer.Option(help="Risk-controlled: largest share of images that leaving early turns wrong.")
    ] = 0.02,
    delta: Annotated[
        float, typer.Option(help="Risk-controlled: chance that the share is larger nevertheless.")
    ] = 0.1,
    csv: Annotated[Path | None, typer.Option(help="Also write all rows, unrounded, to this file.")] = None,
) -> None:
    """Compare ways to decide when an image leaves, on what is measured: accuracy, cost, who leaves where.

    An exit may let an image go when it is sure enough (max-softmax, margin or entropy reach a threshold),
    when some exits agree (patience), or by one threshold that provably loses little (risk-controlled).
    Thresholds come from the calibration split, figures from the test split. Changes nothing.
    """
    from .study import Study
    from .study import policies_view as view

    opened = Study.open(study)
    limits = view.PolicyLimits(tolerance, epsilon, delta)
    if backbone is None:
        compared = view.front_comparisons(opened, limits)
    else:
        compared = [view.backbone_comparison(opened, backbone, limits)]
    if csv is not None:
        view.write_policies_csv(compared, csv)
    for comparison in compared:
        _print_table(comparison.title, comparison.columns, comparison.cells())
    for note in view.notes(opened, compared, limits):
        console.print(escape(f"- {note}"), soft_wrap=True, highlight=False)


_DEMO_TAKES = {"demo": "about 5 minutes on 2 cores", "smoke": "less than a minute on 2 cores"}


@app.command(epilog="Example:  hadas demo")
def demo(
    directory: Annotated[Path, typer.Option(help="Where the study, its store and its report go.")] = Path(
        "runs/demo"
    ),
    preset: Annotated[str, typer.Option(help="demo: about 5 minutes on 2 cores; smoke: seconds.")] = "demo",
) -> None:
    """Run the whole loop on the bundled digits images and a simulated Jetson TX2 GPU."""
    from .study.config import PRESETS, load_config, validate_config

    path = directory / "study.yaml"
    if preset not in _DEMO_TAKES:
        raise ConfigError(f"no preset '{preset}'; known: {sorted(_DEMO_TAKES)}")
    takes = _DEMO_TAKES[preset]
    if not path.is_file():
        _write_study_file(path, preset)
    elif load_config(path) != validate_config(PRESETS[preset], source=f"preset {preset}"):
        takes = f"{path} is there and differs from preset '{preset}', so the study in it continues"
    console.print(
        "The whole loop on real images (scikit-learn's digits) and a [bold]SIMULATED[/] Jetson TX2 GPU: "
        + escape(
            f"{takes}, nothing more to download. Interrupt at any time; the same command continues. "
            f"Study file: {path}"
        ),
        soft_wrap=True,
    )
    _run(_open(path))


@app.command(epilog="Example:  hadas space attentivenas")
def space(
    name: Annotated[str, typer.Argument(help="attentivenas or mini")],
    classes: Annotated[int, typer.Option(min=2, help="Classes of the classifier.")] = 1000,
) -> None:
    """Describe a backbone space: its size, its genes, its named backbones and their work."""
    from .spaces import space_by_name

    chosen = space_by_name(name)
    console.print(
        f"{name}: {chosen.cardinality:,} backbones of up to {chosen.max_blocks} blocks, "
        f"{len(chosen.variables)} genes, exits after block {chosen.first_exit} or later"
    )
    _print_table("", ("gene", "choices"), ((v.name, " ".join(map(str, v.choices))) for v in chosen.variables))
    presets = []
    for preset, backbone in chosen.presets.items():
        work = chosen.workload(backbone, n_classes=classes)
        presets.append(
            (
                preset,
                str(backbone.n_blocks),
                str(work.n_positions),
                f"{work.macs / 1e6:.1f}",
                f"{work.params / 1e6:.2f}",
                str(backbone.resolution),
            )
        )
    columns = ("preset", "blocks", "exit positions", "MACs, M", "parameters, M", "resolution")
    _print_table(f"at {classes} classes", columns, presets)


def _mark(study: Study) -> str:
    return " (SIMULATED device)" if study.simulated else ""


def _run(study: Study) -> None:
    from .study.reporting import statements, write_study_report

    with _progress() as progress:
        for summary in study.run(progress):
            _print_round(study, summary)
        page = write_study_report(study, progress)
    for line in statements(study):
        console.print(escape(f"- {line}"), soft_wrap=True, highlight=False)
    console.print(escape(f"Report: {page}"), soft_wrap=True)


def _print_round(study: Study, summary: RoundSummary) -> None:
    from .study.tables import cost_columns, design_columns, front_rows, round_line

    columns = (*design_columns(study), "accuracy, %", *cost_columns(study))
    title = f"round {summary.round}: measured front{_mark(study)}"
    _print_table(title, columns, front_rows(study, summary.round + 1))
    console.print(escape(round_line(summary, simulated=study.simulated)), soft_wrap=True, highlight=False)


def main() -> None:
    """Entry point: errors of the input end with one line and exit status 2, an interrupt with 130."""
    # GPyTorch and BoTorch import a deprecated part of torch; that is none of the user's business.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.*")
    errors = Console(stderr=True, highlight=False)
    try:
        app(standalone_mode=True)
    except HadasError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            errors.print("interrupted; the same command continues")
        raise


if __name__ == "__main__":
    main()
