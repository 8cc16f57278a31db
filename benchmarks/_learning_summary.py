"""What curves of strategies say: medians, paired differences, verdicts; as a table, as JSON, as a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _figures import plain
from _learning_cells import Cell
from _learning_tasks import OURS, RANDOM_SEEDS, SCALES, Bound, Curve, LearningTask
from _predictor_tasks import FloatArray

SIGNIFICANT = 2.0
"""Standard errors of the mean paired difference by which a strategy has to be better to be called so."""

N_STEPS = 200
"""Amounts at which mean curves are taken."""


@dataclass(frozen=True)
class Comparison:
    """Another strategy against ours, on the cells (instance, seed) that both ran.

    Attributes:
        ahead: mean of (what it needs - what ours needs) to a bound's share, horizon at most; above 0
            ours needs less.
        error: standard error of that mean; NaN of a single cell.
        share_ahead: mean of (our share - its share) averaged over the horizon.
        n_cells: pairs.
    """

    ahead: float
    error: float
    share_ahead: float
    n_cells: int

    @property
    def ours_is_worse(self) -> bool:
        """Whether the other one needs less, beyond chance; of a single cell nobody can tell."""
        return self.ahead < 0 and -self.ahead > SIGNIFICANT * self.error


@dataclass(frozen=True)
class EndDifference:
    """Where ours is when the horizon is spent, against another strategy, on the cells that both ran.

    Attributes:
        mean: of (our share - its share); above 0 ours has more.
        error: standard error of that mean; NaN of a single cell.
        n_cells: pairs.
    """

    mean: float
    error: float
    n_cells: int

    @property
    def ours_has_more(self) -> bool:
        """Whether that is so beyond chance, which a single cell cannot say."""
        return self.mean > SIGNIFICANT * self.error

    def __str__(self) -> str:
        """In percentage points."""
        error = f" ± {100 * self.error:.2f}" if self.n_cells > 1 else ""
        return f"{100 * self.mean:+.2f}{error} points of share ({self.n_cells} cells)"


@dataclass(frozen=True)
class Summary:
    """All curves of one task, by strategy and (instance, seed)."""

    task: LearningTask
    curves: Mapping[str, Mapping[tuple[str, int], Curve]]

    @classmethod
    def of(cls, task: LearningTask, curves: Mapping[Cell, Curve]) -> Summary:
        """Of those of all tasks."""
        found: dict[str, dict[tuple[str, int], Curve]] = {}
        for cell, curve in curves.items():
            if cell.task == task.name:
                found.setdefault(cell.strategy, {})[cell.instance, cell.seed] = curve
        return cls(task, found)

    def needed(self, strategy: str, bound: Bound) -> FloatArray:
        """(cells,) what the strategy needed by the bound's counter; infinite where it did not get there."""
        return np.array([c.needed(bound.share, bound.counter) for c in self.curves[strategy].values()])

    def median(self, strategy: str, bound: Bound) -> float:
        """Median of :meth:`needed`."""
        return float(np.median(self.needed(strategy, bound)))

    def steps(self) -> FloatArray:
        """Amounts of the task's counter, up to the horizon."""
        return np.linspace(0.0, self.task.horizon, N_STEPS + 1)[1:]

    def mean_curve(self, strategy: str) -> FloatArray:
        """(steps,) mean share over cells."""
        steps = self.steps()
        shares = [c.at(self.task.counter, steps) for c in self.curves[strategy].values()]
        return np.asarray(np.mean(shares, axis=0), dtype=np.float64)

    @property
    def shares(self) -> tuple[Bound, ...]:
        """One bound of every share that is asked for, the task's own counter first."""
        by_share: dict[float, Bound] = {}
        for bound in sorted(self.task.bounds, key=lambda b: b.counter != self.task.counter):
            by_share.setdefault(bound.share, bound)
        return tuple(by_share.values())

    def compared(self, strategy: str, bound: Bound) -> Comparison:
        """With ours, cell by cell, in what is needed to the bound's share."""
        steps = self.steps()
        horizon = self.task.horizon if bound.counter == self.task.counter else math.inf
        ours, others = self.curves[OURS], self.curves[strategy]
        both = [cell for cell in ours if cell in others]
        ahead, share = [], []
        for cell in both:
            need = [min(c.needed(bound.share, bound.counter), horizon) for c in (others[cell], ours[cell])]
            ahead.append(0.0 if need[0] == need[1] else need[0] - need[1])
            own, other = (c.at(self.task.counter, steps).mean() for c in (ours[cell], others[cell]))
            share.append(float(own - other))
        return Comparison(float(np.mean(ahead)), _error_of_mean(ahead), float(np.mean(share)), len(both))

    def at_the_end(self, strategy: str) -> EndDifference:
        """Ours against it when the horizon is spent."""
        ours, others = self.curves[OURS], self.curves[strategy]
        counter, end = self.task.counter, np.array([self.task.horizon])
        more = [
            float((ours[cell].at(counter, end) - others[cell].at(counter, end))[0])
            for cell in ours if cell in others
        ]  # fmt: skip
        return EndDifference(float(np.mean(more)), _error_of_mean(more), len(more))

    @property
    def others(self) -> tuple[str, ...]:
        """All strategies but ours."""
        return tuple(strategy for strategy in self.curves if strategy != OURS)

    @property
    def rivals(self) -> tuple[str, ...]:
        """Strategies that need no less than ours, if ours is any good; scales are none."""
        return tuple(strategy for strategy in self.others if strategy not in SCALES)

    def failures(self, *, judge_bounds: bool) -> list[str]:
        """What does not hold, in words.

        Args:
            judge_bounds: whether there are seeds enough for medians to be judged.
        """
        found = [
            line for bound in self.task.bounds if judge_bounds and bound.judged for line in self._missed(bound)
        ]  # fmt: skip
        return found + [line for bound in self.shares if bound.judged for line in self._beaten(bound)]

    def missed_checks(self) -> list[str]:
        """What checks, which are not judged, say against ours, in words, on as many seeds as there are."""
        checks = [bound for bound in self.task.bounds if not bound.judged]
        found = [f"{line} (of {len(self.curves[OURS])})" for b in checks for line in self._missed(b)]
        found += [line for bound in self.shares if not bound.judged for line in self._beaten(bound)]
        if checks and RANDOM_SEEDS in self.curves:
            ends = self.at_the_end(RANDOM_SEEDS)
            if not ends.ours_has_more:
                found.append(f"{self.task.name}: not beyond chance above '{RANDOM_SEEDS}' at the end: {ends}")
        return found

    def _missed(self, bound: Bound) -> list[str]:
        median = self.median(OURS, bound)
        if median <= bound.at_most:
            return []
        what = f"{bound.counter} to {100 * bound.share:g} %"
        return [f"{self.task.name}: {what}: {median:g} > {bound.at_most:g}"]

    def _beaten(self, bound: Bound) -> list[str]:
        return [
            f"{self.task.name}: '{strategy}' needs less than ours to {100 * bound.share:g} %"
            for strategy in self.rivals
            if self.compared(strategy, bound).ours_is_worse
        ]


