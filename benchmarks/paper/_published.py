"""What the paper reports, for the column beside ours: Bouzidi et al., HADAS, DATE 2023."""

from __future__ import annotations

from dataclasses import dataclass

HYPERVOLUME_GAIN_PASCAL, DOMINANCE_GAIN_PASCAL = 0.16, 0.95
"""Figure 6, in words: hypervolume and ratio of dominance are "16 % and 95 % more" on the TX2 Pascal GPU."""

MEAN_DOMINANCE = 0.584
"""Mean ratio of dominance of HADAS over the optimised baselines on the four settings (section V-B)."""

A6_SAVED_AGX, A1_GAINED_AGX = 0.33, 0.0234
"""Figure 5, top: a backbone as accurate as a6 with a third less energy, and one more accurate than a1 at its energy."""

GAIN_CARMEL, BASELINE_GAIN_CARMEL = 0.63, 0.52
"""Figure 5, bottom: extreme energy gains on the Carmel CPU, HADAS and the optimised baselines."""

DISSIMILARITY_DOMINANCE, DISSIMILARITY_ACCURACY, DISSIMILARITY_ENERGY = 0.41, 0.43, 0.52
"""Figure 7, right: what dissimilarity brings to the ratio of dominance, and to accuracy and energy of extreme models."""

SAVED_AGAINST_A6, SAVED_AGAINST_A0 = 0.57, 0.19
"""b1 against a6 and a0, each with exits and clocks, under ideal mapping (Table III)."""


@dataclass(frozen=True)
class PublishedLine:
    """A line of Table III: accuracies in percent, energies in mJ; exits under ideal mapping."""

    name: str
    alone: float
    with_exits: float
    energy_alone_mj: float
    exits_mj: float
    exits_and_clocks_mj: float


TABLE_3 = (
    PublishedLine("a0", 86.33, 89.95, 173.78, 119.83, 116.14),
    PublishedLine("a6", 88.23, 93.02, 335.48, 256.80, 218.34),
    PublishedLine("b1", 87.34, 93.16, 212.44, 119.84, 93.78),
    PublishedLine("b2", 88.06, 91.83, 341.30, 187.92, 126.06),
    PublishedLine("b3", 86.54, 88.31, 205.48, 130.20, 86.84),
    PublishedLine("b4", 88.40, 89.24, 358.01, 232.77, 201.01),
)
