"""What to measure next: the nested search, and the points that it suggests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..errors import ConfigError
from .opening import Adopt, StudyFile, open_study
from .printing import console, cost_mark, print_table, say, showing_progress


def search(
    study: StudyFile,
    clocks_per_exit: Annotated[
        bool,
        typer.Option(
            "--clocks-per-exit",
            help="Also show what other clocks after each exit are predicted to bring. What a change of clocks costs "
            "decides; where the clock table does not say it, as on the simulator, name it with --switching-ms and "
            "--switching-mj (0 and 0: the most that free changes could bring).",
        ),
    ] = False,
    switching_ms: Annotated[
        float | None,
        typer.Option(min=0, help="Time of one change of clocks, ms; default: as the clock table says."),
    ] = None,
    switching_mj: Annotated[
        float | None, typer.Option(min=0, help="Energy of one change of clocks, mJ; likewise.")
    ] = None,
    adopt: Adopt = False,
) -> None:
    """Run the nested search on the predictors and show the predicted front.

    The outer engine looks for backbones, the inner one for the exits and clocks of each; how long and for what is
    said by the section `search` of the study file: a preset, constraints that every design has to keep to (latency,
    energy, accuracy, number of exits), and overrides, e.g. `{generations: 20, stagnation: 5}` to stop early or
    `{statistic: quantile}` to look at what is likely at worst instead of on average.

    Shown is what the search looked at; quantities that are limited and not searched for are medians over joint draws of
    the predictors. The column "meets constraints" is the share of the draws in which a member meets all of them, the
    column "on front" the probability that it is truly non-dominated: in that share of the draws nothing on the front, or
    near it, dominates it. The same rows give the same front; a search that was interrupted goes on where it stopped.
    """
    from ..study.predicted_front import FrontOutlook, exit_clock_front, front_confidence
    from ..study.predicted_tables import (
        exit_clock_line,
        exit_clock_rows,
        predicted_columns,
        predicted_front_note,
        predicted_front_rows,
    )
    from ..study.tables import design_columns

    if (switching_ms is not None or switching_mj is not None) and not clocks_per_exit:
        raise ConfigError("--switching-ms and --switching-mj go with --clocks-per-exit")
    if (switching_ms is None) != (switching_mj is None):
        raise ConfigError("--switching-ms and --switching-mj go together; 0 for what costs nothing")
    opened = open_study(study, adopt)
    with showing_progress() as progress:
        opened.search(progress)
        outlook = FrontOutlook.of(opened, progress)
        chances = front_confidence(opened, progress)
    columns = (*design_columns(opened), *predicted_columns(opened, outlook, chances=chances is not None))
    print_table(
        f"predicted front{cost_mark(opened)}", columns, predicted_front_rows(opened, outlook, chances)
    )
    say(predicted_front_note(opened))
    if clocks_per_exit:
        named = None
        if switching_ms is not None and switching_mj is not None:
            from ..spaces import SwitchingCost

            named = SwitchingCost(switching_ms, switching_mj)
        with showing_progress() as progress:
            found = exit_clock_front(opened, progress, named)
        columns = (*design_columns(opened), *predicted_columns(opened))
        for what, members in (
            ("one setting per design", found.single_members),
            ("clocks per exit", found.members),
        ):
            title = f"predicted front, {what}{cost_mark(opened)}"
            print_table(title, columns, exit_clock_rows(opened, members))
        say(exit_clock_line(found))


def suggest(
    study: StudyFile,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="How many points; default: the study's batch.")
    ] = None,
    design: Annotated[
        Path | None,
        typer.Option(help="Plan the designs of this YAML file instead (preset or genes, exits, clocks_hz)."),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Say for each point why it was chosen and what it is expected to bring."
        ),
    ] = False,
    more: Annotated[
        bool,
        typer.Option(
            "--more", help="Plan besides open plans, whose points count as if they had come out as predicted."
        ),
    ] = False,
    adopt: Adopt = False,
) -> None:
    """Pick the points most worth measuring next, and say why.

    Candidates come from nested searches on what the predictors expect and on joint draws of what may be. Chosen are
    those that together add most to the hypervolume of the measured front per second of measuring, an accuracy job
    of a new backbone included (`learning.strategy: hvi`); a share of them (`learning.information_share`) for what
    their measurement tells the predictors.

    The plan is written down with what is predicted of it, and checked against what is then measured. While a plan
    is open, the command shows it again, with `--explain` in words.
    """
    from ..study.tables import design_columns, explanation_lines, suggestion_rows
    from ..study.wishes import read_designs

    if n is not None and design is not None:
        raise ConfigError("-n and --design exclude each other: a file is planned whole; drop one of the two")
    opened = open_study(study, adopt)
    planned = True
    with showing_progress() as progress:
        if design is None:
            planned = opened.suggest(n, progress, more=more)
        else:
            opened.plan(read_designs(design, opened.parts.space, opened.parts.table), progress)
    columns = (*design_columns(opened), "expected gain", "cost, s", "why")
    print_table(f"measure next{cost_mark(opened)}", columns, suggestion_rows(opened))
    if explain:
        for line in explanation_lines(opened):
            say(line)
    if not planned:
        say(
            "This plan was open already; nothing new was chosen (more points beside it: hadas suggest --more)."
        )
    console.print(escape(f"Next: hadas measure {study}"), soft_wrap=True)
