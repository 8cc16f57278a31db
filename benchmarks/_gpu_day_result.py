"""What gpu_day reports: the forms' description, all that was reached, and the result made of it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from _gpu_day_figures import (
    ALLOWED_LOSS_POINTS,
    Rung,
    foretold_error,
    losses,
    projection,
    seeding,
    sufficient_epochs,
)

from hadas.measurement.accuracy.recipes import ExitRecipe, SupernetRecipe
from hadas.spaces import MBConvSpace, space_by_name

SEED = 0
GOAL_GPU_HOURS = 6.0
PAPER_GPU_HOURS = (56, 70)
"""For training exits in the HADAS paper's search: inferred from what it states, not stated there."""


@dataclass(frozen=True)
class Form:
    """How much of everything.

    Attributes:
        device: torch's name.
        space: name of the space.
        budget_s: wall-clock seconds for the whole command.
        training_share: of the budget, for the supernet.
        small_resolutions: that the first two thirds of the supernet's training use.
        resolutions: that backbones are measured at.
        limit: images per split; ``None`` = all.
        ladder: numbers of epochs, the reference first.
        ladder_backbones: how many backbones are trained for all of them, cheapest first.
        supernet_batches: images per step of the supernet on small images, and on the space's own.
        supernet, exits: recipes; steps, batch size, epochs and seed are set here.
    """

    device: str
    space: str
    budget_s: float
    training_share: float
    small_resolutions: tuple[int, ...]
    resolutions: tuple[int, ...]
    limit: int | None
    ladder: tuple[int, ...]
    ladder_backbones: int
    supernet_batches: tuple[int, int]
    supernet: SupernetRecipe
    exits: ExitRecipe

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"


@dataclass
class State:
    """All that has been reached so far."""

    form: Form
    data: str | None = None
    training: list[dict[str, Any]] | None = None
    rungs: list[Rung] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    phases_s: dict[str, float] = field(default_factory=dict)
    n_classes: int = 100
    finished: bool = False


def space_at(form: Form, resolutions: tuple[int, ...]) -> MBConvSpace:
    """The form's space with other resolutions; its presets keep their rank among them."""
    base = space_by_name(form.space)
    if resolutions == base.macro.resolutions:
        return base
    space = MBConvSpace(base.name, replace(base.macro, resolutions=resolutions))
    for name, backbone in base.presets.items():
        rank = base.macro.resolutions.index(backbone.resolution)
        space.add_preset(name, replace(backbone, resolution=resolutions[min(rank, len(resolutions) - 1)]))
    return space


def result_of(state: State, seconds: float) -> dict[str, Any]:
    """The whole result; what was not reached is null."""
    form, rungs = state.form, list(state.rungs)
    space, reference = space_at(form, form.resolutions), form.ladder[0]
    seeds = seeding(space, SEED + 1)
    epochs = sufficient_epochs(rungs, reference, state.n_classes)
    ladder = losses(rungs, reference)

    def projected(n_epochs: int | None) -> dict[str, float] | None:
        if n_epochs is None:
            return None
        costs = projection(rungs, space, seeds, state.n_classes, n_epochs)
        return {"gpu_hours" if form.on_gpu else "cpu_hours": costs.pop("hours"), **costs}

    figures: dict[str, Any] = {
        "sufficient_epochs": epochs,
        "ladder_backbones": len({row["backbone"] for row in ladder if row["epochs"] > 1}),
        "foretold_error": foretold_error(rungs),
        "projection": projected(epochs),
        "projection_at_reference_epochs": projected(reference if rungs else None),
        "total_s": seconds,
    }
    if form.on_gpu:
        figures["paper_exit_training_gpu_hours"] = PAPER_GPU_HOURS
        figures["peak_gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    bounds, checks = (gpu_checks if form.on_gpu else cpu_checks)(state, figures, ladder)
    return {
        "benchmark": "gpu_day",
        "form": "one GPU" if form.on_gpu else "CPU: checks the parts and the arithmetic; no figure of it is about a GPU",
        "data": state.data,
        "figures": figures,
        "bounds": bounds,
        "checks": checks,
        "holds": state.finished and all(checks.values()),
        "training": state.training,
        "backbones": [row_of(rung, space, state.n_classes) for rung in rungs],
        "ladder": ladder,
        "failures": state.failures,
        "phases_s": state.phases_s,
        "resolutions": form.resolutions,
        "exit_recipe": form.exits.definition,
        "supernet_recipe": form.supernet.definition,
        "seed": SEED,
        "machine": machine(form),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "cuda": torch.version.cuda},
    }  # fmt: skip


