"""What the predictors of a study say of designs, how sure they are, and how far from their rows that is.

Every figure comes from joint draws: the spread of the drawn functions is what more measurements would
shrink, and what a new measurement's noise adds to it is what they would not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.records import CostRecord, Statistic
from ..errors import ConfigError
from ..spaces import Backbone, MBConvSpace
from .assembly import ProgressCallback
from .distance import distance_sentences
from .journal import MeasuredPoint, design_to_json

if TYPE_CHECKING:
    from ..search.designs import Design
    from ..surrogates.predictor_set import PredictorDraws
    from .findings import FloatArray
    from .loop import Study
    from .worlds import Worlds

N_DRAWS = 256
LEVELS = (0.5, 0.9)


@dataclass(frozen=True)
class Estimate:
    """One predicted quantity.

    Attributes:
        quantity: what, such as ``latency, full pass``.
        unit: ``""`` for fractions, ``ms`` or ``mJ``.
        mean: of the predictive distribution.
        intervals: central intervals (low, high) of one new measurement, by level.
        sd_epistemic: standard deviation that more measurements would shrink.
        sd_noise: standard deviation of one measurement.
        measured: what was measured of the same, ``None`` if nothing was.
    """

    quantity: str
    unit: str
    mean: float
    intervals: Mapping[float, tuple[float, float]]
    sd_epistemic: float
    sd_noise: float
    measured: float | None = None

    @classmethod
    def of(
        cls, quantity: str, unit: str, clean: FloatArray, noisy: FloatArray, measured: float | None = None
    ) -> Estimate:
        """From draws (s,) of the same functions without and with the noise of a measurement."""
        intervals = {}
        for level in LEVELS:
            low, high = np.quantile(noisy, (0.5 - level / 2, 0.5 + level / 2))
            intervals[level] = (float(low), float(high))
        noise = float((noisy - clean).std())
        return cls(quantity, unit, float(noisy.mean()), intervals, float(clean.std()), noise, measured)


@dataclass(frozen=True)
class DesignPrediction:
    """All that is predicted of one design.

    Attributes:
        design: what.
        accuracy: final and exit fractions, then accuracy of the controller and of the oracle.
        shares: of samples that leave at each exit in use, and of those that reach the end.
        costs: latency and energy expected under the controller, of the full pass, and of every stage.
        distance: sentences on how far the design is from what was measured.
        outcomes_measured: whether who leaves where is measured of this backbone, and not predicted.
    """

    design: Design
    accuracy: tuple[Estimate, ...]
    shares: tuple[Estimate, ...]
    costs: tuple[Estimate, ...]
    distance: tuple[str, ...]
    outcomes_measured: bool

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        design = self.design

        def estimates(found: Sequence[Estimate]) -> list[dict[str, Any]]:
            return [
                {
                    **asdict(one),
                    "intervals": {f"{level:g}": list(ends) for level, ends in one.intervals.items()},
                }
                for one in found
            ]

        return {
            "design": design_to_json(design.backbone, design.exits, design.setting),
            "arch_id": design.backbone.arch_id,
            "accuracy": estimates(self.accuracy), "shares": estimates(self.shares),
            "costs": estimates(self.costs), "distance": list(self.distance),
            "outcomes_measured": self.outcomes_measured,
        }  # fmt: skip


@dataclass
class _Drawn:
    """The same draws without and with the noise of a measurement, and what was measured."""

    worlds: Worlds
    clean: PredictorDraws
    noisy: PredictorDraws
    points: Mapping[Design, MeasuredPoint] = field(default_factory=dict)


def predict_designs(
    study: Study, designs: Sequence[Design], progress: ProgressCallback
) -> list[DesignPrediction]:
    """Predictions of designs by what the study has measured so far.

    Raises:
        StudyError: nothing is measured yet.
        ModelError: predictors that cannot be read.
    """
    worlds = study.worlds(progress)
    seed = study.seed_for(10)
    clean, noisy = (worlds.predictors.draws(N_DRAWS, seed, include_noise=noise) for noise in (False, True))
    drawn = _Drawn(worlds, clean, noisy, {point.design: point for point in study.findings.loop_points()})
    rows = [row for row in study.findings.cost_records(study.latest_round() + 1) if row.valid]
    found = []
    for i, design in enumerate(designs):
        progress("predicting", i, len(designs))
        found.append(_predict(drawn, design, rows))
    progress("predicting", len(designs), len(designs))
    return found


def _predict(drawn: _Drawn, design: Design, rows: Sequence[CostRecord]) -> DesignPrediction:
    library = drawn.worlds.library
    known = library.fractions(design.backbone.arch_id)
    # Of a backbone whose first exits were not measured, the fractions of the others are known.
    n_unknown = 0 if known is None else len(design.mask) + 1 - len(known)
    point = drawn.points.get(design)
    fractions = tuple(_fraction_draws(draws, design.backbone) for draws in (drawn.clean, drawn.noisy))
    expected = tuple(drawn.worlds.design_draws([design], draws) for draws in (drawn.clean, drawn.noisy))
    outcomes = tuple(_outcome_draws(drawn.worlds, design, values) for values in fractions)
    controller = None if point is None else point.outcome.controller
    first = design.exits.first_exit
    columns = [*np.flatnonzero(design.mask), len(design.mask)]
    names = [*(f"exit after block {first + int(column)}" for column in columns[:-1]), "final classifier"]
    accuracy = [
        Estimate.of(
            name, "", fractions[0][:, column], fractions[1][:, column],
            None if known is None or column < n_unknown else float(known[column - n_unknown]),
        )
        for name, column in zip(names, columns, strict=True)
    ]  # fmt: skip
    accuracy += [
        Estimate.of(
            "controller", "", 1.0 - expected[0].error[:, 0], 1.0 - expected[1].error[:, 0],
            None if controller is None else controller.accuracy,
        ),
        Estimate.of(
            "oracle", "", outcomes[0][0], outcomes[1][0], None if point is None else point.outcome.oracle.accuracy
        ),
    ]  # fmt: skip
    places = [f"after block {first + int(column)}" for column in np.flatnonzero(design.mask)] + ["at the end"]
    shares = tuple(
        Estimate.of(
            f"leave {place}", "", outcomes[0][1][:, i], outcomes[1][1][:, i],
            None if controller is None else controller.shares[i],
        )
        for i, place in enumerate(places)
    )  # fmt: skip
    costs = []
    for quantity, unit in (("latency", "ms"), ("energy", "mJ")):
        name = f"{quantity}_{unit.lower()}"
        own = [getattr(draws, name)[:, 0] for draws in expected]
        if not np.isnan(own[0]).any():
            measured = None if controller is None else getattr(controller, name)
            costs.append(Estimate.of(f"{quantity}, expected", unit, own[0], own[1], measured))
    costs += _stage_estimates(drawn, design, rows)
    outcomes_measured = library.measured(design.backbone.arch_id) is not None
    sentences = distance_sentences(drawn.worlds.parts, design, rows, backbone_measured=known is not None)
    return DesignPrediction(design, tuple(accuracy), shares, tuple(costs), sentences, outcomes_measured)


def _fraction_draws(draws: PredictorDraws, backbone: Backbone) -> FloatArray:
    """(s, P + 1) fractions right at the exits and at the end."""
    exits, final = draws.exit_fractions([backbone])[0], draws.final_accuracy([backbone])
    return np.concatenate([exits, final], axis=1)


def _outcome_draws(worlds: Worlds, design: Design, fractions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Accuracy (s,) of the oracle, and shares (s, k + 1) of samples by the k exits in use and the end.

    Of a backbone whose outcomes are measured, every draw says the same.
    """
    from ..measurement.accuracy.policies import apply_controller

    library, mask = worlds.library, design.mask
    measured = library.measured(design.backbone.arch_id)
    if measured is not None:
        outcomes = [measured]
    else:
        from ..search.outcomes import N_DONORS

        donors = library.nearest_donors(fractions.mean(axis=0), N_DONORS)
        outcomes = [
            library.borrowed_from(donors[i % len(donors)], drawn) for i, drawn in enumerate(fractions)
        ]
    used = np.append(mask, True)
    oracle = [float(found.correct[used].any(axis=0).mean()) for found in outcomes]
    shares = [apply_controller(found.correct.T, found.leaves.T, mask).shares[used] for found in outcomes]
    repeat = len(fractions) // len(outcomes)
    return np.repeat(oracle, repeat), np.repeat(np.array(shares), repeat, axis=0)


