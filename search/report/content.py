"""What a report shows, as plain values.  Nothing is computed here.

Units: accuracy as a fraction of 1, energy in mJ and latency in ms per inference, seconds for
what something cost.  On a device without an energy counter every energy is ``None`` and
latency is the cost axis everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ...datasets.records import Statistic, Target
from ...spaces import Exits, Setting
from ...surrogates.calibration import CalibrationSummary
from ...surrogates.conformal import Correction

LedgerKind = Literal["device", "training"]
"""Who was busy: the target device, or the accuracy side (training and evaluation)."""


@dataclass(frozen=True, slots=True)
class DesignRow:
    """One measured point.

    Attributes:
        strategy: who proposed it: ``hadas``, ``seed``, or the name of a baseline such as
            ``presets optimized``, ``backbone only`` or ``random``; ``asked for`` if the user named it.
        name: short name for people, such as ``m3`` or ``hadas 7``.
        arch_id, backbone: identity of the backbone, and its values in one line.
        exits: block indices of the exits in use, ascending.
        setting: clocks it was measured at.
        accuracy, accuracy_se: expected accuracy under the calibrated controller, 0..1, and its
            standard error.
        energy_mj, energy_se: expected energy, mJ, and its standard error.
        latency_ms: expected latency, ms.
        on_front: whether it is on the front of its own strategy; ``seed`` and ``hadas`` points,
            both the loop's, share one front.
        round: round it was measured in; -1 for a baseline.
        meets_constraints: whether it keeps to the study's constraints; one that does not is on no front.
    """

    strategy: str
    name: str
    arch_id: str
    backbone: str
    exits: tuple[int, ...]
    setting: Setting
    accuracy: float
    accuracy_se: float
    energy_mj: float | None
    energy_se: float | None
    latency_ms: float
    on_front: bool
    round: int
    meets_constraints: bool = True


@dataclass(frozen=True)
class RoundRow:
    """What one round found and cost.

    Attributes:
        n_measured: points measured by the loop up to and including this round.
        hypervolume, hypervolume_standard_error: of those points.
        coverage_90: by quantity, the share of this round's measurements inside the 90 % interval
            predicted for them beforehand; ``None`` where nothing was checked.
        bias: by quantity, the mean of (measured - predicted) / predicted standard deviation.
        n_checked: by quantity, the number of predictions checked.
        device_seconds, training_seconds: what the round cost.
    """

    round: int
    n_measured: int
    hypervolume: float
    coverage_90: Mapping[str, float | None]
    bias: Mapping[str, float | None]
    n_checked: Mapping[str, int]
    device_seconds: float
    training_seconds: float
    hypervolume_standard_error: float | None = None


@dataclass(frozen=True, slots=True)
class HypervolumeTrace:
    """Hypervolume of one strategy's measured points after each number of measurements (same lengths).

    Attributes:
        strategy: ``hadas`` or the name of another; all begin with the same seeds.
        hypervolume_standard_error: of the last value; ``None`` where it was not estimated.
    """

    strategy: str
    n_measurements: tuple[int, ...]
    hypervolume: tuple[float, ...]
    hypervolume_standard_error: float | None = None


@dataclass(frozen=True, slots=True)
class PredictionCheck:
    """One prediction and what was then measured; ``low_90`` .. ``high_90`` is the central 90 % interval.

    Attributes:
        quantity: ``accuracy``, ``energy_mj`` or ``latency_ms``.
        unit: unit of the four values; "" = dimensionless.
    """

    quantity: str
    unit: str
    arch_id: str
    round: int
    predicted: float
    low_90: float
    high_90: float
    measured: float


@dataclass(frozen=True)
class CalibrationRow:
    """How the predictions of one quantity erred at one place.

    Attributes:
        quantity: ``accuracy``, ``energy_mj`` or ``latency_ms``.
        where: ``seeds, held out``, ``proposed, held out`` or ``proposed, beforehand``.
        summary: of costs on the log scale (so that 0.01 is 1 %), of accuracy on its own (0..1).
        correction: what intervals of the quantity are corrected by from now on; ``None`` = nothing was learned.
    """

    quantity: str
    where: str
    summary: CalibrationSummary
    correction: Correction | None = None


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One kind of expense.

    Attributes:
        what: such as ``networks measured on the device``.
        count: how often.
        seconds: in all.
        unit_cost_s: per piece, as the acquisition reckons with it; ``None`` where it does not.
    """

    what: str
    count: int
    seconds: float
    unit_cost_s: float | None
    kind: LedgerKind


