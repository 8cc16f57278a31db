"""The commands on studies of the system ``edge``: exits, quantization and mapping on an edge accelerator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError, InfeasibleError
from .opening import write_study_file
from .printing import console, print_table, say, showing_progress

if TYPE_CHECKING:
    from ..study.edge import EdgeStudy

DEMO_TAKES = {"edge": "at most 6 minutes on 2 cores", "edge-smoke": "about a minute on 2 cores"}
DEMO_PRESETS = {"demo": "edge", "smoke": "edge-smoke"}
"""Presets of ``hadas demo --system edge`` as its option names them."""


def open_edge_study(path: Path, adopt: bool = False) -> EdgeStudy:
    """Open a study to work on it, as the only process that does."""
    from ..study.edge import EdgeStudy

    study = EdgeStudy.open(path, adopt=adopt)
    study.lock()
    return study


def run_edge(path: Path, budget: str | None, adopt: bool) -> None:
    """The whole loop.

    Raises:
        ConfigError: a budget, which this system does not know.
    """
    if budget is not None:
        raise ConfigError(
            f"--budget: {path} is of 'system: edge', whose loop ends after 'learning.rounds' rounds or once a batch "
            "promises too little; interrupt it at any time, the same command continues"
        )
    run_whole_edge_loop(open_edge_study(path, adopt))


def run_whole_edge_loop(study: EdgeStudy) -> None:
    """Run or continue the loop; print every round, what was found, and where the report is.

    Raises:
        InfeasibleError: nothing that was trained meets the constraints; the report is written before.
    """
    from ..study.edge.reporting import write_edge_report
    from ..study.edge.tables import round_line, statements

    infeasible: InfeasibleError | None = None
    with showing_progress() as progress:
        try:
            study.run(progress, lambda summary: say(round_line(summary)))
        except InfeasibleError as error:
            infeasible = error
        page = write_edge_report(study, progress)
    _print_tables(study)
    for line in statements(study.findings):
        say(f"- {line}")
    console.print(escape(f"Report: {page}"), soft_wrap=True)
    if infeasible is not None:
        raise infeasible


def _print_tables(study: EdgeStudy) -> None:
    from ..study.edge.savings import SAVING_COLUMNS, saving_rows
    from ..study.edge.tables import front_table

    mark = study.findings.mark
    print_table(f"front, judged on the test split (costs {mark})", *front_table(study.findings))
    print_table(
        f"ET_avg against static networks, judged on the test split (costs {mark})",
        SAVING_COLUMNS,
        saving_rows(study.findings.points()),
    )


def edge_status(path: Path) -> None:
    """What is trained, what it cost, and what comes next."""
    from ..study.edge import EdgeStudy
    from ..study.edge.tables import status_rows

    study = EdgeStudy.open(path)
    table = Table(
        title=escape(f"study {study.config.study} (costs {study.findings.mark})"), show_header=False
    )
    for name, value in status_rows(study):
        table.add_row(escape(name), escape(value))
    console.print(table)


def edge_report(path: Path, adopt: bool) -> None:
    """Write the report of all that is trained so far."""
    from ..study.edge.reporting import write_edge_report

    with showing_progress() as progress:
        page = write_edge_report(open_edge_study(path, adopt), progress)
    console.print(escape(f"Report: {page}"), soft_wrap=True)


def edge_demo(directory: Path, preset: str) -> None:
    """The whole loop on the bundled digits.

    Raises:
        ConfigError: no preset of that name; nothing is written.
    """
    from ..study.edge.config import PRESETS, edge_template, load_edge_config, validate_edge

    if preset not in DEMO_PRESETS:
        raise ConfigError(f"no preset '{preset}'; known: {sorted(DEMO_PRESETS)}")
    preset = DEMO_PRESETS[preset]
    path = directory / "study.yaml"
    takes = DEMO_TAKES[preset]
    if not path.is_file():
        write_study_file(path, edge_template(path.name, preset))
    elif load_edge_config(path) != validate_edge(PRESETS[preset], source=f"preset {preset}"):
        takes = f"{path} is there and differs from preset '{preset}', so the study in it continues"
    console.print(
        "Exits, quantization and mapping on real images (scikit-learn's digits) and a [bold]MODELLED[/] quad-core "
        "edge accelerator: "
        + escape(
            f"{takes}, nothing more to download. Interrupt at any time; the same command continues. Study file: {path}"
        ),
        soft_wrap=True,
    )
    run_whole_edge_loop(open_edge_study(path))


def edge_file(name: str, preset: str, changes: Mapping[str, Any]) -> str:
    """The text of a new study file."""
    from ..study.edge.config import edge_template

    return edge_template(name, preset, changes)


def describe_edge_space(name: str) -> None:
    """Print a space of exits and bits: its size, its genes, its mounting points and their work."""
    from ..spaces.quantized import LETTERS, edge_space

    chosen = edge_space(name)
    console.print(
        f"{name}: {chosen.cardinality:,} networks on one MobileNetV2 for {chosen.resolution} px images, "
        f"{len(chosen.variables)} genes; with bits per segment {edge_space(name, bits='per-segment').cardinality:,}"
    )
    genes = [
        (v.name, " ".join(map(_choice, v.choices if v.name == "bits" else ()))) for v in chosen.variables
    ]
    shown = [
        (gene, text or " ".join(map(str, v.choices)))
        for (gene, text), v in zip(genes, chosen.variables, strict=True)
    ]
    print_table(
        "exits: 0 = none, 1 or 2 fully connected layers; bits: backbone+heads", ("gene", "choices"), shown
    )
    rows = []
    for stage in chosen.stages(chosen.network(LETTERS)):
        heads = [chosen.head(stage.position, head_type) for head_type in (1, 2)]
        rows.append(
            (
                LETTERS[stage.position],
                "x".join(map(str, heads[0].in_shape)),
                f"{stage.cumulative_macs / 1e6:.2f}",
                f"{stage.cumulative_params / 1e3:.1f}",
                *(f"{head.params / 1e3:.1f}" for head in heads),
            )
        )
    columns = (
        "exit",
        "map",
        "MACs so far, M",
        "parameters so far, k",
        "head of 1 layer, k",
        "head of 2 layers, k",
    )
    print_table(f"mounting points at {chosen.n_classes} classes", columns, rows)


def _choice(value: int) -> str:
    """A gene of bits for people: 804 is 8 bits in the backbone, 4 in the heads."""
    return f"{value // 100}+{value % 100}"