def _stage_estimates(drawn: _Drawn, design: Design, rows: Sequence[CostRecord]) -> list[Estimate]:
    """Latency and energy of the full pass, then of every stage."""
    workload = drawn.worlds.predictors.workload(design.backbone)
    stages = workload.stages(design.exits.positions)
    pairs = [
        draws.stage_costs(stages, [design.setting] * len(stages)) for draws in (drawn.clean, drawn.noisy)
    ]
    same = [
        row for row in rows
        if (row.backbone, row.heads, row.requested) == (design.backbone, design.exits.heads, design.setting)
        and row.program == "stages"
    ]  # fmt: skip
    row = same[-1] if same else None
    names = [f"{stage.kind} to block {stage.position}" for stage in stages]
    names = [name.replace("head to", "head after") for name in names]
    names[-1] = "last segment"
    totals, parts = [], []
    for i, (quantity, unit) in enumerate((("latency", "ms"), ("energy", "mJ"))):
        clean, noisy = pairs[0][i], pairs[1][i]
        if np.isnan(clean).any():
            continue
        total = None if row is None else (row.latency_ms, row.energy_mj)[i]
        totals.append(
            Estimate.of(f"{quantity}, full pass", unit, clean.sum(axis=1), noisy.sum(axis=1), _value(total))
        )
        for k, name in enumerate(names):
            cost = row.stages[k] if row is not None and row.stages else None
            measured = None if cost is None else (cost.latency_ms, cost.energy_mj)[i]
            parts.append(Estimate.of(f"{quantity}, {name}", unit, clean[:, k], noisy[:, k], _value(measured)))
    return totals + parts


