"""What a study needs to know of its device when the device is not there.

Only measuring talks to the device.  Everything else (fitting, searching, reporting) works from
what the study wrote down when it first met it, so it works on a train, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from ..datasets.records import Target, Truth
from ..errors import StudyError
from ..spaces import ClockDomain, ClockTable, SwitchingCost

if TYPE_CHECKING:
    from ..measurement.accuracy.training import TrainedSupernet
    from ..measurement.hardware.device import Device
    from .loop import Study


@dataclass(frozen=True)
class DeviceIdentity:
    """Whose costs a study's rows are.

    Attributes:
        target, truth: as every row carries them.
        table: clocks on offer.
        counts_energy: whether rows have energies.
    """

    target: Target
    truth: Truth
    table: ClockTable
    counts_energy: bool

    @classmethod
    def of(cls, device: Device) -> Self:
        """Ask the device itself."""
        return cls(device.target, device.truth, device.clock_table(), device.counts_energy)

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        domains = [[domain.name, list(domain.frequencies_hz)] for domain in self.table.domains]
        switching = self.table.switching
        return {
            "target": asdict(self.target),
            "truth": str(self.truth),
            "table": {
                "name": self.table.name,
                "domains": domains,
                "switching": None if switching is None else asdict(switching),
            },
            "counts_energy": self.counts_energy,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        pinned = tuple((name, value) for name, value in fields["target"]["pinned"])
        domains = tuple(ClockDomain(name, tuple(hz)) for name, hz in fields["table"]["domains"])
        switching = fields["table"].get("switching")  # studies from before it could be said have none
        return cls(
            Target(**{**fields["target"], "pinned": pinned}),
            Truth(fields["truth"]),
            ClockTable(fields["table"]["name"], domains, SwitchingCost(**switching) if switching else None),
            fields["counts_energy"],
        )

    def differences(self, other: DeviceIdentity) -> list[str]:
        """What sets two identities apart, one line each: ``field: mine -> other's``."""
        mine, theirs = self._compared(), other._compared()
        names = dict.fromkeys((*mine, *theirs))
        return [
            f"{name}: {mine.get(name)} -> {theirs.get(name)}"
            for name in names
            if mine.get(name) != theirs.get(name)
        ]

    def _compared(self) -> dict[str, Any]:
        fields = {f"target.{name}": value for name, value in asdict(self.target).items()}
        # The table's name is how people call it; only the frequencies matter.
        clocks = {f"clocks.{domain.name}": domain.frequencies_hz for domain in self.table.domains}
        domains = tuple(domain.name for domain in self.table.domains)
        return {
            **fields,
            "truth": str(self.truth),
            "clock domains": domains,
            **clocks,
            "counts energy": self.counts_energy,
        }


def device_now(study: Study) -> DeviceIdentity:
    """The device of a study, held for a moment.

    Rows of another board, release, engine or clock table never mix with those the study has.

    Raises:
        ConfigError: a limit on energy, which it does not count.
        StudyError: it is not the one that the study began on.
        HadasError: it cannot be held; says why.
    """
    with study.parts.held_device() as held:
        device = DeviceIdentity.of(held)
    study.findings.constraints.check_energy(device.counts_energy)
    begun = study.findings.event("device")
    if begun is None:
        return device
    if changed := DeviceIdentity.from_json(begun).differences(device):
        raise StudyError(
            f"study '{study.config.study}' began on another device than '{study.config.device.name}' is "
            f"now: {'; '.join(changed)}. Restore it, or give a new study a new name."
        )
    return device


def check_weights(study: Study, trained: TrainedSupernet, found: bool) -> None:
    """See that the supernet is the one that the study began with; write it down if it begins now.

    Args:
        found: whether it was finished before the study asked for it, so that the study spent nothing on it.

    Raises:
        StudyError: it is another one.
    """
    begun = study.findings.event("supernet")
    if begun is None:
        training = {"weights_id": trained.weights_id, "seconds": trained.seconds, "found": found}
        study.journal("supernet", training)
    elif begun["weights_id"] != trained.weights_id:
        raise StudyError(
            f"study '{study.config.study}' began with supernet weights {begun['weights_id']}, these are "
            f"{trained.weights_id}: its images, space, training code or number of processes (torchrun) "
            "changed. Give a new study a new name."
        )
