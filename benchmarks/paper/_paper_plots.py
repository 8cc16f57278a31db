"""The figures, as PNG: modelled costs, and labelled so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from _contenders import (
    BACKBONE_FIRST,
    CONTROLLER,
    JOINT,
    ORACLE,
    PAPER_AXES,
    PRESETS,
    RANDOM_START,
    RIVALS,
    Comparison,
    Fronts,
)
from _dissimilarity import RANGES, Ablation
from _outer_fronts import OuterFronts
from _paper_world import SETTINGS, FloatArray

matplotlib.use("Agg")

from matplotlib import pyplot as plt

COLOURS = {JOINT: "#c0392b", BACKBONE_FIRST: "#2471a3", PRESETS: "#7d8c3a", RANDOM_START: "#d7bde2"}
NOTE = "SIMULATED costs; accuracies modelled from a mini supernet"


def draw_all(
    directory: Path,
    outer: Sequence[OuterFronts],
    fronts: Sequence[Fronts],
    comparisons: Sequence[Comparison],
    ablation: Ablation,
) -> list[Path]:
    """Write the figures; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    figures = {
        "figure5.png": figure_5(outer, fronts),
        "figure6.png": figure_6(comparisons),
        "figure7.png": figure_7(ablation),
    }
    for name, figure in figures.items():
        figure.suptitle(NOTE, fontsize=9)
        figure.tight_layout()
        figure.savefig(directory / name, dpi=110)
        plt.close(figure)
    return [directory / name for name in figures]


def figure_5(outer: Sequence[OuterFronts], fronts: Sequence[Fronts]) -> Any:
    """The first seed on every setting: backbones alone (top), dynamic networks (middle), the paper's axes (bottom)."""
    figure, axes = plt.subplots(3, len(outer), figsize=(4 * len(outer), 10), squeeze=False)
    first = min(found.job.seed for found in fronts)
    found = {(one.job.setting, one.job.goal): one for one in fronts if one.job.seed == first}
    for column, one in enumerate(outer):
        top, middle, bottom = axes[:, column]
        top.set_title(SETTINGS[one.setting], fontsize=10)
        controlled, gains = found[one.setting, CONTROLLER], found.get((one.setting, PAPER_AXES))
        top.scatter(
            controlled.explored[:, 1], 100 * controlled.explored[:, 0], s=6, c=COLOURS[JOINT], alpha=0.35
        )
        for name, (accuracy, energy_mj) in one.presets.items():
            top.scatter([energy_mj], [100 * accuracy], s=25, c=COLOURS[PRESETS], marker="^")
            top.annotate(name, (energy_mj, 100 * accuracy), fontsize=7)
        for name, points in controlled.points.items():
            _steps(middle, points, COLOURS[name], name)
        for name, points in ({} if gains is None else gains.points).items():
            bottom.scatter(100 * (1 - points[:, 1]), -100 * points[:, 0], s=8, c=COLOURS[name], label=name)
        for axis, x, y in (
            (top, "energy per inference, mJ", "accuracy alone, %"),
            (middle, "expected energy, mJ", "accuracy under the controller, %"),
            (bottom, "mean energy gain of exits, %", "mean N_i, %"),
        ):
            axis.set_xlabel(x, fontsize=8)
            axis.set_ylabel(y, fontsize=8)
    axes[1, 0].legend(fontsize=7)
    return figure


def figure_6(comparisons: Sequence[Comparison]) -> Any:
    """Hypervolume gain and ratio of dominance of the joint search, for controller and oracle."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7))
    for row, goal in enumerate((CONTROLLER, ORACLE)):
        some = [one for one in comparisons if one.goal == goal]
        at = np.arange(len(some))
        for i, name in enumerate(some[0].hypervolume):
            relative = [one.hypervolume[name] / one.hypervolume[JOINT] for one in some]
            axes[row, 0].bar(at + 0.2 * i, relative, 0.18, color=COLOURS[name], label=name)
        for i, name in enumerate(RIVALS):
            axes[row, 1].bar(
                at + 0.4 * i, [100 * one.dominates[name] for one in some], 0.18, color=COLOURS[JOINT]
            )
            reverse = [100 * one.dominated[name] for one in some]
            axes[row, 1].bar(at + 0.4 * i + 0.19, reverse, 0.18, color=COLOURS[name])
        axes[row, 0].set_ylabel(f"{goal}: hypervolume / joint", fontsize=8)
        axes[row, 1].set_ylabel(f"{goal}: ratio of dominance, %", fontsize=8)
        for axis in axes[row]:
            axis.set_xticks(at + 0.27, [SETTINGS[one.setting] for one in some], fontsize=7)
    axes[0, 0].legend(fontsize=7)
    return figure


def figure_7(ablation: Ablation) -> Any:
    """One backbone's points without dissimilarity and with it, as oracle and controller see them."""
    figure, axes = plt.subplots(2, len(RANGES), figsize=(5.5 * len(RANGES), 8), squeeze=False)
    for row, goal in enumerate((ORACLE, CONTROLLER)):
        for column, (title, gammas) in enumerate(RANGES.items()):
            axis = axes[row, column]
            _steps(axis, ablation.drawn[goal][0.0], "black", "no dissimilarity")
            for gamma, colour in zip(gammas, ("#f5b041", "#dc7633", "#a93226"), strict=True):
                _steps(axis, ablation.drawn[goal][gamma], colour, f"gamma = {gamma:g}")
            axis.set_title(f"{title}, judged under the {goal}", fontsize=9)
            axis.set_xlabel("expected energy, mJ", fontsize=8)
            axis.set_ylabel("accuracy, %", fontsize=8)
            axis.legend(fontsize=7)
    return figure


def _steps(axis: Any, points: FloatArray, colour: str, label: str) -> None:
    ordered = points[np.argsort(points[:, 1])]
    axis.step(ordered[:, 1], 100 * (1 - ordered[:, 0]), where="post", color=colour, lw=1)
    axis.scatter(ordered[:, 1], 100 * (1 - ordered[:, 0]), s=8, color=colour, label=label)
