"""The report: nothing loaded, nothing left out, nothing simulated left unmarked."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hadas.datasets.records import Statistic, Target
from hadas.search.report import (
    AccuracySpread,
    CalibrationRow,
    ChosenRow,
    DesignRow,
    HypervolumeTrace,
    LedgerRow,
    PolicyNetwork,
    PolicyRow,
    PredictionCheck,
    ReportContent,
    RoundRow,
    write_report,
)
from hadas.search.report.calibration import calibration_charts, verdict
from hadas.search.report.figures import all_charts, staircase, strategy_style, wilson_interval
from hadas.search.report.gain import hypervolume_gain
from hadas.search.report.page import render_page
from hadas.search.report.policies import policy_finding
from hadas.search.report.wording import duration, percent, significant
from hadas.spaces import CLOCK_TABLES, PINNED, Exits, mini_space
from hadas.surrogates.calibration import CalibrationSummary
from hadas.surrogates.conformal import Correction

_HOSTILE = "</script><script>alert(1)</script>"


def sample_content(*, mark: str = "SIMULATED", energy: bool = True) -> ReportContent:
    """A report of plausible values; ``energy=False`` is a host CPU without a counter."""
    rng = np.random.default_rng(7)
    designs = _sample_designs(rng, energy)
    quantities = {"accuracy": "", **({"energy_mj": "mJ"} if energy else {}), "latency_ms": "ms"}
    checks = tuple(
        _sample_check(rng, quantity, unit, r)
        for quantity, unit in quantities.items()
        for r in (1, 2, 3)
        for _ in range(6)
    )
    rounds = tuple(
        RoundRow(
            r, 24 + 6 * r, 0.41 + 0.05 * r - 0.006 * r * r,
            dict.fromkeys(quantities, (5 + (r > 1)) / 6 if r else None),
            {q: 0.9 / (r + 1) * (-1) ** i if r else None for i, q in enumerate(quantities)},
            dict.fromkeys(quantities, 6 if r else 0), 1260.0 if r == 0 else 330.0, 38.0 if r == 0 else 21.0,
            0.009,
        )
        for r in range(4)
    )  # fmt: skip
    counts = tuple(range(4, 43))
    traces = tuple(
        HypervolumeTrace(name, counts[: n - 3], tuple(float(top * (1 - np.exp(-c / 11))) for c in counts[: n - 3]), 0.008)
        for name, top, n in (("hadas", 0.55, 42), ("presets optimized", 0.47, 18), ("backbone only", 0.49, 24), ("random", 0.44, 42))
    )  # fmt: skip
    target = Target("jetson-tx2", "pascal-gpu", "a1b2c3d4", "simulator 1", "fp32", 1)
    return ReportContent(
        study_name="digits on a TX2", mark=mark,
        target=target if energy else Target("host", "cpu", "linux", "torch 2.15", pinned=(("threads", "1"),)),
        data_name="digits", space_name="mini", seed=3, machine="2 cores, 8 GB",
        versions={"torch": "2.15", "botorch": "0.18.1"}, config_yaml=f"study: digits\nnote: '{_HOSTILE}'\n",
        designs=designs, rounds=rounds, traces=traces, checks=checks,
        ledger=(
            LedgerRow("networks measured on the device", 42, 2250.0, 53.6, "device"),
            LedgerRow("supernet training", 1, 96.0, None, "training"),
            LedgerRow("exits trained and evaluated", 17, 68.0, 4.0, "training"),
        ),
        chosen=tuple(_sample_chosen(row, energy) for row in designs if row.strategy == "hadas" and row.on_front),
        statements=(
            "Hypervolume is 12.3 % above the best baseline (presets optimized).",
            "The gain over backbone only lies inside the 90 % intervals.",
        ),
        accuracy_spread=AccuracySpread(0.031, 0.006, 17, 0.7),
        policies={
            place: _sample_policies(row, mark)
            for place, row in zip(("cheapest", "most accurate"), _ends(designs), strict=True)
        },
        policy_notes=("oracle: knows which exit is right.",),
        calibration=_sample_calibration(rng, tuple(quantities)),
    )  # fmt: skip


def _sample_calibration(rng: np.random.Generator, quantities: tuple[str, ...]) -> tuple[CalibrationRow, ...]:
    places = (
        ("seeds, held out", 48, 1.0, 0.0),
        ("proposed, held out", 24, 1.5, 0.2),
        ("proposed, beforehand", 18, 2.5, 0.9),
    )
    return tuple(
        CalibrationRow(q, where, sample_calibration(rng, n, spread, bias), None if q == "accuracy" else Correction(1.31, 0.22, 48, 24, 18))
        for q in quantities
        for where, n, spread, bias in places
    )  # fmt: skip


def sample_calibration(rng: np.random.Generator, n: int, spread: float, bias: float) -> CalibrationSummary:
    """Predictions of 3 with standard deviation 0.05, whose errors are spread and biased in units of it."""
    sd = np.full(n, 0.05)
    return CalibrationSummary.of_normal(
        np.full(n, 3.0), sd, 3.0 + sd * (bias + spread * rng.standard_normal(n))
    )


def _ends(designs: tuple[DesignRow, ...]) -> tuple[DesignRow, DesignRow]:
    front = [row for row in designs if row.strategy == "hadas" and row.on_front]
    return front[0], front[-1]


def _sample_policies(row: DesignRow, mark: str) -> PolicyNetwork:
    exits = Exits.at(row.exits, first_exit=mini_space().first_exit, n_blocks=18)

    def policy(name: str, gain: float, factor: float) -> PolicyRow:
        costs = {"energy_mj": row.energy_mj, "latency_ms": row.latency_ms}
        left = 0.0 if name == "final only" else 0.4
        return PolicyRow(
            name, name != "oracle", Statistic(row.accuracy + gain, 0.006, 540),
            {k: Statistic(factor * v, 0.01 * v, 540) for k, v in costs.items() if v is not None}, (left, 0.0, 1 - left),
        )  # fmt: skip

    rows = (policy("oracle", 0.03, 0.8), policy("final only", 0.004, 1.3), policy("max-softmax", 0.0, 1.0), policy("of others", -0.02, 0.9))  # fmt: skip
    return PolicyNetwork(row.name, row.arch_id, exits, row.setting, mark, rows)


def _sample_designs(rng: np.random.Generator, energy: bool) -> tuple[DesignRow, ...]:
    table = CLOCK_TABLES["tx2-pascal-gpu"] if energy else PINNED
    presets = list(mini_space().presets.values())
    rows: list[DesignRow] = []
    for strategy, n, handicap in (
        ("seed", 16, 4.0), ("random", 12, 3.0), ("backbone only", 8, 1.8), ("presets optimized", 7, 2.2),
        ("asked for", 3, 1.0), ("hadas", 18, 0.0),
    ):  # fmt: skip
        cost = np.sort(rng.uniform(9.0, 70.0, n))
        accuracy = (95 - 60 / cost**0.6 * 1.2 - handicap - rng.exponential(1.5, n)) / 100
        best = -np.inf
        if strategy == "seed":
            accuracy, best = accuracy - 0.02, np.inf  # no seed is on the loop's front
        for i in range(n):
            backbone = presets[i % len(presets)]
            on_front, best = bool(accuracy[i] > best), max(best, float(accuracy[i]))
            first = mini_space().first_exit
            rows.append(
                DesignRow(
                    strategy, f"{strategy} {i}", backbone.arch_id, backbone.describe(), (first, first + 1 + i % 5),
                    table.settings[int(rng.integers(len(table)))], float(accuracy[i]), 0.0055,
                    float(cost[i]) if energy else None, float(0.012 * cost[i]) if energy else None,
                    float(cost[i] / 3.1), on_front, -1 if strategy not in ("seed", "hadas") else 1 + i % 3,
                )
            )  # fmt: skip
    return tuple(rows)


def _sample_check(rng: np.random.Generator, quantity: str, unit: str, r: int) -> PredictionCheck:
    centre = {"accuracy": 0.88, "energy_mj": 25.0, "latency_ms": 8.0}[quantity]
    measured = float(centre * (1 + 0.04 * rng.standard_normal()))
    predicted = float(measured * (1 + 0.012 * rng.standard_normal()))
    half = 0.018 * centre
    return PredictionCheck(
        quantity, unit, f"mini-{r:012d}", r, predicted, predicted - half, predicted + half, measured
    )


def _sample_chosen(row: DesignRow, energy: bool) -> ChosenRow:
    def scaled(factor: float) -> float | None:
        return factor * row.energy_mj if energy and row.energy_mj is not None else None

    return ChosenRow(
        row.name, row.arch_id, row.backbone, row.exits, row.setting, row.accuracy - 0.002, 0.006,
        scaled(1.0), row.latency_ms, (0.42, 0.31, 0.27), row.accuracy + 0.03, scaled(0.8), 0.8 * row.latency_ms,
        (0.71, 0.14, 0.15), row.accuracy + 0.004, scaled(1.3), 1.3 * row.latency_ms, (0.871, 0.913),
    )  # fmt: skip


class _Loads(HTMLParser):
    """Collects every address that a browser would fetch by itself, and the visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in ("script", "style")
        fetching = {"src", "srcset", "data", "poster"} | ({"href"} if tag == "link" else set())
        self.addresses += [value or "" for name, value in attrs if name in fetching]

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.texts.append(data)


