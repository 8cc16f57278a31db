"""``hadas predict``: what the predictors of a study say of designs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..errors import ConfigError
from .opening import Adopt, StudyFile, open_study
from .printing import console, cost_mark, print_table, showing_progress

if TYPE_CHECKING:
    from ..study import Study
    from ..study.predicting import DesignPrediction, Estimate

COLUMNS = ("quantity", "predicted", "50 % interval", "90 % interval", "doubt", "noise", "measured")


_NOTHING = 1e-12
"""A standard deviation below it is rounding."""


def predict(
    study: StudyFile,
    networks: Annotated[
        str | None,
        typer.Option(
            help="Which, with commas between: presets of the space, smallest, largest, or arch_ids of measured "
            "backbones."
        ),
    ] = None,
    exits: Annotated[
        str,
        typer.Option(
            help="Where exits stand: none, all, even:N (evenly spread), or block indices such as 5,8."
        ),
    ] = "even:2",
    clocks: Annotated[
        str, typer.Option(help="At which clocks: max, min, or e.g. 'gpu=854250000 emc=1600000000' (Hz).")
    ] = "max",
    design: Annotated[
        Path | None,
        typer.Option(
            help="Predict the designs of this YAML file instead (preset or genes, exits, clocks_hz)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    adopt: Adopt = False,
) -> None:
    """Predict accuracy, exit fractions, latency and energy of designs from what the study has measured.

    An interval is where one new measurement is expected. "Doubt" is the standard deviation that more measurements
    would shrink, "noise" that of one measurement. Fractions are of the calibration split; "controller" and "oracle" are
    the accuracy of the exits together, under the study's controller and with the best exit known for each image. Below
    the table stands whether the design lies beyond what was measured. Measures nothing.
    """
    from ..study.predicting import designs_by_name, predict_designs
    from ..study.wishes import read_designs

    if (networks is None) == (design is None):
        raise ConfigError(
            "name networks (--networks m2,largest) or a file of designs (--design), one of the two"
        )
    opened = open_study(study, adopt)
    opened.latest_round()
    if design is not None:
        designs = read_designs(design, opened.parts.space, opened.parts.table)
    else:
        assert networks is not None
        designs = designs_by_name(opened, networks, exits, clocks)
    if as_json:
        found = predict_designs(opened, designs, lambda *_: None)
        content = {
            "study": opened.config.study,
            "truth": str(opened.truth),
            "designs": [p.to_json() for p in found],
        }
        typer.echo(json.dumps(content))
        return
    with showing_progress() as progress:
        found = predict_designs(opened, designs, progress)
    for prediction in found:
        _print(opened, prediction)


def _print(study: Study, prediction: DesignPrediction) -> None:
    from ..study.tables import design_cells

    backbone, exits, clocks = design_cells(study, prediction.design)
    where = f"exits after block {exits}" if prediction.design.mask.any() else "no exits"
    at = f"clocks {clocks} MHz" if prediction.design.setting.clocks_hz else f"clocks {clocks}"
    title = f"{backbone}, {where}, {at}{cost_mark(study)}"
    rows = [_cells(estimate) for estimate in (*prediction.accuracy, *prediction.shares, *prediction.costs)]
    print_table(title, COLUMNS, rows)
    for sentence in prediction.distance:
        console.print(escape(f"- {sentence}"), soft_wrap=True, highlight=False)
    if not prediction.outcomes_measured:
        console.print(
            "- who leaves where is borrowed from measured backbones", soft_wrap=True, highlight=False
        )


def _cells(estimate: Estimate) -> list[str]:
    """A row of the table; fractions in per cent."""
    factor = 1.0 if estimate.unit else 100.0

    def shown(value: float) -> str:
        return f"{factor * value:.4g}" if estimate.unit else f"{factor * value:.1f}"

    intervals = [f"{shown(low)} .. {shown(high)}" for low, high in estimate.intervals.values()]
    measured = "" if estimate.measured is None else shown(estimate.measured)
    return [
        f"{estimate.quantity}, {estimate.unit or '%'}", shown(estimate.mean), *intervals,
        *(f"{factor * sd if sd > _NOTHING else 0.0:.2g}" for sd in (estimate.sd_epistemic, estimate.sd_noise)),
        measured,
    ]  # fmt: skip
