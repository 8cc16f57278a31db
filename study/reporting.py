"""From findings to words and to the report."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from ..datasets.records import Truth
from .assembly import ProgressCallback
from .baselines import BASELINES
from .calibration_view import calibration_rows
from .findings import ASKED_FOR
from .journal import MeasuredPoint, RoundSummary
from .loop import Study
from .policies_view import PolicyComparison, point_comparisons, policy_notes
from .predicted_front import predicted_rows
from .tables import constraints_line

if TYPE_CHECKING:
    from ..search.designs import Design, PolicyCost
    from ..search.report import (
        AccuracySpread,
        ChosenRow,
        DesignRow,
        HypervolumeTrace,
        LedgerRow,
        PredictionCheck,
        ReportContent,
        RoundRow,
    )

UNITS = {"accuracy": "", "energy_mj": "mJ", "latency_ms": "ms"}
LIBRARIES = ("hadas", "torch", "scikit-learn", "xgboost", "botorch", "gpytorch", "pymoo", "moocore", "numpy")
_DONE_WITH = {Truth.DEVICE: "run", Truth.REPLAY: "replayed", Truth.SIMULATOR: "simulated"}
MAX_CHOSEN = 12
"""Most networks in the report's table of chosen ones; a longer front is thinned evenly."""


def machine() -> str:
    """The host in one line."""
    import torch

    return f"{platform.machine()}, {platform.system()}, {torch.get_num_threads()} torch threads, Python {platform.python_version()}"


# -- findings in words -----------------------------------------------------------------------------


def accuracy_spread(study: Study) -> AccuracySpread | None:
    """Spread of final accuracy between the seed backbones, and one measurement's standard error."""
    from ..search.report import AccuracySpread

    records = study.findings.training_accuracy(1)
    matrices = [record.calibration for record in records if record.calibration is not None]
    if len(matrices) < 2:
        return None
    final = [float(matrix.fractions[-1]) for matrix in matrices]
    errors = [float(matrix.standard_errors()[-1]) for matrix in matrices]
    chance = 1 / study.parts.data.n_classes
    return AccuracySpread(
        float(np.std(final, ddof=1)), float(np.mean(errors)), len(final), max(final) - chance
    )


def statements(study: Study) -> list[str]:
    """What was found, in plain sentences; a gain inside its interval is called that."""
    found = []
    spread = accuracy_spread(study)
    if spread is not None:
        found.append(_spread_in_words(spread))
    if kept := constraints_line(study):
        found.append(f"{kept[:1].upper()}{kept[1:]}.")
    saving = _saving(study)
    if saving is not None:
        found.append(saving)
    return found + _extrapolated(study) + _comparisons(study)


def _extrapolated(study: Study) -> list[str]:
    """What of the measured front lies at clocks for which no data stand behind the simulator."""
    from ..measurement.hardware.simulation.simulator import EXTRAPOLATED

    front = study.findings.front(study.findings.loop_points())
    n = sum(p.cost.evidence is not None and EXTRAPOLATED in p.cost.evidence.flags for p in front)
    if n == 0:
        return []
    return [
        f"{n} of the {len(front)} points of the front run at clocks below every step that public measurements of "
        "this device cover: their SIMULATED costs are extrapolated."
    ]


def _spread_in_words(spread: AccuracySpread) -> str:
    if spread.best_over_chance <= 2 * spread.measurement_se:
        return (
            "No seed backbone is better than guessing: train the supernet longer before anything is searched."
        )
    # No error at all: everything was right in every measurement.
    ratio = spread.between_backbones_sd / spread.measurement_se if spread.measurement_se else math.inf
    enough = "enough to search in"
    verdict = enough if ratio >= 2 else "too little to search in: enlarge the space or train longer"
    return (
        f"Final accuracy differs between {spread.n_backbones} seed backbones by a standard deviation of "
        f"{100 * spread.between_backbones_sd:.2f} points, {ratio:.1f} times one measurement's standard error "
        f"({100 * spread.measurement_se:.2f}): {verdict}."
    )