class _Nesting(HTMLParser):
    """Refuses an element that is closed out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


def _parsed(page: Path) -> _Loads:
    parser = _Loads()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(sample_content(), tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = sample_content(mark="", energy=False)
    return write_report(content, tmp_path_factory.mktemp("measured"))


def _figures(page: Path) -> dict[str, dict[str, object]]:
    found = re.search(
        r'<script type="application/json" id="figures">(.*?)</script>', page.read_text(encoding="utf-8")
    )
    assert found is not None

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON: a browser would draw no figure at all")

    return dict(json.loads(found.group(1), parse_constant=refuse))


def test_page_loads_nothing(simulated: Path) -> None:
    assert _parsed(simulated).addresses == []
    text = simulated.read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(\s*['\"]?http", text.split("</style>")[0])
    assert "default-src 'none'" in text


def test_page_carries_plotly_once_and_every_figure_has_its_place(simulated: Path) -> None:
    text = simulated.read_text(encoding="utf-8")
    assert 4e6 < len(text) < 8e6
    figures = _figures(simulated)
    assert {key.rsplit("-", 1)[0] for key in figures} == {c.key for c in all_charts(sample_content())}
    for key in figures:
        assert f'id="{key}"' in text


def test_elements_are_closed_in_order(simulated: Path, measured: Path) -> None:
    for page in (simulated, measured):
        parser = _Nesting()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.open == []


def test_figures_are_what_plotly_accepts(simulated: Path) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    for figure in _figures(simulated).values():
        drawn = graph_objects.Figure(figure)  # refuses unknown properties and values
        assert any(len(trace.x) for trace in drawn.data)


def test_unknown_standard_errors_do_not_spoil_the_page(tmp_path: Path) -> None:
    content = sample_content()
    nan = float("nan")
    vague = replace(
        content,
        designs=tuple(replace(row, accuracy_se=nan, energy_se=None) for row in content.designs),
        rounds=tuple(
            replace(r, hypervolume_standard_error=nan, bias=dict.fromkeys(r.bias, nan), coverage_90={})
            for r in content.rounds
        ),
    )
    page = write_report(vague, tmp_path)
    assert set(_figures(page)) >= {"front-0", "hypervolume-0"}
    text = " ".join(_parsed(page).texts)
    assert percent(content.designs[0].accuracy) in text
    assert not re.search(r"\bnan\b", text)


def test_page_contains_every_row(simulated: Path) -> None:
    content = sample_content()
    text = " ".join(_parsed(simulated).texts)
    for statement in content.statements:
        assert statement in text
    for row in content.designs:
        assert row.name in text
        assert percent(row.accuracy, row.accuracy_se) in text
        assert significant(row.energy_mj) in text
    for chosen in content.chosen:
        assert percent(chosen.oracle_accuracy) in text
        assert significant(chosen.oracle_energy_mj) in text
        assert all(f"{hz / 1e6:g}\xa0MHz" in text for _, hz in chosen.setting.clocks_hz)
        assert chosen.backbone in text
    for expense in content.ledger:
        assert expense.what in text
        assert duration(expense.seconds) in text
    for one in content.rounds:
        assert significant(one.hypervolume, 4) in text
    assert "an upper bound that no controller reaches" in text
    assert policy_finding(content.policies) in text
    for network in content.policies.values():
        for policy in network.rows:
            assert policy.policy in text
            assert percent(policy.accuracy.value, policy.accuracy.standard_error) in text
            assert significant(policy.costs["energy_mj"].value) in text
    assert content.policy_notes[0] in text


def test_text_of_others_cannot_become_markup(tmp_path: Path) -> None:
    content = sample_content()
    hostile = replace(
        content,
        study_name=_HOSTILE,
        statements=(_HOSTILE,),
        designs=(replace(content.designs[0], name=_HOSTILE, strategy=_HOSTILE), *content.designs),
        ledger=(replace(content.ledger[0], what=_HOSTILE),),
    )
    text = write_report(hostile, tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in text


def test_simulated_costs_are_marked_everywhere(simulated: Path) -> None:
    page = simulated.read_text(encoding="utf-8")
    sections = re.findall(r"<section.*?</section>", page, flags=re.S)
    assert len(sections) >= 9
    assert all("SIMULATED" in section for section in sections)
    assert "SIMULATED" in page.split("</title>")[0]
    for figure in _figures(simulated).values():
        assert figure["layout"]["annotations"][0]["text"] == "SIMULATED"  # type: ignore[index]
    tables = sorted(simulated.parent.glob("*.csv"))
    assert [t.stem for t in tables] == [
        "calibration",
        "chosen",
        "designs",
        "hypervolume",
        "ledger",
        "policies",
        "predictions",
        "rounds",
    ]
    for table in tables:
        for row in _csv(table):
            real = row.get("kind") == "training" or row.get("quantity") == "accuracy"
            assert row["truth"] == ("measured" if real else "SIMULATED")
    assert {row["truth"] for row in _csv(simulated.parent / "ledger.csv")} == {"SIMULATED", "measured"}


def test_measured_costs_are_not_marked(measured: Path) -> None:
    assert "SIMULATED" not in measured.read_text(encoding="utf-8")
    for table in measured.parent.glob("*.csv"):
        assert {row["truth"] for row in _csv(table)} == {"measured"}


def test_png_of_a_simulated_study_differs_by_its_mark(simulated: Path, tmp_path: Path) -> None:
    unmarked = write_report(sample_content(mark=""), tmp_path)
    names = {path.name for path in simulated.parent.glob("*.png")}
    assert names == {f"{chart.key}.png" for chart in all_charts(sample_content())}
    for name in names:
        with Image.open(simulated.parent / name) as with_mark, Image.open(unmarked.parent / name) as without:
            a, b = (np.asarray(image.convert("L"), dtype=float) for image in (with_mark, without))
            assert a.shape == b.shape
            assert a.std() > 5
            height = a.shape[0]
            assert (a[: height // 5] != b[: height // 5]).any()
            assert (a[height // 3 :] != b[height // 3 :]).any()


def test_csv_keeps_every_value_exactly(simulated: Path) -> None:
    content = sample_content()
    designs = _csv(simulated.parent / "designs.csv")
    assert len(designs) == len(content.designs)
    for row, design in zip(designs, content.designs, strict=True):
        assert float(row["accuracy"]) == design.accuracy
        assert float(row["energy_mj"]) == design.energy_mj
        assert float(row["latency_ms"]) == design.latency_ms
        assert (int(row["gpu_hz"]), int(row["emc_hz"])) == (
            design.setting.hz("gpu"),
            design.setting.hz("emc"),
        )
        assert tuple(map(int, row["exits"].split())) == design.exits
    checks = _csv(simulated.parent / "predictions.csv")
    assert [float(row["measured"]) for row in checks] == [c.measured for c in content.checks]
    traced = _csv(simulated.parent / "hypervolume.csv")
    assert [float(r["hypervolume"]) for r in traced] == [v for t in content.traces for v in t.hypervolume]
    chosen = _csv(simulated.parent / "chosen.csv")
    assert [tuple(map(float, row["exit_shares"].split())) for row in chosen] == [
        c.exit_shares for c in content.chosen
    ]
    expected = [(place, r) for place, network in content.policies.items() for r in network.rows]
    for row, (place, policy) in zip(_csv(simulated.parent / "policies.csv"), expected, strict=True):
        assert (row["place"], row["policy"], row["causal"]) == (place, policy.policy, str(policy.causal))
        assert float(row["accuracy"]) == policy.accuracy.value
        assert float(row["energy_mj_se"]) == policy.costs["energy_mj"].standard_error
        assert tuple(map(float, row["shares"].split())) == policy.shares


def test_without_energy_latency_is_the_cost(measured: Path) -> None:
    front, policies = all_charts(sample_content(mark="", energy=False))[:2]
    assert "latency" in front.panels[0].x.title
    assert (policies.key, ["latency" in panel.x.title for panel in policies.panels]) == (
        "policies",
        [True, True],
    )
    assert all(not series.x_error for series in front.panels[0].series)
    text = " ".join(_parsed(measured).texts)
    assert "energy, mJ" not in text
    assert all(row["energy_mj"] == "" for row in _csv(measured.parent / "designs.csv"))
    assert "gpu_hz" not in _csv(measured.parent / "designs.csv")[0]


def test_unfinished_study_has_a_report(tmp_path: Path) -> None:
    content = sample_content()
    bare = replace(
        content, designs=content.designs[:3], rounds=content.rounds[:1], traces=(), checks=(), chosen=(), ledger=(),
        statements=(), accuracy_spread=None, policies={}, calibration=(),
    )  # fmt: skip
    page = write_report(bare, tmp_path)
    assert [path.stem for path in tmp_path.glob("*.png")] == ["front"]
    assert content.designs[2].name in " ".join(_parsed(page).texts)
    nothing = replace(bare, designs=(), rounds=())
    assert "How this was made" in write_report(nothing, tmp_path / "empty").read_text(encoding="utf-8")


def test_same_content_gives_same_files(simulated: Path, tmp_path: Path) -> None:
    write_report(sample_content(), tmp_path)
    for path in simulated.parent.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def _network(*rows: tuple[str, float, float, float]) -> PolicyNetwork:
    """One network from (policy, accuracy, energy, its error); every accuracy has a standard error of 0.02."""
    return PolicyNetwork(
        "m0", "mini-0", Exits(3, (1, 0)), None, "SIMULATED",
        tuple(
            PolicyRow(
                name, name != "oracle", Statistic(accuracy, 0.02, 100), {"energy_mj": Statistic(mj, error, 100)}, (0.5, 0.5)
            )
            for name, accuracy, mj, error in rows
        ),
    )  # fmt: skip


def test_finding_on_policies_says_no_more_than_the_errors_allow() -> None:
    final, bound = ("final only", 0.90, 10.0, 0.1), ("oracle", 0.95, 2.0, 0.1)
    poor, clear = ("poor", 0.87, 3.0, 0.1), ("clear", 0.89, 7.0, 0.1)
    found = policy_finding(
        {
            # 6.0 and 6.2 differ by less than 1.96 x 0.141; 40 % has the error 0.6 x hypot(0.1 / 6, 0.1 / 10).
            "cheapest": _network(bound, final, poor, clear, ("b", 0.90, 6.2, 0.1), ("a", 0.885, 6.0, 0.1)),
            "middle": _network(bound, final, poor, ("a", 0.90, 9.9, 0.1)),
            "most accurate": _network(bound, final, poor, ("a", 0.92, 10.5, 0.1)),
        }
    )
    assert found.startswith("Cheapest causal policy by SIMULATED costs whose accuracy")
    assert found.split("end: ")[1] == (
        "on the cheapest network (m0) a, 40.0 ± 1.2 % less energy, not told apart from b; "
        "on the middle network (m0) a, 1.0 ± 1.4 % less energy, which lies inside its 95 % interval; "
        "on the most accurate network (m0) none that costs less than running to the end."
    )


def _trace(name: str, last: int, top: float, error: float | None) -> HypervolumeTrace:
    counts = tuple(range(4, last + 1))
    return HypervolumeTrace(name, counts, tuple(top * (0.5 + n / 40) for n in counts), error)


def test_gain_is_taken_at_equal_numbers_of_measurements() -> None:
    gain = hypervolume_gain([_trace("random", 10, 0.4, 0.03), _trace("hadas", 20, 0.5, 0.04)])
    assert gain is not None
    assert (gain.baseline, gain.n_measurements) == ("random", 10)
    # Both at 10: 0.375 against 0.3; the errors 0.03 and 0.04 combine to 0.05.
    assert gain.relative == pytest.approx(0.25)
    assert gain.half_width_95 == pytest.approx(1.96 * 0.05 / 0.3)


def test_gain_is_that_over_the_strongest_baseline() -> None:
    loop = _trace("hadas", 20, 0.5, 0.01)
    others = [_trace("random", 20, 0.3, 0.01), _trace("backbone only", 8, 0.45, 0.01), _trace("asked for", 20, 0.6, 0.01)]  # fmt: skip
    gain = hypervolume_gain([*others, loop])
    assert gain is not None
    assert gain.baseline == "backbone only"
    assert hypervolume_gain([loop]) is None
    assert hypervolume_gain(others) is None
    assert hypervolume_gain([loop, replace(others[1], hypervolume_standard_error=None)]) is None


def test_headline_tells_a_gain_from_noise() -> None:
    content = sample_content()

    def tiles(error: float | None) -> str:
        traces = tuple(replace(trace, hypervolume_standard_error=error) for trace in content.traces)
        page = render_page(replace(content, traces=traces), ())
        return page.split('<div class="facts">')[1].split("</header>")[0]

    # 0.55 against 0.49 of the strongest baseline, backbone only, at 24 measurements each.
    assert "<b>+12.2 %</b>" in tiles(0.005)
    assert "best baseline (backbone only) at 24 measurements each" in tiles(0.005)
    assert "<b>inside its interval</b>" in tiles(0.05)
    assert "hypervolume" not in tiles(None)


def test_every_line_of_the_front_runs_through_the_seeds() -> None:
    content = sample_content()

    def design(strategy: str, accuracy: float, energy_mj: float) -> DesignRow:
        return replace(
            content.designs[0], strategy=strategy, accuracy=accuracy, energy_mj=energy_mj, on_front=False
        )

    designs = (
        design("seed", 0.5, 10.0), design("seed", 0.4, 12.0), design("hadas", 0.7, 20.0),
        design("random", 0.6, 15.0), design("asked for", 0.65, 20.0), design("asked for", 0.3, 30.0),
    )  # fmt: skip
    front = all_charts(replace(content, designs=designs))[0]
    lines = {s.name: [*zip(s.x, s.y, strict=True)] for s in front.panels[0].series if s.kind == "line"}
    assert set(lines) == {"hadas", "random", "asked for"}
    for name, cost, accuracy in (("hadas", 20.0, 70.0), ("random", 15.0, 60.0), ("asked for", 20.0, 65.0)):
        expected = [(10.0, 50.0), (cost, 50.0), (cost, accuracy), (30.9, accuracy)]
        np.testing.assert_allclose(lines[name], expected)
    seeds_only = all_charts(replace(content, designs=designs[:2]))[0].panels[0].series
    assert [s.name for s in seeds_only if s.kind == "line"] == ["seed"]


def test_points_that_miss_the_constraints_look_so_and_bend_no_line(simulated: Path) -> None:
    content = sample_content()
    kept, missing = (
        replace(content.designs[0], strategy=s, accuracy=a, energy_mj=e, on_front=False, meets_constraints=m)
        for s, a, e, m in (("random", 0.6, 10.0, True), ("random", 0.7, 20.0, False))
    )
    limited = replace(content, designs=(kept, missing), constraints="latency at most 20 ms")
    chart = all_charts(limited)[0]
    drawn = {(s.name, s.kind, s.symbol): (s.x, s.y) for s in chart.panels[0].series}
    assert drawn["random", "points", "triangle"] == ((10.0,), (60.0,))
    assert drawn["misses constraints", "points", "plus"] == ((20.0,), (70.0,))
    assert max(drawn["random", "line", "circle"][1]) == 60.0
    assert [entry.name for entry in chart.legend] == ["random", "misses constraints"]
    assert "(latency at most 20 ms): 1 of 2 miss them and lie on no line." in chart.reading
    assert "constraints" not in " ".join(_parsed(simulated).texts)


def test_a_table_that_a_later_report_has_not_is_taken_away(tmp_path: Path) -> None:
    few = replace(sample_content(), designs=(), traces=(), checks=(), rounds=(), calibration=())
    write_report(few, tmp_path)
    assert (tmp_path / "chosen.csv").is_file()
    write_report(replace(few, chosen=(), policies={}), tmp_path)
    assert [(tmp_path / f"{name}.csv").is_file() for name in ("chosen", "policies", "ledger")] == [
        False,
        False,
        True,
    ]


def test_what_the_user_asked_for_looks_like_no_other_strategy() -> None:
    named = ["seed", "random", "backbone only", "presets optimized", "hadas", "made up", "asked for"]
    styles = [strategy_style(name) for name in named]
    assert len({colour for colour, _, _ in styles}) == len(named)
    assert [symbol for _, symbol, _ in styles].count(styles[-1][1]) == 1


def test_a_dominated_point_leaves_no_corner_on_the_front() -> None:
    x, y = staircase([(3.0, 80.0), (1.0, 70.0), (2.0, 60.0)], right=4.0)
    assert (x, y) == ((1.0, 3.0, 3.0, 4.0), (70.0, 70.0, 80.0, 80.0))


@given(
    st.lists(st.tuples(st.floats(1, 100), st.floats(0, 100)), min_size=1, max_size=20),
    st.floats(1, 100),
)
def test_front_line_is_the_best_accuracy_at_or_below_a_cost(
    points: list[tuple[float, float]], cost: float
) -> None:
    x, y = staircase(points, right=101.0)
    attainable = [accuracy for c, accuracy in points if c <= cost]
    drawn = [accuracy for c, accuracy in zip(x, y, strict=True) if c <= cost]
    assert (max(drawn) if drawn else None) == (max(attainable) if attainable else None)
    assert list(x) == sorted(x)
    assert list(y) == sorted(y)


def test_wilson_interval_golden_values() -> None:
    # 9 of 10 at z = 1.645: centre (0.9 + 0.1353) / 1.2706 = 0.8148, half-width 0.1626.
    assert wilson_interval(0.9, 10) == pytest.approx((0.6522, 0.9774), abs=2e-4)
    low, high = wilson_interval(1.0, 6)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx(6 / (6 + 1.645**2))


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (1234.5, "1234"), (9.996, "10.0"), (0.0, "0"), (None, "–")]
)
def test_numbers_keep_three_digits(value: float | None, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (9.5, "9.5 s"), (96, "96 s"), (2250, "37.5 min"), (9000, "2.5 h")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("n", "spread", "bias", "said"),
    [
        (200, 1.0, 0.0, "holds"),
        (200, 2.0, 0.0, "intervals too narrow"),
        (200, 0.3, 0.0, "wider than need be"),
        (200, 1.0, 0.6, "measured more than predicted by 0.59 sd"),
        (200, 1.0, -0.6, "measured less than predicted by 0."),
        (12, 3.0, 2.0, "too few backbones to tell (12 with 12 points;"),
    ],
)
def test_verdicts_on_predictions_say_what_is_wrong_and_nothing_else(
    n: int, spread: float, bias: float, said: str
) -> None:
    summary = sample_calibration(np.random.default_rng(2), n, spread, bias)
    words = verdict(CalibrationRow("latency_ms", "seeds, held out", summary))
    assert said in words
    assert words.count(";") == (1 if n < 20 else 0)


def test_designs_of_one_backbone_are_no_evidence_by_themselves() -> None:
    """36 points, three quarters inside: too few if right and independent, and nothing of 12 backbones at 3 clocks."""
    z = np.where(np.arange(36) % 4, 0.5, 2.5) * np.where(np.arange(36) % 8 < 4, 1, -1)
    alone, of_twelve, of_thirty = (
        CalibrationRow(
            "accuracy", "seeds, held out", CalibrationSummary.of_normal(np.zeros(36), np.ones(36), z, groups)
        )
        for groups in (None, np.arange(36) // 3, np.minimum(np.arange(36), 29))
    )
    assert verdict(alone).startswith("intervals too narrow: 75 % inside")
    assert verdict(of_thirty).startswith("intervals too narrow: 75 % inside")
    assert verdict(of_twelve) == "too few backbones to tell (12 with 36 points; 20 at least)"
    assert calibration_charts([of_twelve]) == ()


def test_calibration_is_shown_in_words_table_and_figures(simulated: Path) -> None:
    text = " ".join(_parsed(simulated).texts)
    assert "too few backbones to tell (18 with 18 points; 20 at least)" in text
    assert (
        "Intervals predicted next are 1.31 times as wide as the model says and their middle is moved by +0.22 sd"
        in text
    )
    assert "Intervals are not corrected yet: too few backbones" in text
    assert (
        "Not drawn, because fewer than 20 backbones say too little: accuracy, proposed, beforehand (18); "
        "energy, proposed, beforehand (18); latency, proposed, beforehand (18)." in text
    )
    rows = _csv(simulated.parent / "calibration.csv")
    assert [row["predictions"] for row in rows[:3]] == [
        "seeds, held out",
        "proposed, held out",
        "proposed, beforehand",
    ]
    assert {row["truth"] for row in rows if row["quantity"] == "accuracy"} == {"measured"}
    assert {row["truth"] for row in rows if row["quantity"] == "latency_ms"} == {"SIMULATED"}
    assert sum(float(share) for share in rows[0]["pit"].split()) == pytest.approx(1.0)


def test_figures_of_calibration_leave_out_what_too_few_points_would_draw() -> None:
    rows = sample_content().calibration
    reliability, pit = calibration_charts(rows)
    assert {series.name for panel in reliability.panels for series in panel.series} == {
        "",
        "seeds, held out",
        "proposed, held out",
    }
    assert len(reliability.panels) == len(pit.panels) == 3
    assert calibration_charts([row for row in rows if row.summary.n < 20]) == ()