def gpu_checks(
    state: State, figures: dict[str, Any], ladder: list[dict[str, Any]]
) -> tuple[dict[str, float], dict[str, bool]]:
    """The goal: GPU-hours of the seeding, at epochs that a few backbones justify."""
    bounds = {
        "projected_gpu_hours": GOAL_GPU_HOURS,
        "mean_exit_accuracy_loss_points": ALLOWED_LOSS_POINTS,
        "ladder_backbones": 2,
        "foretold_error": 0.25,
        "leave_one_out_error": 0.5,
    }
    projected = figures["projection"]
    return bounds, {
        "projected_gpu_hours": projected is not None and projected["gpu_hours"] <= GOAL_GPU_HOURS,
        # A NaN, where one backbone alone was measured, is no pass.
        "leave_one_out_error": projected is not None and projected["leave_one_out_error"] <= 0.5,
        "ladder_backbones": figures["ladder_backbones"] >= 2,
        "foretold_error": figures["foretold_error"] is not None and figures["foretold_error"] <= 0.25,
        "no_failures": not state.failures,
    }


def cpu_checks(
    state: State, figures: dict[str, Any], ladder: list[dict[str, Any]]
) -> tuple[dict[str, float], dict[str, bool]]:
    """What a tiny form can show: counts and shapes, that more epochs do no harm, that seconds add up.

    Nothing about how long anything takes, nor about how well costs scale to other backbones: other work
    may share the cores.
    """
    bounds = {"standard_errors_of_harm": 3.0, "backbones": 4, "ladder_backbones": 2}
    space = space_at(state.form, state.form.resolutions)
    all_exits = [
        rung.record.test is not None
        and rung.record.test.n_exits == rung.backbone.n_blocks - space.first_exit + 1
        for rung in state.rungs
    ]
    harmless = [row["loss_points"] > -3.0 * row["standard_error_points"] for row in ladder]
    return bounds, {
        "all_exits_measured": all(all_exits) and len({rung.name for rung in state.rungs}) == 4,
        "more_epochs_do_no_harm": bool(harmless) and all(harmless),
        "ladder_backbones": figures["ladder_backbones"] >= 2,
        "seconds_add_up": all(sum(r.record.seconds.values()) <= r.wall_s for r in state.rungs)
        and abs(sum(state.phases_s.values()) / figures["total_s"] - 1) < 0.05,
        "projected": figures["projection"] is not None,
        "no_failures": not state.failures,
    }


def row_of(rung: Rung, space: MBConvSpace, n_classes: int) -> dict[str, Any]:
    work = space.workload(rung.backbone, n_classes=n_classes)
    test = rung.record.test
    assert test is not None
    return {
        "name": rung.name,
        "backbone": rung.backbone.describe(),
        "epochs": rung.epochs,
        "wall_s": rung.wall_s,
        **{f"{step}_s": seconds for step, seconds in rung.record.seconds.items()},
        "mean_exit_accuracy_calibration": rung.mean_exit_accuracy(),
        "mean_exit_accuracy_test": rung.mean_exit_accuracy("test"),
        "test_accuracy_by_exit": test.fractions.tolist(),
        "backbone_gmacs": work.macs / 1e9,
        "heads_gmacs": sum(head.macs for head in work.heads) / 1e9,
    }


def machine(form: Form) -> str:
    if form.on_gpu:
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def rounded(value: Any) -> Any:
    """JSON values: five significant digits, no NaN."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if np.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value