def _saving(study: Study) -> str | None:
    """The cheapest found network about as accurate as the best seed run to the end at maximum clocks."""
    default = study.parts.table.default
    points = study.findings.loop_points()
    plain = [p for p in points if p.strategy == "seed" and p.design.setting == default]
    if not plain or len(points) == len(study.findings.points(0)):
        return None
    best = max(plain, key=lambda p: p.outcome.no_exit.accuracy)
    bar = best.outcome.no_exit
    front = study.findings.front(points)
    able = [p for p in front if p.outcome.controller.accuracy >= bar.accuracy - bar.accuracy_se]
    if not able:
        return None
    chosen = min(able, key=lambda p: _cost(p.outcome.controller)[0]).outcome
    (cost, cost_se, what, unit), (base, base_se, _, _) = _cost(chosen.controller), _cost(bar)
    ratio = cost / base
    ratio_se = ratio * math.hypot(cost_se / cost, base_se / base)
    mark = f" ({study.truth.mark})" if study.truth.mark else ""
    clocks = " at maximum clocks" if default.clocks_hz else ""
    return (
        f"{_described(study, chosen.design)} needs {cost:.2f} {unit} at {100 * chosen.controller.accuracy:.1f} % "
        f"accuracy; the most accurate seed, {study.findings.name(best.design.backbone)} without exits{clocks}, "
        f"{base:.2f} {unit} at {100 * bar.accuracy:.1f} ± {100 * bar.accuracy_se:.1f} %: "
        f"{100 * (1 - ratio):.1f} ± {100 * ratio_se:.1f} % less {what}{mark}, at an accuracy at most one "
        "standard error lower. (Picked as the cheapest such point, on the split that the search may use; "
        "the report judges it on the test split.)"
    )


def _described(study: Study, design: Design) -> str:
    exits = f"exits {design.exits}" if design.exits.positions else "no exits"
    clocks = f" at {design.setting}" if design.setting.clocks_hz else ""
    return f"{study.findings.name(design.backbone)} with {exits}{clocks}"


def _cost(policy: PolicyCost) -> tuple[float, float, str, str]:
    """Value, standard error, name and unit of the cost that counts."""
    if policy.energy_mj is not None and policy.energy_se is not None:
        return policy.energy_mj, policy.energy_se, "energy", "mJ"
    return policy.latency_ms, policy.latency_se, "latency", "ms"


def _comparisons(study: Study) -> list[str]:
    """Hypervolume of the loop against each baseline, after equally many measurements."""
    from ..search.metrics import ratio_of_dominance

    findings = study.findings
    groups = _measured_groups(study)
    seeds, own = groups.get("seed", []), groups.get("hadas", [])
    found = []
    for name in BASELINES:
        rival = groups.get(name, [])
        n = min(len(own), len(rival))
        if n == 0:
            continue
        sides = [seeds + own[:n], seeds + rival[:n]]
        volumes = [findings.hypervolume(points) for points in sides]
        if not any(volumes):  # none meets the constraints, which is said elsewhere
            continue
        errors = [findings.hypervolume_standard_error(points) for points in sides]
        fronts = [findings.objectives(findings.comparable(points))[0] for points in sides]
        gain, gain_se = volumes[0] - volumes[1], math.hypot(*errors)
        if abs(gain) <= 1.96 * gain_se:
            verdict = "the difference lies inside its 95 % interval, so neither is shown to be better"
        else:
            verdict = f"the {'gain' if gain > 0 else 'loss'} exceeds its 95 % interval"
        found.append(
            f"Hypervolume {volumes[0]:.3f} ± {errors[0]:.3f} against {volumes[1]:.3f} ± {errors[1]:.3f} of the "
            f"baseline '{name}', each from the same {len(seeds)} seeds and its first {n} points: {verdict}. "
            f"{ratio_of_dominance(*fronts):.0%} of the loop's front dominate some point of the baseline's, "
            f"{ratio_of_dominance(*reversed(fronts)):.0%} the other way round."
        )
    return found


# -- the report ------------------------------------------------------------------------------------


def write_study_report(study: Study, progress: ProgressCallback) -> Path:
    """Write the report of all that is measured so far; returns the page."""
    from ..search.report import write_report

    progress("writing the report", 0, 1)
    # The report of study.yaml lies beside it; those of other files have a folder of their own.
    folder = study.directory if study.path.stem == "study" else study.directory / study.path.stem
    path = write_report(report_content(study), folder)
    progress("writing the report", 1, 1)
    return path