@dataclass(frozen=True, slots=True)
class ChosenRow:
    """One network of the final front, judged on the test split, which the search never saw.

    Attributes:
        exit_shares: share of samples that leave at each exit in use and, last, at the final
            classifier, under the calibrated controller.
        oracle_accuracy, oracle_energy_mj, oracle_latency_ms, oracle_exit_shares: the same network
            under ideal mapping: every sample leaves at the first exit that is right.
        no_exit_accuracy, no_exit_energy_mj, no_exit_latency_ms: the backbone alone at the same setting.
        thresholds: of the controller, one per exit in use.
    """

    name: str
    arch_id: str
    backbone: str
    exits: tuple[int, ...]
    setting: Setting
    accuracy_test: float
    accuracy_test_se: float
    energy_mj: float | None
    latency_ms: float
    exit_shares: tuple[float, ...]
    oracle_accuracy: float
    oracle_energy_mj: float | None
    oracle_latency_ms: float
    oracle_exit_shares: tuple[float, ...]
    no_exit_accuracy: float
    no_exit_energy_mj: float | None
    no_exit_latency_ms: float
    thresholds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PredictedRow:
    """One member of the front that the latest search predicts; nothing of it is measured.

    Attributes:
        accuracy: expected under the controller, 0..1.
        energy_mj, latency_ms: expected; ``None`` for one that the search did not look at.
        probability_non_dominated: share of the joint draws in which nothing dominates it.
    """

    name: str
    arch_id: str
    exits: tuple[int, ...]
    setting: Setting
    accuracy: float
    energy_mj: float | None
    latency_ms: float | None
    probability_non_dominated: float


@dataclass(frozen=True)
class PolicyRow:
    """What one policy attains on the test split, thresholds from the calibration split.

    Attributes:
        causal: false for the oracle, which no device can run.
        accuracy: fraction correct; standard error clustered by image.
        costs: expected per inference, by name; the sampling error of who leaves where joined with
            the errors of the measured stages.
        shares: fraction of samples that leaves at each exit in use and, last, at the end.
    """

    policy: str
    causal: bool
    accuracy: Statistic
    costs: Mapping[str, Statistic]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class PolicyNetwork:
    """All policies on one network.

    Attributes:
        backbone: name for people.
        setting: clocks that the costs were measured at; ``None`` where they are counted MACs.
        mark: ``SIMULATED`` or ``REPLAYED`` where costs are; empty where they are measured or counted.
    """

    backbone: str
    arch_id: str
    exits: Exits
    setting: Setting | None
    mark: str
    rows: tuple[PolicyRow, ...]


@dataclass(frozen=True, slots=True)
class AccuracySpread:
    """Whether backbones differ by more than one measurement's error (else there is nothing to search).

    Attributes:
        between_backbones_sd: standard deviation of final accuracy between backbones.
        measurement_se: standard error of one accuracy measurement.
        n_backbones: backbones measured.
        best_over_chance: accuracy of the best backbone, less that of guessing.
    """

    between_backbones_sd: float
    measurement_se: float
    n_backbones: int
    best_over_chance: float


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report shows.

    Attributes:
        mark: ``SIMULATED`` or ``REPLAYED``, whatever the costs are; every page, figure and table then says so.
            Empty: they are measured.
        machine: the host, in one line.
        versions: library name to version.
        config_yaml: the study's configuration as text.
        statements: findings in plain sentences, shown at the top.
        accuracy_spread: ``None`` if it was not estimated.
        policies: all runtime policies on some of the chosen networks, by place on the front
            (``cheapest``, ``middle``, ``most accurate``).
        policy_notes: what a reader of the policies must know, in plain sentences.
        controller: the policy that the search counts on.
        calibration: how predictions erred, by quantity and place.
        predicted: the predicted front, if it was asked how sure it is.
        constraints: what networks must keep to, in words; empty without constraints.
    """

    study_name: str
    mark: str
    target: Target
    data_name: str
    space_name: str
    seed: int
    machine: str
    versions: Mapping[str, str]
    config_yaml: str
    designs: tuple[DesignRow, ...]
    rounds: tuple[RoundRow, ...]
    traces: tuple[HypervolumeTrace, ...]
    checks: tuple[PredictionCheck, ...]
    ledger: tuple[LedgerRow, ...]
    chosen: tuple[ChosenRow, ...]
    statements: tuple[str, ...] = ()
    accuracy_spread: AccuracySpread | None = None
    policies: Mapping[str, PolicyNetwork] = field(default_factory=dict)
    policy_notes: tuple[str, ...] = ()
    controller: str = "max-softmax"
    calibration: tuple[CalibrationRow, ...] = ()
    predicted: tuple[PredictedRow, ...] = ()
    constraints: str = ""

    @property
    def has_energy(self) -> bool:
        """Whether energy is the cost axis (else latency is)."""
        return bool(self.designs) and all(row.energy_mj is not None for row in self.designs)

    def truth(self, *, holds_costs: bool = True) -> str:
        """``SIMULATED``, ``REPLAYED`` or ``measured``, the mark of every row of a table.

        Args:
            holds_costs: whether a number of the row depends on a device's costs; accuracy and
                the time of training are measured whatever the device is.
        """
        return self.mark if self.mark and holds_costs else "measured"
