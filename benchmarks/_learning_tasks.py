"""What a comparison of strategies of active learning is made of: tasks, curves, bounds.

A task knows a truth (real measurements, or a simulator) and plays the user who measures: a strategy asks, the task
answers and counts what that cost.  What comes of it is a curve: the share of the best possible hypervolume that
the measured points reach, against what was spent.

A module of tasks has a function ``tasks() -> Sequence[LearningTask]``; :data:`MODULES` names it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, Self

import numpy as np
from _predictor_tasks import FloatArray

MODULES = {"clocks": "_learning_dvfs", "macro": "_learning_macro", "simulated": "_simulated_problem"}
"""Modules of tasks, by what ``--task`` calls each."""

SEEDS = tuple(range(10))
OURS = "ours"
KNOWS_ALL = "knows all rows"
"""Our strategy with our model fitted to the whole truth, which nobody has."""

KNOWS_OTHERS = "knows all others"
"""Our strategy where our model of all others predicts every point: what it is without the luck of the point's own run."""
RANDOM_SEEDS = "ours with random seeds"
"""Our strategy after other first points, random ones in place of those that were picked: what these are worth."""

SCALES = (KNOWS_ALL, KNOWS_OTHERS, RANDOM_SEEDS)
"""Rows to judge others by; ours is not judged by whether it is ahead of them."""

NEVER = math.inf
"""What it took to reach a share that was not reached."""


@dataclass(frozen=True)
class Curve:
    """What one run of a strategy reached, k times.

    Attributes:
        share: (k,) of the best possible hypervolume; it never falls.
        spent: by counter (``measurements``, or ``backbones``, ``device points``, ``device hours``, ...), (k,)
            what was spent until then, the initial points included; ascending.
        notes: further figures of the run, by name, for the JSON.
    """

    share: tuple[float, ...]
    spent: Mapping[str, tuple[float, ...]]
    notes: Mapping[str, float]

    def needed(self, share: float, counter: str) -> float:
        """What had been spent by ``counter`` when ``share`` was first reached; :data:`NEVER` if it was not."""
        reached = np.flatnonzero(np.array(self.share) >= share)
        return float(self.spent[counter][reached[0]]) if len(reached) else NEVER

    def at(self, counter: str, amounts: FloatArray) -> FloatArray:
        """(a,) shares reached when at most ``amounts`` were spent; 0 before the first point."""
        last = np.searchsorted(np.array(self.spent[counter]), amounts, side="right") - 1
        return np.where(last >= 0, np.array(self.share)[np.maximum(last, 0)], 0.0)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        spent = {name: list(values) for name, values in self.spent.items()}
        return {"share": list(self.share), "spent": spent, "notes": dict(self.notes)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        spent = {str(name): tuple(map(float, values)) for name, values in document["spent"].items()}
        return cls(tuple(map(float, document["share"])), spent, dict(document["notes"]))


@dataclass(frozen=True)
class Bound:
    """Median over instances and seeds of what our strategy needs: at most so much by that counter.

    Attributes:
        judged: otherwise it is a check: where it is missed the output says so, and the benchmark holds all the same.
    """

    share: float
    counter: str
    at_most: float
    judged: bool = True


class LearningTask(Protocol):
    """One problem that strategies are compared on.

    Attributes:
        name: for people and for JSON; ``--task`` selects by a part of it, or by a key of :data:`MODULES`.
        truth: what is measured here, in words (real rows, modelled, ...), and what "measured" means.
        instances: variants of the problem that count alike (input sizes, say); one named ``""`` if there are none.
        strategies: names of those that are compared, by the number of seeds that they are run on (slow ones on
            fewer); :data:`OURS` is the one that is judged.
        bounds: what ours has to reach.
        counter: what curves are drawn and averaged over.
        horizon: how much of the counter the average share of a strategy is taken over.
        facts: figures known from elsewhere, by name, printed beside.
    """

    name: str
    truth: str
    instances: tuple[str, ...]
    strategies: Mapping[str, int]
    bounds: tuple[Bound, ...]
    counter: str
    horizon: float
    facts: Mapping[str, str]

    def run(self, instance: str, strategy: str, seed: int) -> Curve:
        """One run: deterministic in its arguments, in one thread."""
        ...


@cache
def all_tasks() -> Mapping[str, LearningTask]:
    """Every task by its name."""
    found: dict[str, LearningTask] = {}
    for key in MODULES:
        for task in tasks_of(key):
            if task.name in found:
                raise SystemExit(f"two tasks are named '{task.name}'")
            found[task.name] = task
    return found


def tasks_of(key: str) -> Sequence[LearningTask]:
    """The tasks of one module, by its key in :data:`MODULES`."""
    tasks: Sequence[LearningTask] = importlib.import_module(MODULES[key]).tasks()
    return tasks


def selected(part: str) -> Sequence[LearningTask]:
    """Tasks of the module that ``part`` is the key of, or else those with ``part`` in their names, in any case.

    Raises:
        SystemExit: there is none.
    """
    if part in MODULES:
        return tasks_of(part)
    found = [task for name, task in all_tasks().items() if part.lower() in name.lower()]
    if not found:
        raise SystemExit(f"no task has '{part}' in its name; there are {list(MODULES)}: {list(all_tasks())}")
    return found