def _error_of_mean(values: Sequence[float]) -> float:
    """Standard error; NaN of a single value."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def printed(summary: Summary) -> list[str]:
    """Lines on one task: its table, as in docs/active-learning.md (Markdown), and what it is judged by."""
    task = summary.task
    heads = [f"{b.counter} to {100 * b.share:g} %" for b in task.bounds]
    lines = ["", f"**{task.name}.** {task.truth[0].upper()}{task.truth[1:]}.", ""]
    aheads = [f"ours is ahead by, to {100 * b.share:g} %" for b in summary.shares]
    lines += [_row(["strategy", *heads, f"mean share to {task.horizon:g}", *aheads, "cells"])]
    lines += [_row(["---"] * (len(heads) + len(aheads) + 3))]
    for strategy, curves in summary.curves.items():
        needs = [_needs(summary.needed(strategy, bound)) for bound in task.bounds]
        ahead = ["" if strategy == OURS else _ahead(summary.compared(strategy, b)) for b in summary.shares]
        share = f"{summary.mean_curve(strategy).mean():.4f}"
        lines.append(_row([strategy, *needs, share, *ahead, str(len(curves))]))
    lines += [""]
    for strategy, curves in summary.curves.items():
        notes = [f"{name} {value}" for name, value in _median_notes(list(curves.values())).items()]
        lines += [f"  medians of {strategy}: {', '.join(notes)}"] if notes else []
    lines += [f"  known from elsewhere: {name}: {value}" for name, value in task.facts.items()]
    if RANDOM_SEEDS in summary.curves:
        lines += [f"  ours ends above '{RANDOM_SEEDS}' by {summary.at_the_end(RANDOM_SEEDS)}"]
    bounds = "; ".join(f"{head} at most {b.at_most:g}" for head, b in zip(heads, task.bounds, strict=True))
    only_checks = not any(bound.judged for bound in task.bounds)
    what = "checks, not judged: medians of ours" if only_checks else "medians to be reached by ours"
    return [*lines, f"  {what}: {bounds}"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ahead(found: Comparison) -> str:
    return f"{found.ahead:+.1f}" + (f" ± {found.error:.1f}" if found.n_cells > 1 else "")


def _needs(needed: FloatArray) -> str:
    """A median, and how many got there where not all did."""
    got = int(np.count_nonzero(np.isfinite(needed)))
    few = "" if got == len(needed) else f" ({got} of {len(needed)} got there)"
    median = float(np.median(needed))
    return f"{f'{median:g}' if np.isfinite(median) else 'not reached'}{few}"


def as_json(summary: Summary) -> dict[str, Any]:
    """Figures of one task; ``null`` = not reached."""
    task = summary.task
    return {
        "truth": task.truth,
        "facts": dict(task.facts),
        "strategies": {
            strategy: {
                "median_needed": {
                    f"{b.counter} to {100 * b.share:g} %": plain(summary.median(strategy, b)) for b in task.bounds
                },
                "reached": {
                    f"{100 * b.share:g} %": int(np.isfinite(summary.needed(strategy, b)).sum()) for b in task.bounds
                },
                "mean_share": plain(float(summary.mean_curve(strategy).mean())),
                "cells": len(curves),
                "median_notes": _median_notes(list(curves.values())),
            }
            for strategy, curves in summary.curves.items()
        },
        "ours_is_ahead_by": {
            strategy: {
                f"{100 * bound.share:g} %": {
                    "mean": plain(found.ahead), "standard_error": plain(found.error),
                    "mean_share": plain(found.share_ahead), "pairs": found.n_cells,
                }
                for bound in summary.shares
                for found in [summary.compared(strategy, bound)]
            }
            for strategy in summary.others
        },
        "ours_ends_above_by": {
            strategy: {"mean": plain(found.mean), "standard_error": plain(found.error), "pairs": found.n_cells}
            for strategy in summary.others
            for found in [summary.at_the_end(strategy)]
        },
        "missed_checks": summary.missed_checks(),
    }  # fmt: skip


def _median_notes(curves: Sequence[Curve]) -> dict[str, float | None]:
    names = dict.fromkeys(name for curve in curves for name in curve.notes)
    return {
        name: plain(float(np.median([c.notes[name] for c in curves if name in c.notes]))) for name in names
    }


def draw(summaries: Sequence[Summary], path: Path) -> None:
    """Mean curves of every task, as a PNG: what is left of the best hypervolume, on a log scale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(summaries), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, summary in zip(np.atleast_1d(figure.subplots(1, len(summaries))), summaries, strict=True):
        for strategy in summary.curves:
            missing = 1.0 - summary.mean_curve(strategy)
            axes.plot(summary.steps(), missing, label=strategy, linewidth=2.2 if strategy == OURS else 1.2)
        for bound in summary.task.bounds:
            axes.axhline(1.0 - bound.share, color="grey", linewidth=0.8, linestyle=":")
        axes.set(
            yscale="log", title=summary.task.name, xlabel=summary.task.counter,
            ylabel="share of the exact hypervolume not yet reached (mean)",
        )  # fmt: skip
        axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
