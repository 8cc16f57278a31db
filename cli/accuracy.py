"""What goes with accuracies: train the supernet, compare runtime policies, plan a budget."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..errors import HadasError
from .opening import Adopt, Cluster, NWorkers, StudyFile, Workers, named_places, open_study
from .printing import console, print_table

if TYPE_CHECKING:
    from ..study import Study


def train(study: StudyFile, adopt: Adopt = False) -> None:
    """Train the study's supernet, go on with an unfinished one, or find the finished one.

    `measure` and `run` do this too when they need it; several processes train only here.
    """
    from ..measurement.accuracy.distributed import launched_rank

    if launched_rank() == 0:
        _train(open_study(study, adopt))
    else:
        _train_along(study)


def _train(study: Study) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ..study.ledger import duration

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
    )
    losses: list[float] = []
    began = time.monotonic()

    def advance(phase: str, done: int, total: int, note: str = "") -> None:
        bar.update(task, completed=done, total=total, loss=losses[-1])
        if not console.is_terminal and 10 * done // total > 10 * (done - 1) // total:  # in a log, ten lines
            spent = duration(time.monotonic() - began)
            console.print(
                f"step {done} of {total}: loss {losses[-1]:.3f}, {spent}", soft_wrap=True, highlight=False
            )

    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", loss=float("nan"))
        trained = study.train(advance, losses.append)
    took = f"its training took {trained.seconds:.1f} s" if trained.seconds else "trained elsewhere"
    said = f"last loss of the largest backbone {losses[-1]:.3f}" if losses else "finished before"
    console.print(
        escape(f"Supernet: {trained.path} (weights {trained.weights_id}; {said}; {took})"), soft_wrap=True
    )


def _train_along(path: Path) -> None:
    """Take part in the training of the first process, which alone locks, stores, prints and complains."""
    from ..study.assembly import Assembly
    from ..study.config import load_config

    try:
        Assembly(load_config(path), path.parent).trained_supernet(lambda phase, done, total, note="": None)
    except HadasError:
        sys.exit(2)


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
    from ..study import Study
    from ..study import policies_view as view

    opened = Study.open(study)
    limits = view.PolicyLimits(tolerance, epsilon, delta)
    if backbone is None:
        compared = view.front_comparisons(opened, limits)
    else:
        compared = [view.backbone_comparison(opened, backbone, limits)]
    if csv is not None:
        view.write_policies_csv(compared, csv)
    for comparison in compared:
        print_table(comparison.title, comparison.columns, comparison.cells())
    for note in view.notes(opened, compared, limits):
        console.print(escape(f"- {note}"), soft_wrap=True, highlight=False)


def plan(
    study: StudyFile,
    budget: Annotated[str, typer.Option(help="Time to spend: 3600s, 90m, 24h, 1.5d.")],
    per_backbone_points: Annotated[
        int | None,
        typer.Option(min=1, help="Cost rows per backbone; default: the study's learning.seed_settings."),
    ] = None,
    workers: Workers = None,
    n_workers: NWorkers = None,
    cluster: Cluster = None,
) -> None:
    """Say what was spent, what one backbone and one device point cost, and how many a budget buys.

    Options say how accuracies will be measured, instead of the study file's section `accuracy`. What no row
    tells yet is left out; a device that has measured nothing is priced by its protocol, and labelled so.
    """
    from ..study import Study
    from ..study.ledger import Ledger, parse_budget
    from ..study.tables import marked, split_rows, unit_cost_rows

    budget_s = parse_budget(budget)
    ledger = Ledger(Study.open(study, places=named_places(workers, n_workers, cluster)))
    print_table("spent so far", ("on", "how much"), ledger.spent())
    columns = ("one", "on", "n", "median", "range", "measured by")
    print_table("unit costs", columns, unit_cost_rows(ledger))
    splits = ledger.splits(
        budget_s, per_backbone_points
    )  # what is known is shown before this says what lacks
    side = f", {ledger.n_workers} accuracy jobs at a time" if ledger.n_workers > 1 else ""
    title = f"what {budget} buys{side}{marked(ledger.truth.mark)}"
    print_table(title, ("split", "backbones", "device points", "takes"), split_rows(splits))
    left_s = ledger.training_s_left()
    if left_s:
        console.print(escape(f"A supernet's training comes first: {left_s:.0f} s of it."), soft_wrap=True)
