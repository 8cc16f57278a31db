"""``hadas predict``: what the predictors of a study say of designs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError
from .opening import Adopt, StudyFile, open_study
from .printing import console, cost_mark, showing_progress

if TYPE_CHECKING:
    from ..study import Study
    from ..study.predicting import DesignPrediction, Estimate

COLUMNS = ("quantity", "median", "90 % interval", "doubt", "noise", "measured")

_LEVEL = 0.9
_NOTHING = 1e-12
"""A standard deviation below it is rounding."""


def predict(
    study: StudyFile,
    networks: Annotated[
        str | None,
        typer.Option(
            help="Which, with commas between: presets of the space, smallest, largest, or arch_ids of measured "
            "backbones, or the first digits of their hashes (ca6948)."
        ),
    ] = None,
    exits: Annotated[
        str,
        typer.Option(
            help="Where exits stand: none, all, even:N (evenly spread), or block indices such as 5,8."
        ),
    ] = "even:2",
    clocks: Annotated[
        str,
        typer.Option(help="At which clocks: max, min, or e.g. 'gpu=854.25MHz emc=1600MHz' (no unit: Hz)."),
    ] = "max",
    design: Annotated[
        Path | None,
        typer.Option(
            help="Predict the designs of this YAML file instead (preset or genes, exits, clocks_hz)."
        ),
    ] = None,
    stages: Annotated[
        bool, typer.Option("--stages", help="Also show every exit, who leaves where, and every stage.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    adopt: Adopt = False,
) -> None:
    """Predict accuracy, exit fractions, latency and energy of designs from what the study has measured.

    The median is the middle of what is predicted (the mean of a skewed prediction may lie far from it; --json has
    both, and 50 % intervals, too). An interval is where one new measurement is expected; those of designs that you name
    are widened by what the study has learned of its intervals. "Doubt" is the standard deviation that more measurements
    would shrink, "noise" that of one measurement. "Measured" comes with its standard error; "=" before it says that it is the sum of
    segments that were measured one by one. What follows from measured outcomes alone is shown as measured and not
    predicted. Fractions are of the calibration split; "controller" and "oracle" are the accuracy of the exits together,
    under the study's controller and with the best exit known for each image. Below the table stands whether the design
    lies beyond what was measured. Measures nothing.
    """
    from ..study.naming import designs_by_name
    from ..study.predicting import predict_designs
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
        _print(opened, prediction, stages=stages)


def _print(study: Study, prediction: DesignPrediction, *, stages: bool) -> None:
    from ..study.tables import design_cells

    backbone, exits, clocks = design_cells(study, prediction.design)
    has_exits = bool(prediction.design.mask.any())
    where = f"exits after block {exits}" if has_exits else "no exits"
    at = f"clocks {clocks} MHz" if prediction.design.setting.clocks_hz else f"clocks {clocks}"
    # Figures never wrap; names of quantities do, where a terminal is narrow.
    table = Table(
        title=escape(f"{backbone}, {where}, {at}{cost_mark(study)}"), box=SIMPLE, padding=(0, 1, 0, 0)
    )
    for column in COLUMNS:
        table.add_column(column, no_wrap=column != COLUMNS[0], justify="left")
    groups = (*prediction.accuracy, *prediction.shares, *prediction.costs)
    for estimate in groups if stages else prediction.summary:
        label = "accuracy, " if estimate in prediction.accuracy else ""
        table.add_row(*map(escape, _cells(estimate, label)))
    console.print(table)
    for sentence in prediction.distance:
        console.print(escape(f"- {sentence}"), soft_wrap=True, highlight=False)
    if has_exits and not prediction.outcomes_measured:
        console.print(
            "- who leaves where is borrowed from measured backbones", soft_wrap=True, highlight=False
        )


def _cells(estimate: Estimate, label: str) -> list[str]:
    """A row of the table; fractions in per cent."""
    factor = 1.0 if estimate.unit else 100.0

    def shown(value: float) -> str:
        return f"{factor * value:.4g}" if estimate.unit else f"{factor * value:.1f}"

    def deviation(value: float | None) -> str:
        return "" if value is None else f"{factor * value if value > _NOTHING else 0.0:.2g}"

    median = "" if estimate.median is None else shown(estimate.median)
    interval = "" if estimate.intervals is None else " .. ".join(map(shown, estimate.intervals[_LEVEL]))
    measured = ""
    if estimate.measured is not None:
        mark = "= " if estimate.measured_sum else ""
        error = "" if estimate.measured_se is None else f" ± {deviation(estimate.measured_se)}"
        measured = f"{mark}{shown(estimate.measured)}{error}"
    return [
        f"{label}{estimate.quantity}, {estimate.unit or '%'}", median, interval,
        deviation(estimate.sd_epistemic), deviation(estimate.sd_noise), measured,
    ]  # fmt: skip
