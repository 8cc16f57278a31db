"""The tables as they are printed, the paper's figures beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import _published as paper
import numpy as np
from _contenders import CONTROLLER, GOALS, ORACLE, PAPER_AXES, PRESETS, Comparison
from _dissimilarity import Ablation
from _networks_table import Line
from _outer_fronts import OuterFronts
from _paper_world import SETTINGS
from _published_exits import PublishedExits


def percent(share: float, sign: str = "+") -> str:
    """A share in percent; a dash where there is none."""
    return "    -" if np.isnan(share) else f"{100 * share:{sign}5.1f}"


def print_outer(outer: Sequence[OuterFronts]) -> None:
    print(
        "\nFigure 5, top [modelled]: backbones alone at default clocks, explored by the joint search against presets"
    )
    print(
        f"{'setting':22} presets dominated   energy saved at equal accuracy, %      accuracy gained at equal energy, points"
    )
    for one in outer:
        saved = " ".join(f"{name} {percent(found.saved)}" for name, found in one.against.items())
        gained = " ".join(f"{name} {percent(found.gained)}" for name, found in one.against.items())
        print(
            f"{SETTINGS[one.setting]:22} {one.n_dominated} of {len(one.against)}\n    saved  {saved}\n    gained {gained}"
        )
    print(
        f"    the paper, AGX Volta GPU: {100 * paper.A6_SAVED_AGX:.0f} % of a6's energy saved at its accuracy; "
        f"{100 * paper.A1_GAINED_AGX:.2f} points gained at a1's energy"
    )


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    for goal in GOALS:
        print(
            f"\nFigures 5 (bottom) and 6 [modelled]: joint search against rivals, searched for {_goal(goal)}"
        )
        print(
            f"{'setting':22} {'against':19} hypervolume   RoD reverse   saved at equal accuracy: at best median most"
            "  (of theirs reached)"
        )
        for one in comparisons:
            if one.goal == goal:
                for name in one.gain:
                    print(_comparison(one, name))
    mean = {
        goal: float(np.mean([one.dominates[PRESETS] for one in comparisons if one.goal == goal]))
        for goal in GOALS
    }
    print(
        f"    the paper: HV {100 * paper.HYPERVOLUME_GAIN_PASCAL:+.0f} % and RoD "
        f"{100 * paper.DOMINANCE_GAIN_PASCAL:.0f} % more on the TX2 Pascal GPU; mean RoD on four settings "
        f"{100 * paper.MEAN_DOMINANCE:.1f} %; ours: "
        + ", ".join(f"{goal} {100 * v:.1f} %" for goal, v in mean.items())
    )


def _goal(goal: str) -> str:
    return {
        CONTROLLER: "accuracy and energy under the controller",
        ORACLE: "accuracy and energy under ideal mapping (oracle)",
        PAPER_AXES: "mean N_i and energy gain (the paper's axes)",
    }[goal]


def _comparison(one: Comparison, name: str) -> str:
    saved = one.saved[name]
    return (
        f"{SETTINGS[one.setting]:22} {name:19} {percent(one.gain[name]):>9} %   {100 * one.dominates[name]:4.0f} "
        f"{100 * one.dominated[name]:7.0f}   {'':24}{percent(saved.at_best)}  {percent(saved.median)} "
        f"{percent(saved.most)}  ({100 * saved.reached:.0f} %)"
    )


def print_ablation(ablation: Ablation) -> None:
    print(
        "\nFigure 7 [modelled]: inner search with dissimilarity against without, medians over presets, seeds and gammas"
    )
    print(
        f"{'range':16} {'judged by':14} hypervolume   RoD reverse   accuracy of the best   least energy saved"
    )
    for some, by_goal in ablation.effects.items():
        for goal, found in by_goal.items():
            print(
                f"{some:16} {goal:14} {percent(found.hypervolume_gain):>9} %   {100 * found.dominates:4.0f} "
                f"{100 * found.dominated:6.0f}   {percent(found.accuracy_gain):>12} points {percent(found.energy_saved):>18} %"
            )
    counts = ", ".join(f"gamma {gamma:g}: {n:.1f}" for gamma, n in ablation.n_exits.items())
    print(f"    exits in use in a design that was found, on average: {counts}")
    print(
        f"    the paper (right): RoD {100 * paper.DISSIMILARITY_DOMINANCE:+.0f} %, extreme models "
        f"{100 * paper.DISSIMILARITY_ACCURACY:.0f} % more accurate and {100 * paper.DISSIMILARITY_ENERGY:.0f} % more "
        "energy efficient"
    )


def print_table(
    presets: Mapping[str, Sequence[Line]],
    ours: Mapping[str, Sequence[Line]],
    saved: Mapping[str, Sequence[float]],
) -> None:
    print(
        "\nTable III, TX2 Pascal GPU [accuracies measured here, test split, +- standard error; energies in mJ, modelled]"
    )
    for goal in presets:
        print(f"exits and clocks searched for {_goal(goal)}")
        print(
            f"{'network':8} {'alone, %':>12} {'controller, %':>14} {'oracle, %':>12}  {'alone':>7} "
            f"{'+exits':>7} {'+clocks':>8} {'(oracle)':>15}   saved against the best of m0..m6 at equal accuracy, %"
        )
        gains = [float("nan")] * len(presets[goal]) + list(saved[goal])
        for one, gain in zip((*presets[goal], *ours[goal]), gains, strict=True):
            print(_line(one, gain))
    print("the paper, exits under ideal mapping (oracle):")
    for row in paper.TABLE_3:
        print(
            f"{row.name:8} {row.alone:12.2f} {'':14} {row.with_exits:12.2f}  {row.energy_alone_mj:7.1f} "
            f"{'':16} {row.exits_mj:7.1f} {row.exits_and_clocks_mj:7.1f}"
        )
    print(
        f"    the paper: b1 saves {100 * paper.SAVED_AGAINST_A6:.0f} % against a6 and "
        f"{100 * paper.SAVED_AGAINST_A0:.0f} % against a0, each with exits and clocks"
    )


def _line(one: Line, gain: float) -> str:
    def accuracy(found: tuple[float, float]) -> str:
        return f"{100 * found[0]:.2f} +-{100 * found[1]:.2f}"

    goal = one.chosen.goal
    return (
        f"{one.chosen.name:8} {accuracy(one.alone):>12} {accuracy(one.accuracy[CONTROLLER]):>14} "
        f"{accuracy(one.accuracy[ORACLE]):>12}  {one.energy_alone_mj:7.2f} {one.exits_mj[CONTROLLER]:7.2f} "
        f"{one.exits_and_clocks_mj[CONTROLLER]:8.2f} {one.exits_mj[ORACLE]:7.2f} {one.exits_and_clocks_mj[ORACLE]:7.2f}   "
        + ("" if np.isnan(gain) else f"{percent(gain)} under the {goal}")
    )


def print_published(found: Sequence[PublishedExits]) -> None:
    print(
        "\na0..a5 on CIFAR-100, TX2 Pascal GPU [accuracies published by the authors; energies in mJ, modelled; exits nested, "
        "ideal mapping, no accuracy lost]"
    )
    print(
        f"{'network':8} {'alone, %':>9} {'best exit, %':>13} {'alone':>7} {'+exits':>7} {'+clocks':>8}   saved by exits, and clocks"
    )
    for one in found:
        saved = [1.0 - mj / one.energy_alone_mj for mj in (one.exits_mj, one.exits_and_clocks_mj)]
        print(
            f"{one.name:8} {100 * one.alone:9.2f} {100 * one.best_exit:13.2f} {one.energy_alone_mj:7.1f} {one.exits_mj:7.1f} "
            f"{one.exits_and_clocks_mj:8.1f}   {percent(saved[0])} % {percent(saved[1])} %"
        )
    for row in paper.TABLE_3[:2]:
        saved = [1.0 - mj / row.energy_alone_mj for mj in (row.exits_mj, row.exits_and_clocks_mj)]
        print(
            f"the paper, {row.name}: {row.alone:.2f} % alone, {row.with_exits:.2f} % with exits, {row.energy_alone_mj:.1f} mJ alone; "
            f"saved {percent(saved[0])} % by exits, {percent(saved[1])} % with clocks"
        )