def _value(statistic: Statistic | None) -> float | None:
    return None if statistic is None else statistic.value


def designs_by_name(study: Study, networks: str, exits: str, clocks: str) -> list[Design]:
    """Designs as the command line names them.

    Args:
        networks: presets, ``smallest``, ``largest``, or arch_ids of presets and measured backbones, with
            commas between.
        exits, clocks: see :mod:`hadas.measurement.hardware.named`; one setting.

    Raises:
        ConfigError: an unknown name, or more settings than one.
        SpaceError, OffTableFrequencyError: exits or clocks that there are not.
    """
    from ..measurement.hardware.named import named_exits, named_settings
    from ..search.designs import Design

    space, table = study.parts.space, study.parts.table
    settings = named_settings(clocks, table)
    if len(settings) != 1:
        raise ConfigError(
            f"--clocks {clocks}: name one setting; for several, write them in a file (--design)"
        )
    return [
        Design(backbone, named_exits(exits, space, backbone), settings[0])
        for backbone in _named(study, networks, space)
    ]


def _named(study: Study, networks: str, space: MBConvSpace) -> list[Backbone]:
    from ..measurement.hardware.named import named_backbones

    rows = study.findings.cost_records(study.findings.n_measured_rounds)
    known = {backbone.arch_id: backbone for backbone in space.presets.values()}
    known |= {row.backbone.arch_id: row.backbone for row in rows}
    found: list[Backbone] = []
    for word in networks.split(","):
        name = word.strip()
        own = known.get(name)
        if own is None and name.startswith(f"{space.name}-"):
            raise ConfigError(
                f"--networks {name}: neither a preset nor a measured backbone has this arch_id, and a hash does not tell the genes; "
                "write its genes in a file (--design)"
            )
        found += [own] if own is not None else [backbone for _, backbone in named_backbones(name, space)]
    return list(dict.fromkeys(found))