def report_content(study: Study) -> ReportContent:
    """Everything the report shows.

    Raises:
        StudyError: nothing is measured yet.
    """
    from ..search.report import ReportContent

    findings = study.findings
    _ = findings.reference  # a study without measurements ends here, with the remedy
    groups = _measured_groups(study)
    chosen = _chosen_points(study)
    return ReportContent(
        study_name=study.config.study,
        mark=study.truth.mark,
        target=study.parts.device_identity.target,
        data_name=study.parts.data.name,
        space_name=study.parts.space.name,
        seed=study.config.seed,
        machine=machine(),
        versions={library: version(library) for library in LIBRARIES},
        config_yaml=yaml.safe_dump(study.config.model_dump(mode="json"), sort_keys=False),
        designs=tuple(row for name, points in groups.items() for row in _design_rows(study, name, points)),
        rounds=tuple(_round_row(summary) for summary in findings.summaries()),
        traces=tuple(_traces(study, groups)),
        checks=tuple(_prediction_checks(study)),
        calibration=tuple(calibration_rows(study)),
        ledger=tuple(_ledger(study)),
        chosen=tuple(_chosen_row(study, point) for point in chosen),
        statements=tuple(statements(study)),
        accuracy_spread=accuracy_spread(study),
        policies=_policies(study, chosen),
        policy_notes=tuple(policy_notes(study)),
        controller=study.parts.controller.name,
        predicted=tuple(predicted_rows(study)),
        constraints=str(findings.constraints) if findings.constraints.any else "",
    )


def _measured_groups(study: Study) -> dict[str, list[MeasuredPoint]]:
    """Measured points by strategy."""
    findings = study.findings
    loop = findings.loop_points()
    groups = {
        strategy: [point for point in loop if point.strategy == strategy]
        for strategy in ("seed", "hadas", ASKED_FOR)
    }
    for name in BASELINES:
        if findings.event(f"measured:{name}") is not None:
            groups[name] = findings.points(name)
    return {name: points for name, points in groups.items() if points}


def _design_rows(study: Study, strategy: str, points: Sequence[MeasuredPoint]) -> list[DesignRow]:
    from ..search.report import DesignRow

    # Seeds and suggestions are one loop and share one front.
    rivals = study.findings.loop_points() if strategy in ("seed", "hadas") else points
    front = {point.design for point in study.findings.front(rivals)}
    violations = study.findings.violations(points)
    rows = []
    for i, point in enumerate(points):
        cost, backbone = point.outcome.controller, point.design.backbone
        rows.append(
            DesignRow(
                strategy=strategy,
                name=f"{strategy} {i + 1}: {study.findings.name(backbone)}",
                arch_id=backbone.arch_id,
                backbone=backbone.describe(),
                exits=point.design.exits.positions,
                setting=point.design.setting,
                accuracy=cost.accuracy,
                accuracy_se=cost.accuracy_se,
                energy_mj=cost.energy_mj,
                energy_se=cost.energy_se,
                latency_ms=cost.latency_ms,
                on_front=point.design in front,
                meets_constraints=bool(violations[i] == 0.0),
                round=point.round,
            )
        )
    return rows


def _round_row(summary: RoundSummary) -> RoundRow:
    from ..search.report import RoundRow

    return RoundRow(
        round=summary.round,
        n_measured=summary.n_measured,
        hypervolume=summary.hypervolume,
        coverage_90=summary.coverage_90,
        bias=summary.bias,
        n_checked=summary.n_checked,
        device_seconds=summary.device_seconds,
        training_seconds=summary.training_seconds,
        hypervolume_standard_error=summary.hypervolume_se,
    )


def _traces(study: Study, groups: dict[str, list[MeasuredPoint]]) -> list[HypervolumeTrace]:
    """Hypervolume after each measurement; every strategy starts from the same seeds."""
    from ..search.report import HypervolumeTrace

    seeds = groups.get("seed", [])
    traces = []
    for name, points in groups.items():
        if name in ("seed", ASKED_FOR):
            continue
        counts = tuple(range(len(seeds), len(seeds) + len(points) + 1))
        ordered = seeds + points
        volumes = tuple(study.findings.hypervolume(ordered[:n]) for n in counts)
        error = study.findings.hypervolume_standard_error(ordered)
        traces.append(HypervolumeTrace(name, counts, volumes, error))
    return traces


