"""The loop, step by step or as a whole: measure, fit; run, status, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError, InfeasibleError
from .devices import DevicesFile
from .edge import edge_report, edge_status, run_edge
from .networks import NamedNetworks, measure_networks
from .opening import Adopt, Cluster, NWorkers, StudyFile, Workers, is_edge_study, named_places, open_study
from .printing import console, cost_mark, print_table, say, showing_progress

if TYPE_CHECKING:
    from ..study import Study
    from ..study.budget import Budget
    from ..study.journal import RoundSummary


_NAMED = "Options without a study: networks by name"


def measure(
    study: Annotated[
        Path | None, typer.Argument(help="The study's YAML file; leave it out to measure networks by name.")
    ] = None,
    accuracy: Annotated[
        bool,
        typer.Option("--accuracy", help="Measure only accuracies; a later `hadas measure` does the costs."),
    ] = False,
    workers: Workers = None,
    n_workers: NWorkers = None,
    cluster: Cluster = None,
    compute: Annotated[
        str | None, typer.Option(help="Where each accuracy job computes: cpu, cuda, auto.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_NAMED,
            help="Measure on host, cuda, or a device of the devices file; several of one kind with "
            "commas between.",
        ),
    ] = None,
    devices_file: DevicesFile = None,
    networks: Annotated[
        str,
        typer.Option(
            rich_help_panel=_NAMED,
            help="Which: presets of the space, smallest, largest; presets = all of them.",
        ),
    ] = "presets",
    exits: Annotated[
        str,
        typer.Option(
            rich_help_panel=_NAMED,
            help="Where exits stand: none, all, even:N (evenly spread), or block indices such as 5,8.",
        ),
    ] = "even:2",
    clocks: Annotated[
        str,
        typer.Option(
            rich_help_panel=_NAMED,
            help="At which clocks: max, min, all, or e.g. 'gpu=854.25MHz emc=1600MHz' (no unit: Hz).",
        ),
    ] = "max",
    space: Annotated[
        str, typer.Option(rich_help_panel=_NAMED, help="Whose networks: attentivenas or mini.")
    ] = "attentivenas",
    classes: Annotated[
        int, typer.Option(min=2, rich_help_panel=_NAMED, help="Outputs of each classifier.")
    ] = 100,
    program: Annotated[
        str,
        typer.Option(
            rich_help_panel=_NAMED,
            help="What is compiled: stages (one program per stage) or prefix (one per exit).",
        ),
    ] = "stages",
    protocol: Annotated[
        str,
        typer.Option(
            rich_help_panel=_NAMED,
            help="How it is measured: full, or quick (about a second per network, energy not to trust).",
        ),
    ] = "full",
    repeat: Annotated[int, typer.Option(min=1, rich_help_panel=_NAMED, help="Sweeps over all networks.")] = 1,
    log: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_NAMED,
            help="Rows go here, and the same command continues it; default: runs/measured/.",
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a device that somebody holds.")
    ] = 0.0,
    adopt: Adopt = False,
) -> None:
    """Measure what a study has planned: the seed points first, later what `suggest` asked for.

    Its options override the study file's section `accuracy` for this time. Without a study, measure
    latency and energy of networks by name, with exits on fresh weights, into a log.
    """
    if study is None:
        wanted = NamedNetworks(space, networks, exits, clocks, classes, repeat)
        _measure_networks(wanted, device, devices_file, program, protocol, log, wait)
        return
    if device is not None or devices_file is not None:
        raise ConfigError(
            f"the device of {study} is what its section 'device' says; --device measures networks by name, without a "
            "study (accuracy jobs on a GPU: --compute cuda)"
        )
    opened = open_study(study, adopt, named_places(workers, n_workers, cluster, compute))
    if accuracy:
        _measure_accuracy(opened)
        return
    with showing_progress() as progress:
        opened.measure(progress)
    _print_round(opened, opened.findings.summaries()[-1])


def _measure_networks(
    wanted: NamedNetworks, device: str | None, devices_file: Path | None, program: str, protocol: str,
    log: Path | None, wait_s: float,
) -> None:  # fmt: skip
    if device is None:
        raise ConfigError("name a study's file, or a device to measure networks on, e.g. --device host")
    if program not in ("stages", "prefix"):
        raise ConfigError(f"--program {program}: must be stages or prefix")
    names = [name.strip() for name in device.split(",") if name.strip()]
    measure_networks(
        wanted, names, devices_file, program="prefix" if program == "prefix" else "stages", protocol=protocol,
        log=log, seed=0, wait_s=wait_s,
    )  # fmt: skip


def _measure_accuracy(study: Study) -> None:
    with showing_progress() as progress:
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


def fit(
    study: StudyFile,
    new_only: Annotated[
        bool,
        typer.Option(
            "--new-only",
            help="Adopt cost rows that arrived in the store (`hadas logs import`, other studies of the same "
            "device), fit again, and say what they changed and whether the device has drifted.",
        ),
    ] = False,
    accept_drift: Annotated[
        bool,
        typer.Option(
            "--accept-drift",
            help="With --new-only: adopt rows even if they are several times what was predicted (a wrong unit, mostly).",
        ),
    ] = False,
    forget: Annotated[
        int | None,
        typer.Option(
            min=1, help="Take back the adoption of this number (see `hadas status`) and what it changed."
        ),
    ] = None,
    leave_out: Annotated[
        str | None, typer.Option(help="Never adopt the rows of this session that have arrived so far.")
    ] = None,
    adopt: Adopt = False,
) -> None:
    """Fit the predictors to all valid rows; show the cross-validated choice per quantity.

    Their intervals are then checked, and corrected, by predicting measured backbones that were held out in turn.
    """
    from ..study.tables import model_rows

    if sum((new_only, forget is not None, leave_out is not None)) > 1 or (accept_drift and not new_only):
        raise ConfigError(
            "--new-only (with or without --accept-drift), --forget and --leave-out exclude each other"
        )
    opened = open_study(study, adopt)
    if new_only:
        _fit_new(opened, accept_drift)
        return
    if leave_out is not None:
        _leave_out(opened, leave_out)
        return
    if forget is not None:
        _forget(opened, forget)
    with showing_progress() as progress:
        opened.fit(progress)
    columns = ("quantity", "model", "rows", "cross-validated scores")
    print_table(f"predictors{cost_mark(opened)}", columns, model_rows(opened))


def _leave_out(study: Study, session: str) -> None:
    from ..study.arrivals import leave_out

    n = leave_out(study, session)
    console.print(escape(f"{n} rows of {session} will not be adopted."), soft_wrap=True, highlight=False)


def _forget(study: Study, number: int) -> None:
    from ..study.arrivals import forget

    with showing_progress() as progress:
        undone = forget(study, number, progress)
    console.print(
        f"adoption {number} is taken back: its {undone[0].n_rows} rows are trained on no more, and nothing is "
        "brought to their level",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    if later := ", ".join(str(adoption.number) for adoption in undone[1:]):
        console.print(
            f"so are the later ones ({later}), which were judged by it; adopt them anew: "
            f"hadas fit {escape(str(study.path))} --new-only",
            soft_wrap=True, highlight=False,
        )  # fmt: skip


def _fit_new(study: Study, accept_drift: bool) -> None:
    from ..study.arrivals import fit_new
    from ..study.tables import CHANGE_COLUMNS, change_rows, change_verdicts

    with showing_progress() as progress:
        change, arrivals = fit_new(study, progress, accept_drift=accept_drift)
    for reason, n in arrivals.refused.items():
        console.print(escape(f"not used: {n} cost rows {reason}"), soft_wrap=True, highlight=False)
    if change is None:
        console.print(
            f"No cost rows have arrived that study '{study.config.study}' does not know and can use: "
            "nothing to fit.",
            soft_wrap=True,
            highlight=False,
        )
        return
    print_table(f"{change.target_id}{cost_mark(study)}", CHANGE_COLUMNS, change_rows(change))
    for line in change_verdicts(change, study.path):
        console.print(escape(f"- {line}"), soft_wrap=True, highlight=False)


def run(
    study: StudyFile,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Wall-clock time that the study may take in all, e.g. 90m, 24h, 1.5d: as many seeds and rounds as "
            "fit, instead of learning.rounds."
        ),
    ] = None,
    adopt: Adopt = False,
) -> None:
    """Do the whole loop: seeds, rounds of fit, search, suggest, measure, then baselines and report.

    It ends after `learning.rounds` rounds, or earlier once the best batch is expected to gain next to nothing
    (`learning.stop_gain`, `learning.stop_rounds`).

    With `--budget` it goes on for as many rounds as fit. What earlier runs spent counts, by what their rows took; a
    step that would not fit is not begun, so no measurement is cut short, and the report is written with what is
    there, once the seeds are measured. A budget decides how many seeds are planned and when the loop ends, never
    which points a round measures: the same command with a larger budget goes on as if it had been given at once.

    A study of `system: edge` trains networks in rounds likewise, and takes no budget.
    """
    from ..study.budget import Budget
    from ..study.ledger import parse_budget

    if is_edge_study(study):
        run_edge(study, budget, adopt)
        return
    budget_s = None if budget is None else parse_budget(budget)
    opened = open_study(study, adopt)
    run_whole_loop(opened, None if budget_s is None else Budget(opened, budget_s))


def run_whole_loop(study: Study, budget: Budget | None = None) -> None:
    """Run or continue the loop; print every round, what was found, and where the report is.

    Raises:
        InfeasibleError: the search found nothing that meets the constraints; the report is written before.
    """
    from ..study.reporting import statements, write_study_report
    from ..study.stopping import stop_reason

    if budget is not None:
        say(f"budget: {budget.standing()}")
    with showing_progress() as progress:
        infeasible: InfeasibleError | None = None
        try:
            for summary in study.run(progress, budget):
                _print_round(study, summary)
                if budget is not None:
                    say(f"budget: {budget.standing()}")
        except InfeasibleError as error:
            infeasible = error  # what was measured is reported before
        if reason := stop_reason(study):
            say(f"stopped: {reason} (learning.stop_gain)")
        if budget is not None and budget.stopped is not None:
            say(budget.verdict())
            if not study.findings.n_measured_rounds:
                say("no report is written: the seeds are not measured yet")
                budget.note()
                return
        page = write_study_report(study, progress)
    if budget is not None:
        budget.note()
    for line in statements(study):
        say(f"- {line}")
    console.print(escape(f"Report: {page}"), soft_wrap=True)
    if infeasible is not None:
        raise infeasible


def _print_round(study: Study, summary: RoundSummary) -> None:
    from ..study.tables import (
        constraints_line,
        cost_columns,
        design_columns,
        failed_line,
        front_rows,
        round_line,
    )

    columns = (*design_columns(study), "accuracy, %", *cost_columns(study))
    title = f"round {summary.round}: measured front{cost_mark(study)}"
    if rows := front_rows(study, summary.round + 1):
        print_table(title, columns, rows)
    console.print(escape(round_line(summary, truth=study.truth)), soft_wrap=True, highlight=False)
    for line in (failed_line(study, summary.round), constraints_line(study, summary.round + 1)):
        if line:
            say(line)


def status(study: StudyFile) -> None:
    """Say what the study has measured, what it cost, and what comes next."""
    from ..study import Study
    from ..study.tables import status_rows

    if is_edge_study(study):
        edge_status(study)
        return
    opened = Study.open(study)
    table = Table(title=f"study {opened.config.study}{cost_mark(opened)}", show_header=False)
    for name, value in status_rows(opened):
        table.add_row(escape(name), escape(value))
    console.print(table)


def report(study: StudyFile, adopt: Adopt = False) -> None:
    """Write report.html (one file, opens offline) with PNG and CSV beside it."""
    from ..study.reporting import write_study_report

    if is_edge_study(study):
        edge_report(study, adopt)
        return
    with showing_progress() as progress:
        page = write_study_report(open_study(study, adopt), progress)
    console.print(escape(f"Report: {page}"), soft_wrap=True)
