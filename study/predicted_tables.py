"""From the predicted front to the tables that `hadas search` prints: rows of text, no layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from .tables import design_cells

if TYPE_CHECKING:
    from .loop import Study
    from .predicted_front import ExitClockComparison, ExitClockMember, FrontOutlook


_OBJECTIVES = {
    "error": "accuracy, %",
    "energy_mj": "energy, mJ",
    "latency_ms": "latency, ms",
    "negative_exit_score": "exit score",
    "negative_dynamic_score": "score",
    "energy_share": "energy, share of backbone's",
    "latency_share": "latency, share of backbone's",
    "mean_exit_error": "exits' accuracy, %",
    "mean_exit_energy_mj": "exits' energy, mJ",
    "mean_exit_latency_ms": "exits' latency, ms",
}
"""Headings of objectives as :func:`_objective_cells` shows them: what is minimised as an error or a negative score, the
right way round."""


def predicted_front_rows(
    study: Study, outlook: FrontOutlook | None = None, chances: Sequence[float] | None = None
) -> list[list[str]]:
    """The predicted front of the latest search.

    Args:
        outlook: what draws say of each member, for quantities that were not searched for.
        chances: probability of each member to be non-dominated, if known.
    """
    found = study.search()
    names = [column.name for column in found.columns]
    rows = []
    for i, candidate in enumerate(found.front):
        row = [*design_cells(study, candidate.design), *_objective_cells(names, candidate.objectives)]
        if outlook is not None:
            row += [_objective_cell(name, values[i]) for name, values in _besides(study, outlook)]
            if outlook.probability_feasible is not None:
                row.append(f"{outlook.probability_feasible[i]:.0%}")
        if chances is not None:
            row.append(f"{chances[i]:.0%}")
        rows.append(row)
    return rows


def _besides(study: Study, outlook: FrontOutlook) -> list[tuple[str, list[float]]]:
    """Medians of what was not searched for, but is limited; of other objectives' fronts accuracy and a cost too."""
    searched, limits = {column.name for column in study.search().columns}, study.findings.constraints
    by_score, has_energy = "error" not in searched, outlook.energy_mj is not None
    shown = {
        "error": by_score or limits.min_accuracy is not None,
        "energy_mj": has_energy and (by_score or limits.max_energy_mj is not None),
        "latency_ms": (by_score and not has_energy) or limits.max_latency_ms is not None,
    }
    values = {
        "error": [1.0 - accuracy for accuracy in outlook.accuracy],
        "energy_mj": outlook.energy_mj or [],
        "latency_ms": outlook.latency_ms,
    }
    return [(name, values[name]) for name in shown if shown[name] and name not in searched]


def _objective_cells(names: Sequence[str], objectives: Sequence[float]) -> list[str]:
    return [_objective_cell(name, value) for name, value in zip(names, objectives, strict=True)]


def _objective_cell(name: str, value: float) -> str:
    if name in ("error", "mean_exit_error"):
        return f"{100 * (1 - value):.1f}"
    return f"{-value:.3g}" if name.startswith("negative_") else f"{value:.3g}"


def predicted_columns(
    study: Study, outlook: FrontOutlook | None = None, *, chances: bool = False
) -> list[str]:
    """Headings of what :func:`predicted_front_rows` shows of each design."""
    settings = study.parts.search_settings
    shown = []
    for column in study.search().columns:
        heading = _OBJECTIVES.get(column.name, column.name)
        if settings.statistic == "quantile":
            # A quantile of an error is the other end of an accuracy.
            turned = column.name.endswith("error") or column.name.startswith("negative_")
            at = 1.0 - settings.quantile if turned else settings.quantile
            heading += f" ({100 * at:g} % quantile)"
        shown.append(heading)
    if outlook is not None:
        shown += [f"{_OBJECTIVES[name]} (median)" for name, _ in _besides(study, outlook)]
        shown += ["meets constraints"] if outlook.probability_feasible is not None else []
    return [*shown, "on front"] if chances else shown


def predicted_front_note(study: Study) -> str:
    """Which statistic the predicted front shows, beside those of other commands."""
    settings = study.parts.search_settings
    what = (
        f"the {100 * settings.quantile:g} % quantile of each objective over {settings.draws} joint draws"
        if settings.statistic == "quantile"
        else "the predicted median of every stage's cost and of every exit's accuracy, put together"
    )
    constraints = study.findings.constraints
    limits = f" It kept to: {constraints}." if constraints.any else ""
    return (
        f"Shown is what the search looked at: {what}.{limits} Columns of medians, 'meets constraints' and 'on front' are "
        "over joint draws of whole designs, corrected by what was measured, as in `hadas suggest --explain`; the two differ where "
        "the predictors are unsure."
    )


def exit_clock_rows(study: Study, members: Sequence[ExitClockMember]) -> list[list[str]]:
    """A front with clocks per exit: the first clocks, and every change after the block that it follows."""
    names = [column.name for column in study.search().columns]
    rows = []
    for member in members:
        backbone, exits, clocks = design_cells(study, member.design)
        places = zip(member.design.exits.positions, pairwise(member.stretches), strict=True)
        for position, (before, after) in places:
            if after != before:
                changed = ", ".join(f"{hz / 1e6:g}" for _, hz in after.clocks_hz)
                clocks += f"; after {position}: {changed}"
        rows.append([backbone, exits, clocks, *_objective_cells(names, member.objectives)])
    return rows


def exit_clock_line(found: ExitClockComparison) -> str:
    """How much clocks per exit add."""
    n = sum(member.n_changes > 0 for member in found.members)
    gain = found.hypervolume / found.single_hypervolume - 1 if found.single_hypervolume else math.nan
    return (
        f"{n} of {len(found.members)} members change clocks on their way (a change costs "
        f"{found.switching.latency_ms:g} ms and {found.switching.energy_mj:g} mJ); predicted hypervolume "
        f"{found.hypervolume:.4f}, {100 * gain:+.2f} % against {found.single_hypervolume:.4f} with one setting per design "
        "on the same backbones and choices of exits (the table above it; more choices than the search looked at, so that it "
        "may beat the predicted front without any change of clocks). Studies measure one setting per design."
    )