def _prediction_checks(study: Study) -> list[PredictionCheck]:
    from ..search.report import PredictionCheck

    return [
        PredictionCheck(
            c.quantity, UNITS[c.quantity], c.arch_id, c.round, c.predicted, c.low_90, c.high_90, c.measured
        )
        for c in study.findings.checks()
    ]


def _ledger(study: Study) -> list[LedgerRow]:
    from ..search.report import LedgerRow

    findings = study.findings
    rows = []
    trained = findings.event("supernet")
    if trained is not None:
        rows.append(LedgerRow("supernet trained", 1, trained["seconds"], None, "training"))
    labels: list[tuple[str, list[int | str]]] = [
        ("by the loop", list(range(findings.n_measured_rounds))),
        ("for the baselines", [name for name in BASELINES if findings.event(f"measured:{name}")]),
    ]
    charged: set[str] = set()
    for whose, sessions in labels:
        costs = [row for label in sessions for row in study.store.costs(session=findings.session(label))]
        if not costs:
            continue
        records = [
            r
            for a, r in findings.accuracy_records([row.backbone for row in costs]).items()
            if a not in charged
        ]
        charged |= {record.backbone.arch_id for record in records}
        seconds = sum(sum(record.seconds.values()) for record in records)
        unit = seconds / len(records) if records else None
        rows.append(LedgerRow(f"backbones measured {whose}", len(records), seconds, unit, "training"))
        device = sum(row.device_seconds for row in costs)
        what = f"networks {_DONE_WITH[study.truth]} {whose}"
        rows.append(LedgerRow(what, len(costs), device, device / len(costs), "device"))
    return rows


def _chosen_points(study: Study) -> list[MeasuredPoint]:
    """The front of the loop, best accuracy last; a long one thinned."""
    front = study.findings.front(study.findings.loop_points())
    if len(front) <= MAX_CHOSEN:
        return front
    return [front[i] for i in np.linspace(0, len(front) - 1, MAX_CHOSEN).round().astype(int)]


def _chosen_row(study: Study, point: MeasuredPoint) -> ChosenRow:
    """A network judged on the test split that no decision has seen."""
    from ..search.designs import evaluate_measured
    from ..search.report import ChosenRow

    design = point.design
    outcome = evaluate_measured(
        design, point.accuracy, point.cost, split="test", controller=study.parts.controller
    )
    controller, oracle, plain = outcome.controller, outcome.oracle, outcome.no_exit
    return ChosenRow(
        name=study.findings.name(design.backbone),
        arch_id=design.backbone.arch_id,
        backbone=design.backbone.describe(),
        exits=design.exits.positions,
        setting=design.setting,
        accuracy_test=controller.accuracy,
        accuracy_test_se=controller.accuracy_se,
        energy_mj=controller.energy_mj,
        latency_ms=controller.latency_ms,
        exit_shares=controller.shares,
        oracle_accuracy=oracle.accuracy,
        oracle_energy_mj=oracle.energy_mj,
        oracle_latency_ms=oracle.latency_ms,
        oracle_exit_shares=oracle.shares,
        no_exit_accuracy=plain.accuracy,
        no_exit_energy_mj=plain.energy_mj,
        no_exit_latency_ms=plain.latency_ms,
        thresholds=outcome.thresholds,
    )


def ends_and_middle(points: Sequence[MeasuredPoint]) -> dict[str, MeasuredPoint]:
    """At most three points that stand for a front, by their place on it; those without exits are passed over.

    Args:
        points: best accuracy last.
    """
    points = [point for point in points if point.design.exits.positions]
    if not points:
        return {}
    cheapest, best = min(points, key=lambda point: _cost(point.outcome.controller)[0]), points[-1]
    if cheapest is best:
        return {"cheapest and most accurate": best}
    between = [point for point in points if point is not cheapest and point is not best]
    middle = {"middle": between[len(between) // 2]} if between else {}
    return {"cheapest": cheapest, **middle, "most accurate": best}


def _policies(study: Study, chosen: Sequence[MeasuredPoint]) -> dict[str, PolicyComparison]:
    """Every runtime policy on the networks that stand for the front."""
    places = ends_and_middle(chosen)
    return dict(zip(places, point_comparisons(study, list(places.values())), strict=True))
