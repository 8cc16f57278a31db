"""The ledger: what measuring has cost so far, and what a budget of time buys.

Unit costs are medians of what was measured, never guesses: seconds of accuracy jobs by step and by
hardware, of supernet trainings, and device seconds of cost rows.  Only a device that has measured
nothing yet is priced by the times that its measuring protocol prescribes, and labelled so.  Simulated and
replayed rows take no real time, so they cost a budget nothing.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.records import Truth
from ..errors import ConfigError, StudyError
from .config import PLACE_FIELDS

if TYPE_CHECKING:
    from ..datasets.store import AccuracyExpense
    from .loop import Study

_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_STEPS = ("calibrate", "exits", "evaluate")
_TYPICAL_EXITS = 2  # of the row that a protocol is priced by: five stages


def parse_budget(text: str) -> float:
    """Seconds of a budget such as ``3600s``, ``90m``, ``24h`` or ``1.5d``.

    Raises:
        ConfigError: no number with a unit, or not a positive one.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", text)
    seconds = float(found[1]) * _UNIT_S[found[2]] if found else 0.0
    if not 0.0 < seconds < math.inf:
        raise ConfigError(
            f"budget {text!r}: must be a positive number with its unit: s, m, h or d, e.g. 90m, 24h, 1.5d"
        )
    return seconds


