"""What was trained: rows in the store, found again whoever trained them, and judged under the study's exit policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ...datasets.quantized_records import QuantizedRecord
from ...errors import StudyError
from ...spaces.quantized import QuantizedNetwork
from .assembly import EdgeAssembly
from .judging import JudgedNetwork, judged, padded

if TYPE_CHECKING:
    from ...measurement.quantized import Progress
    from ...measurement.quantized.policy import QuantizedOutcome
    from ..assembly import ProgressCallback

Split = Literal["calibration", "test"]

_PHASES = {"start": "training the shared start", "networks": "training, {}"}
"""Phases of the meter as they are shown."""


def _shown(name: str, progress: ProgressCallback) -> Progress:
    """Progress of a meter as that of a phase with a name."""
    return lambda phase, done, total: progress(_PHASES[phase].format(name), done, total)


class Trained:
    """The trained networks of one study, which all were tuned from one shared start.

    Args:
        session: of the rows that this study adds.
    """

    def __init__(self, parts: EdgeAssembly, session: str) -> None:
        self._parts, self._session = parts, session
        self._records: dict[str, QuantizedRecord] = {}
        self._tried: set[str] = set()
        self._outcomes: dict[tuple[str, Split], QuantizedOutcome] = {}

    @property
    def start_id(self) -> str:
        """Hash of the weights that the study tunes from, as it wrote down when it began; empty before that."""
        begun = self._parts.store.event(self._parts.config.study, "begun")
        return "" if begun is None else str(begun.get("start_id", ""))

    def start(self, progress: ProgressCallback) -> str:
        """Hash of the shared start as it is here; trained now, unless it is there."""
        return self._parts.meter.start(_shown("", progress)).start_id

    def train(self, networks: Sequence[QuantizedNetwork], name: str, progress: ProgressCallback) -> None:
        """Train each network that has no row yet; a row is kept as soon as it is there.

        One whose training failed by a fault of the machine is tried again, once; if the network itself was at
        fault, it is not: its row says why.
        """
        self.find(networks)
        # Accuracy does not depend on the mapping.
        unmapped = {n.trained_id: replace(n, cores=(0,) * len(n.cores)) for n in networks}
        missing = [network for key, network in unmapped.items() if self._is_missing(key)]
        if not missing:
            return
        self._tried |= {network.trained_id for network in missing}
        rows, next_row = self._parts.rows, self._parts.rows.next_row(self._session)
        told = _shown(name, progress)
        for record in self._parts.meter.measure(missing, told, session=self._session, first_row=next_row):
            rows.add(record)
            self._records[record.network.trained_id] = record

    def _is_missing(self, trained_id: str) -> bool:
        record = self._records.get(trained_id)
        return record is None or (record.passing and trained_id not in self._tried)

    def find(self, networks: Sequence[QuantizedNetwork]) -> None:
        """Read what the store has of networks."""
        unknown = [network for network in networks if network.trained_id not in self._records]
        if unknown:
            self._records |= self._parts.rows.find(
                unknown, recipe_id=self._parts.recipe.recipe_id, split_id=self._parts.data.split_id,
                start_id=self.start_id,
            )  # fmt: skip

    def has(self, trained_id: str) -> bool:
        """Whether a network was trained, well or not."""
        return trained_id in self._records

    def record(self, network: QuantizedNetwork) -> QuantizedRecord | None:
        """The row of a network that was looked for, ``None`` if it is not trained."""
        return self._records.get(network.trained_id)

    def reason(self, network: QuantizedNetwork) -> str:
        """Why training a network failed; empty if it did not."""
        record = self.record(network)
        return "" if record is None else record.reason

    def outcome(self, network: QuantizedNetwork, split: Split) -> QuantizedOutcome:
        """A trained network under the study's exit policy.

        Raises:
            StudyError: it has no valid row.
        """
        from ...measurement.quantized.policy import exit_policy

        key = (network.trained_id, split)
        if key not in self._outcomes:
            record = self.record(network)
            if record is None or not record.valid:
                raise StudyError(f"network {network.trained_id} has no valid row in the store")
            policy = self._parts.config.policy
            self._outcomes[key] = exit_policy(
                record, kind=policy.kind, tolerance=policy.tolerance, split=split
            )
        return self._outcomes[key]

    def mapped(self, networks: Sequence[QuantizedNetwork]) -> list[QuantizedNetwork]:
        """Networks with valid rows, on the cores that are best for their shares on the calibration split."""
        shares = padded([self.outcome(network, "calibration").shares for network in networks])
        return self._parts.mapper.mapped(networks, shares)[0]

    def judged(self, networks: Sequence[QuantizedNetwork], split: Split) -> list[JudgedNetwork | None]:
        """Networks that were looked for, with what they cost once mapped; ``None`` for those without a valid row."""
        valid = [network for network in networks if self.has(network.trained_id) and not self.reason(network)]
        if not valid:
            return [None] * len(networks)
        costs = self._parts.costs.costs(self.mapped(valid))
        found = dict(zip(valid, judged([self.outcome(n, split) for n in valid], costs), strict=True))
        return [found.get(network) for network in networks]
