"""The report of an edge study: one self-contained page, and PNG and CSV beside it; costs are marked MODELLED."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ...errors import StudyError
from ...search.report.charts import Chart
from ...search.report.chosen import share_bar
from ...search.report.export import Cell, write_csv, write_png
from ...search.report.frame import banner, chart_section, findings, header, html_page, provenance
from ...search.report.markup import Columns, escaped, section, table
from ...search.report.wording import duration, percent, significant
from ...spaces.quantized import LETTERS
from ..reporting import LIBRARIES, machine
from .figures import checks_chart, front_chart, hypervolume_chart, shares_chart
from .findings import EdgeCheck, EdgePoint, EdgeRound
from .savings import SAVING_COLUMNS, accuracy_against, described, headline, saving_rows, savings, shown_exits
from .tables import front_table, statements

if TYPE_CHECKING:
    from ..assembly import ProgressCallback
    from .loop import EdgeStudy

_SAID = (
    "energy, cycles, latency and all that is made of them on this page come from an analytical cost model (zigzag-dse), "
    "not from a device. Accuracy and shares of samples are measured: every network was trained with its quantizers."
)
_SAVING_NOTE = (
    "Networks with early exits were picked on the calibration split (the cheapest at most one standard error of the "
    "static network less accurate, and the cheapest that is not less accurate; of the static network's own bits, at last "
    "of any bits, where fewer bits save, too); accuracy and ET_avg are judged on the test split, "
    "which no choice has seen. ± of ET_avg is that of the shares; the modelled costs have no standard error."
)
_FRONT_NOTE = (
    "Networks that none dominates in error, ET_avg and head share on the calibration split, judged on the test split, "
    "cheapest first; then the static networks. Letters are exits, digits the layers of their heads. 'Less than its static' compares with the same backbone at the same "
    "bits with its own final head alone, whatever its accuracy; a final head of two layers is dear, and makes it look "
    "large. Head share is of the expected energy."
)


@dataclass(frozen=True)
class _Page:
    """What the page is made of."""

    study: EdgeStudy
    points: list[EdgePoint]
    front: list[EdgePoint]
    rounds: list[EdgeRound]
    checks: list[EdgeCheck]

    @property
    def mark(self) -> str:
        """Written over everything that shows costs."""
        return self.study.findings.mark


def write_edge_report(study: EdgeStudy, progress: ProgressCallback) -> Path:
    """Write the report of all that is trained so far; returns the page.

    Raises:
        StudyError: no round is finished yet.
    """
    study.check_begun()
    found = study.findings
    points = found.points()
    if not points:
        raise StudyError(f"study '{study.config.study}': nothing is trained yet; run: hadas run {study.path}")
    progress("writing the report", 0, 1)
    rounds = found.summaries()
    checks = [check for one in rounds for check in found.checks(one.number)]
    page = _Page(study, points, found.front(points), rounds, checks)
    # The report of study.yaml lies beside it; those of other files have a folder of their own.
    folder = study.directory if study.path.stem == "study" else study.directory / study.path.stem
    folder.mkdir(parents=True, exist_ok=True)
    charts = _charts(page)
    for chart in charts:
        write_png(chart, folder / f"{chart.key}.png", mark=page.mark if chart.holds_costs else "")
    for name, rows in _csv_tables(page).items():
        write_csv(folder / f"{name}.csv", rows)
    path = folder / "report.html"
    path.write_text(_html(page, charts), encoding="utf-8")
    progress("writing the report", 1, 1)
    return path


def _charts(page: _Page) -> list[Chart]:
    charts = [front_chart(page.points, page.front)]
    if (shares := shares_chart(page.front)) is not None:
        charts.append(shares)
    if tested := [check for check in page.checks if not check.certain]:
        charts.append(checks_chart(tested))
    charts.append(
        hypervolume_chart([one.n_trained for one in page.rounds], [one.hypervolume for one in page.rounds])
    )
    return charts


# -- the page ------------------------------------------------------------------------------------


def _html(page: _Page, charts: Sequence[Chart]) -> str:
    study, config = page.study, page.study.config
    accelerator = study.parts.accelerator
    by_key = {chart.key: chart for chart in charts}
    lead = (
        f"{accelerator.name}: {study.parts.cores_used} · {study.parts.data.name} · space {config.space}, bits "
        f"{config.bits} · seed {config.seed}"
    )
    parts = [
        banner(page, _SAID),
        "<main>",
        header(page, config.study, lead, _facts(page)),
        findings(page, statements(study.findings)),
        chart_section(page, by_key["front"]),
        _text_table(
            page,
            "ET_avg against static networks",
            _SAVING_NOTE,
            SAVING_COLUMNS,
            saving_rows(page.points),
            "savings",
        ),
        _text_table(page, "Front", _FRONT_NOTE, *front_table(study.findings), "chosen"),
        _cards(page),
        *(
            chart_section(page, by_key[key])
            for key in ("shares", "predictions", "hypervolume")
            if key in by_key
        ),
        _rounds(page),
        _all_points(page),
        provenance(page, _made(page), yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)),
        "</main>",
    ]
    return html_page(page, config.study, parts, charts)


def _facts(page: _Page) -> list[tuple[str, str]]:
    last = page.rounds[-1]
    facts = [(str(last.n_trained), f"networks trained in {len(page.rounds)} rounds, the seeds included")]
    facts.append((str(len(page.front)), "of them on the front"))
    saving = headline(page.points)
    if saving is not None and (found := saving.within) is not None:
        static = saving.static
        facts.append(
            (
                f"{-100 * saving.reduction(found)[0]:+.0f} %",
                f"ET_avg of {described(found)} against no early exits at the same bits; accuracy "
                f"{accuracy_against(static, found)}",
            )
        )
    seconds = sum(one.seconds for one in page.rounds)
    facts.append(
        (duration(seconds), "of training, summed over networks that may have been trained side by side")
    )
    return facts


def _text_table(
    page: _Page, title: str, note: str, columns: Sequence[str], rows: Sequence[Sequence[str]], key: str
) -> str:
    numeric = {
        "accuracy",
        "its accuracy",
        "its ET, J x cycles",
        "ET_avg, J x cycles",
        "ET_avg less",
        "head share",
        "less than its static",
    }
    shown: Columns = [(column, column in numeric) for column in columns]
    body = table(shown, [[escaped(cell) for cell in row] for row in rows])
    return section(page, title, f'<p class="note">{escaped(note)}</p>{body}', key=key)


def _cards(page: _Page) -> str:
    """Where images leave each network of the front, and at which confidence."""
    if not page.front:
        return ""
    cards = []
    for point in page.front:
        exits = point.network.exits
        places = [LETTERS[i] for i in exits]
        thresholds = ", ".join(
            f"{value:g} at {place}" for value, place in zip(point.test.thresholds[:-1], places, strict=False)
        )
        cards.append(
            f'<article class="card"><h3>{escaped(point.name)}: {escaped(shown_exits(point))}, bits {escaped(point.bits)}</h3>'
            + share_bar("test split", places, point.test.shares)
            + (f"<p>leave at confidence ≥ {escaped(thresholds)}</p>" if thresholds else "")
            + f'<p class="mono">{escaped(point.network.network_id)}</p></article>'
        )
    body = f'<details><summary>Where images leave, and thresholds</summary><div class="cards">{"".join(cards)}</div></details>'
    return section(page, "Exits of the front", body, key="exits", holds_costs=False)


def _rounds(page: _Page) -> str:
    columns: Columns = [
        ("round", True), ("networks", True), ("hypervolume", True), ("accuracy inside 90 %", True),
        ("ET_avg inside 90 %", True), ("head share inside 90 %", True), ("training", True),
    ]  # fmt: skip
    rows = []
    for one in page.rounds:
        held = [
            f"{one.inside_90[q][0]} of {one.inside_90[q][1]}" if q in one.inside_90 else "–"
            for q in ("accuracy", "et_average", "head_share")
        ]
        rows.append(
            [
                str(one.number),
                str(one.n_trained),
                significant(one.hypervolume, 4),
                *held,
                duration(one.seconds),
            ]
        )
    failed = [f"{key}: {reason}" for one in page.rounds for key, reason in one.failed]
    items = "".join(f"<li>{escaped(line)}</li>" for line in failed)
    trouble = f'<p class="note">Trainings that failed:</p><ul>{items}</ul>' if failed else ""
    return section(page, "Rounds", table(columns, rows) + trouble, key="rounds")


def _all_points(page: _Page) -> str:
    columns: Columns = [
        ("network", False), ("by", False), ("round", True), ("front", False), ("exits", False), ("bits", False),
        ("accuracy", True), ("ET_avg, J x cycles", True), ("energy, mJ", True), ("latency, ms", True), ("head share", True),
    ]  # fmt: skip
    rows = []
    for p in page.points:
        state = "yes" if p in page.front else ("" if p.feasible else "misses constraints")
        rows.append([
            escaped(p.name), escaped(p.strategy), str(p.round), state, escaped(shown_exits(p)), escaped(p.bits),
            percent(p.search.accuracy, p.search.accuracy_se), significant(p.search.et_average),
            significant(p.search.energy_mj), significant(p.search.latency_ms), percent(p.search.head_share),
        ])  # fmt: skip
    note = '<p class="note">On the calibration split, cross-fitted: what the search may use; ± is one standard error.</p>'
    body = f"<details><summary>Show all {len(rows)} networks</summary>{table(columns, rows, tall=True)}</details>"
    return section(page, "All trained networks", note + body, key="points")


def _made(page: _Page) -> list[tuple[str, str]]:
    study = page.study
    accelerator, parts = study.parts.accelerator, study.parts
    constants = [(f"accelerator: {name}", source) for name, source in accelerator.sources]
    return [
        ("accelerator", f"{accelerator.name}: {parts.cores_used}"),
        (
            "link",
            f"{accelerator.link_bits_per_cycle:g} bits per cycle, {accelerator.link_pj_per_bit:g} pJ per bit",
        ),
        ("core_hz", f"{accelerator.core_hz:,} Hz"),
        *constants,
        (
            "cost model",
            f"zigzag-dse {_version('zigzag-dse')}, lpf_limit {study.config.accelerator.lpf_limit}",
        ),
        ("data", f"{parts.data.name}, {parts.data.split_id}"),
        ("recipe", parts.recipe.recipe_id),
        ("seed", str(study.config.seed)),
        ("host", machine()),
        ("versions", ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)),
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


# -- CSV -----------------------------------------------------------------------------------------


def _csv_tables(page: _Page) -> dict[str, list[dict[str, Cell]]]:
    """Every table, values unrounded."""
    front = {id(point) for point in page.front}
    tables: dict[str, list[dict[str, Cell]]] = {
        "networks": [_csv_point(point, on_front=id(point) in front, mark=page.mark) for point in page.points],
        "savings": [
            {
                "static_bits": saving.static.bits, "networks_of": "same bits" if saving.same_bits else "any bits",
                "bar": bar, "network": None if found is None else found.network.network_id,
                "accuracy_test": None if found is None else found.test.accuracy,
                "static_accuracy_test": saving.static.test.accuracy,
                "left_out_by_constraints": saving.limits_decide,
                "et_average_reduction_test": None if found is None else saving.reduction(found)[0],
                "truth": page.mark,
            }
            for saving in savings(page.points)
            for bar, found in (("within one standard error", saving.within), ("strict", saving.strict))
        ],
        "predictions": [
            {
                "quantity": c.quantity, "network": c.trained_id, "round": c.round, "predicted": c.predicted,
                "low_90": c.low_90, "high_90": c.high_90, "found": c.found, "certain": c.certain,
                "truth": "measured" if c.quantity == "accuracy" else page.mark,
            }
            for c in page.checks
        ],
        "rounds": [
            {
                "round": one.number, "n_trained": one.n_trained, "hypervolume": one.hypervolume,
                "training_s": one.seconds, "truth": page.mark,
            }
            for one in page.rounds
        ],
    }  # fmt: skip
    return tables


def _csv_point(point: EdgePoint, *, on_front: bool, mark: str) -> dict[str, Cell]:
    cells: dict[str, Cell] = {
        "name": point.name, "network": point.network.network_id, "by": point.strategy, "round": point.round,
        "on_front": on_front, "meets_constraints": point.feasible, "exits": point.network.letters, "bits": point.bits,
    }  # fmt: skip
    for split, found in (("calibration", point.search), ("test", point.test)):
        cells |= {
            f"accuracy_{split}": found.accuracy, f"accuracy_{split}_se": found.accuracy_se,
            f"et_average_{split}_j_cycles": found.et_average, f"et_average_{split}_se": found.et_average_se,
            f"energy_{split}_mj": found.energy_mj, f"latency_{split}_ms": found.latency_ms,
            f"head_share_{split}": found.head_share, f"shares_{split}": " ".join(map(repr, found.shares)),
        }  # fmt: skip
    return cells | {"et_static_j_cycles": point.test.et_static, "truth": mark}
