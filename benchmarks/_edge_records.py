"""The 96 published records of quantized early-exit MobileNetV2 networks on CIFAR-10 (arXiv:2512.04705).

What the records say of accuracy, shares and work is taken as it is.  Of their costs, ``cost_subnets`` should be
cumulative (J x cycles of everything that runs up to an exit); in 17 records it is not, and those are recognised.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from _checkout import make_importable

make_importable()

from _predictor_tasks import DATA  # noqa: E402

from hadas.spaces.quantized import FINAL, LETTERS, QuantizedNetwork  # noqa: E402

RECORDS_FILE = DATA / "accuracy" / "edge_accelerator_eenn_records.jsonl"
N_TEST = 10_000
"""Images that accuracies and shares are over: the CIFAR-10 test split."""
BITS = 8
"""Of weights and activations, backbone and heads: all released records are INT8+8."""
_J_PER_PJ = 1e-12  # the source multiplies energies in pJ by cycles
_TYPE_OF_EX_LAY = {1: 1, 0: 2}  # the records' 1 = one fully connected layer, 0 = two


@dataclass(frozen=True)
class EdgeRecord:
    """One record; e = exits in use, the final included.

    Attributes:
        path: of the record in its source; starts with ``focus`` (13 mounting-point models) or ``nas``.
        positions: (e,) mounting points, 0 (A) .. 10 (K).
        head_types: (e,) 1 = one fully connected layer, 2 = two.
        accuracy: of the controller, share of the test split.
        threshold: of the network's controller; one for all exits.
        shares: (e,) of the samples that leave at each exit.
        branch_accuracy: (e,) among the samples that leave there.
        backbone_macs, backbone_params: (e,) cumulative, without heads.
        head_macs, head_params: (e,) of each head alone.
        costs: (e,) as published, J x cycles; cumulative with all earlier heads where ``is_cumulative``.
        static_cost: J x cycles, published, of the backbone with its final head alone.
        energy_pj, latency_cycles: published, of the whole network with all its heads.
    """

    path: str
    positions: tuple[int, ...]
    head_types: tuple[int, ...]
    accuracy: float
    threshold: float
    shares: tuple[float, ...]
    branch_accuracy: tuple[float, ...]
    backbone_macs: tuple[int, ...]
    backbone_params: tuple[int, ...]
    head_macs: tuple[int, ...]
    head_params: tuple[int, ...]
    costs: tuple[float, ...]
    static_cost: float
    energy_pj: float
    latency_cycles: float

    @property
    def letters(self) -> str:
        """The exits in use, such as ``D,F,I,K``."""
        return ",".join(LETTERS[i] for i in self.positions)

    @property
    def is_focus(self) -> bool:
        """Whether it is one of the 13 models of four exits that differ in their mounting points alone."""
        return self.path.startswith("focus/")

    @property
    def is_cumulative(self) -> bool:
        """Whether its costs can be cumulative."""
        return costs_are_cumulative(self.costs)

    @property
    def mean_cost(self) -> float:
        """Published ET_avg, sum of share x cost, J x cycles; NaN unless the costs are cumulative."""
        if not self.is_cumulative:
            return float("nan")
        return sum(share * cost for share, cost in zip(self.shares, self.costs, strict=True))

    def network(self, space: str) -> QuantizedNetwork:
        """The record's network in a space of that name."""
        heads = [0] * (FINAL + 1)
        for position, head_type in zip(self.positions, self.head_types, strict=True):
            heads[position] = head_type
        return QuantizedNetwork(space, tuple(heads), (BITS,) * (FINAL + 1), BITS)


def costs_are_cumulative(costs: Sequence[float]) -> bool:
    """Whether costs can be cumulative: they rise with depth, as energy and cycles of what runs do."""
    return all(earlier < later for earlier, later in pairwise(costs))


@cache
def edge_records(path: Path = RECORDS_FILE) -> tuple[EdgeRecord, ...]:
    """All records, in the file's order.

    Raises:
        FileNotFoundError: the data set is not beside the checkout.
    """
    return tuple(_record(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line)


def focus_records() -> tuple[EdgeRecord, ...]:
    """The 13 mounting-point models."""
    return tuple(record for record in edge_records() if record.is_focus)


def _record(raw: dict[str, Any]) -> EdgeRecord:
    mask = raw["subnet"]["b"]
    return EdgeRecord(
        path=raw["path"],
        positions=(*(i for i, used in enumerate(mask) if used), FINAL),
        head_types=tuple(_TYPE_OF_EX_LAY[layers] for layers in raw["subnet"]["ex_lay"]),
        accuracy=raw["top1_accuracy"],
        threshold=raw["epsilon"],
        shares=tuple(raw["exits_ratios"]),
        branch_accuracy=tuple(raw["branch_scores"]),
        backbone_macs=tuple(raw["backbone_nbr_macs"]),
        backbone_params=tuple(raw["backbone_nbr_parameters"]),
        head_macs=tuple(raw["classifiers_nbr_macs"]),
        head_params=tuple(raw["classifiers_nbr_parameters"]),
        costs=tuple(_J_PER_PJ * cost for cost in raw["cost_subnets"]),
        static_cost=_J_PER_PJ * raw["cost_backbone"],
        energy_pj=raw["energy"],
        latency_cycles=raw["latency"],
    )
