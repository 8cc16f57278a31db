"""How a study's predictions erred so far, from its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calibrating import backbone_groups, by_quantity, distinct, normal_checks
from .journal import Check

if TYPE_CHECKING:
    from ..search.report import CalibrationRow
    from ..surrogates.conformal import Correction
    from .findings import Findings
    from .loop import Study


def latest_calibration(findings: Findings) -> tuple[list[Check], dict[str, Correction]]:
    """Held-out predictions and corrections of the latest round that has been fitted; nothing if none has."""
    for r in reversed(range(findings.n_measured_rounds)):
        key = f"calibration:{findings.fit_label(r)}"
        event = findings.event(key)
        if event is not None:
            return [Check(**entry) for entry in event["held_out"]], findings.corrections(key)
    return [], {}


def calibration_rows(study: Study) -> list[CalibrationRow]:
    """Errors of predictions by quantity: of seeds and of proposed points held out, and of those made beforehand."""
    from ..search.report import CalibrationRow
    from ..surrogates.calibration import CalibrationSummary

    held_out, corrections = latest_calibration(study.findings)
    places = {
        "seeds, held out": by_quantity(check for check in held_out if check.round == 0),
        "proposed, held out": by_quantity(check for check in held_out if check.round > 0),
        "proposed, beforehand": by_quantity(study.findings.checks()),
    }
    quantities = sorted({quantity for found in places.values() for quantity in found})
    return [
        CalibrationRow(
            quantity,
            where,
            CalibrationSummary.of_normal(*normal_checks(some), backbone_groups(some)),
            corrections.get(quantity),
        )
        for quantity in quantities
        for where, found in places.items()
        if quantity in found
        for some in [distinct(found[quantity])]
    ]


def correction_rows(study: Study) -> list[tuple[str, str]]:
    """What intervals are corrected by, for ``hadas status``."""
    names = {"accuracy": "accuracy", "energy_mj": "energy", "latency_ms": "latency"}
    return [
        (
            f"  intervals of {names[quantity]}",
            f"x {found.factor:.2f}, middle {found.shift:+.2f} sd (from {found.n_random} seeds and {found.n_proposed} "
            f"proposed backbones held out, {found.n_checked} predicted beforehand)",
        )
        for quantity, found in latest_calibration(study.findings)[1].items()
    ]
