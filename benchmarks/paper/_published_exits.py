"""Published exit accuracies of a0..a5 on CIFAR-100 with the costs of the simulated TX2 Pascal GPU.

Only fractions right per exit were published, not which images.  What ideal mapping makes of them depends on that: here
exits are nested (an exit is right on all images that any worse one is right on), as the paper's N_i and dissimilarity
treat them.  Under nesting no mapping is more accurate than the best exit.  The paper's Table III is: the rest of its
gain comes from images that only an early exit gets right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from _paper_world import IdealMapping
from _simulated_view import FloatArray, SimulatedView

from hadas.measurement.hardware.simulation.simulator import simulated_device
from hadas.search.objectives import Expected, evaluate
from hadas.search.outcomes import Outcomes
from hadas.search.outer import SEARCH_PRESETS
from hadas.search.world import PredictedWorld
from hadas.spaces import Backbone, attentivenas_space

FILE = (
    Path(__file__).resolve().parents[2].parent
    / "shared"
    / "data"
    / "accuracy"
    / "hadas_exit_accuracy_cifar100.csv"
)
SETTING = "tx2-pascal-gpu"
N_CLASSES, N_IMAGES = 100, 10_000


@dataclass(frozen=True)
class PublishedExits:
    """One backbone: accuracies published, energies in mJ modelled.

    Attributes:
        alone: accuracy of its final classifier, a fraction.
        best_exit: of its best exit or final classifier: the bound under nesting.
        energy_alone_mj: without exits at default clocks.
        exits_mj: least expected energy with exits at default clocks, nested ideal mapping, no accuracy lost.
        exits_and_clocks_mj: likewise with clocks chosen, too.
    """

    name: str
    alone: float
    best_exit: float
    energy_alone_mj: float
    exits_mj: float
    exits_and_clocks_mj: float


class _Published:
    """Accuracies of named backbones, and their nested outcomes; what a world asks of predictors and a library."""

    n_samples = N_IMAGES

    def __init__(self, fractions: dict[Backbone, FloatArray]) -> None:
        self._fractions = fractions

    def final_accuracy(self, backbones: Sequence[Backbone]) -> FloatArray:
        return np.array([self._fractions[backbone][-1] for backbone in backbones])

    def exit_fractions(self, backbones: Sequence[Backbone]) -> list[FloatArray]:
        return [self._fractions[backbone][:-1] for backbone in backbones]

    def fractions(self, arch_id: str) -> None:
        return None

    def measured(self, arch_id: str) -> None:
        return None

    def borrowed(self, fractions: FloatArray) -> Outcomes:
        correct = np.arange(N_IMAGES) < np.rint(N_IMAGES * fractions)[:, None]
        return Outcomes(correct, correct, measured=False)


def published_exits(path: Path = FILE, names: Sequence[str] | None = None) -> list[PublishedExits]:
    """Inner search on the published backbones, at the thorough budget or exact where that is small.

    Args:
        names: of a0 to a5; ``None`` = all.
    """
    table = pd.read_csv(path).sort_values(["backbone", "block_index_0based"])
    space = attentivenas_space()
    found = {
        str(name): rows["top1"].to_numpy(np.float64) / 100
        for name, rows in table.groupby("backbone")
        if names is None or name in names
    }
    backbones = [space.presets[name] for name in found]
    published = _Published(dict(zip(backbones, found.values(), strict=True)))
    device = simulated_device(SETTING, space=space, n_classes=N_CLASSES, noise=False)
    view = SimulatedView(published, device, space)
    world = IdealMapping(
        PredictedWorld(space, device.clock_table(), view, published, n_classes=N_CLASSES)  # type: ignore[arg-type]
    )
    static, tables = world.static(backbones), world.tables(backbones)
    fronts = (
        replace(SEARCH_PRESETS["thorough"], exact_limit=1_000_000).make_inner().run(tables, Expected(), 0)
    )
    lines = []
    for i, (name, fractions) in enumerate(found.items()):
        front, default = fronts[i], np.full(len(fronts[i].settings), tables.default_setting)
        kept = front.objectives[:, 0] <= 1.0 - fractions[-1] + 0.5 / N_IMAGES
        at_default = evaluate(Expected(), tables, np.full(len(default), i), front.masks, default)
        lines.append(
            PublishedExits(
                name, float(fractions[-1]), float(fractions.max()), float(static.energy_mj[i]),
                float(at_default[kept, 1].min()), float(front.objectives[kept, 1].min()),
            )
        )  # fmt: skip
    return lines