def duration(seconds: float) -> str:
    """Seconds for people, at three digits: ``8.25 s``, ``12.5 min``, ``26.4 h``."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


@dataclass(frozen=True, slots=True)
class UnitCost:
    """What one unit took, over all times that it was done.

    Attributes:
        what, hardware: the unit, and what it was done on.
        n: how often; 0 = never, the price is the measuring protocol's.
        median_s, low_s, high_s: median, least and most seconds of one.
        source: whose it was; empty: this study's.
    """

    what: str
    hardware: str
    n: int
    median_s: float
    low_s: float
    high_s: float
    source: str = ""

    @classmethod
    def of(cls, what: str, hardware: str, seconds: Sequence[float], source: str = "") -> UnitCost:
        """The unit cost of some measured ones."""
        return cls(
            what, hardware, len(seconds), float(np.median(seconds)), min(seconds), max(seconds), source
        )


@dataclass(frozen=True, slots=True)
class Split:
    """One way to spend a budget.

    Attributes:
        n_backbones: accuracies measured, each with all exits.
        n_points: cost rows measured.
        seconds: what all of it takes, a supernet's training included.
    """

    name: str
    n_backbones: int
    n_points: int
    seconds: float


def budget_splits(
    budget_s: float,
    *,
    training_s: float,
    backbone_s: float,
    point_s: float,
    points_per_backbone: int,
    n_workers: int = 1,
) -> list[Split]:
    """What a budget buys, split in several ways.

    Accuracies are measured ``n_workers`` at a time, in whole turns; then the points, one at a time,
    on the one device.

    Args:
        budget_s: wall-clock seconds.
        training_s: of the supernet that is still to be trained; 0 for one that is there.
        backbone_s: seconds of one accuracy job.
        point_s: device seconds of one cost row; 0 where rows are simulated or replayed.
        points_per_backbone: cost rows per backbone in the mixed split.

    Returns:
        Backbones only; the mixed split; where points take time, points only, and half the time on
        each.  Empty if the training alone takes more.
    """
    left = budget_s - training_s
    if left < 0:
        return []

    def bought(name: str, backbones_s: float, points_s: float, per_backbone: int = 0) -> Split:
        n = most_backbones(backbones_s, backbone_s, per_backbone * point_s, n_workers)
        n_points = n * per_backbone + (_floor(points_s / point_s) if points_s else 0)
        seconds = training_s + math.ceil(n / n_workers) * backbone_s + n_points * point_s
        return Split(name, n, n_points, seconds)

    splits = [
        bought("all on backbones", left, 0.0),
        bought(f"{points_per_backbone} points per backbone", left, 0.0, points_per_backbone),
    ]
    if point_s > 0:
        splits += [bought("half on each", left / 2, left / 2), bought("all on points", 0.0, left)]
    return splits


def most_backbones(budget_s: float, backbone_s: float, points_s: float, n_workers: int) -> int:
    """The most backbones n with ceil(n / n_workers) * backbone_s + n * points_s <= budget_s."""
    turns = _floor(budget_s / (backbone_s + n_workers * points_s))
    left = budget_s - turns * (backbone_s + n_workers * points_s) - backbone_s
    more = 0
    if left >= 0 and points_s > 0:  # a last turn that does not fill all workers
        more = min(n_workers - 1, _floor(left / points_s))
    return turns * n_workers + more


def _floor(ratio: float) -> int:
    """Whole units in a ratio; one that rounding put just below a whole number counts as that."""
    return math.floor(ratio * (1.0 + 1e-12))


class Ledger:
    """What a study has spent, and its unit costs; those of other studies where it has none."""

    def __init__(self, study: Study) -> None:
        """Read the store."""
        self._study = study
        self._name = study.config.study
        parts, own = study.parts, study.findings.session("accuracy")
        wanted = parts.space.name, parts.data.split_id
        rows = study.store.accuracy_expenses(parts.recipes[1].recipe_id)
        alike = [row for row in rows if (row.space, row.split_id) == wanted]
        self.own_accuracy = [row for row in alike if row.session == own]
        valid = [row for row in alike if row.valid]
        mine = [row for row in valid if row.session == own]
        self._comparable = mine or valid
        self._elsewhere = self._source(row for row in rows if (row.space, row.split_id) != wanted)

    @property
    def truth(self) -> Truth:
        """Where device seconds come from; only those of a device are real time."""
        return self._study.truth

    @property
    def _untimed(self) -> str:
        """What device seconds that take no real time are followed by; empty for a device's."""
        if self.truth is Truth.DEVICE:
            return ""
        when = ", when recorded" if self.truth is Truth.REPLAY else ""
        return f"{self.truth.mark}, no real time{when}"

    def _source(self, rows: Iterable[AccuracyExpense]) -> str:
        return _others({row.session.rpartition("/")[0] for row in rows} - {self._name})

    def backbone_costs(self) -> list[UnitCost]:
        """Seconds of one accuracy job by hardware: each step, and all of them, the last of each group."""
        by_hardware: dict[str, list[AccuracyExpense]] = defaultdict(list)
        for row in self._comparable:
            by_hardware[row.hardware or "not noted"].append(row)
        found = []
        for hardware, rows in sorted(by_hardware.items(), key=lambda item: -len(item[1])):
            source = self._source(rows)
            for step in _STEPS:
                seconds = [row.seconds[step] for row in rows if step in row.seconds]
                if seconds:
                    found.append(UnitCost.of(f"  {step}", hardware, seconds, source))
            totals = [sum(row.seconds.values()) for row in rows]
            found.append(UnitCost.of("accuracy of a backbone", hardware, totals, source))
        return found

    def backbone_s(self) -> float:
        """Median seconds of one accuracy job, on the hardware that did most of them.

        Raises:
            StudyError: none comparable is measured yet, by this study or another of its store.
        """
        if not self._comparable:
            aside = (
                f" (rows of {self._elsewhere} are of other images or another space)"
                if self._elsewhere
                else ""
            )
            raise StudyError(
                f"study '{self._name}': no accuracy is measured yet in space '{self._study.parts.space.name}' on these "
                f"images with this recipe, by no study of the store{aside}, so there is no unit cost to plan with; "
                f"run first: hadas measure {self._study.path} --accuracy"
            )
        return next(cost.median_s for cost in self.backbone_costs() if cost.what == "accuracy of a backbone")

    @cached_property
    def _trained_s(self) -> float | None:
        """Seconds that the finished supernet took which this study would use, ``None`` if there is none.

        It may be there without this study knowing of it: another study may have trained it.
        """
        event = self._study.findings.event("supernet")
        if event is not None:
            return float(event["seconds"])
        finished = self._study.parts.finished_supernet()
        return None if finished is None else finished.seconds

    def training_cost(self) -> UnitCost | None:
        """Of a training of this supernet, here or in another study with the same settings."""
        if self._trained_s is not None:
            return UnitCost.of("supernet", "all of its sittings", [self._trained_s])
        wanted = _supernet_settings(self._study.config.model_dump(mode="json"))
        found: dict[str, float] = {}
        for study_id in self._study.store.study_ids():
            config = self._study.store.study_config(study_id) or {}
            other = self._study.store.event(study_id, "supernet")
            if other is not None and _supernet_settings(config) == wanted:
                found[study_id] = other["seconds"]
        if not found:
            return None
        return UnitCost.of("supernet", "all of its sittings", list(found.values()), _others(found))

    def training_s_left(self) -> float:
        """Seconds of supernet training that are still to be spent.

        Raises:
            StudyError: it is not trained yet, and no study of the store trained one alike.
        """
        if self._trained_s is not None:
            return 0.0
        cost = self.training_cost()
        if cost is None:
            raise StudyError(
                f"study '{self._name}': its supernet is not trained yet, and no study of the store trained one alike; "
                f"run first: hadas measure {self._study.path} --accuracy"
            )
        return cost.median_s

    def point_cost(self) -> UnitCost | None:
        """Device seconds of one cost row; of this study, else of others on the same kind of device, else
        by the protocol of a device that will really be measured; ``None`` without any of those.

        Rows that failed took their time; only those that a log does not have took none.
        """
        own = self._device_seconds(self._name)
        found: dict[str, list[float]] = {}
        device = self._study.config.model_dump(mode="json")["device"]
        for study_id in self._study.store.study_ids():
            config = self._study.store.study_config(study_id) or {}
            same = all(config.get("device", {}).get(key) == device[key] for key in ("kind", "name"))
            if not own and same and config.get("space") == self._study.config.space:
                found[study_id] = self._device_seconds(study_id)
        others = [seconds for values in found.values() for seconds in values]
        if not own and not others:
            return self._price_by_protocol()
        source = "" if own else _others(name for name, values in found.items() if values)
        name = f"{device['kind']} {device['name']}" if device["kind"] == "simulator" else str(device["kind"])
        return UnitCost.of("cost row", f"{name} {self._untimed}".strip(), own or others, source)

    def _price_by_protocol(self) -> UnitCost | None:
        """What the measuring protocol takes for a row of two exits; loading the programs comes on top."""
        from ..measurement.hardware.measuring.protocol import PROTOCOLS

        device, known = self._study.config.device, self._study.parts.known_device
        if not device.is_real:
            return None
        counts_energy = known.counts_energy if known is not None else device.kind != "host-cpu"
        protocol = PROTOCOLS[device.measuring_protocol]
        seconds = protocol.expected_seconds(2 * _TYPICAL_EXITS + 1, counts_energy)
        what = f"cost row of {_TYPICAL_EXITS} exits{'' if counts_energy else ', latency alone'}"
        source = f"protocol '{protocol.name}', not measured: {86_400 / seconds:,.0f} a day, without loading programs"
        return UnitCost(what, str(device.kind), 0, seconds, seconds, seconds, source)

    def _device_seconds(self, study_id: str) -> list[float]:
        keys = [key.partition(":") for key in self._study.store.event_keys(study_id)]
        sessions = [f"{study_id}/{label}" for kind, _, label in keys if kind == "plan"]
        rows = [row for session in sessions for row in self._study.store.costs(session=session)]
        return [row.device_seconds for row in rows if row.valid or row.truth is Truth.DEVICE]

    def device_s(self) -> float:
        """Device seconds of all cost rows of this study."""
        return sum(self._device_seconds(self._name))

    def spent(self) -> list[tuple[str, str]]:
        """What this study has spent so far: name and amount."""
        lines = [("supernet training", "none yet" if self._trained_s is None else duration(self._trained_s))]
        by_hardware: dict[str, list[float]] = defaultdict(list)
        for row in self.own_accuracy:
            by_hardware[row.hardware or "not noted"].append(sum(row.seconds.values()))
        for hardware, seconds in sorted(by_hardware.items()):
            lines.append(
                (f"accuracy, on {hardware}", f"{duration(sum(seconds))} for {len(seconds)} backbones")
            )
        device = self._device_seconds(self._name)
        mark = f" {self._untimed}" if self._untimed else ""
        lines.append(("device", f"{duration(sum(device))}{mark} for {len(device)} cost rows"))
        return lines

    def splits(self, budget_s: float, points_per_backbone: int | None = None) -> list[Split]:
        """What a budget buys; see :func:`budget_splits`.

        What is known without all unit costs is in :meth:`spent`, :meth:`backbone_costs`, :meth:`training_cost`
        and :meth:`point_cost`.

        Args:
            points_per_backbone: by default ``learning.seed_settings``.

        Raises:
            StudyError: a unit cost is missing, or the supernet's training alone takes more.
        """
        backbone_s, point = self.backbone_s(), self.point_cost()
        if point is None and self.truth is Truth.DEVICE:
            raise StudyError(
                f"study '{self._name}': no cost row is measured yet on such a device, by no study of the store; run "
                f"first: hadas measure {self._study.path}"
            )
        training_s = self.training_s_left()
        splits = budget_splits(
            budget_s,
            training_s=training_s,
            backbone_s=backbone_s,
            point_s=0.0 if self.truth is not Truth.DEVICE or point is None else point.median_s,
            points_per_backbone=points_per_backbone or self._study.config.learning.seed_settings,
            n_workers=self.n_workers,
        )
        if not splits:
            raise StudyError(
                f"study '{self._name}': the training of its supernet alone takes {duration(training_s)}, more than the "
                f"budget of {duration(budget_s)}; give more, or train less: accuracy.supernet: {{steps: ...}}"
            )
        return splits

    @property
    def n_workers(self) -> int:
        """Accuracy jobs at a time, as the configuration says.

        Raises:
            ConfigError: it does not say, and this machine cannot tell either.
        """
        accuracy = self._study.config.accuracy
        if accuracy.n_workers is not None:
            return accuracy.n_workers
        if accuracy.workers == "threads" and accuracy.device == "cpu":
            return self._study.parts.recipes[1].threads
        if accuracy.workers == "processes":
            from ..measurement.accuracy.running import cpu_count

            return cpu_count()
        if accuracy.workers == "gpus":
            import torch

            if torch.cuda.device_count():
                return torch.cuda.device_count()
        if accuracy.workers in ("gpus", "dask"):
            raise ConfigError(
                f"accuracy.workers '{accuracy.workers}': how many of them there will be is not known here; say it with "
                "--n-workers, or as accuracy.n_workers"
            )
        return 1


def _others(names: Iterable[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in sorted(names))
    return f"study {listed}" if listed else ""


def _supernet_settings(config: Mapping[str, Any]) -> Any:
    """All of a configuration that a supernet's training depends on."""
    accuracy = {
        name: value
        for name, value in config.get("accuracy", {}).items()
        if name not in (*PLACE_FIELDS, "exits")
    }
    data = config.get("data", {})
    return config.get("space"), data.get("name"), data.get("limit"), accuracy
