"""What a study has found so far, from its journal, the rows of the store and the table of layer costs.

Nothing is trained, searched or modelled anew here, so it works without images of other splits, GPU or cost model.

Once a file that changes the study is adopted, rounds begin anew with all that is trained as seeds, so that plans,
predictions and hypervolumes belong to one configuration.

Journal keys: ``begun`` (recipe, splits and shared start), ``table:k`` (what modelling layers took), ``adopted:a`` (what changed, and
genomes that were trained by then), ``plan:r`` (genomes of round r, 0 = seeds, and what was predicted of them; the last
may be one that was not worth training), ``round:r`` (the hypervolume after round r), ``ended:RULE`` (why there were no
more rounds), ``infeasible:RULE`` (nothing met the constraints).  The last four begin with ``a.`` after an adoption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...search.archive import Proposal, Proposals
from ...search.ranking import front_indices
from ...spaces.quantized import QuantizedNetwork
from .assembly import EdgeAssembly
from .judging import QUANTITIES, JudgedNetwork
from .seeds import static_networks
from .training import Trained

MARK = "MODELLED"
"""What is written over every cost: it comes from an analytical model, not from a device."""


@dataclass(frozen=True)
class EdgePoint:
    """One trained network.

    Attributes:
        number: in the order of training, from 1.
        round: that it was trained in; 0 = seeds.
        search: on the calibration split, thresholds cross-fitted: what the search may use.
        test: on the split that only reports use.
        is_static: whether it is one of the static networks that others are compared with.
        feasible: whether it meets the constraints on the calibration split.
    """

    number: int
    round: int
    network: QuantizedNetwork
    search: JudgedNetwork
    test: JudgedNetwork
    is_static: bool
    feasible: bool

    @property
    def name(self) -> str:
        """Short, for people."""
        return f"{'static' if self.is_static else 'n'}{self.number}"

    @property
    def bits(self) -> str:
        """Bits of backbone and heads, such as ``8+4``; where segments differ a digit for each, ``88888444444+4``."""
        bits = set(self.network.segment_bits)
        between = "" if max(bits) < 10 else "."
        used = str(bits.pop()) if len(bits) == 1 else between.join(map(str, self.network.segment_bits))
        return f"{used}+{self.network.head_bits}"

    @property
    def strategy(self) -> str:
        """Who proposed it."""
        if self.is_static:
            return "static"
        return "seed" if self.round == 0 else "hadas"


@dataclass(frozen=True)
class EdgeCheck:
    """One prediction and what then came out on the calibration split; quantities as in :data:`QUANTITIES`.

    What came out is measured for an accuracy; for a cost it is modelled from shares that are measured.
    """

    quantity: str
    trained_id: str
    round: int
    predicted: float
    low_90: float
    high_90: float
    found: float

    @property
    def certain(self) -> bool:
        """Whether it was known before, as the costs of a network with one exit: such a value puts nothing to the test."""
        return self.high_90 - self.low_90 <= 1e-9 * abs(self.predicted)

    @property
    def inside(self) -> bool:
        """Whether what came out lies in the interval."""
        return self.low_90 <= self.found <= self.high_90


@dataclass(frozen=True)
class EdgeRound:
    """What one round found and cost.

    Attributes:
        n_trained: valid networks up to and including this round.
        failed: (trained_id, reason) of those whose training failed in it.
        hypervolume: of all that is feasible, to the reference frozen after the seeds.
        inside_90: by quantity, how many predictions held, and of how many; those that were certain left out.
        seconds: of training that its rows took, whoever trained them.
    """

    number: int
    n_trained: int
    failed: tuple[tuple[str, str], ...]
    hypervolume: float
    inside_90: Mapping[str, tuple[int, int]]
    seconds: float


class EdgeFindings:
    """Read-only view of a study."""

    def __init__(self, parts: EdgeAssembly, trained: Trained) -> None:
        self._parts, self._trained = parts, trained
        self.mark = MARK
        keys = parts.store.event_keys(parts.config.study)
        self.n_adopted = sum(key.startswith("adopted:") for key in keys)

    def key(self, kind: str, what: object) -> str:
        """Of an event that belongs to the rounds since the study file was last adopted."""
        return f"{kind}:{self.n_adopted}.{what}" if self.n_adopted else f"{kind}:{what}"

    @property
    def adopted(self) -> dict[str, Any] | None:
        """What was written down when the study file was last adopted; ``None`` if it never was."""
        return self.event(f"adopted:{self.n_adopted}") if self.n_adopted else None

    def adopted_networks(self) -> list[QuantizedNetwork]:
        """Those that were trained when the study file was last adopted."""
        return [
            self._parts.space.decode(np.array(genome)) for genome in (self.adopted or {}).get("genomes", [])
        ]

    def event(self, key: str) -> dict[str, Any] | None:
        """What was journalled under a key."""
        return self._parts.store.event(self._parts.config.study, key)

    @property
    def limits(self) -> tuple[str, ...]:
        """The study's constraints in words."""
        return self._parts.limits.words

    @property
    def cores_used(self) -> str:
        """Which cores networks run on, in words."""
        return self._parts.cores_used

    def planned(self, number: int) -> list[QuantizedNetwork]:
        """Networks of a round, not mapped yet; none if it is not planned."""
        if number == 0:
            genomes = (self.event(self.key("plan", 0)) or {}).get("genomes", [])
        else:
            genomes = [
                proposal.genome for plan in self.plans()[number - 1 : number] for proposal in plan.chosen
            ]
        return [self._parts.space.decode(np.array(genome)) for genome in genomes]

    def plans(self) -> list[Proposals]:
        """Plans of rounds 1, 2, ..."""
        events = (self.event(self.key("plan", number)) for number in range(1, self.n_planned))
        return [Proposals.from_json(event) for event in events if event is not None]

    @property
    def n_planned(self) -> int:
        """Rounds that are planned, the seeds included."""
        return self._count("plan")

    @property
    def n_rounds(self) -> int:
        """Rounds that are trained, the seeds included."""
        return self._count("round")

    def _count(self, kind: str) -> int:
        number = 0
        while self.event(self.key(kind, number)) is not None:
            number += 1
        return number

    def points(self, n_rounds: int | None = None) -> list[EdgePoint]:
        """Trained networks of the first rounds (all that are done), in order; failed ones left out."""
        rounds = [self.planned(number) for number in range(self.n_rounds if n_rounds is None else n_rounds)]
        networks = [network for planned in rounds for network in planned]
        self._trained.find(networks)
        search, test = (self._trained.judged(networks, split) for split in ("calibration", "test"))
        of_round = [number for number, planned in enumerate(rounds) for _ in planned]
        static = set(static_networks(self._parts.space))
        points = []
        for i, (network, found, final) in enumerate(zip(networks, search, test, strict=True)):
            if found is None or final is None:
                continue
            excess = self._parts.limits.excess(np.array([found.accuracy]), np.array([found.latency_ms]))
            feasible = excess is None or bool((excess <= 0).all())
            (mapped,) = self._trained.mapped([network])
            points.append(EdgePoint(i + 1, of_round[i], mapped, found, final, network in static, feasible))
        return points

    def front(self, points: Sequence[EdgePoint]) -> list[EdgePoint]:
        """Feasible networks that none dominates on the calibration split, cheapest first."""
        able = [point for point in points if point.feasible]
        if not able:
            return []
        values = np.array([(1 - p.search.accuracy, p.search.et_average, p.search.head_share) for p in able])
        return sorted((able[i] for i in front_indices(values)), key=lambda p: p.search.et_average)

    def checks(self, number: int) -> list[EdgeCheck]:
        """Predictions made before a round was trained, against what came out."""
        if number == 0:
            return []
        proposals = self.plans()[number - 1].chosen
        networks = self.planned(number)
        self._trained.find(networks)
        judged = self._trained.judged(networks, "calibration")
        return [
            _check(quantity, i, network.trained_id, number, proposal, found)
            for network, proposal, found in zip(networks, proposals, judged, strict=True)
            if found is not None
            for i, quantity in enumerate(QUANTITIES)
        ]

    def summary(self, number: int) -> EdgeRound:
        """What a finished round found and cost."""
        event = self.event(self.key("round", number))
        assert event is not None
        networks = [network for r in range(number + 1) for network in self.planned(r)]
        self._trained.find(networks)
        records = [r for network in networks if (r := self._trained.record(network)) is not None]
        own = {network.trained_id for network in self.planned(number)}
        inside: dict[str, tuple[int, int]] = {}
        for check in (check for check in self.checks(number) if not check.certain):
            held, n = inside.get(check.quantity, (0, 0))
            inside[check.quantity] = (held + check.inside, n + 1)
        new = [record for record in records if record.network.trained_id in own]
        return EdgeRound(
            number=number,
            n_trained=sum(record.valid for record in records),
            failed=tuple((r.network.trained_id, r.reason) for r in new if not r.valid),
            hypervolume=event["hypervolume"],
            inside_90=inside,
            seconds=sum(sum(record.seconds.values()) for record in new),
        )

    def summaries(self) -> list[EdgeRound]:
        """Of all finished rounds."""
        return [self.summary(number) for number in range(self.n_rounds)]


def _check(
    quantity: str, i: int, trained_id: str, number: int, proposal: Proposal, found: JudgedNetwork
) -> EdgeCheck:
    """Objective ``i`` of a proposal; the error's interval is turned into one of the accuracy."""
    mean, low, high = proposal.mean[i], proposal.low_90[i], proposal.high_90[i]
    if quantity == "accuracy":
        mean, low, high = 1.0 - mean, 1.0 - high, 1.0 - low
    return EdgeCheck(quantity, trained_id, number, mean, low, high, getattr(found, quantity))
