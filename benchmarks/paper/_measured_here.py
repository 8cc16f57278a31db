"""Accuracies of proposed backbones, measured like those that the predictors learned from, and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from _mini_accuracies import MiniAccuracies

from hadas.datasets.records import AccuracyRecord
from hadas.datasets.store import Store
from hadas.measurement.accuracy.recipes import RECIPE_PRESETS
from hadas.measurement.accuracy.supernet_meter import SupernetMeter
from hadas.spaces import Backbone

SESSION = "paper"


def measured(
    mini: MiniAccuracies,
    backbones: Sequence[Backbone],
    *,
    quick: bool,
    directory: Path,
    say: Callable[[str], None],
) -> dict[Backbone, AccuracyRecord]:
    """A valid row of every backbone, from the mini set, from an earlier call, or measured now.

    Args:
        quick: by the recipe of the quick mini set.
        directory: where new rows are kept.

    Raises:
        SystemExit: a backbone could not be measured, with the reason.
    """
    found = {b: mini.by_arch_id[b.arch_id] for b in dict.fromkeys(backbones) if b.arch_id in mini.by_arch_id}
    rest = [backbone for backbone in dict.fromkeys(backbones) if backbone not in found]
    directory.mkdir(parents=True, exist_ok=True)
    meter = SupernetMeter(
        mini.space, mini.data, mini.trained, RECIPE_PRESETS["smoke" if quick else "demo"][1]
    )
    store = Store(str(directory / "accuracies.sqlite"))
    try:
        known = store.accuracy(
            [backbone.arch_id for backbone in rest],
            weights_id=meter.weights_id, recipe_id=meter.recipe_id, split_id=meter.split_id,
        )  # fmt: skip
        found |= {b: known[b.arch_id] for b in rest if b.arch_id in known and known[b.arch_id].valid}
        missing = [backbone for backbone in rest if backbone not in found]
        say(f"measuring {len(missing)} proposed backbones, {len(found)} were known")
        rows = meter.measure(missing, session=SESSION, first_row=store.next_accuracy_row(SESSION))
        for backbone, record in zip(missing, rows, strict=True):
            store.add_accuracy(record)
            if not record.valid:
                raise SystemExit(f"{backbone.arch_id}: {record.reason}")
            found[backbone] = record
    finally:
        store.close()
    return found
